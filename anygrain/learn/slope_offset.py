"""Slope and offsets that calibrate log-probabilities on answers that were held out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from anygrain.learn.bounded import least_point

SPREAD = 1.0  # standard deviation that the logarithm of the first slope, and offsets, have before anything is seen
SHARE = 0.3  # mean of further slopes before anything is seen
LOG_SLOPE, MOST, OFFSET = (-12.0, 6.0), 400.0, (-50.0, 50.0)  # bounds of the first slope, of others, of offsets
FURTHEST = 12.0  # log-probabilities are read down to minus this at most


class SlopeOffset:
    r"""Probabilities of C answers from several sets of log-probabilities of theirs:

    .. math:: P(c) \propto \exp\Big(b_c + \sum_j s_j \max(\log p_j(c), -f)\Big), \qquad s_j \ge 0

    With one set and two answers it is a slope and an offset on the log-odds; with several, a log-linear pool.

    Args:
        slopes: s, (J,).
        offsets: b, (C,).
        furthest: f, where log-probabilities end.

    Source: Platt, Probabilistic outputs for support vector machines, 1999; Genest and Zidek, Combining probability
    distributions, 1986.
    """

    def __init__(self, slopes: list[float], offsets: list[float], furthest: float = FURTHEST) -> None:
        self.slopes, self.offsets, self.furthest = slopes, offsets, furthest

    def __call__(self, *log_probs: Tensor) -> Tensor:
        """Log-probabilities (M, C) from J sets of log-probabilities (M, C)."""
        slopes = torch.tensor(self.slopes, dtype=torch.float64, device=log_probs[0].device)
        offsets = torch.tensor(self.offsets, dtype=torch.float64, device=log_probs[0].device)
        return _pooled(_read(log_probs, self.furthest), slopes, offsets)

    def state(self) -> dict[str, Any]:
        """What `SlopeOffset(**state)` takes, as JSON can hold it."""
        return {"slopes": self.slopes, "offsets": self.offsets, "furthest": self.furthest}


def _read(log_probs: Sequence[Tensor], furthest: float) -> Tensor:
    """J sets of log-probabilities (M, C) as (J, M, C), in double precision, not below `-furthest`."""
    return torch.stack([one.double().clamp(min=-furthest) for one in log_probs])


def _pooled(log_probs: Tensor, slopes: Tensor, offsets: Tensor) -> Tensor:
    return ((slopes[:, None, None] * log_probs).sum(dim=0) + offsets).log_softmax(dim=1)


def fit_slope_offset(log_probs: list[Tensor], target: Tensor, weight: Tensor | None = None) -> SlopeOffset:
    r"""The slopes and offsets that make held-out answers likeliest,

    .. math:: \max_{s, b} \sum_m w_m \sum_c q_{mc} \log P(c) - \frac{\log^2 s_1 + |b|^2}{2 \sigma^2}
              - \sum_{j > 1} \frac{s_j}{\tau},

    so that few answers leave the first set as it is, and others out of it; many answers that contradict it lead back to
    how frequent the answers are. Of n answers none was ever seen to be n times as probable as another, so
    log-probabilities are read down to :math:`-\log(n + 1)`.

    Args:
        log_probs: J sets (M, C), of models that have not seen the answer.
        target: shares q of the answers, (M, C); rows of 0 say nothing.
        weight: w, (M,); ones when not given.
    """
    share = target.double() if weight is None else target.double() * weight[:, None].to(target.device).double()
    told = int((share.sum(dim=1) > 0).sum())
    furthest = min(math.log(told + 1), FURTHEST) if told else FURTHEST
    stacked = _read([one.detach() for one in log_probs], furthest)
    share = share.to(stacked)
    sets, answers = len(log_probs), stacked.shape[2]

    def unlikeliness(free: Tensor) -> Tensor:
        slopes = torch.cat([free[:1].exp(), free[1:sets]])
        before = 0.5 * torch.cat([free[:1], free[sets:]]).square().sum() / SPREAD**2 + slopes[1:].sum() / SHARE
        return before - (share * _pooled(stacked, slopes, free[sets:])).sum()

    start = stacked.new_tensor([0.0] + [SHARE] * (sets - 1) + [0.0] * answers)
    found = least_point(unlikeliness, start, [LOG_SLOPE] + [(0.0, MOST)] * (sets - 1) + [OFFSET] * answers)
    return SlopeOffset([math.exp(float(found[0])), *found[1:sets].tolist()], found[sets:].tolist(), furthest)
