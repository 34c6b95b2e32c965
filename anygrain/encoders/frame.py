"""Data frames whose columns are numbers, categories, dates and texts together."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

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
        columns = _columns(data)
        self.columns = [(name, _role(column, self.categories)) for name, column in columns.items()]
        for name, role in self.columns:
            if role == "category":
                said = [str(v) for v in _cells(columns[name]) if v is not None]
                names, counts = np.unique(said, return_counts=True)
                kept = names[np.argsort(-counts, kind="stable")[: self.categories]]
                self.values[name] = [str(v) for v in kept]
            elif role != "text":
                value = _values(columns[name], name, role)
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
        columns = _columns(data)
        missing = [name for name, _ in self.columns or [] if name not in columns]
        if missing:
            raise LabelError(f"the table has no column {', '.join(map(repr, missing))}, which the model was fitted on")
        blocks = []
        if self.table.feature_dim:
            blocks.append(self.table(self._numbers(columns)) / self.table.feature_dim**0.5)
        if self.text.feature_dim:
            blocks.append(self.text(self._texts(columns)))
        return torch.cat(blocks, dim=1)

    def _texts(self, columns: dict[str, Any]) -> list[str]:
        names = [name for name, role in self.columns or [] if role == "text"]
        cells = [["" if v is None else str(v) for v in _cells(columns[name])] for name in names]
        return [" ".join(row) for row in zip(*cells, strict=True)]

    def _numbers(self, columns: dict[str, Any]) -> np.ndarray:
        blocks: list[np.ndarray] = [np.zeros((len(next(iter(columns.values()))), 0))]
        for name, role in self.columns or []:
            if role == "category":
                said = np.array(["" if v is None else str(v) for v in _cells(columns[name])])
                blocks.append((said[:, None] == np.array(self.values[name], dtype=str)).astype(np.float64))
            elif role != "text":
                value = _values(columns[name], name, role)
                gap = ~np.isfinite(value)
                filled = np.where(gap, self.fills[name], value)
                blocks.append(np.stack([filled, gap], axis=1) if role == "number" else _in_time(filled))
        return np.concatenate(blocks, axis=1)


def _columns(data: Any) -> dict[str, Any]:
    """Columns of a data frame by name; numbers may name them too."""
    import narwhals as nw

    return {str(column.name): column for column in nw.from_native(data, eager_only=True).iter_columns()}


def _cells(column: Any) -> list[Any]:
    """Values of a column, None where missing, whatever the data frame writes there."""
    return [None if gone else v for v, gone in zip(column.to_list(), column.is_null().to_list(), strict=True)]


def _values(column: Any, name: str, role: str) -> np.ndarray:
    """A column of numbers, durations (in seconds) or dates (in days since 1970), NaN where missing, shape (N,)."""
    import narwhals as nw

    cells, unit = _cells(column), 1.0
    if column.dtype in (nw.Date, nw.Datetime):
        stamps = column.cast(nw.Datetime("us")) if column.dtype == nw.Date else column
        cells, unit = _cells(stamps.dt.timestamp("us")), 86400e6
    elif column.dtype == nw.Duration:
        cells, unit = _cells(column.dt.total_microseconds()), 1e6
    try:
        if (role == "date") != (unit == 86400e6) and any(v is not None for v in cells):
            raise ValueError
        return np.array([np.nan if v is None else float(v) for v in cells], dtype=np.float64) / unit
    except (TypeError, ValueError) as error:
        raise LabelError(
            f'column "{name}" held a {role} per row when the model was fitted, and now does not'
        ) from error


def _role(column: Any, categories: int) -> str:
    import narwhals as nw

    dtype = column.dtype
    if dtype.is_numeric() or dtype in (nw.Boolean, nw.Duration):
        return "number"
    if dtype in (nw.Date, nw.Datetime):
        return "date"
    said = [str(v) for v in _cells(column) if v is not None]
    distinct = len(set(said))
    return "category" if distinct <= categories and distinct <= max(2, len(said) / 2) else "text"


def _in_time(days: np.ndarray) -> np.ndarray:
    """Days since 1970 (N,), and sine and cosine of their place in week and year: (N, 5)."""
    turns = 2 * np.pi * np.stack([days / 7, days / 365.2425], axis=1)
    return np.concatenate([days[:, None], np.sin(turns), np.cos(turns)], axis=1)
