"""Joint counts of several classes in a set: exact on the lattice of partial counts while it is small."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from anygrain.labels.counting import event_counts, with_posteriors
from anygrain.labels.iprojection import bound, i_projection, tilt_to_counts
from anygrain.labels.segments import Block, Segments
from anygrain.labels.sets import FLOOR

LIMIT = 10**6  # states times members of a set up to which the lattice is walked
CHUNK = 2**21  # states times members held at once
KEPT = 2**22  # entries of move tables kept between passes

Kernel = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor, Tensor]]


class JointCountResult(NamedTuple):
    """What the class counts of sets say of the members."""

    log_likelihood: Tensor  # (M,) log P(counts); -inf: impossible
    message: Tensor  # (E, K) log P(counts | y_i = k) - reference
    reference: Tensor  # (M,) log P(counts) where that is finite


class CountPlan:
    """How each set's counts are computed; made once for given sets and counts.

    The unknown classes of a set are lumped into one column whose count is what is left. Columns of count 0 drop out;
    of the others the largest comes first and takes no digit.

    Args:
        offsets: (M + 1,), or `Segments` made of it.
        counts: (M, K) integers, -1 not known.

    Attributes:
        columns: (M, C) which of the K classes, K for the lump, K + 1 for none; the first column takes no digit.
        numbers: (M, C) the counts of these columns.
        broken: (M,) bool: the counts do not fit the size of the set.
        silent: (M,) bool: no count is known.
    """

    def __init__(self, offsets: Tensor | Segments, counts: Tensor):
        self.segments = Segments.of(offsets)
        sizes = self.segments.sizes
        self.unknown = counts < 0
        known = counts.clamp(min=0)
        rest = sizes - known.sum(dim=1)
        self.silent = self.unknown.all(dim=1)
        self.broken = ((rest < 0) | ((rest > 0) & ~self.unknown.any(dim=1))) & ~self.silent
        every = torch.cat([known, rest.clamp(min=0)[:, None]], dim=1)
        numbers, columns = every.sort(dim=1, descending=True, stable=True)
        usable = ~(self.broken | self.silent)
        widest = int(((numbers > 0) & usable[:, None]).sum(dim=1).max()) if len(sizes) else 0
        width = max(widest, 2)
        if numbers.shape[1] < width:
            numbers = torch.cat([numbers, numbers.new_zeros(len(numbers), 1)], dim=1)
            columns = torch.cat([columns, columns.new_zeros(len(columns), 1)], dim=1)
        self.numbers = numbers[:, :width]
        self.columns = torch.where(self.numbers > 0, columns[:, :width], counts.shape[1] + 1)
        digits = (self.numbers[:, 1:] > 0).sum(dim=1)
        log_states = torch.log1p(self.numbers[:, 1:].double()).sum(dim=1)
        small = log_states + torch.log(sizes.clamp(min=1).double()) <= math.log(LIMIT) + 1e-9
        self._by_event = (usable & (digits <= 1)).nonzero()[:, 0]
        self._by_lattice = (usable & (digits > 1) & small).nonzero()[:, 0]
        self._by_projection = (usable & (digits > 1) & ~small).nonzero()[:, 0]
        self._states = log_states.exp().round().long()

    @property
    def exact(self) -> bool:
        """No set is beyond the lattice."""
        return len(self._by_projection) == 0

    @cached_property
    def events(self) -> list[Block]:
        """Sets of two columns: one event, at any size."""
        return self.segments.blocks_of(self._by_event)

    @cached_property
    def projections(self) -> list[Block]:
        """Sets beyond the lattice."""
        return [part for block in self.segments.blocks_of(self._by_projection) for part in self._split(block, None)]

    @cached_property
    def lattices(self) -> Lattices:
        """Sets on the lattice, of similar size and number of states."""
        blocks = []
        level = torch.ceil(torch.log2(self._states[self._by_lattice].double())).long()
        for one in level.unique(sorted=True).tolist():
            for block in self.segments.blocks_of(self._by_lattice[level == one]):
                states = int(block.pick(self._states).max())
                blocks += self._split(block, states)
        return Lattices([(block, block.pick(self.numbers)) for block in blocks])

    def _split(self, block: Block, states: int | None) -> list[Block]:
        """Parts of a block that are held in memory at once."""
        most = max(1, CHUNK // (block.shape[1] * (states or self.columns.shape[1])))
        bags = block.pick(torch.arange(len(self.segments), device=self.columns.device))
        return [b for part in bags.split(most) for b in self.segments.blocks_of(part)]


class Lattice:
    """Partial counts of B sets as numbers in mixed radix, n_k + 1 for every digit, and the moves between them.

    A long set with few states is cut into G runs of L members, which are walked side by side and joined through
    products of their polynomials.

    Args:
        numbers: (B, C) counts; the first column takes no digit.
        n: members of the longest set.
        one_run: do not cut, as weights over all states at the end of the walk need.
    """

    def __init__(self, numbers: Tensor, n: int, *, one_run: bool = False):
        radix = numbers[:, 1:] + 1
        stride = torch.cat([torch.ones_like(radix[:, :1]), radix.cumprod(dim=1)[:, :-1]], dim=1)
        self.size = radix.prod(dim=1)  # (B,)
        self.states = nowhere = int(self.size.max())
        self.runs = 1 if one_run or n <= 128 else max(1, min(int(math.sqrt(n)), n // (4 * self.states)))
        self.length = -(-n // self.runs)
        flat = torch.arange(self.states, device=numbers.device)
        # states stand in the order of their total, so that those of use after i members are a range
        digit = flat[:, None] // stride[:, None] % radix[:, None]  # (B, S, D)
        beyond = int(radix.sum(dim=1).max())
        level, order = torch.where(flat < self.size[:, None], digit.sum(dim=2), beyond).sort(dim=1, stable=True)
        place = torch.nn.functional.pad(
            torch.empty_like(order).scatter_(1, order, flat.expand_as(order)), (0, 1), value=nowhere
        )
        self.inside = flat < self.size[:, None]
        digit = digit.gather(1, order[..., None].expand_as(digit))
        self.digits = torch.where(self.inside[..., None], digit, 0)  # (B, S, D)

        def where(allowed: Tensor, number: Tensor) -> Tensor:
            shape, number = number.shape, torch.where(allowed, number, nowhere)
            return place.gather(1, number.flatten(1)).view(shape)

        # where a state came from, and goes to, by one more of each digit: (B, S, D); `nowhere` is an empty place
        here, inside = order[..., None], self.inside[..., None]
        self.source = where((digit > 0) & inside, here - stride[:, None])
        self.target = where((digit < radix[:, None] - 1) & inside, here + stride[:, None])
        # the state that is left to reach: n - s
        self.left = where(self.inside, (self.size - 1)[:, None] - order)
        self.difference = None
        if self.runs > 1:
            fits = (digit[:, :, None] >= digit[:, None]).all(dim=-1) & inside & self.inside[:, None]
            self.difference = where(fits, here - order[:, None])  # (B, S, S)
        # ranges of states that i members can have made, and that the rest can still complete
        steps = torch.arange(self.length + 1, device=numbers.device).expand(len(numbers), -1).contiguous()
        last = torch.searchsorted(level, steps, right=True).amax(dim=0)
        first = torch.zeros_like(last)
        if self.runs == 1 and not one_run:
            missing = (radix - 1).sum(dim=1, keepdim=True) - (n - steps)
            first = torch.searchsorted(level, missing).amin(dim=0)
        self.ranges = list(zip(first.tolist(), last.clamp(max=self.states).tolist(), strict=True))

    def times(self, a: Tensor, b: Tensor) -> Tensor:
        """Product (B, S) of two polynomials (B, S), cut to the lattice."""
        assert self.difference is not None
        wide = torch.nn.functional.pad(b, (0, 1))
        shifted = wide.gather(1, self.difference.flatten(1)).view(len(b), self.states, self.states)
        return (shifted @ a[..., None])[..., 0]

    def walk(self, q: Tensor, end: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Q(counts) (B,), and Q(counts | y_i = c) (B, n, C), for tilted probabilities q (B, n, C).

        With weights `end` (B, S) of all states (one run), their expectation instead.
        """
        sets, n, c = q.shape
        short = self.runs * self.length - n
        if short:
            pad = q.new_zeros(sets, short, c)
            pad[..., 0] = 1.0
            q = torch.cat([q, pad], dim=1)
        runs = sets * self.runs
        q = q.view(runs, self.length, c)
        source, target = self.source, self.target
        if self.runs > 1:
            source, target = (t.repeat_interleave(self.runs, dim=0) for t in (source, target))
        forward = q.new_zeros(self.length + 1, runs, self.states + 1)
        forward[0, :, 0] = 1.0
        for i, (first, last) in enumerate(self.ranges[1:]):
            p = q[:, i, :, None]
            moved = forward[i].gather(1, source[:, first:last].flatten(1)).view(runs, -1, c - 1)
            step = torch.bmm(moved, p[:, 1:])[..., 0]
            forward[i + 1, :, first:last] = torch.addcmul(step, forward[i, :, first:last], p[:, 0])
        backward = torch.nn.functional.pad(self._context(forward[-1, :, :-1]) if end is None else end, (0, 1))
        given = torch.empty_like(q)
        total = (forward[-1] * backward).sum(dim=1).view(sets, self.runs)[:, 0]
        for i in reversed(range(self.length)):
            first, last = self.ranges[i]
            p, here, stay = q[:, i, :, None], forward[i, :, None, first:last], backward[:, first:last]
            moved = backward.gather(1, target[:, first:last].flatten(1)).view(runs, -1, c - 1)
            given[:, i, :1] = torch.bmm(here, stay[..., None])[:, 0]
            given[:, i, 1:] = torch.bmm(here, moved)[:, 0]
            before = torch.zeros_like(backward)
            before[:, first:last] = torch.addcmul(torch.bmm(moved, p[:, 1:])[..., 0], stay, p[:, 0])
            backward = before
        return total, given.view(sets, -1, c)[:, :n]

    def _context(self, ends: Tensor) -> Tensor:
        """What lies outside of every run, read at what the run leaves to reach: (B * G, S)."""
        sets = len(self.left)
        ends = ends.view(sets, self.runs, self.states)
        unit = torch.zeros_like(ends[:, 0])
        unit[:, 0] = 1.0
        outside = [unit] * self.runs
        for order in (range(self.runs - 1), range(self.runs - 1, 0, -1)):
            product = unit
            for g in order:
                product = self.times(product, ends[:, g])
                beside = g + 1 if order.step > 0 else g - 1
                outside[beside] = product if outside[beside] is unit else self.times(outside[beside], product)
        wide = torch.nn.functional.pad(torch.stack(outside, dim=1), (0, 1))
        left = self.left[:, None].expand(-1, self.runs, -1)
        return wide.gather(2, left).reshape(-1, self.states)


class Lattices:
    """Blocks of sets and their lattices; tables that are large together are made anew for every pass.

    Args:
        blocks: sets, and the counts (B, C) that span the lattice of each.
        one_run: see `Lattice`.
    """

    def __init__(self, blocks: list[tuple[Block, Tensor]], *, one_run: bool = False):
        self.blocks, self.one_run = blocks, one_run
        entries = sum(int((numbers[:, 1:] + 1).prod(dim=1).max()) * numbers.numel() for _, numbers in blocks)
        self._kept = None if entries > KEPT else [self._make(block, numbers) for block, numbers in blocks]

    def __len__(self) -> int:
        return len(self.blocks)

    def __iter__(self) -> Iterator[tuple[Block, Lattice]]:
        for at, (block, numbers) in enumerate(self.blocks):
            yield block, self._make(block, numbers) if self._kept is None else self._kept[at]

    def _make(self, block: Block, numbers: Tensor) -> Lattice:
        return Lattice(numbers, block.shape[1], one_run=self.one_run)


def joint_counts(
    log_p: Tensor,
    offsets: Tensor | Segments,
    counts: Tensor,
    plan: CountPlan | None = None,
    *,
    keep_impossible: bool = False,
) -> JointCountResult:
    r"""The class counts of every set, jointly.

    .. math:: P(n) = \sum_{y} \prod_i p_i(y_i) \prod_k \Big[ \sum_i [y_i = k] = n_k \Big]

    One digit (two classes, or one known class) is an event count, exact at every size. Several digits are exact by a
    forward-backward pass over the lattice of partial counts while states times members is at most 10^6, on
    probabilities tilted to the counts; beyond, the I-projection.

    Args:
        log_p: (E, K) normalised log-probabilities; -inf is welcome.
        offsets: (M + 1,), or `Segments` made of it.
        counts: (M, K) integers, -1 not known.
        plan: made before of the same offsets and counts.
        keep_impossible: give the messages of an impossible set too, relative to another reference, for counts that
            may be wrong; else they are 0.

    Returns:
        log P (M,), differentiable; messages (E, K) relative to it.
    """
    plan = plan or CountPlan(offsets, counts)
    segments = plan.segments
    given, log_p = log_p, log_p.detach()
    classes = log_p.shape[1]
    # the lump of the unknown classes, and a column that nothing can be
    unknown = plan.unknown[segments.index]
    lump = torch.logsumexp(log_p.masked_fill(~unknown, -torch.inf), dim=1, keepdim=True)
    wide = torch.cat([log_p, lump, torch.full_like(lump, -torch.inf)], dim=1)
    message = torch.full_like(wide, -torch.inf)
    value = log_p.new_zeros(len(segments)).masked_fill(plan.broken, -torch.inf)
    reference = log_p.new_zeros(len(segments))

    jobs: Iterator[tuple[Block, Kernel]] = chain(
        ((block, _by_event) for block in plan.events),
        ((block, partial(_by_lattice, lattice=lattice)) for block, lattice in plan.lattices),
        ((block, _by_projection) for block in plan.projections),
    )
    for block, kernel in jobs:
        places = block.pick(plan.columns)[:, None].expand(-1, block.shape[1], -1)
        table = block.lay(wide, -torch.inf).gather(2, places)
        numbers = block.pick(plan.numbers)
        if block.filled is not None:  # empty places are certain to be in the first column
            table[..., 0] = table[..., 0].masked_fill(~block.filled, 0.0)
            numbers = torch.cat([numbers[:, :1] + (~block.filled).sum(dim=1, keepdim=True), numbers[:, 1:]], dim=1)
        if keep_impossible:  # a member that can be in no column must not hide what the others say
            table = torch.where(torch.isneginf(table).all(dim=2, keepdim=True), FLOOR, table)
        of_sets, base, said = kernel(table, numbers, keep_impossible)
        block.place(value, of_sets)
        block.place(reference, base)
        out = torch.full((*block.shape, wide.shape[1]), -torch.inf, dtype=wide.dtype, device=wide.device)
        block.write(message, out.scatter_(2, places, said))
    message = torch.where(unknown, message[:, classes : classes + 1], message[:, :classes])
    nothing = plan.silent if keep_impossible else plan.silent | torch.isneginf(value)
    message = message.masked_fill(nothing[segments.index][:, None], 0.0)
    if given.requires_grad:
        possible = (value > -torch.inf)[segments.index][:, None]
        value = with_posteriors(value, segments, given, torch.exp(log_p + message) * possible)
    return JointCountResult(value, message, reference)


def _by_event(log_p: Tensor, numbers: Tensor, keep_impossible: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Two columns: log P (B,), its reference, and messages (B, n, C) relative to that."""
    sets, n, width = log_p.shape
    offsets = torch.arange(sets + 1, device=log_p.device) * n
    no, yes = log_p[..., 0].reshape(-1, 1), log_p[..., 1].reshape(-1, 1)
    found = event_counts(yes, no, offsets, numbers[:, 1:2], keep_impossible=keep_impossible)
    having = found.having
    message = torch.cat([found.without, having, having.expand(-1, width - 2)], dim=1).view(sets, n, width)
    return found.log_likelihood[:, 0], found.reference[:, 0], message


def _by_lattice(
    log_p: Tensor, numbers: Tensor, keep_impossible: bool, *, lattice: Lattice
) -> tuple[Tensor, Tensor, Tensor]:
    """Several digits on the lattice: as `_by_event`."""
    dtype = log_p.dtype
    precise = log_p if log_p.device.type == "mps" else log_p.double()
    if keep_impossible:
        precise = torch.where((numbers > 0)[:, None], precise.clamp(min=FLOOR), precise)
    tilted = tilt_to_counts(precise, numbers, within=0.3)
    total, given = lattice.walk(tilted.log_q.exp())
    impossible = total <= 0
    value = (bound(tilted, numbers) + torch.log(total)).masked_fill(impossible, -torch.inf)
    message = torch.log(given / total[:, None, None]) + tilted.tilt[:, None] - tilted.log_z[..., None]
    message = message.masked_fill(impossible[:, None, None], 0.0)
    return value.to(dtype), value.masked_fill(impossible, 0.0).to(dtype), message.to(dtype)


def _by_projection(log_p: Tensor, numbers: Tensor, keep_impossible: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Beyond the lattice, approximately: as `_by_event`."""
    dtype = log_p.dtype
    precise = log_p if log_p.device.type == "mps" else log_p.double()
    if keep_impossible:
        precise = torch.where((numbers > 0)[:, None], precise.clamp(min=FLOOR), precise)
    value, message = i_projection(precise, numbers)
    return value.to(dtype), value.masked_fill(torch.isneginf(value), 0.0).to(dtype), message.to(dtype)
