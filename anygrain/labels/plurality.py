"""The most frequent class of a set."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from anygrain.labels.compositions import Compositions, cells, compositions, weigh_counts
from anygrain.labels.counting import range_counts
from anygrain.labels.matched import katz, tangent_messages
from anygrain.labels.segments import Segments

LIMIT = 5 * 10**4  # counts of 0, 1, .. n members that are gone through for one set
CHUNK = 2**22  # entries held at once where counts are approximated
DISCRETE = 1000  # members up to which approximate counts are whole numbers
POINTS = 128  # of the integral above


class PluralityPlan:
    """How the most frequent column of each set is found; made once.

    Args:
        segments: members of M sets.
        columns: number of columns that compete.
        spare: whether one more column, the last, takes members but cannot win.
    """

    def __init__(self, segments: Segments, columns: int, spare: bool = False):
        self.segments, self.columns, self.spare = segments, columns, spare
        self.by_range = columns == 2 and not spare
        sizes = segments.sizes
        total = columns + spare
        most = 0
        while columns > 1 and not self.by_range and most < segments.longest and cells(most + 1, total) <= LIMIT:
            most += 1
        self.most = most
        walked = sizes <= most
        self._walked, self._estimated = walked.nonzero()[:, 0], (~walked).nonzero()[:, 0]

    @property
    def exact(self) -> bool:
        """No set is beyond what can be gone through."""
        return self.by_range or self.columns == 1 or len(self._estimated) == 0

    @cached_property
    def table(self) -> Compositions:
        """Counts of sets that are gone through."""
        return compositions(self.most, self.columns + self.spare, self.segments.offsets.device)

    def find(self, log_p: Tensor, winner: Tensor) -> tuple[Tensor, Tensor]:
        r"""That a column is the most frequent one of its set; ties are broken evenly.

        .. math:: P(o = w \mid y) = [c_w = \max_k c_k] \,/\, \#\{k : c_k = c_w\}, \qquad c_k = \sum_i [y_i = k]

        Two columns are exact at every size (`range_counts`); more as long as their counts can be gone through, on
        members tilted towards a win. Beyond, the count of the winner and those of its rivals are taken for independent,
        with laws of Katz's family (binomial, Poisson, negative binomial), or normal ones above 1000 members, whose
        means and variances match those of all differences between winner and rival, and, on average, their
        covariances.

        Args:
            log_p: (E, C), or (E, C + 1) with a spare column.
            winner: (M,) columns.

        Returns:
            log P (M,), and log P(o | y_i = c) of the shape of log_p.

        Source: Levin, A representation for multinomial cumulative distribution functions, 1981; Katz, 1965.
        """
        dtype = log_p.dtype
        precise = log_p if log_p.device.type == "mps" else log_p.double()
        if self.by_range:
            value, message = self._by_range(precise, winner)
        else:
            value = precise.new_zeros(len(winner))
            message = torch.zeros_like(precise)
            if self.columns > 1:
                self._by_walk(precise, winner, value, message)
                self._by_estimate(precise, winner, value, message)
        return value.to(dtype), message.to(dtype)

    def _by_range(self, log_p: Tensor, winner: Tensor) -> tuple[Tensor, Tensor]:
        """Two columns: a win is more than half, or half and a toss."""
        index, sizes = self.segments.index, self.segments.sizes
        column = winner[index][:, None]
        yes, no = (log_p.gather(1, c).expand(-1, 2) for c in (column, 1 - column))
        low = torch.stack([sizes // 2 + 1, (sizes + 1) // 2], dim=1)
        high = sizes[:, None].expand(-1, 2)
        found = range_counts(yes, no, self.segments, low, high, keep_impossible=True)
        half = math.log(2.0)
        value = torch.logsumexp(found.log_likelihood, dim=1) - half
        reference = found.reference[index]
        having, without = (torch.logsumexp(m + reference, dim=1) - half for m in (found.having, found.without))
        message = torch.stack([without, without], dim=1).scatter(1, column, having[:, None])
        return value, message

    def _by_walk(self, log_p: Tensor, winner: Tensor, value: Tensor, message: Tensor) -> None:
        for n in self.segments.sizes[self._walked].unique().tolist():
            counts = self.table.counts(n)[:, : self.columns]
            won = counts == counts.amax(dim=1, keepdim=True)
            won = won.to(log_p.dtype)
            weight = (won / won.sum(dim=1, keepdim=True)).log()
            for block in self.segments.blocks_of(self._walked[self.segments.sizes[self._walked] == n]):
                table, mine = block.lay(log_p, -torch.inf), block.pick(winner)
                towards = winning_counts(table, mine, self.columns)
                of_sets, said = weigh_counts(self.table, table, weight[:, mine].T, towards)
                block.place(value, of_sets)
                block.write(message, said)

    def _by_estimate(self, log_p: Tensor, winner: Tensor, value: Tensor, message: Tensor) -> None:
        for whole in self.segments.blocks_of(self._estimated):
            n = whole.shape[1]
            entries = self.columns * (n + 1) * (self.columns // 2 + 1) if n <= DISCRETE else self.columns * (n + POINTS)
            for part in whole.pick(torch.arange(len(winner), device=winner.device)).split(1 + CHUNK // entries):
                for block in self.segments.blocks_of(part):
                    of_sets, said = _estimate(block.lay(log_p, -torch.inf), block.pick(winner), self.columns)
                    block.place(value, of_sets)
                    block.write(message, said)


def winning_counts(log_p: Tensor, winner: Tensor, columns: int) -> Tensor:
    """Counts (B, C) near the expected ones of log_p (B, n, C) at which the winner is not behind its rivals.

    Rivals are cut to a common level; what certain members leave no choice about is kept.
    """
    at = winner[:, None]
    p = log_p.exp()
    expected, total = p.sum(dim=1), torch.full_like(log_p[:, :1, 0], log_p.shape[1])
    finite = log_p > -torch.inf
    able = finite.sum(dim=1)
    certain = (finite & (finite.sum(dim=2, keepdim=True) == 1)).sum(dim=1)
    margin = 0.25 * (able > certain)  # a tilt goes to infinity at these ends
    least, most = certain + margin, able - margin
    rival = expected.scatter(1, at, 0.0)
    rival[:, columns:] = 0.0
    free = torch.ones_like(able, dtype=torch.bool).scatter(1, at, False)
    free[:, columns:] = False

    def cut(level: Tensor) -> Tensor:
        low = torch.where(free, torch.minimum(expected, torch.maximum(level, least)), expected)
        return low.scatter(1, at, torch.minimum(torch.maximum(level, least.gather(1, at)), most.gather(1, at)))

    low, high = torch.zeros_like(total), total
    for _ in range(40):
        level = (low + high) / 2
        short = cut(level).sum(dim=1, keepdim=True) < total
        low, high = torch.where(short, level, low), torch.where(short, high, level)
    target = torch.minimum(torch.maximum(cut(high), least), most)
    gap = total - target.sum(dim=1, keepdim=True)
    room = torch.where(gap > 0, most - target, target - least).clamp(min=0.0)
    target = target + gap * room / room.sum(dim=1, keepdim=True).clamp(min=1e-300)
    ahead = expected.gather(1, at) >= rival.amax(dim=1, keepdim=True)
    return torch.where(ahead, expected, target)


def _estimate(log_p: Tensor, winner: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """log P (B,) and messages (B, n, C) by independent counts; empty places have log_p of -inf."""
    place = torch.arange(log_p.shape[2], device=log_p.device)
    first = torch.where(place == 0, winner[:, None], torch.where(place == winner[:, None], 0, place))
    places = first[:, None].expand_as(log_p)
    with torch.enable_grad():
        p = log_p.exp().gather(2, places).requires_grad_(True)
        rivals = p[..., :columns]  # a spare column takes no part
        mean = rivals.sum(dim=1)
        value = log_win(mean, torch.diag_embed(mean) - rivals.transpose(1, 2) @ rivals, log_p.shape[1])
        (slope,) = torch.autograd.grad(value.sum(), p)
    value, p = value.detach(), p.detach()
    message = torch.zeros_like(log_p).scatter(2, places, tangent_messages(p, slope))
    able = (log_p > -torch.inf).sum(dim=1).gather(1, winner[:, None])[:, 0]
    certain = (log_p[..., :columns] > -1e-12).sum(dim=1).amax(dim=1)
    impossible = able < certain
    return value.masked_fill(impossible, -torch.inf), message + value[:, None, None]


def log_win(mean: Tensor, covariance: Tensor, n: int) -> Tensor:
    """log P that the first of C counts is the greatest, ties broken evenly, from their means and covariances (B,)."""
    own = torch.diagonal(covariance, dim1=1, dim2=2)
    ahead = own[:, :1] + own[:, 1:] - 2 * covariance[:, 0, 1:]  # variance of winner less rival
    joint = own[:, :1, None] - covariance[:, 0, 1:, None] - covariance[:, 0, None, 1:] + covariance[:, 1:, 1:]
    # the variance that all differences share: rivals that may win weigh most
    behind = (mean[:, :1] - mean[:, 1:]) / ahead.clamp(min=1e-12).sqrt()
    near = torch.exp(-0.5 * (behind - behind.amin(dim=1, keepdim=True)).clamp(max=30.0) ** 2).detach() + 1e-9
    weight = near[:, :, None] * near[:, None] * (1.0 - torch.eye(near.shape[1], dtype=mean.dtype, device=mean.device))
    total = weight.sum(dim=(1, 2))
    shared = torch.where(total > 0, (weight * joint).sum(dim=(1, 2)) / total.clamp(min=1e-300), ahead[:, 0] / 2)
    shared = torch.maximum(torch.minimum(shared, 0.98 * ahead.amin(dim=1)), 0.02 * ahead.amax(dim=1)).clamp(min=1e-6)
    apart = (ahead - shared[:, None]).clamp(min=1e-6)
    mean = mean.clamp(min=1e-9)
    if n > DISCRETE:
        return _normal_win(mean, shared, apart)
    winner, rivals = katz(mean[:, 0], shared, n), katz(mean[:, 1:], apart, n).exp()
    below = rivals.cumsum(dim=-1) - rivals
    # 1 / (1 + ties) is the integral of u^ties over 0..1
    u, share = (torch.tensor(t, dtype=mean.dtype, device=mean.device) for t in _legendre(mean.shape[1]))
    no_worse = (below[..., None] + rivals[..., None] * u).clamp(min=1e-300).log().sum(dim=1).exp() @ share
    return torch.logsumexp(winner + no_worse.clamp(min=1e-300).log(), dim=1)


def _legendre(columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on 0..1, exact for as many ties as there can be."""
    x, w = np.polynomial.legendre.leggauss(columns // 2 + 1)
    return (x + 1) / 2, w / 2


def _normal_win(mean: Tensor, shared: Tensor, apart: Tensor) -> Tensor:
    """The integral of the winner's density times the rivals' distribution functions, around its peak."""
    ours, spread, theirs, scale = mean[:, :1], shared[:, None], mean[:, 1:], apart.sqrt()
    with torch.no_grad():
        low, high = ours, torch.maximum(ours, (theirs + 40.0 * scale).amax(dim=1, keepdim=True))
        for _ in range(60):
            x = (low + high) / 2
            z = (x - theirs) / scale
            hazard = torch.exp(-0.5 * z * z - torch.special.log_ndtr(z)) / math.sqrt(2 * math.pi)
            rising = (ours - x) / spread + (hazard / scale).sum(dim=1, keepdim=True) > 0
            low, high = torch.where(rising, x, low), torch.where(rising, high, x)
        bend = 1.0 / spread + (hazard * (hazard + z) / apart).sum(dim=1, keepdim=True)
        width = bend.rsqrt()
        place = torch.linspace(-10.0, 10.0, POINTS + 1, dtype=mean.dtype, device=mean.device)
        x = x + width * place
    density = -0.5 * (x - ours) ** 2 / spread - 0.5 * torch.log(2 * math.pi * spread)
    ahead = torch.special.log_ndtr((x[:, None] - theirs[..., None]) / scale[..., None]).sum(dim=1)
    return torch.logsumexp(density + ahead, dim=1) + torch.log(width[:, 0] * 20.0 / POINTS)
