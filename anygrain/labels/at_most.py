"""At most so many members of a set are of a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.count_range import CountRange, drawn_counts, drawn_evenly, read_thresholds
from anygrain.labels.frame import read_whole_numbers
from anygrain.labels.random_bags import random_bags
from anygrain.labels.target import Target, named_target, read_target


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
        error: probability, in [0, 1), that the threshold was drawn without regard to the truth.

    Raises:
        LabelError: a threshold above the size of its bag, a target outside 0..K-1, tables that do not fit the bags.
    """

    def __init__(self, bags: Bags, most: Tensor, target: Target, n_classes: int, **how: Any):
        high = read_thresholds(most, bags, "most")
        super().__init__(bags, torch.full_like(high, -1), high, target, n_classes, **how)

    @property
    def most(self) -> Tensor:
        """The thresholds, shape (M,); -1 where nothing is said."""
        return torch.where(self.silent, -1, self.high)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: str,
        *,
        bags: Bags,
        target: str | Sequence[str],
        classes: Sequence[str],
        **how: Any,
    ) -> Self:
        """Labels from a column of whole numbers of a table of bags; empty says nothing.

        Args:
            frame: any data frame, or a mapping of columns, with one row per bag.
            columns: name of the column.
            bags: the bags, in the order of the rows.
            target: class name, or several.
            classes: names of all classes.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, an entry that is no whole number, an unknown class.
        """
        most = read_whole_numbers(frame, columns)
        return cls(bags, most, named_target(target, classes), len(classes), class_names=classes, **how)

    @classmethod
    def simulate(
        cls,
        classes: Tensor,
        n_classes: int,
        *,
        generator: torch.Generator,
        target: Target = 0,
        bags: Bags | None = None,
        bag_size: int = 5,
        error: float = 0.0,
        **how: Any,
    ) -> AtMost:
        """Thresholds drawn evenly from 0..n-1 without regard to the truth; bags that exceed theirs say nothing."""
        bags = random_bags(len(classes), bag_size, generator) if bags is None else bags
        table = read_target(target, len(bags), n_classes, bags.members.device)
        count = drawn_counts(classes, bags, table, error, generator)
        most = drawn_evenly(bags.sizes, generator)
        return cls(bags, torch.where(most >= count, most, -1), table, n_classes, error=error, **how)
