"""Kinds that say one thing of a whole bag: ranges of counts, majorities, rules, automata and sums."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from anygrain import labels as kinds
from anygrain.data import config as settings
from anygrain.data.classes import Classes
from anygrain.data.error import InputError, counted, did_you_mean, quoted, some
from anygrain.data.evidence import Draft, Evidence, Rows, weights
from anygrain.data.kinds.bags import bags_of, constant_in_bags, per_bag
from anygrain.data.table import Table, read_table


class _Column(NamedTuple):
    """One column of what is said of bags."""

    title: str
    bags: kinds.Bags
    names: np.ndarray  # (M,) of the bags
    text: np.ndarray  # (M,) cells, "" where empty
    notes: list[str]


def _read(entry: Any, column: str, table: Table, rows: Rows, notes: list[str]) -> _Column:
    title = table.require(column)
    bags, names, source, more = bags_of(entry, table, rows)
    cells = rows.spelling.read(table.strings(title))
    if table is rows.table:
        constant_in_bags(cells, bags, names, title, table.name)
    return _Column(title, bags, names, cells[source], [*notes, *more])


def _evidence(entry: Any, table: Table, column: _Column, made: kinds.Labels, text: np.ndarray, says: str) -> Evidence:
    return per_bag(entry, table, [column.title], made, column.bags, column.names, text, says, column.notes)


def _common(entry: Any, bags: kinds.Bags, classes: Classes) -> dict[str, Any]:
    return {"error": entry.error, "weight": weights(entry, len(bags)), "class_names": classes.names}


def _numbers(column: _Column, table: Table) -> np.ndarray:
    """Cells as numbers (M,), NaN where empty."""
    out = np.full(len(column.text), np.nan)
    for at, cell in enumerate(column.text.tolist()):
        try:
            out[at] = float(cell) if cell else np.nan
        except ValueError:
            raise InputError(
                f"{table.name}, bag {quoted(column.names[at])}: {quoted(column.title)} holds {quoted(cell)}. Expected "
                "a number, or nothing"
            ) from None
    return out


def _whole(column: _Column, table: Table, what: str) -> np.ndarray:
    """Cells as whole numbers (M,), -1 where empty."""
    values = _numbers(column, table)
    odd = ~np.isnan(values) & ((values != np.floor(values)) | (values < 0))
    if odd.any():
        at = int(odd.argmax())
        raise InputError(
            f"{table.name}, bag {quoted(column.names[at])}: {quoted(column.title)} holds {values[at]:g}. Expected "
            f"{what}, a whole number of 0 or more, or nothing"
        )
    return np.where(np.isnan(values), -1, values).astype(np.int64)


def _thresholds(column: _Column, table: Table, rows: Rows) -> np.ndarray:
    values, sizes = _whole(column, table, "a number of rows"), column.bags.sizes.numpy()
    above = values > sizes
    if above.any():
        at = int(above.argmax())
        more = f" (and {counted(int(above.sum()) - 1, 'more bag')})" if above.sum() > 1 else ""
        raise InputError(
            f"{table.name}, bag {quoted(column.names[at])}{more}: {quoted(column.title)} is {values[at]}, but "
            f"{counted(int(sizes[at]), 'row')} of {rows.table.name} belong to it"
        )
    return values


def read_range(
    entry: settings.AtLeastColumns | settings.AtMostColumns | settings.BetweenColumns,
    table: Table,
    places: np.ndarray,
    notes: list[str],
    rows: Rows,
) -> Draft:
    """AtLeast, AtMost and Between."""
    if isinstance(entry, settings.BetweenColumns):
        titles = [entry.low, entry.high]
    else:
        titles = [entry.column, ""] if entry.kind == "AtLeast" else ["", entry.column]
    named = [title for title in titles if title]
    if not named:
        raise InputError(f'labels {quoted(entry.name)} (Between) name no column. Expected low = "...", high = "..."')
    columns = [_read(entry, title, table, rows, notes) if title else None for title in titles]
    first = next(column for column in columns if column is not None)
    nothing = np.full(len(first.names), -1, dtype=np.int64)
    low, high = (nothing if column is None else _thresholds(column, table, rows) for column in columns)
    crossed = (low > high) & (high >= 0)
    if crossed.any():
        at = int(crossed.argmax())
        raise InputError(
            f"{table.name}, bag {quoted(first.names[at])}: from {low[at]} to {high[at]} rows. Expected "
            f"{quoted(named[0])} to be the lower number, and {quoted(named[1])} the higher"
        )
    text = np.array(
        [
            f"{a if a >= 0 else ''}..{b if b >= 0 else ''}" if max(a, b) >= 0 else ""
            for a, b in zip(low, high, strict=True)
        ],
        dtype=object,
    )

    def build(classes: Classes) -> Evidence:
        target = classes.encode(np.array(entry.target, dtype=object), "target", table.name).tolist()
        ends = torch.from_numpy(low), torch.from_numpy(high)
        how = _common(entry, first.bags, classes)
        made: kinds.Labels
        if entry.kind == "AtLeast":
            made = kinds.AtLeast(first.bags, ends[0], target, len(classes), **how)
        elif entry.kind == "AtMost":
            made = kinds.AtMost(first.bags, ends[1], target, len(classes), **how)
        else:
            made = kinds.Between(first.bags, *ends, target, len(classes), **how)
        says = f"a range for the number of {' or '.join(quoted(t) for t in entry.target)} in a bag"
        return per_bag(entry, table, named, made, first.bags, first.names, text, says, first.notes)

    return Draft(list(entry.target), build)


def read_majority(
    entry: settings.MajorityColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> Draft:
    column = _read(entry, entry.column, table, rows, notes)

    def build(classes: Classes) -> Evidence:
        winner = torch.from_numpy(classes.encode(column.text, column.title, table.name))
        made = kinds.Majority(column.bags, winner, len(classes), **_common(entry, column.bags, classes))
        return _evidence(entry, table, column, made, column.text, "the most frequent class of a bag")

    return Draft([c for c in np.unique(column.text.astype(str)).tolist() if c], build)


def read_set_label(
    entry: settings.SetLabelColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> Draft:
    column = _read(entry, entry.column, table, rows, notes)
    numbers = _whole(column, table, "a number of different classes") if entry.rule == "distinct" else None

    def build(classes: Classes) -> Evidence:
        taxonomy = classes.taxonomy if entry.rule == "majority" and (entry.taxonomy or entry.level) else None
        how = _common(entry, column.bags, classes)
        level: str | None = None
        if taxonomy is not None:
            level = entry.level or taxonomy.level_names[min(1, len(taxonomy.level_names) - 1)]
            if level not in taxonomy.level_names:
                hint = did_you_mean(level, taxonomy.level_names)
                raise InputError(
                    f"{classes.origin} has no level {quoted(level)}.{hint} Levels: {', '.join(taxonomy.level_names)}"
                )
        if numbers is not None:
            label = torch.from_numpy(numbers)
        else:
            nodes = None if taxonomy is None else taxonomy.nodes(level)
            label = torch.from_numpy(classes.encode(column.text, column.title, table.name, nodes))
        made = kinds.SetLabel(column.bags, label, len(classes), entry.rule, taxonomy=taxonomy, level=level, **how)
        says = {
            "majority": "the most frequent kind of class in a bag",
            "distinct": "how many different classes a bag holds",
            "highest": "the highest class in a bag",
        }[entry.rule]
        return _evidence(entry, table, column, made, column.text, says)

    own = entry.rule == "distinct" or bool(entry.taxonomy or entry.level)
    return Draft([] if own else [c for c in np.unique(column.text.astype(str)).tolist() if c], build)


def read_automaton(
    entry: settings.AutomatonColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> Draft:
    column = _read(entry, entry.column, table, rows, notes)
    ways = read_table(entry.transition)
    needed = ["state", "class", "next"]
    missing = [name for name in needed if name not in ways.columns]
    if missing:
        raise InputError(
            f"{ways.name} has no column {quoted(missing[0])}. Expected a table of state, class, next and, where "
            "several are possible, probability"
        )
    cells = {name: ways.strings(name) for name in needed}
    chance = ways.numbers("probability") if "probability" in ways.columns else np.ones(len(ways))
    states = [s for s in dict.fromkeys([*cells["state"].tolist(), *cells["next"].tolist()]) if s]
    place = {state: at for at, state in enumerate(states)}

    def at(state: str, where: str) -> int:
        if state not in place:
            hint = did_you_mean(state, states)
            raise InputError(
                f"{where} is {quoted(state)}, which is no state of {ways.name}.{hint} States: {some(states, 6)}"
            )
        return place[state]

    start = at(entry.initial or states[0], f"labels {quoted(entry.name)}: initial")
    final = entry.final or {state: [state] for state in states}
    held = [
        [at(s, f"labels {quoted(entry.name)}: a final state of {quoted(name)}") for s in of]
        for name, of in final.items()
    ]
    labels = list(final)
    unknown = sorted(set(column.text.tolist()) - {"", *labels})
    if unknown:
        raise InputError(
            f"{table.name}: {quoted(column.title)} holds {some(map(quoted, unknown))}. Expected "
            f"{some(map(quoted, labels), 6)}; what else a final state is called: --set labels.{entry.name}.final"
        )
    accept = torch.tensor([labels.index(cell) if cell else -1 for cell in column.text.tolist()])

    def build(classes: Classes) -> Evidence:
        symbol = classes.encode(cells["class"], "class", ways.name)
        transition = torch.zeros(len(states), len(classes), len(states), dtype=torch.float64)
        source = torch.tensor([place[s] for s in cells["state"].tolist()])
        to = torch.tensor([place[s] for s in cells["next"].tolist()])
        transition.index_put_((source, torch.from_numpy(symbol), to), torch.from_numpy(chance), accumulate=True)
        off = ((transition.sum(dim=2) - 1).abs() > 1e-5).nonzero()
        if len(off):
            s, k = off[0].tolist()
            total = float(transition[s, k].sum())
            said = f"its probabilities sum to {total:g}" if total else "no next state"
            raise InputError(
                f"{ways.name}: state {quoted(states[s])} has for class {quoted(classes.names[k])} {said}. Expected "
                "next states of every state and class, whose probabilities sum to 1"
            )
        how = _common(entry, column.bags, classes)
        made = kinds.Automaton(column.bags, accept, transition, start, len(classes), final=held, **how)
        return _evidence(entry, table, column, made, column.text, "what an automaton makes of a bag, row by row")

    return Draft([c for c in np.unique(cells["class"].astype(str)).tolist() if c], build)


def _check_reach(column: _Column, value: torch.Tensor, per_class: torch.Tensor, how: str, table: Table) -> None:
    """Raise InputError for the sum or mean of a bag that is lower or higher than its rows can come to."""
    sizes = column.bags.sizes.double() if how == "sum" else torch.ones(len(value), dtype=torch.float64)
    low, high = sizes * per_class.min(), sizes * per_class.max()
    room = 1e-9 * (high - low).clamp(min=1)
    outside = (value < low - room) | (value > high + room)
    if outside.any():
        at = int(outside.long().argmax())
        more = f" ({counted(int(outside.sum()) - 1, 'more bag', 'more bags')} likewise)" if outside.sum() > 1 else ""
        raise InputError(
            f"{table.name}, bag {quoted(str(column.names[at]))}: the {how} {value[at]:g} lies outside of what its "
            f"{counted(int(column.bags.sizes[at]), 'row')} can come to, {low[at]:g} to {high[at]:g}{more}. "
            "Give noise = ... for a value that was measured"
        )


def read_aggregate(
    entry: settings.AggregateColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> Draft:
    column = _read(entry, entry.column, table, rows, notes)
    value = torch.from_numpy(_numbers(column, table))

    def build(classes: Classes) -> Evidence:
        index = classes.encode(np.array(list(entry.values), dtype=object), "values", table.name)
        lacking = [name for at, name in enumerate(classes.names) if at not in set(index.tolist())]
        if lacking:
            raise InputError(
                f"labels {quoted(entry.name)} (Aggregate): {some(map(quoted, lacking))} "
                f"{'has' if len(lacking) == 1 else 'have'} no value. Expected values = {{ class = number, ... }} with "
                "every class"
            )
        per_class = torch.empty(len(classes), dtype=torch.float64)
        per_class[torch.from_numpy(index)] = torch.tensor(list(entry.values.values()), dtype=torch.float64)
        if not entry.noise:
            _check_reach(column, value, per_class, entry.how, table)
        how = _common(entry, column.bags, classes)
        made = kinds.Aggregate(column.bags, value, per_class, entry.how, entry.noise, **how)
        return _evidence(entry, table, column, made, column.text, f"the {entry.how} of the values of a bag")

    return Draft(list(entry.values), build)
