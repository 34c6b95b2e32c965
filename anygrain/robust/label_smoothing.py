"""Label smoothing: targets that are never quite sure."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from anygrain.learn.loss import cross_entropy
from anygrain.robust.settings import share


@dataclass(frozen=True)
class LabelSmoothing:
    r"""Cross-entropy towards targets with a part spread over all classes.

    .. math:: -\sum_k \big((1 - a) q_k + a / K\big) \log p_k

    Args:
        amount: a, in [0, 1); 0 is cross-entropy.

    Raises:
        LabelError: an amount outside that range.

    Source: Szegedy and others, Rethinking the Inception Architecture for Computer Vision, 2016.
    """

    amount: float = 0.1

    def __post_init__(self) -> None:
        share(self.amount, "amount")

    def __call__(self, log_probs: Tensor, posterior: Tensor) -> Tensor:
        """(B, K), (B, K) -> (B,)."""
        return cross_entropy(log_probs, (1 - self.amount) * posterior + self.amount / log_probs.shape[-1])
