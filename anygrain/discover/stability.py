"""How surely a class would be found again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.discover.evidence import believed
from anygrain.discover.found import Found
from anygrain.discover.task import Task
from anygrain.encoders.trainable import in_batches

MOST = 5000  # rows of a refit,
PER_CLASS = 50  # or so many times the number of classes
AT_ONCE = 8192


def stability(
    find: Callable[[Task], Found],
    task: Task,
    labels: np.ndarray,
    rounds: int,
    callback: Callable[[int, int, dict[str, Any]], None] | None = None,
) -> np.ndarray:
    r"""Mean Jaccard index (K,) of every class with the most similar class of refits on random halves of the rows.

    .. math:: \frac1R \sum_r \max_l \frac{|A_k \cap B_{rl}|}{|A_k \cup B_{rl}|}

    over the rows of the half r; NaN for a class of which no half holds a row, and for `rounds` 0. A refit takes 5,000
    rows at most, or 50 times the number of classes, so that its cost does not grow with N.

    Args:
        find: the method.
        task: with a known number of classes.
        labels: (N,) the class of every row that the method found.
        callback: told of every refit as it begins, and of the end.

    Source: Hennig, Cluster-wise assessment of cluster stability, 2007.
    """
    k = len(task.node)
    if rounds == 0 or task.n_rows < 2 * k:
        return np.full(k, np.nan)
    generator, classes = torch.Generator().manual_seed(task.seed), torch.from_numpy(labels)
    found = []
    share = min(0.5, max(MOST, PER_CLASS * k) / task.n_rows)
    for number in range(1, rounds + 1):
        if callback is not None:
            callback(number - 1, rounds, {"step": f"stability {number} of {rounds}"})
        rows = half_of(classes, share, generator)
        half = task.of_rows(rows)
        again = find(half)
        said = again.log_probs
        if said is None:
            said = in_batches(again.model, half.rows, AT_ONCE, again.model)
        said = believed(said.cpu(), half.evidence, again.node)
        found.append(jaccard(classes[rows], said.argmax(dim=1).cpu(), k, len(again.node)))
    if callback is not None:
        callback(rounds, rounds, {"step": f"stability {rounds} of {rounds}"})
    means: np.ndarray = torch.stack(found).nanmean(dim=0).numpy()
    return means


def half_of(classes: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """A share of the rows of every class, one at least, drawn at random: ids in order."""
    order = torch.randperm(len(classes), generator=generator)
    order = order[classes[order].argsort(stable=True)]
    size = torch.bincount(classes)
    place = torch.arange(len(order)) - (size.cumsum(0) - size)[classes[order]]
    return order[place < (size * share).ceil()[classes[order]]].sort().values


def jaccard(first: Tensor, second: Tensor, n_first: int, n_second: int) -> Tensor:
    """Of every class of the first labelling (R,), the Jaccard index with the most similar class of the second.

    NaN where the class has no row.
    """
    both = torch.bincount(first * n_second + second, minlength=n_first * n_second).view(n_first, n_second).double()
    one, other = both.sum(dim=1, keepdim=True), both.sum(dim=0, keepdim=True)
    best = (both / (one + other - both).clamp(min=1)).amax(dim=1)
    return torch.where(one[:, 0] > 0, best, torch.nan)
