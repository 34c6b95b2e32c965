"""What a method found: classes, where they stand, and a model that reads new rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from anygrain.encoders.trainable import Arrays

if TYPE_CHECKING:
    from anygrain.discover.task import Task


class ClassModel(nn.Module):
    """A model of K classes that were found; all that it knows stands in parameters and buffers.

    Arrays are those of the rows of a `Task`: ``{"features": (B, D)}`` where features are fixed.
    """

    @abstractmethod
    def forward(self, arrays: Arrays) -> Tensor:
        """Log-probabilities (B, K) of rows."""

    def embed(self, arrays: Arrays) -> Tensor:
        """Rows (B, E) in the space in which classes are apart; the features unless a method learns its own."""
        return arrays["features"]


@dataclass(frozen=True)
class Found:
    """What a method hands back.

    Attributes:
        node: (K,) the node of every class; the G known ones are the first, in their order.
        model: reads rows.
        log_probs: (N, K) of the rows of the task, where the method knows more of them than the model says (neighbours);
            evidence is not in them.
        interval: lowest and highest plausible number of classes, where the method found the number itself.
        why: what was chosen on the way, in a sentence.
        history: one dict per step.
        facts: further fitted attributes of the estimator, by name without the underscore.
        again: looks for classes in other rows as they were found here, for `stability_`; where None, the method does.
            A method that tries several ways gives the one that it chose.
    """

    node: Tensor
    model: ClassModel
    log_probs: Tensor | None = None
    interval: tuple[int, int] | None = None
    why: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    again: Callable[[Task], Found] | None = None
