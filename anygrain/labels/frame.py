"""Label columns of any data frame, read as class indices."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from anygrain.labels.error import LabelError

if TYPE_CHECKING:
    from anygrain.labels.taxonomy import Taxonomy

MISSING = ("", "nan", "none", "null", "<na>", "na", "n/a")


def read_column(frame: Any, name: str) -> np.ndarray:
    """The values of one column of a data frame, or of a mapping of columns, shape (N,).

    Raises:
        LabelError: no such column, with the closest name.
    """
    known = [str(c) for c in (frame.columns if hasattr(frame, "columns") else frame)]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f' Did you mean "{close[0]}"?' if close else ""
        shown = ", ".join(known[:6]) + (f", ... ({len(known) - 6} more)" if len(known) > 6 else "")
        raise LabelError(f'no column "{name}".{hint} Columns: {shown}')
    return np.asarray(frame[name])


def as_strings(values: np.ndarray) -> np.ndarray:
    """Values as stripped strings, "" where missing: None, NaN, empty; whole floats lose their ".0"."""
    values = np.asarray(values)
    if values.dtype.kind == "f":
        whole = np.isfinite(values) & (values == np.floor(values))
        text = values.astype(str).astype(object)
        text[whole] = values[whole].astype(np.int64).astype(str)
    else:
        text = np.array([_as_string(v) for v in values.tolist()], dtype=object)
    text = np.char.strip(text.astype(str)) if len(text) else text.astype(str)
    return np.where(np.isin(np.char.lower(text), MISSING), "", text) if len(text) else text


def _as_string(value: Any) -> str:
    if isinstance(value, float) and value == value and value.is_integer():
        return str(int(value))
    return str(value)


def read_numbers(frame: Any, columns: Sequence[str]) -> np.ndarray:
    """Columns of numbers as float64 (rows, columns), NaN where missing.

    Raises:
        LabelError: no such column, or an entry that is no number, with its column and row.
    """
    out = []
    for name in columns:
        values = as_strings(read_column(frame, name)).tolist()
        numbers = np.full(len(values), np.nan)
        for row, value in enumerate(values):
            try:
                numbers[row] = float(value) if value else np.nan
            except ValueError:
                raise LabelError(f'"{name}" holds "{value}" (row {row}); expected a number or nothing') from None
        out.append(numbers)
    return np.stack(out, axis=1)


def read_whole_numbers(frame: Any, column: str) -> Tensor:
    """A column of whole numbers, shape (rows,), -1 where missing.

    Raises:
        LabelError: no such column, or an entry that is no whole number of 0 or more, with its column and row.
    """
    values = read_numbers(frame, [column])[:, 0]
    odd = ~np.isnan(values) & ((values != np.floor(values)) | (values < 0))
    if odd.any():
        row = int(odd.argmax())
        raise LabelError(
            f'"{column}" holds {values[row]:g} (row {row}); expected a whole number of 0 or more, or nothing'
        )
    return torch.from_numpy(np.where(np.isnan(values), -1, values).astype(np.int64))


def class_list(
    values: Iterable[np.ndarray], *, taxonomy: Taxonomy | None = None, classes: Sequence[str] | None = None
) -> tuple[str, ...]:
    """The class names: given, those of the taxonomy, or the values that occur, sorted (as numbers if all are)."""
    if classes is not None:
        return tuple(str(c) for c in classes)
    if taxonomy is not None:
        return tuple(taxonomy.classes)
    found = np.unique(np.concatenate([np.unique(v) for v in values]))
    names = [str(v) for v in found if v != ""]
    return tuple(sorted(names, key=_natural))


def require_order(names: Sequence[str], *, said: bool) -> None:
    """Names of classes that stand from low to high: said to, or numbers.

    Raises:
        LabelError: names whose order was found, not said.
    """
    if not said and (not names or any(_natural(name)[0] for name in names)):
        raise LabelError("ordinal kinds need ordered classes: pass classes=[...] from low to high")


def _natural(name: str) -> tuple[int, float, str]:
    try:
        return (0, float(name), name)
    except ValueError:
        return (1, 0.0, name)


def encode(values: np.ndarray, names: Sequence[str], what: str) -> Tensor:
    """Strings as indices into `names`, -1 where missing ("").

    Raises:
        LabelError: values that are not among the names, with how many rows hold each and the closest name.
    """
    distinct, inverse = np.unique(values, return_inverse=True)
    position = {name: at for at, name in enumerate(names)}
    position.setdefault("", -1)
    odd = [v for v in distinct.tolist() if v not in position]
    if odd:
        counts = np.bincount(inverse, minlength=len(distinct))
        shown = []
        for value in odd[:3]:
            rows = int(counts[np.searchsorted(distinct, value)])
            close = difflib.get_close_matches(value, names, n=1)
            hint = f', did you mean "{close[0]}"?' if close else ""
            shown.append(f'"{value}" ({rows} rows{hint})')
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        raise LabelError(f"{len(odd)} values of {what} are not among the classes: {', '.join(shown)}{more}")
    table = np.array([position[v] for v in distinct.tolist()], dtype=np.int64)
    return torch.from_numpy(table[inverse.reshape(values.shape)])


class ClassColumn:
    """Kinds that read one column of class names."""

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: str,
        *,
        taxonomy: Taxonomy | None = None,
        classes: Sequence[str] | None = None,
        **how: Any,
    ) -> Self:
        """Labels from a column of names; empty, None and NaN are missing.

        Args:
            frame: any data frame, or a mapping of columns.
            columns: name of the column.
            taxonomy, classes: the class list; without either, the values that occur.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, or a value outside the class list.
        """
        values = as_strings(read_column(frame, columns))
        names = class_list([values], taxonomy=taxonomy, classes=classes)
        labels = encode(values, names, f'"{columns}"')
        return cls(labels, len(names), class_names=names, **how)  # type: ignore[call-arg]
