"""How good predicted numbers are: their errors, their densities and their intervals."""

from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from anygrain.metrics.rows import Floats, Indices, as_array

LEVELS = tuple(float(level) for level in np.arange(0.05, 1.0, 0.05).round(2))


def errors(predicted: Any, truth: Any) -> Floats:
    """predicted - truth of every row whose truth is known, shape (M,).

    Args:
        predicted: shape (N,).
        truth: shape (N,); rows of NaN are left out.
    """
    guess, true = _known(predicted, truth)
    out: Floats = guess - true
    return out


def rmse(predicted: Any, truth: Any) -> float:
    r"""Root of the mean squared error, :math:`\sqrt{\frac1M \sum_i (m_i - y_i)^2}`, in units of y."""
    return float(np.sqrt(np.square(errors(predicted, truth)).mean()))


def mean_absolute_error(predicted: Any, truth: Any) -> float:
    r"""Mean absolute error, :math:`\frac1M \sum_i |m_i - y_i|`, in units of y."""
    return float(np.abs(errors(predicted, truth)).mean())


def r_squared(predicted: Any, truth: Any) -> float:
    r"""Share of the variance that predictions explain, :math:`1 - \sum_i (m_i - y_i)^2 / \sum_i (y_i - \bar y)^2`.

    1 is perfect, 0 is the mean of the true numbers; below 0 is worse than that.
    """
    guess, true = _known(predicted, truth)
    total = np.square(true - true.mean()).sum()
    left = np.square(guess - true).sum()
    return float(1 - left / total) if total > 0 else float(left == 0)


def log_densities(mean: Any, sd: Any, truth: Any) -> Floats:
    r"""Log-density of every known true number, :math:`\log N(y_i; m_i, s_i^2)`, in nats, shape (M,).

    Args:
        mean, sd: of the predicted normal distributions, shape (N,), sd above 0.
        truth: shape (N,); rows of NaN are left out.
    """
    centre, width, true = _known(mean, sd, truth)
    _require_width(width)
    out: Floats = -0.5 * (np.square((true - centre) / width) + np.log(2 * np.pi)) - np.log(width)
    return out


def log_density(mean: Any, sd: Any, truth: Any) -> float:
    """Mean of `log_densities`; higher is better, and it grows with the unit of y."""
    return float(log_densities(mean, sd, truth).mean())


def crps_scores(mean: Any, sd: Any, truth: Any) -> Floats:
    r"""Continuous ranked probability score of every known true number under a normal distribution, shape (M,).

    .. math:: \int (F(t) - [t \ge y])^2 dt = s \Big( z (2 \Phi(z) - 1) + 2 \phi(z) - \frac{1}{\sqrt\pi} \Big),
              \quad z = \frac{y - m}{s}

    For a prediction without doubt (s to 0) it is the absolute error.

    Args:
        mean, sd: of the predicted normal distributions, shape (N,), sd above 0.
        truth: shape (N,); rows of NaN are left out.

    Source: Gneiting and Raftery, Strictly Proper Scoring Rules, Prediction, and Estimation, 2007.
    """
    from scipy.special import ndtr

    centre, width, true = _known(mean, sd, truth)
    _require_width(width)
    z = (true - centre) / width
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    out: Floats = width * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return out


def crps(mean: Any, sd: Any, truth: Any) -> float:
    """Mean of `crps_scores`, in units of y; 0 is perfect."""
    return float(crps_scores(mean, sd, truth).mean())


def interval_coverage(intervals: Any, truth: Any) -> float:
    """Share of known true numbers that lie in their interval, ends included.

    Args:
        intervals: low and high end, shape (N, 2).
        truth: shape (N,); rows of NaN are left out.
    """
    ends = _ends(intervals)
    low, high, true = _known(ends[:, 0], ends[:, 1], truth)
    return float(((low <= true) & (true <= high)).mean())


def interval_width(intervals: Any) -> float:
    """Mean width of intervals (N, 2), in units of y."""
    ends = _ends(intervals)
    return float((ends[:, 1] - ends[:, 0]).mean())


class CoverageCurve(NamedTuple):
    """How many true numbers the central intervals of several levels hold."""

    level: Floats
    coverage: Floats
    rows: Indices


def coverage_curve(mean: Any, sd: Any, truth: Any, *, levels: Any = LEVELS) -> CoverageCurve:
    """Share of known true numbers in the central interval of every level, of normal distributions.

    Args:
        mean, sd: of the predicted normal distributions, shape (N,), sd above 0.
        truth: shape (N,); rows of NaN are left out.
        levels: probabilities between 0 and 1.
    """
    centre, width, true = _known(mean, sd, truth)
    _require_width(width)
    wanted = as_array(levels).astype(np.float64)
    if not ((wanted > 0) & (wanted < 1)).all():
        raise ValueError(f"The levels run from {wanted.min()} to {wanted.max()}. Expected probabilities, 0 to 1")
    reach = np.array([NormalDist().inv_cdf(0.5 + level / 2) for level in wanted])
    z = np.sort(np.abs(true - centre) / width)
    inside = np.searchsorted(z, reach, side="right")
    return CoverageCurve(wanted, inside / len(z), np.full(len(wanted), len(z)))


def coverage_error(mean: Any, sd: Any, truth: Any, *, levels: Any = LEVELS) -> float:
    """Mean distance between the level of central intervals and how many true numbers they hold; see `coverage_curve`.

    Source: Kuleshov, Fenner and Ermon, Accurate Uncertainties for Deep Learning Using Calibrated Regression, 2018.
    """
    curve = coverage_curve(mean, sd, truth, levels=levels)
    return float(np.abs(curve.coverage - curve.level).mean())


def _known(*columns: Any) -> list[Floats]:
    """Columns (N,) as float64, at the rows where the last, the truth, is not NaN.

    Raises:
        ValueError: not vectors of one length, NaN among predictions, no known truth.
    """
    arrays = [as_array(column).astype(np.float64) for column in columns]
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1 or arrays[0].ndim != 1:
        raise ValueError(f"Predictions and truth have shapes {sorted(shapes)}. Expected one shape (N,)")
    keep = ~np.isnan(arrays[-1])
    if not keep.any():
        raise ValueError(f"None of {len(keep)} rows has a known true number. Expected at least one that is not NaN")
    kept = [array[keep] for array in arrays]
    for array in kept[:-1]:
        bad = np.flatnonzero(np.isnan(array))
        if len(bad):
            raise ValueError(f"The prediction of row {np.flatnonzero(keep)[bad[0]]} is NaN. Expected a number")
    return kept


def _require_width(sd: Floats) -> None:
    if not (sd > 0).all():
        raise ValueError(f"The least standard deviation is {sd.min()}. Expected numbers above 0")


def _ends(intervals: Any) -> Floats:
    ends: Floats = as_array(intervals).astype(np.float64)
    if ends.ndim != 2 or ends.shape[1] != 2:
        raise ValueError(f"The intervals have shape {ends.shape}. Expected (N, 2), low and high end")
    return ends
