"""Where the instances of rows lie, if rows are bags: files named by an id, or a column of lists of instances."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from anygrain.data.bag_files import ENDINGS, shapes_of
from anygrain.data.error import InputError, counted, number
from anygrain.data.table import Table

DEEP = 3  # folders below that of the table that are looked into
FOLDERS = 500  # at most
LIKELY = 0.5  # share of rows that have a file


@dataclass(frozen=True)
class BagPlace:
    """Where bags lie.

    Attributes:
        instances: a folder, or a column of the table.
        id: the column that files are named by; "" for a column of lists.
        why: in words.
        evidence: how many rows have one.
    """

    instances: str
    id: str
    why: str
    evidence: str


def bag_place(source: Path, table: Table) -> BagPlace | None:
    """The column of lists of instances, or the folder with a file for most rows; None where there is neither."""
    for field in table.arrow.schema:
        if _is_list_of_lists(field.type) and field.name != "coords":
            return BagPlace(field.name, "", "lists of instances: a row is a bag", f"{number(len(table))} of them")
    best: tuple[int, Path, str] | None = None
    values = {name: set(table.strings(name).tolist()) - {""} for name in table.columns if not table.is_number(name)}
    values = {name: found for name, found in values.items() if len(found) == len(table)}
    for folder, stems in _folders(source.parent) if values else ():
        for name, ids in values.items():
            many = len(ids & stems)
            if many >= LIKELY * len(table) and (best is None or many > best[0]):
                best = (many, folder, name)
    if best is None:
        return None
    many, folder, name = best
    why = f"unique, and {counted(many, 'file')} in {folder.name}/ are named so: a row is a bag"
    return BagPlace(str(folder), name, why, f"{number(many)} of {number(len(table))}")


def _is_list_of_lists(kind: pa.DataType) -> bool:
    for _ in range(2):
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
            return False
        kind = kind.value_type
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _folders(root: Path) -> Iterator[tuple[Path, set[str]]]:
    """Folders that hold files of bags, and what these are called; files of other arrays are passed over."""
    for seen, (at, below, files) in enumerate(os.walk(root)):
        folder = Path(at)
        deep = len(folder.relative_to(root).parts)
        inside = [name for name in below if name.endswith(".zarr")]
        below[:] = sorted(n for n in below if not n.startswith((".", "__")) and n not in inside) if deep < DEEP else []
        if seen >= FOLDERS:
            return
        found = sorted(folder / name for name in [*files, *inside] if Path(name).suffix.lower() in ENDINGS)
        if found and _holds_features(found[0]):
            yield folder, {path.stem for path in found}


def _holds_features(path: Path) -> bool:
    try:
        return len(shapes_of(path)[0]) == 2
    except InputError:
        return False


__all__ = ["BagPlace", "bag_place"]
