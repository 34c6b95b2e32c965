"""Tables from files or data frames: CSV, TSV, Parquet, JSON lines, Arrow."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from anygrain.data.error import InputError, counted, did_you_mean, number, quoted, some

#: cells that are empty whatever the configuration says
EMPTY = ("", "NA", "<NA>", "NaN", "nan", "null", "NULL")
FORMATS = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json", ".arrow", ".feather")


class Table:
    """Named columns of equal length, and the name to call them by in messages.

    Args:
        columns: the columns.
        name: the file's name, for messages.
        path: where it was read from, if anywhere.

    Raises:
        InputError: no row, no column, or a column name that occurs twice.
    """

    def __init__(self, columns: pa.Table, name: str, path: Path | None = None):
        self.arrow, self.name, self.path = columns, name, path
        names = columns.column_names
        self.columns = list(names)
        twice = sorted(n for n, times in Counter(names).items() if times > 1)
        if twice:
            raise InputError(
                f"{name} has {counted(len(twice), 'column name')} more than once: {some(map(quoted, twice))}. "
                "Rename them"
            )
        if not names or not columns.num_rows:
            raise InputError(f"{name} is empty. Expected a header and at least one row")

    def __len__(self) -> int:
        return int(self.arrow.num_rows)

    def require(self, column: str) -> str:
        """The column's name, if there is such a column.

        Raises:
            InputError: there is none, with the closest name.
        """
        self.require_all([column])
        return column

    def require_all(self, columns: Sequence[str]) -> None:
        """Raise unless all these columns are there.

        Raises:
            InputError: those that are not, with the name closest to the first.
        """
        missing = [c for c in dict.fromkeys(columns) if c not in self._known]
        if missing:
            hint = did_you_mean(missing[0], self.columns)
            shown = ", ".join(name or '""' for name in self.columns[:3]) + (", ..." if len(self.columns) > 3 else "")
            more = f" ({len(self.columns) - 3} more)" if len(self.columns) > 3 else ""
            what = "column" if len(missing) == 1 else "columns"
            raise InputError(f"{self.name} has no {what} {some(map(quoted, missing), 6)}.{hint} Columns: {shown}{more}")

    def matching(self, patterns: Sequence[str]) -> list[str]:
        """Columns by name, or by a pattern such as "pixel_*", in the order of the table for each pattern.

        Raises:
            InputError: a name or a pattern without a column.
        """
        found: dict[str, None] = {}
        self.require_all([p for p in patterns if not is_pattern(p)])
        for pattern in patterns:
            if not is_pattern(pattern):
                hits = [self.require(pattern)]
            else:
                hits = [c for c in self.columns if fnmatchcase(c, pattern)]
                if not hits:
                    raise InputError(
                        f"{self.name} has no column that matches {quoted(pattern)}. Columns: {some(self.columns)}"
                    )
            found.update(dict.fromkeys(hits))
        return list(found)

    def head(self, rows: int) -> Table:
        """The first rows."""
        return Table(self.arrow.slice(0, rows), self.name, self.path)

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.columns)

    @cached_property
    def _values(self) -> dict[str, np.ndarray]:
        return {}

    def strings(self, column: str) -> np.ndarray:
        """Cells as stripped strings, shape (rows,), "" where empty; whole floats lose their ".0", dates are ISO."""
        if column not in self._values:
            self._values[column] = _as_strings(self.arrow.column(self.require(column)))
        return self._values[column]

    def cells(self, column: str) -> list[Any]:
        """Cells as Python objects: lists stay lists."""
        values: list[Any] = self.arrow.column(self.require(column)).to_pylist()
        return values

    def numbers(self, column: str, names: Sequence[str] | np.ndarray | None = None) -> np.ndarray:
        """Cells as float64, shape (rows,), NaN where empty.

        Args:
            column: the column.
            names: what to call the rows in messages; their number from 1 on when not given.

        Raises:
            InputError: cells that are no numbers, with the first of them.
        """
        data = self.arrow.column(self.require(column))
        if pa.types.is_boolean(data.type):
            data = data.cast(pa.int8())
        if pa.types.is_integer(data.type) or pa.types.is_floating(data.type) or pa.types.is_decimal(data.type):
            return np.asarray(data.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
        text = self.strings(column)
        values, bad = parse_numbers(text)
        if bad.any():
            at = int(bad.argmax())
            row = names[at] if names is not None else at + 1
            raise InputError(
                f"{self.name}: {counted(int(bad.sum()), 'value')} of {quoted(column)} "
                f"{'is not a number' if bad.sum() == 1 else 'are not numbers'} (first: {quoted(text[at])} in row {row})"
                f"{comma_hint(text[bad])}"
            )
        return values

    def is_number(self, column: str) -> bool:
        """Whether every cell that is not empty is a number."""
        kind = self.arrow.schema.field(column).type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            return True
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return False
        text = self.strings(column)
        return bool((text != "").any()) and not parse_numbers(text)[1].any()


def is_pattern(name: str) -> bool:
    """Whether a name of columns stands for several, such as "pixel_*"."""
    return "*" in name or "?" in name


def has_decimal_commas(text: np.ndarray) -> bool:
    """Whether all cells (n,) that are not empty are numbers with a comma, or whole ones, and some have a comma."""
    filled = [v for v in text.tolist() if v]
    return any("," in v for v in filled) and all(_COMMA.fullmatch(v) for v in filled)


def comma_hint(text: np.ndarray) -> str:
    """What to do about numbers with decimal commas; nothing where there are none."""
    return ". Write decimal points, not commas" if has_decimal_commas(text) else ""


_COMMA = re.compile(r"[+-]?\d+(,\d+)?([eE][+-]?\d+)?")


def parse_numbers(text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strings (n,) as float64, NaN where empty, and bool (n,): neither empty nor a number."""
    values = np.full(len(text), np.nan)
    filled = text != ""
    try:
        values[filled] = text[filled].astype(np.float64)
        return values, np.zeros(len(text), dtype=bool)
    except ValueError:
        bad = np.zeros(len(text), dtype=bool)
        for at in filled.nonzero()[0].tolist():
            try:
                values[at] = float(text[at])
            except ValueError:
                bad[at] = True
        return values, bad


def _as_strings(data: pa.ChunkedArray) -> np.ndarray:
    kind = data.type
    if pa.types.is_dictionary(kind):
        data = data.cast(kind.value_type)
        kind = data.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        values = data.to_pylist()
    elif pa.types.is_floating(kind):
        values = [None if v is None or v != v else str(int(v)) if v.is_integer() else repr(v) for v in data.to_pylist()]
    elif pa.types.is_temporal(kind):
        values = [None if v is None else v.isoformat() for v in data.to_pylist()]
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_struct(kind):
        values = [None if v is None else json.dumps(v, ensure_ascii=False, default=_digest) for v in data.to_pylist()]
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        values = [_digest(v) if v else None for v in data.to_pylist()]
    else:
        values = [None if v is None else str(v) for v in data.to_pylist()]
    text = ["" if v is None else v.strip() for v in values]
    return np.array(["" if v in _EMPTY else v for v in text], dtype=object)


_EMPTY = frozenset(EMPTY)


def _digest(content: bytes) -> str:
    """Bytes as a short string that is the same for the same bytes."""
    return f"{len(content)} bytes {hashlib.blake2b(content, digest_size=8).hexdigest()}"


def as_table(frame: Any, name: str = "the table") -> Table:
    """Any data frame (pandas, polars, pyarrow, and what else narwhals knows), or a mapping of columns."""
    import narwhals as nw

    if isinstance(frame, Table):
        return frame
    if isinstance(frame, pa.Table):
        return Table(frame, name)
    if isinstance(frame, dict):
        return Table(pa.table({str(k): pa.array(list(v)) for k, v in frame.items()}), name)
    try:
        return Table(nw.from_native(frame, eager_only=True).to_arrow(), name)
    except TypeError as error:
        raise InputError(f"{type(frame).__name__} is not a data frame. Expected pandas, polars or pyarrow") from error


def read_table(path: str | Path) -> Table:
    """A table from a file; the ending of its name says how.

    CSV and TSV are UTF-8 with a header; all their cells are strings until somebody asks for numbers, so that the id
    "007" stays what it is. A CSV may be separated by semicolons or tabs.

    Raises:
        InputError: no such file, an ending that is not known, no header or no row, rows with too few or too many cells.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder. Expected a file: {', '.join(FORMATS)}")
    if not path.exists():
        near = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        raise InputError(f"There is no file {path}.{did_you_mean(path.name, near)}")
    ending = path.suffix.lower()
    if ending not in FORMATS:
        extra = " Save the sheet as CSV" if ending in (".xls", ".xlsx", ".ods") else ""
        raise InputError(f"{path.name} is not a table that can be read. Expected one of {', '.join(FORMATS)}.{extra}")
    if path.stat().st_size == 0:
        raise InputError(f"{path.name} is empty. Expected a header and at least one row")
    try:
        return Table(_READERS[ending](path), path.name, path)
    except UnicodeDecodeError as error:
        raise InputError(wrong_encoding(path)) from error
    except (pa.ArrowInvalid, pa.ArrowTypeError, json.JSONDecodeError, OSError) as error:
        fault = " ".join(str(error).split())[:200]
        raise InputError(f"{path.name} cannot be read as {ending[1:]}: {fault}") from error


def wrong_encoding(path: Path) -> str:
    """What to say of a text file that is not UTF-8: which encoding it looks like, and how to change it."""
    with open(path, "rb") as file:
        start = file.read(4)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        name, code = "UTF-16", "utf-16"
    else:
        name, code = "Windows-1252 (Latin-1)", "cp1252"
    return (
        f"{path.name} is not UTF-8; it looks like {name}. Save it as UTF-8 (CSV UTF-8 in a spreadsheet), or: "
        f"iconv -f {code} -t utf-8 {path.name} > new{path.suffix}"
    )


def _read_delimited(path: Path) -> pa.Table:
    from pyarrow import csv as arrow_csv

    with open(path, "rb") as file:
        first = file.readline()
    if first[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(wrong_encoding(path))
    header = first.decode("utf-8-sig", errors="replace")
    separator = "\t" if path.suffix.lower() == ".tsv" else _separator(header)
    ragged: list[tuple[int | None, int, int]] = []

    def refuse(row: Any) -> str:
        ragged.append((row.number, row.actual_columns, row.expected_columns))
        return "skip"

    read = arrow_csv.ReadOptions(use_threads=False)
    parse = arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=refuse)
    try:
        with arrow_csv.open_csv(
            path,
            read,
            arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=lambda _: "skip"),
        ) as reader:
            names = reader.schema.names
        types = {name: pa.string() for name in names}
        table = arrow_csv.read_csv(
            path, read, parse, arrow_csv.ConvertOptions(column_types=types, strings_can_be_null=False)
        )
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise InputError(wrong_encoding(path)) from error
        if "Empty CSV" in str(error):
            raise InputError(f"{path.name} is empty. Expected a header and at least one row") from error
        raise
    if ragged:
        line, has, expected = ragged[0]
        where = f"line {line} has {has}" if line else f"one has {has}"
        raise InputError(
            f"{path.name}: {counted(len(ragged), 'row')} without the {expected} cells of the header (first: {where}). "
            "Quote cells that hold a separator"
        )
    return table.rename_columns([name.strip() for name in table.column_names])


def _separator(header: str) -> str:
    counts = {s: header.count(s) for s in (",", ";", "\t")}
    return max(counts, key=lambda s: counts[s]) if any(counts.values()) else ","


def _read_parquet(path: Path) -> pa.Table:
    from pyarrow import parquet

    return parquet.read_table(path)


def _read_json_lines(path: Path) -> pa.Table:
    rows = []
    with open(path, encoding="utf-8-sig") as file:
        for line, content in enumerate(file, start=1):
            if not content.strip():
                continue
            try:
                row = json.loads(content)
            except json.JSONDecodeError as error:
                raise InputError(f"{path.name} line {line} is not JSON: {error.msg}") from error
            if not isinstance(row, dict):
                raise InputError(f"{path.name} line {line} is not an object. Expected one {{...}} per line")
            rows.append(row)
    return _from_objects(rows, path)


def _read_json(path: Path) -> pa.Table:
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("{"):
        return _read_json_lines(path)
    rows = json.loads(text)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path.name} is not a list of objects. Expected [{{...}}, {{...}}]")
    return _from_objects(rows, path)


def _from_objects(rows: list[dict[str, Any]], path: Path) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # numbers and words in one column
            columns[name] = pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values])
    return pa.table(columns)


def _read_arrow(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        try:
            return pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            return pa.ipc.open_stream(source).read_all()


_READERS = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".parquet": _read_parquet,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
    ".arrow": _read_arrow,
    ".feather": _read_arrow,
}


def write_table(columns: dict[str, Any], path: str | Path) -> None:
    """Columns to a file, as its ending says: .csv, .tsv, .parquet, .jsonl or .arrow; written whole or not at all.

    Raises:
        InputError: an ending that is not known.
    """
    path = Path(path)
    ending = path.suffix.lower()
    check_writable(path)
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    if ending in (".csv", ".tsv"):
        with open(part, "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, delimiter="\t" if ending == ".tsv" else ",", lineterminator="\n")
            rows.writerow(table.column_names)
            cells = [column.to_pylist() for column in table.columns]
            for row in zip(*cells, strict=True):
                rows.writerow([json.dumps(v, ensure_ascii=False) if isinstance(v, list | dict) else v for v in row])
    elif ending == ".parquet":
        from pyarrow import parquet

        parquet.write_table(table, part)
    elif ending in (".jsonl", ".ndjson"):
        with open(part, "w", encoding="utf-8") as file:
            for row in table.to_pylist():
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    else:
        with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    part.replace(path)


def check_place(path: Path) -> None:
    """Raise unless something can be written under this name, as far as one can tell without doing it.

    Raises:
        InputError: a part of the path is a file, or a folder that may not be written.
    """
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if there != path.absolute() and not there.is_dir():
        raise InputError(f"{there} is a file, so {path} cannot be written. Choose another --out")
    if not os.access(there, os.W_OK):
        raise InputError(f"{there} may not be written. Choose another --out")


def check_writable(path: str | Path) -> None:
    """Raise unless a table can be written under this name.

    Raises:
        InputError: an ending that is not known, a folder, or a place that may not be written.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder. Expected the name of a file, such as {path / 'new.parquet'}")
    check_place(path)
    known = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".arrow", ".feather")
    if path.suffix.lower() not in known:
        raise InputError(
            f"{path.name} does not end in a format that can be written. Expected one of {', '.join(known)}"
        )


def distinct(values: np.ndarray) -> list[str]:
    """The different values of strings (n,), without "", in order of first appearance."""
    return [v for v in dict.fromkeys(values.tolist()) if v != ""]


__all__ = [
    "EMPTY",
    "FORMATS",
    "Table",
    "as_table",
    "check_place",
    "check_writable",
    "distinct",
    "has_decimal_commas",
    "is_pattern",
    "number",
    "parse_numbers",
    "read_table",
    "write_table",
    "wrong_encoding",
]
