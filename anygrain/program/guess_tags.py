"""Which columns say what tags a row has: cells that list several names, or 0 / 1 columns side by side."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from anygrain.data.error import InputError, counted, number, quoted, some

SEPARATORS = ("|", ";", ",")
OFTEN = 3  # times that a name is listed on average, where names are tags
SEVERAL = 0.05  # share of cells with several names
WORDS = 3.0  # of a name, on average
FEWEST = 3  # 0 / 1 columns that are tags without being called so
_LISTS = re.compile(
    r"(^|_)(tags?|labels?|topics?|genres?|categor(y|ies)|keywords?|themes?|types|classes|emotions?|attributes)$", re.I
)
_HEAD = re.compile(r"^(is|has|tags?|labels?|topics?|genres?|category|emotions?|class|themes?)$", re.IGNORECASE)
_BINARY = {"0", "1", "0.0", "1.0", "true", "false"}


class TagColumn(Protocol):
    """What is known of a column."""

    name: str
    values: np.ndarray
    distinct: list[str]
    filled: int

    @property
    def is_text(self) -> bool: ...


@dataclass(frozen=True)
class Found:
    """Labels of tags, the columns they are read from, and in words what they are and why."""

    label: dict[str, Any]
    columns: list[str]
    shown: str
    why: str
    rows: int


def listed(column: TagColumn) -> tuple[str, list[list[str]]] | None:
    """The separator of cells that list names ("[" for JSON), and the names of every different cell; None elsewhere."""
    if not column.distinct:
        return None
    if all(v.startswith("[") for v in column.distinct):
        try:
            cells = [json.loads(v) for v in column.distinct]
        except json.JSONDecodeError:
            return None
        return ("[", cells) if all(isinstance(p, str) for cell in cells for p in cell) and any(cells) else None
    times = Counter(v for v in column.values.tolist() if v)
    for separator in SEPARATORS:
        cells = [[p.strip() for p in v.split(separator) if p.strip()] for v in column.distinct]
        many = [times[v] for v in column.distinct]
        several = sum(n for cell, n in zip(cells, many, strict=True) if len(cell) > 1)
        if several < SEVERAL * column.filled:
            continue
        names = Counter[str]()
        for cell, n in zip(cells, many, strict=True):
            names.update(dict.fromkeys(cell, n))
        words = float(np.mean([len(name.split()) for name in names]))
        # the same number of parts everywhere is an address or a name, unless the column is called otherwise
        varied = len({len(cell) for cell in cells}) > 1 or _LISTS.search(column.name)
        if sum(names.values()) >= OFTEN * len(names) and words <= WORDS and len(names) > 1 and varied:
            return separator, cells
    return None


def is_binary(column: TagColumn) -> bool:
    """Whether a column holds 0 and 1 alone, some of them 1."""
    found = {v.casefold() for v in column.distinct}
    return bool(found) and found <= _BINARY and bool(found & {"1", "1.0", "true"})


def said_tags(said: Mapping[str, str], columns: Mapping[str, Any]) -> list[Found]:
    """Labels of the columns that were said to hold tags: lists one by one, 0 / 1 columns together.

    Raises:
        InputError: a column that is neither.
    """
    out, flags = [], []
    for name in (n for n in columns if said.get(n) == "Tags"):
        column = columns[name]
        if is_binary(column):
            flags.append(name)
            continue
        found = listed(column)
        if found is None and column.is_text:
            raise InputError(
                f"--column {name}=Tags: the cells of {quoted(name)} list no names (such as "
                f"{quoted(column.distinct[0][:40])}). Expected names split by {' or '.join(map(quoted, SEPARATORS))}, "
                "JSON lists, or 0 and 1"
            )
        out.append(_lists(column, found or ("|", [[v] for v in column.distinct]), "as you said, "))
    if flags:
        out.append(_flags(flags, columns, columns, "as you said, "))
    return out


def tags_by_look(left: Sequence[str], columns: Mapping[str, Any]) -> Found | None:
    """Columns that are clearly tags; None where nothing is, or where several are."""
    lists = [(columns[n], found) for n in left if (found := listed(columns[n])) is not None]
    called = [pair for pair in lists if _LISTS.search(pair[0].name)]
    if len(called or lists) == 1:
        return _lists(*(called or lists)[0])
    if lists:
        return None
    flags = [n for n in left if is_binary(columns[n])]
    heads: dict[str, list[str]] = {}
    for name in flags:
        head = re.split(r"[_\-:. ]", name, maxsplit=1)[0]
        if head != name and _HEAD.search(head):
            heads.setdefault(head, []).append(name)
    groups = [names for names in heads.values() if len(names) > 1 and not _one_each(names, columns)]
    if len(groups) == 1:
        return _flags(groups[0], columns, left)
    # beside texts, 0 / 1 columns and nothing else
    others = [n for n in left if n not in flags]
    with_text = any(columns[n].is_text for n in others) and all(columns[n].is_text for n in others)
    if not groups and with_text and len(flags) >= FEWEST and not _one_each(flags, columns):
        return _flags(flags, columns, left)
    return None


def _one_each(names: Sequence[str], columns: Mapping[str, TagColumn]) -> bool:
    """Whether every row has one 1: then they are classes."""
    on = np.stack([np.isin(np.char.lower(columns[n].values.astype(str)), ("1", "1.0", "true")) for n in names])
    return bool((on.sum(axis=0) == 1).all())


def _lists(column: TagColumn, found: tuple[str, list[list[str]]], before: str = "") -> Found:
    separator, cells = found
    names = {name for cell in cells for name in cell}
    most = max(len(cell) for cell in cells)
    split = "JSON lists" if separator == "[" else f"split by {quoted(separator)}"
    label: dict[str, Any] = {"kind": "Tags", "column": column.name}
    if separator not in ("[", "|"):
        label["separator"] = separator
    why = f"{before}cells list {counted(len(names), 'name')}, up to {number(most)} a row, {split}"
    return Found(label, [column.name], column.name, why, column.filled)


def _flags(names: list[str], columns: Mapping[str, TagColumn], among: Iterable[str], before: str = "") -> Found:
    head = re.split(r"[_\-:. ]", names[0], maxsplit=1)[0]
    start = names[0][: len(head) + 1]
    pattern = len(names) > 1 and [n for n in among if n.startswith(start)] == names and start != names[0]
    label = {"kind": "Tags", "columns": [f"{start}*"] if pattern else names}
    cells = np.stack([columns[n].values != "" for n in names])
    shown = names[0] if len(names) == 1 else f"{names[0]}..{names[-1]}" if len(names) > 3 else some(names)
    return Found(
        label, names, shown, f"{before}{counted(len(names), 'column')} of 0 and 1", int(cells.any(axis=0).sum())
    )


def notes_for(found: Found, n: int) -> list[str]:
    """How what a list leaves out is read."""
    if "column" not in found.label:
        return []
    name = found.columns[0]
    out = [f'tags that a cell of {quoted(name)} leaves out are read as absent (else: unlisted = "unknown")']
    if found.rows < n:
        empty = counted(n - found.rows, "empty cell says", "empty cells say")
        out.append(f'{empty} nothing of a row (if they mean no tag at all: empty = "absent")')
    return out
