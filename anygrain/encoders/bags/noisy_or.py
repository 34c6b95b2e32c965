"""Whether any instance of a bag has an attribute."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from anygrain.encoders.bags import segments
from anygrain.encoders.bags.aggregator import Aggregator
from anygrain.encoders.bags.pooled import Pooled

SMALL = -12.0  # below it log softplus(h) is h to the last digit but one of float32
TINY = 1e-3  # below it three terms of the series of log((e^S - 1) / S) are exact


class NoisyOr(Aggregator):
    r"""Log-odds that any instance has an attribute, for several attributes whose log-odds per instance are linear.

    .. math:: z_d = \log\frac{p_d}{1 - p_d}, \qquad p_d = 1 - \prod_i (1 - \sigma(s_{id})), \qquad s_i = W h_i + b

    Attention is an instance's share of :math:`\sum_i -\log(1 - \sigma(s_{id}))`, on the mean over attributes. The score
    of an instance is that of a bag of it alone: with one attribute its own log-odds, moved and scaled by the head.

    Args:
        dim: features of an instance.
        attributes: how many; as many as features when not given.
    """

    def __init__(self, dim: int, attributes: int | None = None) -> None:
        super().__init__()
        self.feature_dim = dim if attributes is None else attributes
        self.project = nn.Linear(dim, self.feature_dim)

    def learn(self, sizes: Tensor) -> None:
        """Every attribute starts about as often present in a bag as not."""
        nn.init.constant_(self.project.bias, -math.log(float(sizes.double().mean())))

    def forward(self, features: Tensor, sizes: Tensor, coords: Tensor | None = None) -> Pooled:
        scores = self.project(features)
        surprise = log_softplus(scores)
        return Pooled(noisy_or(scores, sizes), scores, segments.softmax(surprise, sizes).mean(dim=1))


def noisy_or(log_odds: Tensor, sizes: Tensor) -> Tensor:
    r"""Log-odds (B, ...) that any instance is on, from those of the instances (E, ...).

    With :math:`S = \sum_i \mathrm{softplus}(s_i) = -\log \prod_i (1 - \sigma(s_i))` they are :math:`\log(e^S - 1)`.
    log S is summed in logs, so that neither very unlikely nor very likely bags lose digits.
    """
    log_s = segments.logsumexp(log_softplus(log_odds), sizes)
    s = log_s.clamp(max=10).exp()  # above, log(e^S - 1) is S itself
    small = s < TINY
    series = log_s + s / 2 + s.square() / 24
    large = torch.where(small, 1.0, s)
    # S again, in plain sums, where it is large
    plain = segments.total(functional.softplus(log_odds), sizes)
    return torch.where(small, series, torch.where(small, 1.0, plain) + torch.log(-torch.expm1(-large)))


def log_softplus(values: Tensor) -> Tensor:
    r""":math:`\log\log(1 + e^v)`, finite for every finite v."""
    small = values < SMALL
    raised = torch.where(small, values, SMALL).exp()
    return torch.where(small, values - raised / 2, functional.softplus(torch.where(small, 0.0, values)).log())
