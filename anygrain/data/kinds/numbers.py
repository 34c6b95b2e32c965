"""Kinds that speak of a number: Value, Censored, Ratings, AggregateValue."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from anygrain import labels as kinds
from anygrain.data import config as settings
from anygrain.data.classes import Spelling
from anygrain.data.error import InputError, counted, number, quoted
from anygrain.data.evidence import NumberEvidence, Rows, one_per_row, per_row, row_names, weights
from anygrain.data.kinds.bags import bags_of, constant_in_bags, per_bag
from anygrain.data.kinds.votes import without_repeats
from anygrain.data.table import Table, comma_hint, distinct, parse_numbers


def read_value(
    entry: settings.ValueColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> NumberEvidence:
    column = table.require(entry.column)
    text = _spelt(_numbers(table, column, entry, rows))
    values, _ = parse_numbers(one_per_row(text, places, table, rows, entry, column))
    made = kinds.Value(torch.from_numpy(values), entry.noise, weight=weights(entry, len(rows)), name=column)
    says = "the number" if not entry.noise else f"the number, read with a standard deviation of {entry.noise:g}"
    return per_row(entry, table, [column], made, shown(values), says, notes)


def read_censored(
    entry: settings.CensoredColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> NumberEvidence:
    if not entry.low and not entry.high:
        raise InputError(
            f"labels {quoted(entry.name)} (Censored) have no column. Expected low and high, or one of them, naming "
            "columns"
        )
    ends = []
    for column, open_end in ((entry.low, -np.inf), (entry.high, np.inf)):
        full = np.full(len(rows), np.nan)
        if column:
            kept = places >= 0
            full[places[kept]] = _numbers(table, table.require(column), entry, rows, open_end=open_end)[kept]
        ends.append(np.where(full == open_end, np.nan, full))
    low, high = ends
    wrong = low > high
    if wrong.any():
        at = int(wrong.argmax())
        raise InputError(
            f"{table.name}: {counted(int(wrong.sum()), 'row')} with {quoted(entry.low)} above {quoted(entry.high)} "
            f"(first: row {rows.ids[at]}, {low[at]:g} to {high[at]:g}). Expected the low end first; exchange low and "
            "high, or fix the rows"
        )
    said = ~(np.isnan(low) & np.isnan(high))
    text = np.array(
        [f"{a}..{b}" if s else "" for a, b, s in zip(shown(low), shown(high), said, strict=True)], dtype=object
    )
    columns = [column for column in (entry.low, entry.high) if column]
    made = kinds.Censored(
        torch.from_numpy(low), torch.from_numpy(high), weight=weights(entry, len(rows)), name=entry.name
    )
    return per_row(entry, table, columns, made, text, "a range of the number", notes, source=entry.name)


def read_ratings(
    entry: settings.RatingsColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> NumberEvidence:
    if entry.columns:
        columns = table.matching(entry.columns)
        grid = np.stack([_numbers(table, c, entry, rows) for c in columns], axis=1)
        at, who = np.nonzero(~np.isnan(grid) & (places >= 0)[:, None])
        items, values, names = places[at], grid[at, who], np.array(columns, dtype=object)
    else:
        for setting in ("annotator", "rating"):
            if not getattr(entry, setting):
                raise InputError(
                    f'labels {quoted(entry.name)} (Ratings) have no {setting}. Expected columns = ["rater_1", ...], or '
                    'source = "ratings.csv" with item, annotator and rating naming its columns'
                )
        columns = [entry.item or entry.id or rows.id_column, entry.annotator, entry.rating]
        given = _numbers(table, table.require(entry.rating), entry, rows)
        people = table.strings(entry.annotator)
        kept = ~np.isnan(given) & (places >= 0) & (people != "")
        names = np.array(distinct(people[kept]), dtype=object)
        code = {name: at for at, name in enumerate(names.tolist())}
        items, values = places[kept], given[kept]
        who = np.array([code[p] for p in people[kept].tolist()], dtype=np.int64)
        if len(values) < len(given):
            notes = [
                *notes,
                f"{table.name}: {number(len(given) - len(values))} of {counted(len(given), 'rating')} are empty or of "
                "nobody, and left out.",
            ]
        items, who, values = without_repeats(items, who, values, names, entry, table, rows)
    made = kinds.Ratings(
        torch.from_numpy(items),
        torch.from_numpy(who),
        torch.from_numpy(values),
        len(rows),
        n_annotators=len(names),
        slope=entry.slope,
        weight=weights(entry, len(rows)),
        name=entry.name,
        annotator_names=[str(name) for name in names],
    )
    filled = np.zeros(len(rows), dtype=bool)
    filled[items] = True
    text = shown(values)
    return NumberEvidence(
        name=entry.name,
        kind=entry.kind,
        source=table.name,
        columns=list(columns),
        says=f"numbers given by {counted(len(names), 'annotator')}",
        labels=made,
        n_labels=len(values),
        rows=filled,
        values=len(distinct(text)),
        record_row=items,
        record_source=names[who] if len(names) else np.zeros(0, dtype=object),
        record_value=text,
        simulated=entry.simulated,
        notes=notes,
    )


def read_aggregate_value(
    entry: settings.AggregateValueColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> NumberEvidence:
    column = table.require(entry.column)
    bags, names, source, more = bags_of(entry, table, rows)
    cells = _numbers(table, column, entry, rows)
    if table is rows.table:
        constant_in_bags(_spelt(cells), bags, names, column, table.name)
    values = cells[source]
    made = kinds.AggregateValue(
        bags, torch.from_numpy(values), entry.how, entry.noise, weight=weights(entry, len(bags)), name=column
    )
    says = f"the {entry.how} of the numbers of a bag"
    return per_bag(entry, table, [column], made, bags, names, shown(values), says, [*notes, *more])


READERS: dict[str, Any] = {
    "Value": read_value,
    "Censored": read_censored,
    "Ratings": read_ratings,
    "AggregateValue": read_aggregate_value,
}


def shown(values: np.ndarray) -> np.ndarray:
    """Numbers (n,) as short text, "" where NaN."""
    return np.array(["" if v != v else f"{v:.6g}" for v in values.tolist()], dtype=object)


def _spelt(values: np.ndarray) -> np.ndarray:
    """Numbers (n,) as text that keeps every digit, "" where NaN: the same number is spelt in one way."""
    return np.array(["" if v != v else repr(v + 0.0) for v in values.tolist()], dtype=object)


def _numbers(
    table: Table, column: str, entry: settings.NumberColumns, rows: Rows, open_end: float | None = None
) -> np.ndarray:
    return number_cells(table, column, rows.spelling, row_names(table, entry, rows), open_end)


def number_cells(
    table: Table, column: str, spelling: Spelling, names: np.ndarray | None = None, open_end: float | None = None
) -> np.ndarray:
    """Cells of a column as float64 (n,), NaN where empty or missing.

    Args:
        names: what to call the rows in messages; their number from 1 on when not given.
        open_end: an infinity that means something.

    Raises:
        InputError: cells that are no numbers, or infinite.
    """
    text = spelling.read(table.strings(column))
    values, bad = parse_numbers(text)
    if bad.any():
        at = int(bad.argmax())
        odd = text[bad].tolist()
        missing = f"; does it mean nothing? --set missing={quoted(odd[0])}" if len(set(odd)) == 1 else ""
        raise InputError(
            f"{table.name}: {counted(int(bad.sum()), 'value')} of {quoted(column)} "
            f"{'is not a number' if bad.sum() == 1 else 'are not numbers'} (first: {quoted(text[at])} in row "
            f"{at + 1 if names is None else names[at]}){comma_hint(text[bad]) or missing}"
        )
    infinite = np.isinf(values) & (values != open_end)
    if infinite.any():
        at = int(infinite.argmax())
        raise InputError(
            f"{table.name}: {counted(int(infinite.sum()), 'value')} of {quoted(column)} "
            f"{'is' if infinite.sum() == 1 else 'are'} infinite (first: {quoted(text[at])} in row "
            f"{at + 1 if names is None else names[at]}). Expected a number, or an empty cell"
        )
    return values
