"""The table of found classes that a person edits, one line per class."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anygrain.labels import LabelError

COLUMNS = ("id", "name", "suggested", "terms", "parent", "size", "stability", "known", "nearest", "action")
NEEDED = ("id", "name", "suggested", "parent", "size", "known", "action")
ACTIONS = "nothing, accept, merge ID, split NUMBER or drop"
_ACTION = re.compile(r"(accept|drop)|(merge|split)(?:\s*[: ]\s*)(\d+)", re.I)

#: where something stands, of a class and a column: "classes.csv line 4, column action"
Place = Callable[[int, str], str]


@dataclass(frozen=True)
class ClassLine:
    """One class, and what is to become of it.

    Attributes:
        id: its index.
        name: what it is called; another name than the suggested one accepts the class.
        suggested: the name that was found for it.
        terms: what tells it from its siblings.
        parent: the coarse class above it, "" where there is none.
        size: rows.
        stability: from 0 to 1, or NaN.
        known: whether labels knew it.
        nearest: name of the known class that lies nearest, or "".
        action: "" (it stays open and is looked for again), "accept", "merge 4" (it is class 4), "split 2" (it is two
            classes), or "drop" (it is none; its rows are free).
    """

    id: int
    name: str
    suggested: str = ""
    terms: str = ""
    parent: str = ""
    size: int = 0
    stability: float = math.nan
    known: bool = False
    nearest: str = ""
    action: str = ""

    @property
    def verb(self) -> str:
        return self.action.split(" ")[0]

    @property
    def number(self) -> int:
        """The class to merge into, or how many parts to split in."""
        return int(self.action.split(" ")[1])

    @property
    def accepted(self) -> bool:
        """Whether it was accepted in so many words, or by a name of its own."""
        return not self.known and (self.verb == "accept" or (not self.verb and self.name != self.suggested))


def write_classes(lines: Sequence[ClassLine], path: str | os.PathLike[str]) -> None:
    """Lines as CSV, whole or not at all."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    with open(part, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for line in lines:
            stability = "" if math.isnan(line.stability) else f"{line.stability:.2f}"
            shown = {**vars(line), "stability": stability, "known": "yes" if line.known else "no"}
            rows.writerow([shown[name] for name in COLUMNS])
    part.replace(path)


def read_classes(path: str | os.PathLike[str]) -> tuple[list[ClassLine], Place]:
    """The lines of a table by id, and where each stands.

    Columns that are not known are left alone; spreadsheets may have changed the order of lines and columns.

    Raises:
        LabelError: what cannot be read, with its line and column.
    """
    path = Path(path)
    if not path.is_file():
        raise LabelError(f"there is no table of classes {path}; expected the classes.csv that anygrain discover wrote")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise LabelError(f"{path.name} is not in UTF-8; save it as CSV in UTF-8") from error
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(text.splitlines(), delimiter=separator)
    header = [cell.strip() for cell in next(reader, [])]
    missing = [name for name in NEEDED if name not in header]
    if missing:
        raise LabelError(f'{path.name} has no column "{missing[0]}"; expected {", ".join(COLUMNS)}')
    lines: dict[int, ClassLine] = {}
    at: dict[int, int] = {}
    for cells in reader:
        number = reader.line_num
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            raise LabelError(
                f"{path.name} line {number} has {len(cells)} cells, the header {len(header)}; quote names that hold "
                f'a "{separator}"'
            )
        given = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        line = _line(given, f"{path.name} line {number}, column ")
        if line.id in lines:
            raise LabelError(
                f"{path.name} line {number}, column id: class {line.id} stands in line {at[line.id]} already; expected "
                "one line per class"
            )
        lines[line.id], at[line.id] = line, number
    lost = [k for k in range(max(lines, default=-1) + 1) if k not in lines]
    if lost or not lines:
        what = f"class {lost[0]} has no line" if lines else "there is no class"
        raise LabelError(f'{path.name}: {what}; to give a class up, leave its line and write the action "drop"')
    return [lines[k] for k in sorted(lines)], lambda k, column: f"{path.name} line {at[k]}, column {column}"


def _line(given: Mapping[str, str], begin: str) -> ClassLine:
    def whole(column: str) -> int:
        if not given[column].isdigit():
            raise LabelError(f'{begin}{column}: "{given[column]}" is no whole number; expected 0, 1, 2, ...')
        return int(given[column])

    known = given["known"].casefold()
    if known not in ("yes", "no"):
        raise LabelError(f'{begin}known: "{given["known"]}"; expected yes or no, as it was written')
    stability = given.get("stability", "")
    try:
        value = float(stability) if stability else math.nan
    except ValueError as error:
        raise LabelError(f'{begin}stability: "{stability}" is no number; leave it as it was written') from error
    return ClassLine(
        whole("id"),
        given["name"],
        given["suggested"],
        given.get("terms", ""),
        given["parent"],
        whole("size"),
        value,
        known == "yes",
        given.get("nearest", ""),
        _action(given["action"], f"{begin}action"),
    )


def _action(text: str, place: str) -> str:
    if not text:
        return ""
    found = _ACTION.fullmatch(text)
    if found is None:
        raise LabelError(f'{place}: "{text}" is no action; expected {ACTIONS}')
    return found[1].lower() if found[1] else f"{found[2].lower()} {int(found[3])}"


def check_classes(lines: Sequence[ClassLine], place: Place) -> None:
    """Whether what is to become of the classes can be.

    Raises:
        LabelError: the first class of which it cannot, with its place.
    """
    names: dict[str, int] = {}
    for line in lines:
        _check_action(line, lines, place)
        if not line.name:
            raise LabelError(f"{place(line.id, 'name')}: class {line.id} has no name; expected one")
        if line.verb in ("merge", "drop"):
            continue
        if line.name in names:
            raise LabelError(
                f'{place(line.id, "name")}: "{line.name}" is the name of class {names[line.name]} as well; expected '
                f'another, or the action "merge {names[line.name]}"'
            )
        names[line.name] = line.id
    if all(line.verb == "drop" for line in lines):
        raise LabelError(f"{place(0, 'action')}: every class is dropped; expected one that stays")


def _check_action(line: ClassLine, lines: Sequence[ClassLine], place: Place) -> None:
    where = place(line.id, "action")
    if line.known and line.verb not in ("", "accept"):
        raise LabelError(f"{where}: class {line.id} was known before, and stays; expected nothing or accept")
    if line.known and line.name != line.suggested:
        raise LabelError(
            f'{place(line.id, "name")}: class {line.id} was known before as "{line.suggested}"; rename it in the labels'
        )
    if line.verb == "split" and not 2 <= line.number <= line.size:
        raise LabelError(f"{where}: {line.action} of {line.size} rows; expected 2 parts or more, and as many rows")
    seen, here = [line.id], line
    while here.verb == "merge":
        to = here.number
        if to >= len(lines):
            raise LabelError(f"{where}: there is no class {to}; expected an id from 0 to {len(lines) - 1}")
        if to in seen:
            raise LabelError(f"{where}: merging class {line.id} leads back to class {to}; expected one that stays")
        here = lines[to]
        seen.append(to)
    if here is not line and here.verb in ("drop", "split"):
        raise LabelError(f'{where}: class {here.id} has the action "{here.action}"; merge into a class that stays')
    if here.parent != line.parent:
        raise LabelError(
            f'{where}: class {line.id} lies in "{line.parent}", class {here.id} in "{here.parent}"; merge classes of '
            "one parent"
        )
