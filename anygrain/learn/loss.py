"""Losses: functions of log_probs (B, K) and a posterior (B, K) that give one number per instance (B,)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner
    from anygrain.learn.step import RealStep, Step
    from anygrain.learn.term import Term

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(log_probs: Tensor, posterior: Tensor) -> Tensor:
    r""":math:`-\sum_k q_k \log p_k`, (B,). With q the posterior its gradient is that of the evidence's likelihood."""
    return -(posterior * log_probs.clamp(min=-1e4)).sum(dim=-1)


def terms_alone(log_probs: Tensor, posterior: Tensor) -> Tensor:
    """0 for every instance, (B,): for terms that are a whole objective by themselves."""
    return 0 * log_probs[..., 0]


class AdaptiveLoss(nn.Module):
    """A loss that learns something of the data, such as a class prior; what it learns are buffers, kept with the fit.

    An adaptive loss gives `forward(log_probs, posterior) -> (B,)`. The hooks are those of a `Term`.
    """

    def forward(self, log_probs: Tensor, posterior: Tensor) -> Tensor:
        raise NotImplementedError

    def as_given(self, log_probs: Tensor) -> Tensor:
        """Log-probabilities (B, K) of the classes that labels give, by those of the true ones: the same but for losses
        that know how labels err. The temperature makes these likely."""
        return log_probs

    def on_fit_start(self, learner: Learner) -> None:
        """Called once, before the first epoch."""

    def on_epoch_start(self, epoch: int) -> None:
        """Called before every epoch, counted from 0."""

    def after_step(self, step: Step | RealStep) -> None:
        """Called after the parameters have moved."""


def learnt_with(loss: Loss | None, terms: Sequence[Term]) -> list[nn.Module]:
    """The modules among a loss and terms, whose state is kept with the network's."""
    return [*terms, *([loss] if isinstance(loss, AdaptiveLoss) else [])]
