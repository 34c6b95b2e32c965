"""Sets whose members are all of one class: what hard "same" pairs on a cycle come to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.pairs import Pairs
from anygrain.labels.sets import SetLabels
from anygrain.labels.structure import connected_components


class AllEqual(SetLabels):
    r"""All members of each set are of one class: :math:`P = \sum_k \prod_i p_i(k)`."""

    def factor(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        at = self.sets.index
        zero = log_p == -torch.inf
        finite = torch.where(zero, torch.zeros_like(log_p), log_p)
        total = log_p.new_zeros(len(self.sets), log_p.shape[1]).index_add_(0, at, finite)
        zeros = torch.zeros_like(total).index_add_(0, at, zero.to(log_p.dtype))
        others = torch.where(zeros[at] - zero.to(log_p.dtype) > 0.5, -torch.inf, total[at] - finite)
        return torch.logsumexp(torch.where(zeros > 0.5, -torch.inf, total), dim=1), others

    def log_prob_given(self, classes: Tensor) -> Tensor:
        first = classes[:, self.sets.offsets[:-1]]
        differs = (classes != first[:, self.sets.index]).to(torch.float64)
        count = differs.new_zeros(len(classes), len(self.sets)).index_add_(1, self.sets.index, differs)
        return torch.where(count > 0, -torch.inf, 0.0)

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        new = self._fresh()
        new.n_classes, new.class_names = n_classes, None
        return new


class Closed(NamedTuple):
    """Parts with hard pairs closed, the given set of each factor, and given sets that are broken or implied."""

    parts: list[SetLabels]
    owners: list[Tensor]
    broken: Tensor
    implied: Tensor


def close_pairs(parts: Sequence[SetLabels], owners: Sequence[Tensor], n_instances: int) -> Closed:
    """Replace hard "same" pairs that lie on a cycle by one `AllEqual` for each two-edge-connected group.

    Pairs that are bridges stay: on a tree of pairs propagation is exact. A hard "different" pair inside a group
    contradicts it and is broken.
    """
    none = torch.empty(0, dtype=torch.long, device=parts[0].device)
    hard = [p for p in parts if isinstance(p, Pairs) and not p.error]
    if not hard:
        return Closed(list(parts), list(owners), none, none)
    ends, owned = [], []
    for part, owner in zip(parts, owners, strict=True):
        if isinstance(part, Pairs) and not part.error:
            ends.append(part.sets.members.reshape(-1, 2)[part.same == 1])
            owned.append(owner[part.same == 1])
    edges, owner = torch.cat(ends), torch.cat(owned)
    group = two_edge_connected(n_instances, edges[:, 0], edges[:, 1])
    new_parts: list[SetLabels] = []
    new_owners: list[Tensor] = []
    broken = none
    for part, mine in zip(parts, owners, strict=True):
        if not isinstance(part, Pairs) or part.error:
            new_parts.append(part)
            new_owners.append(mine)
            continue
        pair = part.sets.members.reshape(-1, 2)
        together = group[pair[:, 0]] == group[pair[:, 1]]
        broken = torch.cat([broken, mine[together & (part.same == 0)]])
        kept = (~together | (part.same == -1)).nonzero()[:, 0]
        new_parts.append(part._take(torch.arange(n_instances, device=part.device), kept))
        new_owners.append(mine[kept])
    inside = group[edges[:, 0]] == group[edges[:, 1]]
    implied = owner[inside]
    if len(implied):
        size = torch.bincount(group, minlength=n_instances)
        ids = torch.where(size[group] > 1, group, -1)
        _, ids_compact = torch.unique(ids, return_inverse=True)
        bags = Bags.from_ids(ids_compact - int((ids == -1).any()))
        new_parts.append(AllEqual(parts[0].n_classes, bags))
        of = (ids_compact - int((ids == -1).any()))[edges[inside, 0]]
        leader = torch.full((len(bags),), int(implied.max()) + 1, device=of.device)
        new_owners.append(leader.scatter_reduce(0, of, implied, "amin"))
    return Closed(new_parts, new_owners, broken, implied)


def two_edge_connected(n: int, left: Tensor, right: Tensor) -> Tensor:
    """Group of each of n nodes: nodes that stay connected when any one edge is taken away share a group.

    A tree edge is a bridge when no other edge closes a cycle over it. Every other edge gets a random 64-bit word;
    the words at the nodes below a tree edge, added up by exclusive or, cancel unless a cycle passes over it
    (Pritchard and Thurimella, Fast computation of small cuts via cycle space sampling, 2011).
    """
    parent, parent_edge, levels = _spanning_forest(n, left, right)
    in_tree = torch.zeros(len(left), dtype=torch.bool, device=left.device)
    in_tree[parent_edge[parent_edge >= 0]] = True
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(2, (len(left), 62), generator=generator, dtype=torch.int64).to(left.device)
    bits[in_tree] = 0
    parity = torch.zeros(n, 62, dtype=torch.int64, device=left.device)
    parity.index_add_(0, left, bits).index_add_(0, right, bits)
    for level in reversed(levels[1:]):
        parity.index_add_(0, parent[level], parity[level])
    covered = (parity % 2).any(dim=1) & (parent_edge >= 0)
    keep = ~in_tree
    keep[parent_edge[covered]] = True
    return connected_components(n, left[keep], right[keep])


def _spanning_forest(n: int, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Parent and parent edge of every node (-1 at roots), and the nodes level by level from the roots."""
    device = left.device
    ends = torch.cat([left, right])
    order = torch.argsort(ends, stable=True)
    offsets = torch.cat([ends.new_zeros(1), torch.bincount(ends, minlength=n).cumsum(0)])
    other = torch.cat([right, left])[order]
    edge = torch.arange(len(left), device=device).repeat(2)[order]
    parent = torch.full((n,), -1, device=device)
    parent_edge = torch.full((n,), -1, device=device)
    component = connected_components(n, left, right)
    root = torch.full((int(component.max()) + 1,), n, device=device)
    level = root.scatter_reduce(0, component, torch.arange(n, device=device), "amin")
    seen = torch.zeros(n, dtype=torch.bool, device=device)
    seen[level] = True
    levels = [level]
    while len(level):
        sizes = offsets.diff()[level]
        starts = offsets[:-1][level] - (sizes.cumsum(0) - sizes)
        at = torch.repeat_interleave(starts, sizes) + torch.arange(int(sizes.sum()), device=device)
        new = ~seen[other[at]]
        at = at[new]
        above = torch.repeat_interleave(level, sizes)[new]
        level, place = torch.unique(
            other[at], return_inverse=True
        )  # costs what the level holds, not what the graph does
        choice = torch.full((len(level),), len(at), device=device)
        choice = choice.scatter_reduce(0, place, torch.arange(len(at), device=device), "amin")
        parent[level], parent_edge[level] = above[choice], edge[at[choice]]
        seen[level] = True
        levels.append(level)
    return parent, parent_edge, levels
