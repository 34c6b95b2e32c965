"""Between so many and so many members of a set are of a class."""

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


class Between(CountRange):
    r"""Each bag says between which numbers, both included, its instances of the target class are.

    .. math:: P(l, h) = P\Big(l \le \sum_{i \in m} [y_i \in t] \le h\Big), \qquad
              P' = (1 - \epsilon) P + \epsilon \frac{h - l + 1}{n + 1}

    exactly, at every size. Where both ends are the same it is the `Counts` of one class. With probability
    :math:`\epsilon` the range holds a count drawn evenly from 0..n.

    Args:
        bags: M bags.
        low, high: whole numbers, shape (M,); -1 is an open end, and a bag with two of them says nothing.
        target: a class; a list, tuple or set of classes, any of which will do; a tensor (M,) of one class per bag; a
            bool tensor (K,) or (M, K) of classes.
        n_classes: K.
        error: probability, in [0, 1), that the range was drawn without regard to the truth.

    Raises:
        LabelError: an end above the size of its bag, low above high, a target outside 0..K-1, tables that do not fit
            the bags.
    """

    def __init__(self, bags: Bags, low: Tensor, high: Tensor, target: Target, n_classes: int, **how: Any):
        ends = read_thresholds(low, bags, "low"), read_thresholds(high, bags, "high")
        super().__init__(bags, *ends, target, n_classes, **how)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: Sequence[str],
        *,
        bags: Bags,
        target: str | Sequence[str],
        classes: Sequence[str],
        **how: Any,
    ) -> Self:
        """Labels from two columns of whole numbers, low and high, of a table of bags; empty is an open end.

        Args:
            frame: any data frame, or a mapping of columns, with one row per bag.
            columns: names of both columns.
            bags: the bags, in the order of the rows.
            target: class name, or several.
            classes: names of all classes.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, an entry that is no whole number, an unknown class.
        """
        low, high = (read_whole_numbers(frame, name) for name in columns)
        return cls(bags, low, high, named_target(target, classes), len(classes), class_names=classes, **how)

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
        width: int = 1,
        error: float = 0.0,
        **how: Any,
    ) -> Between:
        """Ranges of `width` + 1 counts, laid over the true count without regard to which of them it is."""
        bags = random_bags(len(classes), bag_size, generator) if bags is None else bags
        table = read_target(target, len(bags), n_classes, bags.members.device)
        count = drawn_counts(classes, bags, table, error, generator)
        low = count - drawn_evenly(torch.full_like(count, width + 1), generator)
        high = torch.minimum(low + width, bags.sizes)
        return cls(bags, low.clamp(min=0), high, table, n_classes, error=error, **how)
