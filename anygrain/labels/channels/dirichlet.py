"""The strength of shrinkage: Dirichlet priors fitted to the counts of many sources by their marginal likelihood."""

from __future__ import annotations

import torch
from torch import Tensor


def log_marginal(counts: Tensor, mean: Tensor, strength: Tensor) -> Tensor:
    r"""log probability of ordered draws with unknown shares, shape (...).

    .. math:: \log\Gamma(s) - \log\Gamma(s + n) + \sum_v \log\Gamma(s m_v + n_v) - \log\Gamma(s m_v)

    Args:
        counts: n, shape (..., V), fractions allowed.
        mean: m, broadcast against counts, sums to 1.
        strength: s, broadcast against counts[..., :1].
    """
    alpha = (mean * strength).expand_as(counts)
    total = alpha.sum(dim=-1)
    inside = torch.lgamma(alpha + counts) - torch.lgamma(alpha)
    return torch.lgamma(total) - torch.lgamma(total + counts.sum(dim=-1)) + inside.sum(dim=-1)


def learn_strength(
    counts: Tensor, mean: Tensor, strength: Tensor, *, guess: float = 4.0, weight: float = 1.0
) -> tuple[Tensor, Tensor]:
    r"""One step up the marginal likelihood of all sources, in the strength s that they share and in their mean.

    .. math:: s \leftarrow \frac{s \sum m_v (\psi(n_v + s m_v) - \psi(s m_v)) + a}
                                {\sum (\psi(n + s) - \psi(s)) + a / s_0}

    with a Gamma prior of shape 1 + a and mode :math:`s_0` on s. It is Minka's fixed point, which never lowers the
    marginal likelihood of s.

    Args:
        counts: shape (S, ..., V); all leading dimensions share the strength.
        mean: shape (..., V) or broadcast against counts.
        strength: s, a scalar.
        guess: the mode of the prior on s.
        weight: a, how many sources the guess is worth.

    Returns:
        the new strength, a scalar, and the effective number of independent draws per cell, shape of `counts`: what
        each source tells about the mean.

    Source: Minka, Estimating a Dirichlet distribution, 2000.
    """
    alpha = (mean * strength).expand_as(counts).clamp(min=1e-12)
    draws = alpha * (torch.digamma(counts + alpha) - torch.digamma(alpha))
    totals = counts.sum(dim=-1)
    spread = (torch.digamma(totals + strength) - torch.digamma(strength)).sum()
    new = (draws.sum() + weight) / (spread + weight / guess)
    return new.clamp(1e-2, 1e4), draws
