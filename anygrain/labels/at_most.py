"""At most so many members of a set are of a class."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.count_range import CountRange, drawn_evenly, read_thresholds
from anygrain.labels.target import Target


class AtMost(CountRange):
    r"""Each bag says that at most so many of its instances are of the target class.

    .. math:: P(\le c) = P\Big(\sum_{i \in m} [y_i \in t] \le c\Big), \qquad
              P' = (1 - \epsilon) P + \epsilon \frac{c + 1}{n + 1}

    exactly, at every size. `AtMost` of 0 is the `AnyOf` of an absent class. With probability :math:`\epsilon` the
    threshold is above a count drawn evenly from 0..n.

    Args:
        bags: M bags.
        most: whole numbers, shape (M,); -1 where nothing is said.
        target: a class; a list, tuple or set of classes, any of which will do; a tensor (M,) of one class per bag; a
            bool tensor (K,) or (M, K) of classes.
        n_classes: K.
        how: `error`, the probability, in [0, 1), that the threshold was drawn without regard to the truth;
            `rows`, `n_rows`, `weight` and `class_names` of every kind.

    Raises:
        LabelError: a threshold above the size of its bag, a target outside 0..K-1, tables that do not fit the bags.
    """

    ends = ("high",)

    def __init__(self, bags: Bags, most: Tensor, target: Target, n_classes: int, **how: Any):
        high = read_thresholds(most, bags, "most")
        super().__init__(bags, torch.full_like(high, -1), high, target, n_classes, **how)

    @property
    def most(self) -> Tensor:
        """The thresholds, shape (M,); -1 where nothing is said."""
        return torch.where(self.silent, -1, self.high)

    @classmethod
    def simulate(cls, classes: Tensor, n_classes: int, *, generator: torch.Generator, **how: Any) -> Self:
        """Thresholds drawn evenly from 0..n-1 without regard to the truth; bags that exceed theirs say nothing.

        Args:
            classes: true classes of all instances, shape (N,).
            n_classes: K.
            generator: of the random numbers.
            how: `bags`, or `bag_size` of random ones; `target`, by default class 0; arguments of the constructor.
        """

        def say(count: Tensor, sizes: Tensor) -> list[Tensor]:
            most = drawn_evenly(sizes, generator)
            return [torch.where(most >= count, most, -1)]

        return cls._simulated(say, classes, n_classes, generator=generator, **how)
