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

    Numbers and truth values are standardised, a missing number is the column's mean with a mark beside it; dates are
    days and the place in week and year; strings with few different values are one-hot coded (values never seen are all
    zeros), other strings are texts, joined and encoded by `Text`. Every block has the same mean square.

    Args:
        columns: (name, role) of every column used, role one of "number", "category", "date", "text"; learnt if None.
        values: known values of every category column.
        categories: most values of a category column.
    """

    def __init__(
        self,
        columns: list[tuple[str, str]] | None = None,
        values: dict[str, list[str]] | None = None,
        categories: int = 50,
    ) -> None:
        super().__init__()
        self.columns = None if columns is None else [(str(n), str(r)) for n, r in columns]
        self.values, self.categories = dict(values or {}), categories
        self.table, self.text = Table(alike=0.0), Text()

    @property
    def feature_dim(self) -> int:  # type: ignore[override]
        return self.table.feature_dim + self.text.feature_dim

    def config(self) -> dict[str, Any]:
        columns = None if self.columns is None else [list(c) for c in self.columns]
        return {"columns": columns, "values": self.values, "categories": self.categories}

    def learn(self, data: Any, seed: int = 0) -> Frame:
        import narwhals as nw

        frame = nw.from_native(data, eager_only=True)
        self.columns = [(name, _role(frame.get_column(name), self.categories)) for name in frame.columns]
        for name, role in self.columns:
            if role == "category":
                said = [str(v) for v in frame.get_column(name).to_list() if v is not None]
                names, counts = np.unique(said, return_counts=True)
                kept = names[np.argsort(-counts, kind="stable")[: self.categories]]
                self.values[name] = [str(v) for v in kept]
        numbers = self._numbers(frame)
        if numbers.shape[1]:
            self.table.learn(numbers)
        if any(role == "text" for _, role in self.columns):
            self.text.learn(self._texts(frame), seed)
        return self

    def forward(self, data: Any) -> Tensor:
        import narwhals as nw

        frame = nw.from_native(data, eager_only=True)
        missing = [name for name, _ in self.columns or [] if name not in frame.columns]
        if missing:
            raise LabelError(f"the table has no column {', '.join(map(repr, missing))}, which the model was fitted on")
        blocks = []
        if self.table.feature_dim:
            blocks.append(self.table(self._numbers(frame)) / self.table.feature_dim**0.5)
        if self.text.feature_dim:
            blocks.append(self.text(self._texts(frame)))
        return torch.cat(blocks, dim=1)

    def _texts(self, frame: Any) -> list[str]:
        names = [name for name, role in self.columns or [] if role == "text"]
        cells = [["" if v is None else str(v) for v in frame.get_column(name).to_list()] for name in names]
        return [" ".join(row) for row in zip(*cells, strict=True)]

    def _numbers(self, frame: Any) -> np.ndarray:
        blocks: list[np.ndarray] = [np.zeros((len(frame), 0))]
        for name, role in self.columns or []:
            if role == "number":
                cells = frame.get_column(name).to_list()
                value = np.array([np.nan if v is None else float(v) for v in cells], dtype=np.float64)
                gap = ~np.isfinite(value)
                known = value[~gap]
                filled = np.where(gap, known.mean() if len(known) else 0.0, value)
                blocks.append(np.stack([filled, gap], axis=1))
            elif role == "date":
                blocks.append(_date_features(frame.get_column(name).to_list()))
            elif role == "category":
                said = np.array(["" if v is None else str(v) for v in frame.get_column(name).to_list()])
                blocks.append((said[:, None] == np.array(self.values[name], dtype=str)).astype(np.float64))
        return np.concatenate(blocks, axis=1)


def _role(column: Any, categories: int) -> str:
    import narwhals as nw

    dtype = column.dtype
    if dtype.is_numeric() or dtype == nw.Boolean:
        return "number"
    if dtype.is_temporal() and dtype != nw.Duration:
        return "date"
    said = [str(v) for v in column.to_list() if v is not None]
    distinct = len(set(said))
    return "category" if distinct <= categories and distinct <= max(2, len(said) / 2) else "text"


def _date_features(values: list[Any]) -> np.ndarray:
    """Days since 1970, sine and cosine of the place in week and year; the middle day where missing."""
    days = np.array([np.datetime64(v, "s").astype(np.int64) / 86400 if v is not None else np.nan for v in values])
    known = days[np.isfinite(days)]
    days = np.where(np.isfinite(days), days, np.median(known) if len(known) else 0.0)
    turns = 2 * np.pi * np.stack([days / 7, days / 365.2425], axis=1)
    return np.concatenate([days[:, None], np.sin(turns), np.cos(turns)], axis=1)
