"""Which class to collect labels of next, where predictions go by distance between classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anygrain.labels import LabelError


def tree_locus(parents: Sequence[int], known: Sequence[int]) -> Tensor:
    """Nodes that can be predicted from known classes, bool (V,): those on a path between two of them.

    Predictions are Frechet means, :math:`\\arg\\min_y \\sum_k p_k d(k, y)^2`; on a tree these reach the paths between
    known nodes and nothing else.

    Args:
        parents: parent of every node, -1 at the root, (V,).
        known: nodes whose class has labels.

    Source: Roberts et al., Geometry-Aware Adaptation for Pretrained Models, 2023.
    """
    up = _ancestors(parents)
    if not len(known):
        return torch.zeros(len(parents), dtype=torch.bool)
    below = up[list(known)].sum(dim=0)  # known nodes at or below each node
    # on a path: some known node lies below, and not all known ones do - or it is where their paths meet
    inside = (below > 0) & (below < len(known))
    common = (below == len(known)).nonzero()[:, 0]
    meeting = common[up[common].sum(dim=1).argmax()]  # the deepest node above all of them
    inside[meeting] = True
    return inside


def next_classes(parents: Sequence[int], known: Sequence[int], n: int) -> list[int]:
    """The nodes whose labels let most new classes be predicted, in order: greedy, which is optimal on a tree.

    .. math:: v^* = \\arg\\max_{v \\notin \\Pi} \\min_{u \\in \\Pi} d(u, v)

    with the locus :math:`\\Pi` of `tree_locus`; ties go to the lower index.

    Args:
        parents: parent of every node, -1 at the root, (V,).
        known: nodes whose class has labels; at least one.
        n: how many; fewer come back where everything can be predicted before.

    Raises:
        LabelError: no known node, several roots, a cycle.
    """
    if not len(known):
        raise LabelError("known is empty; expected at least one class with labels")
    up = _ancestors(parents)
    have, found = list(known), []
    for _ in range(n):
        inside = tree_locus(parents, have)
        if bool(inside.all()):
            break
        # the nearest node of a connected part is met on the way up, or at its top on the way down
        steps = _distance_to(up, parents, inside)
        found.append(int(steps.argmax()))
        have.append(found[-1])
    return found


def _ancestors(parents: Sequence[int]) -> Tensor:
    """bool (V, V): whether a node (column) is at or above another (row)."""
    parent = torch.as_tensor(parents)
    n = len(parent)
    if int((parent < 0).sum()) != 1:
        raise LabelError(f"the tree has {int((parent < 0).sum())} roots; expected one node with parent -1")
    up = torch.eye(n, dtype=torch.bool)
    at = torch.arange(n)
    for _ in range(n + 1):
        at = torch.where(at >= 0, parent[at.clamp(min=0)], -1)
        if not bool((at >= 0).any()):
            return up
        rows = (at >= 0).nonzero()[:, 0]
        up[rows, at[rows]] = True
    raise LabelError("the parents form a cycle; expected a tree")


def _distance_to(up: Tensor, parents: Sequence[int], inside: Tensor) -> Tensor:
    """Edges from every node to the nearest node of a connected set, (V,)."""
    neighbours = torch.as_tensor(parents)
    steps = torch.where(inside, 0, len(inside))
    for _ in range(len(inside)):
        child = steps.scatter_reduce(
            0, neighbours.clamp(min=0), torch.where(neighbours >= 0, steps + 1, len(inside)), "amin"
        )
        both = torch.minimum(child, torch.where(neighbours >= 0, child[neighbours.clamp(min=0)] + 1, len(inside)))
        if torch.equal(both, steps):
            return steps
        steps = both
    return steps
