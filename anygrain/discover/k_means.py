"""K-means: where it starts, and its steps, with what is said of rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anygrain.discover.evidence import belief, in_parts
from anygrain.discover.task import Task
from anygrain.labels import Labels

STEPS = 100
TRIED_ROWS = 50_000  # on which starts are tried; the best goes on with all
MOVING = 1e-4  # share of the rows that may still move at the end
AT_ONCE = 4096  # rows whose distances are held together: they stay in the cache of a processor


def squared_distances(features: Tensor, centre: Tensor) -> Tensor:
    """Squared Euclidean distances (N, K)."""
    square = features.square().sum(dim=1, keepdim=True) + centre.square().sum(dim=1)
    return square.sub_(features @ centre.T, alpha=2).clamp_(min=0)


def starting_centres(task: Task, generator: torch.Generator) -> Tensor:
    """Centres (K, D): means of told rows for known classes, k-means++ below each coarse class for new ones.

    Rows that are told to be of a known class are no starting point of a new one, unless there are no others.
    """
    x, node, known = task.features, task.node, task.n_known
    told, where = task.evidence.sure_known(), task.evidence.sure_node()
    centre = x.new_zeros(len(node), x.shape[1])
    there = torch.zeros(len(node), dtype=torch.bool)
    rows = (told >= 0).nonzero().flatten()
    size = torch.bincount(told[rows], minlength=max(known, 1))[:known]
    centre[:known] = x.new_zeros(known, x.shape[1]).index_add(0, told[rows].to(x.device), x[rows.to(x.device)])
    centre[:known] /= size.clamp(min=1)[:, None].to(x.device)
    there[:known] = size > 0
    for c in node[~there].unique().tolist():  # coarse classes, not rows
        free = ((told < 0) & ((where == c) | (where < 0))).nonzero().flatten()
        if not len(free):
            free = ((where == c) | (where < 0)).nonzero().flatten()
        points = x[free.to(x.device)]
        own = ((node == c) & there).nonzero().flatten().to(x.device)
        new = ((node == c) & ~there).nonzero().flatten().to(x.device)
        centre[new] = plus_plus(points, centre[own], len(new), generator)
    return centre


def plus_plus(x: Tensor, taken: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Rows (number, D) far from each other and from centres (T, D) that are there already: greedy k-means++.

    Each is the one of some rows, drawn by squared distance to the nearest centre, that leaves the least distance.

    Source: Arthur and Vassilvitskii, k-means++, 2007; its greedy form in scikit-learn.
    """
    trials = 2 + int(math.log(len(taken) + number))
    near = torch.cat([squared_distances(part, taken).amin(dim=1) for part in x.split(AT_ONCE)]) if len(taken) else None
    chosen = []
    for _ in range(number):
        weight = torch.ones(len(x)) if near is None or not bool((near > 0).any()) else near.cpu()
        drawn = _drawn(weight, trials if near is not None else 1, generator).to(x.device)
        left = torch.cat([squared_distances(part, x[drawn]) for part in x.split(AT_ONCE)])
        left = left if near is None else torch.minimum(left, near[:, None])
        best = int(left.sum(dim=0).argmin())
        near = left[:, best]
        chosen.append(drawn[best])
    return x[torch.stack(chosen)] if chosen else x[:0]


def _drawn(weight: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Rows drawn with repeats, each with probability proportional to its weight."""
    upto = weight.double().cumsum(0)
    at = torch.rand(number, generator=generator, dtype=torch.float64) * upto[-1]
    return torch.searchsorted(upto, at, right=True).clamp(max=len(weight) - 1)


def settle(x: Tensor, centre: Tensor, labels: Labels | None) -> tuple[Tensor, Tensor, float]:
    """Centres (K, D) that hardly move any more, the variance per dimension, the sum of squared distances to them."""
    centre, label = k_means(x, centre, labels)
    parts = zip(x.split(AT_ONCE), label.split(AT_ONCE), strict=True)
    spread = sum(float((part - centre[own]).square().sum(dtype=torch.float64)) for part, own in parts)
    return centre, x.new_tensor(max(spread / x.numel(), 1e-12)), spread


def k_means(x: Tensor, centre: Tensor, labels: Labels | None, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """Centres (K, D) after some steps, fewer where hardly a row moves any more, and the class (N,) of every row.

    Args:
        x: (N, D).
        centre: (K, D) to start from.
        labels: what is said of the rows, over K classes; None for nothing.
    """
    parts = in_parts(labels, len(x), AT_ONCE)
    label: Tensor | None = None
    near = torch.cat([squared_distances(x[rows], centre).amin(dim=1) for rows, _ in parts])
    for _ in range(steps):
        variance = (near.mean() / x.shape[1]).clamp(min=1e-12)
        total = torch.zeros_like(centre)
        found, apart = [], []
        for rows, said in parts:
            here = squared_distances(x[rows], centre)
            own = here.argmin(dim=1) if said is None else belief(said, -here / (2 * variance))[1].argmax(dim=1)
            total.index_add_(0, own, x[rows])
            found.append(own)
            apart.append(here.amin(dim=1))
        before, label, near = label, torch.cat(found), torch.cat(apart)
        size = torch.bincount(label, minlength=len(centre))
        if before is not None and int((label != before).sum()) <= MOVING * len(x):
            break
        centre = torch.where((size > 0)[:, None], total / size.clamp(min=1)[:, None], centre)
    assert label is not None
    return centre, label
