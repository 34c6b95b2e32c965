"""Focal loss: instances that are already recognised count less."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from anygrain.robust.settings import above


@dataclass(frozen=True)
class Focal:
    r"""Cross-entropy whose parts fade as the model gets sure of them.

    .. math:: -\sum_k q_k (1 - p_k)^\gamma \log p_k

    Args:
        gamma: how fast, at least 0; 0 is cross-entropy.

    Raises:
        LabelError: a negative gamma.

    Source: Lin and others, Focal Loss for Dense Object Detection, 2017.
    """

    gamma: float = 2.0

    def __post_init__(self) -> None:
        above(self.gamma, "gamma", open_bottom=False)

    def __call__(self, log_probs: Tensor, posterior: Tensor) -> Tensor:
        """(B, K), (B, K) -> (B,)."""
        log_probs = log_probs.clamp(min=-1e4)
        if self.gamma == 0:
            return -(posterior * log_probs).sum(dim=-1)
        fading = (-log_probs.expm1()).clamp(min=1e-12) ** self.gamma
        return -(posterior * fading * log_probs).sum(dim=-1)
