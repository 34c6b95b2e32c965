"""Tables with a row per instance, or per record about one: what instance kinds of every space share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from anygrain.labels.error import LabelError
from anygrain.labels.observations import Observations


class OfInstances(Observations):
    """Observations of single instances, kept as tables that follow `select` and `.to`.

    An instance may have several records (votes, ratings): then `record_instances` says whose each is; else record i is
    about instance i.
    """

    record_instances: Tensor | None

    def _number_of_instances(self, per_instance: Mapping[str, Tensor] | None, n_instances: int | None) -> int:
        """N, which the tables and the number given must agree on.

        Raises:
            LabelError: tables of different lengths.
        """
        lengths = {len(table) for table in (per_instance or {}).values()}
        lengths |= {n_instances} if n_instances is not None else set()
        if len(lengths) != 1:
            raise LabelError(
                f"{type(self).__name__} was given tables of {sorted(lengths)} instances; expected one number"
            )
        return int(lengths.pop())

    @staticmethod
    def _device_of(*tables: Mapping[str, Tensor] | None) -> torch.device | None:
        return next((t.device for some in tables for t in (some or {}).values() if isinstance(t, Tensor)), None)

    def _keep(
        self,
        per_instance: Mapping[str, Tensor] | None,
        per_record: Mapping[str, Tensor] | None,
        record_instances: Tensor | None,
    ) -> None:
        """Make attributes of the tables, and find the records of every instance."""
        self._per_instance, self._per_record = tuple(per_instance or {}), tuple(per_record or {})
        for name, table in {**(per_instance or {}), **(per_record or {})}.items():
            setattr(self, name, torch.as_tensor(table))
        self.record_instances = record_instances
        if record_instances is not None:
            # records are kept in the user's order; this finds those of an instance in O(their number)
            count = torch.bincount(record_instances, minlength=self.n_instances)
            self._record_order = torch.argsort(record_instances, stable=True)
            self._record_offsets = torch.cat([count.new_zeros(1), count.cumsum(0)])
            self._record_rows = torch.arange(len(record_instances), device=self.device)
        else:
            self._record_rows = torch.arange(self.n_instances, device=self.device)

    @property
    def n_observations(self) -> int:
        return self.n_instances

    @property
    def n_records(self) -> int:
        return self.n_instances if self.record_instances is None else len(self.record_instances)

    def records(self) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(self._record_rows), self._record_rows

    def instance_weight(self) -> Tensor:
        return super().instance_weight() if self.weight is None else self.weight

    def _take(self, instances: Tensor, sets: Tensor) -> Self:
        new = self._fresh()
        new.n_instances, new.rows = len(instances), self.rows[instances]
        new.weight = None if self.weight is None else self.weight[instances]
        for name in self._per_instance:
            setattr(new, name, getattr(self, name)[instances])
        if self.record_instances is None:
            new._record_rows = self._record_rows[instances]
            return new
        sizes = self._record_offsets.diff()[instances]
        starts = self._record_offsets[:-1][instances] - (sizes.cumsum(0) - sizes)
        at = torch.repeat_interleave(starts, sizes) + torch.arange(int(sizes.sum()), device=self.device)
        chosen = self._record_order[at]
        new.record_instances = torch.repeat_interleave(sizes)
        new._record_order = torch.arange(len(chosen), device=self.device)
        new._record_offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        new._record_rows = self._record_rows[chosen]
        for name in self._per_record:
            setattr(new, name, getattr(self, name)[chosen])
        return new
