"""A configuration read: rows, what the model sees of them, and what is known of their classes."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Generic

import numpy as np
import torch

from anygrain.data.bag_rows import bag_rows
from anygrain.data.classes import Classes, Spelling
from anygrain.data.config import Config
from anygrain.data.conflicts import Conflict, find_conflicts
from anygrain.data.error import InputError, counted, quoted, some
from anygrain.data.evidence import L, Read, Rows
from anygrain.data.groups import Grouped
from anygrain.data.kinds import read_evidence
from anygrain.data.pictures import check_images, image_cells
from anygrain.data.table import Table, distinct, has_decimal_commas, is_pattern, read_table
from anygrain.labels import Labels


@dataclass
class Columns:
    """What the model sees of the rows of a table: the columns, by what they hold.

    Attributes:
        text: names of text columns.
        numbers, categories, dates: names of table columns.
        features: names of number columns that are features already.
        images: name of the column of images, alone.
        instances: where the instances of rows that are bags lie, alone.
    """

    text: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)
    dates: list[str] = field(default_factory=list)
    features: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    instances: list[str] = field(default_factory=list)

    @property
    def all(self) -> list[str]:
        return [*self.images, *self.text, *self.numbers, *self.categories, *self.dates, *self.features]


@dataclass(kw_only=True)
class Given(ABC, Generic[L]):
    """What is given of the rows, whatever their labels speak of.

    Attributes:
        config: where it came from.
        table: the data source.
        ids: row ids, shape (N,).
        columns: what the model sees.
        evidence: the kinds of label, in the order of the configuration.
        groups: group of every row (N,), or None.
        conflicts: rows and bags that contradict themselves.
        notes: what was done with odd cells, in sentences.
    """

    config: Config
    table: Table
    ids: np.ndarray
    columns: Columns
    evidence: list[Read[L]]
    groups: np.ndarray | None
    conflicts: list[Conflict]
    notes: list[str]

    def __len__(self) -> int:
        return len(self.table)

    @property
    @abstractmethod
    def labels(self) -> L:
        """All labels together, rows of one group joined."""

    @property
    def labelled(self) -> np.ndarray:
        """bool (N,): rows with any label."""
        return np.asarray(np.any([e.rows for e in self.evidence], axis=0))

    def snippets(self) -> np.ndarray:
        """The first 160 characters of the text of every row (N,), or its first columns."""
        return snippets(self.table, self.columns)


@dataclass(kw_only=True)
class OfClasses(Given[Labels]):
    """What is given of rows whose instances have classes: their own, or on and off for every tag."""

    @property
    def labels(self) -> Labels:
        """All labels together, rows of one group joined."""
        parts = [e.labels for e in self.evidence]
        return combined(parts) if self.groups is None else Grouped(*parts, group=torch.from_numpy(self.groups))


@dataclass(kw_only=True)
class Dataset(OfClasses):
    """Everything that a fit of classes needs.

    Attributes:
        classes: the list of classes, with the taxonomy if there is one.
    """

    classes: Classes

    def exact(self) -> np.ndarray:
        """The exact class of every row (N,), -1 where there is none."""
        out = np.full(len(self), -1, dtype=np.int64)
        for evidence in self.evidence:
            if evidence.kind == "Exact":
                given = evidence.labels.labels.numpy()  # type: ignore[attr-defined]
                out = np.where(out < 0, given, out)
        return out


def combined(parts: list[Labels]) -> Labels:
    """One kind of label, or the product of several."""
    out = parts[0]
    for part in parts[1:]:
        out = out & part
    return out


def snippets(table: Table, columns: Columns) -> np.ndarray:
    """The first 160 characters of the text of every row (N,), its image, or its first columns as "name=value"."""
    if columns.images:
        return np.array([v[-160:] for v in table.strings(columns.images[0]).tolist()], dtype=object)
    if columns.text:
        return np.array([" ".join(v.split())[:160] for v in texts(table, columns.text)], dtype=object)
    shown = columns.all[:4] if not columns.instances else table.columns[:1]
    cells = [table.strings(c) for c in shown]
    return np.array(
        [
            "; ".join(f"{c}={_brief(v)}" for c, v in zip(shown, row, strict=True))[:160]
            for row in zip(*cells, strict=True)
        ],
        dtype=object,
    )


def _brief(cell: str) -> str:
    """A cell, with four digits where it is a long fraction."""
    return f"{float(cell):.4g}" if _FRACTION.fullmatch(cell) else cell


_FRACTION = re.compile(r"-?\d+\.\d{4,}(e[+-]?\d+)?")


def texts(table: Table, columns: list[str]) -> list[str]:
    """The text of every row; several columns are joined by a line break."""
    parts = [table.strings(c).tolist() for c in columns]
    return ["\n".join(p for p in row if p) for row in zip(*parts, strict=True)]


def model_input(table: Table, columns: Columns, ids: np.ndarray) -> Any:
    """What a Learner is given: bags, images, texts, numbers (N, D), or a data frame of columns of several types.

    Raises:
        InputError: cells that are no numbers in a number column, no images in a column of images; a bag of a row that
            is missing or cannot be read.
    """
    if columns.instances:
        return bag_rows(columns.instances[0], table, ids)
    if columns.images:
        return image_cells(table, columns.images[0])
    if columns.text and len(columns.all) == len(columns.text):
        return texts(table, columns.text)
    if len(columns.all) == len(columns.features):
        return np.stack([table.numbers(c, ids) for c in columns.features], axis=1)
    import narwhals as nw
    import pyarrow as pa

    frame: dict[str, Any] = {}
    for name in columns.text:
        frame[name] = pa.array(table.strings(name).tolist(), type=pa.string())
    for name in [*columns.numbers, *columns.features]:
        frame[name] = pa.array(table.numbers(name, ids), from_pandas=True)
    for name in columns.categories:
        frame[name] = pa.array([v or None for v in table.strings(name).tolist()], type=pa.string())
    for name in columns.dates:
        frame[name] = pa.array([datetime.fromisoformat(v) if v else None for v in table.strings(name).tolist()])
    return nw.from_native(pa.table(frame), eager_only=True)


def row_ids(table: Table, column: str) -> np.ndarray:
    """Row ids as strings (N,): a column, or the numbers from 0 on.

    Raises:
        InputError: ids that are empty or stand in several rows.
    """
    if not column:
        return np.arange(len(table)).astype(str).astype(object)
    ids = table.strings(column)
    empty = ids == ""
    if empty.any():
        raise InputError(
            f"{table.name}: {counted(int(empty.sum()), 'row')} without a row id in {quoted(column)} (first: row "
            f"{int(empty.argmax()) + 1})"
        )
    distinct_ids, first, counts = np.unique(ids.astype(str), return_index=True, return_counts=True)
    if len(distinct_ids) < len(ids):
        twice = distinct_ids[counts > 1]
        name = str(twice[np.argmin(first[counts > 1])])
        at = (ids == name).nonzero()[0][:2] + 1
        raise InputError(
            f"{table.name}: {counted(len(twice), 'row id')} of {quoted(column)} "
            f"{'stands' if len(twice) == 1 else 'stand'} in several "
            f"rows, first {quoted(name)} in rows {at[0]} and {at[1]}. Expected one row per id; several labels of a "
            "row belong "
            'in a table of their own ([[labels]] source = "...")'
        )
    return ids


def read_columns(config: Config, table: Table) -> Columns:
    """The columns that the configuration names, by what they hold.

    Raises:
        InputError: no such column, or none at all.
    """
    data = config.data
    if data.instances:
        others = [*data.text, *data.features, *data.columns, *([data.images] if data.images else [])]
        if others:
            raise InputError(
                f"data.instances = {quoted(data.instances)} stands beside {some(map(quoted, others))}. Bags are read "
                "alone: remove text, features, columns and images, or instances"
            )
        if not data.id:
            raise InputError(
                'data.instances joins bags by the row id. Expected data.id, the column of "slide_7" in slide_7.h5'
            )
        return Columns(instances=[data.instances])
    if data.images:
        others = [*data.text, *data.features, *data.columns]
        if others:
            raise InputError(
                f"data.images = {quoted(data.images)} stands beside {some(map(quoted, others))}. Images are read "
                "alone: remove text, features and columns, or images"
            )
        return Columns(images=[table.require(data.images)])
    named = [*data.text, *data.features, *data.columns]
    table.require_all([name for name in named if not is_pattern(name)])
    out = Columns(text=table.matching(data.text), features=table.matching(data.features))
    for column in table.matching(data.columns):
        if column in out.all or column == data.id:
            continue
        if table.is_number(column):
            out.numbers.append(column)
        elif has_decimal_commas(table.strings(column)):
            first = next(v for v in table.strings(column).tolist() if "," in v)
            raise InputError(
                f"{table.name}: {quoted(column)} holds numbers with commas (first: {quoted(first)}). Write decimal "
                "points and no separators of thousands"
            )
        elif is_date(table, column):
            out.dates.append(column)
        else:
            out.categories.append(column)
    if not out.all:
        raise InputError(
            f"{config.data.source and Path(config.data.source).name}: no column for the model to learn from. "
            'Expected text = "...", images = "...", instances = "...", '
            'features = "prefix_*" or columns = [...] in [data]'
        )
    return out


def is_date(table: Table, column: str) -> bool:
    """Whether every cell that is not empty is an ISO date or time."""
    values = distinct(table.strings(column))
    if not values:
        return False
    try:
        for value in values[:10_000]:
            if len(value) < 8 or not value[:4].isdigit():
                return False
            datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def check_numbers(table: Table, columns: Columns, ids: np.ndarray) -> None:
    """Refuse features that are no numbers or infinite.

    Raises:
        InputError: naming the columns.
    """
    empty: list[str] = []
    first: str | None = None
    for column in columns.features:
        values = table.numbers(column, ids)
        bad = ~np.isfinite(values)
        if bad.any():
            empty.append(f"{quoted(column)} ({counted(int(bad.sum()), 'cell')})")
            first = first or str(ids[int(bad.argmax())])
    if empty:
        raise InputError(
            f"{table.name}: {counted(len(empty), 'feature column')} with empty or infinite cells: {some(empty)} "
            f"(first: row {first}). "
            "Fill them, or move the columns to columns = [...], where empty cells are filled with the mean"
        )


def check_places(config: Config, table: Table, ids: np.ndarray) -> None:
    """Raise unless `data.coords` names two columns of finite numbers, in a table of bags of rows, or nothing."""
    columns = config.data.coords
    if not columns:
        return
    if len(columns) != 2 or not config.data.bag:
        wrong = f"names {counted(len(columns), 'column')}" if len(columns) != 2 else "needs data.bag"
        raise InputError(
            f'data.coords {wrong}. Expected two columns, left and top, beside a column of bag ids: coords = ["x", "y"]'
        )
    for column in columns:
        bad = ~np.isfinite(table.numbers(column, ids))
        if bad.any():
            raise InputError(
                f"{table.name}: {quoted(column)} is empty or infinite in {counted(int(bad.sum()), 'row')} "
                f"(first: row {ids[int(bad.argmax())]}). Expected a place for each, or leave data.coords out"
            )


def _names(config: Config) -> list[str]:
    """Columns of the data source that a configuration names, patterns left out."""
    data = config.data
    names = [data.id, data.images, *data.text, *data.features, *data.columns, data.group, data.bag, *data.coords]
    for entry in config.labels:
        if not entry.source:
            single = ("column", "absent", "low", "high", "item", "annotator", "vote", "bag")
            names += [getattr(entry, setting, "") for setting in single]
            names += [c for setting in ("columns", "counts") for c in getattr(entry, setting, [])]
    return [name for name in names if name and not is_pattern(name)]


@dataclass
class Source:
    """The data source of a configuration, checked, before its labels are read."""

    table: Table
    columns: Columns
    rows: Rows
    groups: np.ndarray | None
    notes: list[str]


def read_source(config: Config, *, unlabelled: bool = False) -> Source:
    """Rows, what the model sees of them, and their groups.

    Args:
        unlabelled: whether there need not be any labels.

    Raises:
        InputError: the first kind of problem that was found, missing labels among them.
    """
    if not config.labels and not unlabelled:
        raise InputError(
            'There are no labels. Expected [[labels]] with a kind, such as kind = "Exact" and column = "product"'
        )
    table = read_table(config.data.source)
    data = config.data
    table.require_all(_names(config))
    ids = row_ids(table, data.id)
    columns = read_columns(config, table)
    check_numbers(table, columns, ids)
    spelling = Spelling(data.missing, data.aliases, fold_case=data.fold_case)
    bag = table.require(data.bag) if data.bag else ""
    groups = None
    if data.group:
        _, groups = np.unique(table.strings(data.group).astype(str), return_inverse=True)
    check_places(config, table, ids)
    if columns.instances:
        bag_rows(columns.instances[0], table, ids)  # says what is missing or cannot be read
    notes = [n for c in columns.images for n in check_images(table, c, ids, data.unreadable)]
    return Source(table, columns, Rows(table, ids, data.id, spelling, bag), groups, notes)


def require_labels(evidence: Sequence[Read[Any]]) -> None:
    """Raise for a kind that says nothing at all.

    Raises:
        InputError: naming the first.
    """
    for entry in evidence:
        if not entry.n_labels:
            raise InputError(
                f"labels {quoted(entry.name)} ({entry.kind}): {entry.source} holds none in "
                f"{some(map(quoted, entry.columns))}"
            )


def read_dataset(config: Config) -> Dataset:
    """Everything that a configuration of classes names, checked.

    Raises:
        InputError: the first kind of problem that was found; nothing is trained before all checks are passed. Rows
            that contradict themselves are returned in `conflicts`.
    """
    source = read_source(config)
    evidence, classes = read_evidence(config.labels, source.rows, config.classes, config.taxonomy)
    require_labels(evidence)
    return Dataset(
        config=config,
        table=source.table,
        ids=source.rows.ids,
        columns=source.columns,
        classes=classes,
        evidence=evidence,
        groups=source.groups,
        conflicts=find_conflicts(evidence, source.rows.ids, classes),
        notes=[*source.notes, *(n for e in evidence for n in e.notes)],
    )


def softened(dataset: Dataset) -> Dataset:
    """The same data with labels that may be wrong: kinds that contradict each other get an error of their own.

    The error is the share of contradicting rows among all rows with several kinds of label, at least .005.
    """
    if not dataset.conflicts:
        return dataset
    several = int((np.sum([e.rows for e in dataset.evidence], axis=0) > 1).sum())
    config, note = softened_config(dataset.config, len(dataset.conflicts), several)
    rows = Rows(
        dataset.table,
        dataset.ids,
        config.data.id,
        dataset.classes.spelling,
        config.data.bag,
    )
    evidence, classes = read_evidence(config.labels, rows, config.classes, config.taxonomy)
    return replace(dataset, config=config, classes=classes, evidence=evidence, notes=[*dataset.notes, note])


def softened_config(config: Config, conflicts: int, several: int) -> tuple[Config, str]:
    """The configuration with an error for hard labels that have none, and a sentence that says so.

    Args:
        config: as it was given.
        conflicts: number of rows, or entries, that contradict themselves.
        several: of how many several kinds of label speak.
    """
    share = min(max(conflicts / max(several, 1), 0.005), 0.2)
    config = config.model_copy(deep=True)
    for entry in config.labels:
        if hasattr(entry, "error") and entry.error == 0.0:
            entry.error = round(share, 4)
    note = f'Labels that contradict each other are read as wrong with probability {share:.3g} (conflicts = "soften").'
    return config, note
