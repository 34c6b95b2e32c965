"""How many different classes occur in a set."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from anygrain.labels.automata import Machine
from anygrain.labels.matched import katz, tangent_messages
from anygrain.labels.segments import Segments

SUBSETS = 12  # classes whose subsets are gone through
WALKED = 2**22  # sets of classes times members held at once
CHUNK = 2**24  # entries held at once


class DistinctPlan:
    """How the classes that occur in sets are counted; made once.

    Args:
        segments: members of M sets.
        n_classes: K.
    """

    def __init__(self, segments: Segments, n_classes: int):
        self.segments, self.n_classes = segments, n_classes
        self.exact = n_classes <= SUBSETS

    @cached_property
    def machine(self) -> Machine:
        """An automaton whose state is the set of classes seen so far."""
        seen = torch.arange(2**self.n_classes, device=self.segments.offsets.device)
        return Machine.of(seen[:, None] | (1 << torch.arange(self.n_classes, device=seen.device)))

    def find(self, log_p: Tensor, distinct: Tensor) -> tuple[Tensor, Tensor]:
        r"""Exactly `distinct` classes occur.

        .. math:: P(d \mid y) = \Big[ \sum_k [\exists i: y_i = k] = d \Big]

        Exact over all sets of classes up to 12 of them, in K 2^K steps for a member. Beyond, the number of classes (or
        of members, where they are fewer) that is missing is given a law of Katz's family, with a normal tail, of the
        true mean and variance, which follow from :math:`P(k \text{ absent}) = \prod_i (1 - p_i(k))` and
        :math:`P(k, l \text{ absent}) = \prod_i (1 - p_i(k) - p_i(l))`.

        Args:
            log_p: (E, K).
            distinct: (M,) numbers.

        Returns:
            log P (M,), and log P(o | y_i = k) (E, K).
        """
        if self.exact:
            return self._by_subsets(log_p, distinct)
        precise = log_p if log_p.device.type == "mps" else log_p.double()
        value = precise.new_zeros(len(distinct))
        message = torch.zeros_like(precise)
        for whole in self.segments.blocks:
            at_once = 1 + CHUNK // (whole.shape[1] * self.n_classes**2)
            for part in whole.pick(torch.arange(len(distinct), device=distinct.device)).split(at_once):
                for block in self.segments.blocks_of(part):
                    of_sets, said = _estimate(
                        block.lay(precise, -torch.inf), block.pick(distinct), block.pick(self.segments.sizes)
                    )
                    block.place(value, of_sets)
                    block.write(message, said)
        return value.to(log_p.dtype), message.to(log_p.dtype)

    def _by_subsets(self, log_p: Tensor, distinct: Tensor) -> tuple[Tensor, Tensor]:
        """Over all sets of classes, as probabilities; in log space where those are too small for it."""
        precise = log_p if log_p.device.type == "mps" else log_p.double()
        bits = torch.arange(2**self.n_classes, device=log_p.device)
        size = ((bits[:, None] >> torch.arange(self.n_classes, device=log_p.device)) % 2).sum(dim=1)
        value, message = precise.new_zeros(len(distinct)), torch.zeros_like(precise)
        for whole in self.segments.blocks:
            at_once = 1 + WALKED // (whole.shape[1] * len(bits))
            for part in whole.pick(torch.arange(len(distinct), device=distinct.device)).split(at_once):
                for block in self.segments.blocks_of(part):
                    final = (size == block.pick(distinct)[:, None]).to(precise.dtype)
                    of_sets, said = _walk(block.lay(precise, -torch.inf).exp(), block.filled, final)
                    block.place(value, of_sets)
                    block.write(message, said)
        faint = (message < math.sqrt(torch.finfo(precise.dtype).tiny)).any(dim=1)
        weak = torch.zeros_like(value, dtype=torch.bool).index_fill_(0, self.segments.index[faint], True)
        value, message = value.log(), message.log()
        sets = weak.nonzero()[:, 0]
        if len(sets):
            rows = weak[self.segments.index]
            few = Segments(torch.nn.functional.pad(self.segments.sizes[sets].cumsum(0), (1, 0)))
            final = torch.where(size == distinct[sets][:, None], 0.0, -torch.inf).double()
            start = torch.where(bits == 0, 0.0, -torch.inf).double()
            value[sets], message[rows] = self.machine.read(precise[rows], few, start, final)
        return value.to(log_p.dtype), message.to(log_p.dtype)


def _walk(p: Tensor, filled: Tensor | None, final: Tensor) -> tuple[Tensor, Tensor]:
    r"""P (B,) and P(o | y_i = k) (B, n, K) for probabilities p (B, n, K) and weights (B, 2^K) of the classes seen.

    .. math:: F_{i+1}(T) = \sum_{k \in T} p_i(k) (F_i(T) + F_i(T \setminus k)), \quad
              B_i(T) = \sum_k p_i(k) B_{i+1}(T \cup k), \quad P(o \mid y_i = k) = \sum_T F_i(T) B_{i+1}(T \cup k)

    class by class on halves of the table. An empty place leaves it as it is.
    """
    sets, n, k = p.shape

    def halves(table: Tensor, c: int) -> tuple[Tensor, Tensor]:  # without and with class c
        without, having = table.view(sets, -1, 2, 2**c).unbind(dim=2)
        return without, having

    behind = [final]
    for i in reversed(range(1, n)):
        after, before = behind[-1], torch.zeros_like(final)
        for c in range(k):
            share, seen = p[:, i, c, None, None], halves(after, c)[1]
            for out in halves(before, c):
                out.addcmul_(share, seen)
        behind.append(before if filled is None else torch.where(filled[:, i, None], before, after))
    behind.reverse()
    ahead = torch.zeros_like(final)
    ahead[:, 0] = 1.0
    message = torch.zeros_like(p)
    for i in range(n):
        moved = torch.zeros_like(ahead)
        for c in range(k):
            both = torch.add(*halves(ahead, c))
            message[:, i, c] = (both * halves(behind[i], c)[1]).sum(dim=(1, 2))
            halves(moved, c)[1].addcmul_(p[:, i, c, None, None], both)
        ahead = moved if filled is None else torch.where(filled[:, i, None], moved, ahead)
    return (ahead * final).sum(dim=1), message


def _estimate(log_p: Tensor, distinct: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """log P (B,) and messages (B, n, K); empty places have log_p of -inf."""
    k = log_p.shape[2]
    most = sizes.clamp(max=k)
    with torch.enable_grad():
        p = log_p.exp().requires_grad_(True)
        log_absent = torch.log1p(-p.clamp(max=1.0 - 1e-12)).sum(dim=1)
        both = torch.log((1.0 - p[..., :, None] - p[..., None, :]).clamp(min=1e-12)).sum(dim=1)
        absent = log_absent.exp()
        joint = both.exp() * (1.0 - torch.eye(k, dtype=p.dtype, device=p.device)) + torch.diag_embed(absent)
        missing = absent.sum(dim=1) - (k - most)
        variance = joint.sum(dim=(1, 2)) - absent.sum(dim=1) ** 2
        mean, spread, seen = missing.clamp(min=1e-9), variance.clamp(min=1e-6), most - distinct
        value = katz(mean, spread, int(most.max())).gather(1, seen[:, None])[:, 0]
        # beyond the end of a binomial law, a normal tail
        ends = (mean > spread) & (seen > mean * mean / (mean - spread).clamp(min=1e-9) - 1)
        tail = -0.5 * (seen - mean) ** 2 / spread - 0.5 * torch.log(2 * math.pi * spread)
        value = torch.where(ends & (seen > mean + 0.5), tail, value)
        (slope,) = torch.autograd.grad(value.sum(), p)
    value, p = value.detach(), p.detach()
    message = tangent_messages(p, slope) + value[:, None, None]
    possible = torch.isfinite(log_p).any(dim=1).sum(dim=1)
    certain = (log_p > -1e-12).any(dim=1).sum(dim=1)
    return value.masked_fill((possible < distinct) | (certain > distinct), -torch.inf), message
