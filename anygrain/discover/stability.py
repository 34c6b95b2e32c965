"""How surely a class would be found again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from anygrain.discover.evidence import belief
from anygrain.discover.found import Found
from anygrain.discover.task import Task
from anygrain.encoders.trainable import in_batches

MOST = 5000  # rows of a refit
AT_ONCE = 8192


def stability(find: Callable[[Task], Found], task: Task, labels: np.ndarray, rounds: int) -> np.ndarray:
    r"""Mean Jaccard index (K,) of every class with the most similar class of refits on random halves of the rows.

    .. math:: \frac1R \sum_r \max_l \frac{|A_k \cap B_{rl}|}{|A_k \cup B_{rl}|}

    over the rows of the half r; NaN for a class of which no half holds a row, and for `rounds` 0.

    Args:
        find: the method.
        task: with a known number of classes.
        labels: (N,) the class of every row that the method found.

    Source: Hennig, Cluster-wise assessment of cluster stability, 2007.
    """
    k = len(task.node)
    if rounds == 0 or task.n_rows < 2 * k:
        return np.full(k, np.nan)
    generator, classes = torch.Generator().manual_seed(task.seed), torch.from_numpy(labels)
    found = []
    for _ in range(rounds):
        rows = half_of(classes, min(0.5, MOST / task.n_rows), generator)
        half = task.of_rows(rows)
        again = find(half)
        said = again.log_probs
        if said is None:
            said = in_batches(again.model, half.rows, AT_ONCE, again.model)
        said = belief(half.evidence.over(again.node), said.cpu())[1]
        found.append(jaccard(classes[rows], said.argmax(dim=1).cpu(), k, len(again.node)))
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
