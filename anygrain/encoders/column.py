"""Columns of a data frame: what each holds, and its values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from anygrain.labels import LabelError

#: what a column can hold
ROLES = ("number", "category", "date", "text")


def columns_of(data: Any) -> dict[str, Any]:
    """Columns of a data frame by name; numbers may name them too.

    Raises:
        LabelError: other data.
    """
    import narwhals as nw

    if not hasattr(data, "columns"):
        shape = f" of shape {tuple(data.shape)}" if hasattr(data, "shape") else ""
        raise LabelError(f"X is {type(data).__name__}{shape}; expected a data frame")
    return {str(column.name): column for column in nw.from_native(data, eager_only=True).iter_columns()}


def require_columns(columns: dict[str, Any], names: Iterable[str]) -> None:
    """Raises LabelError that names columns which are not there."""
    missing = [name for name in names if name not in columns]
    if missing:
        raise LabelError(f"the table has no column {', '.join(map(repr, missing))}, which the model was fitted on")


def cells_of(column: Any) -> list[Any]:
    """Values of a column, None where missing, whatever the data frame writes there."""
    return [None if gone else v for v, gone in zip(column.to_list(), column.is_null().to_list(), strict=True)]


def values_of(column: Any, name: str, role: str) -> np.ndarray:
    """A column of numbers, durations (in seconds) or dates (in days since 1970), NaN where missing, shape (N,)."""
    import narwhals as nw

    cells, unit = cells_of(column), 1.0
    if column.dtype in (nw.Date, nw.Datetime):
        stamps = column.cast(nw.Datetime("us")) if column.dtype == nw.Date else column
        cells, unit = cells_of(stamps.dt.timestamp("us")), 86400e6
    elif column.dtype == nw.Duration:
        cells, unit = cells_of(column.dt.total_microseconds()), 1e6
    try:
        if (role == "date") != (unit == 86400e6) and any(v is not None for v in cells):
            raise ValueError
        return np.array([np.nan if v is None else float(v) for v in cells], dtype=np.float64) / unit
    except (TypeError, ValueError) as error:
        raise LabelError(
            f'column "{name}" held a {role} per row when the model was fitted, and now does not'
        ) from error


def role_of(column: Any, categories: int) -> str:
    """What a column holds, one of `ROLES`; strings with at most so many different values are categories."""
    import narwhals as nw

    dtype = column.dtype
    if dtype.is_numeric() or dtype in (nw.Boolean, nw.Duration):
        return "number"
    if dtype in (nw.Date, nw.Datetime):
        return "date"
    said = [str(v) for v in cells_of(column) if v is not None]
    distinct = len(set(said))
    return "category" if distinct <= categories and distinct <= max(2, len(said) / 2) else "text"


def texts_of(columns: dict[str, Any], names: Iterable[str], between: str = " ") -> list[str]:
    """Texts of some columns, those of a row joined."""
    cells = [["" if v is None else str(v) for v in cells_of(columns[name])] for name in names]
    return [between.join(row) for row in zip(*cells, strict=True)]


def frequent_values(cells: Iterable[Any], most: int, least: int = 1) -> list[str]:
    """Values that occur so often at least, the most frequent ones first, as strings."""
    names, counts = np.unique([str(v) for v in cells if v is not None], return_counts=True)
    kept = np.argsort(-counts, kind="stable")[:most]
    return [str(names[at]) for at in kept if counts[at] >= least]


def in_time(days: np.ndarray) -> np.ndarray:
    """Days since 1970 (N,), and sine and cosine of their place in week and year: (N, 5)."""
    turns = 2 * np.pi * np.stack([days / 7, days / 365.2425], axis=1)
    return np.concatenate([days[:, None], np.sin(turns), np.cos(turns)], axis=1)
