"""At least one: a bag holds, or does not hold, an instance of the target class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.counting import any_of, mix_error
from anygrain.labels.error import LabelError, require, whole_numbers
from anygrain.labels.frame import as_strings, read_column
from anygrain.labels.instance import check_error, check_mapping
from anygrain.labels.random_bags import random_bags
from anygrain.labels.segments import Segments
from anygrain.labels.sets import FLOOR, Events, SetLabels
from anygrain.labels.target import (
    Target,
    as_table,
    count_hits,
    merge_target,
    named_target,
    read_target,
    split,
    spread,
)

YES, NO = ("1", "true", "yes", "y", "t"), ("0", "false", "no", "n", "f")


class AnyOf(SetLabels):
    r"""Each bag says that at least one, or none, of its instances is of the target class (multiple instance learning).

    .. math:: P(\text{none}) = \prod_{i \in m} (1 - p_i(t)), \quad P(\text{any}) = 1 - P(\text{none}), \quad
              P' = (1 - \epsilon) P + \epsilon / 2

    Args:
        bags: M bags.
        present: shape (M,); True or 1: at least one, False or 0: none, -1: missing.
        target: a class; a list, tuple or set of classes, any of which will do; a tensor (M,) of one class per bag; a
            bool tensor (K,) or (M, K) of classes.
        n_classes: K.
        error: probability, in [0, 1), that the answer was drawn without regard to the truth.

    Raises:
        LabelError: an answer that is not 1, 0 or -1, a target outside 0..K-1, tables that do not fit the bags.

    Source: Dietterich, Lathrop and Lozano-Perez, Solving the multiple instance problem, 1997.
    """

    present: Tensor
    target: Tensor

    def __init__(
        self,
        bags: Bags,
        present: Tensor,
        target: Target,
        n_classes: int,
        *,
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        Bags.require(bags)
        present = whole_numbers(present, "answers of bags").to(torch.int8)
        if present.shape != (len(bags),):
            raise LabelError(f"present has shape {tuple(present.shape)}; expected ({len(bags)},), one answer per bag")
        require(
            (present >= -1) & (present <= 1), "has an answer that is not 1 (any), 0 (none) or -1 (missing)", noun="bag"
        )
        super().__init__(
            n_classes,
            bags,
            per_set={"present": present, "target": read_target(target, len(bags), n_classes, bags.members.device)},
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )
        self.error = check_error(error)

    @cached_property
    def _segments(self) -> Segments:
        return Segments(self.sets.offsets)

    def factor(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        if self.error:  # messages of a bag that contradicts its members matter then
            log_p = log_p.clamp(min=FLOOR)
        target = self.target[self.sets.index]
        value, message = any_of(split(log_p, target), self._segments, self.present)
        if self.error:
            message = message.masked_fill(torch.isneginf(value)[self.sets.index][:, None], -torch.inf)
            value, message = mix_error(value, message, self.error, 2.0, self.sets.index, self.present < 0)
        return value, spread(message, target, self.n_classes)

    def log_prob_given(self, classes: Tensor) -> Tensor:
        counts = count_hits(classes, self.target[self.sets.index], self.sets.index, len(self.sets))
        right = ((counts > 0) == (self.present == 1)).double()
        prob = (1 - self.error) * right + self.error / 2
        return torch.where(self.present == -1, torch.ones_like(prob), prob).log()

    def events(self) -> Events | None:
        if self.error:
            return None
        sets = (self.present >= 0).nonzero()[:, 0]
        low = self.present[sets].long()
        return Events(sets, as_table(self.target[sets], self.n_classes), low, self.sets.sizes[sets] * low)

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        """Classes may be merged unless one new class would hold targets and others."""
        mapping = check_mapping(mapping, self.n_classes, n_classes, "AnyOf", injective=False).to(self.device)
        new = self._fresh()
        new.target = merge_target(self.target, mapping, self.n_classes, n_classes)
        new.n_classes, new.class_names = n_classes, None
        return new

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
        """Labels from a column of a table of bags: 1/0, true/false, yes/no; empty is missing.

        Args:
            frame: any data frame, or a mapping of columns, with one row per bag.
            columns: name of the column.
            bags: the bags, in the order of the rows.
            target: class name, or several.
            classes: names of all classes.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, a value that is neither yes nor no, an unknown class.
        """
        values = [v.lower() for v in as_strings(read_column(frame, columns)).tolist()]
        odd = [v for v in values if v not in (*YES, *NO, "")]
        if odd:
            raise LabelError(
                f'"{columns}" holds "{odd[0]}" (row {values.index(odd[0])}); expected 1/0, true/false or yes/no'
            )
        present = torch.tensor([-1 if v == "" else int(v in YES) for v in values])
        return cls(bags, present, named_target(target, classes), len(classes), class_names=classes, **how)

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
    ) -> AnyOf:
        """Truthful answers on the given bags, or on random ones of `bag_size`, but for the given error."""
        bags = random_bags(len(classes), bag_size, generator) if bags is None else bags
        labels = cls(bags, torch.ones(len(bags)), target, n_classes, error=error, **how)
        certain = labels._fresh()
        certain.error = 0.0
        truth = certain.log_prob_given(classes[bags.members][None])[0] == 0
        wrong = torch.rand(len(bags), generator=generator) < error
        drawn = torch.rand(len(bags), generator=generator) < 0.5
        labels.present = torch.where(wrong, drawn, truth).to(torch.int8)
        return labels
