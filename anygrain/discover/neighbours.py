"""The nearest rows of every row, exactly where there are few and among the rows of near cells where there are many."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.learn.graph import nearest

EXACT = 30_000  # rows up to which all are compared
CELL = 2000  # rows of a cell
SAMPLE = 64  # rows per cell of which the centres are learnt


def neighbours(features: Tensor, k: int, *, seed: int = 0, exact: int = EXACT) -> Tensor:
    """The k nearest other rows (N, k) of every row, nearest first; k is at most N - 1.

    Above `exact` rows, space is divided into cells of about 2,000 rows by k-means; a row is looked for in its cell
    among all rows of which that cell is one of the two nearest. Cost grows with N, not with its square.

    Args:
        features: (N, D).
        seed: of the cells.

    Source: Jegou et al., Product Quantization for Nearest Neighbor Search, 2011 (its inverted file).
    """
    n = len(features)
    k = min(k, n - 1)
    if n <= exact:
        return nearest(features, k)[1]
    from sklearn.cluster import MiniBatchKMeans

    cells = n // CELL
    generator = torch.Generator().manual_seed(seed)
    some = torch.randperm(n, generator=generator)[: cells * SAMPLE].to(features.device)
    cutter = MiniBatchKMeans(cells, n_init=1, batch_size=4096, random_state=seed).fit(features[some].cpu().numpy())
    centre = torch.from_numpy(cutter.cluster_centers_).to(features)
    two = torch.cat([torch.cdist(part, centre).topk(2, largest=False).indices for part in features.split(65536)])
    order = two.flatten().argsort(stable=True)
    held = (order // 2).split(torch.bincount(two.flatten(), minlength=cells).tolist())
    found = torch.empty(n, k, dtype=torch.long, device=features.device)
    for c, members in enumerate(held):  # cells, not rows
        inside = two[members, 0] == c
        for asked in members[inside].split(max(1, 2**25 // max(len(members), 1))):
            apart = torch.cdist(features[asked], features[members])
            apart[asked[:, None] == members] = torch.inf
            few = min(k, len(members) - 1)
            near = members[apart.topk(few, dim=1, largest=False).indices] if few > 0 else asked[:, None]
            found[asked] = torch.cat([near, near[:, -1:].expand(-1, k - near.shape[1])], dim=1)
    return found
