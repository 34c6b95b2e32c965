"""Classes as parts of a graph of neighbours that few edges join."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from anygrain.discover.eigenvectors import leading
from anygrain.discover.k_means import k_means, settle, starting_centres
from anygrain.discover.partitioned import Partitioned
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder
from anygrain.learn.graph import neighbour_graph

NEIGHBOURS = 10
STARTS = 4


class SpectralClustering(Partitioned):
    r"""Leading eigenvectors of the normalised graph of neighbours, and k-means in which told rows stay.

    .. math:: S = D^{-1/2} W D^{-1/2}, \qquad S u_j = \lambda_j u_j \; (j \le K), \qquad
              z_i = (u_{i1}, \dots, u_{iK}) / |\cdot|

    with self-tuned weights W of the ten nearest rows. In the rows of z k-means starts at the means of told rows and
    leaves them in their class, keeps pairs, and takes the best of four starts. Finds classes of any shape as long as
    neighbours are mostly of one class. Sparse: N x K numbers.

    Args:
        neighbours: edges of every row.
        starts: how many times k-means is started.
        components, most_rows: see `Partitioned`.

    Source: Ng, Jordan, Weiss, On spectral clustering, 2001; Zelnik-Manor and Perona, Self-tuning spectral clustering,
    2004; labels clamped as in Vaze et al., 2022.
    """

    def __init__(
        self,
        *,
        neighbours: int = NEIGHBOURS,
        starts: int = STARTS,
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
        self.neighbours, self.starts = neighbours, starts

    def _cut(self, task: Task) -> tuple[Tensor, dict[str, Any]]:
        must = task.evidence.pairs[task.evidence.same == 1].to(task.features.device)
        graph = neighbour_graph(task.features, self.neighbours, edges=must)
        values, vectors = leading(graph.spread, task.least, task.seed)
        z = torch.nn.functional.normalize(vectors, dim=1)
        flat = replace(task, features=z)
        labels = task.evidence.over(task.node)
        generator = torch.Generator().manual_seed(task.seed)
        best, least = None, torch.inf
        for _ in range(self.starts):
            centre, _, spread = settle(z, starting_centres(flat, generator), labels)
            if spread < least:
                best, least = k_means(z, centre, labels, 1)[1], spread
        assert best is not None
        return best, {"eigenvalues": values.numpy()}
