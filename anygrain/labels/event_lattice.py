"""Several ranges of counts on the same members, as one factor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.implied_sets import member_keys
from anygrain.labels.sets import Events, SetLabels

CELLS = 10**6  # states times members of one set
CHUNK = 2**24  # states times members held at once


class EventSets(SetLabels):
    r"""Sets that each say: for every event c, between low_c and high_c of the members are of a class in target_c.

    A member of class k moves every counter whose target holds k. A counter stops at low where there is no upper end,
    and a state past its upper end is dead, so the state is one number per event:

    .. math:: B_t(s) = \log \sum_k p_t(k) \exp B_{t+1}(s + k), \qquad
              \log P(o \mid y_t = k) = \log \sum_s \exp (F_t(s) + B_{t+1}(s + k)).

    Attributes:
        merged: the given sets that were merged, shape (G,); `merged_into` is the set here that each became.
    """

    def __init__(
        self, n_classes: int, bags: Bags, events: Events, merged: Tensor, merged_into: Tensor, said_by: Tensor
    ):
        super().__init__(n_classes, bags)
        self.said, self.merged, self.merged_into, self.said_by = events, merged, merged_into, said_by

    def factor(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        return self._factor(log_p, self._lattice(torch.ones_like(self.said.sets, dtype=torch.bool)))

    def scores_of_merged(self, log_p: Tensor) -> Tensor:
        """log P(o_g | all other evidence) of every merged set g, shape (G,): all together less all but g."""
        whole = self.factor(log_p)[0]
        rank = _rank_within(self.merged_into)
        out = torch.zeros(len(self.merged), dtype=log_p.dtype, device=log_p.device)
        for r in range(int(rank.max()) + 1):
            gone = (rank == r).nonzero()[:, 0]
            kept = ~torch.isin(self.said_by, self.merged[gone])
            rest = self._factor(log_p, self._lattice(kept))[0]
            at = self.merged_into[gone]
            out[gone] = torch.where(rest[at] > -torch.inf, whole[at] - rest[at], -torch.inf)
        return out

    @cached_property
    def _chunks(self) -> list[Tensor]:
        """Sets in runs whose tables fit in memory together."""
        cells = _states(self.said, self.sets) * self.sets.sizes
        run = cells.cumsum(0) // CHUNK
        return [(run == r).nonzero()[:, 0] for r in run.unique().tolist()]

    def _lattice(self, kept: Tensor) -> list[_Lattice]:
        events = Events(*(column[kept] for column in self.said))
        return [_Lattice.of(events, self.sets, chunk, self.n_classes) for chunk in self._chunks]

    def _factor(self, log_p: Tensor, lattices: list[_Lattice]) -> tuple[Tensor, Tensor]:
        value = log_p.new_full((len(self.sets),), -torch.inf)
        message = torch.zeros_like(log_p)
        for chunk, lattice in zip(self._chunks, lattices, strict=True):
            edges = self.sets.edges_of(chunk)
            value[chunk], message[edges] = lattice.run(log_p[edges])
        return value, message

    def log_prob_given(self, classes: Tensor) -> Tensor:
        wrong = torch.zeros(len(classes), len(self.sets), dtype=torch.bool, device=self.device)
        for c, target in enumerate(self.said.target):
            at = int(self.said.sets[c])
            count = target[classes[:, self.sets.offsets[at] : self.sets.offsets[at + 1]]].sum(dim=1)
            wrong[:, at] |= (count < self.said.low[c]) | (count > self.said.high[c])
        return torch.where(wrong, -torch.inf, 0.0).double()

    def _take(self, instances: Tensor, sets: Tensor) -> Self:
        new = super()._take(instances, sets)
        place = torch.full((len(self.sets),), -1, device=self.device)
        place[sets] = torch.arange(len(sets), device=self.device)
        kept, among = place[self.said.sets] >= 0, place[self.merged_into] >= 0
        new.said = Events(place[self.said.sets[kept]], *(column[kept] for column in self.said[1:]))
        new.merged, new.merged_into = self.merged[among], place[self.merged_into[among]]
        new.said_by = self.said_by[kept]
        return new


class _Lattice(NamedTuple):
    """Flat states of some sets, and where every way to move the counters leads."""

    set_of: Tensor  # (S,) set of each state
    start: Tensor  # (sets,) first state of each set: no count yet
    final: Tensor  # (S,) bool: all counts in range
    step: Tensor  # (W, S) state reached by way w of moving the counters; S is dead
    way: Tensor  # (sets, K) the way in which class k moves the counters
    sizes: Tensor  # (sets,) members

    @classmethod
    def of(cls, events: Events, bags: Bags, chunk: Tensor, n_classes: int) -> _Lattice:
        device, sizes = bags.members.device, bags.sizes[chunk]
        place = torch.full((len(bags),), -1, device=device)
        place[chunk] = torch.arange(len(chunk), device=device)
        mine = place[events.sets] >= 0
        at, target = place[events.sets[mine]], events.target[mine]
        low, high = events.low[mine], events.high[mine]
        digit = _rank_within(at)
        width = int(digit.max()) + 1 if len(digit) else 1
        open_end = high >= sizes[at]
        cap = torch.zeros(len(chunk), width, dtype=torch.long, device=device)
        least = torch.zeros_like(cap)
        stops = torch.ones(len(chunk), width, dtype=torch.bool, device=device)
        moves = torch.zeros(len(chunk), width, n_classes, dtype=torch.bool, device=device)
        cap[at, digit] = torch.where(open_end, low.clamp(min=0), high)
        least[at, digit], stops[at, digit], moves[at, digit] = low, open_end, target
        radix = cap + 1
        stride = radix.cumprod(dim=1) // radix
        count = radix.prod(dim=1)
        start = count.cumsum(0) - count
        set_of = torch.repeat_interleave(count)
        local = torch.arange(len(set_of), device=device) - start[set_of]
        digits = local[:, None] // stride[set_of] % radix[set_of]
        final = (digits >= least[set_of]).all(dim=1)
        code = (moves.long() << torch.arange(width, device=device)[:, None]).sum(dim=1)  # (sets, K)
        ways, way = torch.unique(code, return_inverse=True)
        step = []
        for w in ways.tolist():
            moved = digits + (torch.tensor(w, device=device) >> torch.arange(width, device=device)) % 2
            over = moved > cap[set_of]
            dead = (over & ~stops[set_of]).any(dim=1)
            to = start[set_of] + (torch.minimum(moved, cap[set_of]) * stride[set_of]).sum(dim=1)
            step.append(torch.where(dead, len(set_of), to))
        return cls(set_of, start, final, torch.stack(step), way, sizes)

    def run(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        """log P(o) of every set, and messages (E, K) for log_p (E, K)."""
        offsets = torch.cat([self.sizes.new_zeros(1), self.sizes.cumsum(0)])
        owner = torch.repeat_interleave(self.sizes)
        ways, states, longest = len(self.step), len(self.set_of), int(self.sizes.max())
        by_way = torch.stack(
            [torch.logsumexp(log_p.masked_fill((self.way != w)[owner], -torch.inf), dim=1) for w in range(ways)]
        )  # (W, E)
        dead = log_p.new_full((1,), -torch.inf)
        tail = [torch.where(self.final, log_p.new_zeros(()), dead)]
        for t in reversed(range(longest)):  # from the last member of the largest set; smaller sets end earlier
            runs = (self.sizes > t)[self.set_of]
            edge = (offsets[:-1] + t).clamp(max=len(owner) - 1)[self.set_of]
            after = torch.cat([tail[-1], dead])[self.step]
            value = torch.logsumexp(by_way[:, edge] + after, dim=0)
            tail.append(torch.where(runs, value, tail[-1]))
        tail.reverse()
        head = log_p.new_full((states,), -torch.inf)
        head[self.start] = 0.0
        said = torch.full_like(by_way, -torch.inf)
        for t in range(longest):
            live = (self.sizes > t).nonzero()[:, 0]
            runs = (self.sizes > t)[self.set_of]
            edge = (offsets[:-1] + t).clamp(max=len(owner) - 1)[self.set_of]
            through = head + torch.cat([tail[t + 1], dead])[self.step]  # (W, S)
            said[:, (offsets[:-1] + t)[live]] = _segment_logsumexp(through, self.set_of, len(self.start))[:, live]
            moved = (by_way[:, edge] + head).reshape(1, -1)
            ahead = _segment_logsumexp(moved, self.step.reshape(-1), states + 1)[0, :states]
            head = torch.where(runs, ahead, head)
        value = tail[0][self.start]
        return value, said.T.gather(1, self.way[owner])


def _segment_logsumexp(x: Tensor, segment: Tensor, n: int) -> Tensor:
    """log sum exp over the last axis of x (A, S) by segment (S,), shape (A, n)."""
    index = segment.expand(len(x), -1)
    top = x.new_full((len(x), n), -torch.inf).scatter_reduce(1, index, x, "amax")
    shift = torch.where(top == -torch.inf, torch.zeros_like(top), top)
    return x.new_zeros(len(x), n).scatter_add(1, index, (x - shift.gather(1, index)).exp()).log() + shift


def _rank_within(group: Tensor) -> Tensor:
    """Running number of every entry within its group."""
    order = torch.argsort(group, stable=True)
    ordered = group[order]
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    position = torch.arange(len(group), device=group.device)
    first = torch.where(new, position, 0).cummax(0).values if len(group) else position
    return torch.empty_like(group).scatter_(0, order, position - first)


def _states(events: Events, bags: Bags) -> Tensor:
    """Number of states of every set, capped at CELLS + 1."""
    open_end = events.high >= bags.sizes[events.sets]
    radix = torch.where(open_end, events.low.clamp(min=0), events.high) + 1
    log = torch.zeros(len(bags), dtype=torch.float64, device=radix.device)
    log.index_add_(0, events.sets, radix.double().clamp(min=1).log())
    return log.clamp(max=math.log(CELLS + 1)).exp().round().long()


def merge_events(
    parts: Sequence[SetLabels], owners: Sequence[Tensor], allowed: Tensor
) -> tuple[list[SetLabels], list[Tensor]]:
    """Replace sets of exactly the same members, which say ranges of counts, by one set that says all of them.

    Args:
        parts: set kinds over the same instances.
        owners: the given set of every set, part by part.
        allowed: bool, one per set over all parts; others stay as they are.
    """
    n_classes, n_instances = parts[0].n_classes, parts[0].n_instances
    device = parts[0].device
    speaking = [(p, e, o) for p, o in zip(parts, owners, strict=True) if (e := p.events()) is not None]
    if not speaking or sum(len(p.sets) for p, _, _ in speaking) < 2:
        return list(parts), list(owners)
    key = member_keys([p.sets for p, _, _ in speaking], n_instances)
    owner = torch.cat([o for _, _, o in speaking])
    starts = [0]
    for p, _, _ in speaking:
        starts.append(starts[-1] + len(p.sets))
    events = Events(
        torch.cat([e.sets + s for (_, e, _), s in zip(speaking, starts, strict=False)]),
        torch.cat([e.target for _, e, _ in speaking]),
        torch.cat([e.low for _, e, _ in speaking]),
        torch.cat([e.high for _, e, _ in speaking]),
    )
    _, group = torch.unique(key, dim=0, return_inverse=True)
    size = torch.cat([p.sets.sizes for p, _, _ in speaking])
    may, at = [], 0
    for part in parts:
        if any(part is p for p, _, _ in speaking):
            may.append(allowed[at : at + len(part.sets)])
        at += len(part.sets)
    usable = torch.cat(may)
    groups = int(group.max()) + 1
    # a group is merged when it has two sets or more, all of them allowed, and its lattice is small
    several = torch.bincount(group[usable], minlength=groups) > 1
    members_of = torch.zeros(groups, dtype=torch.long, device=device).scatter_reduce(0, group, size, "amax")
    open_end = events.high >= size[events.sets]
    radix = torch.where(open_end, events.low.clamp(min=0), events.high) + 1
    log_states = torch.zeros(groups, dtype=torch.float64, device=device)
    log_states.index_add_(0, group[events.sets], radix.double().clamp(min=1).log())
    digits = torch.bincount(group[events.sets], minlength=groups)
    small = (log_states + members_of.double().log() <= math.log(CELLS)) & (digits <= 60)
    chosen = usable & several[group] & small[group]
    if not bool(chosen.any()):
        return list(parts), list(owners)
    new_parts: list[SetLabels] = []
    new_owners: list[Tensor] = []
    everyone = torch.arange(n_instances, device=device)
    for part, mine in zip(parts, owners, strict=True):
        where = next((s for (p, _, _), s in zip(speaking, starts, strict=False) if p is part), None)
        kept = torch.arange(len(part.sets), device=device)
        if where is not None:
            kept = kept[~chosen[where : where + len(part.sets)]]
        new_parts.append(part if len(kept) == len(part.sets) else part._take(everyone, kept))
        new_owners.append(mine[kept])
    taken = chosen.nonzero()[:, 0]
    ids, into = torch.unique(group[taken], return_inverse=True)
    leader = torch.full((len(ids),), len(group), device=device).scatter_reduce(0, into, taken, "amin")
    all_bags = Bags._trusted(
        torch.cat([p.sets.members for p, _, _ in speaking]),
        torch.cat([size.new_zeros(1), size.cumsum(0)]),
        n_instances,
    )
    bags = all_bags.select(leader, everyone)
    place = torch.full((groups,), -1, device=device)
    place[ids] = torch.arange(len(ids), device=device)
    in_merge = chosen[events.sets]
    merged_events = Events(
        place[group[events.sets[in_merge]]], events.target[in_merge], events.low[in_merge], events.high[in_merge]
    )
    merged = EventSets(n_classes, bags, merged_events, owner[taken], into, owner[events.sets[in_merge]])
    new_parts.append(merged)
    new_owners.append(owner[leader])
    return new_parts, new_owners
