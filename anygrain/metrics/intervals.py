"""Intervals: how sure one can be of a measured number."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from anygrain.metrics.rows import as_array

_CELLS = 2**22  # drawn rows held at once


class Interval(NamedTuple):
    """Lower and upper end."""

    low: float
    high: float


def wilson_interval(right: int, n: int, *, confidence: float = 0.95) -> Interval:
    r"""Interval of a share, `right` of `n`; inside [0, 1] and of use from a handful of rows on.

    .. math:: \frac{\hat p + z^2 / 2n \pm z \sqrt{\hat p (1 - \hat p) / n + z^2 / 4n^2}}{1 + z^2 / n}

    Args:
        right: number of successes.
        n: number of trials, at least 1.
        confidence: chance that the interval holds the true share.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    from scipy.stats import norm

    _require_confidence(confidence)
    if n < 1 or not 0 <= right <= n:
        raise ValueError(f"{right} of {n} is no share. Expected 0 <= right <= n and n of at least 1")
    z2 = float(norm.ppf((1 + confidence) / 2)) ** 2
    share = right / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * share * (1 - share) / n + z2**2 / (4 * n**2)) / (1 + z2 / n)
    # the ends are exact at no and at all successes, where rounding would miss them
    return Interval(0.0 if right == 0 else float(centre - half), 1.0 if right == n else float(centre + half))


def bootstrap_interval(
    metric: Callable[..., float], *arrays: Any, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Percentile interval of any metric over rows drawn with replacement.

    Args:
        metric: called with the drawn rows of each array, such as ``log_loss``.
        arrays: arrays or tensors with one entry per row, such as probabilities (N, K) and true classes (N,).
        confidence: chance that the interval holds the true value.
        resamples: number of draws.
        seed: of the draws; equal seeds draw equal rows, so that two metrics can be compared draw by draw.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
    """
    rows = [as_array(array) for array in arrays]
    n = _equal_rows(rows)
    _require_confidence(confidence)
    generator = np.random.default_rng(seed)
    draws = (generator.integers(n, size=n) for _ in range(resamples))
    return _percentiles([metric(*(array[drawn] for array in rows)) for drawn in draws], confidence)


def mean_interval(values: Any, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0) -> Interval:
    """`bootstrap_interval` of the mean of one number per row, without a call per draw.

    Args:
        values: shape (N,), such as `log_losses` or their difference between two models.
        confidence: chance that the interval holds the true mean.
        resamples: number of draws.
        seed: of the draws.
    """
    array = as_array(values).astype(np.float64)
    n = _equal_rows([array])
    _require_confidence(confidence)
    generator = np.random.default_rng(seed)
    at_once = max(1, _CELLS // n)
    means = [
        array[generator.integers(n, size=(min(at_once, resamples - start), n))].mean(1)
        for start in range(0, resamples, at_once)
    ]
    return _percentiles(np.concatenate(means), confidence)


def paired_lower_bound(ours: Any, other: Any, *, confidence: float = 0.95) -> float:
    r"""One-sided lower bound of the mean of ``ours - other`` over pairs (seeds, folds, data sets), by Student's t.

    .. math:: \bar d - t_{n - 1}(\mathrm{confidence}) \, s_d / \sqrt n

    "Adding labels does not hurt" reads ``paired_lower_bound(accuracy_with, accuracy_without) > -0.01``.

    Args:
        ours: one number per pair, shape (n,), n of at least 2.
        other: the numbers to compare with, in the same order.
        confidence: chance that the true mean lies above the bound.
    """
    from scipy.stats import t

    _require_confidence(confidence)
    rows = [as_array(ours).astype(np.float64), as_array(other).astype(np.float64)]
    n = _equal_rows(rows)
    if n < 2:
        raise ValueError("A bound from one pair is impossible. Expected at least 2 pairs")
    difference = rows[0] - rows[1]
    return float(difference.mean() - t.ppf(confidence, n - 1) * difference.std(ddof=1) / np.sqrt(n))


def _percentiles(values: Any, confidence: float) -> Interval:
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def _equal_rows(rows: list[Any]) -> int:
    lengths = {len(array) for array in rows}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"The arrays have {', '.join(map(str, sorted(lengths)))} rows. Expected the same number, not 0"
        )
    return lengths.pop()


def _require_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"The confidence is {confidence}. Expected a number between 0 and 1")
