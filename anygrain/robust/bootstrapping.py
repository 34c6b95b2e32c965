"""Bootstrapping: a label counts in part, the rest is what the model believes itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anygrain.learn.loss import cross_entropy
from anygrain.robust.settings import share


@dataclass(frozen=True)
class Bootstrapping:
    r"""Cross-entropy towards a mixture of the posterior and the model's own belief.

    .. math:: -\sum_k \big(\beta q_k + (1 - \beta) b_k\big) \log p_k

    with b the likeliest class of the model (hard) or its probabilities (soft), without gradient.

    Args:
        hard: whether b is one class.
        keep: beta, in [0, 1], the part of the posterior that stays; None is .8 (hard) or .95 (soft), as in the source.
            1 is cross-entropy.

    Raises:
        LabelError: a part outside that range.

    Source: Reed and others, Training Deep Neural Networks on Noisy Labels with Bootstrapping, 2015. There the soft
    belief has a gradient, which makes of it a penalty on entropy; here it is held still, as the hard one is.
    """

    hard: bool = True
    keep: float | None = None

    def __post_init__(self) -> None:
        if self.keep is not None:
            share(self.keep, "keep", open_top=False)

    def __call__(self, log_probs: Tensor, posterior: Tensor) -> Tensor:
        """(B, K), (B, K) -> (B,)."""
        keep = (0.8 if self.hard else 0.95) if self.keep is None else self.keep
        belief = log_probs.detach().exp()
        if self.hard:
            belief = torch.zeros_like(belief).scatter_(-1, belief.argmax(dim=-1, keepdim=True), 1.0)
        return cross_entropy(log_probs, keep * posterior + (1 - keep) * belief)
