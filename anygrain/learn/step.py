"""One step of training, as losses, terms, weightings and procedures see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class View:
    """The inputs of a step and the network that read them, for terms that look at changed inputs.

    Attributes:
        arrays: inputs of the R data rows of the batch; on fixed features these, under the name "features".
        place: (B,) row of the arrays of every instance.
        network: arrays to what the head gives, by row, and features (R, D), with gradient.
        head: features (B, D) to what the head gives of them.
        of_instances: what the network gives, the place and the names of instances to what is theirs, (B, K).
    """

    arrays: dict[str, Tensor]
    place: Tensor
    network: Callable[[dict[str, Tensor]], tuple[Any, Tensor]]
    head: Callable[[Tensor], Any]
    of_instances: Callable[[Any, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """A batch of B instances on its way through the head.

    Attributes:
        log_probs: (B, K), with gradient.
        features: (B, D).
        posterior: (B, K), what the evidence says given a head that did not see these rows; detached.
        instances: (B,) ids.
        epoch: number of the pass over the data, from 0.
        view: inputs and network; None in procedures.
        shift: (K,), what was added to log-probabilities of the rows that the network speaks of, because some come more
            often than they are; None for nothing.
    """

    log_probs: Tensor
    features: Tensor
    posterior: Tensor
    instances: Tensor
    epoch: int
    view: View | None = None
    shift: Tensor | None = None


@dataclass(frozen=True)
class RealStep:
    """A batch of B instances of a number.

    Attributes:
        mean, variance: (B,), with gradient.
        features: (B, D), with gradient.
        posterior: (B,) mean of the number by the evidence and the network; detached.
        instances: (B,) ids.
        epoch: number of the pass over the data, from 0.
    """

    mean: Tensor
    variance: Tensor
    features: Tensor
    posterior: Tensor
    instances: Tensor
    epoch: int
