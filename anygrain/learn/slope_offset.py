"""Slope and offsets that calibrate log-probabilities on answers that were held out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SPREAD = 1.0  # standard deviation that the logarithm of a slope, and offsets, have before anything is seen
FURTHEST = 12.0  # log-probabilities are read down to minus this


class SlopeOffset:
    r"""Probabilities of C answers from several sets of log-probabilities of theirs:

    .. math:: P(c) \propto \exp\Big(b_c + \sum_j s_j \log p_j(c)\Big), \qquad s_j > 0

    With one set and two answers it is a slope and an offset on the log-odds; with several, a log-linear pool.

    Args:
        slopes: s, (J,).
        offsets: b, (C,).

    Source: Platt, Probabilistic outputs for support vector machines, 1999; Genest and Zidek, Combining probability
    distributions, 1986.
    """

    def __init__(self, slopes: list[float], offsets: list[float]) -> None:
        self.slopes, self.offsets = slopes, offsets

    def __call__(self, *log_probs: Tensor) -> Tensor:
        """Log-probabilities (M, C) from J sets of log-probabilities (M, C)."""
        slopes = torch.tensor(self.slopes, dtype=torch.float64, device=log_probs[0].device)
        offsets = torch.tensor(self.offsets, dtype=torch.float64, device=log_probs[0].device)
        return _pooled(torch.stack([read(one) for one in log_probs]), slopes, offsets)

    def state(self) -> dict[str, Any]:
        """What `SlopeOffset(**state)` takes, as JSON can hold it."""
        return {"slopes": self.slopes, "offsets": self.offsets}


def read(log_probs: Tensor) -> Tensor:
    """Log-probabilities in double precision, not below `-FURTHEST`: one answer is never sure beyond that."""
    return log_probs.double().clamp(min=-FURTHEST)


def _pooled(log_probs: Tensor, slopes: Tensor, offsets: Tensor) -> Tensor:
    return ((slopes[:, None, None] * log_probs).sum(dim=0) + offsets).log_softmax(dim=1)


def fit_slope_offset(log_probs: list[Tensor], target: Tensor, weight: Tensor | None = None) -> SlopeOffset:
    r"""The slopes and offsets that make held-out answers likeliest,

    .. math:: \max_{s, b} \sum_m w_m \sum_c q_{mc} \log P(c) - \frac{|\log J s|^2 + |b|^2}{2 \sigma^2},

    so that few answers leave the mean of the sets, with slope 1, as it is, and many that contradict it lead back to how
    frequent the answers are.

    Args:
        log_probs: J sets (M, C), of models that have not seen the answer.
        target: shares q of the answers, (M, C); rows of 0 say nothing.
        weight: w, (M,); ones when not given.
    """
    stacked = torch.stack([read(one.detach()) for one in log_probs])
    share = target.to(stacked) if weight is None else target.to(stacked) * weight[:, None].to(stacked)
    sets, answers = len(log_probs), stacked.shape[2]
    free = stacked.new_zeros(sets + answers).requires_grad_(True)
    optimizer = torch.optim.LBFGS([free], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        said = _pooled(stacked, free[:sets].exp() / sets, free[sets:])
        loss: Tensor = -(share * said).sum() + 0.5 * free.square().sum() / SPREAD**2
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    found = free.detach()
    return SlopeOffset((found[:sets].exp() / sets).tolist(), found[sets:].tolist())
