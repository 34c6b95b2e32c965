"""What is known about numbers: the base of every kind of real-valued label."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from anygrain.labels.error import LabelError, numbers
from anygrain.labels.observations import IMPOSSIBLE, Observations
from anygrain.labels.of_instances import OfInstances
from anygrain.labels.of_sets import OfSets
from anygrain.labels.real.belief import Belief
from anygrain.labels.real.point import PointEvidence

if TYPE_CHECKING:
    from anygrain.labels.real.all import RealAll
    from anygrain.labels.real.rating_channel import RatingChannel


class RealLabels(Observations):
    r"""Observations o of N instances, each of one unseen number y.

    .. math:: \log P(o \mid m, v) = \log \int P(o \mid y) \prod_i N(y_i; m_i, v_i) \, dy, \qquad
              m'_i = m_i + v_i \frac{\partial \log P}{\partial m_i}, \quad
              v'_i = v_i + v_i^2 \frac{\partial^2 \log P}{\partial m_i^2}

    A model believes N(mean, variance) of every instance, independently; labels are worth their likelihood, and the
    posterior has the mean m' and the variance v'. Arithmetic is in float64; results have the type of the mean.

    Attributes:
        name: of the quantity, such as its column; or None.
    """

    name: str | None = None

    @property
    def channels(self) -> tuple[RatingChannel, ...]:
        """The channels whose parameters these labels are read with."""
        return ()

    @cached_property
    def together(self) -> RealAll:
        """These labels as a join of one part or more, where they are computed."""
        from anygrain.labels.real.all import RealAll

        return RealAll(self)

    @property
    def exact(self) -> bool:
        return self.together.exact

    def infer(self, mean: Any, variance: Any) -> tuple[Tensor, Belief]:
        """Log-likelihood (M,) and posterior, both (N,), in one pass, without gradient.

        An impossible observation has the constant -1e4 and leaves the belief as it is. Where bags overlap only the sum
        over a connected component is a log-density.

        Raises:
            LabelError: mean or variance of another shape, or a variance that is not above 0.
        """
        return self.together.infer(mean, variance)

    def posterior(self, mean: Any, variance: Any) -> Belief:
        """Mean and variance of y_i given all observations, both (N,), without gradient."""
        return self.infer(mean, variance)[1]

    def log_likelihood(self, mean: Tensor, variance: Tensor) -> Tensor:
        """log P(o | mean, variance) of every observation, shape (M,), with its first derivatives."""
        return self.together.log_likelihood(mean, variance)

    def contradictions(self, mean: Any, variance: Any) -> Tensor:
        """bool, shape (M,): observations that are impossible given the rest."""
        return self.infer(mean, variance)[0] == IMPOSSIBLE

    def record_scores(self, mean: Any, variance: Any) -> Tensor:
        """log P(o_r | x, all other records) of every record, a log-density, shape (R,); 0 for a missing one."""
        return self.together.record_scores(mean, variance)

    def record_residuals(self, mean: Any, variance: Any) -> Tensor:
        """How far every record lies from what all else predicts, in standard deviations, shape (R,).

        NaN for a missing record, and where all else leaves no doubt. For an interval: how far the prediction lies
        outside, 0 inside.
        """
        return self.together.record_residuals(mean, variance)

    def update(self, mean: Tensor, variance: Tensor) -> None:
        """M-step: fit the channels to a posterior, mean and variance (N,)."""
        return None

    @abstractmethod
    def rough(self) -> Tensor:
        """A first guess of every y from the label alone, shape (N,), in float64; NaN where it says nothing."""

    @property
    def evident(self) -> Tensor:
        """bool, shape (N,): instances that some label speaks of."""
        return ~self.rough().isnan()

    def location_scale(self) -> tuple[float, float]:
        """Mean and standard deviation of y over the instances that labels speak of, by a few steps of EM.

        Raises:
            LabelError: labels that say nothing at all.
        """
        guess = self.rough()
        seen = ~guess.isnan()
        if not bool(seen.any()):
            raise LabelError(f"{type(self).__name__} says nothing: every label is missing")
        mean = float(guess[seen].mean())
        sd = float(guess[seen].std(correction=0))
        floor = max(1e-3 * sd, 1e-6 * abs(mean), 1e-12)
        sd = sd if sd > 0 else max(abs(mean), 1.0)
        for _ in range(20):
            belief = self.posterior(torch.full_like(guess, mean), torch.full_like(guess, sd**2))
            mean = float(belief.mean[seen].mean())
            spread = (belief.mean[seen] - mean).square() + belief.variance[seen]
            sd = max(float(spread.mean().sqrt()), floor)
        return mean, sd

    @classmethod
    def simulate(cls, values: Tensor, *, generator: torch.Generator, **how: Any) -> RealLabels:
        """Labels of this kind drawn from their own likelihood, given the true numbers (N,)."""
        raise LabelError(f"{cls.__name__} cannot be simulated")

    def __and__(self, other: RealLabels) -> RealAll:
        from anygrain.labels.real.all import RealAll

        return RealAll(self, other)


class RealInstanceLabels(OfInstances, RealLabels):
    """Evidence about single numbers.

    A kind gives `evidence`, and where an instance may have several records, `record_evidence`.
    """

    @abstractmethod
    def evidence(self, centre: Tensor) -> PointEvidence:
        """What the labels say of y - centre, for centres (N,)."""

    def record_evidence(self, centre: Tensor) -> PointEvidence:
        """What every record says of y - centre, for the centres (R,) of its instance."""
        return self.evidence(centre)

    @abstractmethod
    def said(self) -> Tensor:
        """bool, shape (R,): records that are not missing."""

    @abstractmethod
    def residual(self, mean: Tensor, variance: Tensor) -> Tensor:
        """Standardised distance of every record from N(mean, variance), both (R,), what all else says of y."""


class RealSetLabels(OfSets, RealLabels):
    """Evidence about sums over sets: `total` and its noise, see `BagSums`."""

    @property
    @abstractmethod
    def total(self) -> Tensor:
        """Sum over every set, shape (M,), in float64; NaN where missing."""

    @property
    @abstractmethod
    def total_noise(self) -> Tensor:
        """Variance of its noise, shape (M,), in float64."""

    @property
    @abstractmethod
    def log_unit(self) -> Tensor:
        """What makes a log-density of the sum one of the observation, shape (M,)."""


def as_values(values: Any, what: str, *, infinite: bool = False) -> Tensor:
    """Numbers (N,) in floating point; NaN is missing.

    Raises:
        LabelError: not numbers, not a vector, or infinity where it means nothing, naming the first rows.
    """
    given = _as_tensor(values, what)
    given = given if given.is_floating_point() else given.double()
    if given.ndim != 1:
        raise LabelError(f"{what} have shape {tuple(given.shape)}; expected one number per row")
    bad = given.isinf().nonzero()[:, 0]
    if len(bad) and not infinite:
        rows = ", ".join(str(int(b)) for b in bad[:3])
        raise LabelError(f"{what} are infinite in row {rows}; expected a number, or NaN where it is missing")
    return given


def as_noise(noise: Any, n: int, what: str) -> Tensor:
    """Standard deviations (n,) of a reading, in float64.

    Raises:
        LabelError: another shape, a negative number, or NaN.
    """
    sd = _as_tensor(noise, "noise").double()
    if sd.ndim > 1 or (sd.ndim == 1 and len(sd) != n):
        raise LabelError(
            f"noise has shape {tuple(sd.shape)}; expected one standard deviation, or ({n},), one per {what}"
        )
    bad = (~(sd >= 0)).nonzero()
    if len(bad):
        where = "" if sd.ndim == 0 else f" in row {int(bad[0])}"
        shown = float(sd if sd.ndim == 0 else sd[bad[0, 0]])
        raise LabelError(f"noise is {shown:g}{where}; expected a standard deviation of 0 or more")
    return sd.expand(n).clone()


def _as_tensor(values: Any, what: str) -> Tensor:
    """A tensor as it is, anything else in float64; None is NaN.

    Raises:
        LabelError: not numbers.
    """
    if isinstance(values, Tensor):
        return values
    try:
        return torch.from_numpy(np.asarray(values, dtype=np.float64).copy())
    except (TypeError, ValueError):
        return numbers(values, what)
