"""How many classes there are, where nobody says."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anygrain.discover.components import components
from anygrain.discover.eigenvectors import leading
from anygrain.discover.evidence import Evidence
from anygrain.discover.k_means import k_means, plus_plus
from anygrain.discover.task import Task
from anygrain.learn.graph import neighbour_graph

ROWS = 4000  # of which the number is read
SEEN = 1500  # of which the silhouette is taken
COMPONENTS = 64
NEIGHBOURS = 10
GRID = 13  # numbers that are tried
FEWEST = 15  # rows that a class below a coarse one has on average at least
FINER = 2  # times numbers between the best and its neighbours are tried
FEW = 6  # numbers at which chance is looked at
STRUCTURE = 1.2  # how much larger than that of a Gaussian a silhouette is where there is more than one class
BEYOND = 1.15  # how far above the number of the silhouette an eigengap is looked for
STEPS = 20
STARTS = 2
TOP = 0.1  # of the height of a curve that counts as its top
UNSURE = 0.2  # least standard deviation of the logarithm of a reading
NINE_OF_TEN = 1.64
TOLD = 3  # known classes with two told rows from which on they are asked


@dataclass(frozen=True)
class NumberFound:
    """A number of classes below one coarse class, and what every reader said, by its name."""

    number: int
    said: dict[str, float]

    def interval(self) -> tuple[float, float]:
        """Nine cases of ten: by how far the readers differ, in logarithms, but a fifth at least."""
        if len(self.said) < 2:
            return float(self.number), float(self.number)
        spread = float(np.std(np.log(list(self.said.values())), ddof=1))
        half = NINE_OF_TEN * max(spread, UNSURE)
        return self.number * math.exp(-half), self.number * math.exp(half)


def class_number(task: Task) -> tuple[Tensor, tuple[int, int]]:
    r"""The number of classes under every node (C,), the known ones included, and an interval for the total.

    Below every node k-means is run with some numbers of clusters M, and three readers say where the best is:

    - the silhouette of the clusters, which is mostly too high a number;
    - the largest gap of the eigenvalues of the graph of neighbours between half of that number (below coarse
      classes: 2) and a little above it, which is mostly too low;
    - where three known classes or more have told rows, the M whose clusters agree most with them (adjusted Rand index).

    The number is their geometric mean; told rows that agree most with the lowest number allowed only say that it is not
    higher, and are left out. The interval follows from how far the readers differ, see `NumberFound.interval`. A coarse
    class without more structure than one Gaussian of its covariance is left whole. Where the total is given, or has
    bounds, the numbers of the coarse classes are brought to it in proportion.

    Source: Rousseeuw, Silhouettes, 1987; von Luxburg, A tutorial on spectral clustering, 2007; the told classes as in
    Vaze et al., Generalized Category Discovery, 2022; the Gaussian as in Tibshirani et al., the gap statistic, 2001.
    """
    parts = task.split_by_node(ROWS)
    found = [below(part, whole=len(parts) > 1) for part in parts]
    taken = torch.bincount(task.evidence.node_of_known, minlength=len(parts))
    floor = taken.clamp(min=1)
    held = torch.bincount(task.evidence.sure_node().clamp(min=0), minlength=len(parts)).maximum(floor)
    wished = torch.tensor([one.number for one in found]).maximum(floor)
    total = min(max(int(wished.sum()), task.least), task.most)
    per_node = shared_out(wished, floor, held, total)
    low, high = (sum(ends) for ends in zip(*(one.interval() for one in found), strict=True))
    return per_node, (max(task.least, min(total, math.floor(low))), min(task.most, max(total, math.ceil(high))))


def below(task: Task, whole: bool) -> NumberFound:
    """The number of classes of a task with one coarse class, from `task.least` to `task.most`.

    Args:
        whole: whether it is below one of several coarse classes: then it may be one class, and silhouettes say little.
    """
    least = max(task.least, 1)
    most = min(task.most, max(least, 2, task.n_rows // FEWEST)) if whole else min(task.most, task.n_rows)
    if most <= max(least, 1) or task.n_rows < 4 or bool((task.features == task.features[0]).all()):
        return NumberFound(max(least, 1), {})
    mean, basis = components(task.features, COMPONENTS, task.seed)
    z = (task.features - mean) @ basis
    generator = torch.Generator().manual_seed(task.seed)
    seen = torch.randperm(len(z), generator=generator)[:SEEN]
    labels: dict[int, Tensor] = {}
    apart: dict[int, float] = {}

    def read(numbers: list[int]) -> None:
        for number in numbers:
            if number not in labels:
                labels[number] = clusters(z, number, generator)
                apart[number] = silhouette(z[seen], labels[number][seen])

    read(sorted({round(v) for v in np.geomspace(max(least, 2), max(most, 2), GRID)}))
    if len(labels) == 1:
        return NumberFound(next(iter(labels)), {})
    if whole and least == 1:
        noise = torch.randn(z.shape, generator=generator).to(z) * z.std(dim=0)
        chance = max(silhouette(noise[seen], clusters(noise, k, generator)[seen]) for k in sorted(labels)[:FEW])
        if max(apart.values()) <= STRUCTURE * chance:
            return NumberFound(1, {"one Gaussian": 1.0})
    for _ in range(FINER):
        at, around = max(apart, key=apart.__getitem__), sorted(apart)
        place = around.index(at)
        read([round(math.sqrt(at * other)) for other in around[max(place - 1, 0) : place + 2]])
    tried = sorted(labels)
    said = {"silhouette": top(tried, np.array([apart[k] for k in tried]))}
    low = max(least, 2 if whole else math.floor(said["silhouette"] / 2))
    high = min(most, math.ceil(BEYOND * said["silhouette"]))
    said["eigengap"] = float(eigengap(z, low, high, task.seed))
    agreed = agreement(task.evidence, [labels[k] for k in tried])
    if agreed is not None and agreed.argmax() > 0:
        said["told rows"] = top(tried, agreed)
    number = round(math.exp(sum(math.log(value) for value in said.values()) / len(said)))
    return NumberFound(min(max(number, least), most), said)


def clusters(z: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Cluster (N,) of every row of the best of two runs of k-means."""
    best, least = None, torch.inf
    for _ in range(STARTS):
        centre, label = k_means(z, plus_plus(z, z[:0], number, generator), None, STEPS)
        spread = float((z - centre[label]).square().sum())
        if spread < least:
            best, least = label, spread
    assert best is not None
    return best


def silhouette(z: Tensor, label: Tensor) -> float:
    """Mean silhouette of rows; -1 where all are in one cluster or each in its own. N x N: for some rows only."""
    from sklearn.metrics import silhouette_score

    some = label.cpu().numpy()
    if not 2 <= len(np.unique(some)) < len(some):
        return -1.0
    return float(silhouette_score(z.cpu().numpy(), some))


def top(numbers: list[int], curve: np.ndarray) -> float:
    """Where a curve over numbers is highest: the geometric mean of those within a tenth of its height of the top."""
    height = curve.max() - curve.min()
    near = curve >= curve.max() - TOP * height
    return float(np.exp(np.log(np.array(numbers))[near].mean()))


def eigengap(z: Tensor, low: int, high: int, seed: int) -> int:
    """The number k from low to high with the largest gap between the k-th and next eigenvalue of the graph."""
    if high <= low:
        return low
    values = leading(neighbour_graph(z, NEIGHBOURS).spread, min(high + 1, len(z)), seed)[0].numpy()
    gap = values[low - 1 : high] - np.append(values, values[-1])[low : high + 1]
    return low + int(gap.argmax())


def agreement(evidence: Evidence, labels: list[Tensor]) -> np.ndarray | None:
    """Adjusted Rand index of each clustering with the told rows; None where too few known classes have two."""
    from sklearn.metrics import adjusted_rand_score

    told = evidence.sure_known().numpy()
    rows = np.flatnonzero(told >= 0)
    if (np.bincount(told[rows], minlength=1) >= 2).sum() < TOLD:
        return None
    return np.array([adjusted_rand_score(told[rows], label.cpu().numpy()[rows]) for label in labels])


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
