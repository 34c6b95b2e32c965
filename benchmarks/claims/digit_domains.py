"""Digits in two domains, each with classes of its own, and how well known and unknown ones are told apart."""

import numpy as np
from scipy.ndimage import uniform_filter
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression


def domains(seed: int, source: tuple[int, ...], target: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (N, 64), digits (N,), and which rows are of the source: as they are; those of the target are blurred."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    x, y = x[order] / 16, y[order]
    first = np.arange(len(y)) % 2 == 0
    kept = np.where(first, np.isin(y, source), np.isin(y, target))
    x, y, first = x[kept], y[kept], first[kept]
    blurred = uniform_filter(x.reshape(-1, 8, 8), size=(1, 3, 3)).reshape(len(x), -1)
    return np.where(first[:, None], x, blurred).astype(np.float32), y, first


def h_score(found: np.ndarray, y: np.ndarray, shared: tuple[int, ...]) -> float:
    """Harmonic mean of the mean accuracy over shared classes and of that of unknown rows, which are found as -1."""
    known = np.mean([(found[y == c] == c).mean() for c in shared])
    unknown = (found[~np.isin(y, shared)] == -1).mean()
    return float(2 * known * unknown / max(known + unknown, 1e-12))


def by_threshold(x: np.ndarray, y: np.ndarray, source: np.ndarray, kept: float = 0.95) -> np.ndarray:
    """Classes of target rows by a classifier of the source, -1 below the probability that keeps so many source rows."""
    train = np.flatnonzero(source)
    fitted, held = train[::2], train[1::2]
    classifier = LogisticRegression(max_iter=1000).fit(x[fitted], y[fitted])
    threshold = np.quantile(classifier.predict_proba(x[held]).max(axis=1), 1 - kept)
    proba = classifier.predict_proba(x[~source])
    return np.where(proba.max(axis=1) < threshold, -1, classifier.classes_[proba.argmax(axis=1)])
