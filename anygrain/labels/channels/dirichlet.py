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

    with a Gamma prior of shape 1 + a and mode :math:`s_0` on s. This fixed point of Minka's is slow, so two of its
    steps are extrapolated (Aitken, in log s).

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
    totals = counts.sum(dim=-1)
    log_strength = [strength.log()]
    for _ in range(2):
        strength = log_strength[-1].exp()
        draws = _draws(counts, mean, strength)
        spread = (torch.digamma(totals + strength) - torch.digamma(strength)).sum()
        log_strength.append(((draws.sum() + weight) / (spread + weight / guess)).log())
    first, second = log_strength[1] - log_strength[0], log_strength[2] - log_strength[1]
    # steps that shrink by a constant factor add up to first / (1 - factor)
    factor = (second / torch.where(first == 0, torch.ones_like(first), first)).clamp(0.0, 0.95)
    reached = log_strength[0] + (first / (1 - factor)).clamp(-3.0, 3.0)
    strength = reached.exp().clamp(1e-2, 1e4)
    return strength, draws


def _draws(counts: Tensor, mean: Tensor, strength: Tensor) -> Tensor:
    """Expected number of independent draws from the mean behind each count."""
    alpha = (mean * strength).expand_as(counts).clamp(min=1e-12)
    return alpha * (torch.digamma(counts + alpha) - torch.digamma(alpha))
