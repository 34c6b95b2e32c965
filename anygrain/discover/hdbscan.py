"""Classes as dense places that stay apart as the demand on density rises."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.discover.exemplars import class_means
from anygrain.discover.partitioned import Partitioned
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder

SIZES = (5, 10, 15, 25, 50, 100)  # smallest size of a class, of which the fitting one is taken


class HDBSCAN(Partitioned):
    """Hierarchical density-based clustering in a few principal components.

    It finds the number of classes itself, and is looked at with several smallest sizes of a class: of those that give
    an allowed number of classes the one with the least rows in no class is taken, else the one nearest to it, whose
    smallest classes are dissolved, or its largest ones cut in two by k-means, until the number fits. Rows in no class
    go to the class with the nearest mean; `noise_` says which. Collapses where density does not tell classes apart.

    Args:
        least_size: smallest size of a class; None: found as above.
        components, most_rows: see `Partitioned`.

    Attributes:
        noise_: bool (N,): rows that were in no class.
        smallest_: the smallest size of a class that was taken, below every coarse class.

    Source: Campello, Moulavi, Sander, Density-based clustering based on hierarchical density estimates, 2013;
    scikit-learn.
    """

    finds_number = True

    def __init__(
        self,
        *,
        least_size: int | None = None,
        components: int = 32,
        most_rows: int = 10000,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(
            components=components, most_rows=most_rows, seed=seed, encoder=encoder, device=device, bootstrap=bootstrap
        )
        self.least_size = least_size

    def _cut(self, task: Task) -> tuple[Tensor, dict[str, Any]]:
        from sklearn.cluster import HDBSCAN as Library

        x = task.features.cpu().numpy().astype(np.float64)
        sizes = [size for size in SIZES if size <= len(x) // 2] or [2]
        tried = []
        for size in sizes if self.least_size is None else [self.least_size]:
            group = Library(min_cluster_size=max(size, 2), copy=True).fit_predict(x)
            number = int(group.max()) + 1
            short = max(task.least - number, number - task.most, 0)
            tried.append((short, float((group < 0).mean()), size, group))
        _, _, size, group = min(tried, key=lambda one: one[:3])
        label = fitted(task, torch.from_numpy(group).long())
        return label, {"noise": torch.from_numpy(group < 0), "smallest": size}


def fitted(task: Task, group: Tensor) -> Tensor:
    """Groups (n,), of which -1 is none, as at least `task.least` and at most `task.most` groups that hold all rows."""
    from sklearn.cluster import KMeans

    x = task.features.cpu()
    if int(group.max()) < 0:
        group = torch.zeros_like(group)
    size = torch.bincount(group[group >= 0])
    if len(size) > task.most:
        kept = size.argsort(descending=True, stable=True)[: task.most]
        name = torch.full((len(size) + 1,), -1)  # the last is that of rows in no group
        name[kept] = torch.arange(len(kept))
        group, size = name[group], size[kept]
    centre = class_means(x[group >= 0], group[group >= 0], len(size))[0]
    group = torch.where(group < 0, torch.cdist(x, centre).argmin(dim=1), group)
    while len(size := torch.bincount(group)) < task.least:
        rows = (group == size.argmax()).nonzero().flatten()
        halves = torch.from_numpy(KMeans(2, n_init=4, random_state=task.seed).fit_predict(x[rows].numpy()))
        group[rows[halves == 1]] = len(size)
    return group
