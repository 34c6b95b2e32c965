"""Heads of a number: from features to a mean and a variance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from anygrain.labels import LabelError

#: the level of log-variances, of numbers in units of their spread, stays within this
LOWEST, HIGHEST = -14.0, 8.0
#: how far the log-variance of a row may leave that level: rows unlike all others must not be without doubt
SPAN = 4.0


class RealHead(nn.Module):
    r"""Features (B, D) to mean and variance, both (B,).

    .. math:: m(z) = \mu + \sigma f(z), \qquad v(z) = \sigma^2 s^2 \exp\big(c + 4 \tanh(g(z) / 4)\big)

    A head gives f and g by ``raw``; c is learnt. Location :math:`\mu` and scale :math:`\sigma` are those of the labels,
    and s is set by the calibration on held-out evidence.
    """

    location: Tensor
    scale: Tensor
    spread: Tensor

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        for name, value in (("location", 0.0), ("scale", 1.0), ("spread", 1.0)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))
        self.level = nn.Parameter(torch.zeros(()))

    def raw(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """f and g of features (B, D), both (B,)."""
        raise NotImplementedError

    def penalty(self, variance: float = 1.0) -> Tensor:
        """Squared size of what should stay small, a scalar; the weights of g count `variance` times."""
        raise NotImplementedError

    def start(self, generator: torch.Generator) -> None:
        """Draw what must not start at zero. Nothing by default."""

    def standardise(self, location: float, scale: float) -> None:
        """Set location and scale of the numbers."""
        self.location.fill_(location)
        self.scale.fill_(scale)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        f, g = self.raw(features)
        log_variance = self.level.clamp(LOWEST, HIGHEST) + SPAN * torch.tanh(g / SPAN)
        variance = (self.scale * self.spread).square() * log_variance.double().exp()
        return self.location + self.scale * f.double(), variance


class Gaussian(RealHead):
    r""":math:`f(z) = w^\top z + b` and :math:`g(z) = u^\top z`, from zero weights."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__(feature_dim)
        self.weight = nn.Parameter(torch.zeros(2, feature_dim))
        self.bias = nn.Parameter(torch.zeros(()))

    def raw(self, features: Tensor) -> tuple[Tensor, Tensor]:
        f, g = nn.functional.linear(features, self.weight).unbind(dim=-1)
        return f + self.bias, g

    def penalty(self, variance: float = 1.0) -> Tensor:
        return self.weight[0].square().sum() + variance * self.weight[1].square().sum()


class GaussianMLP(RealHead):
    """f and g from a hidden layer of 48 units, beside a linear one."""

    WIDTH = 48

    def __init__(self, feature_dim: int) -> None:
        super().__init__(feature_dim)
        self.straight = nn.Linear(feature_dim, 2)
        self.inward = nn.Linear(feature_dim, self.WIDTH)
        self.outward = nn.Linear(self.WIDTH, 2, bias=False)
        with torch.no_grad():
            self.straight.weight.zero_()
            self.straight.bias.zero_()
            self.outward.weight.zero_()

    def start(self, generator: torch.Generator) -> None:
        with torch.no_grad():
            for tensor, spread in ((self.inward.weight, self.feature_dim**-0.5), (self.inward.bias, 0.5)):
                drawn = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.copy_(spread * drawn)
            drawn = torch.randn(self.outward.weight.shape, generator=generator, dtype=torch.float64)
            self.outward.weight.copy_(0.1 * self.WIDTH**-0.5 * drawn)

    def raw(self, features: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.tanh(self.inward(features))
        f, g = (self.straight(features) + self.outward(hidden)).unbind(dim=-1)
        return f, g

    def penalty(self, variance: float = 1.0) -> Tensor:
        size = self.straight.weight.square().sum(dim=1) + self.outward.weight.square().sum(dim=1)
        return size[0] + variance * size[1] + self.inward.weight.square().sum()


REAL_HEADS: dict[str, type[RealHead]] = {"gaussian": Gaussian, "gaussian-mlp": GaussianMLP}


def make_real_head(name: str, feature_dim: int) -> RealHead:
    """Build a head by its name in ``REAL_HEADS``.

    Raises:
        LabelError: a name that is not there.
    """
    if name not in REAL_HEADS:
        known = ", ".join(REAL_HEADS)
        raise LabelError(f'head "{name}" is not for numbers: expected one of {known}, or "linear" to choose among them')
    return REAL_HEADS[name](feature_dim)
