"""Calibration: whether what is said with probability p is true in p of the cases."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anygrain.metrics.rows import Floats, Indices, as_array, known


class Reliability(NamedTuple):
    """A reliability curve: mean probability, share of true rows and number of rows of every bin that holds any."""

    probability: Floats
    share: Floats
    rows: Indices


def reliability_curve(probs: Any, truth: Any, *, bins: int = 15, adaptive: bool = False) -> Reliability:
    """How often the most probable class is right, by its probability.

    Args:
        probs: shape (N, K).
        truth: class indices, shape (N,); rows of -1 are left out.
        bins: number of bins; bin b of equal width holds the probabilities in (b / bins, (b + 1) / bins].
        adaptive: bins of equal number of rows instead of equal width; equal probabilities stay together.
    """
    checked, classes = known(probs, truth)
    return _curve(checked.max(1), checked.argmax(1) == classes, bins, adaptive)


def expected_calibration_error(probs: Any, truth: Any, *, bins: int = 15, adaptive: bool = False) -> float:
    r"""Mean gap between probability and accuracy of the most probable class.

    .. math:: \sum_b \frac{n_b}{N} \left| \mathrm{share}_b - \mathrm{probability}_b \right|

    It is biased upwards on few rows: about .02 for perfect probabilities on 1000 rows and 15 bins.

    Args:
        probs: shape (N, K).
        truth: class indices, shape (N,); rows of -1 are left out.
        bins: number of bins.
        adaptive: bins of equal number of rows instead of equal width.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017; adaptive: Nguyen and O'Connor, Posterior
    calibration and exploratory analysis for natural language processing models, 2015.
    """
    return _gap(reliability_curve(probs, truth, bins=bins, adaptive=adaptive))


def classwise_calibration_error(probs: Any, truth: Any, *, bins: int = 15, adaptive: bool = False) -> float:
    """Mean over classes of the gap between the probability of the class and how often it is true.

    Args:
        probs: shape (N, K).
        truth: class indices, shape (N,); rows of -1 are left out.
        bins: number of bins.
        adaptive: bins of equal number of rows instead of equal width.

    Source: Kull et al., Beyond temperature scaling, 2019.
    """
    checked, classes = known(probs, truth)
    gaps = [_gap(_curve(column, classes == k, bins, adaptive)) for k, column in enumerate(checked.T)]
    return float(np.mean(gaps))


def event_reliability(probability: Any, happened: Any, *, bins: int = 15, adaptive: bool = False) -> Reliability:
    """How often something happens, by the probability that was stated for it.

    Args:
        probability: of each event, shape (N,).
        happened: bool, shape (N,).
        bins, adaptive: as in `reliability_curve`.
    """
    return _curve(as_array(probability).astype(np.float64), as_array(happened).astype(bool), bins, adaptive)


def event_calibration_error(probability: Any, happened: Any, *, bins: int = 15, adaptive: bool = False) -> float:
    """Mean gap between the probability of an event and how often it happens; arguments as `event_reliability`."""
    return _gap(event_reliability(probability, happened, bins=bins, adaptive=adaptive))


def _curve(probability: Floats, right: NDArray[np.bool_], bins: int, adaptive: bool) -> Reliability:
    if bins < 1:
        raise ValueError(f"bins is {bins}. Expected at least 1")
    inside = np.arange(1, bins) / bins
    edges = np.quantile(probability, inside) if adaptive else inside
    place = np.searchsorted(edges, probability, side="left")
    count = np.bincount(place, minlength=bins)
    held = count > 0
    mean = np.bincount(place, probability, minlength=bins)[held] / count[held]
    share = np.bincount(place, right, minlength=bins)[held] / count[held]
    return Reliability(mean, share, count[held])


def _gap(curve: Reliability) -> float:
    return float(np.average(np.abs(curve.share - curve.probability), weights=curve.rows))
