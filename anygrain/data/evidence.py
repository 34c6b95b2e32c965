"""Labels as they were read: evidence with the names of its records, and how tables join to rows by row id."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from anygrain import labels as kinds
from anygrain.data import config as settings
from anygrain.data.classes import Classes, Spelling
from anygrain.data.error import InputError, counted, quoted, some
from anygrain.data.table import Table, distinct
from anygrain.labels.observations import Observations

L = TypeVar("L", bound=Observations)


@dataclass
class Read(Generic[L]):
    """One kind of label, read, and what its records are called.

    Attributes:
        name, kind: as in the configuration.
        source: name of the file.
        columns: the columns it was read from.
        says: what was read, in words.
        labels: the labels, of classes or of a number.
        n_labels: number of values, votes or sets that say something.
        rows: bool (N,), data rows with a label.
        values: number of distinct values.
        record_row: data row of every record (R,), -1 for records about sets.
        record_source: who gave the record (R,): the column, the annotator, the bag.
        record_value: what it says (R,), "" where nothing.
        simulated: whether the labels were drawn by a program.
        notes: sentences about what was done with odd cells.
    """

    name: str
    kind: str
    source: str
    columns: list[str]
    says: str
    labels: L
    n_labels: int
    rows: np.ndarray
    values: int
    record_row: np.ndarray
    record_source: np.ndarray
    record_value: np.ndarray
    simulated: bool = False
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Cut what the constructor rows are called to the records that the labels have, in their order."""
        _, row = self.labels.records()
        at = row.numpy()
        self.record_row, self.record_source = self.record_row[at], self.record_source[at]
        self.record_value = self.record_value[at]


#: labels of classes, and of a number
Evidence: TypeAlias = Read[kinds.Labels]
NumberEvidence: TypeAlias = Read[kinds.RealLabels]


@dataclass
class Rows:
    """What labels are joined to: the data table, its row ids and bags."""

    table: Table
    ids: np.ndarray  # (N,) row ids as strings
    id_column: str
    spelling: Spelling
    bag_column: str = ""

    def __post_init__(self) -> None:
        self.position = {name: at for at, name in enumerate(self.ids.tolist())}

    def __len__(self) -> int:
        return len(self.table)


@dataclass
class Draft:
    """A kind of label whose cells are read but not yet looked up: first all classes must be known.

    Attributes:
        classes: class names that occur.
        build: the evidence; several where a kind is made of several.
        tables: paths by what they are.
    """

    classes: list[str]
    build: Callable[[Classes], Evidence | list[Evidence]]
    tables: dict[str, str] = field(default_factory=dict)


def places_of(
    ids: np.ndarray, table: str, column: str, rows: Rows, entry: settings.LabelColumns
) -> tuple[np.ndarray, list[str]]:
    """Data row of each id (n,), -1 where it is not among the data and may be dropped; and notes.

    Raises:
        InputError: ids that are not among the data.
    """
    ids, notes = as_known(ids, rows.position, f"{table}, {quoted(column)}")
    places = np.array([rows.position.get(v, -1) for v in ids.tolist()], dtype=np.int64)
    lost = (places < 0).nonzero()[0]
    if not len(lost):
        return places, notes
    names = distinct(ids[lost]) or ["(empty)"]
    if entry.unknown_rows == "drop":
        verb = "was" if len(lost) == 1 else "were"
        said = f"{table}: {counted(len(lost), 'row')} for {counted(len(names), 'unknown id')} {verb} dropped."
        return places, [*notes, said]
    hint = f" {padding_hint(names[0], rows.ids)}"
    raise InputError(
        f"{table}: {counted(len(lost), 'row')} {'is' if len(lost) == 1 else 'are'} for rows that {rows.table.name} "
        "does "
        f"not have, {column} = {some(map(quoted, names))}.{hint if hint.strip() else ''} Expected values of "
        f"{quoted(rows.id_column)}, such as {some(map(quoted, rows.ids[:2].tolist()))}. "
        f'Leave them out with --set labels.{entry.name}.unknown_rows="drop"'
    )


def as_known(ids: np.ndarray, known: Container[str], where: str) -> tuple[np.ndarray, list[str]]:
    """Ids (n,) as they are spelt among the known ones where only a ".0" differs, as between files; and a note."""
    spelt = {}
    for name in distinct(ids):
        other = name[: name.index(".")] if _WHOLE_FLOAT.fullmatch(name) else f"{name}.0" if name.isdigit() else name
        if name not in known and other in known:
            spelt[name] = other
    if not spelt:
        return ids, []
    first, other = next(iter(spelt.items()))
    note = f"{where}: {counted(len(spelt), 'id')} such as {quoted(first)} {'is' if len(spelt) == 1 else 'are'} read as "
    return np.array([spelt.get(v, v) for v in ids.tolist()], dtype=object), [f"{note}{quoted(other)}."]


_WHOLE_FLOAT = re.compile(r"-?\d+\.0+")


def padding_hint(name: str, known: np.ndarray) -> str:
    """A hint where two ids differ in leading zeros only."""
    bare = _unpadded(name)
    other = next((str(k) for k in known.tolist() if k != name and _unpadded(str(k)) == bare), None)
    return f"Zero-padded? There is {quoted(other)}." if other else ""


def _unpadded(name: str) -> str:
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)


def one_per_row(
    values: np.ndarray, places: np.ndarray, table: Table, rows: Rows, entry: Any, column: str
) -> np.ndarray:
    """Cells (n,) of a label table as one cell per data row (N,), "" where there is none.

    Raises:
        InputError: different cells for one row, unless `repeats` says which to keep.
    """
    if table is rows.table:
        return values
    out = np.full(len(rows), "", dtype=object)
    filled = ((values != "") & (places >= 0)).nonzero()[0]
    repeated: list[tuple[int, str, str]] = []
    for at in filled.tolist():
        row, value = int(places[at]), values[at]
        if out[row] != "" and out[row] != value:
            repeated.append((row, out[row], value))
            if entry.repeats == "first":
                continue
        out[row] = value
    if repeated and entry.repeats == "stop":
        row, one, two = repeated[0]
        raise InputError(
            f"{table.name}: {counted(len(repeated), 'repeated row')} of {quoted(column)}, first row {rows.ids[row]}: "
            f'{quoted(one)} and {quoted(two)}. Keep last or first? --set labels.{entry.name}.repeats="last"'
        )
    return out


def weights(entry: settings.LabelColumns, n: int) -> Tensor | None:
    return None if entry.weight == 1.0 else torch.full((n,), float(entry.weight))


def per_row(
    entry: settings.LabelColumns,
    table: Table,
    columns: list[str],
    made: L,
    text: np.ndarray,
    says: str,
    notes: list[str],
    source: str | None = None,
) -> Read[L]:
    """Evidence with one record per data row, whose cell is `text` (N,)."""
    filled = text != ""
    n = len(text)
    return Read(
        name=entry.name,
        kind=entry.kind,
        source=table.name,
        columns=columns,
        says=says,
        labels=made,
        n_labels=int(filled.sum()),
        rows=filled,
        values=len(distinct(text)),
        record_row=np.arange(n),
        record_source=np.full(n, source or columns[0], dtype=object),
        record_value=text,
        simulated=entry.simulated,
        notes=notes,
    )


def starred(patterns: Sequence[str], columns: Sequence[str]) -> list[str]:
    """What the star of a pattern stands for in each column; the column's own name where there is no star."""
    out = []
    for column in columns:
        name = column
        for pattern in patterns:
            head, star, tail = pattern.partition("*")
            if star and column.startswith(head) and column.endswith(tail) and len(column) >= len(head) + len(tail):
                name = column[len(head) : len(column) - len(tail)]
                break
        out.append(name)
    return out


def row_names(table: Table, entry: settings.LabelColumns, rows: Rows) -> np.ndarray:
    """What to call the rows of a table in messages: their ids, or their numbers from 1 on."""
    column = entry.id or rows.id_column
    if table is rows.table:
        return rows.ids
    return table.strings(column) if column in table.columns else np.arange(1, len(table) + 1).astype(str)
