"""Which sets share which instances: components, free instances, and where inference is exact."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from anygrain.labels.bags import Bags


def connected_components(n: int, left: Tensor, right: Tensor) -> Tensor:
    """Component of each of n nodes, numbered 0..C-1 by smallest node, for edges left[e] - right[e].

    Minimum labels hook onto each other and pointers are halved (Zhang, Azad and Hu, FastSV, 2020), so the number of
    passes grows with log(n), whatever the diameter.
    """
    parent = torch.arange(n, device=left.device)
    if len(left):
        while True:
            # hook the root of either end onto the smaller grandparent of the other
            grand = parent[parent]
            a, b = grand[left], grand[right]
            new = grand.clone()
            new.scatter_reduce_(0, parent[left], b, "amin")
            new.scatter_reduce_(0, parent[right], a, "amin")
            new.scatter_reduce_(0, left, b, "amin")
            new.scatter_reduce_(0, right, a, "amin")
            if bool((new == parent).all()):
                break
            parent = new
    component: Tensor = torch.unique(parent, return_inverse=True)[1]
    return component


class Structure:
    """The bipartite graph of N instances and the sets of several parts, in the order of the parts.

    Attributes:
        members: instance of every edge, shape (E,).
        sets: set of every edge, shape (E,), numbered over all parts.
        edge_slices, set_slices: what belongs to each part.
    """

    def __init__(self, n_instances: int, bags: Sequence[Bags], device: torch.device):
        self.n_instances = n_instances
        self.n_sets = sum(len(b) for b in bags)
        empty = torch.empty(0, dtype=torch.long, device=device)
        self.edge_slices: list[slice] = []
        self.set_slices: list[slice] = []
        sets, edge, start = [], 0, 0
        for b in bags:
            self.edge_slices.append(slice(edge, edge + len(b.members)))
            self.set_slices.append(slice(start, start + len(b)))
            sets.append(b.index + start)
            edge, start = edge + len(b.members), start + len(b)
        self.members = torch.cat([empty, *(b.members for b in bags)])
        self.sets = torch.cat([empty, *sets])
        self.offsets = torch.cat([empty.new_zeros(1), torch.bincount(self.sets, minlength=self.n_sets).cumsum(0)])

    @cached_property
    def degree(self) -> Tensor:
        """Number of sets that hold each instance, shape (N,)."""
        return torch.bincount(self.members, minlength=self.n_instances)

    @cached_property
    def free(self) -> Tensor:
        """Instances that lie in no set, ascending."""
        return (self.degree == 0).nonzero()[:, 0]

    @cached_property
    def overlaps(self) -> bool:
        return len(self.members) > 0 and int(self.degree.max()) > 1

    @cached_property
    def first(self) -> Tensor:
        """bool, shape (E,): this edge is the first of its instance."""
        order = torch.argsort(self.members, stable=True)
        ordered = self.members[order]
        is_first = torch.ones_like(ordered, dtype=torch.bool)
        is_first[1:] = ordered[1:] != ordered[:-1]
        return torch.zeros_like(is_first).scatter_(0, order, is_first)

    @cached_property
    def nodes(self) -> Tensor:
        """Component of every node, shape (N + sets,): instances first, then sets."""
        return connected_components(self.n_instances + self.n_sets, self.members, self.sets + self.n_instances)

    @property
    def component(self) -> Tensor:
        """Component of every instance, shape (N,)."""
        return self.nodes[: self.n_instances]

    @cached_property
    def loopy(self) -> Tensor:
        """bool per component: it has a cycle, that is, not one edge fewer than it has nodes."""
        count = int(self.nodes.max()) + 1 if len(self.nodes) else 0
        nodes = torch.bincount(self.nodes, minlength=count)
        edges = torch.bincount(self.nodes[self.members], minlength=count)
        return edges != nodes - 1

    @cached_property
    def depth(self) -> int:
        """Sweeps after which messages on the forest have reached every end: at most the sets of a component."""
        trees = ~self.loopy
        sets = torch.bincount(self.nodes[self.n_instances :], minlength=len(trees))
        return int((sets * trees).max()) if len(trees) else 0
