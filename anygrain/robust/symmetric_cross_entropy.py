"""Symmetric cross-entropy: the usual one, and the one with label and belief exchanged."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from anygrain.learn.loss import cross_entropy
from anygrain.robust.settings import above


@dataclass(frozen=True)
class SymmetricCrossEntropy:
    r"""Cross-entropy learns, its reverse tolerates noise.

    .. math:: -\alpha \sum_k q_k \log p_k - \beta \sum_k p_k \max(\log q_k, A)

    Of a single class y the reverse part is :math:`-A (1 - p_y)`, the absolute error.

    Args:
        alpha: factor of cross-entropy.
        beta: factor of the reverse.
        floor: A, what stands for log 0; below 0.

    Raises:
        LabelError: a negative factor, a floor that is not below 0.

    Source: Wang and others, Symmetric Cross Entropy for Robust Learning with Noisy Labels, 2019.
    """

    alpha: float = 0.1
    beta: float = 1.0
    floor: float = -4.0

    def __post_init__(self) -> None:
        above(self.alpha, "alpha", open_bottom=False)
        above(self.beta, "beta", open_bottom=False)
        above(-self.floor, "-floor")

    def __call__(self, log_probs: Tensor, posterior: Tensor) -> Tensor:
        """(B, K), (B, K) -> (B,)."""
        reverse = -(log_probs.exp() * posterior.log().clamp(min=self.floor)).sum(dim=-1)
        return self.alpha * cross_entropy(log_probs, posterior) + self.beta * reverse
