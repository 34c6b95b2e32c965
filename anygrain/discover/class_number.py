"""How many classes there are, where nobody says."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anygrain.discover.components import components
from anygrain.discover.known_share import known_share
from anygrain.discover.repeated import Curves, agreement, curves
from anygrain.discover.task import Task

CLUSTERED = 4000  # rows
AT_RANDOM, MORE_TOLD = 12000, 4000  # rows among which the share of known classes is read
COMPONENTS = 64
GRID, STEP = 16, 1.2  # numbers that are tried at most, and the least ratio of two that follow each other
FEWEST = 8  # rows that a class has on average at least
POWERS = {False: (1.0, 1.5), True: (2.0, 0.5)}  # of what comes back and of log M; the latter below coarse classes
SHARP = {False: 20, True: 10}  # power of a curve with which its numbers are weighed
TOO_HIGH = 0.9  # by how much, in logarithms, the top is where nothing comes back
PLAIN = (0.2, 1.1)  # what comes back, and the silhouette over that of a Gaussian, up to which there is one class
SMALL = 80  # rows up to which the number below a coarse class follows the others
SURE, UNSURE = 0.2, 1.0  # standard deviation where all comes back, and what is added where nothing does
OF_SHARE, OF_TOLD = 0.12, 0.4  # standard deviations of the readings of told rows; to the first its error is added
TOLD = 3  # known classes with told rows from which on they are asked
TAIL = 0.05
FAR = 8  # standard deviations


@dataclass(frozen=True)
class Reading:
    """What one reader says: the logarithm of a number of classes, and its standard deviation."""

    log: float
    error: float


@dataclass(frozen=True)
class Belief:
    """A normal distribution of the logarithm of a number, cut off where the number is not allowed."""

    mean: float
    error: float
    least: int
    most: int

    @classmethod
    def of(cls, readings: list[Reading], least: int, most: int) -> Belief:
        """Readings taken together, each by the inverse of its variance."""
        weight = np.array([reading.error**-2 for reading in readings])
        mean = float(weight @ [reading.log for reading in readings] / weight.sum())
        return cls(mean, float(weight.sum() ** -0.5), least, most)

    def quantile(self, p: float) -> float:
        """The number below which it is with probability p, from `least` to `most`."""
        from scipy.stats import truncnorm

        if self.most <= self.least:
            return float(self.least)
        ends = np.array([math.log(self.least - 0.5) if self.least > 1 else -np.inf, math.log(self.most + 0.5)])
        low, high = (ends - self.mean) / self.error
        if low > FAR or high < -FAR:
            return float(self.least if low > 0 else self.most)
        value = math.exp(truncnorm.ppf(p, low, high, loc=self.mean, scale=self.error))
        return min(max(value, float(self.least)), float(self.most))


@dataclass(frozen=True)
class Part:
    """What is read of the rows below one node.

    Attributes:
        n_rows: how many there are.
        least, most: numbers that are allowed.
        log: logarithm of the number by the curves.
        repeated: how far the clusters come back with that number.
        told: readings of told rows.
    """

    n_rows: int
    least: int
    most: int
    log: float
    repeated: float
    told: list[Reading]


def class_number(task: Task) -> tuple[Tensor, tuple[int, int]]:
    r"""The number of classes under every node (C,), the known ones included, and an interval for the total.

    Three readers speak of the logarithm of the number, each with a standard deviation. They are taken together by the
    inverse of their variances, and the normal distribution is cut off where the number is not allowed. The number is
    its median; the interval is from its 5 % to its 95 % quantile, summed over nodes, as their errors go together.

    - Clusters that come back. Of k-means with M clusters let :math:`S_M` be the silhouette and :math:`\kappa_M` how far
      clusters of one half of the rows are those of the other (see `Curves`). The top of
      :math:`S_M \kappa_M (\log M)^{3/2}`, or :math:`S_M \kappa_M^2 (\log M)^{1/2}` below coarse classes, is
      :math:`M^*`; where little comes back it is too high, and the reading is :math:`\log M^* - .9 (1 - \kappa_{M^*})`,
      with a standard deviation of :math:`.2 + (1 - \kappa_{M^*})`. One coarse class is read badly, many are not: the
      reading of each is drawn to the number that its rows would have with classes as large as those of all coarse
      classes, with weight :math:`1 - \kappa^2`; small ones have that number. One that is no more than a Gaussian is
      left whole.
    - The share of the known classes. G of them with a share :math:`\pi` of the rows (see `known_share`) make
      :math:`G / \pi`, where new classes are as large as known ones.
    - Agreement. The numbers M, weighed by the fourth power of the adjusted Rand index of clusters and told rows.

    The last two need told rows of three known classes. Powers, the .9 and the standard deviations were chosen on eight
    sets (benchmarks/discover.py), the same for all.

    Source: Rousseeuw, Silhouettes, 1987; Lange et al., Stability-based validation of clustering solutions, 2004; told
    classes as in Vaze et al., Generalized Category Discovery, 2022; the share of known classes is an addition.
    """
    generator = torch.Generator().manual_seed(task.seed)
    taken = torch.bincount(task.evidence.node_of_known, minlength=task.evidence.n_nodes)
    parts = [read(part, len(taken) > 1, generator) for part in split(task, generator)]
    beliefs = [
        Belief.of([curve, *part.told], part.least, part.most)
        for curve, part in zip(levelled(parts), parts, strict=True)
    ]
    floor = taken.clamp(min=1)
    held = torch.tensor([part.n_rows for part in parts]).maximum(floor)
    wished = torch.tensor([round(one.quantile(0.5)) for one in beliefs]).maximum(floor).minimum(held)
    total = min(max(int(wished.sum()), task.least), task.most)
    per_node = shared_out(wished, floor, held, total)
    low, high = (sum(one.quantile(p) for one in beliefs) for p in (TAIL, 1 - TAIL))
    return per_node, (max(task.least, min(total, math.floor(low))), min(task.most, max(total, math.ceil(high))))


@dataclass(frozen=True)
class Rows:
    """Rows below one node: a task of some, the first of them at random; how many there are, and are told."""

    task: Task
    n_rows: int
    n_told: int


def split(task: Task, generator: torch.Generator) -> list[Rows]:
    """Rows below every node, some at random, and more told ones where few are among them."""
    order = torch.randperm(task.n_rows, generator=generator)
    where, told = task.evidence.sure_node()[order], task.evidence.sure_known()[order] >= 0
    parts = []
    for c in range(task.evidence.n_nodes):
        rows, sure = order[where == c], order[(where == c) & told]
        some = rows[:AT_RANDOM]
        more = sure[:MORE_TOLD]
        drawn = torch.cat([some, more[~torch.isin(more, some)]])
        parts.append(Rows(task.below(c, drawn), len(rows), len(sure)))
    return parts


def read(rows: Rows, below: bool, generator: torch.Generator) -> Part:
    """What the readers say of rows below one node; `below` says whether there are others."""
    task, used = rows.task, min(CLUSTERED, rows.n_rows, rows.task.n_rows)
    least = max(task.least, 1)
    most = max(least, min(task.most, rows.n_rows))
    seen = min(most, max(least, 2, used // FEWEST), used // 2)
    if most <= least or seen < max(least, 2) or bool((task.features == task.features[0]).all()):
        return Part(rows.n_rows, least, most, math.log(least), 1.0, [])
    mean, basis = components(task.features[:used], COMPONENTS, task.seed)
    z = (task.features - mean) @ basis
    first = max(least, 2)
    points = min(GRID, 2 + math.ceil(math.log(seen / first) / math.log(STEP)))
    numbers = sorted({round(v) for v in np.geomspace(first, seen, points)})
    found = curves(z, numbers, generator, used)
    log, repeated = top(found, below)
    return Part(rows.n_rows, least, most, log, repeated, told_readings(rows, z, found, generator))


def top(found: Curves, below: bool) -> tuple[float, float]:
    """The logarithm of the number at which clusters are apart and come back, and how far they come back there."""
    of_repeated, of_number = POWERS[below]
    size = np.log(found.numbers)
    height = smooth(found.silhouette.clip(0) * found.repeated**of_repeated * size**of_number)
    at = int(height.argmax())
    repeated = float(found.repeated[at])
    if below and found.numbers[0] == 2 and repeated <= PLAIN[0] and found.above_gaussian <= PLAIN[1]:
        return 0.0, 1.0
    if height[at] <= 0:
        return float(size[0]), 0.0
    weight = (height / height[at]) ** SHARP[below]
    return float(weight @ size / weight.sum()) - TOO_HIGH * (1 - repeated), repeated


def smooth(curve: np.ndarray) -> np.ndarray:
    """Every value averaged with its two neighbours, which count half."""
    wide = np.pad(curve, 1, mode="edge")
    mean: np.ndarray = (wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4
    return mean


def levelled(parts: list[Part]) -> list[Reading]:
    """The readings of the curves of every part, drawn to classes of one size the less they come back."""
    n = np.array([max(part.n_rows, 1) for part in parts])
    own, repeated = np.array([part.log for part in parts]).clip(0), np.array([part.repeated for part in parts])
    large = n >= min(SMALL, n.max() / 2)
    size = np.average((np.log(n) - own)[large], weights=np.sqrt(n[large]))
    weight = np.where(large, repeated**2, 0) if len(parts) > 1 else np.ones(1)
    log = weight * own + (1 - weight) * (np.log(n) - size)
    error = SURE + UNSURE * (1 - np.where(large, repeated, repeated[large].mean()))
    return [Reading(float(one), float(other)) for one, other in zip(log, error, strict=True)]


def told_readings(rows: Rows, z: Tensor, found: Curves, generator: torch.Generator) -> list[Reading]:
    """What told rows say: the share of the rows that are of known classes, and which clusters agree most."""
    told = rows.task.evidence.sure_known()
    size = torch.bincount(told[told >= 0], minlength=1)
    classes = int((size > 0).sum())
    if classes < TOLD or int(size.max()) < 2:
        return []
    readings = []
    near = known_share(z, told, generator)
    if near is not None:
        n_told = int(size.sum())  # more of them than among all rows: how many of the others are of known classes?
        others = (near.share * len(told) - n_told) / max(len(told) - n_told, 1)
        share = (rows.n_told + max(others, 0) * (rows.n_rows - rows.n_told)) / rows.n_rows
        readings.append(Reading(math.log(classes / share), math.hypot(near.error, OF_SHARE)))
    agreed = agreement(told, found.labels).clip(0) ** 4
    if agreed.sum() > 0:
        readings.append(Reading(float(agreed @ np.log(found.numbers) / agreed.sum()), OF_TOLD))
    return readings


def shared_out(wished: Tensor, floor: Tensor, held: Tensor, total: int) -> Tensor:
    """Whole numbers (C,) that sum to a total, in proportion to those wished, between floor and the rows held.

    The total is met where the bounds allow it.
    """
    low, high = 0.0, float(total) / float(wished.sum()) * 2 + float(total)
    for _ in range(60):  # the factor at which the bounded numbers sum to the total
        factor = (low + high) / 2
        share = (wished.double() * factor).clamp(min=floor.double(), max=held.double())
        low, high = (factor, high) if float(share.sum()) < total else (low, factor)
    share = (wished.double() * high).clamp(min=floor.double(), max=held.double())
    found = share.floor().long().maximum(floor)
    left = max(0, min(total, int(held.sum())) - int(found.sum()))
    rest = torch.where(found < held, share - found, -torch.inf)
    found[rest.argsort(descending=True, stable=True)[:left]] += 1
    return found
