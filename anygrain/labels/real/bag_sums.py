"""Sums over bags of Gaussian numbers: exact conditioning, component by component."""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from anygrain.labels.observations import IMPOSSIBLE
from anygrain.labels.real.point import LOG_2PI
from anygrain.labels.structure import connected_components

LARGEST = 2000  # bags of a component that is solved as one system of equations
PAIRS = 5_000_000  # pairs of bags that share an instance, at most, for the same
REDUNDANT = 1e-10  # of its variance before all evidence: a bag with less left is implied by others
CLOSE = 1e-5  # relative difference up to which what is implied agrees with what is given
SWEEPS = 500
DAMPING = 0.5


class Said(NamedTuple):
    """What bags say."""

    value: Tensor  # (B,) log P of each bag given those before it; IMPOSSIBLE where others imply something else
    slope: Tensor  # (N,) d log P(all bags) / d mean
    curvature: Tensor  # (N,) second derivative
    score: Tensor  # (B,) log P of each bag given all others
    residual: Tensor  # (B,) standardised distance from what all else predicts; NaN where others imply the bag


class BagSums:
    r"""Sums of bags, read with Gaussian noise: :math:`o_b = \sum_{i \in b} y_i + N(0, s_b^2)`.

    With independent :math:`y_i \sim N(m_i, v_i)` the sums of a connected component of bags are jointly Gaussian,

    .. math:: r_b = o_b - \sum_{i \in b} m_i, \quad C_{bc} = \sum_{i \in b \cap c} v_i + [b = c] s_b^2, \quad
              \frac{\partial \log P}{\partial m_i} = \sum_{b \ni i} (C^{-1} r)_b, \quad
              \frac{\partial^2 \log P}{\partial m_i^2} = - \sum_{b, c \ni i} (C^{-1})_{bc}

    Bags that share no instance with others are solved in closed form, others by a Cholesky factor per component of up
    to 2000 bags; in larger ones damped Gaussian belief propagation finds the same means and approximate variances.

    Args:
        members, bag: instance and bag of every edge, shape (E,), bag by bag.
        total: o, shape (B,).  noise: variance s^2, shape (B,).
        n_instances: N.

    Source: Bickson, Gaussian Belief Propagation: Theory and Application, 2008.
    """

    def __init__(self, members: Tensor, bag: Tensor, total: Tensor, noise: Tensor, n_instances: int):
        self.members, self.bag, self.total, self.noise = members, bag, total, noise
        self.n_instances, self.n_bags = n_instances, len(total)

    @cached_property
    def _component(self) -> Tensor:
        """Component of every bag."""
        nodes = connected_components(self.n_instances + self.n_bags, self.members, self.bag + self.n_instances)
        return nodes[self.n_instances :].unique(return_inverse=True)[1] if self.n_bags else self.bag

    @cached_property
    def _size(self) -> Tensor:
        """Bags of every component."""
        return torch.bincount(self._component)

    @cached_property
    def _degree(self) -> Tensor:
        return torch.bincount(self.members, minlength=self.n_instances)

    @cached_property
    def _large(self) -> Tensor:
        """bool per component: too large for a system of equations."""
        pairs = torch.zeros_like(self._size)
        pairs.index_add_(0, self._component[self.bag], self._degree[self.members])
        return (self._size > LARGEST) | (pairs > PAIRS)

    @property
    def exact(self) -> bool:
        return not bool(self._large.any())

    @cached_property
    def _pairs(self) -> tuple[Tensor, Tensor]:
        """Edges (left, right) of the same instance, in components of two bags or more that are solved."""
        component = self._component[self.bag]
        edges = ((self._size[component] > 1) & ~self._large[component]).nonzero()[:, 0]
        edges = edges[torch.argsort(self.members[edges], stable=True)]
        _, at, count = self.members[edges].unique_consecutive(return_inverse=True, return_counts=True)
        sizes = count[at]
        begin = (count.cumsum(0) - count)[at]
        left = torch.repeat_interleave(sizes)
        right = begin[left] + torch.arange(int(sizes.sum()), device=edges.device) - (sizes.cumsum(0) - sizes)[left]
        return edges[left], edges[right]

    @cached_property
    def _systems(self) -> list[_Systems]:
        """Components of two bags or more that are solved, those of similar size together."""
        size = torch.where(self._large, 0, self._size)
        width = torch.where(size > 1, 2 ** (size.clamp(min=1) - 1).double().log2().floor().add(1).long(), 0)
        left, right = self._pairs
        out = []
        for w in width.unique().tolist():
            if w < 2:
                continue
            of_bag = width[self._component] == w
            bags = of_bag.nonzero()[:, 0]
            bags = bags[torch.argsort(self._component[bags], stable=True)]
            _, system, count = self._component[bags].unique_consecutive(return_inverse=True, return_counts=True)
            place = torch.arange(len(bags), device=bags.device) - (count.cumsum(0) - count)[system]
            row = torch.zeros(self.n_bags, dtype=torch.long, device=bags.device)
            row[bags] = system * w + place
            chosen = of_bag[self.bag[left]]
            out.append(
                _Systems(len(count), w, bags, row, of_bag[self.bag].nonzero()[:, 0], left[chosen], right[chosen])
            )
        return out

    def infer(self, mean: Tensor, variance: Tensor, scale: Tensor) -> Said:
        """What the bags say to a belief N(mean, variance), both (N,).

        Args:
            scale: variance of each instance before all evidence, (N,): what counts as nothing is measured by it.
        """
        zero = torch.zeros_like(self.total)
        residual = self.total - zero.index_add(0, self.bag, mean[self.members])
        spread = zero.index_add(0, self.bag, variance[self.members]) + self.noise
        whole = zero.index_add(0, self.bag, scale[self.members]) + self.noise
        agrees = residual.abs() <= CLOSE * (self.total.abs() + whole.sqrt())
        slope, curvature = torch.zeros_like(mean), torch.zeros_like(mean)
        implied = spread <= REDUNDANT * whole
        safe = torch.where(implied, torch.ones_like(spread), spread)
        value = -0.5 * (LOG_2PI + safe.log() + residual.square() / safe)
        value = torch.where(implied, torch.where(agrees, 0.0, IMPOSSIBLE), value)
        found = _Found(value, value.clone(), torch.where(implied, torch.nan, residual / safe.sqrt()), slope, curvature)
        if self.n_bags:
            size = self._size[self._component]
            single = (size[self.bag] == 1) & ~implied[self.bag]
            self._add(found, single.nonzero()[:, 0], residual / safe, -1 / safe)
            for systems in self._systems:
                self._solve(found, systems, variance, residual, whole)
            if bool(self._large.any()):
                self._propagate(found, variance, residual, whole)
        return Said(found.value, found.slope, found.curvature, found.score, found.residual)

    def _add(self, found: _Found, edges: Tensor, slope: Tensor, curvature: Tensor) -> None:
        found.slope.index_add_(0, self.members[edges], slope[self.bag[edges]])
        found.curvature.index_add_(0, self.members[edges], curvature[self.bag[edges]])

    def _solve(self, found: _Found, systems: _Systems, variance: Tensor, residual: Tensor, whole: Tensor) -> None:
        """Components that are solved as systems of equations."""
        n, width, bags, row, edges, left, right = systems
        # C as (n, width, width), an identity where a component has fewer bags
        cell = row[self.bag[left]] * width + row[self.bag[right]] % width
        table = variance.new_zeros(n * width * width)
        table.index_add_(0, cell, variance[self.members[left]])
        table = table.view(n, width, width)
        diagonal = variance.new_ones(n * width)
        used = torch.zeros(n * width, dtype=torch.bool, device=bags.device)
        used[row[bags]] = True
        diagonal[row[bags]] = self.noise[bags]
        table = table + torch.diag_embed(diagonal.view(n, width))
        r = variance.new_zeros(n * width)
        r[row[bags]] = residual[bags]
        scale = variance.new_ones(n * width)
        scale[row[bags]] = whole[bags]
        wanted = variance.new_zeros(n * width)
        wanted[row[bags]] = CLOSE * (self.total[bags].abs() + whole[bags].sqrt())
        r, scale, wanted, used = (t.view(n, width) for t in (r, scale, wanted, used))
        factor, failed = torch.linalg.cholesky_ex(table)
        left_over = torch.diagonal(factor, dim1=1, dim2=2).square()
        implied = torch.zeros_like(used)
        if bool((failed > 0).any()) or bool((left_over <= REDUNDANT * scale).any()):
            implied, against = _implied(table, r, scale, wanted)
            kept = ~implied
            table = table * (kept[:, :, None] & kept[:, None, :]) + torch.diag_embed(implied.to(table))
            r = r * kept
            factor = torch.linalg.cholesky(table)
        inverse = torch.cholesky_inverse(factor)
        z = torch.linalg.solve_triangular(factor, r[:, :, None], upper=False)[:, :, 0]
        pivot = torch.diagonal(factor, dim1=1, dim2=2)
        value = -0.5 * (z.square() + LOG_2PI) - pivot.log()
        solved = (inverse @ r[:, :, None])[:, :, 0]
        alone = torch.diagonal(inverse, dim1=1, dim2=2)
        gap = solved / alone  # distance of each bag from what the others predict, of variance 1 / alone
        score = -0.5 * (gap.square() * alone + LOG_2PI - alone.log())
        away = gap * alone.sqrt()
        if bool(implied.any()):
            verdict = torch.where(against, IMPOSSIBLE, 0.0).to(value)
            value, score = torch.where(implied, verdict, value), torch.where(implied, verdict, score)
            away = torch.where(implied, torch.nan, away)
            inverse = inverse * (kept[:, :, None] & kept[:, None, :])
        at = row[bags]
        found.value[bags], found.score[bags] = value.reshape(-1)[at], score.reshape(-1)[at]
        found.residual[bags] = away.reshape(-1)[at]
        found.slope.index_add_(0, self.members[edges], solved.reshape(-1)[row[self.bag[edges]]])
        found.curvature.index_add_(0, self.members[left], -inverse.reshape(-1)[cell])

    def _propagate(self, found: _Found, variance: Tensor, residual: Tensor, whole: Tensor) -> None:
        """Damped belief propagation in components that are too large."""
        edges = self._large[self._component[self.bag]].nonzero()[:, 0]
        members, bag = self.members[edges], self.bag[edges]
        v = variance[members]
        tiny = REDUNDANT * whole[bag]
        precision, linear = torch.zeros_like(v), torch.zeros_like(v)  # messages from bags, relative to the mean

        def cavity() -> tuple[Tensor, Tensor, Tensor, Tensor]:
            all_precision = torch.zeros_like(variance).index_add(0, members, precision)
            all_linear = torch.zeros_like(variance).index_add(0, members, linear)
            q = 1 + v * (all_precision[members] - precision).clamp(min=0)
            return v * (all_linear[members] - linear) / q, v / q, all_precision, all_linear

        change = torch.inf
        for _ in range(SWEEPS):
            shift, spread, _, _ = cavity()
            of_bag = self.noise.index_add(0, bag, spread)[bag] - spread
            gap = residual.index_add(0, bag, -shift)[bag] + shift
            others = torch.maximum(of_bag, tiny)
            new_precision, new_linear = 1 / others, gap / others
            step = (new_linear - linear).abs() * v.sqrt() + (new_precision - precision).abs() * v
            change = float((step / (1 + new_precision * v)).max())
            precision = precision + (1 - DAMPING) * (new_precision - precision)
            linear = linear + (1 - DAMPING) * (new_linear - linear)
            if change < 1e-10:
                break
        if change > 1e-3:
            warnings.warn(f"belief propagation over overlapping bags did not settle: {change:.2g} left", stacklevel=2)
        shift, spread, all_precision, all_linear = cavity()
        q = 1 + variance * all_precision
        found.slope.add_(all_linear / q)
        found.curvature.sub_(all_precision / q)
        bags = self._large[self._component].nonzero()[:, 0]
        of_bag = torch.maximum(self.noise.index_add(0, bag, spread), REDUNDANT * whole)
        gap = residual.index_add(0, bag, -shift)
        alone = -0.5 * (gap.square() / of_bag + LOG_2PI + of_bag.log())
        found.score[bags], found.residual[bags] = alone[bags], (gap / of_bag.sqrt())[bags]
        # Bethe's free energy: bags, plus instances, less edges
        value = alone.index_add(0, bag, -_normaliser(shift, spread, precision, linear))
        whole_instance = _normaliser(torch.zeros_like(variance), variance, all_precision, all_linear)
        share = (whole_instance / self._degree.clamp(min=1))[members]
        found.value[bags] = value.index_add(0, bag, share)[bags]


class _Systems(NamedTuple):
    """Systems of equations of one size."""

    n: int
    width: int  # bags of a system, at most
    bags: Tensor  # of all systems
    row: Tensor  # (B,) system * width + place in it; 0 for other bags
    edges: Tensor  # of these bags
    left: Tensor  # edges, and with them
    right: Tensor  # edges of the same instance


class _Found(NamedTuple):
    """The tables of `Said`, filled component by component."""

    value: Tensor
    score: Tensor
    residual: Tensor
    slope: Tensor
    curvature: Tensor


def _normaliser(shift: Tensor, variance: Tensor, precision: Tensor, linear: Tensor) -> Tensor:
    """log of the integral of N(d; shift, variance) exp(linear d - precision d^2 / 2)."""
    q = 1 + precision * variance
    return 0.5 * ((linear.square() * variance + 2 * linear * shift - precision * shift.square()) / q - q.log())


def _implied(table: Tensor, residual: Tensor, scale: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Bags (n, width) that those before them imply, and where what they say differs from that.

    Elimination in order: a bag whose variance given those before it is nothing is set aside.
    """
    rest, r = table.clone(), residual.clone()
    implied = torch.zeros_like(residual, dtype=torch.bool)
    against = torch.zeros_like(implied)
    for j in range(table.shape[1]):
        pivot = rest[:, j, j]
        nothing = pivot <= REDUNDANT * scale[:, j]
        implied[:, j] = nothing
        against[:, j] = nothing & (r[:, j].abs() > wanted[:, j])
        share = torch.where(nothing, 0.0, 1 / torch.where(nothing, 1.0, pivot))[:, None] * rest[:, :, j]
        r = r - share * r[:, j : j + 1]
        rest = rest - share[:, :, None] * rest[:, None, j, :]
    return implied, against
