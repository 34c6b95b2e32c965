"""Several real-valued labels of the same instances at once: evidence multiplies."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from anygrain.labels.error import LabelError
from anygrain.labels.joined import Joined, require_same_instances
from anygrain.labels.observations import IMPOSSIBLE
from anygrain.labels.real.bag_sums import BagSums, Said
from anygrain.labels.real.base import RealInstanceLabels, RealLabels, RealSetLabels
from anygrain.labels.real.belief import Belief, checked
from anygrain.labels.real.point import PointEvidence, Tilted, tilt
from anygrain.labels.real.rating_channel import RatingChannel

SWEEPS = 50  # of expectation propagation, where intervals meet bags
SETTLED = 1e-9


class _Solved(NamedTuple):
    """What all labels say, all of shape (N,) unless it says otherwise."""

    value: Tensor  # (M,)
    slope: Tensor
    curvature: Tensor
    mean: Tensor
    variance: Tensor
    precision: Tensor  # of the messages from the bags
    linear: Tensor  # of the same, relative to the mean of the model
    said: Said | None


class RealAll(Joined[RealLabels], RealLabels):
    r"""The product of its parts: `a & b` is `RealAll(a, b)`.

    Values, ratings and intervals change the belief of their instance; aggregates see the changed beliefs. Exact, also
    where bags overlap, except that

    - an interval in a bag is matched by a Gaussian of the same moments (expectation propagation), and
    - components of more than 2000 bags that overlap use Gaussian belief propagation: exact means, near variances.

    Then `exact` is False. Observations: the sets of the parts in order, then the instances that lie in no set.
    Records: those of the parts in order.

    Args:
        parts: real-valued labels of the same instances and rows; nested `RealAll` are unpacked.

    Raises:
        LabelError: parts that differ in instances or rows, labels of classes among them.

    Source: Minka, Expectation propagation for approximate Bayesian inference, 2001.
    """

    def __init__(self, *parts: RealLabels):
        flat: list[RealLabels] = []
        for part in parts:
            if not isinstance(part, RealLabels):
                kind = type(part).__name__
                raise LabelError(f"{kind} speaks of classes, {type(parts[0]).__name__} of a number: fit them apart")
            flat += part.parts if isinstance(part, RealAll) else [part]
        if not flat:
            raise LabelError("RealAll needs at least one kind of label")
        require_same_instances(flat)
        self.parts = flat
        self.instance_parts = [p for p in flat if isinstance(p, RealInstanceLabels)]
        self.set_parts = [p for p in flat if isinstance(p, RealSetLabels)]
        super().__init__(flat[0].n_instances, rows=flat[0].rows, n_rows=flat[0].n_rows)
        self.weight = self.joined_weight()
        self.name = next((p.name for p in flat if p.name is not None), None)

    @property
    def together(self) -> RealAll:
        return self

    @property
    def channels(self) -> tuple[RatingChannel, ...]:
        return tuple(c for p in self.parts for c in p.channels)

    def update(self, mean: Tensor, variance: Tensor) -> None:
        for part in self.parts:
            part.update(mean, variance)

    def rough(self) -> Tensor:
        guesses = torch.stack([p.rough() for p in self.parts])
        return guesses.nanmean(dim=0)

    @property
    def exact(self) -> bool:
        if not self.set_parts:
            return True
        bounded = self._evidence(torch.zeros(self.n_instances, dtype=torch.float64, device=self.device)).bounded
        return self._sums.exact and not bool(bounded[self._sums.members].any())

    # -- inference ----------------------------------------------------------------------------------------------------

    @cached_property
    def _totals(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sum, noise variance and unit of the sets that say something, and their numbers."""
        total = torch.cat([p.total for p in self.set_parts])
        noise = torch.cat([p.total_noise for p in self.set_parts])
        unit = torch.cat([p.log_unit for p in self.set_parts])
        told = (~total.isnan() & (noise < torch.inf)).nonzero()[:, 0]
        return total[told], noise[told], unit[told], told

    @cached_property
    def _sums(self) -> BagSums:
        s = self.structure
        total, noise, _, told = self._totals
        number = torch.full((s.n_sets,), -1, device=self.device)
        number[told] = torch.arange(len(told), device=self.device)
        bag = number[s.sets]
        return BagSums(s.members[bag >= 0], bag[bag >= 0], total, noise, self.n_instances)

    def _evidence(self, centre: Tensor) -> PointEvidence:
        evidence = PointEvidence.nothing(centre)
        for part in self.instance_parts:
            evidence = evidence + part.evidence(centre)
        return evidence

    def _solve(self, mean: Tensor, variance: Tensor) -> _Solved:
        zero = torch.zeros_like(mean)
        evidence = self._evidence(mean)
        tilted = tilt(zero, variance, evidence)
        if not self.set_parts:
            value = torch.where(evidence.against, IMPOSSIBLE, tilted.value)
            return _Solved(value, *tilted[3:5], mean + tilted.shift, tilted.variance, zero, zero, None)
        bounded = evidence.bounded
        in_bag = torch.zeros_like(bounded)
        in_bag[self._sums.members] = True
        matched = bounded & in_bag
        if bool(matched.any()):
            tilted, extra = self._match(mean, variance, evidence, matched)
        else:
            extra = zero
        said = self._sums.infer(mean + tilted.shift, tilted.variance, variance)
        ratio = tilted.variance / variance
        slope = tilted.slope + ratio * said.slope
        curvature = tilted.curvature + ratio.square() * said.curvature
        precision, linear = _message(said, tilted)
        value = self._values(tilted.value + extra, evidence.against, said)
        posterior = (variance + variance.square() * curvature).clamp(min=0)
        return _Solved(value, slope, curvature, mean + variance * slope, posterior, precision, linear, said)

    def _match(self, mean: Tensor, variance: Tensor, evidence: PointEvidence, matched: Tensor) -> tuple[Tilted, Tensor]:
        """Intervals (matched (N,)) as Gaussian evidence of the same moments, and what that adds to the values."""
        infinite = torch.full_like(mean, torch.inf)
        soft = PointEvidence(
            evidence.precision,
            evidence.linear,
            evidence.constant,
            torch.where(matched, -infinite, evidence.low),
            torch.where(matched, infinite, evidence.high),
            evidence.known,
            evidence.against,
        )
        only = PointEvidence.nothing(mean)
        only = PointEvidence(
            only.precision,
            only.linear,
            only.constant,
            torch.where(matched, evidence.low, -infinite),
            torch.where(matched, evidence.high, infinite),
            only.known,
            only.against,
        )
        zero = torch.zeros_like(mean)
        base = tilt(zero, variance, soft)
        precision, linear = zero, zero  # of the Gaussians that stand for the intervals
        extra = zero
        for sweep in range(SWEEPS):
            q = 1 + base.variance * precision
            shift, spread = (base.shift + base.variance * linear) / q, base.variance / q
            with_sites = Tilted(base.value, shift, spread, base.slope, base.curvature)
            said = self._sums.infer(mean + shift, spread, variance)
            from_bags, pull = _message(said, with_sites)
            q = 1 + base.variance * from_bags
            cavity, loose = (base.shift + base.variance * pull) / q, base.variance / q
            inside = tilt(cavity, loose, only)
            # the site whose product with the cavity has the moments of the truncated belief
            bend = (inside.curvature * loose).clamp(min=-1 + 1e-12)
            new_precision = torch.where(matched, -inside.curvature / (1 + bend), 0.0)
            new_linear = torch.where(matched, (inside.slope - inside.curvature * cavity) / (1 + bend), 0.0)
            moved = (new_precision - precision).abs() * base.variance
            moved = moved + (new_linear - linear).abs() * base.variance.sqrt()
            change = float((moved / (1 + base.variance * new_precision)).max())
            step = 1.0 if sweep < 5 else 0.7
            precision = precision + step * (new_precision - precision)
            linear = linear + step * (new_linear - linear)
            if change < SETTLED:
                break
        # the part of the evidence that its Gaussian leaves out: interval and Gaussian under the cavity
        site = PointEvidence.gaussian(precision, linear, zero)
        extra = torch.where(matched, inside.value - tilt(cavity, loose, site).value, 0.0)
        both = PointEvidence(
            soft.precision + precision,
            soft.linear + linear,
            soft.constant,
            soft.low,
            soft.high,
            soft.known,
            soft.against,
        )
        return tilt(zero, variance, both), extra

    def _values(self, of_instance: Tensor, against: Tensor, said: Said) -> Tensor:
        """Values of all observations (M,): what is said of an instance counts with the first set that holds it."""
        s = self.structure
        _, _, unit, told = self._totals
        value = of_instance.new_zeros(s.n_sets)
        value[told] = torch.where(said.value == IMPOSSIBLE, said.value, said.value + unit)
        first = s.first.nonzero()[:, 0]
        share = value.new_zeros(s.n_sets).index_add(0, s.sets[first], of_instance[s.members[first]])
        torn = torch.zeros(s.n_sets, dtype=torch.bool, device=self.device)
        torn[s.sets[first[against[s.members[first]]]]] = True
        value = torch.where(torn | (value == IMPOSSIBLE), IMPOSSIBLE, value + share)
        alone = torch.where(against, IMPOSSIBLE, of_instance)[s.free]
        return torch.cat([value, alone])

    def infer(self, mean: Any, variance: Any) -> tuple[Tensor, Belief]:
        dtype = _type_of(mean)
        found = self._solve(*checked(mean, variance, self.n_instances))
        return found.value.to(dtype), Belief(found.mean.to(dtype), found.variance.to(dtype))

    def log_likelihood(self, mean: Tensor, variance: Tensor) -> Tensor:
        found = self._solve(*checked(mean, variance, self.n_instances))
        dtype = _type_of(mean)
        value = found.value.to(dtype)
        moves = [t for t in (mean, variance) if isinstance(t, Tensor) and t.requires_grad]
        if not moves:
            return value
        # by Bonnet's and Price's theorems d log P / d variance = (curvature + slope^2) / 2
        linear = found.slope.to(dtype) * (mean - mean.detach())
        linear = linear + (0.5 * (found.curvature + found.slope.square())).to(dtype) * (variance - variance.detach())
        s = self.structure
        owner = torch.zeros(self.n_instances, dtype=torch.long, device=self.device)
        owner[s.free] = torch.arange(s.n_sets, self.n_observations, device=self.device)
        first = s.first.nonzero()[:, 0]
        owner[s.members[first]] = s.sets[first]
        return value + torch.zeros_like(value).index_add(0, owner, linear) * (value != IMPOSSIBLE)

    # -- records ------------------------------------------------------------------------------------------------------

    def record_scores(self, mean: Any, variance: Any) -> Tensor:
        return self._records(mean, variance)[0].to(_type_of(mean))

    def record_residuals(self, mean: Any, variance: Any) -> Tensor:
        return self._records(mean, variance)[1].to(_type_of(mean))

    def _records(self, mean: Any, variance: Any) -> tuple[Tensor, Tensor]:
        """Score and residual of every record, both (R,)."""
        mean, variance = checked(mean, variance, self.n_instances)
        found = self._solve(mean, variance)
        # what the model and the bags believe of each instance is the centre from here on
        q = 1 + variance * found.precision
        centre, spread = mean + variance * found.linear / q, variance / q
        scores, residuals = [], []
        at_set = 0
        for part in self.parts:
            if isinstance(part, RealSetLabels):
                score, residual = self._set_records(found, slice(at_set, at_set + len(part.sets)))
                at_set += len(part.sets)
            else:
                assert isinstance(part, RealInstanceLabels)
                score, residual = self._instance_records(part, centre, spread)
            scores.append(score)
            residuals.append(residual)
        return torch.cat(scores), torch.cat(residuals)

    def _set_records(self, found: _Solved, sets: slice) -> tuple[Tensor, Tensor]:
        assert found.said is not None
        _, _, unit, told = self._totals
        score = found.slope.new_zeros(self.structure.n_sets)
        residual = torch.full_like(score, torch.nan)
        settled = found.said.residual.isnan()
        score[told] = torch.where(settled, found.said.score, found.said.score + unit)
        residual[told] = found.said.residual
        return score[sets], residual[sets]

    def _instance_records(self, part: RealInstanceLabels, centre: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        rest = PointEvidence.nothing(centre)
        for other in self.instance_parts:
            if other is not part:
                rest = rest + other.evidence(centre)
        own = part.evidence(centre)
        if part.record_instances is None:
            owner = torch.arange(self.n_instances, device=self.device)
            without, whole = rest, rest + own
        else:
            owner = part.record_instances
            record = part.record_evidence(centre[owner])
            whole = (rest + own)[owner]
            without = rest[owner] + own[owner].without(record)
        zero = torch.zeros_like(centre[owner])
        before, after = tilt(zero, spread[owner], without), tilt(zero, spread[owner], whole)
        score = torch.where(whole.against & ~without.against, IMPOSSIBLE, after.value - before.value)
        said = part.said() & ~without.against
        residual = part.residual(centre[owner] + before.shift, before.variance)
        return torch.where(said, score, 0.0), torch.where(said, residual, torch.nan)


def _message(said: Said, tilted: Tilted) -> tuple[Tensor, Tensor]:
    """Precision and linear term, relative to the model's mean, of what the bags say of each instance, both (N,)."""
    left = (1 + tilted.variance * said.curvature).clamp(min=1e-12)
    precision = (-said.curvature / left).clamp(min=0)
    return precision, said.slope / left + precision * tilted.shift


def _type_of(mean: Any) -> torch.dtype:
    return mean.dtype if isinstance(mean, Tensor) and mean.is_floating_point() else torch.float64
