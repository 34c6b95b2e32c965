"""A configuration guessed from a table, with the reasons."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from anygrain.data.bag_files import COORDS
from anygrain.data.classes import Spelling
from anygrain.data.config import KINDS, OF_NUMBERS
from anygrain.data.dataset import is_date
from anygrain.data.error import InputError, closest, counted, number, quoted, some
from anygrain.data.kinds import read_taxonomy
from anygrain.data.pictures import SIGNATURES, image_cells, is_bytes, is_bytes_and_path
from anygrain.data.table import Table, distinct, has_decimal_commas, read_table
from anygrain.encoders.images import SUFFIXES
from anygrain.labels.taxonomy import Taxonomy
from anygrain.program.guess_bags import bag_place
from anygrain.program.guess_number import said_numbers, target_by_name, target_kind
from anygrain.program.guess_tags import listed, notes_for, said_tags, tags_by_look

_ID = re.compile(r"(^|_)(id|uid|uuid|key|index|item|row)$", re.IGNORECASE)
_LABEL = re.compile(
    r"(^|_)(label|labels|class|target|y|category|gold|truth|product|intent|fine|tag|species|diagnosis)$", re.I
)
_BAG = re.compile(r"(^|_)(bag|bag_id|slide|slide_id|precinct|basket|basket_id|session|session_id)$", re.IGNORECASE)
_ANNOTATOR = re.compile(r"(^|_)(worker|annotator|rater|coder|labeller|labeler|user)(_id)?$", re.IGNORECASE)
_NOT = re.compile(r"^(not|isnt|no)_", re.IGNORECASE)
_WEAK = re.compile(r"(^|_)(noisy|weak|guess|predicted|prediction|auto)(_|$)", re.IGNORECASE)
_SPLITS = {"train", "test", "valid", "val", "validation", "dev", "training", "testing"}
_LEVEL = re.compile(r"\d+$")
NUMBERED = 100  # classes, at most, where they are called by whole numbers
PLACES = ("x", "y")


@dataclass
class Row:
    """One line of the guess: columns, what they are read as, why, and how much they say."""

    columns: str
    read_as: str
    why: str
    evidence: str = ""


@dataclass
class Guess:
    """What was guessed.

    Attributes:
        rows: one per column or group of columns, in the order of the table.
        settings: the configuration.
        notes: sentences.
    """

    rows: list[Row]
    settings: dict[str, Any]
    notes: list[str] = field(default_factory=list)


@dataclass
class _Column:
    name: str
    values: np.ndarray
    distinct: list[str]
    filled: int
    words: float
    is_number: bool
    is_cell: bool  # whether cells are single values, not lists, objects or bytes
    image: str = ""  # why the cells are images, if they are

    @property
    def missing(self) -> float:
        return 1 - self.filled / max(len(self.values), 1)

    @property
    def is_text(self) -> bool:
        return (
            self.is_cell
            and not self.is_number
            and not self.image
            and self.words >= 3.5
            and len(self.distinct) > 0.2 * self.filled
        )


def guess(
    source: str | Path,
    taxonomy_path: str | Path | None = None,
    *,
    given: Sequence[str] = (),
    simulated: Sequence[str] = (),
    target: str = "",
) -> Guess:
    """Guess what the columns of a table are.

    Args:
        source: the table.
        taxonomy_path: a taxonomy of the classes; it tells fine labels from coarse ones.
        given: what is known, ``"column=Kind"``; Kind is a kind of label, "id", "text", "image", "input" or
            "skip".
        simulated: columns whose labels were drawn by a program.
        target: the column to learn: numbers with fractions, or of more than ten values, are read as numbers.

    Raises:
        InputError: no file, no such column, or no column that looks like a label.
    """
    table = read_table(source)
    taxonomy = read_taxonomy(taxonomy_path) if taxonomy_path else None
    said = _given(given, table)
    columns = {name: _look(table, name) for name in table.columns}
    target_why = ""
    if target:
        column = columns[table.require(target)]
        kind, target_why = target_kind(column)
        if listed(column) is not None and not column.is_number:
            kind = "Tags"
        if said.get(target, kind) != kind:
            raise InputError(f"--target {target} and --column {target}={said[target]} differ. Expected one of them")
        if kind != "Exact" or taxonomy is None:
            said[target] = kind
    rows: dict[str, Row] = {}
    data: dict[str, Any] = {"source": str(source)}
    labels: list[dict[str, Any]] = []

    identity = next((n for n, kind in said.items() if kind == "id"), None)
    bags = bag_place(Path(source), table)
    if bags is not None and identity not in (None, bags.id or identity):
        bags = None  # the id that was said is not what files are named by
    identity = identity or (bags.id if bags else "") or _identity(table, columns, said)
    if identity:
        data["id"] = identity
        rows[identity] = Row(identity, "row id", f"unique, {counted(len(table), 'value')}")
    if bags is not None:
        data["instances"] = bags.instances
        if bags.id:
            rows[bags.id] = Row(bags.id, "row id, bags", bags.why, bags.evidence)
        else:
            rows[bags.instances] = Row(bags.instances, "bags", bags.why, bags.evidence)
    images = _image(columns, said)
    if images:
        data["images"] = images
        about = f"row id, {rows[images].why}; " if images == identity else ""
        why = "as you said" if said.get(images) == "image" else columns[images].image
        rows[images] = Row(images, "input image", about + why, "encoder: convolutional network, trained")
    left = [n for n in table.columns if n not in (identity, images, data.get("instances"))]
    if not identity:
        _refuse_votes(table, columns, said)
    free = [n for n in left if n not in said]
    bag = next((n for n in free if _names_bags(columns[n])), None)
    if bag is not None and not bags and all(n in free and columns[n].is_number for n in PLACES):
        data["coords"] = list(PLACES)
        for n in PLACES:
            rows[n] = Row(n, "place", f"by its name, beside {quoted(bag)}; the model does not see it")
        left = [n for n in left if n not in PLACES]

    for label, names in said_numbers(said, {n: columns[n] for n in left}):
        cells = np.stack([columns[n].values != "" for n in names])
        shown = names[0] if len(names) == 1 else f"{names[0]}..{names[-1]}"
        evidence = f"{number(int(cells.any(axis=0).sum()))} of {number(len(table))}"
        why = target_why if names == [target] else "as you said"
        rows[names[0]] = Row(shown, label["kind"], why, evidence)
        labels.append(label)
        left = [n for n in left if n not in names]
    notes = []
    tags = said_tags(said, {n: columns[n] for n in left})
    if labels and tags:
        raise InputError(
            f"--column {tags[0].columns[0]}=Tags speaks of tags, and {labels[0]['kind']} of a number. Expected one of "
            "the two"
        )
    unsaid = [columns[n] for n in left if n not in said]
    if not labels and not tags and taxonomy is None and not _said_classes(said):
        looked = tags_by_look([c.name for c in unsaid], columns)
        other = _plain_label([c.name for c in unsaid], columns, said, by_name_only=True)
        if looked is not None and other is not None and other not in looked.columns:
            notes.append(
                f"{quoted(looked.shown)} may hold tags ({looked.why}); to learn these and not {quoted(other)}: "
                f"--column {looked.columns[0]}=Tags"
            )
        elif looked is not None:
            tags = [looked]
    for each in tags:
        labels.append(each.label)
        rows[each.columns[0]] = Row(each.shown, "Tags", each.why, f"{number(each.rows)} of {number(len(table))}")
        left = [n for n in left if n not in each.columns]
        notes += notes_for(each, len(table))
    unsaid = [columns[n] for n in left if n not in said]
    named = target_by_name(unsaid) if not labels and taxonomy is None and not _said_classes(said) else None
    if named is not None:
        labels.append({"kind": "Value", "column": named.name})
        why = f"by its name, {counted(len(named.distinct), 'different number')}"
        rows[named.name] = Row(named.name, "Value", why, f"{number(named.filled)} of {number(len(table))}")
        left.remove(named.name)
    if labels:  # of numbers or tags: what else there is, is for the model to see
        of = "tags" if tags else "a number"
        if taxonomy is not None:
            holds = "tags" if tags else "numbers"
            raise InputError(
                f"--taxonomy is for labels of classes, and the column to learn holds {holds}. Leave it out"
            )
        classes = _said_classes(said)
        if classes:
            raise InputError(
                f"--column {classes[0]}={said[classes[0]]} speaks of classes, and {labels[0]['kind']} of {of}. "
                "Expected one of the two"
            )
        left = [n for n in left if not _skipped(n, said, rows)]
    else:
        left = _guess_classes(left, columns, taxonomy, said, table, rows, labels, target, target_why)

    _inputs(left, columns, table, said, data, rows)
    if not labels:
        likely = [n for n in left if not columns[n].is_text and _is_categorical(columns[n])]
        likely = [n for n in likely if not set(columns[n].distinct) <= _SPLITS] or left
        of_bags = " Kinds of label: anygrain labels"
        if "bag" in data:
            of_bags = f" Labels of bags ({quoted(data['bag'])}) in a table of their own: anygrain labels AnyOf"
        raise InputError(
            f"{table.name}: no column looks like a label. Say which one is, such as --column {likely[-1]}=Exact, or "
            f"--target {likely[-1]} (columns that could be: {some(likely, 6)}).{of_bags}"
        )
    for label in labels:
        said_by = _columns(label)
        if any(n in simulated for n in said_by):
            label["simulated"] = True
            notes.append(f"the labels of {some(said_by)} are simulated: a program drew them")
    if not any(data.get(key) for key in ("images", "instances", "text", "columns", "features")):
        notes.append("no column is left for the model to learn from: say one with --column NAME=input or NAME=text")
    settings: dict[str, Any] = {}
    if taxonomy_path:
        settings["taxonomy"] = str(taxonomy_path)
    settings["data"] = data
    place = {name: at for at, name in enumerate(table.columns)}
    settings["labels"] = sorted(labels, key=lambda label: place.get(_columns(label)[0], 0))
    settings["learn"] = {"seed": 0}
    order = {name: at for at, name in enumerate(table.columns)}
    return Guess([rows[n] for n in sorted(rows, key=lambda n: order[n])], settings, notes)


def _columns(label: dict[str, Any]) -> list[str]:
    """The columns that a label is read from."""
    single = [label[name] for name in ("column", "low", "high") if label.get(name)]
    return [*single, *label.get("columns", [])]


def _said_classes(said: dict[str, str]) -> list[str]:
    """Columns that were said to hold labels of classes."""
    return [n for n, kind in said.items() if kind in KINDS and kind not in OF_NUMBERS and kind != "Tags"]


def _skipped(name: str, said: dict[str, str], rows: dict[str, Row]) -> bool:
    """Whether a column is not to be read; then it is noted."""
    if said.get(name) == "skip":
        rows[name] = Row(name, "not read", "as you said")
    return said.get(name) == "skip"


def _guess_classes(
    left: list[str],
    columns: dict[str, _Column],
    taxonomy: Taxonomy | None,
    said: dict[str, str],
    table: Table,
    rows: dict[str, Row],
    labels: list[dict[str, Any]],
    target: str,
    target_why: str,
) -> list[str]:
    """Labels of classes, added to `rows` and `labels`; the columns that are left."""
    for name in list(left):
        if _skipped(name, said, rows):
            left.remove(name)
        elif said.get(name) in KINDS:
            label, row = _said_label(said[name], columns[name], taxonomy, len(table))
            labels.append(label)
            rows[name] = replace(row, why=target_why) if name == target else row
            left.remove(name)

    members = {n: _membership(columns[n], taxonomy) for n in left} if taxonomy else {}
    for group, row, label in _crowds(left, columns, members, taxonomy, said, len(table)):
        rows[group[0]] = row
        labels.append(label)
        left = [n for n in left if n not in group]
    for name in list(left):
        if name in said:
            continue
        found = _label(columns[name], members.get(name), taxonomy, len(table))
        if found:
            labels.append(found[0])
            rows[name] = found[1]
            left.remove(name)
    for group, row, label in _soft(left, columns, said):
        rows[group[0]] = row
        labels.append(label)
        left = [n for n in left if n not in group]
    if taxonomy is None and not any(label["kind"] in ("Exact", "Crowd", "Noisy") for label in labels):
        found_name = _plain_label(left, columns, said, by_name_only=bool(labels))
        if found_name:
            column = columns[found_name]
            labels.append({"kind": "Exact", "column": found_name})
            why = f"{counted(len(column.distinct), 'value')} that repeat, {round(100 * column.missing)} % missing"
            rows[found_name] = Row(found_name, "Exact", why, f"{number(column.filled)} of {number(len(table))}")
            left.remove(found_name)
    return left


def _given(given: Sequence[str], table: Table) -> dict[str, str]:
    known = [*KINDS, "id", "text", "image", "input", "skip"]
    out = {}
    for item in given:
        name, equals, kind = item.rpartition("=")
        if not equals:
            raise InputError(f"--column {item} says no kind. Expected NAME=KIND, such as product=Exact")
        table.require(name)
        if kind not in known:
            near = closest(kind, known)
            hint = f" Did you mean {quoted(near)}?" if near else ""
            raise InputError(f"--column {item}: {quoted(kind)} is not known.{hint} Expected one of {', '.join(known)}")
        out[name] = kind
    return out


def _look(table: Table, name: str) -> _Column:
    values = table.strings(name)
    filled = values[values != ""]
    sample = filled[:2000]
    words = float(np.mean([len(v.split()) for v in sample])) if len(sample) else 0.0
    kind = table.arrow.schema.field(name).type
    nested = pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    several = len(sample) > 0 and all(v[:1] in "[{" for v in sample.tolist())
    is_cell = not (nested or several)
    return _Column(
        name, values, distinct(values), len(filled), words, table.is_number(name), is_cell, _shows(table, name)
    )


def _shows(table: Table, name: str) -> str:
    """Why the cells of a column are images, if they are: bytes that begin as images do, or names of image files."""
    kind = table.arrow.schema.field(name).type
    if is_bytes(kind) or is_bytes_and_path(kind):
        found = [cell for cell in image_cells(table.head(20), name) if cell is not None]
        starts = [cell["bytes"] if isinstance(cell, dict) else cell for cell in found]
        return "encoded images" if found and all(s is None or s.startswith(SIGNATURES) for s in starts) else ""
    filled = [v for v in distinct(table.strings(name)) if v] if pa.types.is_string(kind) else []
    endings = {Path(v).suffix.lower() for v in filled}
    return f"names of {some(sorted(endings))} files" if filled and endings <= set(SUFFIXES) else ""


def _image(columns: dict[str, _Column], said: dict[str, str]) -> str:
    """The column of images, "" for none."""
    given = next((n for n, kind in said.items() if kind == "image"), "")
    return given or next((n for n, c in columns.items() if n not in said and c.image), "")


def _identity(table: Table, columns: dict[str, _Column], said: dict[str, str]) -> str | None:
    unique = [
        n for n, c in columns.items() if n not in said and len(c.distinct) == c.filled == len(table) and c.words < 2
    ]
    named = [n for n in unique if _ID.search(n)]
    if named:
        return named[0]
    first = table.columns[0]
    return first if first in unique and not columns[first].is_number else None


def _refuse_votes(table: Table, columns: dict[str, _Column], said: dict[str, str]) -> None:
    """Raise for a long table of votes: its lines are no rows to learn from.

    Raises:
        InputError: with the lines that read it beside a table of rows.
    """
    free = {n: c for n, c in columns.items() if n not in said}
    who = next((n for n, c in free.items() if _ANNOTATOR.search(n) and 1 < len(c.distinct) < c.filled), None)
    item = next((n for n, c in free.items() if _ID.search(n) and n != who and 1 < len(c.distinct) < c.filled), None)
    vote = next((n for n, c in free.items() if n not in (who, item) and _LABEL.search(n) and c.is_cell), None)
    if who is None or item is None or any(c.is_text for c in columns.values()):
        return
    raise InputError(
        f"{table.name} looks like a table of votes ({quoted(item)} repeats, {quoted(who)} gave them). Expected the "
        f'table of the rows themselves; name the votes in its configuration: [[labels]] kind = "Crowd", source = '
        f"{quoted(table.name)}, item = {quoted(item)}, annotator = {quoted(who)}, vote = {quoted(vote or '...')}"
    )


def _membership(column: _Column, taxonomy: Taxonomy | None) -> tuple[float, float] | None:
    """Share of distinct values that are classes, and that are nodes of the taxonomy at all."""
    if taxonomy is None or not column.distinct:
        return None
    classes, nodes = set(taxonomy.classes), set(taxonomy.names)
    spelling = Spelling(("n/a", "none", "unknown", "-", "?"), fold_case=True)
    values = [v for v in spelling.read(np.array(column.distinct, dtype=object)).tolist() if v]
    if not values:
        return None
    return sum(v in classes for v in values) / len(values), sum(v in nodes for v in values) / len(values)


def _crowds(
    left: list[str],
    columns: dict[str, _Column],
    members: dict[str, tuple[float, float] | None],
    taxonomy: Taxonomy | None,
    said: dict[str, str],
    n: int,
) -> list[tuple[list[str], Row, dict[str, Any]]]:
    groups: dict[str, list[str]] = {}
    for name in left:
        column = columns[name]
        if name in said or not column.distinct or column.is_text:
            continue
        share = members.get(name)
        is_class = share is not None and share[0] >= 0.8 if taxonomy else _is_categorical(column)
        stem = _LEVEL.sub("", name)
        if is_class and stem != name:
            groups.setdefault(stem, []).append(name)
    out = []
    for stem, names in groups.items():
        if len(names) < 2:
            continue
        sets = [set(columns[m].distinct) for m in names]
        union = set().union(*sets)
        if taxonomy is None and (sum(len(s) for s in sets) / len(sets) < 0.3 * len(union) or len(union) > 500):
            continue
        if taxonomy is None and len(union) > NUMBERED and all(columns[m].is_number for m in names):
            continue  # measurements, no classes that are numbered
        grid = np.stack([columns[m].values != "" for m in names], axis=1)
        shown = f"{names[0]}..{names[-1].removeprefix(stem)}"
        why = f"{len(names)} columns share one set of {counted(len(union), 'value')}"
        evidence = f"{counted(int(grid.sum()), 'vote')} on {counted(int(grid.any(axis=1).sum()), 'row')}"
        out.append((names, Row(shown, "Crowd", why, evidence), {"kind": "Crowd", "columns": names}))
    return out


def _is_categorical(column: _Column) -> bool:
    return (
        column.is_cell
        and 1 < len(column.distinct) <= max(200, column.filled // 20)
        and len(column.distinct) * 2 <= column.filled
    )


def _label(
    column: _Column, share: tuple[float, float] | None, taxonomy: Taxonomy | None, n: int
) -> tuple[dict[str, Any], Row] | None:
    """A column of labels among a taxonomy's names, or of sets of them."""
    count = f"{number(column.filled)} of {number(n)}"
    missing = f", {round(100 * column.missing)} % missing" if column.missing > 0 else ""
    if share is not None and share[1] >= 0.8:
        if share[0] >= 0.8:
            kind = "Complementary" if _NOT.search(column.name) else "Noisy" if _WEAK.search(column.name) else "Exact"
            why = f"values are leaves{missing}"
            if kind != "Exact":
                why += ", by its name"
            return {"kind": kind, "column": column.name}, Row(column.name, kind, why, count)
        every = "every value is" if share[0] == 0 else "values are"
        why = f"{every} a parent in the taxonomy" if share[0] == 0 else "values are nodes of the taxonomy, of any depth"
        return {"kind": "Coarse", "column": column.name}, Row(column.name, "Coarse", why, count)
    if taxonomy is not None and any("|" in v or v.startswith("[") for v in column.distinct):
        parts = {p.strip(" []\"'") for v in column.distinct for p in re.split(r"[|,]", v)}
        if parts and sum(p in set(taxonomy.classes) for p in parts) >= 0.8 * len(parts):
            kind = "Complementary" if _NOT.search(column.name) else "Candidates"
            why = "cells list several leaves" + (", by its name none of them true" if kind == "Complementary" else "")
            return {"kind": kind, "column": column.name}, Row(column.name, kind, why, count)
    return None


def _said_label(kind: str, column: _Column, taxonomy: Taxonomy | None, n: int) -> tuple[dict[str, Any], Row]:
    fields = KINDS[kind].model_fields
    where = {"column": column.name} if "column" in fields else {"columns": [column.name]}
    return {"kind": kind, **where}, Row(column.name, kind, "as you said", f"{number(column.filled)} of {number(n)}")


def _soft(
    left: list[str], columns: dict[str, _Column], said: dict[str, str]
) -> list[tuple[list[str], Row, dict[str, Any]]]:
    groups: dict[str, list[str]] = {}
    for name in left:
        head, mark, _ = name.rpartition("_")
        if mark and name not in said and columns[name].is_number:
            groups.setdefault(head + "_", []).append(name)
    out = []
    for head, names in groups.items():
        if len(names) < 2:
            continue
        values = np.stack([np.where(columns[m].values == "", "nan", columns[m].values) for m in names]).astype(float)
        total = values.sum(axis=0)
        filled = ~np.isnan(total)
        if filled.any() and (values[:, filled] >= 0).all() and (np.abs(total[filled] - 1) < 1e-2).mean() > 0.9:
            row = Row(f"{head}*", "Soft", f"{len(names)} columns sum to 1", counted(int(filled.sum()), "row"))
            out.append((names, row, {"kind": "Soft", "columns": [f"{head}*"]}))
    return out


def _plain_label(
    left: list[str], columns: dict[str, _Column], said: dict[str, str], *, by_name_only: bool
) -> str | None:
    """Without a taxonomy: a column named like a label, else one that is partly empty, else nothing."""
    likely = [n for n in left if n not in said and not columns[n].is_text and _is_categorical(columns[n])]
    named = [n for n in likely if _LABEL.search(n)]
    partly = [n for n in likely if columns[n].missing > 0.2 and not columns[n].is_number]
    if named:
        return named[-1]
    return partly[0] if partly and not by_name_only else None


def _inputs(
    left: list[str],
    columns: dict[str, _Column],
    table: Table,
    said: dict[str, str],
    data: dict[str, Any],
    rows: dict[str, Row],
) -> None:
    """Text, number, category and date columns; bags; and what is left out."""
    if data.get("images"):
        for n in left:
            rows[n] = _bag(columns[n], data) or Row(n, "not read", "images are read alone")
        return
    if data.get("instances"):
        for n in left:
            places = n == COORDS and data["instances"] in columns
            rows[n] = Row(n, "places", "of the instances") if places else Row(n, "not read", "bags are read alone")
        return
    text = [n for n in left if said.get(n) == "text" or (n not in said and columns[n].is_text)]
    if text:
        data["text"] = text[0] if len(text) == 1 else text
        for n in text:
            why = f"mean {columns[n].words:.0f} words"
            rows[n] = Row(n, "input text", why, "encoder: hashed tf-idf (no download)")
    numbered: dict[str, list[str]] = {}
    for n in left:
        stem = _LEVEL.sub("", n)
        if n not in said and columns[n].is_number and stem != n and columns[n].missing == 0:
            numbered.setdefault(stem, []).append(n)
    features = {stem: names for stem, names in numbered.items() if len(names) >= 16}
    taken = set(text)
    if features:
        data["features"] = [f"{stem}*" for stem in features]
        for stem, names in features.items():
            rows[names[0]] = Row(f"{stem}*", "input features", f"{len(names)} number columns")
            taken |= set(names)
    inputs = []
    for n in left:
        if n in taken:
            continue
        column = columns[n]
        if said.get(n) != "input":
            if len(column.distinct) < 2:
                rows[n] = Row(n, "not read", "one value only" if column.distinct else "empty")
                continue
            if not column.is_cell:
                rows[n] = Row(n, "not read", "lists, objects or bytes")
                continue
            if has_decimal_commas(column.values):
                rows[n] = Row(n, "not read", "numbers with commas: write decimal points")
                continue
            if set(column.distinct) <= _SPLITS:
                rows[n] = Row(n, "not read", "says which rows are for testing")
                continue
            bag = _bag(column, data)
            if bag is not None:
                rows[n] = bag
                continue
            if not column.is_number and not is_date(table, n) and len(column.distinct) > max(50, 0.5 * column.filled):
                rows[n] = Row(n, "not read", f"{counted(len(column.distinct), 'value')}, almost all different")
                continue
            if column.is_number and len(column.distinct) == len(table) and _ID.search(n):
                rows[n] = Row(n, "not read", "looks like an id")
                continue
        what = "number" if column.is_number else "date" if is_date(table, n) else "category"
        empty = f", {round(100 * column.missing)} % missing" if column.missing else ""
        rows[n] = Row(n, f"input {what}", f"{counted(len(column.distinct), 'value')}{empty}")
        inputs.append(n)
    if inputs:
        data["columns"] = inputs


def _names_bags(column: _Column) -> bool:
    return bool(_BAG.search(column.name)) and len(column.distinct) < column.filled


def _bag(column: _Column, data: dict[str, Any]) -> Row | None:
    """The first column that is called like bags and repeats, which then stands in the settings; None for others."""
    if not _names_bags(column) or "bag" in data:
        return None
    data["bag"] = column.name
    return Row(column.name, "bag id", f"by its name, {counted(len(column.distinct), 'bag')}")
