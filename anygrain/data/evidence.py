"""Label columns and label tables read as kinds of label, joined to the rows by row id."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain import labels as kinds
from anygrain.data import config as settings
from anygrain.data.classes import Classes, Spelling
from anygrain.data.error import InputError, counted, did_you_mean, number, quoted, some
from anygrain.data.table import Table, distinct, read_table
from anygrain.labels.error import LabelError
from anygrain.labels.taxonomy import Taxonomy

#: channels by the names that a configuration gives them
CHANNELS = {
    "OneCoin": "one_coin",
    "ClassCoin": "class_coin",
    "Confusion": "confusion",
    "Spammer": "spammer",
    "Difficulty": "difficulty",
}


@dataclass
class Evidence:
    """One kind of label, read, and what its records are called.

    Attributes:
        name, kind: as in the configuration.
        source: name of the file.
        columns: the columns it was read from.
        says: what was read, in words.
        labels: the labels.
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
    labels: kinds.Labels
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
    """A kind of label whose cells are read but not yet looked up: first all classes must be known."""

    classes: list[str]  # class names that occur
    build: Callable[[Classes], Evidence]
    tables: dict[str, str] = field(default_factory=dict)


def read_evidence(
    entries: Sequence[settings.LabelColumns], rows: Rows, class_names: Sequence[str], taxonomy_path: str
) -> tuple[list[Evidence], Classes]:
    """Every entry of a configuration read, over one list of classes.

    The classes are those of the configuration, else those of the taxonomy, else the values that occur.

    Raises:
        InputError: whatever is wrong with files, columns, cells or ids; see the messages.
    """
    taxonomies = _taxonomies([taxonomy_path, *(getattr(entry, "taxonomy", "") for entry in entries)])
    drafts = [_READERS[entry.kind](entry, *_joined(entry, rows), rows) for entry in entries]
    first = next(iter(taxonomies), None)
    if class_names:
        names, origin = tuple(class_names), "the setting classes"
    elif first is not None:
        names, origin = taxonomies[first].classes, Path(first).name
    else:
        names, origin = _found(drafts, rows.spelling), ""
    if len(names) < 2:
        found = f"only {quoted(names[0])}" if names else "none"
        raise InputError(
            f"Two classes or more are needed, and there is {found}. Name them: classes = [...] or a taxonomy"
        )
    for path, taxonomy in taxonomies.items():
        if tuple(taxonomy.classes) != tuple(names):
            try:
                taxonomies[path] = taxonomy.relabel(names)
            except LabelError as error:
                raise InputError(f"{Path(path).name} and {origin} list different classes: {error}") from error
    common = taxonomies.get(first) if first else None
    out = []
    for entry, draft in zip(entries, drafts, strict=True):
        own = taxonomies.get(getattr(entry, "taxonomy", "") or taxonomy_path, common)
        try:
            out.append(draft.build(Classes(names, origin, rows.spelling, own)))
        except LabelError as error:
            raise InputError(f"labels {quoted(entry.name)} ({entry.kind}): {error}") from error
    return out, Classes(names, origin, rows.spelling, common)


def _taxonomies(paths: Sequence[str]) -> dict[str, Taxonomy]:
    out: dict[str, Taxonomy] = {}
    for path in dict.fromkeys(p for p in paths if p):
        if not Path(path).is_file():
            near = [p.name for p in Path(path).parent.glob("*")] if Path(path).parent.is_dir() else []
            raise InputError(f"There is no file {path}.{did_you_mean(Path(path).name, near)}")
        try:
            out[path] = Taxonomy.from_csv(path)
        except LabelError as error:
            raise InputError(str(error)) from error
    return out


def _found(drafts: Sequence[Draft], spelling: Spelling) -> tuple[str, ...]:
    from anygrain.labels.frame import class_list

    values = np.array([v for draft in drafts for v in draft.classes], dtype=object)
    if spelling.fold_case:
        first: dict[str, str] = {}
        for value in values.tolist():
            first.setdefault(spelling.fold(value), value)
        values = np.array(list(first.values()), dtype=object)
    return class_list([values.astype(str)]) if len(values) else ()


# -- joining ----------------------------------------------------------------------------------------------------------


def _joined(entry: settings.LabelColumns, rows: Rows) -> tuple[Table, np.ndarray, list[str]]:
    """The table an entry is read from, the data row of each of its rows (-1: dropped), and notes."""
    if not entry.source:
        return rows.table, np.arange(len(rows)), []
    table = read_table(entry.source)
    if isinstance(entry, settings.BagColumns | settings.PairsColumns):
        return table, np.full(len(table), -1), []
    column = entry.id or getattr(entry, "item", "") or rows.id_column
    if not column:
        raise InputError(
            f"labels {quoted(entry.name)} stand in {table.name}, but {rows.table.name} has no row ids to join them by. "
            'Expected [data] id = "..." and the column of row ids in both'
        )
    ids = table.strings(column)
    return table, *_places(ids, table.name, column, rows, entry)


def _places(
    ids: np.ndarray, table: str, column: str, rows: Rows, entry: settings.LabelColumns
) -> tuple[np.ndarray, list[str]]:
    """Data row of each id (n,); -1 where it is not among the data and may be dropped."""
    places = np.array([rows.position.get(v, -1) for v in ids.tolist()], dtype=np.int64)
    lost = (places < 0).nonzero()[0]
    if not len(lost):
        return places, []
    names = distinct(ids[lost]) or ["(empty)"]
    if entry.unknown_rows == "drop":
        return places, [f"{table}: {counted(len(lost), 'row')} for {counted(len(names), 'unknown id')} were dropped."]
    hint = f" {_padding(names[0], rows.ids)}"
    raise InputError(
        f"{table}: {counted(len(lost), 'row')} {'is' if len(lost) == 1 else 'are'} for rows that {rows.table.name} "
        "does "
        f"not have, {column} = {some(map(quoted, names))}.{hint if hint.strip() else ''} Expected values of "
        f"{quoted(rows.id_column)}, such as {some(map(quoted, rows.ids[:2].tolist()))}. "
        f'Leave them out with --set labels.{entry.name}.unknown_rows="drop"'
    )


def _padding(name: str, known: np.ndarray) -> str:
    """A hint where two ids differ in leading zeros only."""
    bare = _unpadded(name)
    other = next((str(k) for k in known.tolist() if k != name and _unpadded(str(k)) == bare), None)
    return f"Zero-padded? There is {quoted(other)}." if other else ""


def _unpadded(name: str) -> str:
    import re

    return re.sub(r"(?<!\d)0+(?=\d)", "", name)


# -- one label per row ------------------------------------------------------------------------------------------------


def _one_per_row(
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


def _weights(entry: settings.LabelColumns, n: int) -> Tensor | None:
    return None if entry.weight == 1.0 else torch.full((n,), float(entry.weight))


def _per_row(
    entry: settings.LabelColumns,
    table: Table,
    columns: list[str],
    made: kinds.Labels,
    text: np.ndarray,
    says: str,
    notes: list[str],
    source: str | None = None,
) -> Evidence:
    """Evidence with one record per data row, whose cell is `text` (N,)."""
    filled = text != ""
    n = len(text)
    return Evidence(
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


def _class_column(entry: Any, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> tuple[np.ndarray, str]:
    column = table.require(entry.column)
    text = rows.spelling.read(table.strings(column))
    return _one_per_row(text, places, table, rows, entry, column), column


def _read_exact(entry: settings.ExactColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> Draft:
    text, column = _class_column(entry, table, places, notes, rows)

    def build(classes: Classes) -> Evidence:
        index = torch.from_numpy(classes.encode(text, column, table.name))
        made = kinds.Exact(
            index, len(classes), error=entry.error, weight=_weights(entry, len(rows)), class_names=classes.names
        )
        return _per_row(entry, table, [column], made, text, "the class", notes)

    return Draft(distinct(text), build)


def _read_noisy(entry: settings.NoisyColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> Draft:
    text, column = _class_column(entry, table, places, notes, rows)

    def build(classes: Classes) -> Evidence:
        index = torch.from_numpy(classes.encode(text, column, table.name))
        transition = _transition(entry.transition, classes) if entry.transition else None
        made = kinds.Noisy(
            index, len(classes), transition, weight=_weights(entry, len(rows)), class_names=classes.names
        )
        return _per_row(entry, table, [column], made, text, "the class, often wrong", notes)

    return Draft(distinct(text), build)


def _transition(path: str, classes: Classes) -> Tensor:
    """A (K, K) matrix from a table whose header names the classes said, and whose rows are the true ones in order."""
    table = read_table(path)
    columns = table.columns
    truth = None
    if len(columns) == len(classes) + 1:
        truth, columns = columns[0], columns[1:]
    order = classes.encode(np.array(columns, dtype=object), "the header", table.name)
    if sorted(order.tolist()) != list(range(len(classes))) or len(table) != len(classes):
        raise InputError(
            f"{table.name} is {len(table)} x {len(columns)}. Expected a transition matrix of {len(classes)} x "
            f"{len(classes)}: a header of classes said, a row per true class"
        )
    rows = order
    if truth is not None:
        rows = classes.encode(table.strings(truth), truth, table.name)
    matrix = np.zeros((len(classes), len(classes)))
    matrix[np.ix_(rows, order)] = np.stack([table.numbers(c) for c in columns], axis=1)
    off = np.abs(matrix.sum(axis=1) - 1) > 1e-3
    if off.any() or (matrix < 0).any() or np.isnan(matrix).any():
        at = int(off.argmax())
        raise InputError(
            f"{table.name}: the row of {quoted(classes.names[at])} sums to {matrix[at].sum():.3g}. Expected rows of "
            "probabilities that sum to 1"
        )
    return torch.from_numpy(matrix)


def _read_coarse(
    entry: settings.CoarseColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> Draft:
    text, column = _class_column(entry, table, places, notes, rows)

    def build(classes: Classes) -> Evidence:
        taxonomy = classes.taxonomy
        if taxonomy is None:
            raise InputError(
                f'labels {quoted(entry.name)} (Coarse) need a taxonomy. Expected taxonomy = "taxonomy.csv", a table '
                "with a "
                "column of classes and one of parents, such as product,department"
            )
        level: str | None = entry.level or None
        if level is not None and level not in taxonomy.level_names:
            hint = did_you_mean(level, taxonomy.level_names)
            raise InputError(
                f"{classes.origin} has no level {quoted(level)}.{hint} Levels: {', '.join(taxonomy.level_names)}"
            )
        nodes = taxonomy.nodes(level)
        index = torch.from_numpy(classes.encode(text, column, table.name, nodes))
        made = kinds.Coarse(
            index,
            taxonomy,
            level or "any",
            error=entry.error,
            weight=_weights(entry, len(rows)),
            class_names=classes.names,
        )
        return _per_row(entry, table, [column], made, text, "a parent of the class", notes)

    return Draft([], build)


# -- sets of classes --------------------------------------------------------------------------------------------------


def _cells(values: list[Any], strings: np.ndarray, separator: str, where: str) -> list[list[str]]:
    """Cells such as "a|b", a JSON list or a list, as lists of strings."""
    out: list[list[str]] = []
    for at, (value, text) in enumerate(zip(values, strings.tolist(), strict=True)):
        if isinstance(value, list | tuple):
            out.append([str(v).strip() for v in value if v is not None])
        elif text.startswith("["):
            try:
                out.append([str(v).strip() for v in json.loads(text)])
            except (json.JSONDecodeError, TypeError) as error:
                raise InputError(f"{where}, row {at + 1}: {quoted(text[:40])} is not a JSON list") from error
        else:
            out.append([part.strip() for part in text.split(separator)] if text else [])
    return out


def _read_sets(entry: settings.SetColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> Draft:
    columns = table.matching(entry.columns or ([entry.column] if entry.column else []))
    if not columns:
        raise InputError(
            f'labels {quoted(entry.name)} ({entry.kind}) have no column. Expected column = "..." or columns = [...]'
        )
    if len(columns) == 1 and not entry.classes:
        strings = table.strings(columns[0])
        lists = _cells(table.cells(columns[0]), strings, entry.separator, f"{table.name}, {quoted(columns[0])}")
        owner = np.repeat(np.arange(len(lists)), [len(cell) for cell in lists])
        values = rows.spelling.read(np.array([v for cell in lists for v in cell], dtype=object))
    else:
        named = entry.classes or _stars(entry.columns, columns)
        if len(named) != len(columns):
            raise InputError(
                f"labels {quoted(entry.name)} have {len(columns)} columns and {len(named)} classes. Expected one "
                "class per column"
            )
        table_of = np.stack([table.numbers(c) for c in columns], axis=1)
        odd = ~np.isin(table_of, (0, 1)) & ~np.isnan(table_of)
        if odd.any():
            at = np.argwhere(odd)[0]
            raise InputError(
                f"{table.name}: {counted(int(odd.sum()), 'cell')} of {some(map(quoted, columns))} are neither 0 nor "
                "1 (first: "
                f"{table_of[tuple(at)]:g} in row {at[0] + 1}). Expected 1 where the class is listed"
            )
        owner, which = np.nonzero(table_of == 1)
        values = np.array(named, dtype=object)[which]
    place = places[owner] if len(owner) else owner

    def build(classes: Classes) -> Evidence:
        index = classes.encode(values, columns[0], table.name)
        kept = (index >= 0) & (place >= 0)
        sets = np.zeros((len(rows), len(classes)), dtype=bool)
        sets[place[kept], index[kept]] = True
        some_said = sets.any(axis=1)
        full = sets.all(axis=1)
        if entry.kind == "Complementary" and full.any():
            raise InputError(
                f"{table.name}: {counted(int(full.sum()), 'row')} of {quoted(columns[0])} rule out every class "
                "(first: row "
                f"{rows.ids[int(full.argmax())]})"
            )
        text = np.full(len(rows), "", dtype=object)
        for row, at in zip(place[kept].tolist(), index[kept].tolist(), strict=True):
            text[row] = f"{text[row]}|{classes.names[at]}" if text[row] else classes.names[at]
        tensor = torch.from_numpy(sets)
        weight = _weights(entry, len(rows))
        made: kinds.Labels
        if entry.kind == "Candidates":
            tensor = tensor | ~torch.from_numpy(some_said)[:, None]
            made = kinds.Candidates(tensor, error=entry.error, weight=weight, class_names=classes.names)
            says = "some classes, one of them true"
        else:
            made = kinds.Complementary(tensor, error=entry.error, weight=weight, class_names=classes.names)
            says = "classes that it is not"
        return _per_row(entry, table, columns, made, text, says, notes, source=entry.name)

    return Draft(distinct(values), build)


def _stars(patterns: Sequence[str], columns: Sequence[str]) -> list[str]:
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


def _read_soft(entry: settings.SoftColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> Draft:
    columns = table.matching(entry.columns)
    named = entry.classes or _stars(entry.columns, columns)
    if len(named) != len(columns):
        raise InputError(
            f"labels {quoted(entry.name)} have {len(columns)} columns and {len(named)} classes. Expected one class "
            "per column"
        )
    names = _row_names(table, entry, rows)
    values = np.stack([table.numbers(c, names) for c in columns], axis=1)
    empty = np.isnan(values).all(axis=1)
    partly = np.isnan(values).any(axis=1) & ~empty
    if entry.normalize:
        values = np.where(partly[:, None], np.nan_to_num(values), values)
        partly = np.zeros_like(partly)
    total = np.nansum(values, axis=1)
    negative = (np.nan_to_num(values) < 0).any(axis=1)
    off = (np.abs(total - 1) > 1e-3) & ~empty & ~partly if entry.meaning != "evidence" else np.zeros_like(empty)
    if entry.normalize:
        zero = ~empty & (total <= 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = np.where(zero[:, None], np.nan, values / total[:, None])
        off = np.zeros_like(off)
    parts = []
    if off.any():
        at = int(off.argmax())
        parts.append(
            f"{counted(int(off.sum()), 'row').rsplit(' ', 1)[0]} of {counted(len(table), 'row')} do not sum to 1 "
            f"(first: row {names[at]} sums to {total[at]:.2f})"
        )
    if partly.any():
        parts.append(f"{number(int(partly.sum()))} contain NaN (row {names[int(partly.argmax())]})")
    if negative.any():
        parts.append(f"{number(int(negative.sum()))} hold negative numbers (row {names[int(negative.argmax())]})")
    if parts:
        fix = "Fix them" if negative.any() else f"Fix them or pass --set labels.{entry.name}.normalize=true"
        raise InputError(f"{table.name}: {' and '.join(parts)}. {fix}")

    def build(classes: Classes) -> Evidence:
        index = classes.encode(np.array(named, dtype=object), "the columns", table.name)
        if len(set(index.tolist())) < len(index):
            raise InputError(f"labels {quoted(entry.name)} name a class twice: {some(named)}")
        full = np.full((len(rows), len(classes)), np.nan)
        kept = (places >= 0) & ~np.isnan(values).all(axis=1)
        full[places[kept]] = 0.0
        full[np.ix_(places[kept], index)] = values[kept]
        text = np.full(len(rows), "", dtype=object)
        top = np.nan_to_num(full).argmax(axis=1)
        for row in places[kept].tolist():
            text[row] = f"{classes.names[top[row]]} ({full[row, top[row]]:.2f})"
        made = kinds.Soft(
            torch.from_numpy(full).float(), entry.meaning, weight=_weights(entry, len(rows)), class_names=classes.names
        )
        return _per_row(entry, table, columns, made, text, "a probability per class", notes, source=entry.name)

    return Draft(list(named), build)


def _row_names(table: Table, entry: settings.LabelColumns, rows: Rows) -> np.ndarray:
    """What to call the rows of a table in messages: their ids, or their numbers from 1 on."""
    column = entry.id or rows.id_column
    if table is rows.table:
        return rows.ids
    return table.strings(column) if column in table.columns else np.arange(1, len(table) + 1).astype(str)


def _read_interval(
    entry: settings.IntervalColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> Draft:
    ends = []
    for column in (entry.low, entry.high):
        text = rows.spelling.read(table.strings(column))
        full = np.full(len(rows), "", dtype=object)
        kept = places >= 0
        full[places[kept]] = text[kept]
        ends.append(full)

    def build(classes: Classes) -> Evidence:
        low = classes.encode(ends[0], entry.low, table.name)
        high = classes.encode(ends[1], entry.high, table.name)
        wrong = (low > high) & (high >= 0)
        if wrong.any():
            at = int(wrong.argmax())
            raise InputError(
                f"{table.name}: {counted(int(wrong.sum()), 'row')} with a low end above the high one (first: row "
                f"{rows.ids[at]}, "
                f"{quoted(ends[0][at])} to {quoted(ends[1][at])}). Order of classes: {some(classes.names, 6)}"
            )
        said = (low >= 0) | (high >= 0)
        text = np.array([f"{a}..{b}" if s else "" for a, b, s in zip(*ends, said, strict=True)], dtype=object)
        made = kinds.Interval(
            torch.from_numpy(low),
            torch.from_numpy(high),
            len(classes),
            error=entry.error,
            weight=_weights(entry, len(rows)),
            class_names=classes.names,
        )
        return _per_row(
            entry, table, [entry.low, entry.high], made, text, "a range of classes", notes, source=entry.name
        )

    return Draft(distinct(np.concatenate(ends)), build)


# -- several sources --------------------------------------------------------------------------------------------------


def _read_crowd(entry: settings.CrowdColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> Draft:
    if entry.columns:
        columns = table.matching(entry.columns)
        grid = np.stack([rows.spelling.read(table.strings(c)) for c in columns], axis=1)
        at, who = np.nonzero((grid != "") & (places >= 0)[:, None])
        items, votes, names, total = places[at], grid[at, who], np.array(columns, dtype=object), grid.size
    else:
        for setting in ("annotator", "vote"):
            if not getattr(entry, setting):
                raise InputError(
                    f'labels {quoted(entry.name)} (Crowd) have no {setting}. Expected columns = ["worker_1", ...], '
                    "or source = "
                    '"votes.csv" with item, annotator and vote naming its columns'
                )
        columns = [entry.item or entry.id or rows.id_column, entry.annotator, entry.vote]
        text = rows.spelling.read(table.strings(entry.vote))
        people = table.strings(entry.annotator)
        kept = (text != "") & (places >= 0) & (people != "")
        names = np.array(distinct(people[kept]), dtype=object)
        code = {name: i for i, name in enumerate(names.tolist())}
        items, votes, total = places[kept], text[kept], len(text)
        who = np.array([code[p] for p in people[kept].tolist()], dtype=np.int64)
        if len(votes) < total:
            lost = len(set(places[places >= 0].tolist()) - set(items.tolist()))
            notes = [
                *notes,
                f"{table.name}: {number(total - len(votes))} of {counted(total, 'vote')} are empty; "
                f"{counted(lost, 'row')} "
                f"would have no vote left. They are kept as unlabelled.",
            ]
        items, who, votes = _without_repeats(items, who, votes, names, entry, table, rows)
    if not len(votes):
        raise InputError(f"{table.name}: there is no vote in {some(map(quoted, columns))}")

    def build(classes: Classes) -> Evidence:
        index = torch.from_numpy(classes.encode(votes, entry.vote or entry.name, table.name))
        made = kinds.Crowd(
            torch.from_numpy(items),
            torch.from_numpy(who),
            index,
            len(classes),
            len(rows),
            channel=CHANNELS[entry.channel],
            weight=_weights(entry, len(rows)),
            class_names=classes.names,
            annotator_names=names.tolist(),
            item_names=rows.ids.tolist(),
        )
        filled = np.zeros(len(rows), dtype=bool)
        filled[items] = True
        return Evidence(
            entry.name,
            entry.kind,
            table.name,
            list(columns),
            f"votes of {counted(len(names), 'annotator')}",
            made,
            len(votes),
            filled,
            len(distinct(votes)),
            items,
            names[who],
            votes,
            entry.simulated,
            notes,
        )

    return Draft(distinct(votes), build)


def _without_repeats(
    items: np.ndarray, who: np.ndarray, votes: np.ndarray, names: np.ndarray, entry: Any, table: Table, rows: Rows
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Votes of which an annotator gives one per row, or both where asked for.

    Raises:
        InputError: repeated votes, unless `repeats` says which to keep.
    """
    if entry.repeats == "both":
        return items, who, votes
    key = items * max(len(names), 1) + who
    order = np.argsort(key, kind="stable")
    again = np.zeros(len(key), dtype=bool)
    again[order[1:]] = key[order][1:] == key[order][:-1]
    if not again.any():
        return items, who, votes
    if entry.repeats == "stop":
        at = int(again.argmax())
        first = int((key == key[at]).argmax())
        raise InputError(
            f"{table.name}: {counted(int(again.sum()), 'repeated (annotator, row) pair')}, first {names[who[at]]} "
            "on row "
            f"{rows.ids[items[at]]}: {quoted(votes[first])} and {quoted(votes[at])}. Keep last, first or both? "
            f'--set labels.{entry.name}.repeats="last"'
        )
    last_first = order if entry.repeats == "first" else order[::-1]
    _, kept = np.unique(key[last_first], return_index=True)
    chosen = np.sort(last_first[kept])
    return items[chosen], who[chosen], votes[chosen]


def _read_rules(entry: settings.RulesColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> Draft:
    columns = table.matching(entry.columns)
    grid = np.full((len(rows), len(columns)), "", dtype=object)
    kept = places >= 0
    grid[places[kept]] = np.stack([rows.spelling.read(table.strings(c)) for c in columns], axis=1)[kept]

    def build(classes: Classes) -> Evidence:
        index = classes.encode(grid.reshape(-1), entry.name, table.name).reshape(grid.shape)
        made = kinds.Rules(
            torch.from_numpy(index),
            len(classes),
            given_x=entry.given_x,
            weight=_weights(entry, len(rows)),
            class_names=classes.names,
        )
        part, _ = made.records()
        at, which = np.nonzero(index >= 0)
        n = grid.size
        if len(part) == len(rows) != n:  # one record per row
            text = np.array(
                ["; ".join(f"{c}={v}" for c, v in zip(columns, line, strict=True) if v) for line in grid], dtype=object
            )
            owner, source = np.arange(len(rows)), np.full(len(rows), entry.name, dtype=object)
        elif len(part) == len(at):
            owner, source, text = at, np.array(columns, dtype=object)[which], grid[at, which]
        else:
            owner, source = (
                np.repeat(np.arange(len(rows)), len(columns)),
                np.tile(np.array(columns, dtype=object), len(rows)),
            )
            text = grid.reshape(-1)
        return Evidence(
            entry.name,
            entry.kind,
            table.name,
            columns,
            f"what {counted(len(columns), 'rule')} say",
            made,
            len(at),
            np.asarray((index >= 0).any(axis=1)),
            len(distinct(grid.reshape(-1))),
            owner,
            source,
            text,
            entry.simulated,
            notes,
        )

    return Draft(distinct(grid.reshape(-1)), build)


# -- bags and pairs ---------------------------------------------------------------------------------------------------


def _bags(entry: settings.BagColumns, table: Table, rows: Rows) -> tuple[kinds.Bags, np.ndarray, np.ndarray, list[str]]:
    """The bags of an entry, their names (M,), the row of `table` that speaks of each (M,), and notes.

    Raises:
        InputError: bags without members, or a bag that a table of bags lists twice.
    """
    column = entry.bag or rows.bag_column
    if not column:
        raise InputError(
            f'labels {quoted(entry.name)} ({entry.kind}) speak of bags. Expected [data] bag = "column of bag ids"'
        )
    ids = rows.table.strings(column)
    notes: list[str] = []
    if table is rows.table:
        listed = np.array(distinct(ids), dtype=object)
        first = {name: at for at, name in reversed(list(enumerate(ids.tolist())))}
        source = np.array([first[name] for name in listed.tolist()], dtype=np.int64)
    else:
        listed = table.strings(column)
        if (listed == "").any():
            raise InputError(
                f"{table.name}: {counted(int((listed == '').sum()), 'row')} without a bag id in {quoted(column)}"
            )
        twice = (
            [name for name in dict.fromkeys(listed.tolist()) if (listed == name).sum() > 1]
            if len(set(listed)) < len(listed)
            else []
        )
        if twice:
            raise InputError(
                f"{table.name} lists {counted(len(twice), 'bag')} more than once: {some(map(quoted, twice))}. "
                "Expected one row per bag"
            )
        source = np.arange(len(listed))
    present = set(ids.tolist())
    empty = [name for name in listed.tolist() if name not in present]
    if empty:
        hint = _padding(empty[0], np.array(distinct(ids), dtype=object))
        raise InputError(
            f"{table.name} names {counted(len(empty), 'bag')} that no row of {rows.table.name} belongs to: "
            f"{some(empty)} (looked in "
            f"{quoted(column)}).{' ' + hint if hint else ''}"
        )
    code = {name: at for at, name in enumerate(listed.tolist())}
    bag_of = torch.tensor([code.get(name, -1) for name in ids.tolist()])
    silent = len(present - set(code) - {""})
    if silent:
        notes.append(f"{table.name} says nothing about {counted(silent, 'bag')} of {rows.table.name}.")
    return kinds.Bags.from_ids(bag_of), listed, source, notes


def _per_bag(
    entry: settings.LabelColumns,
    table: Table,
    columns: list[str],
    made: kinds.Labels,
    bags: kinds.Bags,
    names: np.ndarray,
    text: np.ndarray,
    says: str,
    notes: list[str],
) -> Evidence:
    filled = np.zeros(made.n_instances, dtype=bool)
    filled[bags.members.numpy()] = (text != "")[bags.index.numpy()]
    return Evidence(
        entry.name,
        entry.kind,
        table.name,
        columns,
        says,
        made,
        int((text != "").sum()),
        filled,
        len(distinct(text)),
        np.full(len(names), -1),
        names,
        text,
        entry.simulated,
        notes,
    )


def _answers(text: np.ndarray, entry: Any, column: str, table: str) -> np.ndarray:
    """Yes and no cells (M,) as 1, 0, and -1 where empty."""
    out = np.full(len(text), -1, dtype=np.int64)
    out[np.isin(text, entry.yes)] = 1
    out[np.isin(text, entry.no)] = 0
    odd = (out < 0) & (text != "")
    if odd.any():
        raise InputError(
            f"{table}: {counted(int(odd.sum()), 'cell')} of {quoted(column)} mean neither yes nor no: "
            f"{some(map(quoted, distinct(text[odd])))}. Expected {some(map(quoted, entry.yes), 2)} or "
            f"{some(map(quoted, entry.no), 2)}; other words: --set labels.{entry.name}.yes='[\"...\"]'"
        )
    return out


def _constant_in_bags(values: np.ndarray, bags: kinds.Bags, names: np.ndarray, column: str, table: str) -> None:
    """Raise where rows of one bag say different things about it."""
    members, index = bags.members.numpy(), bags.index.numpy()
    first = values[members[bags.offsets[:-1].numpy()]]
    off = values[members] != first[index]
    if off.any():
        at = int(off.argmax())
        bag = int(index[at])
        raise InputError(
            f"{table}: {counted(len(set(index[off].tolist())), 'bag')} with different values of {quoted(column)}, "
            "first bag "
            f"{quoted(names[bag])}: {quoted(first[bag])} and {quoted(values[members[at]])}. Expected one value per bag"
        )


def _read_any_of(entry: settings.AnyOfColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> Draft:
    column = table.require(entry.column)
    bags, names, source, more = _bags(entry, table, rows)
    cells = rows.spelling.read(table.strings(column))
    if table is rows.table:
        _constant_in_bags(cells, bags, names, column, table.name)
    text = cells[source]
    present = _answers(text, entry, column, table.name)

    def build(classes: Classes) -> Evidence:
        target = classes.encode(np.array(entry.target, dtype=object), "target", table.name).tolist()
        made = kinds.AnyOf(
            bags,
            torch.from_numpy(present).to(torch.int8),
            target[0] if len(target) == 1 else target,
            len(classes),
            error=entry.error,
            weight=_weights(entry, len(bags)),
            class_names=classes.names,
        )
        says = f"whether a bag holds {' or '.join(quoted(t) for t in entry.target)}"
        return _per_bag(entry, table, [column], made, bags, names, text, says, [*notes, *more])

    return Draft(list(entry.target), build)


def _bag_numbers(
    entry: Any, table: Table, rows: Rows
) -> tuple[kinds.Bags, np.ndarray, list[str], list[str], np.ndarray, list[str]]:
    columns = table.matching(entry.columns)
    named = list(entry.classes) or _stars(entry.columns, columns)
    if len(named) != len(columns):
        raise InputError(
            f"labels {quoted(entry.name)} have {len(columns)} columns and {len(named)} classes. Expected one class "
            "per column"
        )
    bags, names, source, notes = _bags(entry, table, rows)
    if table is rows.table:
        for column in columns:
            _constant_in_bags(table.strings(column), bags, names, column, table.name)
    values = np.stack([table.numbers(c) for c in columns], axis=1)[source]
    return bags, names, columns, named, values, notes


def _in_bag(table: Table, name: str, n_more: int) -> str:
    more = f" (and {counted(n_more, 'more bag')})" if n_more else ""
    return f"{table.name}, bag {quoted(name)}{more}"


def _read_counts(
    entry: settings.CountsColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> Draft:
    bags, names, columns, named, values, more = _bag_numbers(entry, table, rows)
    known = ~np.isnan(values)
    sizes = bags.sizes.numpy()
    whole = (np.nan_to_num(values) == np.floor(np.nan_to_num(values))) & (np.nan_to_num(values) >= 0)
    bad = ~whole.all(axis=1)
    if bad.any():
        at = int(bad.argmax())
        value = values[at][~whole[at]][0]
        shares = bool((np.nan_to_num(values) <= 1).all() and (np.nan_to_num(values) >= 0).all())
        hint = f' Are these shares? --set labels.{entry.name}.kind="Proportions"' if shares else ""
        raise InputError(
            f"{_in_bag(table, names[at], int(bad.sum()) - 1)}: the count {value:g} is not a whole number of 0 or "
            f"more.{hint}"
        )
    total = np.nansum(values, axis=1)
    above = total > sizes
    if above.any():
        at = int(above.argmax())
        raise InputError(
            f"{_in_bag(table, names[at], int(above.sum()) - 1)}: counts sum to {total[at]:g}, but "
            f"{counted(int(sizes[at]), 'row')} of "
            f"{rows.table.name} belong to it"
        )

    def build(classes: Classes) -> Evidence:
        index = classes.encode(np.array(named, dtype=object), "the columns", table.name)
        full = np.full((len(bags), len(classes)), -1, dtype=np.int64)
        full[:, index] = np.where(known, np.nan_to_num(values), -1).astype(np.int64)
        complete = (full >= 0).all(axis=1)
        short = complete & (full.sum(axis=1) != sizes)
        if short.any():
            at = int(short.argmax())
            raise InputError(
                f"{_in_bag(table, names[at], int(short.sum()) - 1)}: counts of all {len(classes)} classes sum to "
                f"{total[at]:g}, but "
                f"{counted(int(sizes[at]), 'row')} of {rows.table.name} belong to it. Leave cells empty that are "
                "not known"
            )
        text = _numbers_text(values, named)
        made = kinds.Counts(
            bags,
            torch.from_numpy(full),
            error=entry.error,
            weight=_weights(entry, len(bags)),
            class_names=classes.names,
        )
        return _per_bag(
            entry, table, columns, made, bags, names, text, "how many of each class a bag holds", [*notes, *more]
        )

    return Draft(list(named), build)


def _read_proportions(
    entry: settings.ProportionsColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> Draft:
    bags, names, columns, named, values, more = _bag_numbers(entry, table, rows)
    if entry.normalize:
        total = np.nansum(values, axis=1, keepdims=True)
        values = np.where(total > 0, values / np.where(total > 0, total, 1), values)
    total = np.nansum(values, axis=1)
    known = ~np.isnan(values)

    def build(classes: Classes) -> Evidence:
        index = classes.encode(np.array(named, dtype=object), "the columns", table.name)
        complete = known.all(axis=1) & (len(set(index.tolist())) == len(classes))
        low = (np.nan_to_num(values) < 0).any(axis=1)
        off = low | (total > 1 + 1e-3) | (complete & (np.abs(total - 1) > 1e-3))
        if off.any():
            at = int(off.argmax())
            counts = bool((np.nan_to_num(values) == np.floor(np.nan_to_num(values))).all()) and float(total.max()) > 1
            said = f"shares sum to {total[at]:.2f} over {len(named)} classes" if not low[at] else "a share is negative"
            fix = (
                f'Are these counts? --set labels.{entry.name}.kind="Counts"'
                if counts or not _close_to_one(total)
                else f"Rescale them? --set labels.{entry.name}.normalize=true"
            )
            raise InputError(f"{_in_bag(table, names[at], int(off.sum()) - 1)}: {said}. Expected 1 +- 0.001. {fix}")
        full = np.full((len(bags), len(classes)), np.nan)
        full[:, index] = values
        made = kinds.Proportions(
            bags,
            torch.from_numpy(full),
            noise=entry.noise or None,
            error=entry.error,
            weight=_weights(entry, len(bags)),
            class_names=classes.names,
        )
        says = "which share of a bag each class has"
        return _per_bag(entry, table, columns, made, bags, names, _numbers_text(values, named), says, [*notes, *more])

    return Draft(list(named), build)


def _close_to_one(total: np.ndarray) -> bool:
    """Whether sums of shares (M,) look like rounded shares, not like counts."""
    return bool((total < 1.5).all())


def _numbers_text(values: np.ndarray, named: Sequence[str]) -> np.ndarray:
    return np.array(
        [", ".join(f"{n} {v:g}" for n, v in zip(named, line, strict=True) if v == v) for line in values.tolist()],
        dtype=object,
    )


def _read_pairs(entry: settings.PairsColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> Draft:
    if table is rows.table:
        raise InputError(f'labels {quoted(entry.name)} (Pairs) need a table of pairs. Expected source = "pairs.csv"')
    sides = []
    kept = np.ones(len(table), dtype=bool)
    for column in (entry.first, entry.second):
        place, more = _places(table.strings(column), table.name, column, rows, entry)
        notes = [*notes, *more]
        kept &= place >= 0
        sides.append(place)
    i, j = sides[0][kept], sides[1][kept]
    own = i == j
    if own.any():
        raise InputError(
            f"{table.name}: {counted(int(own.sum()), 'pair')} of a row with itself (first: row "
            f"{rows.ids[i[int(own.argmax())]]})"
        )
    column = table.require(entry.column)
    text = rows.spelling.read(table.strings(column))[kept]
    same = _answers(text, entry, column, table.name)

    def build(classes: Classes) -> Evidence:
        made = kinds.Pairs(
            torch.from_numpy(i),
            torch.from_numpy(j),
            torch.from_numpy(same),
            len(rows),
            len(classes),
            error=entry.error,
            weight=_weights(entry, len(i)),
            class_names=classes.names,
        )
        names = np.array(
            [f"{rows.ids[a]} and {rows.ids[b]}" for a, b in zip(i.tolist(), j.tolist(), strict=True)], dtype=object
        )
        said = np.array(["same" if s == 1 else "different" if s == 0 else "" for s in same.tolist()], dtype=object)
        columns = [entry.first, entry.second, column]
        return _per_bag(
            entry, table, columns, made, made.bags[0], names, said, "whether two rows have one class", notes
        )

    return Draft([], build)


_READERS: dict[str, Callable[..., Draft]] = {
    "Exact": _read_exact,
    "Soft": _read_soft,
    "Coarse": _read_coarse,
    "Candidates": _read_sets,
    "Complementary": _read_sets,
    "Interval": _read_interval,
    "Noisy": _read_noisy,
    "Crowd": _read_crowd,
    "Rules": _read_rules,
    "AnyOf": _read_any_of,
    "Counts": _read_counts,
    "Proportions": _read_proportions,
    "Pairs": _read_pairs,
}
