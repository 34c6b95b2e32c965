"""How often something happens, by the probability that was stated for it, in ten bins."""

from __future__ import annotations

from typing import Any

import numpy as np

from anygrain.metrics import wilson_interval

BINS = 10


def reliability(stated: np.ndarray, happened: np.ndarray) -> list[dict[str, Any]]:
    """Bins of equal width that hold something, each with an interval.

    Args:
        stated: probabilities, shape (n,).
        happened: 1 or 0, or the chance of it where that was drawn, shape (n,).
    """
    place = np.minimum((stated * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    stated_sum, right = (np.bincount(place, values, minlength=BINS) for values in (stated, happened))
    return [
        {
            "low": at / BINS,
            "high": (at + 1) / BINS,
            "rows": int(count[at]),
            "confidence": float(stated_sum[at] / count[at]),
            "accuracy": float(right[at] / count[at]),
            "interval": list(wilson_interval(round(float(right[at])), int(count[at]))),
        }
        for at in count.nonzero()[0].tolist()
    ]


def calibration_error(stated: np.ndarray, happened: np.ndarray) -> float:
    """Mean distance between the two in the same bins."""
    found = reliability(stated, happened)
    return float(sum(b["rows"] * abs(b["confidence"] - b["accuracy"]) for b in found) / len(stated))
