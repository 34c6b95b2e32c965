"""Losses: functions of log_probs (B, K) and a posterior (B, K) that give one number per instance (B,)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(log_probs: Tensor, posterior: Tensor) -> Tensor:
    r""":math:`-\sum_k q_k \log p_k`, (B,). With q the posterior its gradient is that of the evidence's likelihood."""
    return -(posterior * log_probs.clamp(min=-1e4)).sum(dim=-1)
