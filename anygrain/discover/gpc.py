"""A mixture of Gaussians that splits and merges, and features that are trained with it: the number is found."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from anygrain.discover.class_number import class_number
from anygrain.discover.discoverer import Callback, Discoverer
from anygrain.discover.exemplars import class_means
from anygrain.discover.found import ClassModel, Found
from anygrain.discover.gaussian_classes import Densities, GaussianClasses, ReducedClasses, Reduction
from anygrain.discover.k_means import starting_centres
from anygrain.discover.network import ClassNetwork, Moment, Pace, Residual, Views, train
from anygrain.discover.normal_inverse_wishart import Moments, NormalInverseWishart
from anygrain.discover.semi_supervised_k_means import Centres
from anygrain.discover.split_merge import Clusters, SplitMerge
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.trainable import in_batches

ROUNDS = 30  # of splits and merges
STEPS = 5  # of assignment between two rounds
LAST_STEPS = 20
MOST_ROWS = 20_000  # among which clusters are looked for; the others are read by the model
READ = 8192
HIDDEN = 512
SMOOTH = 10  # rows added to the size of a class in its concentration
TOLD_TEMPERATURE = 0.07
FEWEST = 3  # known classes with two told rows from which a prior is learnt
EVENNESS = 0.1
KAPPAS, WORTHS, SCALES = (0.01, 0.03, 0.1, 0.3, 1.0), (2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0), (0.5, 0.7, 1.0, 1.4)
KAPPA, SPREAD = 1e-4, 4.0  # published: 0.005 on the diagonal is about four times the variance in 768 dimensions


class GPC(Discoverer):
    r"""Semi-supervised Gaussian mixture with split and merge, for an unknown number of classes.

    Clusters are Gaussians whose mean and covariance are integrated out; a cluster is split, two are merged, where that
    makes the rows more probable (see `SplitMerge`). Told rows stay in their class. Then the features are trained
    towards the clusters,

    .. math:: L = (1 - \lambda) L_{views} + \lambda L_{told} + L_{proto}, \qquad
              L_{proto} = -\log \frac{e^{\langle f, c_k \rangle / \phi_k}}{\sum_j e^{\langle f, c_j \rangle / \phi_j}},

    with a contrast between two views of every row, one among told rows of a class, and every row drawn to the
    prototype c of its cluster, the more so the less concentrated that is: :math:`\phi_k \propto \bar d_k / \log(N_k +
    10)`. Clusters and features take turns.

    Args:
        start: number of classes to start from; None: the plausible one, that of clusters which are
            not small among many.
        starts: how many times the mixture is started at random; the most probable is kept, and the numbers found give
            the interval.
        prior: of a cluster. "learned": what makes the told rows of the known classes most probable; "published": a
            mean worth 1e-4 rows, a covariance of D + 1; this one also where fewer than three classes are known.
        assign: a row goes to the most probable class ("density") or to the nearest mean ("nearest", as published).
        known_too: whether a known class may lose and take up rows of which nothing is said (see `SplitMerge`).
        chance: probability of a split or merge that is no gain; published .1.
        worth: each of N rows counts for 1 / (1 + N / (K worth)) rows where classes are split and merged, with K in
            the middle of the numbers that are possible (see `SplitMerge`); infinite as published.
        dimensions: in which the mixture lives, principal axes of the features.
        turns: how many times the features are trained; 0 for not at all.
        epochs: of each training.
        weight: lambda.

    Facts: `score_`, the log-probability of the partition up to a constant.

    Source: Zhao, Wen and Han, Learning Semi-supervised Gaussian Mixture Models for Generalized Category Discovery,
    2023; Miller and Dunson, Robust Bayesian Inference via Coarsening, 2019 (`worth`). Known classes that lose rows, the
    learned prior and Student densities are additions.
    """

    finds_number = True
    trains_encoder = True
    learns_from = None

    def __init__(
        self,
        *,
        start: int | None = None,
        starts: int = 3,
        prior: Literal["learned", "published"] = "learned",
        assign: Literal["density", "nearest"] = "density",
        known_too: bool = True,
        chance: float = 0.0,
        worth: float = 100.0,
        dimensions: int = 32,
        turns: int = 2,
        epochs: int = 5,
        weight: float = 0.35,
        temperature: float = 0.1,
        rate: float = 1e-3,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.start, self.starts, self.prior, self.assign = start, starts, prior, assign
        self.known_too, self.chance, self.worth, self.dimensions = known_too, chance, worth, dimensions
        self.turns, self.epochs, self.weight = turns, epochs, weight
        self.temperature, self.rate = temperature, rate

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        generator = torch.Generator().manual_seed(task.seed)
        some = torch.randperm(task.n_rows, generator=generator)[:MOST_ROWS].sort().values
        part = task if len(some) == task.n_rows else task.of_rows(some)
        views = Views(part) if self.turns else None
        plausible: Tensor | None = None
        network: ClassNetwork | None = None
        clusters: Clusters | None = None
        numbers, history = [], []
        for turn in range(self.turns + 1):
            if views is not None and clusters is not None:
                network = network or self._network(part)
                self._train(network, part, views, clusters, turn)
            embedded = _embedded(network, part)
            reduction = Reduction(embedded, self.dimensions)
            reduced = replace(part, features=reduction(embedded))
            if plausible is None:
                plausible = class_number(reduced)[0] if part.per_node is None else part.per_node
            search = self._search(reduced)
            tried = [
                search.found(begin, ROUNDS, STEPS, generator)
                for begin in self._beginnings(search, reduced, plausible, clusters, generator)
            ]
            clusters, score = max(tried, key=lambda one: one[1])
            numbers += [one.number for one, _ in tried]
            history.append({"step": f"mixture {turn + 1}", "classes": float(clusters.number), "score": score})
            if callback is not None:
                callback(turn + 1, self.turns + 1, history[-1])
        assert clusters is not None
        clusters = in_order(clusters, task.n_known)
        model = self._model(search, reduction, clusters, network)
        why = f"{clusters.number} classes make the rows most probable"
        interval = None if task.per_node is not None else (min(numbers), max(numbers))
        return Found(clusters.node, model, interval=interval, why=why, history=history, facts={"score": score})

    def _search(self, task: Task) -> SplitMerge:
        return SplitMerge(
            task.features,
            task.evidence,
            cluster_prior(task.features, task, learned=self.prior == "learned"),
            (task.least, task.most),
            task.per_node,
            known_too=self.known_too,
            nearest=self.assign == "nearest",
            chance=self.chance,
            share=1 / (1 + task.n_rows / (self.worth * math.sqrt(task.least * task.most))),
        )

    def _beginnings(
        self,
        search: SplitMerge,
        task: Task,
        plausible: Tensor,
        before: Clusters | None,
        generator: torch.Generator,
    ) -> list[Clusters]:
        """Clusters to start from: those before, or several at random."""
        if before is not None:
            return [search.settled(before.node, before.label, LAST_STEPS)]
        begin = task.with_number(plausible if self.start is None else self._start_number(task, self.start))
        found = []
        for _ in range(self.starts):
            label = search.nearest_to(begin.node, starting_centres(begin, generator))
            found.append(search.settled(begin.node, label, LAST_STEPS))
        return found

    def _start_number(self, task: Task, total: int) -> Tensor:
        """The number of classes under every coarse class, (C,), `total` in all: more where there are more rows."""
        if task.per_node is not None:
            return task.per_node
        number = torch.bincount(task.evidence.node_of_known, minlength=task.evidence.n_nodes)
        number = number.clamp(min=1 if task.evidence.n_nodes > 1 else 0)
        held = torch.bincount(task.evidence.sure_node().clamp(min=0), minlength=len(number)).double()
        for _ in range(max(min(total, task.most), task.least) - int(number.sum())):  # classes, not rows
            number[int((held / (number + 1)).argmax())] += 1
        return number

    def _network(self, task: Task) -> ClassNetwork:
        body = None if task.encoder is not None else Residual(task.features.shape[1], HIDDEN, task.seed)
        encoder = None if task.encoder is None else copy.deepcopy(task.encoder)
        return ClassNetwork(nn.Identity(), body, encoder).to(task.features.device)

    def _train(self, network: ClassNetwork, task: Task, views: Views, clusters: Clusters, turn: int) -> None:
        """Draw the features of rows towards the prototypes of their clusters, and told rows of a class together."""
        label = clusters.label
        embedded = _embedded(network, task)
        prototype, _ = class_means(embedded, label, clusters.number)
        prototype = normalize(prototype, dim=1)
        scale = concentration(embedded, prototype, label, self.temperature)
        told = task.evidence.sure_known().to(label.device)
        known = (told >= 0).nonzero().flatten().cpu()

        def loss(rows: Tensor, moment: Moment) -> tuple[Tensor, dict[str, Tensor]]:
            first, second = (network.embed(view) for view in views(rows, moment.generator))
            apart = contrast(first, second, self.temperature)
            drawn = torch.cat([first, second]) @ prototype.T / scale
            near = cross_entropy(drawn, label[rows.to(label.device)].repeat(2))
            facts = {"views": apart, "prototypes": near}
            total = (1 - self.weight) * apart + near
            if len(known):
                some = known[torch.randint(len(known), (len(rows),), generator=moment.generator)].unique()
                both = torch.cat([network.embed(view) for view in views(some, moment.generator)])
                facts["told"] = told_contrast(both, told[some.to(told.device)].repeat(2), TOLD_TEMPERATURE)
                total = total + self.weight * facts["told"]
            return total, facts

        pace = Pace(epochs=self.epochs, rate=self.rate)
        train(network, loss, task.n_rows, pace, seed=task.seed + turn)

    def _model(
        self, search: SplitMerge, reduction: Reduction, clusters: Clusters, network: ClassNetwork | None
    ) -> ClassModel:
        moments = clusters.moments
        if self.assign == "nearest":
            classes: nn.Module = Centres(moments.mean.to(search.x), search.spread(moments))
        else:
            classes = GaussianClasses(Densities(search.prior, moments), moments.size)
        return ReducedClasses(reduction, classes, network)


def _embedded(network: ClassNetwork | None, task: Task) -> Tensor:
    if network is None:
        return normalize(task.features, dim=1)
    return in_batches(network.embed, task.rows, READ, network).to(task.features.device)


def cluster_prior(x: Tensor, task: Task, learned: bool) -> NormalInverseWishart:
    r"""The prior of clusters of rows (N, D).

    Learned: :math:`\Psi = s \nu_0 W,\; \nu = D - 1 + \nu_0` with W the covariance inside known classes, a tenth of it
    spread evenly, and :math:`(\kappa, \nu_0, s)` on a grid where the told rows, class by class, are most probable.
    """
    x = x.double()
    d, mean = x.shape[1], x.mean(dim=0)
    even = torch.eye(d).to(x)
    told = task.evidence.sure_known().to(x.device)
    seen = Moments.of(x, told, task.n_known) if learned and bool((told >= 0).any()) else None
    if seen is None or int((seen.size >= 2).sum()) < FEWEST:
        spread = SPREAD * (x - mean).square().mean()
        return NormalInverseWishart(mean, x.new_tensor(KAPPA), x.new_tensor(d + 1.0), spread * even)
    seen = seen[seen.size >= 2]
    within = seen.scatter.sum(dim=0) / (seen.size - 1).sum()
    within = (1 - EVENNESS) * within + EVENNESS * within.diagonal().mean() * even
    tried = [
        NormalInverseWishart(mean, x.new_tensor(kappa), x.new_tensor(d - 1 + worth), scale * worth * within)
        for kappa, worth, scale in product(KAPPAS, WORTHS, SCALES)
    ]
    return max(tried, key=lambda prior: float(prior.log_marginal(seen).sum()))


def concentration(embedded: Tensor, prototype: Tensor, label: Tensor, temperature: float) -> Tensor:
    r"""Temperatures :math:`\phi_k` (K,) of prototypes, of mean `temperature`.

    .. math:: \phi_k \propto \mathrm{mean}_{y_i = k} |f_i - c_k| \,/ \log(N_k + 10),

    that of a class with one row, or none, as the largest; cut at the tenth and the ninetieth percentile.
    """
    k = len(prototype)
    size = torch.bincount(label, minlength=k)
    apart = (embedded - prototype[label]).norm(dim=1)
    mean = torch.zeros(k).to(embedded).index_add(0, label, apart) / size.clamp(min=1)
    phi = mean / (size + SMOOTH).log()
    phi = torch.where(size > 1, phi, phi.max())
    low, high = phi.quantile(0.1), phi.quantile(0.9)
    phi = phi.clamp(low, high).clamp(min=1e-6)
    return temperature * phi / phi.mean()


def contrast(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    r"""InfoNCE of two views (B, E) of the same rows, of length one, a scalar.

    .. math:: -\frac{1}{2B} \sum_i \log \frac{e^{\langle f_i, f'_i \rangle / \tau}}{\sum_{j \ne i} e^{\langle f_i, f_j
              \rangle / \tau} + \sum_j e^{\langle f_i, f'_j \rangle / \tau}}

    and the same with the views exchanged. Source: Chen et al., SimCLR, 2020.
    """
    n = len(first)
    both = torch.cat([first, second])
    logits = (both @ both.T / temperature).fill_diagonal_(-torch.inf)
    return cross_entropy(logits, torch.arange(2 * n, device=both.device).roll(n))


def told_contrast(embedded: Tensor, label: Tensor, temperature: float) -> Tensor:
    r"""Supervised contrast of rows (B, E) of length one whose classes (B,) are told, a scalar.

    .. math:: -\frac1B \sum_i \frac{1}{|P_i|} \sum_{j \in P_i} \log \frac{e^{\langle f_i, f_j \rangle / \tau}}{\sum_{l
              \ne i} e^{\langle f_i, f_l \rangle / \tau}}, \qquad P_i = \{j \ne i : y_j = y_i\}

    Source: Khosla et al., Supervised Contrastive Learning, 2020.
    """
    itself = torch.eye(len(label), device=label.device).bool()
    logits = (embedded @ embedded.T / temperature).masked_fill(itself, -torch.inf)
    same = (label[:, None] == label) & ~itself
    log_probs = logits.log_softmax(dim=1).masked_fill(~same, 0.0)
    return -(log_probs.sum(dim=1) / same.sum(dim=1).clamp(min=1)).mean()


def in_order(clusters: Clusters, n_known: int) -> Clusters:
    """The same clusters, new ones by their coarse class and, under it, the larger first."""
    new = torch.arange(n_known, clusters.number)
    size = clusters.moments.size.cpu()
    new = new[(-size[new]).argsort(stable=True)]
    new = new[clusters.node[new].argsort(stable=True)]
    order = torch.cat([torch.arange(n_known), new])
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    device = clusters.label.device
    return Clusters(clusters.node[order], place.to(device)[clusters.label], clusters.moments[order.to(device)])
