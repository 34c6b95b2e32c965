"""Event counts of a set: at least one member, exactly so many, or a range of them, have an event."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from anygrain.labels.segments import Segments

NEWTON = 24  # steps of the tilt; three to five settle all but hard cases
CHUNK = 2**21  # members times problems times nodes held at once
NARROW = 0.2  # variance of a tilted count below which its neighbours are read elsewhere
TAIL = {torch.float64: 40.0, torch.float32: 21.0}  # -log of the mass that aliasing and cut-off may cost


class AnyOfResult(NamedTuple):
    """What "at least one" or "none" says of the members."""

    log_likelihood: Tensor  # (M,) log P(o); -inf: impossible
    message: Tensor  # (E, 2) log P(o | y_i = not target, target); 0 in an impossible bag


class EventCountResult(NamedTuple):
    """What a count says of the members, for C events at once."""

    log_likelihood: Tensor  # (M, C) log P(count); -inf: impossible
    without: Tensor  # (E, C) log P(count | member i does not have the event) - reference
    having: Tensor  # (E, C) log P(count | member i has the event) - reference
    reference: Tensor  # (M, C) log P(count) where that is finite


class _WithPosterior(torch.autograd.Function):
    """A log-likelihood (M, ...) with its gradient, posteriors (E, ...) of the members, in each of several log_p."""

    @staticmethod
    def forward(ctx, value, index, *pairs):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(index, *pairs[1::2])
        return value.view_as(value)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        index, *slopes = ctx.saved_tensors
        out = [None, None]
        for slope in slopes:
            out += [grad[index] * slope if slope.ndim == grad.ndim else grad[index][:, None] * slope, None]
        return tuple(out)


def with_posteriors(value: Tensor, segments: Segments, *pairs: Tensor) -> Tensor:
    """Give `value` (M, ...) its gradient: pairs are log_p (E, ...) and the posterior that is its slope."""
    out: Tensor = _WithPosterior.apply(value, segments.index, *pairs)  # type: ignore[no-untyped-call]
    return out


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - exp(-x)) for x >= 0, to full relative precision for small and for large x."""
    small = x < math.log(2.0)
    return torch.where(small, torch.log(-torch.expm1(-x)), torch.log1p(-torch.exp(-x)))


def mix_error(
    value: Tensor, message: Tensor, error: float, outcomes: Tensor | float, index: Tensor, unknown: Tensor
) -> tuple[Tensor, Tensor]:
    r"""An observation that was drawn without regard to the truth with probability `error`.

    .. math:: P'(o \mid y) = (1 - \epsilon) P(o \mid y) + \epsilon / |O|

    Args:
        value, message: log P(o) (M,) and log P(o | y_i = k) (E, K), also of an impossible set.
        error: in (0, 1).
        outcomes: number of possible observations |O|, or one number per set (M,).
        index: set of every member (E,).
        unknown: bool (M,), sets that say nothing and stay silent.
    """
    kept = math.log1p(-error)
    drawn = math.log(error) - torch.as_tensor(outcomes, dtype=value.dtype, device=value.device).log().expand(
        value.shape
    )
    mixed = torch.logaddexp(value + kept, drawn)
    message = torch.logaddexp(message + kept, drawn[index][:, None])
    return mixed.masked_fill(unknown, 0.0), message.masked_fill(unknown[index][:, None], 0.0)


def any_of(log_p: Tensor, offsets: Tensor | Segments, present: Tensor) -> AnyOfResult:
    r"""At least one member of each bag has the event, or none has.

    .. math:: P(\text{none}) = \prod_i p_i(0), \quad P(\text{any}) = 1 - e^{-H}, \quad
              P(\text{any} \mid y_i = 0) = 1 - e^{-H_{-i}}, \quad H = \sum_i h_i,\; h_i = -\log p_i(0)

    :math:`h_i` comes from p_i(1) where that is the smaller, so probabilities of 1e-30 and beyond keep their digits;
    :math:`H_{-i}` never subtracts the largest h of a bag from a sum that holds it.

    Args:
        log_p: normalised log-probabilities (E, 2) of "not the event" and "the event"; -inf is welcome.
        offsets: (M + 1,), or `Segments` made of it.
        present: (M,) 1 or True at least one, 0 or False none, -1 not known.

    Returns:
        log P(o) (M,), differentiable, and log P(o | y_i) (E, 2).
    """
    segments = Segments.of(offsets)
    flat = log_p.detach()
    present = present.to(torch.int8)
    value, message = flat.new_zeros(len(segments)), torch.empty_like(flat)
    for block in segments.blocks:
        no, yes = block.lay(flat[:, 0], 0.0), block.lay(flat[:, 1], -torch.inf)
        of_bags, without, having = _any_of_block(no.contiguous(), yes.contiguous(), block.pick(present))
        block.place(value, of_bags)
        block.write(message[:, 0], without)
        block.write(message[:, 1], having)
    if log_p.requires_grad:
        spread = value[segments.index][:, None]
        slope = torch.exp(flat + message - spread).masked_fill(spread == -torch.inf, 0.0)
        value = with_posteriors(value, segments, log_p, slope)
    return AnyOfResult(value, message)


def _any_of_block(no: Tensor, yes: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`any_of` for a table of log p (S, n) and present (S,): log P (S,), messages "not" and "is" (S, n)."""
    info = torch.finfo(no.dtype)
    cap = info.max**0.8  # stands for infinity where differences are taken
    # a bag whose probabilities are all below eps is counted in units of its largest
    largest = yes.amax(dim=1, keepdim=True)
    shifted = largest < math.log(info.eps)
    shift = torch.where(shifted, largest.clamp(min=info.min), 0.0)
    unit = torch.exp(yes - shift)
    hazard = torch.where(no > -0.01, -torch.log1p(-unit), -no)
    hazard = torch.where(shifted, unit, hazard).clamp_(max=cap)
    # sums without each member: the largest is never subtracted from a sum that holds it
    top, at = hazard.max(dim=1, keepdim=True)
    rest = hazard.scatter(1, at, 0.0).sum(dim=1, keepdim=True)
    total = rest + top
    without = (total - hazard).scatter_(1, at, rest)
    log_any = torch.where(shifted, shift + torch.log(total), log1mexp(total))
    log_none = (-total * torch.exp(shift)).masked_fill(total >= cap, -torch.inf)
    wanted, unknown = (present > 0)[:, None], (present < 0)[:, None]
    value = torch.where(wanted, log_any, log_none).masked_fill(unknown, 0.0)
    silent = unknown | (value == -torch.inf)
    any_without = torch.log(torch.where(shifted, without, -torch.expm1(-without))) + shift
    none_without = -without * torch.exp(shift)
    lacking = torch.where(wanted, any_without, none_without).masked_fill_(silent, 0.0)
    having = torch.where(wanted | silent, 0.0, -torch.inf).to(no.dtype).expand_as(no)
    return value[:, 0], lacking, having


def nodes_needed(tail: float, windows: int = 1) -> int:
    """Most nodes needed over all variances of the tilted count, for one count, or for a range two windows wide."""
    variance = torch.logspace(-3, 8, 2000, dtype=torch.float64)
    n = windows * _window(variance, tail)
    return int(_cut(variance, n + 1.0, tail).max()) + 1


def _window(variance: Tensor, tail: float) -> Tensor:
    """Number of counts around the mean that hold all but e^-tail of the mass (Bernstein), and two to spare."""
    return 2.0 + tail / 3.0 + torch.sqrt(tail * tail / 9.0 + 2.0 * tail * variance)


def _cut(variance: Tensor, n: Tensor, tail: float) -> Tensor:
    """Largest node of n with |characteristic function| <= exp(-2 variance sin^2(angle / 2)) above e^-tail."""
    reach = torch.asin(torch.sqrt((tail / (2.0 * variance)).clamp(max=1.0))) * 2.0
    return torch.minimum(reach * n / (2.0 * math.pi), (n - 1.0) / 2.0)


NODES = {dtype: nodes_needed(tail) for dtype, tail in TAIL.items()}
RANGE_NODES = {dtype: nodes_needed(tail, 2) for dtype, tail in TAIL.items()}


def tilt_to_count(odds: Tensor, target: Tensor, ones: Tensor, free: Tensor) -> Tensor:
    r"""The tilt :math:`\lambda` (P,) at which :math:`\sum_i \sigma(a_i + \lambda)` is the target.

    To within a tenth of its variance; where that is next to nothing, to within a quarter: it is a staircase there.

    Newton's method on the log-odds of the mean, exact in one step for equal members, inside a bracket that always
    holds the root.

    Args:
        odds: log-odds a (P, n) of the event; infinite ones are certain.
        target: (P,) count to reach with the members that are not certain, strictly between 0 and their number.
        ones, free: (P,) how many members are certain to have the event, and how many are not certain.
    """
    certain = torch.isinf(odds)
    high = odds.masked_fill(certain, -torch.inf).amax(dim=1)
    low = odds.masked_fill(certain, torch.inf).amin(dim=1)
    wanted = torch.log(target / (free - target))
    has_free = free > 0
    left = torch.where(has_free, wanted - high, 0.0)
    right = torch.where(has_free, wanted - low, 0.0)
    tilt = torch.maximum(torch.minimum(torch.zeros_like(left), right), left)
    early = odds.device.type == "cpu"  # elsewhere the number of steps is fixed: to ask would stall the device
    for _ in range(NEWTON):
        q = torch.sigmoid(odds + tilt[:, None])
        mean = q.sum(dim=1) - ones
        short = mean < target
        variance = torch.addcmul(q, q, q, value=-1).sum(dim=1)
        if early:
            miss = (mean - target).abs()
            close = (miss < 0.1 * variance) | ((miss < 0.25) & (variance < NARROW)) | ~has_free
            if bool(close.all()):
                break
        left = torch.where(short, tilt, left)
        right = torch.where(short, right, tilt)
        spare = free - mean
        step = tilt + (wanted - torch.log(mean / spare)) * (mean * spare / (free * variance))
        inside = (step > left) & (step < right)
        tilt = torch.where(inside, step, (left + right) / 2)
    return tilt


def _product(table: Tensor) -> Tensor:
    """Product over dim 1, by halves."""
    while (n := table.shape[1]) > 1:
        half = n // 2
        rest = table[:, 2 * half :]
        table = table[:, :half] * table[:, half : 2 * half]
        if n % 2:
            table[:, :1] *= rest
    return table[:, 0]


class _Tilted(NamedTuple):
    """P problems read off one tilted law, in units of e^base."""

    base: Tensor  # (P,)
    mass: Tensor  # (P,) P(count)
    without: Tensor  # (P, n) log P(count | member i does not have the event)
    having: Tensor  # (P, n) log P(count | member i has the event)
    variance: Tensor  # (P,) of the tilted count


class _Range(NamedTuple):
    """Counts of P problems, both ends included; `high` None where they are one count each."""

    low: Tensor  # (P,)
    high: Tensor | None

    def of(self, problems: Tensor) -> _Range:
        return _Range(self.low[problems], None if self.high is None else self.high[problems])


class _Aim(NamedTuple):
    """The expected count of the members that are not certain, to which a law is tilted."""

    target: Tensor  # (P,)
    end: Tensor  # (P,) of the range that it is at: 1 the low one, -1 the high one, 0 neither, so that nothing is tilted

    def of(self, problems: Tensor) -> _Aim:
        return _Aim(self.target[problems], self.end[problems])


def _tilted_law(
    yes: Tensor, no: Tensor, odds: Tensor, counts: _Range, aim: _Aim, ones: Tensor, free: Tensor
) -> _Tilted:
    """The law at the counts, tilted to its aim.

    Of a range the end that the tilt leads to is read first: further in, the weights e^(-tilt * count) fall.
    """
    n, dtype = yes.shape[1], yes.dtype
    tilt = tilt_to_count(odds, aim.target, ones, free)
    if counts.high is not None:
        tilt = aim.end * (aim.end * tilt).clamp(min=0.0)
    moved = odds + tilt[:, None]
    q, r = torch.sigmoid(moved), torch.sigmoid(-moved)
    log_z = torch.logaddexp(no, yes + tilt[:, None])
    v = q * r
    # the trapezoidal rule over the characteristic function
    tail = TAIL[dtype]
    variance = v.sum(dim=1)
    window = _window(variance, tail)
    if counts.high is None:
        count = counts.low
        terms = torch.ones_like(count)
        nodes = torch.minimum(window, free + 1.0)
        kept = min((n + 1) // 2 + 1, NODES[dtype])
    else:
        low, high = counts.low, counts.high
        mean = q.sum(dim=1)
        middle = torch.maximum(low, torch.floor(mean - window))
        count = torch.where(aim.end > 0, low, torch.where(aim.end < 0, high, middle))
        # no further than the mass goes: what lies beyond would be read off its other side, the nodes being few
        reach = torch.where(aim.end == 0, mean - count, 0.0) + window
        terms = 1.0 + torch.minimum(torch.where(aim.end < 0, count - low, high - count), reach).floor()
        # a certain member that is taken for its opposite moves the law by one
        nodes = torch.minimum(window + torch.minimum(terms, window), free + 3.0)
        kept = min((n + 3) // 2 + 1, RANGE_NODES[dtype])
    nodes = 2.0 * torch.floor(nodes / 2.0) + 1.0  # odd: no node at an angle of pi, where a factor may be zero
    k = torch.arange(kept, dtype=dtype, device=yes.device)
    last = (nodes[:, None] - 1.0) / 2.0
    angle = torch.minimum(k, last) * (2.0 * math.pi / nodes)[:, None]
    weight = (k <= last).to(dtype) * (2.0 / nodes)[:, None]
    weight[:, 0] *= 0.5
    cos, sin = torch.cos(angle), torch.sin(angle)
    real = torch.addcmul(r[:, :, None], q[:, :, None], cos[:, None, :])
    law = _product(torch.complex(real, q[:, :, None] * sin[:, None, :]))
    law = law * torch.polar(weight, -angle * count[:, None])
    if counts.high is not None:
        law = law * _geometric(
            tilt.abs()[:, None], torch.where(aim.end < 0, -1.0, 1.0)[:, None] * angle, terms[:, None]
        )
    a, b = law.real, law.imag
    # leave one out: divide by its factor 1 - q + q e^{i angle}; its square is 1 - 2 v (1 - cos)
    one = torch.ones((), dtype=dtype, device=yes.device)
    inverse = torch.addcmul(one, v[:, :, None], (2.0 - 2.0 * cos)[:, None, :], value=-1.0).reciprocal_()
    same, up, down = (inverse @ torch.stack([a, cos * a + sin * b, cos * a - sin * b], dim=2)).unbind(dim=2)
    floor = torch.finfo(dtype).eps ** 1.1
    tilted = tilt[:, None]
    return _Tilted(
        (log_z - tilted * q).sum(dim=1) + tilt * (q.sum(dim=1) - count),
        a.sum(dim=1).clamp(min=floor),
        torch.log((r * same + q * up).clamp(min=floor)) - log_z,
        torch.log((r * down + q * same).clamp(min=floor)) + tilted - log_z,
        variance,
    )


def _geometric(decay: Tensor, angle: Tensor, terms: Tensor) -> Tensor:
    """The sum over j < terms (P, 1) of exp(-j (decay + i angle)), for decay (P, 1) and angles (P, N)."""

    def one_less_power(m: Tensor | float) -> Tensor:  # 1 - exp(-m (decay + i angle)), precise where it is small
        size = torch.exp(-m * decay)
        real = -torch.expm1(-m * decay) + size * 2.0 * torch.sin(m * angle / 2.0) ** 2
        return torch.complex(real, size * torch.sin(m * angle))

    ratio = one_less_power(1.0)
    return torch.where(ratio == 0, terms.to(ratio.dtype), one_less_power(terms) / ratio)


def _count_block(yes: Tensor, no: Tensor, counts: _Range) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """P problems of n members each, log p (P, n) twice and counts, all of them known.

    Returns:
        log P (P,), the reference (P,) that messages are relative to (log P where it is finite), and messages (P, n).
    """
    n, dtype = yes.shape[1], yes.dtype
    odds = yes - no
    nowhere = torch.isnan(odds)  # a member that can do neither
    odds = odds.masked_fill(nowhere, 0.0)
    sure, never = odds == torch.inf, odds == -torch.inf
    ones = sure.sum(dim=1, dtype=dtype)
    free = n - ones - never.sum(dim=1, dtype=dtype)
    low = counts.low.to(dtype)
    high = low if counts.high is None else counts.high.to(dtype)
    least, most = low - ones, high - ones
    possible = (most >= 0) & (least <= free) & ~nowhere.any(dim=1)
    top = (free - 0.5).clamp(min=0.5)
    if counts.high is None:
        counts, mean = _Range(low, None), least
    else:
        counts = _Range(torch.maximum(low, ones - 1.0), torch.minimum(high, ones + free + 1.0))
        mean = torch.sigmoid(odds).sum(dim=1) - ones

    def aim(step: float) -> _Aim:
        """The mean where it lies in the range, moved by a step, else the nearer end.

        An end that all counts reach is none: the law would be tilted away from it.
        """
        end = ((mean <= least + step) & (least + step >= 0.5)).to(dtype)
        end = torch.where((mean >= most + step) & (most + step <= top) & (end == 0), -1.0, end)
        target = torch.maximum(torch.minimum(mean, most + step), least + step)
        return _Aim(torch.minimum(target.clamp(min=0.5), top), end)

    law = _tilted_law(yes, no, odds, counts, aim(0.0), ones, free)
    # counts that leave no choice have one term: no rounding of a sum over nodes
    full = least >= free
    forced = torch.where(sure | (full[:, None] & ~never), yes, no).sum(dim=1)
    value = torch.where(full | (most <= 0), forced, law.base + torch.log(law.mass))
    reference = torch.where(possible, value, law.base)
    offset = (law.base - reference)[:, None]
    without, having = law.without + offset, law.having + offset
    # where one count has nearly all the mass, its neighbours are read from laws tilted half a count down and up
    narrow = (law.variance < NARROW).nonzero()[:, 0]
    if len(narrow):
        few = yes[narrow], no[narrow], odds[narrow], counts.of(narrow)
        for step, out in ((-0.5, having), (0.5, without)):
            near = _tilted_law(*few, aim(step).of(narrow), ones[narrow], free[narrow])
            said = near.having if step < 0 else near.without
            out[narrow] = said + (near.base - reference[narrow])[:, None]
    # what the other members can still make up
    certain = (sure | never).to(dtype)
    others = free[:, None] - 1.0 + certain
    fewest, greatest = (end[:, None] + sure.to(dtype) for end in (least, most))
    without = without.masked_fill((greatest < 0) | (fewest > others), -torch.inf)
    having = having.masked_fill((greatest < 1) | (fewest - 1 > others), -torch.inf)
    nothing = nowhere.any(dim=1)
    return (
        value.masked_fill(~possible, -torch.inf),
        reference.masked_fill(nothing, 0.0),
        without.masked_fill(nothing[:, None], -torch.inf),
        having.masked_fill(nothing[:, None], -torch.inf),
    )


def _parts(shape: tuple[int, int], events: int, nodes: int) -> Iterator[tuple[slice, slice]]:
    """Bags and events of a block in parts of about CHUNK entries."""
    bags, n = shape
    most = max(1, CHUNK // (n * min((n + 1) // 2 + 1, nodes)))  # problems at once
    columns = min(events, most)
    rows = max(1, most // columns)
    for bag in range(0, bags, rows):
        for event in range(0, events, columns):
            yield slice(bag, bag + rows), slice(event, event + columns)


def event_counts(
    log_yes: Tensor,
    log_no: Tensor,
    offsets: Tensor | Segments,
    counts: Tensor,
    *,
    keep_impossible: bool = False,
) -> EventCountResult:
    r"""Exactly `counts[m, c]` members of bag m have event c, each event by itself.

    With the tilt :math:`\lambda` that brings the expected count to the observed s,

    .. math:: P(S = s) = e^{-\lambda s} \prod_i Z_i \; Q(S = s), \quad Z_i = p_i(0) + p_i(1) e^\lambda, \quad
              q_i = p_i(1) e^\lambda / Z_i, \quad
              Q(S = s) = \frac1N \sum_{k < N} e^{-i \theta_k s} \prod_i (1 - q_i + q_i e^{i \theta_k})

    at :math:`\theta_k = 2 \pi k / N`. Since s is where Q has its mass, the trapezoidal rule loses no digits; N need
    only exceed the width of Q, and nodes where the product is below e^-40 are left out, so at most 25 or so remain
    whatever the number of members: time and memory O(E). One member left out is one factor divided away.

    Args:
        log_yes, log_no: (E, C) log-probabilities that member i has event c, and has not; -inf is welcome, and they
            need not sum to one (what is missing is mass that the observation rules out).
        offsets: (M + 1,), or `Segments` made of it.
        counts: (M, C) integers, -1 not known.
        keep_impossible: give the messages of an impossible bag too, relative to another reference, for counts that
            may be wrong; else they are 0.

    Returns:
        log P (M, C), differentiable, and the messages (E, C) relative to it; the log-likelihood has the relative, the
        posteriors :math:`p e^{message}` the absolute precision of the dtype.
    """
    return _counts(log_yes, log_no, Segments.of(offsets), counts, None, keep_impossible)


def range_counts(
    log_yes: Tensor,
    log_no: Tensor,
    offsets: Tensor | Segments,
    low: Tensor,
    high: Tensor,
    *,
    keep_impossible: bool = False,
) -> EventCountResult:
    r"""Between `low[m, c]` and `high[m, c]` members of bag m have event c, both ends included, each event by itself.

    As `event_counts`, but tilted only where the expected count is outside of the range, to its nearer end:

    .. math:: P(l \le S \le h) = \prod_i Z_i \sum_{s = l}^{h} e^{-\lambda s} Q(S = s)
              = \prod_i Z_i \frac1N \sum_{k < N} g_k \prod_i (1 - q_i + q_i e^{i \theta_k}), \qquad
              g_k = \sum_{s = l}^{h} e^{-(\lambda + i \theta_k) s}

    The series is geometric: a range costs about twice what one count does, and its tails keep their digits.

    Args:
        low, high: (M, C) integers; low -1 is not known, 0 and the number of members are open ends.
    """
    return _counts(log_yes, log_no, Segments.of(offsets), low, high, keep_impossible)


def _counts(
    log_yes: Tensor, log_no: Tensor, segments: Segments, low: Tensor, high: Tensor | None, keep_impossible: bool
) -> EventCountResult:
    yes, no = log_yes.detach(), log_no.detach()
    value, reference = yes.new_zeros(low.shape), yes.new_zeros(low.shape)
    without, having = torch.zeros_like(yes), torch.zeros_like(yes)
    most = (NODES if high is None else RANGE_NODES)[yes.dtype]
    for block in segments.blocks:
        laid = block.lay(yes, -torch.inf), block.lay(no, 0.0)
        tables = [torch.empty_like(t) for t in laid]
        wanted = block.pick(low)
        upper = None if high is None else block.pick(high)
        of_bags = [yes.new_empty(wanted.shape) for _ in range(2)]
        for part in _parts(block.shape, yes.shape[1], most):
            rows, places, columns = part[0], slice(None), part[1]
            known = wanted[part]
            can, cannot = (t[rows, places, columns].transpose(1, 2).reshape(-1, block.shape[1]) for t in laid)
            counts = _Range(known.reshape(-1).clamp(min=0), None if upper is None else upper[part].reshape(-1))
            found, base, *messages = _count_block(can, cannot, counts)
            of_bags[0][part], of_bags[1][part] = found.view(known.shape), base.view(known.shape)
            for table, message in zip(tables, messages, strict=True):
                table[rows, places, columns] = message.view(*known.shape, -1).transpose(1, 2)
        unknown = wanted < 0
        silent = unknown if keep_impossible else unknown | torch.isneginf(of_bags[0])
        for out, table in zip((without, having), tables, strict=True):
            block.write(out, table.masked_fill_(silent[:, None], 0.0))
        for out, of_bag in zip((value, reference), of_bags, strict=True):
            block.place(out, of_bag.masked_fill_(unknown, 0.0))
    given = (log_yes.requires_grad, log_no.requires_grad)
    if any(given):
        possible = (value > -torch.inf)[segments.index]
        slopes = []
        for log_p, message, needed in ((log_yes, having, given[0]), (log_no, without, given[1])):
            if needed:
                slopes += [log_p, torch.exp(log_p.detach() + message) * possible]
        value = with_posteriors(value, segments, *slopes)
    return EventCountResult(value, without, having, reference)
