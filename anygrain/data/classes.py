"""The one list of classes that all labels share, and label cells read as places in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anygrain.data.error import InputError, closest, counted, quoted
from anygrain.labels.taxonomy import Taxonomy

#: origin of a list of classes that the configuration gives in order
SETTING = "the setting classes"
#: words that often stand for "nothing here"
_NOTHING = ("n/a", "none", "-", "--", "?", ".", "unknown", "missing", "tbd", "undefined", "not available")


class Spelling:
    """How cells are read: which mean nothing, which are other names, whether case counts.

    Args:
        missing: cells that count as empty.
        aliases: other spellings, alias -> name.
        fold_case: whether upper and lower case are the same.
    """

    def __init__(self, missing: Sequence[str] = (), aliases: dict[str, str] | None = None, *, fold_case: bool = False):
        self.fold_case = fold_case
        self.missing = frozenset(self.fold(m) for m in missing)
        self.aliases = {self.fold(k): v for k, v in (aliases or {}).items()}

    def fold(self, value: str) -> str:
        return value.casefold() if self.fold_case else value

    def read(self, values: np.ndarray) -> np.ndarray:
        """Cells (n,) with missing ones as "" and aliases resolved."""
        table = {}
        for value in dict.fromkeys(values.tolist()):
            folded = self.fold(value)
            table[value] = "" if folded in self.missing else self.aliases.get(folded, value)
        return np.array([table[v] for v in values.tolist()], dtype=object)


class Classes:
    """Names in order, and where they come from.

    Args:
        names: the K names.
        origin: the file or setting that lists them, for messages; "" where they are the values that occur.
        spelling: how cells are read.
        taxonomy: the taxonomy over these classes, if any.
    """

    def __init__(self, names: Sequence[str], origin: str, spelling: Spelling, taxonomy: Taxonomy | None = None):
        self.names, self.origin, self.spelling, self.taxonomy = tuple(names), origin, spelling, taxonomy

    def __len__(self) -> int:
        return len(self.names)

    def encode(
        self,
        values: np.ndarray,
        what: str,
        table: str,
        names: Sequence[str] | None = None,
        at: np.ndarray | None = None,
    ) -> np.ndarray:
        """Cells (n,) as int64 places in the list of classes, or in `names`; -1 where empty.

        Args:
            values: the cells.
            what, table: what they are called and where they stand, for messages.
            names: the list, where it is not that of the classes.
            at: what to call the row of each cell in messages, (n,).

        Raises:
            InputError: values that are not there, with how many rows hold each and what each may stand for.
        """
        known = self.names if names is None else names
        position = {self.spelling.fold(name): at for at, name in reversed(list(enumerate(known)))}
        position[""] = -1
        distinct, inverse = np.unique(values.astype(str), return_inverse=True)
        places = np.array([position.get(self.spelling.fold(v), -2) for v in distinct.tolist()], dtype=np.int64)
        odd = (places == -2).nonzero()[0]
        if len(odd):
            counts = np.bincount(inverse, minlength=len(distinct))
            odd = sorted(odd.tolist(), key=lambda code: -int(counts[code]))
            first = {code: "" if at is None else f", first row {at[(inverse == code).argmax()]}" for code in odd[:3]}
            shown = [
                self._doubt(str(distinct[code]), f"{counted(int(counts[code]), 'row')}{first[code]}", known)
                for code in odd[:3]
            ]
            more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
            where = self.origin or "the classes"
            verb = "is" if len(odd) == 1 else "are"
            raise InputError(
                f"{table}: {counted(len(odd), 'value')} of {quoted(what)} {verb} not in {where}: "
                f"{', '.join(shown)}{more}"
            )
        return places[inverse.reshape(values.shape)]

    def _doubt(self, value: str, rows: str, known: Sequence[str]) -> str:
        said = f"{quoted(value)} ({rows}"
        if value.casefold() in _NOTHING:
            return f"{said}, treat as missing? --set missing={quoted(value)})"
        other = next((name for name in known if name.casefold() == value.casefold()), None)
        if other:
            return f"{said}, the same as {quoted(other)}? --set fold_case=true)"
        near = closest(value, known)
        return f"{said}, did you mean {quoted(near)}?)" if near else f"{said})"
