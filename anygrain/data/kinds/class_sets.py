"""Kinds whose cells speak of several classes: Candidates, Complementary, Interval, Soft."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from anygrain import labels as kinds
from anygrain.data import config as settings
from anygrain.data.classes import SETTING, Classes
from anygrain.data.error import InputError, counted, number, quoted, some
from anygrain.data.evidence import (
    Draft,
    Evidence,
    Rows,
    per_row,
    row_names,
    starred,
    weights,
)
from anygrain.data.table import Table, distinct
from anygrain.labels.frame import require_order


def lists_of(
    values: list[Any], strings: np.ndarray, separator: str, where: str, names: np.ndarray | None = None
) -> list[list[str]]:
    """Cells such as "a|b", a JSON list or a list, as lists of strings.

    Args:
        values, strings: the cells as they are and as text, (n,) both.
        separator: between the parts of a cell.
        where: file and column, for messages.
        names: what to call the rows in messages; their number from 1 on when not given.

    Raises:
        InputError: a cell that begins as a JSON list does and is none.
    """
    out: list[list[str]] = []
    for at, (value, text) in enumerate(zip(values, strings.tolist(), strict=True)):
        if isinstance(value, list | tuple):
            out.append([str(v).strip() for v in value if v is not None])
        elif text.startswith("["):
            try:
                out.append([str(v).strip() for v in json.loads(text)])
            except (json.JSONDecodeError, TypeError) as error:
                row = at + 1 if names is None else names[at]
                raise InputError(f"{where}, row {row}: {quoted(text[:40])} is not a JSON list") from error
        else:
            out.append([part.strip() for part in text.split(separator)] if text else [])
    return out


def read_sets(entry: settings.SetColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> Draft:
    columns = table.matching(entry.columns or ([entry.column] if entry.column else []))
    if not columns:
        raise InputError(
            f'labels {quoted(entry.name)} ({entry.kind}) have no column. Expected column = "..." or columns = [...]'
        )
    if len(columns) == 1 and not entry.classes:
        strings = table.strings(columns[0])
        lists = lists_of(table.cells(columns[0]), strings, entry.separator, f"{table.name}, {quoted(columns[0])}")
        owner = np.repeat(np.arange(len(lists)), [len(cell) for cell in lists])
        values = rows.spelling.read(np.array([v for cell in lists for v in cell], dtype=object))
    else:
        named = entry.classes or starred(entry.columns, columns)
        if len(named) != len(columns):
            raise InputError(
                f"labels {quoted(entry.name)} have {len(columns)} columns and {len(named)} classes. Expected one "
                "class per column"
            )
        table_of = np.stack([table.numbers(c) for c in columns], axis=1)
        odd = ~np.isin(table_of, (0, 1)) & ~np.isnan(table_of)
        if odd.any():
            at = np.argwhere(odd)[0]
            raise InputError(
                f"{table.name}: {counted(int(odd.sum()), 'cell')} of {some(map(quoted, columns))} are neither 0 nor "
                "1 (first: "
                f"{table_of[tuple(at)]:g} in row {at[0] + 1}). Expected 1 where the class is listed"
            )
        owner, which = np.nonzero(table_of == 1)
        values = np.array(named, dtype=object)[which]
    place = places[owner] if len(owner) else owner

    def build(classes: Classes) -> Evidence:
        index = classes.encode(values, columns[0], table.name)
        kept = (index >= 0) & (place >= 0)
        sets = np.zeros((len(rows), len(classes)), dtype=bool)
        sets[place[kept], index[kept]] = True
        some_said = sets.any(axis=1)
        full = sets.all(axis=1)
        if entry.kind == "Complementary" and full.any():
            raise InputError(
                f"{table.name}: {counted(int(full.sum()), 'row')} of {quoted(columns[0])} rule out every class "
                "(first: row "
                f"{rows.ids[int(full.argmax())]})"
            )
        text = np.full(len(rows), "", dtype=object)
        for row, at in zip(place[kept].tolist(), index[kept].tolist(), strict=True):
            text[row] = f"{text[row]}|{classes.names[at]}" if text[row] else classes.names[at]
        tensor = torch.from_numpy(sets)
        weight = weights(entry, len(rows))
        made: kinds.Labels
        if entry.kind == "Candidates":
            tensor = tensor | ~torch.from_numpy(some_said)[:, None]
            made = kinds.Candidates(tensor, error=entry.error, weight=weight, class_names=classes.names)
            says = "some classes, one of them true"
        else:
            made = kinds.Complementary(tensor, error=entry.error, weight=weight, class_names=classes.names)
            says = "classes that it is not"
        return per_row(entry, table, columns, made, text, says, notes, source=entry.name)

    return Draft(distinct(values), build)


def read_soft(entry: settings.SoftColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows) -> Draft:
    columns = table.matching(entry.columns)
    named = entry.classes or starred(entry.columns, columns)
    if len(named) != len(columns):
        raise InputError(
            f"labels {quoted(entry.name)} have {len(columns)} columns and {len(named)} classes. Expected one class "
            "per column"
        )
    names = row_names(table, entry, rows)
    values = np.stack([table.numbers(c, names) for c in columns], axis=1)
    empty = np.isnan(values).all(axis=1)
    partly = np.isnan(values).any(axis=1) & ~empty
    if entry.normalize:
        values = np.where(partly[:, None], np.nan_to_num(values), values)
        partly = np.zeros_like(partly)
    total = np.nansum(values, axis=1)
    negative = (np.nan_to_num(values) < 0).any(axis=1)
    off = (np.abs(total - 1) > 1e-3) & ~empty & ~partly if entry.meaning != "evidence" else np.zeros_like(empty)
    if entry.normalize:
        zero = ~empty & (total <= 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = np.where(zero[:, None], np.nan, values / total[:, None])
        off = np.zeros_like(off)
    parts = []
    if off.any():
        at = int(off.argmax())
        parts.append(
            f"{counted(int(off.sum()), 'row').rsplit(' ', 1)[0]} of {counted(len(table), 'row')} do not sum to 1 "
            f"(first: row {names[at]} sums to {total[at]:.2f})"
        )
    if partly.any():
        parts.append(f"{number(int(partly.sum()))} contain NaN (row {names[int(partly.argmax())]})")
    if negative.any():
        parts.append(f"{number(int(negative.sum()))} hold negative numbers (row {names[int(negative.argmax())]})")
    if parts:
        fix = "Fix them" if negative.any() else f"Fix them or pass --set labels.{entry.name}.normalize=true"
        raise InputError(f"{table.name}: {' and '.join(parts)}. {fix}")

    def build(classes: Classes) -> Evidence:
        index = classes.encode(np.array(named, dtype=object), "the columns", table.name)
        if len(set(index.tolist())) < len(index):
            raise InputError(f"labels {quoted(entry.name)} name a class twice: {some(named)}")
        full = np.full((len(rows), len(classes)), np.nan)
        kept = (places >= 0) & ~np.isnan(values).all(axis=1)
        full[places[kept]] = 0.0
        full[np.ix_(places[kept], index)] = values[kept]
        text = np.full(len(rows), "", dtype=object)
        top = np.nan_to_num(full).argmax(axis=1)
        for row in places[kept].tolist():
            text[row] = f"{classes.names[top[row]]} ({full[row, top[row]]:.2f})"
        made = kinds.Soft(
            torch.from_numpy(full).float(), entry.meaning, weight=weights(entry, len(rows)), class_names=classes.names
        )
        return per_row(entry, table, columns, made, text, "a probability per class", notes, source=entry.name)

    return Draft(list(named), build)


def read_interval(
    entry: settings.IntervalColumns, table: Table, places: np.ndarray, notes: list[str], rows: Rows
) -> Draft:
    ends = []
    for column in (entry.low, entry.high):
        text = rows.spelling.read(table.strings(column))
        full = np.full(len(rows), "", dtype=object)
        kept = places >= 0
        full[places[kept]] = text[kept]
        ends.append(full)

    def build(classes: Classes) -> Evidence:
        require_order(classes.names, said=classes.origin == SETTING)
        low = classes.encode(ends[0], entry.low, table.name)
        high = classes.encode(ends[1], entry.high, table.name)
        wrong = (low > high) & (high >= 0)
        if wrong.any():
            at = int(wrong.argmax())
            raise InputError(
                f"{table.name}: {counted(int(wrong.sum()), 'row')} with a low end above the high one (first: row "
                f"{rows.ids[at]}, "
                f"{quoted(ends[0][at])} to {quoted(ends[1][at])}). Order of classes: {some(classes.names, 6)}"
            )
        said = (low >= 0) | (high >= 0)
        text = np.array([f"{a}..{b}" if s else "" for a, b, s in zip(*ends, said, strict=True)], dtype=object)
        made = kinds.Interval(
            torch.from_numpy(low),
            torch.from_numpy(high),
            len(classes),
            error=entry.error,
            weight=weights(entry, len(rows)),
            class_names=classes.names,
        )
        return per_row(
            entry, table, [entry.low, entry.high], made, text, "a range of classes", notes, source=entry.name
        )

    return Draft(distinct(np.concatenate(ends)), build)
