"""Bags: which instances belong to which set."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from anygrain.labels.error import LabelError, require, whole_numbers


class Bags:
    """Ragged sets of instances: overlapping and nested ones too, without padding.

    Args:
        members: instance ids, shape (E,); the members of bag m are `members[offsets[m]:offsets[m + 1]]`.
        offsets: shape (M + 1,), rising from 0 to E.
        n_instances: number N of instances; one more than the largest member when not given.

    Raises:
        LabelError: offsets that do not rise from 0 to E, a bag without members, a member outside 0..N-1, a bag that
            names one instance twice.
    """

    def __init__(self, members: Tensor, offsets: Tensor, n_instances: int | None = None):
        members, offsets = whole_numbers(members, "members of bags"), whole_numbers(offsets, "offsets of bags")
        if offsets.ndim != 1 or members.ndim != 1 or len(offsets) == 0:
            raise LabelError("bags need members of shape (E,) and offsets of shape (M + 1,)")
        if int(offsets[0]) != 0 or int(offsets[-1]) != len(members):
            raise LabelError(f"offsets of bags must run from 0 to {len(members)}, the number of members")
        require(offsets.diff() > 0, "has no member", noun="bag")
        if len(members) and int(members.min()) < 0:
            raise LabelError("a member of a bag is an instance id of 0 or more; leave instances without a bag out")
        largest = int(members.max()) if len(members) else -1
        self.n_instances = largest + 1 if n_instances is None else int(n_instances)
        if largest >= self.n_instances:
            raise LabelError(f"a bag names instance {largest}, but there are {self.n_instances} instances")
        self.members, self.offsets = members, offsets
        key = (self.index * max(self.n_instances, 1) + members).sort().values
        twice = key[1:][key[1:] == key[:-1]]
        if len(twice):
            bag, member = divmod(int(twice[0]), self.n_instances)
            raise LabelError(f"bag {bag} names instance {member} twice")

    @classmethod
    def from_ids(cls, ids: Tensor) -> Bags:
        """Bags from one bag id per instance, shape (N,), -1 for an instance in no bag.

        Raises:
            LabelError: names, an id below -1, or a gap: every id of 0..M-1 must occur.
        """
        if not isinstance(ids, Tensor) and np.asarray(ids).dtype.kind in "OUT":
            raise LabelError(
                "bag ids must be whole numbers; names, ids = numpy.unique(ids, return_inverse=True) counts"
            )
        ids = whole_numbers(ids, "bag ids")
        if ids.ndim != 1:
            raise LabelError("bag ids have the shape (N,): one id per instance, -1 for none")
        require(ids >= -1, "has a bag id below -1", noun="instance")
        count = torch.bincount(ids[ids >= 0])
        require(count > 0, "has no member (bag ids must be 0..M-1 without a gap)", noun="bag")
        order = torch.argsort(ids, stable=True)
        offsets = torch.cat([count.new_zeros(1), count.cumsum(0)])
        return cls(order[len(ids) - int(offsets[-1]) :], offsets, len(ids))

    @staticmethod
    def require(bags: object) -> None:
        """Raises LabelError where something else than bags was given."""
        if not isinstance(bags, Bags):
            raise LabelError(f"bags are {type(bags).__name__}; expected Bags, such as Bags.from_ids(ids)")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        return f"Bags({len(self)} bags, {len(self.members)} members, {self.n_instances} instances)"

    @property
    def sizes(self) -> Tensor:
        """Number of members of every bag, shape (M,)."""
        return self.offsets.diff()

    @cached_property
    def index(self) -> Tensor:
        """Bag of every member, shape (E,)."""
        return torch.repeat_interleave(self.sizes)

    @classmethod
    def _trusted(cls, members: Tensor, offsets: Tensor, n_instances: int) -> Bags:
        """Bags made from bags that were checked before."""
        bags = cls.__new__(cls)
        bags.members, bags.offsets, bags.n_instances = members, offsets, n_instances
        return bags

    def edges_of(self, bags: Tensor) -> Tensor:
        """Positions in `members` of the members of the given bags, bag by bag."""
        sizes = self.sizes[bags]
        starts = self.offsets[bags] - torch.cat([sizes.new_zeros(1), sizes.cumsum(0)[:-1]])
        return torch.repeat_interleave(starts, sizes) + torch.arange(int(sizes.sum()), device=sizes.device)

    def select(self, bags: Tensor, instances: Tensor) -> Bags:
        """The given bags over the given instances, which are re-indexed to 0..B-1 in the order given.

        Raises:
            LabelError: a bag with a member that is not among `instances`.
        """
        members = self.members[self.edges_of(bags)]
        sizes = self.sizes[bags]
        offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
        if len(members) == 0:
            return Bags._trusted(members, offsets, len(instances))
        ordered, order = instances.sort()
        at = torch.searchsorted(ordered, members).clamp(max=max(len(ordered) - 1, 0))
        found = ordered[at] == members if len(ordered) else torch.zeros_like(members, dtype=torch.bool)
        if not bool(found.all()):
            cut = bags[torch.repeat_interleave(sizes)[~found][0]]
            raise LabelError(f"bag {int(cut)} would be cut: some of its members are not selected")
        return Bags._trusted(order[at], offsets, len(instances))

    def tile(self, copies: int) -> Bags:
        """The bags over `copies` disjoint copies of the instances."""
        shift = torch.arange(copies, device=self.members.device)[:, None]
        members = (self.members + shift * self.n_instances).reshape(-1)
        steps = (self.offsets[1:] + shift * len(self.members)).reshape(-1)
        return Bags._trusted(members, torch.cat([self.offsets[:1], steps]), copies * self.n_instances)

    def to(self, device: torch.device | str) -> Bags:
        return Bags._trusted(self.members.to(device), self.offsets.to(device), self.n_instances)
