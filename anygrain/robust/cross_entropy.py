"""Cross-entropy as a loss by name, beside which others are compared."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from anygrain.learn.loss import cross_entropy


@dataclass(frozen=True)
class CrossEntropy:
    r""":math:`-\sum_k q_k \log p_k`.

    On fixed features a Learner with this loss ends with the same gradient steps as with the robust ones, so the
    difference between them is that of the losses.
    """

    def __call__(self, log_probs: Tensor, posterior: Tensor) -> Tensor:
        """(B, K), (B, K) -> (B,)."""
        return cross_entropy(log_probs, posterior)
