"""Kinds whose cell is one name: a class (Exact, Noisy) or a node of the taxonomy (Coarse)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain import labels as kinds
from anygrain.data import config as settings
from anygrain.data.classes import Classes
from anygrain.data.error import InputError, did_you_mean, quoted
from anygrain.data.evidence import (
    Draft,
    Evidence,
    Rows,
    one_per_row,
    per_row,
    weights,
)
from anygrain.data.table import Table, distinct, read_table


def class_column(entry: Any, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> tuple[np.ndarray, str]:
    column = table.require(entry.column)
    text = rows.spelling.read(table.strings(column))
    return one_per_row(text, places, table, rows, entry, column), column


def read_exact(entry: settings.ExactColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> Draft:
    text, column = class_column(entry, table, places, notes, rows)

    def build(classes: Classes) -> Evidence:
        index = torch.from_numpy(classes.encode(text, column, table.name))
        made = kinds.Exact(
            index, len(classes), error=entry.error, weight=weights(entry, len(rows)), class_names=classes.names
        )
        return per_row(entry, table, [column], made, text, "the class", notes)

    return Draft(distinct(text), build)


def read_noisy(entry: settings.NoisyColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> Draft:
    text, column = class_column(entry, table, places, notes, rows)

    def build(classes: Classes) -> Evidence:
        index = torch.from_numpy(classes.encode(text, column, table.name))
        transition = _transition(entry.transition, classes) if entry.transition else None
        made = kinds.Noisy(index, len(classes), transition, weight=weights(entry, len(rows)), class_names=classes.names)
        return per_row(entry, table, [column], made, text, "the class, often wrong", notes)

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


def read_coarse(entry: settings.CoarseColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> Draft:
    text, column = class_column(entry, table, places, notes, rows)

    def build(classes: Classes) -> Evidence:
        taxonomy = classes.taxonomy
        if taxonomy is None:
            raise InputError(
                f'labels {quoted(entry.name)} (Coarse) need a taxonomy. Expected taxonomy = "taxonomy.csv", a table '
                "with a column of classes and one of parents, such as product,department. Or find the classes "
                "below it: anygrain discover"
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
            weight=weights(entry, len(rows)),
            class_names=classes.names,
        )
        return per_row(entry, table, [column], made, text, "a parent of the class", notes)

    return Draft([], build)
