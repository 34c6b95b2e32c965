"""K-means in which told rows stay in their class."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anygrain.discover.discoverer import Callback, Discoverer
from anygrain.discover.evidence import belief, in_parts
from anygrain.discover.found import ClassModel, Found
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.trainable import Arrays
from anygrain.labels import Labels

STEPS = 100
AT_ONCE = 65536  # rows whose distances are held together
STARTS = 4


class Centres(ClassModel):
    r"""Classes by the nearest of K centres, :math:`\log p(k \mid x) \propto -|x - c_k|^2 / (2 \sigma^2)`.

    :math:`\sigma^2` is the mean squared distance of a row to its centre, per dimension.
    """

    centre: Tensor
    variance: Tensor

    def __init__(self, centre: Tensor, variance: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.register_buffer("variance", variance)

    def forward(self, arrays: Arrays) -> Tensor:
        return (-squared_distances(arrays["features"], self.centre) / (2 * self.variance)).log_softmax(dim=1)


def squared_distances(features: Tensor, centre: Tensor) -> Tensor:
    """Squared Euclidean distances (N, K)."""
    square = features.square().sum(dim=1, keepdim=True) + centre.square().sum(dim=1) - 2 * features @ centre.T
    return square.clamp(min=0)


class SemiSupervisedKMeans(Discoverer):
    r"""K-means in which rows of which something is said stay where that allows.

    .. math:: y_i = \arg\max_k\; -\frac{|x_i - c_k|^2}{2 \sigma^2} + e_{ik}, \qquad
              c_k = \mathrm{mean}\{x_i : y_i = k\}

    with e the evidence about row i: a row of a known class never leaves it, a row of a coarse class stays below it,
    pairs are factors of both rows. Centres of known classes start at the means of the rows that are told, those of new
    ones by k-means++ among the rows of their coarse class; the best of `starts` is kept.

    Args:
        starts: how many times it is started.

    Source: Vaze et al., Generalized Category Discovery, 2022; Arthur and Vassilvitskii, k-means++, 2007.
    """

    def __init__(
        self,
        *,
        starts: int = STARTS,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.starts = starts

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        node, best, least = task.node, None, torch.inf
        labels = task.evidence.over(node)
        generator = torch.Generator().manual_seed(task.seed)
        for start in range(self.starts):
            centre = starting_centres(task, generator)
            centre, variance, spread = settle(task.features, centre, labels)
            if spread < least:
                best, least = Centres(centre, variance), spread
            if callback is not None:
                callback(start + 1, self.starts, {"step": f"start {start + 1}", "inertia": spread})
        assert best is not None
        return Found(node, best, why=f"the start with the smallest spread of {self.starts}")


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
    """Centres (K, D) that no longer move, the variance per dimension, and the sum of squared distances to them."""
    centre, label = k_means(x, centre, labels)
    parts = zip(x.split(AT_ONCE), label.split(AT_ONCE), strict=True)
    spread = sum(float((part - centre[own]).square().sum(dtype=torch.float64)) for part, own in parts)
    return centre, x.new_tensor(max(spread / x.numel(), 1e-12)), spread


def k_means(x: Tensor, centre: Tensor, labels: Labels | None, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """Centres (K, D) after some steps, fewer where no row moves any more, and the class (N,) of every row.

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
        if before is not None and torch.equal(label, before):
            break
        centre = torch.where((size > 0)[:, None], total / size.clamp(min=1)[:, None], centre)
    assert label is not None
    return centre, label
