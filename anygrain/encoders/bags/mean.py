"""The mean of a bag's instances."""

from __future__ import annotations

from torch import Tensor

from anygrain.encoders.bags import segments
from anygrain.encoders.bags.aggregator import Aggregator
from anygrain.encoders.bags.pooled import Pooled


class Mean(Aggregator):
    r""":math:`z = \frac1n \sum_i h_i`, attention 1 / n.

    The score of a bag under a linear head is the mean of its instances' scores.

    Args:
        dim: features of an instance.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.feature_dim = dim

    def forward(self, features: Tensor, sizes: Tensor, coords: Tensor | None = None) -> Pooled:
        share = (1 / segments.wide(sizes, features[:, 0]))[segments.bag_of(sizes)]
        return Pooled(segments.mean(features, sizes), features, share)
