"""The maximum of a bag's instances, feature by feature."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.encoders.bags import segments
from anygrain.encoders.bags.aggregator import Aggregator
from anygrain.encoders.bags.pooled import Pooled


class Max(Aggregator):
    r""":math:`z_d = \max_i h_{id}`.

    The attention of an instance is the share of features whose maximum it holds; instances that tie share them. Its
    score under a linear head is that of a bag of it alone, which may be above that of its bag.

    Args:
        dim: features of an instance.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.feature_dim = dim

    def forward(self, features: Tensor, sizes: Tensor, coords: Tensor | None = None) -> Pooled:
        bag = segments.maximum(features, sizes)
        with torch.no_grad():
            index = segments.bag_of(sizes)
            holds = (features == bag[index]).to(features)
            attention = (holds / segments.total(holds, sizes)[index]).mean(dim=1)
        return Pooled(bag, features, attention)
