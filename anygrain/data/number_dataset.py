"""A configuration of numbers read: rows, what the model sees of them, and what is known of the number."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from anygrain.data.config import AggregateValueColumns, Config, ValueColumns
from anygrain.data.conflicts import message
from anygrain.data.dataset import Given, read_source, require_labels
from anygrain.data.error import InputError
from anygrain.data.evidence import Rows
from anygrain.data.groups import GroupedNumbers
from anygrain.data.kinds import read_numbers
from anygrain.data.number_conflicts import find_number_conflicts
from anygrain.labels import RealAll, RealLabels, Value


@dataclass(kw_only=True)
class NumberDataset(Given[RealLabels]):
    """Everything that a fit of a number needs.

    Attributes:
        rows: what labels are joined to.
        gap: how far apart labels that contradict each other are, root mean square.
    """

    rows: Rows
    gap: float

    @property
    def labels(self) -> RealLabels:
        """All labels together, rows of one group joined."""
        parts = [e.labels for e in self.evidence]
        if self.groups is not None:
            return GroupedNumbers(*parts, group=torch.from_numpy(self.groups))
        return RealAll(*parts) if len(parts) > 1 else parts[0]

    @property
    def quantity(self) -> str:
        """What the number is called: the column of the values, else the name of the first labels."""
        values = [e for e in self.evidence if isinstance(e.labels, Value)]
        return values[0].columns[0] if values else self.evidence[0].name

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """The value given for every row and the standard deviation it was read with, both (N,); NaN without one."""
        given, noise = np.full(len(self), np.nan), np.full(len(self), np.nan)
        for entry in self.evidence:
            if isinstance(entry.labels, Value):
                first = np.isnan(given)
                given = np.where(first, entry.labels.values.double().numpy(), given)
                noise = np.where(first & ~np.isnan(given), entry.labels.noise.numpy(), noise)
        return given, noise


def read_number_dataset(config: Config) -> NumberDataset:
    """Everything that a configuration of numbers names, checked.

    Raises:
        InputError: the first kind of problem that was found; nothing is trained before all checks are passed. Rows
            that contradict themselves are returned in `conflicts`.
    """
    source = read_source(config)
    evidence = read_numbers(config.labels, source.rows)
    require_labels(evidence)
    conflicts, gap = find_number_conflicts(evidence, source.rows.ids)
    return NumberDataset(
        config=config,
        table=source.table,
        ids=source.rows.ids,
        columns=source.columns,
        evidence=evidence,
        groups=source.groups,
        conflicts=conflicts,
        notes=[*source.notes, *(n for e in evidence for n in e.notes)],
        rows=source.rows,
        gap=gap,
    )


def softened_numbers(dataset: NumberDataset) -> NumberDataset:
    """The same data with labels read with noise: exact values, means and sums that contradict others get one.

    The noise is the root mean square of the distances between labels that contradict each other.

    Raises:
        InputError: ranges that do not meet, where there is nothing to give noise to.
    """
    if not dataset.conflicts:
        return dataset
    named = {name for conflict in dataset.conflicts for name in conflict.sources}
    config = dataset.config.model_copy(deep=True)
    for entry in config.labels:
        if isinstance(entry, ValueColumns | AggregateValueColumns) and entry.name in named and entry.noise == 0:
            entry.noise = float(f"{dataset.gap:.4g}")
    evidence = read_numbers(config.labels, dataset.rows)
    left, _ = find_number_conflicts(evidence, dataset.ids)
    if left:
        said = message(left).split(" Continue with")[0]
        raise InputError(
            f"{said} Ranges that do not meet cannot be softened: give them as Value with noise, or fix them"
        )
    note = (
        f"Labels that contradict each other are read with a standard deviation of {dataset.gap:.4g} "
        '(conflicts = "soften").'
    )
    return replace(dataset, config=config, evidence=evidence, notes=[*dataset.notes, note])
