"""Long tables, one row per vote or rating: who said what of which item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.labels.error import LabelError
from anygrain.labels.frame import as_strings, class_list, read_column


def read_long(
    frame: Any, item: str, annotator: str, items: Sequence[Any] | None, *, record: str = "vote"
) -> tuple[Tensor, Sequence[str], np.ndarray]:
    """Item of every row (R,), the names of all items, and the annotator of every row as a string, (R,).

    Args:
        frame: any data frame, or a mapping of columns.
        item, annotator: names of its columns.
        items: ids of all items in the order of the data rows; without it, those that occur, sorted.
        record: what a row is called.

    Raises:
        LabelError: no such column, an item that is not among `items`, a repeated id in `items`, a row without item or
            annotator.
    """
    given = {c: as_strings(read_column(frame, c)) for c in (item, annotator)}
    for column, values in given.items():
        empty = np.flatnonzero(values == "")
        if len(empty):
            raise LabelError(
                f'"{column}" is empty in {len(empty)} rows, first row {empty[0]}; every {record} needs one'
            )
    if items is None:
        names: Sequence[str] = class_list([given[item]])
    else:
        names = as_strings(np.asarray(items)).tolist()
        if len(set(names)) < len(names):
            repeated = next(n for n in names if list(names).count(n) > 1)
            raise LabelError(f'item "{repeated}" stands twice among the items; ids must be unique')
    known, at = np.unique(np.asarray(names, dtype=str), return_inverse=False), np.argsort(names)
    place = np.searchsorted(known, given[item]).clip(max=max(len(known) - 1, 0))
    unknown = np.flatnonzero(known[place] != given[item]) if len(known) else np.arange(len(given[item]))
    if len(unknown):
        first = ", ".join(f'"{given[item][u]}" in row {u}' for u in unknown[:3])
        raise LabelError(f"{len(unknown)} {record}s are about unknown items: {first}; expected ids of the data")
    return torch.from_numpy(at[place]), names, given[annotator]


def as_indices(values: Any, n: int | None, what: str, *, lowest: int, record: str = "vote") -> tuple[Tensor, int]:
    """Indices as int64, and how many there can be.

    Raises:
        LabelError: not whole numbers, or outside lowest..n-1, with the first row.
    """
    indices = torch.as_tensor(values)
    if indices.is_floating_point() or indices.is_complex():
        raise LabelError(f"{what}s must be whole numbers, not {indices.dtype}; names go through from_long")
    indices = indices.long()
    if n is None:
        n = int(indices.max()) + 1 if len(indices) else 0
    bad = ((indices < lowest) | (indices >= n)).nonzero()[:, 0]
    if len(bad):
        raise LabelError(f"{what} {int(indices[bad[0]])} in {record} {int(bad[0])} is outside {lowest}..{n - 1}")
    return indices, int(n)
