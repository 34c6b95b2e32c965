"""Kinds that speak of sets of rows: AnyOf, Counts, Proportions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from anygrain import labels as kinds
from anygrain.data import config as settings
from anygrain.data.classes import Classes
from anygrain.data.error import InputError, counted, quoted, some
from anygrain.data.evidence import (
    Draft,
    Evidence,
    L,
    Read,
    Rows,
    as_known,
    padding_hint,
    starred,
    weights,
)
from anygrain.data.table import Table, distinct


def bags_of(
    entry: settings.BagColumns | settings.AggregateValueColumns, table: Table, rows: Rows
) -> tuple[kinds.Bags, np.ndarray, np.ndarray, list[str]]:
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
        listed, notes = as_known(table.strings(column), set(ids.tolist()), f"{table.name}, {quoted(column)}")
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
        hint = padding_hint(empty[0], np.array(distinct(ids), dtype=object))
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


def per_bag(
    entry: settings.LabelColumns,
    table: Table,
    columns: list[str],
    made: L,
    bags: kinds.Bags,
    names: np.ndarray,
    text: np.ndarray,
    says: str,
    notes: list[str],
) -> Read[L]:
    filled = np.zeros(made.n_instances, dtype=bool)
    filled[bags.members.numpy()] = (text != "")[bags.index.numpy()]
    return Read(
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


def answers(text: np.ndarray, entry: Any, column: str, table: str) -> np.ndarray:
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


def constant_in_bags(values: np.ndarray, bags: kinds.Bags, names: np.ndarray, column: str, table: str) -> None:
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


def read_any_of(entry: settings.AnyOfColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> Draft:
    column = table.require(entry.column)
    bags, names, source, more = bags_of(entry, table, rows)
    cells = rows.spelling.read(table.strings(column))
    if table is rows.table:
        constant_in_bags(cells, bags, names, column, table.name)
    text = cells[source]
    present = answers(text, entry, column, table.name)

    def build(classes: Classes) -> Evidence:
        target = classes.encode(np.array(entry.target, dtype=object), "target", table.name).tolist()
        made = kinds.AnyOf(
            bags,
            torch.from_numpy(present).to(torch.int8),
            target[0] if len(target) == 1 else target,
            len(classes),
            error=entry.error,
            weight=weights(entry, len(bags)),
            class_names=classes.names,
        )
        says = f"whether a bag holds {' or '.join(quoted(t) for t in entry.target)}"
        return per_bag(entry, table, [column], made, bags, names, text, says, [*notes, *more])

    return Draft(list(entry.target), build)


def _bag_numbers(
    entry: Any, table: Table, rows: Rows
) -> tuple[kinds.Bags, np.ndarray, list[str], list[str], np.ndarray, list[str]]:
    columns = table.matching(entry.columns)
    named = list(entry.classes) or starred(entry.columns, columns)
    if len(named) != len(columns):
        raise InputError(
            f"labels {quoted(entry.name)} have {len(columns)} columns and {len(named)} classes. Expected one class "
            "per column"
        )
    bags, names, source, notes = bags_of(entry, table, rows)
    if table is rows.table:
        for column in columns:
            constant_in_bags(table.strings(column), bags, names, column, table.name)
    values = np.stack([table.numbers(c) for c in columns], axis=1)[source]
    return bags, names, columns, named, values, notes


def in_bag(table: Table, name: str, n_more: int) -> str:
    more = f" (and {counted(n_more, 'more bag')})" if n_more else ""
    return f"{table.name}, bag {quoted(name)}{more}"


def read_counts(entry: settings.CountsColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> Draft:
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
            f"{in_bag(table, names[at], int(bad.sum()) - 1)}: the count {value:g} is not a whole number of 0 or "
            f"more.{hint}"
        )
    total = np.nansum(values, axis=1)
    above = total > sizes
    if above.any():
        at = int(above.argmax())
        raise InputError(
            f"{in_bag(table, names[at], int(above.sum()) - 1)}: counts sum to {total[at]:g}, but "
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
                f"{in_bag(table, names[at], int(short.sum()) - 1)}: counts of all {len(classes)} classes sum to "
                f"{total[at]:g}, but "
                f"{counted(int(sizes[at]), 'row')} of {rows.table.name} belong to it. Leave cells empty that are "
                "not known"
            )
        text = _numbers_text(values, named)
        made = kinds.Counts(
            bags,
            torch.from_numpy(full),
            error=entry.error,
            weight=weights(entry, len(bags)),
            class_names=classes.names,
        )
        return per_bag(
            entry, table, columns, made, bags, names, text, "how many of each class a bag holds", [*notes, *more]
        )

    return Draft(list(named), build)


def read_proportions(
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
            percent = bool((np.abs(total - 100) < 1).all())
            if percent or (_close_to_one(total) and not counts):
                what = "Are these percent?" if percent else "Rescale them?"
                fix = f"{what} --set labels.{entry.name}.normalize=true"
            else:
                fix = f'Are these counts? --set labels.{entry.name}.kind="Counts"'
            raise InputError(f"{in_bag(table, names[at], int(off.sum()) - 1)}: {said}. Expected 1 +- 0.001. {fix}")
        full = np.full((len(bags), len(classes)), np.nan)
        full[:, index] = values
        made = kinds.Proportions(
            bags,
            torch.from_numpy(full),
            noise=entry.noise or None,
            error=entry.error,
            weight=weights(entry, len(bags)),
            class_names=classes.names,
        )
        says = "which share of a bag each class has"
        return per_bag(entry, table, columns, made, bags, names, _numbers_text(values, named), says, [*notes, *more])

    return Draft(list(named), build)


def _close_to_one(total: np.ndarray) -> bool:
    """Whether sums of shares (M,) look like rounded shares, not like counts."""
    return bool((total < 1.5).all())


def _numbers_text(values: np.ndarray, named: Sequence[str]) -> np.ndarray:
    return np.array(
        [", ".join(f"{n} {v:g}" for n, v in zip(named, line, strict=True) if v == v) for line in values.tolist()],
        dtype=object,
    )
