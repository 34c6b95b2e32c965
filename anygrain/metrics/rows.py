"""Probabilities and true classes as arrays, checked, with the rows of known truth."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def as_array(values: Any) -> NDArray[Any]:
    """A tensor (on any device, with or without gradient), an array or a list as an array."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        return np.asarray(values.float() if values.dtype == torch.bfloat16 else values)
    return np.asarray(values)


def as_classes(values: Any, n_classes: int | None = None, *, what: str = "truth") -> Indices:
    """Class indices (N,); -1 is missing.

    Raises:
        ValueError: not a vector of integers, or an index outside -1 .. n_classes - 1.
    """
    array = as_array(values)
    if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or np.array_equal(array, np.round(array))):
        raise ValueError(f"{what} has shape {array.shape} and type {array.dtype}. Expected class indices, shape (N,)")
    out = array.astype(np.int64)
    bad = np.flatnonzero((out < -1) | ((out >= n_classes) if n_classes is not None else False))
    if len(bad):
        top = "K" if n_classes is None else n_classes
        raise ValueError(f"{what} of row {bad[0]} is {out[bad[0]]}. Expected 0 .. {top} - 1, or -1 where it is missing")
    return out


def as_probs(values: Any) -> Floats:
    """Class probabilities (N, K).

    Raises:
        ValueError: not a matrix, or a row that is negative, NaN or does not sum to 1 within .01, naming the first.
    """
    probs = as_array(values).astype(np.float64)
    if probs.ndim != 2:
        raise ValueError(f"The probabilities have shape {probs.shape}. Expected (N, K), a column per class")
    bad = np.flatnonzero(~((probs >= 0).all(1) & (np.abs(probs.sum(1) - 1) < 1e-2)))
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {len(probs)} rows are no probabilities (first: row {bad[0]} sums to "
            f"{probs[bad[0]].sum():.4g}, least {probs[bad[0]].min():.4g}). Expected numbers of at least 0 that sum to 1"
        )
    return probs


def known(probs: Any, truth: Any) -> tuple[Floats, Indices]:
    """Probabilities (M, K) and true classes (M,) of the rows whose truth is not missing.

    Raises:
        ValueError: as `as_probs` and `as_classes`; unequal numbers of rows; no row with a known truth.
    """
    checked = as_probs(probs)
    classes = as_classes(truth, checked.shape[1])
    keep = _kept(checked, classes)
    return checked[keep], classes[keep]


def known_choice(predicted: Any, truth: Any) -> tuple[Indices, Indices]:
    """Predicted and true classes (M,) of the rows of known truth; probabilities give their most probable class."""
    if as_array(predicted).ndim == 2:
        probs, classes = known(predicted, truth)
        return probs.argmax(1), classes
    chosen, classes = as_classes(predicted, what="The prediction"), as_classes(truth)
    keep = _kept(chosen, classes)
    return chosen[keep], classes[keep]


def _kept(predicted: NDArray[Any], classes: Indices) -> NDArray[np.bool_]:
    if len(predicted) != len(classes):
        raise ValueError(
            f"There are {len(predicted)} predictions and {len(classes)} true classes. Expected equal numbers"
        )
    keep = classes >= 0
    if not keep.any():
        raise ValueError(f"None of {len(classes)} rows has a known true class. Expected at least one that is not -1")
    return keep
