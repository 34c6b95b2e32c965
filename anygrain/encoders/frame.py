"""Data frames whose columns are numbers, categories, dates and texts together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.encoders.column import (
    cells_of,
    columns_of,
    frequent_values,
    in_time,
    require_columns,
    role_of,
    texts_of,
    values_of,
)
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.table import Table
from anygrain.encoders.text import Text
from anygrain.labels import LabelError


class Frame(Encoder):
    """Columns of a data frame, each read as what it holds, put side by side.

    Numbers, truth values and durations are standardised, a missing number is the mean of the column it was learnt from,
    with a mark beside it; dates are days and the place in week and year, the middle day where missing; strings with few
    different values are one-hot coded (values never seen are all zeros), other strings are texts, joined and encoded by
    `Text`. Every block has the same mean square.

    Args:
        columns: (name, role) of every column used, role one of "number", "category", "date", "text"; learnt if None.
        values: known values of every category column.
        categories: most values of a category column.
        fills: what stands for a missing number or day, by column.

    Raises:
        LabelError: a column that was learnt is not there, or no longer holds numbers or dates.
    """

    def __init__(
        self,
        columns: list[tuple[str, str]] | None = None,
        values: dict[str, list[str]] | None = None,
        categories: int = 50,
        fills: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.columns = None if columns is None else [(str(n), str(r)) for n, r in columns]
        self.values, self.categories, self.fills = dict(values or {}), categories, dict(fills or {})
        self.table, self.text = Table(alike=0.0), Text()

    @property
    def feature_dim(self) -> int:  # type: ignore[override]
        return self.table.feature_dim + self.text.feature_dim

    def config(self) -> dict[str, Any]:
        columns = None if self.columns is None else [list(c) for c in self.columns]
        return {"columns": columns, "values": self.values, "categories": self.categories, "fills": self.fills}

    def learn(self, data: Any, seed: int = 0) -> Frame:
        columns = columns_of(data)
        self.columns = [(name, role_of(column, self.categories)) for name, column in columns.items()]
        for name, role in self.columns:
            if role == "category":
                self.values[name] = frequent_values(cells_of(columns[name]), self.categories)
            elif role != "text":
                value = values_of(columns[name], name, role)
                known = value[np.isfinite(value)]
                middle = np.mean if role == "number" else np.median
                self.fills[name] = float(middle(known)) if len(known) else 0.0
        numbers = self._numbers(columns)
        if numbers.shape[1]:
            self.table.learn(numbers)
        if any(role == "text" for _, role in self.columns):
            self.text.learn(self._texts(columns), seed)
        if not self.feature_dim:
            raise LabelError(f"no value in any column: {', '.join(columns)}")
        return self

    def forward(self, data: Any) -> Tensor:
        columns = columns_of(data)
        require_columns(columns, (name for name, _ in self.columns or []))
        blocks = []
        if self.table.feature_dim:
            blocks.append(self.table(self._numbers(columns)) / self.table.feature_dim**0.5)
        if self.text.feature_dim:
            blocks.append(self.text(self._texts(columns)))
        return torch.cat(blocks, dim=1)

    def feature_columns(self) -> list[tuple[str, ...]]:
        """Columns that every feature comes from, D of them: one, or all that are read as text."""
        widths = {"number": 2, "date": len(in_time(np.zeros(1))[0])}
        found: list[tuple[str, ...]] = []
        for name, role in self.columns or []:
            if role != "text":
                found += [(name,)] * (len(self.values[name]) if role == "category" else widths[role])
        texts = tuple(name for name, role in self.columns or [] if role == "text")
        return found + [texts] * self.text.feature_dim

    def _texts(self, columns: dict[str, Any]) -> list[str]:
        return texts_of(columns, (name for name, role in self.columns or [] if role == "text"))

    def _numbers(self, columns: dict[str, Any]) -> np.ndarray:
        blocks: list[np.ndarray] = [np.zeros((len(next(iter(columns.values()))), 0))]
        for name, role in self.columns or []:
            if role == "category":
                said = np.array(["" if v is None else str(v) for v in cells_of(columns[name])])
                blocks.append((said[:, None] == np.array(self.values[name], dtype=str)).astype(np.float64))
            elif role != "text":
                value = values_of(columns[name], name, role)
                gap = ~np.isfinite(value)
                filled = np.where(gap, self.fills[name], value)
                blocks.append(np.stack([filled, gap], axis=1) if role == "number" else in_time(filled))
        return np.concatenate(blocks, axis=1)
