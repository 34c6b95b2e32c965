"""Gaussian clusters that are split and merged until neither makes the rows more probable."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from anygrain.discover.evidence import Evidence
from anygrain.discover.gaussian_classes import Densities
from anygrain.discover.k_means import squared_distances
from anygrain.discover.normal_inverse_wishart import Moments, NormalInverseWishart
from anygrain.labels import Labels

HALVING = 15  # steps of 2-means inside every cluster
FEW = 5  # a part of at most so many rows is no class
FAR = 1e6  # where the mean of an empty cluster is put
AT_ONCE = 65536  # rows whose distances are held together


@dataclass(frozen=True)
class Clusters:
    """Rows (N, D), each in one of K clusters, of which the first G are known classes.

    Attributes:
        node: (K,) the coarse class above every cluster.
        label: (N,).
        moments: of every cluster.
    """

    node: Tensor
    label: Tensor
    moments: Moments

    @property
    def number(self) -> int:
        return len(self.node)


@dataclass(frozen=True)
class SplitMerge:
    r"""Looks for clusters, and for their number, by the marginal likelihood of Gaussians.

    With the Chinese restaurant process as prior of the partition and h the density of the rows of a cluster, mean and
    covariance integrated out, a partition has

    .. math:: L = \sum_k \log a + \log \Gamma(N_k) + \log h(X_k),

    and a cluster is split in two where that rises,

    .. math:: \log H_s = \log a + \log \frac{\Gamma(N_1) \Gamma(N_2)}{\Gamma(N)} + \log \frac{h(X_1) h(X_2)}{h(X)} > 0;

    two are merged where :math:`\log H_m = -\log H_s > 0`. Told rows never leave their class. A known class may lose
    rows of which nothing is said, as a new class, and a new class may join it: else those that a known class had
    swallowed at the start never come free.

    Args:
        x: (N, D) rows.
        evidence: what is said of them.
        prior: of every cluster.
        bounds: lowest and highest total number of clusters.
        per_node: (C,) the number under every coarse class, where it is given.
        known_too: whether known classes lose and take up rows; the published method leaves them alone.
        nearest: whether a row goes to the nearest mean, as published, and not to the most probable class.
        chance: with which a split or merge that is no gain is done all the same; 0 for never.
        log_concentration: log a.
        share: of a row that every row counts for. Classes are no Gaussians, and with enough rows any of them would be
            split; so the model need only be as good as fewer rows can tell.

    Source: Zhao, Wen and Han, Learning Semi-supervised Gaussian Mixture Models for Generalized Category Discovery,
    2023; Ronen, Finder and Freifeld, DeepDPM, 2022; Miller and Dunson, Robust Bayesian inference via coarsening, 2019.
    """

    x: Tensor
    evidence: Evidence
    prior: NormalInverseWishart
    bounds: tuple[int, int]
    per_node: Tensor | None = None
    known_too: bool = True
    nearest: bool = False
    chance: float = 0.0
    log_concentration: float = 0.0
    share: float = 1.0

    def log_cluster(self, moments: Moments) -> Tensor:
        r"""What clusters (...) add to L: :math:`\log a + \log \Gamma(N) + \log h(X)`, and 0 for an empty one."""
        seen = moments.scaled(torch.full_like(moments.size, self.share))
        each = self.log_concentration + torch.lgamma(seen.size.clamp(min=1)) + self.prior.log_marginal(seen)
        return torch.where(moments.size > 0, each, 0.0)

    def score(self, clusters: Clusters) -> float:
        """L, up to a constant."""
        return float(self.log_cluster(clusters.moments).sum())

    def settled(self, node: Tensor, label: Tensor, steps: int) -> Clusters:
        """Rows in their most probable clusters, after so many steps or when none moves; empty new clusters go."""
        moments = Moments.of(self.x, label, len(node))
        labels = self.evidence.over(node)
        for _ in range(steps):
            found = self._best(labels, self._said(moments))
            if torch.equal(found, label):
                break
            label = found
            moments = Moments.of(self.x, label, len(node))
        return self._without_empty(Clusters(node, label, moments))

    def nearest_to(self, node: Tensor, centre: Tensor) -> Tensor:
        """The nearest (N,) of K centres (K, D) that what is said allows."""
        near = torch.cat([squared_distances(part, centre) for part in self.x.split(AT_ONCE)])
        spread = near.amin(dim=1).mean().clamp(min=1e-12) / self.x.shape[1]
        return self._best(self.evidence.over(node), -near / (2 * spread))

    def spread(self, moments: Moments) -> Tensor:
        """Mean squared distance of rows to the mean of their cluster, per dimension."""
        total = moments.scatter.diagonal(dim1=1, dim2=2).sum() / moments.size.sum() / self.x.shape[1]
        return total.clamp(min=1e-12).to(self.x)

    def _best(self, labels: Labels | None, said: Tensor) -> Tensor:
        if labels is None:
            return said.argmax(dim=1)
        posterior = labels.posterior(said.double().cpu().log_softmax(dim=1))
        return posterior.argmax(dim=1).to(self.x.device)

    def _said(self, moments: Moments) -> Tensor:
        if self.nearest:
            mean = moments.mean.to(self.x)
            mean = torch.where((moments.size > 0)[:, None], mean, torch.full_like(mean, FAR))
            near = torch.cat([squared_distances(part, mean) for part in self.x.split(AT_ONCE)])
            return -near / (2 * self.spread(moments))
        density: Tensor = Densities(self.prior, moments, self.x.dtype)(self.x)
        return (moments.size + 1).log().to(self.x) + density

    def _without_empty(self, clusters: Clusters) -> Clusters:
        known = self.evidence.n_known
        kept = (clusters.moments.size > 0).cpu() | (torch.arange(clusters.number) < known)
        place = kept.cumsum(0) - 1
        return Clusters(
            clusters.node[kept],
            place.to(clusters.label.device)[clusters.label],
            clusters.moments[kept.to(self.x.device)],
        )

    def halves(self, clusters: Clusters) -> Tensor:
        """0 or 1 for every row (N,): the half of its cluster by 2-means, started along the longest axis.

        Told rows of known classes are in half 0 of theirs.
        """
        moments, k, known = clusters.moments, clusters.number, self.evidence.n_known
        cov = moments.scatter / moments.size.clamp(min=1)[:, None, None]
        values, vectors = torch.linalg.eigh(cov)
        along = vectors[..., -1] * values[:, -1:].clamp(min=0).sqrt()
        centre = torch.stack([moments.mean + along, moments.mean - along], dim=1)
        told = self.evidence.sure_known().to(self.x.device)
        sure = told >= 0
        if bool(sure.any()):
            mean = Moments.of(self.x, told, known).mean
            turned = (centre[:known] - mean[:, None]).square().sum(dim=2).argmin(dim=1) == 1
            centre[:known] = torch.where(turned[:, None, None], centre[:known].flip(1), centre[:known])
        centre = centre.to(self.x)
        for _ in range(HALVING):
            apart = [(self.x - centre[:, h][clusters.label]).square().sum(dim=1) for h in (0, 1)]
            half = (apart[1] < apart[0]).long().masked_fill(sure, 0)
            place = 2 * clusters.label + half
            size = torch.bincount(place, minlength=2 * k)
            total = self.x.new_zeros(2 * k, self.x.shape[1]).index_add(0, place, self.x)
            centre = (total / size.clamp(min=1)[:, None]).view(k, 2, -1)
        return half

    def log_split(self, whole: Moments, first: Moments, second: Moments) -> Tensor:
        """log H_s of clusters and their parts; minus that is log H_m of merging the parts."""
        return self.log_cluster(first) + self.log_cluster(second) - self.log_cluster(whole)

    def moved(self, clusters: Clusters, generator: torch.Generator) -> tuple[Clusters, int]:
        """One round of splits and merges, best first, each cluster in one at most; and how many there were."""
        half = self.halves(clusters)
        splits, merges = self._splits(clusters, half), self._merges(clusters)
        chosen = self._chosen(clusters, splits, merges, generator)
        label, node = clusters.label.clone(), clusters.node.tolist()
        for move in chosen:
            if move.other is None:
                label[(clusters.label == move.one) & (half == 1)] = len(node)
                node.append(node[move.one])
            else:
                label[clusters.label == move.other] = move.one
        after = Clusters(torch.tensor(node), label, Moments.of(self.x, label, len(node)))
        return self._without_empty(after), len(chosen)

    def _splits(self, clusters: Clusters, half: Tensor) -> list[Move]:
        k, known = clusters.number, self.evidence.n_known
        parts = Moments.of(self.x, 2 * clusters.label + half, 2 * k)
        odd = torch.arange(k, device=self.x.device) * 2
        first, second = parts[odd], parts[odd + 1]
        gain = self.log_split(clusters.moments, first, second).tolist()
        least = torch.minimum(first.size, second.size).tolist()
        may = [c for c in range(k) if least[c] >= 1 and (self.known_too or c >= known)]
        return [Move(gain[c], c, None, int(clusters.node[c]), least[c] > FEW) for c in may]

    def _merges(self, clusters: Clusters) -> list[Move]:
        """Of every cluster and the nearest one under its coarse class, unless both are known."""
        k, known, moments = clusters.number, self.evidence.n_known, clusters.moments
        if k < 2:
            return []
        apart = torch.cdist(moments.mean, moments.mean)
        is_known = (torch.arange(k) < known).to(apart.device)
        node = clusters.node.to(apart.device)
        never = (node[:, None] != node) | (is_known[:, None] & is_known) | torch.eye(k, device=apart.device).bool()
        if not self.known_too:
            never = never | is_known[:, None] | is_known
        near = apart.masked_fill(never, torch.inf).min(dim=1)
        one = torch.isfinite(near.values).nonzero().flatten()
        other = near.indices[one]
        first, second = moments[one], moments[other]
        gain = (-self.log_split(first.with_others(second), first, second)).tolist()
        return [
            Move(g, min(i, j), max(i, j), int(clusters.node[i]), True)
            for g, i, j in zip(gain, one.tolist(), other.tolist(), strict=True)
        ]

    def _chosen(
        self, clusters: Clusters, splits: list[Move], merges: list[Move], generator: torch.Generator
    ) -> list[Move]:
        wanted = Wanted(clusters, self.bounds, self.per_node)
        taken: set[int] = set()
        found: list[Move] = []

        def take(*moves: Move) -> bool:
            touched = [c for move in moves for c in move.clusters]
            if len(set(touched)) < len(touched) or taken & set(touched):
                return False
            taken.update(touched)
            found.extend(moves)
            for move in moves:
                wanted.count(move)
            return True

        splits, merges = (sorted(moves, key=lambda move: -move.gain) for moves in (splits, merges))
        for move in sorted(splits + merges, key=lambda move: -move.gain):
            by_chance = self.chance > 0 and float(torch.rand((), generator=generator)) < self.chance
            if move.real and (move.gain > 0 or by_chance) and wanted.allows(move):
                take(move)
        for split in splits:  # a class that is worth more here than there, where the number is given
            if split.real and not wanted.allows(split):
                for merge in merges:
                    near = self.per_node is None or merge.node == split.node
                    if near and split.gain + merge.gain > 0 and take(split, merge):
                        break
        for move in splits + merges:
            if wanted.needs(move):
                take(move)
        return found

    def found(self, clusters: Clusters, rounds: int, steps: int, generator: torch.Generator) -> tuple[Clusters, float]:
        """The most probable clusters met on the way, and their score L."""
        best, score = clusters, self.score(clusters) if self.fits(clusters) else -torch.inf
        for _ in range(rounds):
            clusters, moves = self.moved(clusters, generator)
            if moves == 0:
                break
            clusters = self.settled(clusters.node, clusters.label, steps)
            now = self.score(clusters)
            if self.fits(clusters) and now > score:
                best, score = clusters, now
            elif self.chance == 0 and self.per_node is not None and self.fits(clusters):
                break
        return (best if self.fits(best) else self._filled(clusters)), score

    def fits(self, clusters: Clusters) -> bool:
        """Whether there are as many as there should be."""
        if self.per_node is not None:
            return torch.equal(torch.bincount(clusters.node, minlength=len(self.per_node)), self.per_node)
        return self.bounds[0] <= clusters.number <= self.bounds[1]

    def _filled(self, clusters: Clusters) -> Clusters:
        """With empty clusters, where the rows do not give as many as are asked for."""
        if self.per_node is None:
            short = max(self.bounds[0] - clusters.number, 0)
            new = clusters.node[-1:].repeat(short)
        else:
            lacking = (self.per_node - torch.bincount(clusters.node, minlength=len(self.per_node))).clamp(min=0)
            new = torch.arange(len(lacking)).repeat_interleave(lacking)
        node = torch.cat([clusters.node, new])
        return replace(clusters, node=node, moments=Moments.of(self.x, clusters.label, len(node)))


@dataclass(frozen=True)
class Move:
    """A split of cluster `one`, or its merge with `other`, of so much gain; real unless a part has few rows."""

    gain: float
    one: int
    other: int | None
    node: int
    real: bool

    @property
    def clusters(self) -> tuple[int, ...]:
        return (self.one,) if self.other is None else (self.one, self.other)

    @property
    def change(self) -> int:
        return 1 if self.other is None else -1


class Wanted:
    """How many clusters there are and should be, while moves are chosen."""

    def __init__(self, clusters: Clusters, bounds: tuple[int, int], per_node: Tensor | None) -> None:
        self.number, self.bounds = clusters.number, bounds
        self.per_node: list[int] | None = None if per_node is None else per_node.tolist()
        self.there: list[int] = torch.bincount(
            clusters.node, minlength=0 if per_node is None else len(per_node)
        ).tolist()

    def allows(self, move: Move) -> bool:
        """Whether the number is not further from what it should be after the move."""
        if self.per_node is not None:
            return (self.per_node[move.node] - self.there[move.node]) * move.change > 0
        after = self.number + move.change
        return after <= self.bounds[1] if move.change > 0 else after >= self.bounds[0]

    def needs(self, move: Move) -> bool:
        """Whether the number is wrong without the move."""
        if self.per_node is not None:
            return self.allows(move)
        return self.number < self.bounds[0] if move.change > 0 else self.number > self.bounds[1]

    def count(self, move: Move) -> None:
        self.number += move.change
        self.there[move.node] += move.change
