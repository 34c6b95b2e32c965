"""K-means in which told rows stay in their class."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.discover.discoverer import Callback, Discoverer
from anygrain.discover.found import ClassModel, Found
from anygrain.discover.k_means import TRIED_ROWS, settle, squared_distances, starting_centres
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.trainable import Arrays

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


class SemiSupervisedKMeans(Discoverer):
    r"""K-means in which rows of which something is said stay where that allows.

    .. math:: y_i = \arg\max_k\; -\frac{|x_i - c_k|^2}{2 \sigma^2} + e_{ik}, \qquad
              c_k = \mathrm{mean}\{x_i : y_i = k\}

    with e the evidence about row i: a row of a known class never leaves it, a row of a coarse class stays below it,
    pairs are factors of both rows. Centres of known classes start at the means of the rows that are told, those of new
    ones by k-means++ among the rows of their coarse class; the best of `starts` is kept. Of more than 50,000 rows so
    many are drawn, on which the starts are tried, and the best goes on with all.

    Args:
        starts: how many times it is started.

    Source: Vaze et al., Generalized Category Discovery, 2022; Arthur and Vassilvitskii, k-means++, 2007.
    """

    learns_from = None

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
        few = task.sample(TRIED_ROWS)
        labels = few.evidence.over(node)
        generator = torch.Generator().manual_seed(task.seed)
        for start in range(self.starts):
            centre, variance, spread = settle(few.features, starting_centres(few, generator), labels)
            if spread < least:
                best, least = Centres(centre, variance), spread
            if callback is not None:
                callback(start + 1, self.starts, {"step": f"start {start + 1}", "inertia": spread})
        assert best is not None
        if few is not task:
            best = Centres(*settle(task.features, best.centre, task.evidence.over(node))[:2])
        return Found(node, best, why=f"the start with the smallest spread of {self.starts}")
