"""Between so many and so many members of a set are of a class."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.count_range import CountRange, drawn_evenly, read_thresholds
from anygrain.labels.target import Target


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
        how: `error`, the probability, in [0, 1), that the range was drawn without regard to the truth;
            `rows`, `n_rows`, `weight` and `class_names` of every kind.

    Raises:
        LabelError: an end above the size of its bag, low above high, a target outside 0..K-1, tables that do not fit
            the bags.
    """

    def __init__(self, bags: Bags, low: Tensor, high: Tensor, target: Target, n_classes: int, **how: Any):
        ends = read_thresholds(low, bags, "low"), read_thresholds(high, bags, "high")
        super().__init__(bags, *ends, target, n_classes, **how)

    @classmethod
    def simulate(
        cls, classes: Tensor, n_classes: int, *, generator: torch.Generator, width: int = 1, **how: Any
    ) -> Self:
        """Ranges of `width` + 1 counts, laid over the true count without regard to which of them it is.

        Args:
            classes: true classes of all instances, shape (N,).
            n_classes: K.
            generator: of the random numbers.
            how: `bags`, or `bag_size` of random ones; `target`, by default class 0; arguments of the constructor.
        """

        def say(count: Tensor, sizes: Tensor) -> list[Tensor]:
            low = count - drawn_evenly(torch.full_like(count, width + 1), generator)
            return [low.clamp(min=0), torch.minimum(low + width, sizes)]

        return cls._simulated(say, classes, n_classes, generator=generator, **how)
