"""The error of bad input, and the phrases that its messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """Input that cannot be what the user meant; one line: what is wrong, where, what was expected, what to type."""


def quoted(value: object) -> str:
    return f'"{value}"'


def number(value: int) -> str:
    """1200 as "1 200"."""
    return f"{value:,}".replace(",", " ")


def counted(value: int, noun: str, nouns: str = "") -> str:
    """Number and noun: "1 row", "1 200 rows"."""
    return f"{number(value)} {noun if value == 1 else nouns or noun + 's'}"


def some(values: Iterable[object], shown: int = 3) -> str:
    """The first values, and how many more there are."""
    values = list(values)
    more = f", ... ({number(len(values) - shown)} more)" if len(values) > shown else ""
    return ", ".join(str(v) for v in values[:shown]) + more


def closest(value: str, known: Iterable[str]) -> str | None:
    """The known name that a misspelled one most likely stands for."""
    known = list(known)
    folded = {name.casefold(): name for name in reversed(known)}
    found = difflib.get_close_matches(value.casefold(), folded, n=1)
    return folded[found[0]] if found else None


def did_you_mean(value: str, known: Sequence[str]) -> str:
    """' Did you mean "text"?', or nothing."""
    found = closest(value, known)
    return f" Did you mean {quoted(found)}?" if found else ""
