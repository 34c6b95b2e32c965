"""A function of the sum of functions of the instances."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anygrain.encoders.bags import segments
from anygrain.encoders.bags.aggregator import Aggregator
from anygrain.encoders.bags.pooled import Pooled


class DeepSets(Aggregator):
    r""":math:`z = \rho(\frac1n \sum_i \phi(h_i), \log n)` with networks of one hidden layer.

    The mean and the logarithm of the size stand for the sum, which grows out of all bounds. No attention: every
    instance has the same part. The score of an instance is that of a bag of it alone, far from bags of many unless
    instances are alike.

    Args:
        dim: features of an instance.
        hidden: of both networks; D.

    Source: Zaheer, Kottur, Ravanbakhsh, Poczos, Salakhutdinov and Smola, Deep Sets, 2017.
    """

    def __init__(self, dim: int, hidden: int = 128) -> None:
        super().__init__()
        self.feature_dim = hidden
        self.each = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())
        self.all = nn.Sequential(nn.Linear(hidden + 1, hidden), nn.GELU(), nn.Linear(hidden, hidden))

    def forward(self, features: Tensor, sizes: Tensor, coords: Tensor | None = None) -> Pooled:
        seen = self.each(features)
        size = sizes.to(seen).log()[:, None]
        bag = self.all(torch.cat([segments.mean(seen, sizes), size], dim=1))
        return Pooled(bag, self.all(torch.cat([seen, seen.new_zeros(len(seen), 1)], dim=1)), None)
