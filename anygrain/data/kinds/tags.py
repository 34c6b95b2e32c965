"""Tags: cells that list them, one 0 / 1 column per tag, or a table with a row per row id and tag."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from anygrain import labels as kinds
from anygrain.data import config as settings
from anygrain.data.classes import Classes
from anygrain.data.conflicts import Conflict
from anygrain.data.error import InputError, counted, quoted, some
from anygrain.data.evidence import Evidence, Rows, row_names, starred
from anygrain.data.kinds.class_sets import lists_of
from anygrain.data.kinds.votes import without_repeats
from anygrain.data.table import Table, distinct

_ON_OFF = {"": -1, "0": 0, "1": 1, "false": 0, "true": 1, "no": 0, "yes": 1}
#: what else than the separator may stand between the tags of a cell
_SEPARATORS = ("|", ";", ",", "/")
#: what a record of a tag says, by 1 + its entry
SAID = np.array(["", "lacks", "has"], dtype=object)


@dataclass
class TagCells:
    """What one entry of a configuration says, before the list of tags is known.

    Attributes:
        entry: of the configuration.
        source: name of the file.
        columns: that were read.
        spelt: different names, as cells spell them.
        row, code, value: data row, place in `spelt`, and 1 or 0 of everything that is said, (n,) each.
        complete: bool (N,): rows of which all other tags are absent.
        names: tags that these labels speak of.
        notes: sentences about odd cells.
    """

    entry: settings.TagsColumns
    source: str
    columns: list[str]
    spelt: list[str]
    row: np.ndarray
    code: np.ndarray
    value: np.ndarray
    complete: np.ndarray
    names: list[str]
    notes: list[str]

    def places(self, tags: Classes, ids: np.ndarray) -> np.ndarray:
        """Place of every tag that is said in the list, (n,).

        Raises:
            InputError: a tag that is not there, with its row and the nearest one.
        """
        spelt, what = np.array(self.spelt, dtype=object), self.entry.tag or self.columns[0]
        try:
            return np.asarray(tags.encode(spelt, what, self.source)[self.code])
        except InputError:  # said again, of rows
            return tags.encode(spelt[self.code], what, self.source, at=ids[self.row])

    def build(self, tags: Classes, ids: np.ndarray) -> tuple[Evidence, list[Conflict]]:
        """The labels, and rows that are said to have a tag and to lack it."""
        table, conflicts = self.table(tags, ids)
        return self._evidence(table, tags), conflicts

    def table(self, tags: Classes, ids: np.ndarray) -> tuple[np.ndarray, list[Conflict]]:
        """What is said of every row and tag (N, L), 1, 0 or -1; and rows that have a tag and lack it, which are -1."""
        n, k = len(self.complete), len(tags)
        code = self.places(tags, ids)
        spoken = np.zeros(k, dtype=bool)
        spoken[tags.encode(np.array(self.names, dtype=object), "classes", "the configuration")] = True
        on, off = np.zeros((n, k), dtype=bool), np.zeros((n, k), dtype=bool)
        on[self.row[self.value == 1], code[self.value == 1]] = True
        off[self.row[self.value == 0], code[self.value == 0]] = True
        table = np.where(on, 1, np.where(off | (self.complete[:, None] & spoken), 0, -1))
        both = np.argwhere(on & off)
        table[on & off] = -1
        name = self.entry.name
        conflicts = [
            Conflict(str(ids[i]), f"{name} says that it has {quoted(tags.names[t])}, and that it lacks it", (name,))
            for i, t in both.tolist()
        ]
        return table, conflicts

    def _evidence(self, table: np.ndarray, tags: Classes) -> Evidence:
        n, k = table.shape
        made = kinds.Tags(
            torch.from_numpy(table),
            error=self.entry.error,
            tag_names=tags.names,
            weight=None if self.entry.weight == 1.0 else torch.full((n, k), float(self.entry.weight)),
        )
        said = table >= 0
        named = int(said.any(axis=0).sum())
        others = ", all others absent" if self.complete.any() else ""
        return Evidence(
            name=self.entry.name,
            kind=self.entry.kind,
            source=self.source,
            columns=self.columns,
            says=f"which of {counted(named, 'tag')} a row has{others}",
            labels=made,
            n_labels=int(said.sum()),
            rows=np.asarray(said.any(axis=1)),
            values=named,
            record_row=np.arange(n).repeat(k),
            record_source=np.full(n * k, self.entry.name, dtype=object),
            record_value=SAID[table.reshape(-1) + 1],
            simulated=self.entry.simulated,
            notes=self.notes,
        )


def read_tags(entry: settings.TagsColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> TagCells:
    """The cells of one entry.

    Raises:
        InputError: no columns or several forms at once, cells that are neither 0 nor 1 or no list, repeated rows.
    """
    forms = [form for form in ("column", "columns", "tag") if getattr(entry, form)]
    if len(forms) != 1 and not (not forms and entry.absent):
        said = f"{' and '.join(forms)} at once" if forms else "no column"
        raise InputError(
            f'labels {quoted(entry.name)} (Tags) have {said}. Expected one of column = "..." (cells that list tags), '
            'columns = [...] (one 0 / 1 column per tag), and tag = "..." (a table with a row per row and tag)'
        )
    if entry.columns:
        return _columns(entry, table, places, notes, rows)
    return _long_table(entry, table, places, notes, rows) if entry.tag else _lists(entry, table, places, notes, rows)


def _lists(entry: settings.TagsColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> TagCells:
    """Cells that list the tags a row has, and those that it lacks."""
    columns = [table.require(column) for column in (entry.column, entry.absent) if column]
    names = row_names(table, entry, rows)
    complete = np.zeros(len(rows), dtype=bool)
    parts: list[tuple[np.ndarray, ...]] = []
    for column, value in ((entry.column, 1), (entry.absent, 0)):
        if not column:
            continue
        raw = table.strings(column)
        text = rows.spelling.read(raw)
        lists = lists_of(table.cells(column), text, entry.separator, f"{table.name}, {quoted(column)}", names)
        owner = np.repeat(np.arange(len(lists)), [len(cell) for cell in lists])
        tag = rows.spelling.read(np.array([v for cell in lists for v in cell], dtype=object))
        kept = (tag != "") & (places[owner] >= 0)
        parts.append((places[owner][kept], tag[kept], np.full(int(kept.sum()), value)))
        if value and entry.unlisted != "unknown":
            said = (text != "") | ((raw == "") if entry.empty == "absent" else False)
            complete[places[said & (places >= 0)]] = True
        if value:
            notes = [*notes, *_never_separated(text, entry, table, column)]
    row, tag, said_of = (np.concatenate(part) for part in zip(*parts, strict=True))
    spelt, code = _spelt(tag)
    return TagCells(
        entry, table.name, columns, spelt, row, code, said_of, complete, list(entry.classes) or spelt, notes
    )


def _never_separated(text: np.ndarray, entry: settings.TagsColumns, table: Table, column: str) -> list[str]:
    """A note where no cell lists two tags."""
    filled = text[text != ""]
    if not len(filled) or any(entry.separator in v or v.startswith("[") for v in filled.tolist()):
        return []
    others = [(sum(s in v for v in filled.tolist()), s) for s in _SEPARATORS if s != entry.separator]
    times, other = max(others, key=lambda pair: pair[0])
    hint = (
        f'; {quoted(other)} stands in {counted(times, "cell")}: --set labels.{entry.name}.separator="{other}"?'
        if times
        else ""
    )
    return [
        f"{table.name}: {quoted(entry.separator)} never occurs in {quoted(column)}: every cell is read as one tag{hint}"
    ]


def _columns(entry: settings.TagsColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> TagCells:
    """One 0 / 1 column per tag."""
    columns = table.matching(entry.columns)
    named = list(entry.classes) or starred(entry.columns, columns)
    if len(named) != len(columns):
        raise InputError(
            f"labels {quoted(entry.name)} have {len(columns)} columns and {len(named)} classes. Expected one tag "
            "per column"
        )
    named = rows.spelling.read(np.array(named, dtype=object)).tolist()
    names = row_names(table, entry, rows)
    grid = np.stack([_on_or_off(table, column, rows, names) for column in columns], axis=1)
    odd = grid == -2
    if odd.any():
        line, which = np.argwhere(odd)[0]
        said = table.strings(columns[which])[line]
        raise InputError(
            f"{table.name}: {counted(int(odd.sum()), 'cell')} of {some(map(quoted, columns))} "
            f"{'is' if odd.sum() == 1 else 'are'} neither 0 nor 1 (first: {quoted(said)} in row {names[line]} of "
            f"{quoted(columns[which])}). Expected 1 where a row has the tag, 0 where it lacks it, and an empty cell "
            "where nobody knows"
        )
    line, which = np.nonzero((grid >= 0) & (places >= 0)[:, None])
    row, code, value = _settled(places[line], which, grid[line, which], named, entry, table, rows)
    complete = np.zeros(len(rows), dtype=bool)
    if entry.unlisted == "absent":
        complete[row] = True
    return TagCells(entry, table.name, columns, named, row, code, value, complete, list(dict.fromkeys(named)), notes)


def _long_table(
    entry: settings.TagsColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> TagCells:
    """A row per row id and tag, with or without 1 or 0."""
    if table is rows.table:
        raise InputError(
            f"labels {quoted(entry.name)} (Tags): {quoted(entry.tag)} names a column of a table with a row per row and "
            f'tag, which is not {table.name}. Expected source = "tags.csv", or column = {quoted(entry.tag)} where its '
            "cells list tags"
        )
    columns = [table.require(column) for column in (entry.tag, entry.value) if column]
    tag = rows.spelling.read(table.strings(entry.tag))
    value = np.ones(len(tag), dtype=np.int64)
    if entry.value:
        names = row_names(table, entry, rows)
        value = _on_or_off(table, entry.value, rows, names)
        odd = value == -2
        if odd.any():
            at = int(odd.argmax())
            raise InputError(
                f"{table.name}: {counted(int(odd.sum()), 'cell')} of {quoted(entry.value)} "
                f"{'is' if odd.sum() == 1 else 'are'} neither 0 nor 1 (first: "
                f"{quoted(table.strings(entry.value)[at])} in row {names[at]}). Expected 1 where the row has the tag, "
                "and 0 where it lacks it"
            )
    kept = (places >= 0) & (tag != "") & (value >= 0)
    spelt, code = _spelt(tag[kept])
    row, code, value = _settled(places[kept], code, value[kept], spelt, entry, table, rows)
    complete = np.zeros(len(rows), dtype=bool)
    if entry.unlisted == "absent" or (entry.unlisted == "auto" and not entry.value):
        complete[row] = True
        if entry.format:  # of an export, an empty answer is that none of the tags was chosen
            complete[places[(places >= 0) & (tag == "")]] = True
    return TagCells(entry, table.name, columns, spelt, row, code, value, complete, list(entry.classes) or spelt, notes)


def _spelt(tag: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The different names of cells (n,), and the place of each cell among them, (n,)."""
    names = distinct(tag)
    position = {name: at for at, name in enumerate(names)}
    return names, np.array([position[v] for v in tag.tolist()], dtype=np.int64)


def _on_or_off(table: Table, column: str, rows: Rows, names: np.ndarray) -> np.ndarray:
    """Cells as 1, 0, -1 where empty, and -2 where they are something else, (n,)."""
    text = rows.spelling.read(table.strings(column))
    found = {}
    for cell in dict.fromkeys(text.tolist()):
        known = _ON_OFF.get(cell.casefold())
        if known is None:
            try:
                known = {0.0: 0, 1.0: 1}.get(float(cell), -2)
            except ValueError:
                known = -2
        found[cell] = known
    return np.array([found[cell] for cell in text.tolist()], dtype=np.int64)


def _settled(
    row: np.ndarray,
    code: np.ndarray,
    value: np.ndarray,
    names: Sequence[str],
    entry: settings.TagsColumns,
    table: Table,
    rows: Rows,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Data row, tag and 1 or 0 of everything that is said (n,), once for every row and tag.

    Raises:
        InputError: 1 and 0 for the same row and tag, unless `repeats` says which to keep.
    """
    key = (row * max(len(names), 1) + code) * 2 + value
    backwards = entry.repeats == "last"
    _, first = np.unique(key[::-1] if backwards else key, return_index=True)
    kept = np.sort(len(key) - 1 - first if backwards else first)
    return without_repeats(
        row[kept], code[kept], value[kept], np.array(names, dtype=object), entry, table, rows, who_is="tag"
    )
