"""Weightings: which instances count, and how much."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from anygrain.learn.step import RealStep, Step

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner


class Weighting:
    """A weight (B,) for every instance of a step, without gradient. The hooks do nothing unless overridden."""

    def __call__(self, step: Step) -> Tensor:
        raise NotImplementedError

    def on_fit_start(self, learner: Learner) -> None:
        """Called once, before the first epoch."""

    def on_epoch_start(self, epoch: int) -> None:
        """Called before every epoch, counted from 0."""

    def after_step(self, step: Step | RealStep) -> None:
        """Called after the parameters have moved."""
