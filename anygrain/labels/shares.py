"""Noisy readings of the class shares of a set."""

from __future__ import annotations

import math
from functools import cached_property
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from anygrain.labels.iprojection import REACH
from anygrain.labels.lattice import CHUNK, Lattice, Lattices
from anygrain.labels.segments import Block, Segments

LIMIT = 10**6  # states times members of a set up to which all counts are summed over
STEPS = 60  # Newton steps towards the most likely counts


class ShareResult(NamedTuple):
    """What noisy shares of sets say of the members."""

    log_likelihood: Tensor  # (M,) log P(shares); -inf: impossible
    message: Tensor  # (E, K) log P(shares | y_i = k) - log P(shares); 0 in an impossible set


class SharePlan:
    r"""How noisy shares r of each set, worth a sample of size :math:`\nu`, are read; made once.

    Classes of unknown share are lumped into one column with the share that is left. Columns of share 0 say nothing
    about themselves and are lumped into another. The column of the largest share comes first and takes no digit.

    Args:
        offsets: (M + 1,), or `Segments` made of it.
        shares: (M, K), NaN not known; the rest of a row with unknown shares is theirs.
        size: (M,) effective sample sizes.
    """

    def __init__(self, offsets: Tensor | Segments, shares: Tensor, size: Tensor):
        self.segments = Segments.of(offsets)
        precise = torch.float32 if shares.device.type == "mps" else torch.float64
        shares, size = shares.to(precise), size.to(precise)
        unknown = shares.isnan()
        known = torch.where(unknown, 0.0, shares)
        total = known.sum(dim=1, keepdim=True)
        some = unknown.any(dim=1, keepdim=True)
        known = torch.where(some, known / total.clamp(min=1.0), known / torch.where(total > 0, total, 1.0))
        rest = torch.where(some, (1.0 - known.sum(dim=1, keepdim=True)).clamp(min=0.0), 0.0)
        self.silent = unknown.all(dim=1)
        #: column of every class: its own, K for the unknown ones, K + 1 for those of share 0
        k = shares.shape[1]
        own = torch.arange(k, device=shares.device).expand_as(shares)
        self.column_of = torch.where(unknown, torch.where(rest > 0, k, k + 1), torch.where(known > 0, own, k + 1))
        every = torch.cat([known, rest, torch.zeros_like(rest)], dim=1)
        held = torch.zeros_like(every, dtype=torch.bool).scatter_(1, self.column_of, True)
        order = torch.argsort(torch.where(held, every, -1.0), dim=1, descending=True, stable=True)
        width = max(int((held & ~self.silent[:, None]).sum(dim=1).max()) if len(held) else 0, 2)
        self.columns = order[:, :width]
        used = held.gather(1, self.columns)
        self.shares = torch.where(used, every.gather(1, self.columns), 0.0)
        self.columns = torch.where(used, self.columns, k + 2)
        self.used = used
        self.size = size
        n = self.segments.sizes
        digits = used[:, 1:].sum(dim=1)
        log_cells = digits * torch.log(n + 1.0).to(precise) + torch.log(n.clamp(min=1).to(precise))
        small = log_cells <= math.log(LIMIT) + 1e-9
        self._summed = (~self.silent & small).nonzero()[:, 0]
        self._estimated = (~self.silent & ~small).nonzero()[:, 0]

    @property
    def exact(self) -> bool:
        """All sets are small enough to be summed over all counts."""
        return len(self._estimated) == 0

    @cached_property
    def estimated(self) -> list[Block]:
        """Sets beyond the lattice."""
        return self.segments.blocks_of(self._estimated)

    @cached_property
    def lattices(self) -> Lattices:
        """Sets on the lattice of all their counts, of similar size."""
        blocks = []
        digits = self.used[:, 1:].sum(dim=1)
        everyone = torch.arange(len(digits), device=digits.device)
        for number in digits[self._summed].unique(sorted=True).tolist():
            for block in self.segments.blocks_of(self._summed[digits[self._summed] == number]):
                n = block.shape[1]
                most = max(1, CHUNK // (n * (n + 1) ** number))
                for part in block.pick(everyone).split(most):
                    blocks += self.segments.blocks_of(part)
        sizes = self.segments.sizes[:, None]
        return Lattices(
            [(b, torch.where(b.pick(self.used), b.pick(sizes), 0)) for b in blocks],
            one_run=True,
        )


def noisy_shares(log_p: Tensor, plan: SharePlan) -> ShareResult:
    r"""Class shares r of every set, read with multinomial noise of a sample of size :math:`\nu`.

    .. math:: P(r \mid y) = \frac{\Gamma(\nu + 1)}{\prod_k \Gamma(\nu r_k + 1)} \prod_k (c_k / n)^{\nu r_k}, \quad
              c_k = \sum_i [y_i = k]

    summed over all counts while (n + 1)^digits times the members is at most 10^6; beyond, Laplace's approximation at
    the most likely counts, where the members are tilted by :math:`\lambda_k = \nu r_k / c_k`.

    Args:
        log_p: (E, K) normalised log-probabilities; -inf is welcome.
        plan: of the sets and their shares.
    """
    segments = plan.segments
    dtype = log_p.dtype
    precise = log_p if log_p.device.type == "mps" else log_p.double()
    classes = log_p.shape[1]
    column_of = plan.column_of[segments.index]
    lumps = [torch.logsumexp(precise.masked_fill(column_of != classes + j, -torch.inf), dim=1) for j in (0, 1)]
    nothing = torch.full_like(precise[:, :1], -torch.inf)
    wide = torch.cat([precise, *(column[:, None] for column in lumps), nothing], dim=1)
    value = precise.new_zeros(len(segments))
    message = torch.zeros_like(wide)
    for block, lattice in chain(plan.lattices, ((block, None) for block in plan.estimated)):
        places = block.pick(plan.columns)[:, None].expand(-1, block.shape[1], -1)
        table = block.lay(wide, -torch.inf).gather(2, places)
        weight = (block.pick(plan.shares) * block.pick(plan.size)[:, None]).to(precise.dtype)
        filled = (
            torch.ones(block.shape, dtype=torch.bool, device=table.device) if block.filled is None else block.filled
        )
        of_sets, said = _block(table, weight, block.pick(plan.used), filled, lattice)
        block.place(value, of_sets)
        out = torch.zeros(*block.shape, wide.shape[1], dtype=wide.dtype, device=wide.device)
        block.write(message, out.scatter_(2, places, said))
    message = message.gather(1, column_of)
    silent = (plan.silent | torch.isneginf(value))[segments.index]
    return ShareResult(value.to(dtype), message.masked_fill(silent[:, None], 0.0).to(dtype))


def _block(
    log_p: Tensor, weight: Tensor, used: Tensor, filled: Tensor, lattice: Lattice | None
) -> tuple[Tensor, Tensor]:
    """log P (B,) and relative messages (B, n, C), for weights nu r (B, C)."""
    members = filled.sum(dim=1).to(log_p.dtype)
    tilt, log_q, log_z, expected = _most_likely(log_p, weight, members)
    constant = torch.lgamma(weight.sum(dim=1) + 1) - torch.lgamma(weight + 1).sum(dim=1)
    whole = torch.where(filled, log_z, 0.0).sum(dim=1) + constant
    said = weight > 0
    relative = tilt[:, None] - log_z[..., None]
    if lattice is None:
        share = torch.log((expected / members[:, None]).clamp(min=torch.finfo(log_p.dtype).tiny))
        top = (torch.where(said, weight * share, 0.0) - tilt * expected).sum(dim=1)
        q = log_q.exp()
        spread = (torch.diag_embed(expected) - q.transpose(1, 2) @ q)[:, 1:, 1:]
        bend = torch.where(said, weight / expected.clamp(min=1e-300) ** 2, 0.0)
        bend = torch.diag_embed(bend[:, 1:]) + bend[:, :1, None]
        eye = torch.eye(bend.shape[1], dtype=log_p.dtype, device=log_p.device)
        value = whole + top - 0.5 * torch.linalg.slogdet(eye + spread @ bend).logabsdet
        absent = (said & torch.isneginf(log_p).all(dim=1)).any(dim=1)
        return value.masked_fill(absent, -torch.inf), relative.expand_as(log_p)
    counts = lattice.digits.to(log_p.dtype)
    first = members[:, None] - counts.sum(dim=2)
    counts = torch.cat([first[..., None], counts], dim=2)  # (B, S, C)
    share = torch.log(counts.clamp(min=0.0) / members[:, None, None])
    end = (torch.where(said[:, None], weight[:, None] * share, 0.0) - tilt[:, None] * counts).sum(dim=2)
    end = end.masked_fill(~lattice.inside | (first < 0), -torch.inf)
    top = end.amax(dim=1, keepdim=True)
    top = torch.where(torch.isneginf(top), 0.0, top)
    certain = torch.zeros_like(log_q)
    certain[..., 0] = 1.0
    total, given = lattice.walk(torch.where(filled[..., None], log_q.exp(), certain), torch.exp(end - top))
    impossible = total <= 0
    value = (whole + top[:, 0] + torch.log(total)).masked_fill(impossible, -torch.inf)
    message = torch.log(given / total[:, None, None]) + relative
    return value, message.masked_fill(impossible[:, None, None], 0.0)


def _most_likely(log_p: Tensor, weight: Tensor, members: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""The tilt :math:`\lambda_k = \nu r_k / c_k`, log q (B, n, C), log Z (B, n) and expected counts c (B, C) at it.

    It maximises the concave :math:`\sum_k \nu r_k \log \lambda_k - \sum_i \log Z_i(\lambda)`, by Newton steps that keep
    it positive.
    """
    said = weight > 0
    tilt = torch.where(said, weight.sum(dim=1, keepdim=True) / members[:, None], 0.0)
    for step in range(STEPS + 1):
        moved = log_p + tilt[:, None]
        log_z = torch.logsumexp(moved, dim=2)
        log_q = torch.where(torch.isneginf(log_z)[..., None], -torch.inf, moved - log_z[..., None])
        q = log_q.exp()
        expected = q.sum(dim=1)
        slope = torch.where(said, weight / tilt - expected, 0.0)
        if step == STEPS or (log_p.device.type == "cpu" and bool((slope.abs() < 1e-9 * members[:, None]).all())):
            break
        curvature = torch.diag_embed(expected) - q.transpose(1, 2) @ q
        curvature = torch.where(said[:, :, None] & said[:, None, :], curvature, 0.0)
        barrier = torch.where(said, weight / tilt**2, 1.0)
        move = torch.linalg.solve_ex(curvature + torch.diag_embed(barrier), slope[..., None])[0][..., 0]
        back = (-move / torch.where(said, tilt, 1.0)).amax(dim=1, keepdim=True).clamp(min=1e-300)
        length = torch.minimum(
            (0.8 / back).clamp(max=1.0), REACH / move.abs().amax(dim=1, keepdim=True).clamp(min=1e-300)
        )
        tilt = tilt + move * length.clamp(max=1.0)
    return tilt, log_q, log_z, expected
