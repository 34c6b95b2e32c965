"""Terms: what else the head should want, beside agreeing with the posterior."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from anygrain.learn.step import RealStep, Step

if TYPE_CHECKING:
    from anygrain.labels import Bags
    from anygrain.learn.learner import Learner


class Term(nn.Module):
    """A number that is added to the loss of every step; its parameters are trained with the head's.

    A term gives `forward(step) -> scalar`, of a `Step`, or, where labels speak of a number, of a `RealStep`. The hooks
    do nothing unless overridden.
    """

    def forward(self, step: Any) -> Tensor:
        raise NotImplementedError

    def bags(self) -> Bags | None:
        """Instances that must be in one batch together, or None where any batch will do."""
        return None

    def on_fit_start(self, learner: Learner) -> None:
        """Called once, before the first epoch."""

    def on_epoch_start(self, epoch: int) -> None:
        """Called before every epoch, counted from 0."""

    def after_step(self, step: Step | RealStep) -> None:
        """Called after the parameters have moved."""
