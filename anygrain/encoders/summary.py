"""Bags of instances as summaries of their columns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anygrain.encoders.bags import segments
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.table import Table
from anygrain.labels import LabelError


class Summary(Encoder):
    r"""Mean, largest, smallest and deviation of every column over the instances of a bag, and the log of its size:

    .. math:: z_m = \Big(\tfrac1n \sum_i x_i,\; \max_i x_i,\; \min_i x_i,\; \sqrt{\tfrac1n \sum_i (x_i - \bar x)^2},\;
              \log n\Big) \in \mathbb R^{4 d + 1}

    centred and scaled over bags. Instances are read a chunk of whole bags at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.columns = Table(alike=0.0)  # columns that are summaries of different sorts are never alike

    @property
    def feature_dim(self) -> int:  # type: ignore[override]
        return self.columns.feature_dim

    def learn(self, data: Any, seed: int = 0) -> Summary:
        self.columns.learn(summaries(data).numpy(), seed=seed)
        return self

    def forward(self, data: Any) -> Tensor:
        found = summaries(data)
        if found.shape[1] != self.feature_dim:
            raise LabelError(
                f"X has instances of {(found.shape[1] - 1) // 4} features, the model was fitted to "
                f"{(self.feature_dim - 1) // 4}"
            )
        encoded: Tensor = self.columns(found.numpy())
        return encoded


def summaries(data: Any) -> Tensor:
    """(M, 4 d + 1), in double precision."""
    if not hasattr(data, "instances"):
        raise LabelError(f"X is {type(data).__name__}; expected BagData, such as BagData.from_ids(X, ids)")
    found = []
    for part in data.instances():
        values, sizes = part["features"].double(), part["sizes"]
        columns = [f(values, sizes) for f in (segments.mean, segments.maximum, segments.minimum, segments.deviation)]
        found.append(torch.cat([*columns, sizes.double().log()[:, None]], dim=1))
    return torch.cat(found)
