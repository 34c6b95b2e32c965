"""K-means in which told rows stay in their class."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.discover.discoverer import Callback, Discoverer
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
        for k in ((node == c) & ~there).nonzero().flatten().tolist():
            if len(own):
                weight = squared_distances(points, centre[own]).amin(dim=1).cpu().double()
            else:
                weight = torch.ones(len(points), dtype=torch.float64)
            weight = weight if float(weight.sum()) > 0 else torch.ones_like(weight)
            centre[k] = points[int(torch.multinomial(weight, 1, generator=generator))]
            own = torch.cat([own, own.new_tensor([k])])
    return centre


def settle(x: Tensor, centre: Tensor, labels: Labels | None) -> tuple[Tensor, Tensor, float]:
    """Centres (K, D) that no longer move, the variance per dimension, and the sum of squared distances to them."""
    before: Tensor | None = None
    for _ in range(STEPS):
        near = torch.cat([squared_distances(part, centre) for part in x.split(AT_ONCE)])
        variance = (near.amin(dim=1).mean() / x.shape[1]).clamp(min=1e-12)
        if labels is None:
            label = near.argmin(dim=1)
        else:
            label = labels.posterior((-near / (2 * variance)).double().cpu().log_softmax(dim=1)).argmax(dim=1)
            label = label.to(x.device)
        if before is not None and torch.equal(label, before):
            break
        before = label
        size = torch.bincount(label, minlength=len(centre))
        mean = torch.zeros_like(centre).index_add(0, label, x) / size.clamp(min=1)[:, None]
        centre = torch.where((size > 0)[:, None], mean, centre)
    spread = float(near.gather(1, label[:, None]).sum())
    return centre, variance, spread
