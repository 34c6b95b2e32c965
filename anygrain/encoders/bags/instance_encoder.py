"""How a trained encoder of bags sees one instance."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from anygrain.encoders.bags.bag_encoder import BagEncoder
from anygrain.encoders.encoder import Encoder
from anygrain.labels import LabelError


class InstanceEncoder(Encoder):
    r"""Rows (N, d) to :math:`h_i = \mathrm{gelu}(W \tilde x_i + b)` of a `BagEncoder`, which stays as it is.

    What labels of sets have taught, for a model of instances: the aggregator, a function of whole sets, is left out.

    Args:
        feature_count: d.
        hidden: features of h.

    Raises:
        LabelError: a bag encoder that is not trained; one with a re-embedding, whose instances need their bag.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, feature_count: int, hidden: int) -> None:
        super().__init__()
        self.feature_count, self.feature_dim = feature_count, hidden
        for name, shape in (("mean", (feature_count,)), ("scale", (feature_count,)), ("bias", (hidden,))):
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("weight", torch.zeros(hidden, feature_count))

    @classmethod
    def of(cls, encoder: Encoder) -> InstanceEncoder:
        """The instance map of a trained `BagEncoder`."""
        if not isinstance(encoder, BagEncoder) or encoder.feature_count is None:
            raise LabelError("expected a trained BagEncoder, such as the encoder_ of a Learner that was fitted to bags")
        if encoder.reembedding is not None:
            raise LabelError("a re-embedding shows instances among those of their bag; leave reembedding= out")
        made = cls(encoder.feature_count, encoder.hidden).to(encoder.mean)
        found = {"mean": encoder.mean, "scale": encoder.scale, **dict(encoder.enter.state_dict())}
        made.load_state_dict({name: tensor.detach().clone() for name, tensor in found.items()})
        return made

    def config(self) -> dict[str, Any]:
        return {"feature_count": self.feature_count, "hidden": self.feature_dim}

    def forward(self, data: Any) -> Tensor:
        rows = torch.as_tensor(np.asarray(data), dtype=self.mean.dtype).to(self.mean.device)
        if rows.ndim != 2 or rows.shape[1] != self.feature_count:
            raise LabelError(f"X has the shape {tuple(rows.shape)}; expected (N, {self.feature_count})")
        ready = (rows - self.mean) * self.scale
        return nn.functional.gelu(nn.functional.linear(ready, self.weight, self.bias))
