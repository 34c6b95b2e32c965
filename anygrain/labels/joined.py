"""Several parts that speak of the same instances: what a join of labels is in every space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.error import LabelError
from anygrain.labels.observations import Observations
from anygrain.labels.of_instances import OfInstances
from anygrain.labels.of_sets import OfSets

Part = TypeVar("Part", bound=Observations)


class Joined(Observations, Generic[Part]):
    """Labels of the same instances and rows, joined.

    Observations: the sets of the parts in order, then the instances that lie in no set. Records: those of the parts
    in order. A join sets `parts` before its base is initialised, and `weight` to `joined_weight()` after.
    """

    parts: list[Part]

    @property
    def _set_parts(self) -> list[OfSets]:
        return [p for p in self.parts if isinstance(p, OfSets)]

    @property
    def n_observations(self) -> int:
        return self.structure.n_sets + len(self.structure.free)

    @property
    def n_records(self) -> int:
        return sum(p.n_records for p in self.parts)

    @property
    def bags(self) -> tuple[Bags, ...]:
        return tuple(p.sets for p in self._set_parts)

    def records(self) -> tuple[Tensor, Tensor]:
        rows = [p.records()[1] for p in self.parts]
        part = torch.cat([torch.full_like(r, at) for at, r in enumerate(rows)])
        return part, torch.cat(rows)

    def instance_weight(self) -> Tensor:
        out = super().instance_weight()
        for part in self.parts:
            if part.weight is not None:
                out = out * part.instance_weight()
        return out

    def joined_weight(self) -> Tensor | None:
        """Weight of every observation, shape (M,), from those of the parts; None where no part has any."""
        if all(p.weight is None for p in self.parts):
            return None
        sets = [torch.ones(len(p.sets)) if p.weight is None else p.weight.float() for p in self._set_parts]
        own = [p.instance_weight() for p in self.parts if isinstance(p, OfInstances)]
        alone = torch.stack([*own, torch.ones(self.n_instances, device=self.device)]).prod(dim=0)
        return torch.cat([*(w.to(self.device) for w in sets), alone[self.structure.free]])

    def joined(self, parts: Sequence[Part]) -> Self:
        """Other parts joined as these are: over the same rows, in the same groups."""
        make: Any = type(self)
        new: Self = make(*parts)
        return new

    def with_own_channels(self) -> Self:
        return self.joined([p.with_own_channels() for p in self.parts])

    def _name_of_set(self, index: int) -> str:
        for part, owned in zip(self._set_parts, self.structure.set_slices, strict=True):
            if index < owned.stop:
                return f"{part._name_of_set(index - owned.start)} of {type(part).__name__}"
        return super()._name_of_set(index)

    def _take(self, instances: Tensor, sets: Tensor) -> Self:
        slices = iter(self.structure.set_slices)
        taken = []
        for part in self.parts:
            mine = sets[:0]
            if isinstance(part, OfSets):
                at = next(slices)
                mine = sets[(sets >= at.start) & (sets < at.stop)] - at.start
            taken.append(part._take(instances, mine))
        return self.joined(taken)

    def __getitem__(self, rows: Any) -> Self:
        new = super().__getitem__(rows)
        for part in new.parts:
            part.rows, part.n_rows = new.rows, new.n_rows
        return new

    def to(self, device: torch.device | str) -> Self:
        return self.joined([p.to(device) for p in self.parts])


def require_same_instances(parts: Sequence[Observations]) -> None:
    """Raises LabelError where parts differ in instances or rows."""
    first = parts[0]
    for part in parts:
        ours, theirs = type(first).__name__, type(part).__name__
        for what in ("n_instances", "n_rows"):
            if getattr(part, what) != getattr(first, what):
                values = f"{getattr(first, what)} and {getattr(part, what)}"
                raise LabelError(f"{ours} and {theirs} differ in {what}: {values}")
        if not torch.equal(part.rows, first.rows):
            raise LabelError(f"{ours} and {theirs} map instances to different data rows")
