"""Classes of rows so that pairs hold: rows that must be together as one, rows that cannot be apart."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from anygrain.discover.evidence import Evidence


def blocks(evidence: Evidence) -> tuple[Tensor, Tensor]:
    """Rows that must be together, by chains too: block (N,) of every row; blocks that cannot be, (2, A) both ways."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    must = evidence.pairs[evidence.same == 1].numpy()
    links = coo_matrix((np.ones(len(must)), (must[:, 0], must[:, 1])), shape=(evidence.n_rows,) * 2)
    block = torch.from_numpy(connected_components(links, directed=False)[1]).long()
    i, j = block[evidence.pairs[evidence.same == 0]].T
    return block, torch.cat([torch.stack([i, j]), torch.stack([j, i])], dim=1).unique(dim=1)


def linked_choice(probs: Tensor, evidence: Evidence) -> Tensor:
    """The most probable class (N,) of every row by (N, K), so that all pairs hold, unless they may be wrong.

    Marginal probabilities alone do not say it: of two rows that are alike and cannot be together, both may be most
    probably of one class.
    """
    if not len(evidence.pairs) or evidence.pair_error:
        return probs.argmax(dim=1)
    block, apart = blocks(evidence)
    cost = probs.new_zeros(int(block.max()) + 1, probs.shape[1]).index_add(0, block, -probs.log())
    return parted(cost, apart)[block]


def parted(cost: Tensor, apart: Tensor) -> Tensor:
    """The cheapest class (B,) of every block by a cost (B, K), so that blocks that cannot be together are apart.

    Of two that clash, the one that loses less by it takes the best class that none of its partners holds; all at once
    that are not joined to each other. A block for which no class of finite cost is left stays, and clashes.

    Args:
        apart: (2, A) blocks that cannot be together, both ways.
    """
    label = cost.argmin(dim=1)
    one, other = apart
    if not len(one):
        return label
    two = cost.topk(min(2, cost.shape[1]), dim=1, largest=False).values
    loss = (two[:, -1] - two[:, 0]).double()
    rank = torch.empty_like(label)
    rank[loss.argsort(descending=True, stable=True)] = torch.arange(len(label), device=label.device)
    stuck = torch.zeros(len(label), dtype=torch.bool, device=label.device)
    for _ in range(len(label)):  # rounds: each ends at least one clash or finds one that has no way out
        clash = torch.zeros_like(stuck)
        clash[one[label[one] == label[other]]] = True
        clash &= ~stuck
        if not bool(clash.any()):
            break
        ahead = torch.full_like(rank, -1).scatter_reduce(0, one, torch.where(clash, rank, -1)[other], "amax")
        moving = (clash & (rank > ahead)).nonzero().flatten()
        place = torch.full_like(label, -1)
        place[moving] = torch.arange(len(moving), device=label.device)
        edge = place[one] >= 0
        left = cost[moving].clone()
        left[place[one[edge]], label[other[edge]]] = torch.inf
        best = left.min(dim=1)
        free = torch.isfinite(best.values)
        label[moving[free]] = best.indices[free]
        stuck[moving[~free]] = True
    return label
