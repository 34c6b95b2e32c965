"""Rows as sparse mixtures of learnt sub-prototypes, in which two domains are aligned below the level of classes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, normalize, one_hot

from anygrain.discover.acceptance import accepted, divided, joined
from anygrain.discover.discoverer import AT_ONCE, Callback, Discoverer
from anygrain.discover.found import Found
from anygrain.discover.k_means import k_means, plus_plus, squared_distances
from anygrain.discover.network import ClassNetwork, CosineHead, Moment, Pace, train
from anygrain.discover.perceptron import Scaled, perceptron
from anygrain.discover.semi_supervised_k_means import Centres
from anygrain.discover.start import on_features
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.trainable import Arrays, in_batches, seeded

STEPS = 500  # batches at most, or one epoch
SEARCHED = 4000  # rows that the number of clusters is looked for on
SEARCH_STEPS = 10
CANDIDATES = 6  # numbers of clusters that are tried
FEW = 3  # rows up to which a cluster is of no known class
WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernels, as multiples of the mean squared distance


class SubPrototypeMemory(Discoverer):
    r"""Memory-assisted sub-prototype mining: a classifier on mixtures of sub-prototypes, and consensus of clusters.

    Features z are fixed. A memory holds N items of S sub-prototypes :math:`m_j`; a row is read as the mixture of those
    k that are most like it, and that is what is classified, aligned and clustered:

    .. math:: \hat z = \sum_{j \in top_k} \hat w_j m_j, \qquad \hat w = \mathrm{softmax}_{j \in top_k}
              \cos(z, m_j) / \tau.

    Rows whose class is told are the source, the others the target, which may look different and hold new classes. At
    every stage the target is clustered, with the number of clusters that agrees best with the source classes
    (`consensus`); a cluster and a class that are each other's nearest are one, the other clusters are of new classes.

    .. math:: L = CE + \lambda_1 L_{cdd} + \lambda_2 |z - \mathrm{dec}(\hat z)|^2 + \lambda_3 H(\hat w)
                  + e^{-3 (1 - t)} \lambda_4 CE_{cluster}

    with `class_discrepancy` between source and target rows of matched classes, the entropy of the weights, and
    cross-entropy of target rows with their clusters, t the share of training done. Rows of clusters without a class are
    unknown; k-means divides them into the new classes. Where no class is known, memory and k-means remain.

    Args:
        items: N; None for one per class. `per_item`: S, 20 or more; `kept`: k.
        temperature: tau.
        discrepancy: lambda 1; `reconstruction`: lambda 2; `sparse`: lambda 3; `contrast`: lambda 4.
        stages: how many times the target is clustered before the end.
        epochs: times that every row of the target is seen; fewer where that comes to more than 500 batches.
        rate: highest learning rate.
        batch_size: rows of the target at once, and as many of the source, drawn with known classes alike.

    Facts: `unknown_`, bool (N,), rows of no known class; `consensus_`, of the last clustering; `sub_prototype_`, (N,)
    that with the largest weight, of N S.

    Source: Lai et al., Memory-Assisted Sub-Prototype Mining for Universal Domain Adaptation, 2024; Li et al., Domain
    Consensus Clustering for Universal Domain Adaptation, 2021. Sub-prototypes start at the means of clusters of
    rows, and one that no row uses is put on a row; centres of clusters are those of the last clustering, and the
    kernels of a batch share their widths.
    """

    learns_from = None

    def __init__(
        self,
        *,
        items: int | None = None,
        per_item: int = 20,
        kept: int = 5,
        temperature: float = 0.05,
        discrepancy: float = 0.3,
        reconstruction: float = 0.1,
        sparse: float = 0.01,
        contrast: float = 0.1,
        stages: int = 3,
        epochs: int = 15,
        rate: float = 1e-2,
        batch_size: int = 128,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.items, self.per_item, self.kept, self.temperature = items, per_item, kept, temperature
        self.discrepancy, self.reconstruction, self.sparse, self.contrast = (
            discrepancy,
            reconstruction,
            sparse,
            contrast,
        )
        self.stages, self.epochs, self.rate, self.batch_size = stages, epochs, rate, batch_size

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        task = on_features(task)
        x, told = task.features, task.evidence.sure_known()
        source, target = (told >= 0).nonzero().flatten(), (told < 0).nonzero().flatten()
        target = target if len(target) else source
        network, decoder = self._network(task)
        weight = 1 / torch.bincount(told[source], minlength=1)[told[source]].float()
        place = torch.zeros(task.n_rows, dtype=torch.long)
        place[target] = torch.arange(len(target))
        clusters: list[Clusters] = []

        def loss(rows: Tensor, moment: Moment) -> tuple[Tensor, dict[str, Tensor]]:
            index = target[rows]
            drawn = index[:0]
            if len(source):
                drawn = source[torch.multinomial(weight, len(rows), replacement=True, generator=moment.generator)]
            both = network.scaled(x[torch.cat([drawn, index]).to(x.device)])
            mixed, share, _ = network.memory(both)
            facts = {"reconstruction": mse_loss(decoder(mixed), both), "sparse": entropy(share)}
            value = self.reconstruction * facts["reconstruction"] + self.sparse * facts["sparse"]
            if len(source):
                embedded, y = normalize(mixed, dim=1), told[drawn].to(x.device)
                own, other = embedded[: len(drawn)], embedded[len(drawn) :]
                facts["known"] = cross_entropy(network.head(own), y)
                now = clusters[-1]
                cluster = now.cluster[rows].to(x.device)
                facts["discrepancy"] = class_discrepancy(own, y, other, now.match[cluster], task.n_known)
                facts["cluster"] = cross_entropy(other @ now.centre.T / network.head.temperature, cluster)
                rising = math.exp(-3 * (1 - moment.share)) * self.contrast
                value = value + facts["known"] + self.discrepancy * facts["discrepancy"] + rising * facts["cluster"]
            return value, facts

        batches = max(1, -(-len(target) // self.batch_size))
        epochs = min(self.epochs, max(1, -(-STEPS // batches)))
        every = max(1, -(-epochs // self.stages))
        generator = torch.Generator().manual_seed(task.seed)

        def stage(epoch: int) -> None:
            if epoch % every == 0:
                embedded, used = self._embedded(task, network)
                network.memory.put_on_rows(network.scaled(x), used, generator)
                if len(source):
                    clusters.append(self._clusters(task, embedded, source, target))

        pace = Pace(epochs, self.batch_size, self.rate)
        network.decoder = decoder
        history = train(network, loss, len(target), pace, seed=task.seed, callback=callback, at_epoch=stage)
        network.decoder = None
        return self._found(task, network, source, target, history)

    def _network(self, task: Task) -> tuple[MemoryNetwork, nn.Module]:
        dim, number = task.features.shape[1], (self.items or len(task.node)) * self.per_item
        generator = torch.Generator().manual_seed(task.seed)
        scaled = Scaled(task.features).to(task.features.device)
        part = torch.randperm(task.n_rows, generator=generator)[: max(SEARCHED, number)]
        start = sub_clusters(scaled(task.features[part.to(task.features.device)]), number, generator)
        memory = Memory(start, self.kept, self.temperature)
        with seeded(task.seed):
            head = CosineHead(torch.randn(max(task.n_known, 1), dim))
        network = MemoryNetwork(scaled, memory, head).to(task.features.device)
        return network, perceptron([dim, 2 * dim, dim], task.seed).to(task.features.device)

    def _embedded(self, task: Task, network: MemoryNetwork) -> tuple[Tensor, Tensor]:
        """Embedded rows (N, D), and how many rows use every sub-prototype."""
        embedded, used = [], torch.zeros(len(network.memory.prototype), dtype=torch.long)
        with torch.no_grad():
            for part in task.features.split(AT_ONCE):
                mixed, _, chosen = network.memory(network.scaled(part))
                embedded.append(normalize(mixed, dim=1))
                used += torch.bincount(chosen.flatten().cpu(), minlength=len(used))
        return torch.cat(embedded), used

    def _clusters(self, task: Task, embedded: Tensor, source: Tensor, target: Tensor) -> Clusters:
        y, k = task.evidence.sure_known()[source], len(task.node)
        most = min(max(2 * k, k + 2), len(target))
        numbers = torch.linspace(min(k, most), most, CANDIDATES).round().long().unique().tolist()
        generator = torch.Generator().manual_seed(task.seed)
        device = embedded.device
        own, other = embedded[source.to(device)], embedded[target.to(device)]
        return consensus_clusters(own, y.to(device), task.n_known, other, numbers, generator)

    def _found(
        self, task: Task, network: MemoryNetwork, source: Tensor, target: Tensor, history: list[dict[str, object]]
    ) -> Found:
        embedded, _ = self._embedded(task, network)
        agreed = float("nan")
        if len(source):
            found = self._clusters(task, embedded, source, target)
            centre = class_means(embedded[source.to(embedded.device)], found.y, task.n_known)
            network.centre = torch.cat([centre, found.centre])
            network.of = torch.cat([torch.arange(task.n_known, device=centre.device), found.match])
            agreed = float(found.score)
        with torch.no_grad():
            parts = [network.scores(part, task.n_known) for part in embedded.split(AT_ONCE)]
            first = in_batches(network.first, task.rows, AT_ONCE, network)
        choice = accepted(task, torch.cat([one for one, _ in parts]), torch.cat([none for _, none in parts]))
        centres = divided(task, embedded, choice)
        network.n_known = task.n_known
        network.new = Centres(centres.centre[task.n_known :], centres.variance).to(embedded.device)
        why = "no class is known"
        if task.n_known:
            matched = int((network.of[task.n_known :] >= 0).sum())
            why = f"{matched} of {len(network.of) - task.n_known} clusters agree with known classes"
        facts = {"unknown": (choice < 0).numpy(), "consensus": agreed, "sub_prototype": first.long().numpy()}
        return Found(task.node, network, why=why, history=history, facts=facts)


class Memory(nn.Module):
    """Sub-prototypes, and rows as sparse mixtures of them.

    Args:
        prototype: (M, D) to start from.
        kept: k, how many a row is mixed of.
        temperature: of the cosines.
    """

    def __init__(self, prototype: Tensor, kept: int, temperature: float) -> None:
        super().__init__()
        self.prototype = nn.Parameter(prototype.clone())
        self.kept, self.temperature = min(kept, len(prototype)), temperature

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r"""Mixtures (B, D), weights (B, k), largest first, and the sub-prototypes (B, k) that they are of.

        It is the limit :math:`\epsilon \to 0` of the hard shrinkage :math:`\max(w - \lambda, 0) w / (|w - \lambda| +
        \epsilon)` of a softmax w over all, scaled to sum 1, with lambda the (k + 1)-th largest weight.
        """
        cosine = normalize(z, dim=1) @ normalize(self.prototype, dim=1).T / self.temperature
        top = cosine.topk(self.kept, dim=1)
        weight = top.values.softmax(dim=1)
        return (weight[:, :, None] * self.prototype[top.indices]).sum(dim=1), weight, top.indices

    def put_on_rows(self, z: Tensor, used: Tensor, generator: torch.Generator) -> None:
        """Put sub-prototypes that no row uses, by their counts (M,), on random rows of z (N, D)."""
        dead = (used == 0).nonzero().flatten()
        rows = torch.randint(len(z), (len(dead),), generator=generator)
        with torch.no_grad():
            self.prototype[dead.to(z.device)] = z[rows.to(z.device)]


class MemoryNetwork(ClassNetwork):
    """Scaled features through a memory; classes by the nearest centre.

    Args:
        scaled: features about 0.
        memory: of sub-prototypes.
        head: logits of the known classes in training.
    """

    centre: Tensor
    of: Tensor

    def __init__(self, scaled: Scaled, memory: Memory, head: CosineHead) -> None:
        super().__init__(head)
        self.head: CosineHead = head
        self.scaled, self.memory = scaled, memory
        self.decoder: nn.Module | None = None
        self.new: Centres | None = None
        self.n_known = 0
        self.register_buffer("centre", torch.zeros(0, head.direction.shape[1]))
        self.register_buffer("of", torch.zeros(0, dtype=torch.long))

    def embed(self, arrays: Arrays) -> Tensor:
        return normalize(self.memory(self.scaled(arrays["features"]))[0], dim=1)

    def first(self, arrays: Arrays) -> Tensor:
        """The sub-prototype (B,) with the largest weight."""
        found: Tensor = self.memory(self.scaled(arrays["features"]))[2][:, 0]
        return found.double()

    def scores(self, embedded: Tensor, n_known: int) -> tuple[Tensor, Tensor]:
        """Log-scores of known classes (B, G), and of being of none, (B,): cosines with the nearest centre of each."""
        known = embedded.new_full((len(embedded), n_known + 1), -1.0)
        if len(self.of):
            where = torch.where(self.of < 0, n_known, self.of).expand(len(embedded), -1)
            known = known.scatter_reduce(1, where, embedded @ self.centre.T, "amax")
        known = known / self.head.temperature
        return known[:, :n_known], known[:, n_known]

    def logits(self, arrays: Arrays) -> Tensor:
        assert self.new is not None
        embedded = self.embed(arrays)
        return joined(*self.scores(embedded, self.n_known), self.new({"features": embedded}))


@dataclass(frozen=True)
class Clusters:
    """Clusters of target rows, and the source classes that they agree with.

    Attributes:
        centre: (T, D), of length 1.
        cluster: (target rows,) of every row.
        match: (T,) source class of every cluster, -1 for none.
        score: mean consensus of the matches.
        y: classes of the source rows.
    """

    centre: Tensor
    cluster: Tensor
    match: Tensor
    score: Tensor
    y: Tensor


def consensus_clusters(
    source: Tensor, y: Tensor, n_classes: int, target: Tensor, numbers: list[int], generator: torch.Generator
) -> Clusters:
    """Clusters of target rows, of as many as agree best with the source.

    Args:
        source: (n, D) of length 1; `y`: (n,) their classes, below `n_classes`.
        target: (m, D) of length 1.
        numbers: of clusters to try; the first wins where two agree alike.
    """
    centre = class_means(source, y, n_classes)
    part = torch.randperm(len(target), generator=generator)[:SEARCHED].to(target.device)
    some, best, best_score, most = target[part], None, torch.tensor(-1.0), -1.0
    for number in numbers:
        start = plus_plus(some, some[:0], number, generator)
        found = normalize(k_means(some, start, None, SEARCH_STEPS)[0], dim=1)
        match, scores = consensus(source, y, centre, some, found)
        score = scores[match >= 0].mean() if bool((match >= 0).any()) else scores.new_zeros(())
        if float(score) > most:
            best, best_score, most = found, score, float(score)
    assert best is not None
    cluster = nearest(target, best)
    match, _ = consensus(source, y, centre, target, best)
    few = torch.bincount(cluster, minlength=len(best)) <= min(FEW, len(target) // (2 * len(best)))
    return Clusters(best, cluster.cpu(), torch.where(few, -1, match), best_score, y)


def consensus(
    source: Tensor, y: Tensor, source_centre: Tensor, target: Tensor, target_centre: Tensor
) -> tuple[Tensor, Tensor]:
    r"""The source class of every target cluster, (T,), -1 for none, and how far rows agree with that, (T,) in [0, 1].

    Class c and cluster t are one where each has the other as its nearest. Their consensus is the mean of two shares:
    of the rows of c whose nearest target centre is t, and of the rows of t whose nearest source centre is c.

    Args:
        source: (n, D); `y`: (n,); `source_centre`: (G, D); `target`: (m, D); `target_centre`: (T, D); of length 1.
    """
    like = source_centre @ target_centre.T
    there = torch.bincount(y, minlength=len(like)) > 0
    like = torch.where(there[:, None], like, -torch.inf)
    of_class, of_cluster = like.argmax(dim=1), like.argmax(dim=0)
    clusters = torch.arange(like.shape[1], device=like.device)
    match = torch.where(of_class[of_cluster] == clusters, of_cluster, -1)
    cluster = nearest(target, target_centre)
    forth = _share(nearest(source, target_centre), y, like.shape[1], len(like))
    back = _share(nearest(target, source_centre), cluster, len(like), like.shape[1])
    both = (forth[of_cluster, clusters] + back[clusters, of_cluster]) / 2
    return match, torch.where(match >= 0, both, 0.0)


def sub_clusters(x: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Means (number, D) of clusters of rows (N, D) by their directions, which may have several in a class.

    Where there are fewer rows than clusters, some are of the same rows.
    """
    z = normalize(x, dim=1)
    centre, cluster = k_means(z, plus_plus(z, z[:0], number, generator), None, SEARCH_STEPS)
    size = torch.bincount(cluster, minlength=number)[:, None]
    mean = torch.zeros_like(centre).index_add(0, cluster, x) / size.clamp(min=1)
    return torch.where(size > 0, mean, x[nearest(centre, z)])


def _share(found: Tensor, group: Tensor, n_found: int, n_groups: int) -> Tensor:
    """Of the rows of every group, the share in every class found, (groups, found)."""
    count = torch.bincount(group * n_found + found, minlength=n_groups * n_found).view(n_groups, n_found).float()
    return count / count.sum(dim=1, keepdim=True).clamp(min=1)


def nearest(x: Tensor, centre: Tensor) -> Tensor:
    """The centre (N,) with the largest inner product with every row."""
    return torch.cat([(part @ centre.T).argmax(dim=1) for part in x.split(AT_ONCE)])


def class_means(x: Tensor, y: Tensor, n_classes: int) -> Tensor:
    """Mean directions (C, D) of the classes of rows, 0 where a class has none."""
    means: Tensor = normalize(x.new_zeros(n_classes, x.shape[1]).index_add(0, y, x), dim=1)
    return means


def entropy(weight: Tensor) -> Tensor:
    """Mean entropy of weights (B, k), in nats."""
    mean: Tensor = -torch.special.xlogy(weight, weight).sum(dim=1).mean()
    return mean


def class_discrepancy(source: Tensor, y: Tensor, target: Tensor, found: Tensor, n_classes: int) -> Tensor:
    r"""How far apart classes are between domains, less how far different classes are, a scalar.

    .. math:: \frac1{|C|} \sum_c MMD^2(S_c, T_c) - \frac1{|C'|} \sum_{c \ne c'} MMD^2(S_c, T_{c'})

    over classes with rows on both sides, with a sum of five Gaussian kernels about the mean squared distance.

    Args:
        source: (a, D) rows, `y`: (a,) their classes.
        target: (b, D) rows, `found`: (b,) the classes they are taken for, -1 for none.
    """
    square = mean_discrepancies(source, y, target, found, n_classes)
    both = torch.bincount(y, minlength=n_classes) > 0
    both &= torch.bincount(found[found >= 0], minlength=n_classes) > 0
    same = both.diag()
    other = (both[:, None] & both) & ~same
    value = square.sum() * 0
    if bool(same.any()):
        value = value + square[same].mean()
    if bool(other.any()):
        value = value - square[other].mean()
    return value


def mean_discrepancies(source: Tensor, y: Tensor, target: Tensor, found: Tensor, n_classes: int) -> Tensor:
    """Squared maximum mean discrepancy (C, C) of the source rows of every class and the target rows of every other."""
    rows = torch.cat([source, target])
    distance = squared_distances(rows, rows)
    width = distance.detach().mean().clamp(min=1e-12)
    kernel = torch.stack([torch.exp(-distance / (width * many)) for many in WIDTHS]).sum(dim=0)
    a = len(source)
    own, other = one_hot(y, n_classes).to(rows), one_hot(found + 1, n_classes + 1)[:, 1:].to(rows)
    own, other = own / own.sum(dim=0).clamp(min=1), other / other.sum(dim=0).clamp(min=1)
    within, beyond = own.T @ kernel[:a, :a] @ own, other.T @ kernel[a:, a:] @ other
    square: Tensor = within.diagonal()[:, None] + beyond.diagonal() - 2 * own.T @ kernel[:a, a:] @ other
    return square
