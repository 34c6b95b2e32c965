"""What people hand to a Learner as data and classes, and how it is named where it does not fit."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from anygrain.labels import LabelError


def missing_classes(values: np.ndarray, minus_one: bool | None = None) -> np.ndarray:
    """bool (N,): None, NaN, "" or -1.

    Args:
        values: (N,).
        minus_one: whether -1 is a class; where -1 and 1 are the only values when not given.
    """
    missing = np.zeros(len(values), dtype=bool)
    if values.dtype.kind in "iuf":
        missing |= values != values
        if minus_one is None:
            minus_one = set(np.unique(values[~missing])) == {-1, 1}
        if not minus_one:
            missing |= values == -1
    elif values.dtype.kind != "b":
        missing |= np.array([v is None or str(v) in ("", "<NA>") or v != v for v in values.tolist()], dtype=bool)
    return missing


def read_classes(y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct values (K,) of a vector, and the code of every row (N,), -1 where missing.

    Raises:
        ValueError: not a vector of classes, or no class in it.
    """
    if y is None:
        raise ValueError("Learner.fit requires y to be passed, but the target y is None")
    values = np.asarray(column_or_1d(y, warn=True))
    if values.dtype.kind == "f" and np.isinf(values).any():
        raise ValueError("Input y contains infinity")
    gone = missing_classes(values)
    known = values[~gone]
    if values.dtype == object:
        known = np.array([str(v) for v in known]) if any(isinstance(v, str) for v in known) else np.array(list(known))
    if not len(known):
        raise ValueError("y holds no class: every value is missing")
    check_classification_targets(known)
    classes, codes = np.unique(known, return_inverse=True)
    out = np.full(len(values), -1, dtype=np.int64)
    out[~gone] = codes
    return classes, out


def n_rows_of(data: Any) -> int:
    return int(data.shape[0]) if hasattr(data, "shape") else len(data)


def check_rows(n: int, given: int, what: str) -> None:
    if n != given:
        raise LabelError(f"X has {n} rows and {what} {given}; expected the same rows in the same order")


def only_of_classes(learner: Any, names: Sequence[str], what: str) -> None:
    """Settings that are for labels of classes alone are as they come, or 0.

    Raises:
        LabelError: one was given.
    """
    comes = inspect.signature(type(learner).__init__).parameters
    for name in names:
        value = getattr(learner, name)
        if value not in (0, comes[name].default):
            raise LabelError(f"{name}={value!r} is for labels of classes; {what}: leave it out")


def listed(names: Sequence[Any]) -> str:
    """The first names, quoted where they are texts."""
    shown = ", ".join(f'"{name}"' if isinstance(name, str) else str(name) for name in names[:6])
    return shown + (f", ... ({len(names) - 6} more)" if len(names) > 6 else "")


def shown(X: Any) -> str:
    """What kind of thing X is, for messages."""
    if hasattr(X, "__len__") and not hasattr(X, "shape") and len(X) == 0:
        return "empty"
    shape = f" of shape {tuple(X.shape)}" if hasattr(X, "shape") else ""
    return f"{type(X).__name__}{shape}"


def name_bad_columns(X: Any) -> None:
    """Raises ValueError that names the columns of a data frame or array with NaN or infinite values."""
    if hasattr(X, "columns"):
        import narwhals as nw

        columns = nw.from_native(X, eager_only=True).iter_columns()
        counts = {f'"{c.name}"': int((~np.isfinite(c.cast(nw.Float64).to_numpy())).sum()) for c in columns}
    elif isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind == "f":
        counts = {f"column {at}": int(n) for at, n in enumerate((~np.isfinite(X)).sum(axis=0))}
    else:
        return
    bad = [f"{name} ({n} rows)" for name, n in counts.items() if n]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise ValueError(f"Input X contains NaN or infinity in {', '.join(bad[:3])}{more}. Fill or drop these rows")
