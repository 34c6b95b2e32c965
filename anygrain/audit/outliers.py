"""Rows that lie far from all others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEIGHBOURS = 10


@dataclass(frozen=True)
class Outliers:
    """How far every row lies from the others, (N,) each.

    Attributes:
        distance: mean distance to its nearest neighbours.
        quantile: share of rows that lie nearer to theirs, 0 to 1.
        probability: that the row does not belong, see `outlier_probability`.
    """

    distance: np.ndarray
    quantile: np.ndarray
    probability: np.ndarray


def find_outliers(features: np.ndarray, neighbours: int = NEIGHBOURS) -> Outliers:
    """Judge rows by the mean distance to their nearest neighbours.

    Args:
        features: (N, D).
        neighbours: number of them.

    Source: Ramaswamy, Rastogi and Shim, Efficient algorithms for mining outliers from large data sets, 2000.
    """
    from sklearn.neighbors import NearestNeighbors

    features = np.asarray(features, dtype=np.float32)
    n = len(features)
    if n < 3:
        return Outliers(np.zeros(n), np.zeros(n), np.zeros(n))
    k = min(neighbours, n - 1)
    distance = NearestNeighbors(n_neighbors=k).fit(features).kneighbors(return_distance=True)[0].mean(axis=1)
    order = np.sort(distance)
    quantile = np.searchsorted(order, distance, side="left") / n
    return Outliers(distance, quantile, outlier_probability(distance))


def outlier_probability(distance: np.ndarray) -> np.ndarray:
    r"""P(a row does not belong), (N,): one less the false discovery rate at its distance.

    .. math:: 1 - \frac{N \, (1 - \Phi(z_i))}{\#\{j : d_j \ge d_i\}}, \qquad
              z = \frac{\log d - m}{Q_{.84}(\log d) - m}, \qquad m = Q_{.5}(\log d)

    The middle of the log distances is taken to be normal, its upper side as wide as it is seen to be one standard
    deviation up. It never falls with the distance.

    Source: Efron, Large-scale simultaneous hypothesis testing, 2004.
    """
    from scipy.stats import norm

    logs = np.log(np.maximum(distance, 1e-12))
    middle, above = np.quantile(logs, [0.5, norm.cdf(1.0)])
    spread = above - middle
    if not spread > 0:
        return np.zeros(len(distance))
    order = np.argsort(distance, kind="stable")
    at_least = len(distance) - np.arange(len(distance))
    expected = len(distance) * norm.sf((logs[order] - middle) / spread)
    found = np.empty(len(distance))
    found[order] = np.maximum.accumulate(np.clip(1 - expected / at_least, 0.0, 1.0))
    return found
