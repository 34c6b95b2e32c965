"""What an aggregator makes of bags."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Pooled:
    """B bags of E instances.

    Attributes:
        bag: (B, D), what a head reads.
        instances: (E, D), every instance in the space of `bag`, so that a linear head on bags reads instances as well.
            What it says there is the score of an instance.
        attention: (E,), 0 or more, sums to 1 in every bag; or None. It says what the bag was read from, not what class
            an instance has: in a bag without any positive instance it is spread over something, too, and the attention
            of a positive instance falls as positives become many. From a twentieth of positive instances on, the
            score of the head ranks instances better.
    """

    bag: Tensor
    instances: Tensor
    attention: Tensor | None
