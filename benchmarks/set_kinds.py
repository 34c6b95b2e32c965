"""Every kind of label of sets on real data: how near to full supervision of instances, and to its usual baseline?

    ANYGRAIN_DATA=... python benchmarks/set_kinds.py --cache FOLDER [--tasks counts,pairs] [--seeds 3] [--rates]

For every task and seed: what `Learner` makes of instances from labels of sets, full supervision, and what one would
otherwise do with such labels: the cross-entropy of mean probabilities (shares, counts, majority), the highest
probability of a bag (any-of, highest), the label of the bag copied to its members, ridge regression on mean rows
(means), a siamese network (pairs). Baselines of classes are a network of 32 units, whose weight decay bags that were
held out choose; `linear` is `AggregateClassifier(rho=0)`. With --rates: any-of of bags of 50 digits, alone and with
what else may be known of how many there are. Digits are HOG and 64 principal components, texts 100 of TF-IDF. Every
finished fit is a line in FOLDER/set_kinds.jsonl, so a stopped run goes on where it was; `--tables` writes
SET_KINDS_RESULTS.md from what is there. One thread.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import itertools
import os
import platform
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bags import Cache, digit_bags, folder, hog, shown
from scipy.stats import binom
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import average_precision_score, r2_score
from torch import Tensor
from torch.nn.functional import nll_loss, one_hot

from anygrain.bags import AggregateClassifier, AggregateRegressor
from anygrain.labels import (
    AggregateValue,
    AnyOf,
    Bags,
    Between,
    Counts,
    Exact,
    Labels,
    Majority,
    Pairs,
    Proportions,
    SetLabel,
    Soft,
    Tags,
    Value,
)
from anygrain.learn import Learner

ROWS, TESTED = 1200, 2000
DECAYS, STEPS, HIDDEN = (1e-4, 1e-3, 1e-2), 300, 32
PER_CLASS = 3  # exact labels of every class, where there are some
SIDES = 16  # pixels of a picture trained end to end

Loss = Callable[[Tensor, Tensor], Tensor]  # logits (N, K) of the rows, bags (M,) that count -> scalar


# -- data: features and classes of training and test rows --------------------------------------------------------------


@functools.cache
def mnist() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HOG of the test digits, cut to the frame of USPS and made as small; classes; pictures."""
    with np.load(folder("digits_domains") / "mnist_test.npz") as held:
        pictures = torch.from_numpy(held["X"][:, 4:24, 4:24]).float()[:, None]
        classes = held["y"].astype(int)
    size = (SIDES, SIDES)
    small = torch.nn.functional.interpolate(pictures, size, mode="bilinear", antialias=True)[:, 0]
    return hog(small.numpy()), classes, small.numpy()


@functools.cache
def usps() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with np.load(folder("digits_domains") / "usps.npz") as held:
        pictures = held["X_train"].reshape(-1, SIDES, SIDES).astype(np.float32)
        return hog(pictures), held["y_train"].astype(int), pictures


@functools.cache
def newsgroups() -> tuple[np.ndarray, np.ndarray]:
    """Posts by words, and their six subjects."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.preprocessing import normalize

    data = np.load(folder("newsgroups20_bow") / "newsgroups20_bow.npz")
    ones = np.ones(len(data["X_indices"]), dtype=np.float32)
    words = csr_matrix((ones, data["X_indices"], data["X_indptr"]), shape=tuple(data["X_shape"]))
    rows = np.random.default_rng(0).permutation(np.flatnonzero(data["fine"] >= 0))[:6000]
    scores = TruncatedSVD(100, random_state=0).fit_transform(TfidfTransformer().fit_transform(words[rows]))
    return normalize(scores), data["fine_to_coarse"][data["fine"][rows]].astype(int)


class Rows:
    """Rows of one seed: x (N, d), y (N,), and those to test on, all of them others."""

    def __init__(self, features: np.ndarray, y: np.ndarray, seed: int, components: int = 64) -> None:
        self.seed, self.rng = seed, np.random.default_rng(seed)
        order = self.rng.permutation(len(y))
        train, test = order[:ROWS], order[ROWS : ROWS + TESTED]
        if features.shape[1] > components:
            pca = PCA(components, random_state=0).fit(features[train])
            self.x, self.x_test = pca.transform(features[train]), pca.transform(features[test])
        else:
            self.x, self.x_test = features[train], features[test]
        self.train, self.test = train, test
        self.y, self.y_test, self.k = torch.from_numpy(y[train]).long(), y[test], int(y.max()) + 1

    def bags(self, size: int) -> Bags:
        return Bags.from_ids(torch.from_numpy(self.rng.permutation(np.arange(len(self.y)) // size)))

    def counts(self, bags: Bags) -> Tensor:
        hot = one_hot(self.y[bags.members], self.k)
        return torch.zeros(len(bags), self.k, dtype=torch.long).index_add(0, bags.index, hot)

    def few(self, per_class: int = PER_CLASS) -> Tensor:
        """Classes (N,) of some rows of every class, -1 elsewhere."""
        found = torch.full_like(self.y, -1)
        for k in range(self.k):
            rows = self.rng.choice(np.flatnonzero(self.y.numpy() == k), per_class, replace=False)
            found[rows] = k
        return found

    def scores(self, p: np.ndarray) -> dict[str, float]:
        chosen = p[np.arange(len(p)), self.y_test].clip(1e-9)
        return {
            "accuracy": 100 * float((p.argmax(axis=1) == self.y_test).mean()),
            "log loss": float(-np.log(chosen).mean()),
        }

    def learnt(self, labels: Any) -> dict[str, float]:
        return self.scores(Learner(seed=self.seed).fit(self.x, labels).predict_proba(self.x_test))

    def network(self, loss: Loss, n_bags: int, outputs: int | None = None) -> np.ndarray:
        """Log-odds of a network of `HIDDEN` units, (N_test, K), its weight decay chosen by a fifth of the bags."""
        return network(self.x, self.x_test, loss, n_bags, outputs or self.k, self.seed)

    def baseline(self, loss: Loss, n_bags: int) -> dict[str, float]:
        logits = torch.from_numpy(self.network(loss, n_bags))
        return self.scores(logits.softmax(dim=1).numpy())


def network(x: np.ndarray, z: np.ndarray, loss: Loss, n_bags: int, outputs: int, seed: int) -> np.ndarray:
    scale = x.std(axis=0) + 1e-9
    rows, asked = (torch.from_numpy((part - x.mean(axis=0)) / scale).float() for part in (x, z))

    def fitted(bags: Tensor, decay: float) -> torch.nn.Module:
        torch.manual_seed(seed)
        net = torch.nn.Sequential(
            torch.nn.Linear(rows.shape[1], HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, outputs)
        )
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(STEPS):
            optimizer.zero_grad()
            (loss(net(rows), bags) + decay * sum(p.square().sum() for p in net.parameters())).backward()
            optimizer.step()
        return net

    order = torch.randperm(n_bags, generator=torch.Generator().manual_seed(seed))
    held, inside = order[: n_bags // 5], order[n_bags // 5 :]
    nets = [fitted(inside, decay) for decay in DECAYS]
    with torch.no_grad():
        lost = [float(loss(net(rows), held)) for net in nets]
    best = fitted(order, DECAYS[int(np.argmin(lost))])
    with torch.no_grad():
        return np.asarray(best(asked).double().numpy())


# -- baselines: what one would otherwise do with the label of a bag ----------------------------------------------------


def pooled(logits: Tensor, bags: Bags) -> Tensor:
    """Mean probabilities of every bag, (M, K)."""
    p = logits.softmax(dim=1)[bags.members]
    total = p.new_zeros(len(bags), p.shape[1]).index_add(0, bags.index, p)
    return total / bags.sizes[:, None]


def highest(values: Tensor, bags: Bags) -> Tensor:
    """The highest value of every bag, (M, ...)."""
    index = bags.index.view(-1, *[1] * (values.ndim - 1)).expand(-1, *values.shape[1:])
    lowest = values.new_full((len(bags), *values.shape[1:]), -torch.inf)
    return lowest.scatter_reduce(0, index, values[bags.members], "amax")


def of_means(bags: Bags, shares: Tensor) -> Loss:
    return lambda logits, chosen: -(shares[chosen] * pooled(logits, bags)[chosen].clamp(min=1e-9).log()).sum(1).mean()


def copied(bags: Bags, shares: Tensor) -> Loss:
    def loss(logits: Tensor, chosen: Tensor) -> Tensor:
        said = -(shares[bags.index] * logits.log_softmax(dim=1)[bags.members]).sum(dim=1)
        return said[torch.isin(bags.index, chosen)].mean()

    return loss


def classes_of(given: Tensor, k: int) -> Tensor:
    return one_hot(given, k).float()


# -- tasks: (seed) -> by method, what finds its scores -----------------------------------------------------------------

Methods = dict[str, Callable[[], dict[str, float]]]


def of_shares(rows: Rows, bags: Bags, labels: Labels) -> Methods:
    shares = rows.counts(bags).float() / bags.sizes[:, None]
    linear = Proportions(bags, shares)
    return {
        "anygrain": lambda: rows.learnt(labels),
        "mean probabilities": lambda: rows.baseline(of_means(bags, shares), len(bags)),
        "mean probabilities, linear": lambda: rows.scores(
            AggregateClassifier(rho=0).fit(rows.x, linear).predict_proba(rows.x_test)
        ),
        "copied": lambda: rows.baseline(copied(bags, shares), len(bags)),
        "full supervision": lambda: rows.learnt(Exact(rows.y, rows.k)),
    }


def counts(seed: int) -> Methods:
    rows = Rows(*mnist()[:2], seed)
    bags = rows.bags(12)
    return of_shares(rows, bags, Counts(bags, rows.counts(bags)))


def proportions(seed: int) -> Methods:
    rows = Rows(*mnist()[:2], seed)
    bags = rows.bags(40)
    return of_shares(rows, bags, Proportions(bags, rows.counts(bags) / 40))


def texts(seed: int) -> Methods:
    rows = Rows(*newsgroups(), seed, components=100)
    bags = rows.bags(24)
    return of_shares(rows, bags, Proportions(bags, rows.counts(bags) / 24))


def skewed(seed: int) -> Methods:
    """Bags of 24 with shares of their own."""
    rows = Rows(*mnist()[:2], seed)
    bags = Bags.from_ids(torch.from_numpy(drawn_bags(rows.y.numpy(), rows.k, 24, rows.rng)))
    return of_shares(rows, bags, Proportions(bags, rows.counts(bags) / bags.sizes[:, None]))


def drawn_bags(
    y: np.ndarray, k: int, size: int, rng: np.random.Generator, prior: np.ndarray | None = None
) -> np.ndarray:
    """Bag of every row (N,): the classes of a bag are drawn with shares of its own, while rows of them are left."""
    left = [list(rng.permutation(np.flatnonzero(y == c))) for c in range(k)]
    ids = np.empty(len(y), dtype=np.int64)
    for bag in range(-(-len(y) // size)):
        share = rng.dirichlet(np.full(k, 0.3)) + 1e-6
        for _ in range(min(size, sum(map(len, left)))):
            p = share * [bool(part) for part in left]
            ids[left[rng.choice(k, p=p / p.sum())].pop()] = bag
    return ids


class TwoSources(Rows):
    """Half of the bags are of MNIST, the others of USPS; tested on as many of both, of all classes alike."""

    def __init__(self, seed: int, confounded: bool) -> None:
        rng = np.random.default_rng(seed)
        x, y, ids, asked, truth = [], [], [], [], []
        for source, (features, classes, _) in enumerate((mnist(), usps())):
            weight = np.where((classes < 5) == (source == 0), 9.0, 1.0) if confounded else np.ones(len(classes))
            weight = weight / np.bincount(classes)[classes]
            train = rng.choice(len(classes), ROWS // 2, replace=False, p=weight / weight.sum())
            others = np.setdiff1d(np.arange(len(classes)), train)
            test = np.concatenate([rng.choice(others[classes[others] == c], TESTED // 20) for c in range(10)])
            x.append(features[train])
            asked.append(features[test])
            y.append(classes[train])
            truth.append(classes[test])
            ids.append(drawn_bags(classes[train], 10, 24, rng) + source * 25)
        self.seed, self.rng, self.k = seed, rng, 10
        pca = PCA(64, random_state=0).fit(np.concatenate(x))
        self.x, self.x_test = pca.transform(np.concatenate(x)), pca.transform(np.concatenate(asked))
        self.y, self.y_test = torch.from_numpy(np.concatenate(y)).long(), np.concatenate(truth)
        self.sets = Bags.from_ids(torch.from_numpy(np.concatenate(ids)))


def sources(confounded: bool, seed: int) -> Methods:
    rows = TwoSources(seed, confounded)
    shares = rows.counts(rows.sets) / rows.sets.sizes[:, None]
    labels = Proportions(rows.sets, shares)
    methods = of_shares(rows, rows.sets, labels)
    few = Exact(rows.few(), rows.k)
    return {
        **methods,
        "anygrain, and 3 exact of a class": lambda: rows.learnt(few & labels),
        "3 exact of a class alone": lambda: rows.learnt(few),
    }


def any_of(seed: int) -> Methods:
    """Is this digit in the bag of eight? Another one is asked about in every bag, and half of the answers are yes."""
    rows = Rows(*mnist()[:2], seed)
    bags = rows.bags(8)
    inside = rows.counts(bags) > 0
    wanted = torch.from_numpy(rows.rng.random(len(bags)) < 0.5)
    odds = torch.where(wanted[:, None] == inside, 1.0, 0.0)
    target = torch.multinomial(odds, 1, generator=torch.Generator().manual_seed(seed))[:, 0]
    present = inside[torch.arange(len(bags)), target].long()

    def of_highest(logits: Tensor, chosen: Tensor) -> Tensor:
        p = highest(logits.softmax(dim=1), bags)[chosen, target[chosen]].clamp(1e-6, 1 - 1e-6)
        return torch.nn.functional.binary_cross_entropy(p, present[chosen].float())

    def on_members(logits: Tensor, chosen: Tensor) -> Tensor:
        p = logits.softmax(dim=1)[bags.members, target[bags.index]].clamp(1e-6, 1 - 1e-6)
        kept = torch.isin(bags.index, chosen)
        return torch.nn.functional.binary_cross_entropy(p[kept], present[bags.index][kept].float())

    return {
        "anygrain": lambda: rows.learnt(AnyOf(bags, present, target, rows.k)),
        "highest probability": lambda: rows.baseline(of_highest, len(bags)),
        "copied": lambda: rows.baseline(on_members, len(bags)),
        "full supervision": lambda: rows.learnt(Exact(rows.y, rows.k)),
    }


def majority(seed: int) -> Methods:
    rows = Rows(*mnist()[:2], seed)
    bags = rows.bags(5)
    labels = Majority.simulate(rows.y, rows.k, generator=torch.Generator().manual_seed(seed), bags=bags)
    said = classes_of(labels.winner, rows.k)
    return {
        "anygrain": lambda: rows.learnt(labels),
        "mean probabilities": lambda: rows.baseline(of_means(bags, said), len(bags)),
        "copied": lambda: rows.baseline(copied(bags, said), len(bags)),
        "full supervision": lambda: rows.learnt(Exact(rows.y, rows.k)),
    }


def highest_digit(seed: int) -> Methods:
    rows = Rows(*mnist()[:2], seed)
    bags = rows.bags(4)
    labels = SetLabel.simulate(rows.y, rows.k, generator=torch.Generator().manual_seed(seed), bags=bags, rule="highest")
    label = torch.zeros(len(bags), dtype=torch.long).scatter_reduce(0, bags.index, rows.y[bags.members], "amax")

    def of_highest(logits: Tensor, chosen: Tensor) -> Tensor:
        return nll_loss(highest(logits, bags)[chosen].log_softmax(dim=1), label[chosen])

    return {
        "anygrain": lambda: rows.learnt(labels),
        "highest score of every class": lambda: rows.baseline(of_highest, len(bags)),
        "copied": lambda: rows.baseline(copied(bags, classes_of(label, rows.k)), len(bags)),
        "full supervision": lambda: rows.learnt(Exact(rows.y, rows.k)),
    }


def odd_or_even(seed: int) -> Methods:
    """Are most of eight digits even? And three digits of every class."""
    rows = Rows(*mnist()[:2], seed)
    bags, few = rows.bags(8), rows.few()
    parity = torch.stack([torch.arange(10) % 2 == 0, torch.arange(10) % 2 == 1]).double()
    labels = SetLabel.simulate(
        rows.y, rows.k, generator=torch.Generator().manual_seed(seed), bags=bags, taxonomy=parity
    )
    said = classes_of(labels.label, 2)

    def with_few(logits: Tensor, chosen: Tensor) -> Tensor:
        p = pooled(logits, bags) @ parity.T.float()
        known = few >= 0
        sets = -(said[chosen] * p[chosen].clamp(min=1e-9).log()).sum(dim=1).mean()
        return sets + nll_loss(logits[known].log_softmax(dim=1), few[known])

    return {
        "anygrain": lambda: rows.learnt(Exact(few, rows.k) & labels),
        "mean probabilities": lambda: rows.baseline(with_few, len(bags)),
        "3 exact of a class alone": lambda: rows.learnt(Exact(few, rows.k)),
        "full supervision": lambda: rows.learnt(Exact(rows.y, rows.k)),
    }


def tags(seed: int) -> Methods:
    """Is the tag on in any of five pictures? For all six tags of SCENE."""
    data = np.load(folder("ml_scene") / "ml_scene.npz")
    x, table = data["X"].astype(np.float32), np.zeros(data["Y_shape"], dtype=np.int64)
    table[np.repeat(np.arange(len(x)), np.diff(data["Y_indptr"])), data["Y_indices"]] = 1
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(x))
    train, test = order[:ROWS], order[ROWS:]
    y, truth = torch.from_numpy(table[train]), table[test]
    n_tags = y.shape[1]
    bags = Bags.from_ids(torch.from_numpy(rng.permutation(np.arange(len(train)) // 5)))
    present = highest(y.float(), bags).long()
    nothing = Tags(torch.full_like(y, -1))
    of_row = torch.empty(len(train), dtype=torch.long)
    of_row[bags.members] = bags.index
    of_tags = Bags.from_ids((of_row[:, None] * n_tags + torch.arange(n_tags)).flatten())
    asked = AnyOf(of_tags, present.flatten(), 1, 2, rows=nothing.rows, n_rows=nothing.n_rows)

    def scores(p: np.ndarray) -> dict[str, float]:
        chosen = np.where(truth == 1, p, 1 - p).clip(1e-9)
        return {
            "mean average precision": 100 * float(average_precision_score(truth, p, average="macro")),
            "log loss": float(-np.log(chosen).mean()),
        }

    def learnt(labels: Any) -> dict[str, float]:
        return scores(Learner(seed=seed).fit(x[train], labels).predict_proba(x[test]))

    def per_tag() -> dict[str, float]:
        models = (Learner(seed=seed).fit(x[train], AnyOf(bags, of_tag, 1, 2)) for of_tag in present.T)
        return scores(np.stack([model.predict_proba(x[test])[:, 1] for model in models], axis=1))

    def baseline(loss: Loss) -> dict[str, float]:
        logits = network(x[train], x[test], loss, len(bags), n_tags, seed)
        return scores(1 / (1 + np.exp(-logits)))

    entropy = torch.nn.functional.binary_cross_entropy_with_logits

    def on_members(logits: Tensor, chosen: Tensor) -> Tensor:
        kept = torch.isin(bags.index, chosen)
        return entropy(logits[bags.members][kept], present[bags.index][kept].float())

    return {
        "anygrain": lambda: learnt(nothing & asked),
        "anygrain, a model per tag": per_tag,
        "highest probability": lambda: baseline(lambda z, b: entropy(highest(z, bags)[b], present[b].float())),
        "copied": lambda: baseline(on_members),
        "full supervision": lambda: learnt(Tags(y)),
    }


def means(alike: bool, seed: int) -> Methods:
    """Mean rings of eight shells, drawn at random or alike in length."""
    import pyarrow.parquet as pq

    held = pq.read_table(folder("abalone") / "abalone.parquet").to_pandas()
    sex = np.stack([(held.sex == s).to_numpy(float) for s in "MFI"], axis=1)
    x = np.concatenate([sex, held.drop(columns=["sex", "rings"]).to_numpy(float)], axis=1)
    y = held.rings.to_numpy(float)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    train, test = order[:ROWS], order[ROWS:]
    length = held.length.to_numpy(float)[train]
    place = np.argsort(length + 0.5 * length.std() * rng.standard_normal(ROWS)) if alike else rng.permutation(ROWS)
    ids = np.empty(ROWS, dtype=np.int64)
    ids[place] = np.arange(ROWS) // 8
    bags = Bags.from_ids(torch.from_numpy(ids))
    of_bags = np.bincount(ids, y[train]) / 8
    mean_rows = np.stack([np.bincount(ids, column) / 8 for column in x[train].T], axis=1)
    labels = AggregateValue(bags, torch.from_numpy(of_bags))
    grid = np.logspace(-4, 3, 15)

    def scores(model: Any) -> dict[str, float]:
        return {"R2": 100 * float(r2_score(y[test], model.predict(x[test])))}

    return {
        "anygrain": lambda: scores(Learner(seed=seed).fit(x[train], labels)),
        "AggregateRegressor": lambda: scores(AggregateRegressor(seed=seed).fit(x[train], labels)),
        "ridge on mean rows": lambda: scores(RidgeCV(grid).fit(mean_rows, of_bags)),
        "copied, ridge": lambda: scores(RidgeCV(grid).fit(x[train], of_bags[ids])),
        "full supervision": lambda: scores(Learner(seed=seed).fit(x[train], Value(y[train]))),
    }


def pairs(seed: int) -> Methods:
    """Every row in one pair, of the same digit or not (half and half), and three digits of every class."""
    rows = Rows(*mnist()[:2], seed)
    few = rows.few()
    order = torch.from_numpy(rows.rng.permutation(ROWS))
    sorted_pairs = order[torch.argsort(rows.y[order], stable=True)].view(-1, 2)
    chosen = sorted_pairs[torch.from_numpy(rows.rng.permutation(len(sorted_pairs)))]
    first, rest = chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :].flatten()
    rest = rest[torch.from_numpy(rows.rng.permutation(len(rest)))].view(-1, 2)
    i, j = torch.cat([first, rest]).T
    same = rows.y[i] == rows.y[j]
    labels = Pairs(i, j, same, ROWS, rows.k)

    def siamese() -> dict[str, float]:
        def loss(embedding: Tensor, chosen: Tensor) -> Tensor:
            u = torch.nn.functional.normalize(embedding, dim=1)
            gap = (u[i[chosen]] - u[j[chosen]]).norm(dim=1)
            return torch.where(same[chosen], gap, (1 - gap).clamp(min=0)).square().mean()

        both = network(rows.x, np.concatenate([rows.x, rows.x_test]), loss, len(same), 16, seed)
        both = both / np.linalg.norm(both, axis=1, keepdims=True)
        known = (few >= 0).numpy()
        model = LogisticRegression(C=10, max_iter=1000).fit(both[:ROWS][known], few.numpy()[known])
        return rows.scores(model.predict_proba(both[ROWS:]))

    return {
        "anygrain": lambda: rows.learnt(Exact(few, rows.k) & labels),
        "siamese network": siamese,
        "3 exact of a class alone": lambda: rows.learnt(Exact(few, rows.k)),
        "full supervision": lambda: rows.learnt(Exact(rows.y, rows.k)),
    }


def end_to_end(seed: int) -> Methods:
    """Counts of twelve pictures, through a convolutional network."""
    from anygrain.encoders import Convolutional

    rows = Rows(usps()[0], usps()[1], seed)
    pictures, asked = usps()[2][rows.train].astype(np.uint8), usps()[2][rows.test].astype(np.uint8)
    bags = rows.bags(12)
    shares = rows.counts(bags).float() / bags.sizes[:, None]

    def learnt(labels: Any) -> dict[str, float]:
        model = Learner(Convolutional(), seed=seed).fit(pictures, labels)
        return rows.scores(model.predict_proba(asked))

    of_row = torch.empty(ROWS, dtype=torch.long)
    of_row[bags.members] = bags.index
    return {
        "anygrain": lambda: learnt(Counts(bags, rows.counts(bags))),
        "copied": lambda: learnt(Soft(shares[of_row])),
        "full supervision": lambda: learnt(Exact(rows.y, rows.k)),
    }


TASKS: dict[str, tuple[str, Callable[[int], Methods]]] = {
    "counts": ("counts, bags of 12 digits", counts),
    "proportions": ("shares, bags of 40 digits", proportions),
    "texts": ("shares, bags of 24 posts", texts),
    "skewed": ("shares that differ, bags of 24 digits", skewed),
    "sources": ("shares, bags of 24 of one of two sources", functools.partial(sources, False)),
    "confounded": ("the same, sources of other classes", functools.partial(sources, True)),
    "any-of": ("any-of of one class of ten, bags of 8 digits", any_of),
    "tags": ("any-of of six tags, bags of 5 pictures", tags),
    "majority": ("majority, bags of 5 digits", majority),
    "highest": ("highest of 4 digits", highest_digit),
    "parity": ("most of 8 digits odd or even, 3 exact of a class", odd_or_even),
    "means": ("mean number of 8 shells", functools.partial(means, False)),
    "means-alike": ("mean number of 8 shells of like length", functools.partial(means, True)),
    "pairs": ("pairs of digits, 3 exact of a class", pairs),
    "end to end": ("counts, bags of 12 digits, trained encoder", end_to_end),
}


# -- how many there are: what any-of leaves open -----------------------------------------------------------------------


def rates(rate: float, seed: int) -> Methods:
    x, y, z, truth = digit_bags(rate, seed)
    bags = Bags.from_ids(torch.arange(len(x)) // 50)
    count = torch.from_numpy(y.reshape(-1, 50).sum(axis=1))
    present = (count > 0).long()
    alone = AnyOf(bags, present, 1, 2)
    told = present == 1
    mean = float(count[told].double().mean()) / 50
    low, high = (torch.where(told, int(binom.ppf(q, 50, rate)), 0) for q in (0.05, 0.95))
    exact = torch.where(told[:, None], torch.stack([50 - count, count], dim=1), -1)

    def scores(p: np.ndarray) -> dict[str, float]:
        chosen = np.where(truth == 1, p, 1 - p).clip(1e-9)
        return {
            "log loss": float(-np.log(chosen).mean()),
            "accuracy": 100 * float(((p > 0.5) == truth).mean()),
            "mean probability": float(p.mean()),
            "share": float(truth.mean()),
        }

    def learnt(labels: Labels) -> dict[str, float]:
        model = Learner(seed=seed).fit(x, labels)
        return {**scores(model.predict_proba(z)[:, 1]), "trusted": float(model.questions_[0].trusted)}

    def about(value: float) -> Labels:
        return alone & Proportions.about(bags, {1: value}, 2, where=told)

    def oracle() -> dict[str, float]:
        scale = x.std(axis=0)
        return scores(LogisticRegression(max_iter=1000).fit(x / scale, y).predict_proba(z / scale)[:, 1])

    return {
        "any-of": lambda: learnt(alone),
        "and about the rate": lambda: learnt(about(mean)),
        "and about half of it": lambda: learnt(about(mean / 2)),
        "and a range of counts": lambda: learnt(alone & Between(bags, low, torch.where(told, high, 50), 1, 2)),
        "and the counts": lambda: learnt(alone & Counts(bags, exact)),
        "all instances labelled": oracle,
    }


# -- running -----------------------------------------------------------------------------------------------------------


def told(values: list[float], digits: int) -> str:
    """Mean and interval; of fewer than three seeds the mean and their number."""
    return shown(values, digits) if len(values) > 2 else f"{np.mean(values):.{digits}f} ({len(values)})"


def table(cache: Cache, keys: list[tuple[str, str]], columns: list[str]) -> list[str]:
    """A row per (task, title) and method; numbers are means over seeds."""
    lines = [f"| labels | method | {' | '.join(columns)} | seconds |", "|" + "---|" * (len(columns) + 3)]
    for task, title in keys:
        found = {key: value for key, value in cache.found.items() if key[0] == task}
        methods = sorted(dict.fromkeys(key[2] for key in found), key=lambda name: (name in CEILINGS, name not in OURS))
        for method in methods:
            of_seeds = [value for key, value in found.items() if key[2] == method]
            cells = []
            for column in columns:
                names = {"accuracy": ("accuracy", "mean average precision", "R2")}.get(column, (column,))
                values = [v[n] for v in of_seeds for n in names if n in v]
                digits = 3 if column in ("log loss", "mean probability", "share") else 1
                cells.append(told(values, digits) if values else "")
            seconds = np.mean([v["seconds"] for v in of_seeds])
            lines.append(f"| {title} | {method} | {' | '.join(cells)} | {seconds:.1f} |")
            title = ""
    return lines


def write(cache: Cache, out: Path) -> None:
    today = datetime.date.today()
    lines = [
        "# Labels of sets, answers for instances",
        "",
        f"{today} · {platform.machine()}, {os.cpu_count()} cores shared with other work, one thread · torch "
        f"{torch.__version__} · `python benchmarks/set_kinds.py --cache CACHE`",
        "",
        f"{ROWS} training rows, every row in one set; ± is an interval of 95 % over seeds; seconds of processor time.",
        "",
        *TEXT_BEFORE,
        "",
        *table(cache, [(name, title) for name, (title, _) in TASKS.items()], ["accuracy", "log loss"]),
        "",
        *TEXT_AFTER,
        "",
        "## How many there are",
        "",
        *TEXT_RATES,
        "",
        *table(
            cache,
            [(f"rate {rate}", f"{100 * rate:.0f} % positives") for rate in (0.1, 0.2)],
            ["log loss", "accuracy", "mean probability", "share"],
        ),
    ]
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


OURS, CEILINGS = ("anygrain", "any-of"), ("full supervision", "all instances labelled")
TEXT_BEFORE = (
    "Accuracy on test instances in per cent; of tags the mean average precision, of numbers R2, both in per cent.",
    "A number without ± is of (so many) seeds. `full supervision` knows every instance of the same rows.",
)
TEXT_AFTER = (
    "- **Shares and counts.** Bags of 12 come to what full supervision comes to, as do larger ones whose shares",
    "  differ; copying shares to instances fails where bags are alike. Bags of 40 alike leave little to go by:",
    "  the likelihood is far above the cross-entropy of mean probabilities there. On posts of six subjects in",
    "  bags of 24 it depends on the draw which of them is ahead, and all are far from full supervision.",
    "- **Sources.** Bags of one of two sources (MNIST, USPS) cost nothing beside full supervision, also where",
    "  nine tenths of a source are of five digits and test rows are of all alike: shares of single bags still",
    "  differ within a source. What is lost there, full supervision loses as well: sources whose classes differ",
    "  teach their difference.",
    "- **Any-of.** One yes or no per bag about one of ten classes is little, and far more than what the highest",
    "  probability or copies make of it. Tags are ranked above the highest probability of a network, by one model",
    "  of all, with a log loss like that of full supervision; a model per tag is worse.",
    "- **Set labels.** The highest digit of four says little of low digits, and alone does not settle them:",
    "  probabilities are too sure. Odd and even beside three exact labels of a class raise",
    "  accuracy, not the log loss.",
    "- **Majority.** The likelihood of the winner of five is far above the cross-entropy of mean probabilities,",
    "  and that above copies. **Pairs**, half of them similar, beside three exact labels of a class come near full",
    "  supervision; a siamese network on as many does not.",
    "- **Means.** All models of the means of bags are alike, and far above means that are copied.",
)
TEXT_RATES = (
    "Any-of alone leaves open how many instances make a positive bag: of 20 % positives it believes in half, and",
    "`trusted` is False from 10 % on. A rate (`Proportions.about`), a range (`Between`) or counts close most of",
    "the way to all instances labelled; a rate that is wrong by half helps at 20 % and hurts at 10 %. Bags of 50",
    "digits, 200 for training, half of them positive.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", action="store_true", help="any-of and how many there are, in place of the tasks")
    parser.add_argument("--tables", action="store_true", help="only write the tables")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "SET_KINDS_RESULTS.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cache = Cache(given.cache / "set_kinds.jsonl")
    if given.rates:
        work = {f"rate {rate}": functools.partial(rates, rate) for rate in (0.1, 0.2)}
    else:
        work = {name: TASKS[name][1] for name in given.tasks.split(",")}
    for seed, (name, task) in itertools.product(range(given.seeds), work.items()):
        if given.tables:
            break
        for method, find in task(seed).items():
            if (name, seed, method) in cache.found:
                continue
            began = time.process_time()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = find()
            found["seconds"] = time.process_time() - began
            cache.keep((name, seed, method), found)
            print(name, seed, method, {k: round(v, 3) for k, v in found.items()}, flush=True)
    write(cache, given.out)


if __name__ == "__main__":
    main()
