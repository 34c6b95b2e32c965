"""Sets that speak of a target class, or of several: the base of AnyOf, AtLeast, AtMost and Between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.error import LabelError
from anygrain.labels.instance import check_error, check_mapping
from anygrain.labels.segments import Segments
from anygrain.labels.sets import SetLabels
from anygrain.labels.target import Target, count_hits, merge_target, named_target, read_target


class TargetSets(SetLabels):
    """Each bag says something about how many of its instances are of the target class.

    A kind gives `factor`, `log_prob_given`, and `_read` for `from_frame`.

    Attributes:
        target: a class per bag, shape (M,), or bool of classes, shape (M, K).
    """

    target: Tensor

    def __init__(
        self,
        bags: Bags,
        target: Target,
        n_classes: int,
        *,
        per_set: Mapping[str, Tensor],
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        super().__init__(
            n_classes,
            bags,
            per_set={**per_set, "target": read_target(target, len(bags), n_classes, bags.members.device)},
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )
        self.error = check_error(error)

    @cached_property
    def _segments(self) -> Segments:
        return Segments(self.sets.offsets)

    def _hits(self, classes: Tensor) -> Tensor:
        """Number of members of a target class (S, M), for S assignments of classes to the flat members (S, E)."""
        return count_hits(classes, self.target[self.sets.index], self.sets.index, len(self.sets))

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        """Classes may be merged unless one new class would hold targets and others."""
        mapping = check_mapping(mapping, self.n_classes, n_classes, type(self).__name__, injective=False)
        new = self._fresh()
        new.target = merge_target(self.target, mapping.to(self.device), self.n_classes, n_classes)
        new.n_classes, new.class_names = n_classes, None
        return new

    def _common(self, name: str, said: Tensor) -> Tensor:
        """The row of a table that all bags that say something, bool (M,), have in common; () or (K,).

        Raises:
            LabelError: bags that differ.
        """
        table = getattr(self, name)[said if bool(said.any()) else slice(None)]
        if len(table) == 0:
            raise LabelError(f"{type(self).__name__} has no bag, so that nothing is asked")
        if not bool((table == table[0]).all()):
            raise LabelError(
                f"bags of {type(self).__name__} differ in their {name}: other bags have no answer to all of it; make "
                "labels with one for all bags"
            )
        row: Tensor = table[0]
        return row

    def _common_target(self, said: Tensor) -> list[int]:
        """The target classes of all bags that say something, bool (M,)."""
        row = self._common("target", said)
        return [int(row)] if row.ndim == 0 else row.nonzero()[:, 0].tolist()

    @classmethod
    def _read(cls, frame: Any, columns: Any) -> Sequence[Tensor]:
        """What the columns say, as the constructor takes it between bags and target."""
        raise NotImplementedError(f"{cls.__name__} does not say how its columns are read")

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: str | Sequence[str],
        *,
        bags: Bags,
        target: str | Sequence[str],
        classes: Sequence[str],
        **how: Any,
    ) -> Self:
        """Labels from a table of bags; empty says nothing.

        Args:
            frame: any data frame, or a mapping of columns, with one row per bag.
            columns: name of the column: for `AnyOf` of 1/0, true/false or yes/no, for `AtLeast` and `AtMost` of whole
                numbers; for `Between` the names of two, low and high, where empty is an open end.
            bags: the bags, in the order of the rows.
            target: class name, or several.
            classes: names of all classes.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, an entry that is no such answer or no whole number, an unknown class.
        """
        make: Any = cls
        said = cls._read(frame, columns)
        labels: Self = make(bags, *said, named_target(target, classes), len(classes), class_names=classes, **how)
        return labels
