"""At least so many members of a set are of a class."""

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


class AtLeast(CountRange):
    r"""Each bag says that at least so many of its instances are of the target class.

    .. math:: P(\ge c) = P\Big(\sum_{i \in m} [y_i \in t] \ge c\Big), \qquad
              P' = (1 - \epsilon) P + \epsilon \frac{n - c + 1}{n + 1}

    exactly, at every size. `AtLeast` of 1 is the `AnyOf` of a present class. With probability :math:`\epsilon` the
    threshold is below a count drawn evenly from 0..n.

    Args:
        bags: M bags.
        least: whole numbers, shape (M,); -1 where nothing is said.
        target: a class; a list, tuple or set of classes, any of which will do; a tensor (M,) of one class per bag; a
            bool tensor (K,) or (M, K) of classes.
        n_classes: K.
        error: probability, in [0, 1), that the threshold was drawn without regard to the truth.

    Raises:
        LabelError: a threshold above the size of its bag, a target outside 0..K-1, tables that do not fit the bags.
    """

    def __init__(self, bags: Bags, least: Tensor, target: Target, n_classes: int, **how: Any):
        low = read_thresholds(least, bags, "least")
        super().__init__(bags, low, torch.full_like(low, -1), target, n_classes, **how)

    @property
    def least(self) -> Tensor:
        """The thresholds, shape (M,); -1 where nothing is said."""
        return torch.where(self.silent, -1, self.low)

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
        least = read_whole_numbers(frame, columns)
        return cls(bags, least, named_target(target, classes), len(classes), class_names=classes, **how)

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
    ) -> AtLeast:
        """Thresholds drawn evenly from 1..n without regard to the truth; bags that do not reach theirs say nothing."""
        bags = random_bags(len(classes), bag_size, generator) if bags is None else bags
        table = read_target(target, len(bags), n_classes, bags.members.device)
        count = drawn_counts(classes, bags, table, error, generator)
        least = 1 + drawn_evenly(bags.sizes, generator)
        return cls(bags, torch.where(least <= count, least, -1), table, n_classes, error=error, **how)
