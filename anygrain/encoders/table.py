"""Numbers in columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.encoders.encoder import Encoder


class Table(Encoder):
    r"""Columns of numbers, centred and scaled: :math:`z_{id} = (x_{id} - m_d) / s_d`.

    s is the standard deviation of the column; where the columns are alike already (the largest standard deviation is
    below `alike` times the median one: an embedding, pixels, word shares) one common scale keeps their proportions.
    A constant column becomes 0.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, alike: float = 8.0) -> None:
        super().__init__()
        self.alike = alike
        self.register_buffer("mean", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(0, dtype=torch.float64))

    @property
    def feature_dim(self) -> int:  # type: ignore[override]
        return len(self.mean)

    def config(self) -> dict[str, Any]:
        return {"alike": self.alike}

    def learn(self, data: Any, seed: int = 0) -> Table:
        values = np.asarray(data, dtype=np.float64)
        self.mean = torch.from_numpy(values.mean(axis=0))
        deviation = torch.from_numpy(values.std(axis=0))
        # a standard deviation at the level of rounding errors is that of a constant column
        constant = deviation <= 1e-10 * torch.from_numpy(np.abs(values).max(axis=0))
        varying = deviation[~constant]
        if len(varying) and float(varying.max()) < self.alike * float(varying.median()):
            deviation = torch.full_like(deviation, float(varying.square().mean().sqrt()))
        self.scale = torch.where(constant, torch.inf, deviation)
        return self

    def forward(self, data: Any) -> Tensor:
        values = torch.from_numpy(np.require(data, dtype=np.float64, requirements="W"))
        return ((values - self.mean.cpu()) / self.scale.cpu()).float()
