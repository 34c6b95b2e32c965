"""The sum of a value per class over the members of a set."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from anygrain.labels.segments import Block, Segments

STEPS = 4096  # grid steps between the lowest and the highest class
LIMIT = 10**6  # sums times members that are gone through for one set
CHUNK = 2**22  # sums, or classes, times members held at once
BISECTIONS = 60


def find_grid(values: Tensor) -> tuple[float, Tensor] | None:
    """The step, and the whole numbers (K,) of which values (K,) are multiples above the lowest; None off a grid.

    A grid of more than 4096 steps is none.
    """
    low = float(values.min())
    reach = float(values.max()) - low
    if reach == 0:
        return 1.0, torch.zeros_like(values, dtype=torch.long)
    places = ((values.double() - low) / reach).tolist()
    shares = [Fraction(place).limit_denominator(STEPS) for place in places]
    if any(abs(float(share) - place) > 1e-9 for share, place in zip(shares, places, strict=True)):
        return None
    steps = math.lcm(*(share.denominator for share in shares))
    if steps > STEPS:
        return None
    return reach / steps, torch.tensor([int(share * steps) for share in shares], device=values.device)


class Reading(NamedTuple):
    """What was read of the sum of every set."""

    sum: Tensor  # (M,)
    noise: Tensor  # (M,) standard deviation; 0 where the sum is known
    within: Tensor  # (M,) how far from a known sum the members' may be


class SumPlan:
    """How the sums of sets are found; made once.

    Args:
        segments: members of M sets.
        values: (K,) value of every class, whole numbers of which the lowest is 0; NaN for a class that has none and
            does not occur.
    """

    def __init__(self, segments: Segments, values: Tensor):
        self.segments = segments
        self.absent = values.isnan()
        self.values = values.masked_fill(self.absent, 0.0)
        self.highest = int(self.values.max())
        sizes = segments.sizes
        small = sizes * (sizes * self.highest + 1) <= LIMIT
        self._walked, self._estimated = small.nonzero()[:, 0], (~small).nonzero()[:, 0]

    @property
    def exact(self) -> bool:
        """All sets are small enough to go through all of their sums."""
        return len(self._estimated) == 0

    @cached_property
    def _blocks(self) -> list[tuple[Block, bool]]:
        everyone = torch.arange(len(self.segments), device=self.values.device)
        parts = []
        for sets, walked in ((self._walked, True), (self._estimated, False)):
            for whole in self.segments.blocks_of(sets):
                n = whole.shape[1]
                cells = n * (n * self.highest + 1) if walked else n * len(self.values)
                for part in whole.pick(everyone).split(max(1, CHUNK // cells)):
                    parts += [(block, walked) for block in self.segments.blocks_of(part)]
        return parts

    def find(self, log_p: Tensor, reading: Reading) -> tuple[Tensor, Tensor]:
        r"""The reading x of the sum S of the members' values :math:`v_{y_i}`, with Gaussian noise or without.

        .. math:: P(x) = \sum_s P(S = s)\, \mathcal N(x; s, \sigma^2)
                  = \prod_i Z_i \sum_s e^{-\lambda s} Q(S = s)\, \mathcal N(x; s, \sigma^2), \qquad
                  q_i(k) = p_i(k) e^{\lambda v_k} / Z_i

        with the tilt at which law and reading meet, :math:`\mathrm E_Q S + \sigma^2 \lambda = x`. All sums are gone
        through, member by member, while there are few; without noise the sum is x itself, or near it. Else Q, with
        every member left out in turn, is taken for a normal law: a saddle-point approximation.

        Args:
            log_p: (E, K).
            reading: of every set.

        Returns:
            log P(x) (M,), a density unless the sum is exact, and log P(x | y_i = k) (E, K).

        Source: Daniels, Saddlepoint approximations in statistics, 1954.
        """
        dtype = log_p.dtype
        precise = log_p if log_p.device.type == "mps" else log_p.double()
        precise = precise.masked_fill(self.absent, -torch.inf)
        values = self.values.to(precise.dtype)
        lowest = values.masked_fill(self.absent, torch.inf).argmin()
        nothing = torch.full_like(values, -torch.inf).index_fill_(0, lowest, 0.0)
        value = precise.new_zeros(len(self.segments))
        message = torch.zeros_like(precise)
        for block, walked in self._blocks:
            table = block.lay(precise, -torch.inf)
            if block.filled is not None:  # an empty place is certain to add nothing
                table = torch.where(block.filled[..., None], table, nothing)
            mine = Reading(*(block.pick(column).to(precise.dtype) for column in reading))
            tilt = tilt_to_sum(table, values, mine)
            of_sets, said = (self._walk if walked else self._estimate)(table, values, mine, tilt)
            block.place(value, of_sets)
            block.write(message, said)
        return value.to(dtype), message.masked_fill(self.absent, -torch.inf).to(dtype)

    def _walk(self, log_p: Tensor, values: Tensor, reading: Reading, tilt: Tensor) -> tuple[Tensor, Tensor]:
        """log P (B,) and messages (B, n, K) over all sums."""
        sets, n, _ = log_p.shape
        steps, states = values.long(), n * self.highest + 1
        moved = log_p + tilt[:, None, None] * values
        log_z = torch.logsumexp(moved, dim=2)
        log_z = log_z.masked_fill(torch.isneginf(log_z), 0.0)
        q = torch.exp(moved - log_z[..., None])
        sums = torch.arange(states, dtype=log_p.dtype, device=log_p.device)
        weight = _log_reading(reading, sums) - tilt[:, None] * sums
        top = weight.amax(dim=1, keepdim=True)
        top = torch.where(torch.isfinite(top), top, 0.0)
        place = torch.arange(states, device=log_p.device)[:, None]
        source = torch.where(place >= steps, place - steps, states)  # (S, K); S is nowhere
        target = torch.where(place + steps < states, place + steps, states)
        ahead = torch.zeros(n + 1, sets, states + 1, dtype=log_p.dtype, device=log_p.device)
        ahead[0, :, 0] = 1.0
        for t in range(n):
            ahead[t + 1, :, :-1] = torch.bmm(ahead[t][:, source], q[:, t, :, None])[..., 0]
        back = torch.nn.functional.pad(torch.exp(weight - top), (0, 1))
        total = (ahead[-1] * back).sum(dim=1)
        given = torch.empty_like(q)
        for t in reversed(range(n)):
            onward = back[:, target]
            given[:, t] = torch.bmm(ahead[t][:, None, :-1], onward)[:, 0]
            back = torch.nn.functional.pad(torch.bmm(onward, q[:, t, :, None])[..., 0], (0, 1))
        whole = log_z.sum(dim=1) + top[:, 0]
        message = given.log() + (whole[:, None] - log_z)[..., None] + tilt[:, None, None] * values
        return total.log() + whole, message

    def _estimate(self, log_p: Tensor, values: Tensor, reading: Reading, tilt: Tensor) -> tuple[Tensor, Tensor]:
        """log P (B,) and messages (B, n, K) by normal laws of the tilted sums."""
        moved = log_p + tilt[:, None, None] * values
        log_z = torch.logsumexp(moved, dim=2)
        q = torch.softmax(moved, dim=2).nan_to_num(0.0)
        mean = q @ values
        variance = (q @ (values * values) - mean * mean).clamp(min=0.0)
        noise = reading.noise**2
        rounded = reading.within**2 / 3  # the variance of a sum that is known to so much

        def log_density(m: Tensor, v: Tensor, at: Tensor, tilt: Tensor, noise: Tensor) -> Tensor:
            spread = torch.maximum(v + noise, rounded.view(-1, *[1] * (v.ndim - 1)))
            miss = at - (m - tilt * v)
            return -tilt * m + tilt**2 * v / 2 - miss**2 / (2 * spread) - 0.5 * torch.log(2 * math.pi * spread)

        total, spread, whole = mean.sum(dim=1), variance.sum(dim=1), log_z.sum(dim=1)
        value = whole + log_density(total, spread, reading.sum, tilt, noise)
        rest = (total[:, None] - mean)[..., None], (spread[:, None] - variance).clamp(min=0.0)[..., None]
        ends = (reading.sum[:, None, None] - values, tilt[:, None, None], noise[:, None, None])
        message = (whole[:, None] - log_z)[..., None] + log_density(*rest, *ends)
        able = log_p > -torch.inf
        high = torch.where(able, values, -torch.inf).amax(dim=2).sum(dim=1)
        low = torch.where(able, values, torch.inf).amin(dim=2).sum(dim=1)
        beyond = ((reading.sum > high + reading.within) | (reading.sum < low - reading.within)) & (reading.noise == 0)
        return value.masked_fill(beyond, -torch.inf), message


def _log_reading(reading: Reading, sums: Tensor) -> Tensor:
    """log P(x | S = s) (B, S): a normal density, or whether s is near x."""
    noisy = reading.noise[:, None] > 0
    noise = torch.where(noisy, reading.noise[:, None], 1.0)
    miss = reading.sum[:, None] - sums
    density = -0.5 * (miss / noise) ** 2 - torch.log(noise) - 0.5 * math.log(2 * math.pi)
    return torch.where(
        noisy, density, torch.where(miss.abs() <= reading.within[:, None], 0.0, -torch.inf).to(miss.dtype)
    )


def tilt_to_sum(log_p: Tensor, values: Tensor, reading: Reading) -> Tensor:
    r"""The tilt :math:`\lambda` (B,) at which :math:`\mathrm E_Q S + \sigma^2 \lambda` is the reading, by bisection.

    Where no tilt reaches the reading, the one that nearly reaches the last sum that can be made.
    """
    able = log_p > -torch.inf
    high = torch.where(able, values, -torch.inf).amax(dim=2)
    low = torch.where(able, values, torch.inf).amin(dim=2)
    stuck = ~able.any(dim=2)
    high, low = high.masked_fill(stuck, 0.0).sum(dim=1), low.masked_fill(stuck, 0.0).sum(dim=1)
    margin = torch.minimum((high - low) / 4, torch.full_like(high, 0.25 * float(least_gap(values))))
    noise = reading.noise**2
    aim = torch.where(noise > 0, reading.sum, torch.maximum(torch.minimum(reading.sum, high - margin), low + margin))
    gap = float(least_gap(values))
    steepest = (20.0 - torch.where(torch.isfinite(log_p), log_p, 0.0).amin(dim=(1, 2))) / gap
    left, right = -steepest, steepest
    for _ in range(BISECTIONS):
        tilt = (left + right) / 2
        q = torch.softmax(log_p + tilt[:, None, None] * values, dim=2).nan_to_num(0.0)
        short = (q @ values).sum(dim=1) + noise * tilt < aim
        left, right = torch.where(short, tilt, left), torch.where(short, right, tilt)
    return torch.where((high > low), (left + right) / 2, 0.0)


def least_gap(values: Tensor) -> Tensor:
    """Smallest difference between two different values; 1 where all are equal."""
    apart = values.unique().diff()
    return apart.min() if len(apart) else values.new_ones(())
