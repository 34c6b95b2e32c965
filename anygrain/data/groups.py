"""Rows that must stay together when rows are held out: all visits of a patient, all frames of a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels import All, Labels, RealAll, RealLabels
from anygrain.labels.joined import Joined
from anygrain.labels.structure import connected_components


class _InGroups(Joined[Any]):
    """A join whose data rows fall in groups of the user's, beside the sets that join rows anyway."""

    group: Tensor

    def _keep_group(self, group: Tensor | None) -> None:
        self.group = torch.arange(self.n_rows) if group is None else torch.as_tensor(group).long()

    def groups(self) -> Tensor:
        """Group of every data row, shape (rows,): the user's groups, joined where a set holds rows of several."""
        joined = super().groups()
        row = torch.arange(self.n_rows, device=joined.device)
        group = self.group.to(joined.device) + self.n_rows
        first = int(group.max()) + 1 if len(group) else self.n_rows
        total = first + (int(joined.max()) + 1 if len(joined) else 0)
        return connected_components(total, torch.cat([row, row]), torch.cat([group, joined + first]))[: self.n_rows]

    def joined(self, parts: Sequence[Any]) -> Self:
        make: Any = type(self)
        new: Self = make(*parts, group=self.group)
        return new

    def __getitem__(self, rows: Any) -> Self:
        new = super().__getitem__(rows)
        new.group = self.group[rows]
        return new


class Grouped(_InGroups, All):
    """Labels of classes whose data rows fall in groups of the user's.

    Args:
        parts: as for `All`.
        group: group of every data row, shape (rows,), whole numbers of 0 or more; None: every row is one of its own.
    """

    def __init__(self, *parts: Labels, group: Tensor | None = None):
        super().__init__(*parts)
        self._keep_group(group)


class GroupedNumbers(_InGroups, RealAll):
    """Labels of a number whose data rows fall in groups of the user's; arguments as those of `Grouped`."""

    def __init__(self, *parts: RealLabels, group: Tensor | None = None):
        super().__init__(*parts)
        self._keep_group(group)
