"""Scaling a table to given sums of rows and columns."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinkhorn(logits: Tensor, steps: int, tolerance: float = 0.0) -> Tensor:
    r"""Log of the doubly stochastic scaling of exp(logits), (B, K): rows sum to 1, columns to B / K.

    .. math:: Q = \mathrm{diag}(u)\, e^{S}\, \mathrm{diag}(v) = \arg\max_{Q}\; \langle Q, S \rangle - \sum Q \log Q

    Rows and columns are scaled in turn, in the log domain, rows last; it can be differentiated through. An entry of
    :math:`-\infty` stays.

    Args:
        steps: turns, at most.
        tolerance: it ends early where no column is off its sum by more than this share.

    Source: Cuturi, Sinkhorn Distances, 2013.
    """
    b, k = logits.shape
    share = math.log(b / k)
    log_q = logits
    for _ in range(steps):
        column = log_q.logsumexp(dim=0)
        log_q = log_q - torch.where(torch.isfinite(column), column - share, 0.0)
        row = log_q.logsumexp(dim=1, keepdim=True)
        log_q = log_q - torch.where(torch.isfinite(row), row, 0.0)
        if tolerance and float((log_q.detach().logsumexp(dim=0) - share).abs().max()) < tolerance:
            break
    return log_q
