"""Interval labels: an ordinal class lies in a range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from anygrain.labels.error import LabelError
from anygrain.labels.frame import as_strings, class_list, encode, read_column, require_order
from anygrain.labels.instance import InstanceLabels, as_classes, check_error, check_mapping, require

if TYPE_CHECKING:
    from anygrain.labels.taxonomy import Taxonomy


class Interval(InstanceLabels):
    r"""Each instance comes with the lowest and the highest class that it can have; classes are ordered 0..K-1.

    .. math:: P([l_i, h_i] \mid y_i = k) = (1 - \epsilon) [l_i \le k \le h_i] + \epsilon / K

    Args:
        low, high: class indices, shape (N,), both ends included; -1 is an open end, two of them say nothing.
        n_classes: K.
        error: probability, in [0, 1), that a range was drawn without regard to the truth.

    Raises:
        LabelError: an end outside -1..K-1, or a low end above the high one, naming the first such rows.

    Source: Grouped ("interval-censored") data: Heitjan and Rubin, Ignorability and Coarse Data, 1991.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        low: Tensor,
        high: Tensor,
        n_classes: int,
        *,
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        low, high = as_classes(low, n_classes, "low end"), as_classes(high, n_classes, "high end")
        if low.shape != high.shape:
            raise LabelError(f"low and high have {len(low)} and {len(high)} entries; expected one of each a row")
        low, high = low.clamp(min=0), torch.where(high < 0, n_classes - 1, high)
        require(low <= high, "has a low end above its high end")
        super().__init__(
            n_classes,
            per_instance={"low": low, "high": high},
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )
        self.error = check_error(error)

    def log_evidence(self, dtype: torch.dtype = torch.float32) -> Tensor:
        k = torch.arange(self.n_classes, device=self.device)
        inside = (k >= self.low[:, None]) & (k <= self.high[:, None])
        prob = (1 - self.error) * inside.to(dtype) + self.error / self.n_classes
        return prob.log_().masked_fill_(inside.all(dim=1, keepdim=True), 0.0)

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        """Only maps that keep the order of classes and leave no gap between them."""
        mapping = check_mapping(mapping, self.n_classes, n_classes, "Interval", injective=True).to(self.device)
        if not bool((mapping.diff() == 1).all()):
            raise LabelError("Interval needs a class map that keeps the order and leaves no gap")
        new = self._fresh()
        silent = (self.low == 0) & (self.high == self.n_classes - 1)
        new.low = torch.where(silent, 0, mapping[self.low])
        new.high = torch.where(silent, n_classes - 1, mapping[self.high])
        new.n_classes, new.class_names = n_classes, None
        return new

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: Sequence[str],
        *,
        taxonomy: Taxonomy | None = None,
        classes: Sequence[str] | None = None,
        **how: Any,
    ) -> Self:
        """Labels from two columns, the low and the high end; an empty cell is an open end.

        `classes` gives the order, from low to high; it may be left out where all values are numbers.

        Raises:
            LabelError: no such column, a value outside the class list, no order of the classes.
        """
        if len(columns) != 2:
            raise LabelError(f"Interval reads two columns, the low and the high end; {len(columns)} were given")
        ends = [as_strings(read_column(frame, c)) for c in columns]
        names = class_list(ends, taxonomy=taxonomy, classes=classes)
        require_order(names, said=classes is not None)
        low, high = (encode(v, names, f'"{c}"') for v, c in zip(ends, columns, strict=True))
        return cls(low, high, len(names), class_names=names, **how)

    @classmethod
    def simulate(
        cls, classes: Tensor, n_classes: int, *, generator: torch.Generator, width: int = 2, **how: Any
    ) -> Interval:
        """A range that holds the class and reaches up to `width` classes to either side."""
        below = torch.randint(width + 1, classes.shape, generator=generator)
        above = torch.randint(width + 1, classes.shape, generator=generator)
        return cls((classes - below).clamp(min=0), (classes + above).clamp(max=n_classes - 1), n_classes, **how)
