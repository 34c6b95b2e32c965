"""Generalised cross-entropy: between cross-entropy, which learns fast, and absolute error, which noise hardly moves."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from anygrain.robust.settings import above


@dataclass(frozen=True)
class GeneralizedCrossEntropy:
    r"""A loss that is bounded, so that labels which a model finds impossible pull at it less.

    .. math:: \sum_k q_k \frac{1 - p_k^{\,r}}{r}

    The limit r -> 0 is cross-entropy, r = 1 the absolute error :math:`1 - \sum_k q_k p_k`.

    Args:
        q: r, in (0, 1]; named as in the source.

    Raises:
        LabelError: a q outside that range.

    Source: Zhang and Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels, 2018.
    """

    q: float = 0.7

    def __post_init__(self) -> None:
        above(self.q, "q")
        above(1 - self.q, "1 - q", open_bottom=False)

    def __call__(self, log_probs: Tensor, posterior: Tensor) -> Tensor:
        """(B, K), (B, K) -> (B,)."""
        return (posterior * -(self.q * log_probs.clamp(min=-1e4)).expm1()).sum(dim=-1) / self.q
