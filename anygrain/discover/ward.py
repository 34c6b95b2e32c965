"""Classes by merging: the two groups of neighbours whose union spreads least."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from anygrain.discover.neighbours import neighbours
from anygrain.discover.partitioned import Partitioned
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder

NEIGHBOURS = 10


class Ward(Partitioned):
    r"""Agglomerative clustering on a graph of neighbours: from single rows, the best two joined groups are merged.

    .. math:: \min_{a, b}\; \frac{|a| |b|}{|a| + |b|} \, |\bar x_a - \bar x_b|^2

    until as many are left as asked for; only groups that an edge joins can merge, so that cost grows with the edges.
    It has no start, and so is the same for every seed; it finds classes of unlike sizes. What is said of rows does not
    change the groups: it names them, and moves the rows that were told.

    Args:
        neighbours: edges of every row.
        components, most_rows: see `Partitioned`.

    Source: Ward, Hierarchical grouping to optimize an objective function, 1963; scikit-learn.
    """

    def __init__(
        self,
        *,
        neighbours: int = NEIGHBOURS,
        components: int = 64,
        most_rows: int = 20000,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(
            components=components, most_rows=most_rows, seed=seed, encoder=encoder, device=device, bootstrap=bootstrap
        )
        self.neighbours = neighbours

    def _cut(self, task: Task) -> tuple[Tensor, dict[str, Any]]:
        from scipy.sparse import csr_matrix
        from sklearn.cluster import AgglomerativeClustering

        n = task.n_rows
        near = neighbours(task.features, self.neighbours, seed=task.seed).cpu()
        source = torch.arange(n).repeat_interleave(near.shape[1])
        edges = csr_matrix((torch.ones(near.numel()).numpy(), (source.numpy(), near.flatten().numpy())), (n, n))
        with warnings.catch_warnings():  # a graph in several parts is joined, as it has to be
            warnings.filterwarnings("ignore", message="the number of connected components", category=UserWarning)
            model = AgglomerativeClustering(task.least, connectivity=edges + edges.T)
            return torch.from_numpy(model.fit_predict(task.features.cpu().numpy())).long(), {}
