"""Kinds with several sources: the annotators of a Crowd, the rules of Rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from anygrain import labels as kinds
from anygrain.data import config as settings
from anygrain.data.classes import SETTING, Classes
from anygrain.data.error import InputError, counted, number, quoted, some
from anygrain.data.evidence import Draft, Evidence, Rows, row_names, starred, weights
from anygrain.data.table import Table, distinct
from anygrain.labels.frame import require_order

#: channels by the names that a configuration gives them
CHANNELS = {
    "OneCoin": "one_coin",
    "ClassCoin": "class_coin",
    "Confusion": "confusion",
    "Spammer": "spammer",
    "Groups": "groups",
    "Difficulty": "difficulty",
    "Ordinal": "ordinal",
}


def read_crowd(entry: settings.CrowdColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> Draft:
    if entry.counts:
        columns, items, votes = _counted_votes(entry, table, places, rows)
        names, who, total = np.array([entry.name], dtype=object), np.zeros(len(items), dtype=np.int64), len(items)
    elif entry.columns:
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
                f"{table.name}: {number(total - len(votes))} of {counted(total, 'vote')} are empty or of nobody; "
                f"{counted(lost, 'row')} "
                f"would have no vote left. They are kept as unlabelled.",
            ]
        items, who, votes = without_repeats(items, who, votes, names, entry, table, rows)
    if not len(votes):
        raise InputError(f"{table.name}: there is no vote in {some(map(quoted, columns))}")

    def build(classes: Classes) -> Evidence:
        if entry.channel == "Ordinal":
            require_order(classes.names, said=classes.origin == SETTING)
        index = torch.from_numpy(classes.encode(votes, entry.vote or entry.name, table.name))
        made = kinds.Crowd(
            torch.from_numpy(items),
            torch.from_numpy(who),
            index,
            len(classes),
            len(rows),
            channel=CHANNELS[entry.channel],
            weight=weights(entry, len(rows)),
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


def _counted_votes(
    entry: settings.CrowdColumns, table: Table, places: np.ndarray, rows: Rows
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Columns of vote counts as single votes: the columns, data row (R,) and class (R,) of every vote."""
    columns = table.matching(entry.counts)
    named = list(entry.classes) or starred(entry.counts, columns)
    if len(named) != len(columns):
        raise InputError(
            f"labels {quoted(entry.name)} have {len(columns)} columns of counts and {len(named)} classes. Expected "
            "one class per "
            "column"
        )
    ids = row_names(table, entry, rows)
    values = np.nan_to_num(np.stack([table.numbers(c, ids) for c in columns], axis=1))
    odd = (values < 0) | (values != np.floor(values))
    if odd.any():
        at = np.argwhere(odd)[0]
        raise InputError(
            f"{table.name}: {counted(int(odd.sum()), 'count')} of votes {'is' if odd.sum() == 1 else 'are'} no "
            "whole number of 0 or "
            f"more (first: {values[tuple(at)]:g} of {quoted(columns[at[1]])} in row {ids[at[0]]})"
        )
    values[places < 0] = 0
    row, which = np.nonzero(values)
    times = values[row, which].astype(np.int64)
    return columns, np.repeat(places[row], times), np.repeat(np.array(named, dtype=object)[which], times)


def without_repeats(
    items: np.ndarray,
    who: np.ndarray,
    votes: np.ndarray,
    names: np.ndarray,
    entry: Any,
    table: Table,
    rows: Rows,
    who_is: str = "annotator",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Votes of which an annotator gives one per row, or both where asked for; `who_is` names what gives them.

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
        choices = "last or first" if who_is == "tag" else "last, first or both"
        raise InputError(
            f"{table.name}: {counted(int(again.sum()), f'repeated ({who_is}, row) pair')}, first {names[who[at]]} "
            "on row "
            f"{rows.ids[items[at]]}: {quoted(votes[first])} and {quoted(votes[at])}. Keep {choices}? "
            f'--set labels.{entry.name}.repeats="last"'
        )
    last_first = order if entry.repeats == "first" else order[::-1]
    _, kept = np.unique(key[last_first], return_index=True)
    chosen = np.sort(last_first[kept])
    return items[chosen], who[chosen], votes[chosen]


def read_rules(entry: settings.RulesColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> Draft:
    columns = table.matching(entry.columns)
    grid = np.full((len(rows), len(columns)), "", dtype=object)
    kept = places >= 0
    grid[places[kept]] = np.stack([rows.spelling.read(table.strings(c)) for c in columns], axis=1)[kept]
    dependencies = entry.dependencies if isinstance(entry.dependencies, str) else _pairs_of(entry, columns)

    def build(classes: Classes) -> Evidence:
        index = classes.encode(grid.reshape(-1), entry.name, table.name).reshape(grid.shape)
        made = kinds.Rules(
            torch.from_numpy(index),
            len(classes),
            given_x=entry.given_x,
            dependencies=dependencies,
            weight=weights(entry, len(rows)),
            class_names=classes.names,
            rule_names=columns,
        )
        at, which = np.nonzero(index >= 0)  # only votes cast are records
        owner, source, text = at, np.array(columns, dtype=object)[which], grid[at, which]
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


def _pairs_of(entry: settings.RulesColumns, columns: list[str]) -> list[list[int]]:
    """Dependent columns (P, 2) by their places.

    Raises:
        InputError: not two columns, or one that is not among those of the rules.
    """
    pairs = []
    for pair in entry.dependencies:
        odd = next((c for c in pair if c not in columns), None)
        if odd is not None or len(pair) != 2:
            said = f"{quoted(odd)} is none of its columns" if odd is not None else f"{list(pair)} are not two columns"
            expected = f"Expected pairs of {some(map(quoted, columns))}"
            raise InputError(f"labels {quoted(entry.name)} (Rules), dependencies: {said}. {expected}")
        pairs.append([columns.index(c) for c in pair])
    return pairs
