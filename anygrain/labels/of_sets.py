"""Tables with a row per set of instances: what set kinds of every space share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.observations import Observations


class OfSets(Observations):
    """One observation per set of instances, kept as tables that follow `select` and `.to`.

    A kind sets `sets` before its base is initialised.
    """

    sets: Bags

    def _keep(self, per_set: Mapping[str, Tensor] | None) -> None:
        """Make attributes of the tables."""
        self._per_set = tuple(per_set or {})
        for name, table in (per_set or {}).items():
            setattr(self, name, torch.as_tensor(table))
        self._set_rows = torch.arange(len(self.sets), device=self.device)

    @property
    def bags(self) -> Sequence[Bags]:
        return (self.sets,)

    @property
    def n_observations(self) -> int:
        return len(self.sets)

    def records(self) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(self._set_rows), self._set_rows

    def instance_weight(self) -> Tensor:
        out = super().instance_weight()
        if self.weight is None:
            return out
        return out.scatter_reduce(0, self.sets.members, self.weight.to(out.dtype)[self.sets.index], "prod")

    def _name_of_set(self, index: int) -> str:
        return f"bag {int(self._set_rows[index])}"

    def _take(self, instances: Tensor, sets: Tensor) -> Self:
        new = self._fresh()
        new.sets = self.sets.select(sets, instances)
        new.n_instances, new.rows = len(instances), self.rows[instances]
        new.weight = None if self.weight is None else self.weight[sets]
        for name in self._per_set:
            setattr(new, name, getattr(self, name)[sets])
        new._set_rows = self._set_rows[sets]
        return new
