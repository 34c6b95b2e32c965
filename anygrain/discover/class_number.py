"""How many classes there are, where nobody says."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.discover.task import Task

STARTS = 5  # over which the interval is taken
SMALL = 0.5  # share of the mean size below which a cluster is dropped


def class_number(task: Task) -> tuple[Tensor, tuple[int, int]]:
    """The number of classes under every node (C,), the known ones included, and an interval for the total.

    Twice as many clusters as the largest plausible number of classes are looked for, and those with less than half of
    the mean size are not counted: the others are classes that would be found again.

    Source: Zhang et al., Discovering New Intents with Deep Aligned Clustering, 2021.
    """
    from sklearn.cluster import KMeans

    taken = torch.bincount(task.evidence.node_of_known, minlength=task.evidence.n_nodes)
    where = task.evidence.sure_node()
    totals, counts = [], []
    for start in range(STARTS):
        count = taken.clone()
        for c in range(len(taken)):
            rows = (where == c).nonzero().flatten()
            most = min(task.most - int(taken.sum() - taken[c]), len(rows))
            if most < 2:
                count[c] = max(int(taken[c]), 1)
                continue
            model = KMeans(most, n_init=1, random_state=task.seed + start).fit(task.features[rows].cpu().numpy())
            size = torch.bincount(torch.from_numpy(model.labels_).long(), minlength=most)
            count[c] = max(int((size >= SMALL * len(rows) / most).sum()), int(taken[c]), 1)
        counts.append(count)
        totals.append(int(count.sum()))
    middle = sorted(range(STARTS), key=totals.__getitem__)[STARTS // 2]
    return counts[middle], (min(totals), max(totals))
