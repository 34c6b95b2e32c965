"""Classes that were found against true ones: the names do not matter, the grouping does."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anygrain.metrics.rows import Indices, as_array, as_classes


@dataclass(frozen=True)
class HungarianAccuracy:
    """Shares of rows whose class is right under the best one-to-one matching of found and true classes.

    Attributes:
        all: of all rows.
        old: of the rows whose true class was known; NaN where there are none.
        new: of the others; NaN where there are none.
        matched: (K found,) the true class of every found one, -1 where none is left for it.
    """

    all: float
    old: float
    new: float
    matched: Indices


def hungarian_accuracy(found: Any, truth: Any, known: Any = ()) -> HungarianAccuracy:
    """Accuracy under the best matching, of all rows and of those of old and new classes.

    There is one matching, over all classes at once: matching old and new classes by themselves flatters.

    Args:
        found: class or cluster of every row, (N,), or probabilities (N, K).
        truth: true class of every row, (N,); rows of -1 are left out.
        known: indices of the true classes that were known, or their number G for the first G.

    Raises:
        ValueError: vectors of different lengths, or no row of which the truth is known.

    Source: Kuhn, The Hungarian method, 1955; Vaze et al., Generalized Category Discovery, 2022.
    """
    from scipy.optimize import linear_sum_assignment

    found, truth = _rows(found, truth)
    table = contingency(found, truth)
    row, column = linear_sum_assignment(table, maximize=True)
    matched = np.full(len(table), -1)
    matched[row] = column
    right = matched[found] == truth
    old = np.isin(truth, np.arange(known) if isinstance(known, int | np.integer) else np.asarray(known))
    return HungarianAccuracy(_mean(right), _mean(right[old]), _mean(right[~old]), matched)


def nmi(found: Any, truth: Any) -> float:
    r"""Normalised mutual information, :math:`I(a; b) / (\frac12 H(a) + \frac12 H(b))`, in 0..1.

    Args:
        found: class or cluster of every row, (N,), or probabilities (N, K).
        truth: true class of every row, (N,); rows of -1 are left out.
    """
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(*_rows(found, truth)))


def ari(found: Any, truth: Any) -> float:
    """Adjusted Rand index: the share of pairs of rows that are rightly together or apart, 0 by chance, 1 if all are.

    Args:
        found: class or cluster of every row, (N,), or probabilities (N, K).
        truth: true class of every row, (N,); rows of -1 are left out.

    Source: Hubert and Arabie, Comparing partitions, 1985.
    """
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(*_rows(found, truth)))


def class_number_error(found: int, truth: int) -> float:
    """Relative error of a number of classes: -.1 is ten per cent too few."""
    return found / truth - 1


def contingency(found: Indices, truth: Indices) -> NDArray[np.int64]:
    """How many rows are of every found and true class, (K found, K true)."""
    shape = int(found.max()) + 1, int(truth.max()) + 1
    counts = np.bincount(found * shape[1] + truth, minlength=shape[0] * shape[1])
    return counts.reshape(shape)


def _rows(found: Any, truth: Any) -> tuple[Indices, Indices]:
    found, classes = as_array(found), as_classes(truth)
    found = as_classes(found.argmax(axis=1) if found.ndim == 2 else found, what="The found class")
    if len(found) != len(classes):
        raise ValueError(f"{len(found)} found classes and {len(classes)} true ones. Expected one of each for every row")
    there = classes >= 0
    if not there.any():
        raise ValueError("No row has a known truth. Expected at least one class that is not -1")
    found = found[there]
    if (found < 0).any():
        raise ValueError(f"The found class of {int((found < 0).sum())} rows is missing. Expected a class for every row")
    return found, classes[there]


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else float("nan")
