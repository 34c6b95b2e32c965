"""Which instances, rows, sets and records labels speak of: what labels of every space share."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.error import LabelError
from anygrain.labels.structure import Structure

#: log-likelihood of an observation that cannot be: finite, constant, without gradient
IMPOSSIBLE = -1e4


class Batch(NamedTuple):
    """Part of an epoch: some instances, and the observations that lie wholly among them."""

    instances: Tensor  # (B,) instance ids
    observations: Tensor  # (b,) observation ids; every observation stands in one batch of an epoch
    weight: Tensor  # (B,) 1 / number of batches of the epoch in which the instance occurs


class Observations(ABC):
    """Observations of N instances in data rows, some of them of sets: order, folds, batches and selections.

    An *observation* is one set, or one instance that lies in no set (M of them). A *record* is what the user gave in
    one row (R of them). What an observation says is for `Labels` (classes) and `RealLabels` (numbers) to tell.

    Attributes:
        rows: data row of every instance, shape (N,).
        weight: factor of each observation in losses and totals, shape (M,), or None; never changes a posterior.
    """

    def __init__(
        self,
        n_instances: int,
        *,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        device: torch.device | None = None,
    ):
        self.n_instances = int(n_instances)
        if rows is None:
            rows = torch.arange(n_instances, device=device)
        rows = torch.as_tensor(rows).long()
        if rows.shape != (n_instances,):
            raise LabelError(f"rows has shape {tuple(rows.shape)}; expected ({n_instances},), a data row per instance")
        if len(rows) and int(rows.min()) < 0:
            raise LabelError("rows holds a negative data row")
        needed = int(rows.max()) + 1 if len(rows) else 0
        self.n_rows = needed if n_rows is None else int(n_rows)
        if self.n_rows < needed:
            raise LabelError(f"rows names data row {needed - 1}, but n_rows is {n_rows}")
        self.rows = rows
        self.weight = None if weight is None else torch.as_tensor(weight)
        if self.weight is not None:
            if self.weight.shape != (self.n_observations,):
                expected = f"({self.n_observations},), one per observation"
                raise LabelError(f"weight has shape {tuple(self.weight.shape)}; expected {expected}")
            if not bool(torch.isfinite(self.weight).all()) or bool((self.weight < 0).any()):
                raise LabelError("weight must be finite and not negative")

    @property
    @abstractmethod
    def n_observations(self) -> int:
        """M."""

    @property
    def n_records(self) -> int:
        """R."""
        return self.n_observations

    @property
    def bags(self) -> Sequence[Bags]:
        """The sets of each part that has sets."""
        return ()

    @property
    def exact(self) -> bool:
        """Whether likelihood and posterior are exact; False for a named approximation."""
        return True

    @property
    def device(self) -> torch.device:
        return self.rows.device

    def records(self) -> tuple[Tensor, Tensor]:
        """(part, row) of every record, both (R,): the row is that of the part's constructor."""
        row = torch.arange(self.n_records, device=self.device)
        return torch.zeros_like(row), row

    def with_own_channels(self) -> Self:
        """The same labels with copies of their channels: fitting the copies leaves the user's as they are."""
        new = self._fresh()
        for name, value in new.__dict__.items():
            if isinstance(value, torch.nn.Module):
                new.__dict__[name] = copy.deepcopy(value)
        return new

    def instance_weight(self) -> Tensor:
        """Weight of every instance, shape (N,): that of its observation, or the product over those that name it."""
        return self.rows.new_ones(self.n_instances, dtype=torch.get_default_dtype())

    # -- rows, folds and batches --------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.n_rows

    @property
    def shape(self) -> tuple[int]:
        """(rows,): with it scikit-learn splits labels like a vector."""
        return (self.n_rows,)

    @cached_property
    def structure(self) -> Structure:
        """How the sets of these labels overlap."""
        return Structure(self.n_instances, self.bags, self.device)

    @cached_property
    def _row_order(self) -> tuple[Tensor, Tensor]:
        """Instances sorted by data row, and where each row's begin."""
        count = torch.bincount(self.rows, minlength=self.n_rows)
        return torch.argsort(self.rows, stable=True), torch.cat([count.new_zeros(1), count.cumsum(0)])

    def groups(self) -> Tensor:
        """Group of every data row, shape (rows,): rows that one observation joins must stay in one fold."""
        from anygrain.labels.structure import connected_components

        component = self.structure.nodes[: self.n_instances]
        total = int(self.structure.nodes.max()) + 1 if len(self.structure.nodes) else 0
        return connected_components(self.n_rows + total, self.rows, component + self.n_rows)[: self.n_rows]

    def __getitem__(self, rows: Any) -> Self:
        """The labels of some data rows, in the order given: whole numbers, a mask, or a slice, also as `(rows, ...)`.

        Raises:
            LabelError: a set that the selection would cut, by name.
        """
        if isinstance(rows, tuple) and len(rows) == 2 and rows[1] is Ellipsis:  # as scikit-learn asks
            rows = rows[0]
        if isinstance(rows, slice):
            rows = torch.arange(self.n_rows)[rows]
        given = torch.as_tensor(rows, device=self.device)
        if given.ndim != 1:
            raise LabelError(f"rows to select have shape {tuple(given.shape)}; expected a list of rows, such as [0, 3]")
        if given.dtype == torch.bool:
            if len(given) != self.n_rows:
                raise LabelError(f"a mask of {len(given)} rows cannot select from {self.n_rows} rows")
            given = given.nonzero()[:, 0]
        rows = torch.where(given < 0, given + self.n_rows, given).long()
        outside = (rows < 0) | (rows >= self.n_rows)
        if bool(outside.any()):
            raise LabelError(f"row {int(given[outside][0])} is not one of the {self.n_rows} rows")
        order, offsets = self._row_order
        sizes = offsets.diff()[rows]
        starts = offsets[:-1][rows] - (sizes.cumsum(0) - sizes)
        instances = order[torch.repeat_interleave(starts, sizes) + torch.arange(int(sizes.sum()), device=self.device)]
        times = torch.bincount(instances, minlength=self.n_instances)
        touched = times > 0
        is_in = touched[self.structure.members]
        count = torch.bincount(self.structure.sets[is_in], minlength=self.structure.n_sets)
        sets = (count > 0).nonzero()[:, 0]
        cut = sets[count[sets] < self.structure.offsets.diff()[sets]]
        if len(cut):
            raise LabelError(
                f"the selected rows cut {self._name_of_set(int(cut[0]))}: keep all of its members together"
            )
        if len(sets) and bool((times[self.structure.members[is_in]] > 1).any()):
            raise LabelError("a row that lies in a set was selected twice; a set cannot be repeated in part")
        new = self._take(instances, sets)
        new.rows = torch.repeat_interleave(sizes)
        new.n_rows = len(rows)
        return new

    def _name_of_set(self, index: int) -> str:
        return f"set {index}"

    @abstractmethod
    def _take(self, instances: Tensor, sets: Tensor) -> Self:
        """Some instances and sets (numbered over all parts), re-indexed in the order given."""

    def select(self, batch: Batch) -> Self:
        """The labels of one batch, instances re-indexed to 0..B-1."""
        observations = batch.observations
        return self._take(batch.instances, observations[observations < self.structure.n_sets])

    @cached_property
    def _units(self) -> tuple[Tensor, Tensor, Tensor]:
        """Component of every set, and the instances of all components one after another with their offsets."""
        s = self.structure
        component = s.component
        count = torch.bincount(component, minlength=int(s.nodes.max()) + 1 if len(s.nodes) else 0)
        offsets = torch.cat([count.new_zeros(1), count.cumsum(0)])
        return s.nodes[self.n_instances :], torch.argsort(component, stable=True), offsets

    @cached_property
    def _unit_sets(self) -> tuple[Tensor, Tensor]:
        component, _, instance_offsets = self._units
        count = torch.bincount(component, minlength=len(instance_offsets) - 1)
        return torch.argsort(component, stable=True), torch.cat([count.new_zeros(1), count.cumsum(0)])

    @cached_property
    def _observation_of_free(self) -> Tensor:
        """Observation number of an instance that lies in no set; -1 elsewhere, or where it is no observation."""
        out = torch.full((self.n_instances,), -1, device=self.device)
        free = self.structure.free
        if self.n_observations > self.structure.n_sets:
            out[free] = torch.arange(len(free), device=self.device) + self.structure.n_sets
        return out

    def batches(self, size: int, generator: torch.Generator, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """One epoch in random order: every observation once, sets whole, components together where they fit.

        Args:
            size: number of instances aimed at; a larger set makes a larger batch.
            generator: where the order comes from; the same state on every rank.
            rank, world: this process and the number of them; all get the same number of batches.
        """
        if size < 1:
            raise LabelError(f"size of a batch is {size}; expected 1 or more")
        component, instances, offsets = self._units
        sets, set_offsets = self._unit_sets
        device = self.device
        sizes = offsets.diff()
        fits = (sizes <= size) | (set_offsets.diff() <= 1)
        whole = fits.nonzero()[:, 0]
        alone = (~fits[component]).nonzero()[:, 0]  # sets of components that are larger than a batch
        width = torch.cat([sizes[whole], self.structure.offsets.diff()[alone]])
        order = torch.randperm(len(width), generator=generator, device=generator.device).to(device)
        bounds = _cut(width[order].cpu(), size, world)
        times = torch.ones(self.n_instances, device=device)
        if len(alone):
            times = torch.bincount(self.structure.members[_spread(self.structure.offsets, alone)], minlength=len(times))
            times = times.clamp(min=1).float()
        for start, stop in bounds[rank::world]:
            units = order[start:stop]
            components = whole[units[units < len(whole)]]
            chosen = alone[units[units >= len(whole)] - len(whole)]
            inside = instances[_spread(offsets, components)]
            if len(chosen):
                members = self.structure.members[_spread(self.structure.offsets, chosen)].unique()
                inside = torch.cat([inside, members])
            free = self._observation_of_free[inside]
            observations = torch.cat([sets[_spread(set_offsets, components)], chosen, free[free >= 0]])
            yield Batch(inside, observations, 1.0 / times[inside])

    def to(self, device: torch.device | str) -> Self:
        """The same labels on another device; channels move with them."""
        new = copy.copy(self)
        for name in list(new.__dict__):
            if isinstance(getattr(type(new), name, None), cached_property):
                del new.__dict__[name]
        for name, value in list(new.__dict__.items()):
            if isinstance(value, Tensor | Bags | torch.nn.Module):
                new.__dict__[name] = value.to(device)
        return new

    def _fresh(self) -> Self:
        """A copy without what was computed from rows, instances or sets."""
        new = copy.copy(self)
        for name in list(new.__dict__):
            if isinstance(getattr(type(new), name, None), cached_property):
                del new.__dict__[name]
        return new


def _spread(offsets: Tensor, chosen: Tensor) -> Tensor:
    """Positions offsets[c]..offsets[c + 1] - 1 of every c that is chosen, one after another."""
    sizes = offsets.diff()[chosen]
    starts = offsets[:-1][chosen] - (sizes.cumsum(0) - sizes)
    return torch.repeat_interleave(starts, sizes) + torch.arange(int(sizes.sum()), device=offsets.device)


def _cut(widths: Tensor, size: int, world: int) -> list[tuple[int, int]]:
    """Runs of units of about `size` instances each; their number is a multiple of `world`, the last may be empty."""
    reach = widths.cumsum(0)
    bounds, start = [], 0
    while start < len(widths):
        held = int(reach[start - 1]) if start else 0
        stop = max(int(torch.searchsorted(reach, held + size, right=True)), start + 1)
        bounds.append((start, stop))
        start = stop
    while len(bounds) % world:  # halve the longest run, so that no rank idles while another works
        at = max(range(len(bounds)), key=lambda b: bounds[b][1] - bounds[b][0])
        start, stop = bounds[at]
        middle = (start + stop + 1) // 2
        bounds[at : at + 1] = [(start, middle), (middle, stop)]
    return bounds
