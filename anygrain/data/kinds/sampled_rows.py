"""Kinds that say how a row was sampled: Positive, TwoUnlabeled, Sampled."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from anygrain import labels as kinds
from anygrain.data import config as settings
from anygrain.data.classes import Classes
from anygrain.data.error import InputError, did_you_mean, quoted, some
from anygrain.data.evidence import Draft, Evidence, Rows, per_row, weights
from anygrain.data.kinds.one_class import class_column
from anygrain.data.table import Table, distinct


def read_positive(
    entry: settings.PositiveColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> Draft:
    text, column = class_column(entry, table, places, notes, rows)
    odd = [v for v in distinct(text) if rows.spelling.fold(v) != rows.spelling.fold(entry.target)]
    if odd:
        raise InputError(
            f"{table.name}, {quoted(column)}: {quoted(odd[0])} is not the target. Expected {quoted(entry.target)} "
            "where a row is known to be positive, and empty cells elsewhere"
        )

    def build(classes: Classes) -> Evidence:
        made = kinds.Positive(
            torch.from_numpy(text != ""),
            len(classes),
            prior=entry.prior or None,
            scenario=entry.scenario,
            target=_target(entry.target, classes),
            error=entry.error,
            weight=weights(entry, len(rows)),
            class_names=classes.names,
        )
        return per_row(entry, table, [column], made, text, "rows known to be positive, all others unlabelled", notes)

    return Draft([entry.target], build)


def read_two_unlabeled(
    entry: settings.TwoUnlabeledColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> Draft:
    text, column = class_column(entry, table, places, notes, rows)
    if len(entry.priors) != 2:
        raise InputError(
            f"labels {quoted(entry.name)} (TwoUnlabeled): priors names {len(entry.priors)} sets. Expected two, such as "
            "priors = { north = 0.2, south = 0.7 }"
        )
    group = _groups(text, list(entry.priors), column, table.name)

    def build(classes: Classes) -> Evidence:
        if len(classes) != 2:
            raise InputError(
                f"labels {quoted(entry.name)} (TwoUnlabeled) tell two classes apart, and there are {len(classes)}. "
                'Expected two, or kind = "Sampled"'
            )
        target = _target(entry.target, classes) if entry.target else 1
        priors = [p if target == 1 else 1 - p for p in entry.priors.values()]
        population = (entry.prior if target == 1 else 1 - entry.prior) if entry.prior else None
        made = kinds.TwoUnlabeled(
            group,
            priors,
            prior=population,
            error=entry.error,
            weight=weights(entry, len(rows)),
            class_names=classes.names,
        )
        return per_row(entry, table, [column], made, text, "one of two sets of known class prior", notes)

    return Draft([entry.target] if entry.target else [], build)


def read_sampled(
    entry: settings.SampledColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> Draft:
    text, column = class_column(entry, table, places, notes, rows)
    group = _groups(text, list(entry.shares), column, table.name)

    def build(classes: Classes) -> Evidence:
        made = kinds.Sampled(
            group,
            torch.stack([by_class(row, "shares", classes) for row in entry.shares.values()]),
            prior=by_class(entry.prior, "prior", classes) if entry.prior else None,
            error=entry.error,
            weight=weights(entry, len(rows)),
            class_names=classes.names,
        )
        return per_row(entry, table, [column], made, text, "a set of known class shares", notes)

    return Draft(sorted({c for row in entry.shares.values() for c in row}), build)


def _target(name: str, classes: Classes) -> int:
    return int(classes.encode(np.array([name], dtype=object), "target", "the configuration")[0])


def by_class(row: dict[str, float], setting: str, classes: Classes) -> Tensor:
    """Probabilities (K,) that a setting gives by class name, 0 for classes that are not named."""
    index = classes.encode(np.array(list(row), dtype=object), setting, "the configuration")
    out = torch.zeros(len(classes), dtype=torch.float64)
    out[torch.from_numpy(index)] = torch.tensor(list(row.values()), dtype=torch.float64)
    return out


def _groups(text: np.ndarray, names: list[str], column: str, source: str) -> Tensor:
    """Position of every cell (N,) among the names, -1 where empty.

    Raises:
        InputError: a cell that is not among them.
    """
    position = {name: at for at, name in enumerate(names)} | {"": -1}
    odd = [v for v in distinct(text) if v not in position]
    if odd:
        raise InputError(
            f"{source}, {quoted(column)}: {quoted(odd[0])} is not among the sets.{did_you_mean(odd[0], names)} "
            f"Expected {some(map(quoted, names))}"
        )
    return torch.tensor([position[v] for v in text.tolist()])
