"""All class counts that a set can have, and sums over them that weigh each as a whole."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from anygrain.labels.iprojection import tilt_to_counts

CHUNK = 2**23  # states times members held at once


def cells(n: int, columns: int) -> int:
    """States of a walk over n members: the counts of 0, 1, .. n of them."""
    return math.comb(n + columns, columns)


class Compositions:
    """The counts of C columns over up to n members, numbered so that neither n nor the first column need be told.

    A state is the counts of all columns but the first; with their partial sums s_j it has the number
    sum over j of binomial(s_j + j - 1, j), so that the states of t members are the first binomial(t + C - 1, C - 1).

    Attributes:
        digits: (S, C - 1) counts of all columns but the first.
        target: (S, C - 1) state after one more of a column (S where that is beyond n).
        source: (S, C - 1) state before it (S where there is none).
        reached: numbers of states of 0..n members.
    """

    def __init__(self, n: int, columns: int, device: torch.device):
        digits = columns - 1
        self.reached = [math.comb(t + digits, digits) for t in range(n + 1)]
        states = self.reached[-1]
        # from the largest digit down: the greatest partial sum whose binomial fits (combinatorial number system)
        binomial = torch.tensor(
            [[math.comb(s + j - 1, j) for s in range(n + 2)] for j in range(1, digits + 1)], device=device
        ).reshape(digits, n + 2)
        left = torch.arange(states, device=device)
        sums = []
        for j in reversed(range(digits)):
            s = torch.searchsorted(binomial[j], left, right=True) - 1
            sums.append(s.clamp(max=n))
            left = left - binomial[j][sums[-1]]
        partial = torch.stack([left.new_zeros(states), *reversed(sums)], dim=1)  # (S, C): 0, s_1, .., s_{C-1}
        self.digits = partial.diff(dim=1)

        def number(moved: Tensor, allowed: Tensor) -> Tensor:
            inside = moved[:, 1:].clamp(min=0, max=n + 1)
            rank = binomial.gather(1, inside.T).sum(dim=0) if digits else moved.new_zeros(len(moved))
            return torch.where(allowed, rank, states)

        step = torch.tril(torch.ones(columns, columns, dtype=torch.long, device=device))[:, 1:]  # adds to later sums
        self.target = torch.stack(
            [number(partial + step[:, k], partial[:, -1] < n) for k in range(digits)] or [left.new_zeros(0)], dim=-1
        )
        self.source = torch.stack(
            [number(partial - step[:, k], self.digits[:, k] > 0) for k in range(digits)] or [left.new_zeros(0)], dim=-1
        )

    def counts(self, n: int) -> Tensor:
        """Counts (S, C) of n members."""
        digits = self.digits[: self.reached[n]]
        return torch.cat([n - digits.sum(dim=1, keepdim=True), digits], dim=1)

    def walk(self, q: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
        """The expectation of weights `end` (B, S) of the counts, and the same given y_i = c, for q (B, n, C).

        Returns:
            (B,) and (B, n, C).
        """
        sets, n, _ = q.shape
        ahead = [q.new_ones(sets, 1)]
        for t in range(n):
            here = self.reached[t + 1]
            wide = torch.nn.functional.pad(ahead[-1], (0, here - self.reached[t] + 1))
            source = self.source[:here]
            source = torch.where(source < self.reached[t], source, here)
            moved = wide[:, source]  # (B, S', C - 1)
            ahead.append(torch.bmm(moved, q[:, t, 1:, None])[..., 0] + wide[:, :here] * q[:, t, :1])
        total = (ahead[-1] * end).sum(dim=1)
        given = torch.empty_like(q)
        back = end
        for t in reversed(range(n)):
            here = self.reached[t]
            moved = back[:, self.target[:here]]
            stay = back[:, :here]
            given[:, t, 0] = (ahead[t] * stay).sum(dim=1)
            given[:, t, 1:] = torch.bmm(ahead[t][:, None], moved)[:, 0]
            back = torch.bmm(moved, q[:, t, 1:, None])[..., 0] + stay * q[:, t, :1]
        return total, given


@lru_cache(maxsize=8)
def compositions(n: int, columns: int, device: torch.device) -> Compositions:
    """Compositions that are kept: the parts of a set of labels need the same ones."""
    return Compositions(n, columns, device)


def weigh_counts(table: Compositions, log_p: Tensor, log_weight: Tensor, towards: Tensor) -> tuple[Tensor, Tensor]:
    r"""The expectation of a weight of the class counts of sets of n members.

    .. math:: P(o) = \sum_c w(c) P(c) = \prod_i Z_i \sum_c w(c) e^{-\lambda \cdot c} Q(c)

    with members tilted by :math:`\lambda`, so that what is unlikely, but weighs, keeps its digits.

    Args:
        log_p: (B, n, C).
        log_weight: (B, S) log w of all counts of n members.
        towards: (B, C) counts of sum n near which weight and probability meet.

    Returns:
        log P(o) (B,), and log P(o | y_i = c) (B, n, C).
    """
    n, columns = log_p.shape[1:]
    used = towards > 0
    tilted = tilt_to_counts(log_p.masked_fill(~used[:, None], -torch.inf), towards, within=0.3)
    near = ((tilted.expected - towards).abs().amax(dim=1) < 0.5) & torch.isfinite(tilted.log_z).all(dim=1)
    steepest = 20.0 - torch.where(torch.isfinite(log_p), log_p, 0.0).amin(dim=(1, 2))
    tilt = torch.where(near[:, None] & used, tilted.tilt, 0.0)  # where it cannot be met, as it is
    tilt = torch.maximum(torch.minimum(tilt, steepest[:, None]), -steepest[:, None])
    moved = log_p + tilt[:, None]
    log_z = torch.logsumexp(moved, dim=2)
    log_z = log_z.masked_fill(torch.isneginf(log_z), 0.0)
    end = log_weight - tilt @ table.counts(n).to(log_p.dtype).T
    top = end.amax(dim=1, keepdim=True)
    top = torch.where(torch.isfinite(top), top, 0.0)
    at_once = 1 + CHUNK // cells(n, columns)
    parts = zip((moved - log_z[..., None]).exp().split(at_once), (end - top).exp().split(at_once), strict=True)
    total, given = zip(*(table.walk(q, weight) for q, weight in parts), strict=True)
    whole = log_z.sum(dim=1) + top[:, 0]
    message = torch.cat(given).log() + tilt[:, None] + (whole[:, None] - log_z)[..., None]
    return torch.cat(total).log() + whole, message
