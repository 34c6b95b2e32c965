"""How each kind of label is read from its columns, and all of them over one list of classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from anygrain.data import config as settings
from anygrain.data.classes import SETTING, Classes, Spelling
from anygrain.data.conflicts import Conflict
from anygrain.data.error import InputError, counted, did_you_mean, quoted, some
from anygrain.data.evidence import (
    Draft,
    Evidence,
    NumberEvidence,
    Rows,
    places_of,
)
from anygrain.data.exchange import TOOLS, read_answers
from anygrain.data.kinds.bags import read_any_of, read_counts, read_proportions
from anygrain.data.kinds.class_sets import read_interval, read_sets, read_soft
from anygrain.data.kinds.numbers import READERS as _NUMBER_READERS
from anygrain.data.kinds.one_class import read_coarse, read_exact, read_noisy
from anygrain.data.kinds.pairs import read_compare, read_pairs, read_pairs_unlabeled
from anygrain.data.kinds.sampled_rows import read_positive, read_sampled, read_two_unlabeled
from anygrain.data.kinds.tags import TagCells, read_tags
from anygrain.data.kinds.votes import read_crowd, read_rules
from anygrain.data.kinds.whole_bags import (
    read_aggregate,
    read_automaton,
    read_majority,
    read_range,
    read_set_label,
)
from anygrain.data.table import Table, read_table, wrong_encoding
from anygrain.labels.error import LabelError
from anygrain.labels.frame import class_list
from anygrain.labels.taxonomy import Taxonomy

_READERS: dict[str, Callable[..., Draft]] = {
    "Exact": read_exact,
    "Soft": read_soft,
    "Coarse": read_coarse,
    "Candidates": read_sets,
    "Complementary": read_sets,
    "Interval": read_interval,
    "Noisy": read_noisy,
    "Crowd": read_crowd,
    "Rules": read_rules,
    "AnyOf": read_any_of,
    "AtLeast": read_range,
    "AtMost": read_range,
    "Between": read_range,
    "Majority": read_majority,
    "SetLabel": read_set_label,
    "Automaton": read_automaton,
    "Aggregate": read_aggregate,
    "Counts": read_counts,
    "Proportions": read_proportions,
    "Pairs": read_pairs,
    "PairsUnlabeled": read_pairs_unlabeled,
    "Compare": read_compare,
    "Positive": read_positive,
    "TwoUnlabeled": read_two_unlabeled,
    "Sampled": read_sampled,
}


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
        names, origin = tuple(class_names), SETTING
    elif first is not None:
        names, origin = taxonomies[first].classes, Path(first).name
    else:
        names, origin = _found(drafts, rows.spelling), ""
    if len(names) < 2:
        found = f"only {quoted(names[0])}" if names else "none"
        hidden = ". Or find the classes below it: anygrain discover" if any(e.kind == "Coarse" for e in entries) else ""
        raise InputError(
            f"Two classes or more are needed, and there is {found}. Name them: classes = [...] or a taxonomy{hidden}"
        )
    for path, taxonomy in taxonomies.items():
        if tuple(taxonomy.classes) != tuple(names):
            try:
                taxonomies[path] = taxonomy.relabel(names)
            except LabelError as error:
                raise InputError(f"{Path(path).name} and {origin} list different classes: {error}") from error
    common = taxonomies.get(first) if first else None
    out: list[Evidence] = []
    for entry, draft in zip(entries, drafts, strict=True):
        own = taxonomies.get(getattr(entry, "taxonomy", "") or taxonomy_path, common)
        try:
            built = draft.build(Classes(names, origin, rows.spelling, own))
        except LabelError as error:
            raise InputError(f"labels {quoted(entry.name)} ({entry.kind}): {error}") from error
        out += built if isinstance(built, list) else [built]
    return out, Classes(names, origin, rows.spelling, common)


def read_numbers(entries: Sequence[settings.NumberColumns], rows: Rows) -> list[NumberEvidence]:
    """Every entry of a configuration of numbers read.

    Raises:
        InputError: whatever is wrong with files, columns, cells or ids; see the messages.
    """
    out = []
    for entry in entries:
        try:
            out.append(_NUMBER_READERS[entry.kind](entry, *_joined(entry, rows), rows))
        except LabelError as error:
            raise InputError(f"labels {quoted(entry.name)} ({entry.kind}): {error}") from error
    return out


def read_tag_evidence(
    entries: Sequence[settings.TagsColumns], rows: Rows, names: Sequence[str]
) -> tuple[list[Evidence], Classes, list[Conflict]]:
    """Every entry of a configuration of tags read, over one list of tags: that of the configuration, else all named.

    Returns:
        The labels, the list of tags, and rows of which one entry says that they have a tag and lack it.

    Raises:
        InputError: whatever is wrong with files, columns, cells or ids; a tag that no row has; see the messages.
    """
    cells = [read_tags(entry, *_joined(entry, rows), rows) for entry in entries]
    found = _first_spellings([v for said in cells for v in [*said.names, *said.spelt]], rows.spelling)
    if not all(entry.columns or entry.classes for entry in entries):  # whose order is that of the columns
        found = class_list([np.array(found).astype(str)]) if found else ()
    tags = Classes(names or found, SETTING if names else "", rows.spelling)
    if len(entries) == 1 and not entries[0].columns and not entries[0].classes:
        cells[0].names = list(tags.names)
    notes = _without_unused(cells, tags, rows.ids)
    out: list[Evidence] = []
    conflicts: list[Conflict] = []
    for entry, said in zip(entries, cells, strict=True):
        try:
            made, against = said.build(tags, rows.ids)
        except LabelError as error:
            raise InputError(f"labels {quoted(entry.name)} ({entry.kind}): {error}") from error
        made.notes = [*made.notes, *notes]
        notes = []
        out.append(made)
        conflicts += against
    return out, tags, conflicts


def _without_unused(cells: Sequence[TagCells], tags: Classes, ids: np.ndarray) -> list[str]:
    """Leave tags that no row has out of the list, where that was asked for; a note on it.

    Raises:
        InputError: tags that no row has, where it was not, or no tag at all.
    """
    used = np.zeros(len(tags), dtype=bool)
    for said in cells:
        used[said.places(tags, ids)[said.value == 1]] = True
    unused = [name for name, has in zip(tags.names, used.tolist(), strict=True) if not has]
    where = " and ".join(dict.fromkeys(said.source for said in cells))
    if len(unused) == len(tags):
        raise InputError(
            f"{where}: no row has any tag, so nothing can be learnt. Expected cells that list tags, or columns that "
            "hold 1 where a row has the tag"
        )
    if not unused:
        return []
    many = f"{counted(len(unused), 'tag')} that no row has: {some(map(quoted, unused))}"
    entry = cells[0].entry
    if all(said.entry.unused == "stop" for said in cells):
        near = did_you_mean(unused[0], [name for name in tags.names if name not in unused])
        raise InputError(
            f"{where}: {many}.{near} Nothing can be learnt of a tag without a row: remove it, or leave such tags out "
            f'with --set labels.{entry.name}.unused="drop"'
        )
    folded = {tags.spelling.fold(name) for name in unused}
    for said in cells:
        kept = used[said.places(tags, ids)]
        said.names = [name for name in said.names if tags.spelling.fold(name) not in folded]
        said.row, said.code, said.value = said.row[kept], said.code[kept], said.value[kept]
    for said in cells:
        said.spelt = [name if tags.spelling.fold(name) not in folded else "" for name in said.spelt]
    tags.names = tuple(name for name, has in zip(tags.names, used.tolist(), strict=True) if has)
    return [f"{where}: {many}; left out."]


def read_taxonomy(path: str | Path) -> Taxonomy:
    """A taxonomy from a CSV.

    Raises:
        InputError: no such file, not UTF-8, a cycle or an orphan.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}. Expected a CSV of classes and parents, header = level names")
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(wrong_encoding(path)) from error
    try:
        return Taxonomy.from_csv(path)
    except LabelError as error:
        raise InputError(str(error)) from error


def _taxonomies(paths: Sequence[str]) -> dict[str, Taxonomy]:
    out: dict[str, Taxonomy] = {}
    for path in dict.fromkeys(p for p in paths if p):
        if not Path(path).is_file():
            near = [p.name for p in Path(path).parent.glob("*")] if Path(path).parent.is_dir() else []
            raise InputError(f"There is no file {path}.{did_you_mean(Path(path).name, near)}")
        out[path] = read_taxonomy(path)
    return out


def _found(drafts: Sequence[Draft], spelling: Spelling) -> tuple[str, ...]:
    values = _first_spellings([v for draft in drafts for v in draft.classes], spelling)
    return class_list([np.array(values).astype(str)]) if values else ()


def _first_spellings(values: Sequence[str], spelling: Spelling) -> tuple[str, ...]:
    """Different values in order of appearance, as they are spelt first."""
    first: dict[str, str] = {}
    for value in values:
        first.setdefault(spelling.fold(value), value)
    return tuple(first.values())


def _source(entry: settings.LabelColumns) -> Table:
    """The table that an entry names, or the answers of an export."""
    if not entry.format:
        return read_table(entry.source)
    certain = {"all": None, "certain": True, "votes": False}[entry.answers]
    key = entry.id or getattr(entry, "item", "")
    none = isinstance(entry, settings.TagsColumns)
    return read_answers(entry.source, entry.format, key=key, question=entry.question, certain=certain, none=none)


def _joined(entry: settings.LabelColumns, rows: Rows) -> tuple[Table, np.ndarray, list[str]]:
    """The table an entry is read from, the data row of each of its rows (-1: dropped), and notes."""
    if entry.format and not entry.source:
        raise InputError(
            f"labels {quoted(entry.name)} have format = {quoted(entry.format)} and no source. Expected source = "
            '"export.json", the file that the tool exported'
        )
    if not entry.format and (entry.question or entry.answers != "all"):
        raise InputError(
            f"labels {quoted(entry.name)} name a question or answers of an export, and no format. Expected format = "
            "one of " + ", ".join(map(quoted, TOOLS))
        )
    if not entry.source:
        return rows.table, np.arange(len(rows)), []
    table = _source(entry)
    if isinstance(
        entry,
        settings.BagColumns | settings.AggregateValueColumns | settings.AnsweredPairs | settings.CompareColumns,
    ):
        return table, np.full(len(table), -1), []
    column = entry.id or getattr(entry, "item", "") or rows.id_column
    if not column:
        raise InputError(
            f"labels {quoted(entry.name)} stand in {table.name}, but {rows.table.name} has no row ids to join them by. "
            'Expected [data] id = "..." and the column of row ids in both'
        )
    if column not in table.columns:
        setting = "item" if isinstance(entry, settings.CrowdColumns | settings.RatingsColumns) else "id"
        raise InputError(
            f"{table.name} has no column {quoted(column)} to join its labels to rows by. Say which one it is: "
            f"--set labels.{entry.name}.{setting}=... with one of {some(map(quoted, table.columns), 6)}"
        )
    ids = table.strings(column)
    return table, *places_of(ids, table.name, column, rows, entry)
