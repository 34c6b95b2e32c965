"""Rows that must stay together when rows are held out: all visits of a patient, all frames of a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels import All, Labels
from anygrain.labels.structure import connected_components


class Grouped(All):
    """Labels whose data rows fall in groups of the user's, beside the sets that join rows anyway.

    Args:
        parts: as for `All`.
        group: group of every data row, shape (rows,), whole numbers of 0 or more; None: every row is one of its own.
    """

    def __init__(self, *parts: Labels, group: Tensor | None = None):
        super().__init__(*parts)
        self.group = torch.arange(self.n_rows) if group is None else torch.as_tensor(group).long()

    def groups(self) -> Tensor:
        """Group of every data row, shape (rows,): the user's groups, joined where a set holds rows of several."""
        joined = super().groups()
        row = torch.arange(self.n_rows, device=joined.device)
        group = self.group.to(joined.device) + self.n_rows
        first = int(group.max()) + 1 if len(group) else self.n_rows
        total = first + (int(joined.max()) + 1 if len(joined) else 0)
        return connected_components(total, torch.cat([row, row]), torch.cat([group, joined + first]))[: self.n_rows]

    def joined(self, parts: Sequence[Labels]) -> Self:
        return type(self)(*parts, group=self.group)

    def __getitem__(self, rows: Any) -> Self:
        new = super().__getitem__(rows)
        new.group = self.group[rows]
        return new
