"""Kinds that speak of two rows: Pairs, Compare."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from anygrain import labels as kinds
from anygrain.data import config as settings
from anygrain.data.classes import SETTING, Classes
from anygrain.data.error import InputError, counted, quoted
from anygrain.data.evidence import Draft, Evidence, Rows, per_row, places_of, weights
from anygrain.data.kinds.bags import answers, per_bag
from anygrain.data.kinds.sampled_rows import by_class
from anygrain.data.table import Table
from anygrain.labels.compare import as_relations
from anygrain.labels.error import LabelError
from anygrain.labels.frame import require_order


def read_pairs(entry: settings.PairsColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> Draft:
    i, j, column, text, notes = _two_rows(entry, table, notes, rows)
    same = answers(text, entry, column, table.name)

    def build(classes: Classes) -> Evidence:
        made = kinds.Pairs(
            torch.from_numpy(i),
            torch.from_numpy(j),
            torch.from_numpy(same),
            len(rows),
            len(classes),
            error=entry.error,
            weight=weights(entry, len(i)),
            class_names=classes.names,
        )
        said = np.array(["same" if s == 1 else "different" if s == 0 else "" for s in same.tolist()], dtype=object)
        return _evidence(entry, table, made, said, "whether two rows have one class", notes, rows)

    return Draft([], build)


def read_pairs_unlabeled(
    entry: settings.PairsUnlabeledColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> Draft:
    i, j, column, text, notes = _two_rows(entry, table, notes, rows)
    same = answers(text, entry, column, table.name)

    def build(classes: Classes) -> list[Evidence]:
        """How rows were drawn, and the answers of the pairs."""
        both = kinds.PairsUnlabeled(
            torch.from_numpy(np.stack([i, j], axis=1)),
            torch.from_numpy(same),
            len(rows),
            by_class(entry.prior, "prior", classes),
            n_classes=len(classes),
            error=entry.error,
            weight=weights(entry, len(i)),
            class_names=classes.names,
        )
        drawn, answered = both.parts
        said = np.where(same == 1, "same", "different").astype(object)
        pairs = _evidence(entry, table, answered, said, "whether two rows have one class", notes, rows)
        role = np.full(len(rows), "", dtype=object)
        role[i], role[j] = said, said
        says = "whether a row was drawn in a pair of one class, in one of two, or alone"
        of_rows = entry.model_copy(update={"name": f"{entry.name}, drawn"})
        return [per_row(of_rows, table, pairs.columns, drawn, role, says, [], source="drawn in a pair"), pairs]

    return Draft(list(entry.prior), build)


def read_compare(
    entry: settings.CompareColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> Draft:
    i, j, column, text, notes = _two_rows(entry, table, notes, rows)
    try:
        relation = as_relations(text)
    except LabelError as error:
        raise InputError(f"{table.name}, {quoted(column)}: {error}") from error

    def build(classes: Classes) -> Evidence:
        require_order(classes.names, said=classes.origin == SETTING)
        pairs = torch.stack([torch.from_numpy(i), torch.from_numpy(j)], dim=1)
        made = kinds.Compare(
            pairs,
            relation,
            len(classes),
            len(rows),
            error=entry.error,
            weight=weights(entry, len(i)),
            class_names=classes.names,
        )
        return _evidence(entry, table, made, text, "which of two rows has the higher class", notes, rows)

    return Draft([], build)


def _two_rows(
    entry: settings.AnsweredPairs | settings.CompareColumns, table: Table, notes: list[str], rows: Rows
) -> tuple[np.ndarray, np.ndarray, str, np.ndarray, list[str]]:
    """Data rows of both sides (M,), the column of answers, its cells (M,), and notes.

    Raises:
        InputError: no table of pairs, an unknown row, a pair of a row with itself.
    """
    if table is rows.table:
        said = f'labels {quoted(entry.name)} ({entry.kind}) need a table of pairs. Expected source = "pairs.csv"'
        raise InputError(said)
    sides = []
    kept = np.ones(len(table), dtype=bool)
    for column in (entry.first, entry.second):
        place, more = places_of(table.strings(column), table.name, column, rows, entry)
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
    return i, j, column, rows.spelling.read(table.strings(column))[kept], notes


def _evidence(
    entry: settings.AnsweredPairs | settings.CompareColumns,
    table: Table,
    made: Any,
    text: np.ndarray,
    says: str,
    notes: list[str],
    rows: Rows,
) -> Evidence:
    ends = made.sets.members.reshape(-1, 2).tolist()
    names = np.array([f"{rows.ids[a]} and {rows.ids[b]}" for a, b in ends], dtype=object)
    columns = [entry.first, entry.second, entry.column]
    return per_bag(entry, table, columns, made, made.sets, names, text, says, notes)
