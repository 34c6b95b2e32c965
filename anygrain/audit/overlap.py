"""Classes that cannot be told apart, beyond what wrong labels explain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Overlap:
    """Pairs of classes, the most overlapping first, (P,) each.

    Attributes:
        first, second: classes.
        overlap: chance that a row of one of the two is taken for the other one, see `class_overlap`.
        confused: expected number of such rows.
        noise: estimated rate at which labels of one are given to rows of the other, the mean of both ways.
    """

    first: np.ndarray
    second: np.ndarray
    overlap: np.ndarray
    confused: np.ndarray
    noise: np.ndarray


def class_overlap(log_probs: Tensor, transition: np.ndarray | None = None, most: int = 100) -> Overlap:
    r"""How much pairs of classes overlap in the log-probabilities (N, K) of the true class.

    .. math:: O_{kl} = \frac{2 \sum_i q_{ik} q_{il}}{\sum_i q_{ik} + q_{il}}

    the chance that a row of k or l, drawn from its probabilities twice, comes out as one and then as the other: 0 where
    the model always tells, 1/2 where the two are one. With probabilities of the true class (`Noise.sharpness`) wrong
    labels are not in it.

    Args:
        transition: T, (K, K), for `noise`.
        most: pairs to return.
    """
    q = log_probs.double().exp()
    together, size = q.T @ q, q.sum(dim=0)
    k = q.shape[1]
    row, column = torch.triu_indices(k, k, offset=1)
    confused = 2 * together[row, column]
    overlap = confused / (size[row] + size[column]).clamp(min=1e-300)
    best = torch.argsort(overlap, descending=True, stable=True)[:most]
    first, second = row[best].numpy(), column[best].numpy()
    noise = np.full(len(first), np.nan)
    if transition is not None:
        noise = (transition[first, second] + transition[second, first]) / 2
    return Overlap(first, second, overlap[best].numpy(), confused[best].numpy(), noise)
