"""Proper scores: lowest, on average, for the true probabilities; 0 is perfect."""

from typing import Any

import numpy as np

from anygrain.metrics.rows import Floats, as_array, known


def log_losses(probs: Any, truth: Any) -> Floats:
    r"""Logarithmic loss of every row, :math:`-\log p_i(y_i)`, in nats, shape (M,).

    Probabilities are clipped at the precision of their type (2.2e-16 for float64, 1.2e-7 for float32), as scikit-learn
    does, so that a confident error costs 36 (16) and not infinity.

    Args:
        probs: shape (N, K).
        truth: class indices, shape (N,); rows of -1 are left out.
    """
    checked, classes = known(probs, truth)
    kind = as_array(probs).dtype
    least = np.finfo(kind if np.issubdtype(kind, np.floating) else np.float64).eps
    return -np.log(np.clip(checked[np.arange(len(classes)), classes], least, 1.0))


def log_loss(probs: Any, truth: Any) -> float:
    """Mean of `log_losses`."""
    return float(log_losses(probs, truth).mean())


def brier_scores(probs: Any, truth: Any) -> Floats:
    r"""Quadratic score of every row, :math:`\sum_k (p_{ik} - [k = y_i])^2`, from 0 to 2, shape (M,).

    Args:
        probs: shape (N, K).
        truth: class indices, shape (N,); rows of -1 are left out.

    Source: Brier, Verification of forecasts expressed in terms of probability, 1950.
    """
    checked, classes = known(probs, truth)
    chosen = checked[np.arange(len(classes)), classes]
    scores: Floats = np.square(checked).sum(1) - 2 * chosen + 1
    return scores


def brier_score(probs: Any, truth: Any) -> float:
    """Mean of `brier_scores`."""
    return float(brier_scores(probs, truth).mean())
