"""Gaussian clusters whose mean and covariance are integrated out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Size (...), mean (..., D) and scatter (..., D, D) of sets of rows, float64.

    The scatter is the sum of the outer products of rows with their mean taken off.
    """

    size: Tensor
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, x: Tensor, label: Tensor, n_classes: int) -> Moments:
        """Of the rows (N, D) of every class; label (N,), -1 for rows that belong to none."""
        order = label.argsort(stable=True)
        order = order[label[order] >= 0]
        size = torch.bincount(label[label >= 0], minlength=n_classes)
        means, scatters = [], []
        for rows in order.split(size.tolist()):  # classes, not rows
            own = x[rows].double()
            mean = own.mean(dim=0) if len(own) else own.new_zeros(own.shape[1])
            means.append(mean)
            scatters.append((own - mean).T @ (own - mean))
        return cls(size.double(), torch.stack(means), torch.stack(scatters))

    def __getitem__(self, chosen: Tensor) -> Moments:
        return Moments(self.size[chosen], self.mean[chosen], self.scatter[chosen])

    def scaled(self, share: Tensor) -> Moments:
        """Of rows that each count for a share (...)."""
        return Moments(self.size * share, self.mean, self.scatter * share[..., None, None])

    def with_others(self, other: Moments) -> Moments:
        """Of the unions of sets, one by one."""
        size = self.size + other.size
        apart = self.mean - other.mean
        share = other.size / size.clamp(min=1)
        mean = self.mean - share[..., None] * apart
        between = (self.size * share)[..., None, None] * apart[..., :, None] * apart[..., None, :]
        return Moments(size, mean, self.scatter + other.scatter + between)


@dataclass(frozen=True)
class NormalInverseWishart:
    r"""The conjugate prior of a Gaussian: :math:`\Sigma \sim IW(\Psi, \nu)`, :math:`\mu \sim N(m, \Sigma / \kappa)`.

    All have the same leading shape (...), empty for one prior.

    Attributes:
        mean: m, (..., D).
        kappa: (...), how many rows the mean is worth.
        nu: (...), how many rows the covariance is worth; above D - 1.
        psi: (..., D, D).

    Source: Murphy, Machine Learning: a Probabilistic Perspective, 2012, section 4.6.
    """

    mean: Tensor
    kappa: Tensor
    nu: Tensor
    psi: Tensor

    def after(self, seen: Moments) -> NormalInverseWishart:
        r"""The posterior, which is a prior for further rows.

        .. math:: \kappa' = \kappa + N,\; \nu' = \nu + N,\; m' = (\kappa m + N \bar x) / \kappa',\;
                  \Psi' = \Psi + S + \frac{\kappa N}{\kappa'} (\bar x - m)(\bar x - m)^T
        """
        kappa = self.kappa + seen.size
        apart = seen.mean - self.mean
        share = seen.size / kappa
        between = (self.kappa * share)[..., None, None] * apart[..., :, None] * apart[..., None, :]
        return NormalInverseWishart(
            self.mean + share[..., None] * apart, kappa, self.nu + seen.size, self.psi + seen.scatter + between
        )

    def log_marginal(self, seen: Moments) -> Tensor:
        r"""Log density (...) of sets of rows, with mean and covariance integrated out.

        .. math:: \log h(X) = -\tfrac{ND}{2} \log \pi + \log \tfrac{\Gamma_D(\nu' / 2)}{\Gamma_D(\nu / 2)}
                  + \tfrac{\nu}{2} \log |\Psi| - \tfrac{\nu'}{2} \log |\Psi'|
                  + \tfrac{D}{2} \log \tfrac{\kappa}{\kappa'}
        """
        d = self.mean.shape[-1]
        later = self.after(seen)
        gammas = torch.special.multigammaln(later.nu / 2, d) - torch.special.multigammaln(self.nu / 2, d)
        dets = self.nu * torch.linalg.slogdet(self.psi)[1] - later.nu * torch.linalg.slogdet(later.psi)[1]
        occam = d * (self.kappa / later.kappa).log()
        found: Tensor = -seen.size * d / 2 * math.log(math.pi) + gammas + (dets + occam) / 2
        return found

    def mode(self) -> tuple[Tensor, Tensor]:
        r"""The most probable mean (..., D) and covariance (..., D, D): m and :math:`\Psi / (\nu + D + 2)`."""
        return self.mean, self.psi / (self.nu + self.mean.shape[-1] + 2)[..., None, None]
