"""Which columns hold the number that is to be learnt: those that were named, or one that is called a target."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from anygrain.data.config import OF_NUMBERS
from anygrain.data.error import InputError, counted, quoted

FEW = 10  # different whole numbers up to which they are taken for classes
MANY = 200  # different whole numbers above which they are no codes of classes
_TARGET = re.compile(r"(^|_)(target|label|y|gold|truth|response|outcome)$", re.IGNORECASE)
_LOW = re.compile(r"(^|_)(low|lower|min|minimum|from|at_least|lo)(_|$)", re.IGNORECASE)


class NumberColumn(Protocol):
    """What is known of a column."""

    name: str
    values: np.ndarray
    distinct: list[str]
    filled: int
    is_number: bool


def has_fractions(column: NumberColumn) -> bool:
    """Whether some number of a column is not whole."""
    return column.is_number and any(not float(v).is_integer() for v in column.distinct)


def target_kind(column: NumberColumn) -> tuple[str, str]:
    """Kind of label of a column that is to be learnt, and why."""
    many = counted(len(column.distinct), "different number")
    if column.is_number and (has_fractions(column) or len(column.distinct) > FEW):
        return "Value", f"as you said, {many}"
    if column.is_number:
        return "Exact", f"as you said, {many}: read as classes (as numbers: --column {column.name}=Value)"
    return "Exact", f"as you said, {counted(len(column.distinct), 'value')}"


def target_by_name(columns: Iterable[NumberColumn]) -> NumberColumn | None:
    """A number column named like a target whose values are no codes of classes: fractions, or hardly any repeat."""
    for column in columns:
        n = len(column.distinct)
        varied = n > FEW and (n * 2 > column.filled or n > max(MANY, column.filled // 20))
        is_target = column.is_number and _TARGET.search(column.name) and n > 2
        if is_target and (has_fractions(column) or varied):
            return column
    return None


def said_numbers(said: Mapping[str, str], columns: Mapping[str, Any]) -> list[tuple[dict[str, Any], list[str]]]:
    """Labels of the columns that were said to speak of a number, and the columns of each.

    Raises:
        InputError: more than two ends of a range, or a mean of bags, which needs more than a column.
    """
    named = {kind: [n for n in columns if said.get(n) == kind] for kind in OF_NUMBERS}
    out: list[tuple[dict[str, Any], list[str]]] = [({"kind": "Value", "column": n}, [n]) for n in named["Value"]]
    if named["Ratings"]:
        out.append(({"kind": "Ratings", "columns": named["Ratings"]}, named["Ratings"]))
    ends = named["Censored"]
    if len(ends) > 2:
        raise InputError(
            f"--column {ends[2]}=Censored: a range has two ends, {ends[0]} and {ends[1]} are given already"
        )
    if ends:
        if len(ends) == 1:
            label = {"kind": "Censored", "low" if _LOW.search(ends[0]) else "high": ends[0]}
        else:
            low, high = ends if not _LOW.search(ends[1]) or _LOW.search(ends[0]) else ends[::-1]
            label = {"kind": "Censored", "low": low, "high": high}
        out.append((label, ends))
    out += [({"kind": "AggregateValue", "column": n}, [n]) for n in named["AggregateValue"]]
    for kind, names in named.items():
        for n in names:
            if not columns[n].is_number:
                raise InputError(
                    f"--column {n}={kind}: {quoted(n)} does not hold numbers alone (such as {odd(columns[n])})"
                )
    return out


def odd(column: NumberColumn) -> str:
    """A value of a column that is no number."""
    for value in column.distinct:
        try:
            float(value)
        except ValueError:
            return quoted(value)
    return "nothing at all"
