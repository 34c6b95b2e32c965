"""What labels say of single numbers, and how a Gaussian belief changes by it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple, Self

import torch
from torch import Tensor

from anygrain.labels.real.truncated import truncated_normal

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class PointEvidence:
    r"""Evidence about n numbers :math:`d = y - c`, each relative to a centre of its own; every field has shape (n,).

    .. math:: P(o \mid d) = e^{\kappa + \eta d - \lambda d^2 / 2} \, [l \le d \le h] \, \delta(d - k)

    Attributes:
        precision: lambda.  linear: eta.  constant: kappa.
        low, high: l and h; infinite for an open end.
        known: k, where the number itself is known; NaN where it is not.
        against: where the evidence contradicts itself.
    """

    precision: Tensor
    linear: Tensor
    constant: Tensor
    low: Tensor
    high: Tensor
    known: Tensor
    against: Tensor

    @classmethod
    def nothing(cls, like: Tensor) -> Self:
        """No evidence about n numbers."""
        zero = torch.zeros_like(like)
        infinite = torch.full_like(like, torch.inf)
        return cls(zero, zero, zero, -infinite, infinite, torch.full_like(like, torch.nan), zero.bool())

    @classmethod
    def gaussian(cls, precision: Tensor, linear: Tensor, constant: Tensor) -> Self:
        """Evidence without known numbers and intervals."""
        empty = cls.nothing(precision)
        return cls(precision, linear, constant, empty.low, empty.high, empty.known, empty.against)

    def __add__(self, other: PointEvidence) -> PointEvidence:
        """Both, which multiply."""
        both = ~self.known.isnan() & ~other.known.isnan()
        known = torch.where(self.known.isnan(), other.known, self.known)
        low, high = torch.maximum(self.low, other.low), torch.minimum(self.high, other.high)
        is_known = ~known.isnan()
        differ = both & (self.known != other.known)
        outside = is_known & ((known < low) | (known > high))
        empty = ~is_known & (low >= high)
        return PointEvidence(
            self.precision + other.precision,
            self.linear + other.linear,
            self.constant + other.constant,
            low,
            high,
            known,
            self.against | other.against | differ | outside | empty,
        )

    def without(self, record: PointEvidence) -> PointEvidence:
        """These with Gaussian evidence that is part of them taken back."""
        return PointEvidence(
            self.precision - record.precision,
            self.linear - record.linear,
            self.constant - record.constant,
            self.low,
            self.high,
            self.known,
            self.against,
        )

    def __getitem__(self, at: Tensor) -> PointEvidence:
        return PointEvidence(*(getattr(self, f.name)[at] for f in fields(self)))

    @property
    def bounded(self) -> Tensor:
        """bool (n,): an interval says something of a number that is not known."""
        return ((self.low > -torch.inf) | (self.high < torch.inf)) & self.known.isnan() & ~self.against


class Tilted(NamedTuple):
    """A Gaussian belief after evidence, all of shape (n,)."""

    value: Tensor  # log P(o); 0 where the evidence contradicts itself
    shift: Tensor  # mean of the posterior, relative to the centre
    variance: Tensor  # of the posterior
    slope: Tensor  # d log P / d mean
    curvature: Tensor  # d2 log P / d mean2


def tilt(shift: Tensor, variance: Tensor, evidence: PointEvidence) -> Tilted:
    r"""What a belief N(centre + shift, variance) becomes by evidence; it stays where that contradicts itself.

    .. math:: m' = m + v \frac{\partial \log P}{\partial m}, \qquad
              v' = v + v^2 \frac{\partial^2 \log P}{\partial m^2}

    Both hold for every likelihood; with intervals m' and v' are moments of a truncated normal.

    Args:
        shift: mean of the belief less the centre, shape (n,).
        variance: shape (n,), not negative.

    Source: Robbins, An empirical Bayes approach to statistics, 1956 (Tweedie's formula).
    """
    known = ~evidence.known.isnan()
    safe = torch.where(variance > 0, variance, torch.ones_like(variance))
    gap = torch.where(known, evidence.known, shift) - shift
    value = torch.where(known, -0.5 * (gap.square() / safe + LOG_2PI + safe.log()), 0.0)
    mean = torch.where(known, evidence.known, shift)
    spread = torch.where(known, 0.0, variance)
    # Gaussian evidence
    q = 1 + evidence.precision * spread
    pull = evidence.linear - evidence.precision * mean
    value = value + evidence.constant - 0.5 * q.log()
    value = value + 0.5 * (evidence.linear.square() * spread + (evidence.linear + pull) * mean) / q
    slope = torch.where(known, gap / safe, pull / q)
    curvature = torch.where(known, -1 / safe, -evidence.precision / q)
    mean, spread = mean + spread * pull / q, spread / q
    # intervals
    at = evidence.bounded.nonzero()[:, 0]
    if len(at):
        sd = spread[at].sqrt()
        log_mass, inside, narrowed = truncated_normal(
            (evidence.low[at] - mean[at]) / sd, (evidence.high[at] - mean[at]) / sd
        )
        ratio = 1 + variance[at] * curvature[at]
        value = value.index_add(0, at, log_mass)
        slope = slope.index_add(0, at, ratio * inside / sd)
        curvature = curvature.index_add(0, at, ratio.square() * (narrowed - 1) / sd.square())
        mean = mean.index_add(0, at, sd * inside)
        spread = spread.index_copy(0, at, spread[at] * narrowed)
    zero = torch.zeros_like(value)
    against = evidence.against
    return Tilted(
        torch.where(against, zero, value),
        torch.where(against, shift, mean),
        torch.where(against, variance, spread),
        torch.where(against, zero, slope),
        torch.where(against, zero, curvature),
    )
