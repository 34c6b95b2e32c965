"""The default recipe on frozen features: does evidence help, and by how much?

    ANYGRAIN_DATA=... python benchmarks/recipe.py --cache FOLDER [--data usps,clinc150] [--seeds 5] [--peers]

For every data set, kind of evidence and seed: test accuracy of the recipe, of the head on the exact labels alone, of
a plain gradient on the likelihood (60 Adam steps), of full supervision and, with --peers, of scikit-learn's
LabelSpreading and SelfTrainingClassifier on the same features. Every finished fit is a line in FOLDER/results.jsonl,
so a stopped run goes on where it was. Text features are sentence embeddings of a model given by --encoder (folder or
name of all-MiniLM-L6-v2; needs anygrain[text]); images are 800 random Fourier features of PCA scores. The table goes
to RECIPE_RESULTS.md.
"""

from __future__ import annotations

import argparse
import datetime
import io
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from recipe_kinds import KINDS, Truth
from torch import Tensor

from anygrain.labels import AnyOf, Bags, Candidates, Coarse, Counts, Exact, Labels, Noisy, Pairs, Positive
from anygrain.learn.graph import Graph, neighbour_graph
from anygrain.learn.head import Linear
from anygrain.learn.recipe import Recipe, Settings

ROWS = 6000
PER_CLASS = (1, 3, 10)
BESIDE_ROWS, BESIDE_PER_CLASS = 2000, (3, 10)  # of evidence about sets, pairs and samples

#: targets: accuracy, and gain over exact only, by (data, kind, exact labels per class)
TARGETS: dict[tuple[str, str, int], tuple[float, float]] = {
    ("clinc150", "coarse", 1): (0.840, 0.180),
    ("clinc150", "coarse", 3): (0.895, 0.065),
    ("clinc150", "coarse", 10): (0.915, 0.010),
    ("clinc150", "unlabelled", 1): (0.760, 0.100),
    ("clinc150", "unlabelled", 3): (0.865, 0.045),
    ("clinc150", "unlabelled", 10): (0.910, 0.000),
    ("banking77", "coarse", 1): (0.680, 0.150),
    ("banking77", "coarse", 3): (0.810, 0.080),
    ("banking77", "coarse", 10): (0.875, 0.030),
    ("banking77", "unlabelled", 1): (0.590, 0.095),
    ("banking77", "unlabelled", 3): (0.755, 0.040),
    ("banking77", "unlabelled", 10): (0.860, 0.010),
    ("trec", "coarse", 1): (0.350, 0.160),
    ("trec", "coarse", 3): (0.490, 0.180),
    ("trec", "coarse", 10): (0.600, 0.060),
    ("trec", "unlabelled", 1): (0.189, 0.000),
    ("trec", "unlabelled", 3): (0.324, 0.000),
    ("trec", "unlabelled", 10): (0.535, 0.000),
    ("usps", "coarse", 1): (0.765, 0.210),
    ("usps", "coarse", 3): (0.825, 0.135),
    ("usps", "coarse", 10): (0.875, 0.070),
    ("usps", "unlabelled", 1): (0.715, 0.165),
    ("usps", "unlabelled", 3): (0.785, 0.090),
    ("usps", "unlabelled", 10): (0.855, 0.045),
}

#: other kinds, all rows carry the kind: target by (data, kind)
OTHER_TARGETS: dict[tuple[str, str], float] = {
    ("clinc150", "candidates .5"): 0.895,
    ("clinc150", "noisy .2"): 0.925,
    ("clinc150", "noisy .5"): 0.905,
    ("clinc150", "counts 8"): 0.940,
    ("clinc150", "counts 32"): 0.935,
    ("clinc150", "counts 128"): 0.935,
    ("clinc150", "counts 128 skew"): 0.925,
    ("clinc150", "pairs"): 0.860,
    ("clinc150", "any-of"): 0.975,
    ("usps", "candidates .5"): 0.920,
    ("usps", "candidates .9"): 0.900,
    ("usps", "noisy .2"): 0.920,
    ("usps", "noisy .5"): 0.905,
    ("usps", "counts 8"): 0.930,
    ("usps", "counts 32"): 0.925,
    ("usps", "counts 128"): 0.900,
    ("usps", "counts 128 skew"): 0.910,
    ("usps", "pairs"): 0.920,
    ("usps", "any-of"): 0.975,
    ("usps", "positive 100"): 0.860,
    ("usps", "positive 500"): 0.925,
}

#: evidence about sets, pairs and samples beside exact labels, by data; the exact law of the number of distinct ones of
#: ten classes takes seconds per E-step, that of 50 is approximated
BESIDE: dict[str, tuple[str, ...]] = {
    "usps": tuple(kind for kind in KINDS if not kind.startswith("distinct")),
    "trec": ("unlabelled rows", "at least, bags of 12", "majority coarse, bags of 8", "distinct, bags of 8"),
}

#: rows where nothing held out can tell whether unlabelled rows help
UNDECIDABLE = {("trec", "unlabelled")}


# -- data --------------------------------------------------------------------------------------------------------------


def folder(name: str) -> Path:
    root = os.environ.get("ANYGRAIN_DATA")
    if not root:
        sys.exit("ANYGRAIN_DATA is not set: the folder with clinc150, banking77, trec_questions, digits_domains, ...")
    return Path(root) / name


def codes(train: Any, test: Any) -> tuple[np.ndarray, np.ndarray]:
    names = {v: i for i, v in enumerate(sorted(set(train) | set(test)))}
    return np.array([names[v] for v in train]), np.array([names[v] for v in test])


def parents_of(fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    parents = np.zeros(fine.max() + 1, dtype=int)
    parents[fine] = coarse
    return parents


def fourier(train: np.ndarray, test: np.ndarray, n: int = 800) -> tuple[np.ndarray, np.ndarray]:
    """Random Fourier features of a Gaussian kernel of half the median distance."""
    generator = np.random.default_rng(0)
    some = train[generator.permutation(len(train))[:1000]]
    distance = np.sqrt(((some[:, None] - some[None]) ** 2).sum(axis=-1))
    projection = generator.standard_normal((train.shape[1], n)) / (0.5 * np.median(distance[distance > 0]))
    phase = generator.uniform(0, 2 * np.pi, n)
    out = [(np.sqrt(2 / n) * np.cos(x @ projection + phase)).astype(np.float32) for x in (train, test)]
    return out[0], out[1]


def image_features(train: np.ndarray, test: np.ndarray, components: int) -> dict[str, np.ndarray]:
    from sklearn.decomposition import PCA

    pca = PCA(components, random_state=0).fit(train)
    near, near_test = pca.transform(train), pca.transform(test)
    x, x_test = fourier(near, near_test)
    return {"x": x, "near": near.astype(np.float32), "x_test": x_test}


def text_features(train: list[str], test: list[str], encoder: str, cache: Path) -> dict[str, np.ndarray]:
    from anygrain.encoders import Pretrained

    both = Pretrained(encoder, cache=str(cache))(train + test).numpy()
    return {"x": both[: len(train)], "near": both[: len(train)], "x_test": both[len(train) :]}


def load_clinc150(encoder: str, cache: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(folder("clinc150") / "clinc150.parquet").to_pandas()
    table = table[table.fine != "oos"]
    train, test = table[table.split == "train"], table[table.split == "test"]
    y, y_test = codes(train.fine, test.fine)
    coarse, _ = codes(train.coarse, test.coarse)
    return {
        **text_features(list(train.text), list(test.text), encoder, cache),
        "y": y,
        "y_test": y_test,
        "parents": parents_of(y, coarse),
    }


def load_banking77(encoder: str, cache: Path) -> dict[str, np.ndarray]:
    """Coarse groups are 11 clusters of the class means on a third of the rows, which is then left out."""
    from sklearn.cluster import KMeans

    table = pq.read_table(folder("banking77") / "banking77.parquet").to_pandas()
    train, test = table[table.split == "train"], table[table.split == "test"]
    y, y_test = codes(train.label.astype(str), test.label.astype(str))
    found = text_features(list(train.text), list(test.text), encoder, cache)
    order = np.random.default_rng(0).permutation(len(train))
    third, rest = order[: len(train) // 3], order[len(train) // 3 :]
    means = np.stack([found["x"][third][y[third] == k].mean(axis=0) for k in range(77)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    parents = KMeans(11, n_init=20, random_state=0).fit_predict(means)
    return {
        "x": found["x"][rest],
        "near": found["x"][rest],
        "x_test": found["x_test"],
        "y": y[rest],
        "y_test": y_test,
        "parents": parents,
    }


def load_trec(encoder: str, cache: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(folder("trec_questions") / "trec.parquet").to_pandas()
    train, test = table[table.split == "train"], table[table.split == "test"]
    y, y_test = codes(train.fine, test.fine)
    coarse, _ = codes(train.coarse, test.coarse)
    found = text_features(list(train.text), list(test.text), encoder, cache)
    return {**found, "y": y, "y_test": y_test, "parents": parents_of(y, coarse)}


def load_usps(encoder: str, cache: Path) -> dict[str, np.ndarray]:
    data = np.load(folder("digits_domains") / "usps.npz")
    flat = [data[name].reshape(-1, 256) / 255.0 for name in ("X_train", "X_test")]
    found = image_features(flat[0], flat[1], 80)
    y, y_test = data["y_train"].astype(int), data["y_test"].astype(int)
    return {**found, "y": y, "y_test": y_test, "parents": np.arange(10) % 2}


def pixels(images: Any, size: int) -> np.ndarray:
    from PIL import Image

    read = [Image.open(io.BytesIO(image)).convert("RGB").resize((size, size)) for image in images]
    return np.stack([np.asarray(image, dtype=np.float32).ravel() / 255 for image in read])


def load_grocery_store(encoder: str, cache: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(folder("grocery_store") / "grocery_store.parquet").to_pandas()
    train, test = table[table.split != "test"], table[table.split == "test"]
    y, y_test = codes(train.fine, test.fine)
    coarse, _ = codes(train.coarse, test.coarse)
    found = image_features(pixels(train.image, 24), pixels(test.image, 24), 100)
    return {**found, "y": y, "y_test": y_test, "parents": parents_of(y, coarse)}


def load_omniglot_small(encoder: str, cache: Path) -> dict[str, np.ndarray]:
    data = np.load(folder("omniglot_small") / "omniglot_small.npz")
    images = torch.tensor(data["X"].astype(np.float32) / 255)[:, None]
    flat = torch.nn.functional.avg_pool2d(images, 3, 2, 1).flatten(1).numpy()
    test, y = data["drawer"] > 15, data["fine"].astype(int)
    found = image_features(flat[~test], flat[test], 100)
    return {**found, "y": y[~test], "y_test": y[test], "parents": parents_of(y, data["coarse"].astype(int))}


def load_cifar10_human(encoder: str, cache: Path) -> dict[str, np.ndarray]:
    root = folder("cifar10_human")
    train = pq.read_table(root / "train.parquet", columns=["image", "label", "coarse"]).slice(0, 12000).to_pandas()
    test = pq.read_table(root / "test.parquet", columns=["image", "label"]).slice(0, 4000).to_pandas()
    found = image_features(pixels(train.image, 16), pixels(test.image, 16), 100)
    y, y_test = train.label.to_numpy().astype(int), test.label.to_numpy().astype(int)
    return {**found, "y": y, "y_test": y_test, "parents": parents_of(y, train.coarse.to_numpy().astype(int))}


def load_newsgroups20(encoder: str, cache: Path) -> dict[str, np.ndarray]:
    import scipy.sparse
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.preprocessing import normalize

    data = np.load(folder("newsgroups20_bow") / "newsgroups20_bow.npz")
    values = np.ones(len(data["X_indices"]), dtype=np.float32)
    words = scipy.sparse.csr_matrix((values, data["X_indices"], data["X_indptr"]), shape=tuple(data["X_shape"]))
    y = data["fine"].astype(int)
    words, y = TfidfTransformer().fit_transform(words[y >= 0]), y[y >= 0]
    order = np.random.default_rng(0).permutation(len(y))
    test, train = order[:5000], order[5000:]
    svd = TruncatedSVD(200, random_state=0).fit(words[train])
    x, x_test = (normalize(svd.transform(words[rows])).astype(np.float32) for rows in (train, test))
    parents = data["fine_to_coarse"].astype(int)
    return {"x": x, "near": x, "x_test": x_test, "y": y[train], "y_test": y[test], "parents": parents}


LOADERS: dict[str, Callable[[str, Path], dict[str, np.ndarray]]] = {
    "usps": load_usps,
    "trec": load_trec,
    "clinc150": load_clinc150,
    "banking77": load_banking77,
    "newsgroups20": load_newsgroups20,
    "cifar10_human": load_cifar10_human,
    "grocery_store": load_grocery_store,
    "omniglot_small": load_omniglot_small,
}


class Task:
    """Rows of one data set drawn with one seed; features of unit mean square."""

    def __init__(self, name: str, data: dict[str, np.ndarray], seed: int, n_rows: int = ROWS):
        self.name, self.seed, self.n_rows = name, seed, n_rows
        self.generator = np.random.default_rng(seed)
        rows = self.generator.permutation(len(data["y"]))[:n_rows]
        scale = float(np.sqrt((data["x"] ** 2).mean()))
        self.x, self.x_test = torch.tensor(data["x"][rows] / scale), torch.tensor(data["x_test"] / scale)
        self.near = torch.tensor(data["near"][rows])
        self.y, self.y_test = torch.tensor(data["y"][rows]).long(), torch.tensor(data["y_test"]).long()
        self.parents = torch.tensor(data["parents"]).long()
        self.k = len(self.parents)
        self._graph: Graph | None = None

    @property
    def graph(self) -> Graph:
        if self._graph is None:
            self._graph = neighbour_graph(self.near, 10)
        return self._graph

    def accuracy(self, head: Linear) -> float:
        with torch.no_grad():
            return float((head.logits(self.x_test).argmax(dim=1) == self.y_test).float().mean())

    def exact(self, per_class: int, y: Tensor | None = None) -> Tensor:
        """Classes (N,) of `per_class` random rows of each class, or of each value of y (N,); -1 elsewhere."""
        y = self.y if y is None else y
        generator = np.random.default_rng([self.seed, per_class])
        order = torch.tensor(generator.permutation(len(y)))
        ranked = order[torch.argsort(y[order], stable=True)]
        count = torch.bincount(y, minlength=self.k)
        rank = torch.arange(len(ranked)) - (count.cumsum(0) - count)[y[ranked]]
        kept = torch.zeros(len(y), dtype=torch.bool)
        kept[ranked[rank < per_class]] = True
        return torch.where(kept, y, -1)


# -- what is compared --------------------------------------------------------------------------------------------------


def few_exact(task: Task, kind: str, per_class: int) -> Labels:
    exact = Exact(task.exact(per_class), task.k)
    if kind == "unlabelled":
        return exact
    members = torch.nn.functional.one_hot(task.parents).T.double()
    return exact & Coarse(task.parents[task.y], members)


def recipe_for(task: Task, x: Tensor, labels: Labels, graph: Graph | None) -> Recipe:
    k = labels.n_classes
    return Recipe(x, labels, lambda: Linear(x.shape[1], k), settings=Settings(), seed=task.seed, graph=graph)


def full_supervision(task: Task) -> dict[str, Any]:
    return {"accuracy": task.accuracy(recipe_for(task, task.x, Exact(task.y, task.k), None).run().head)}  # type: ignore[arg-type]


def ours(task: Task, kind: str, per_class: int) -> dict[str, Any]:
    labels = few_exact(task, kind, per_class)
    recipe = recipe_for(task, task.x, labels, task.graph)
    alone, _ = recipe.log_exact_only(recipe.evidence, recipe.anchors)
    begun = time.process_time()
    found = recipe.run()
    seconds = time.process_time() - begun
    with torch.no_grad():
        log_probs = (found.temperature * found.head.logits(task.x_test)).log_softmax(dim=1)
    return {
        "accuracy": task.accuracy(found.head),  # type: ignore[arg-type]
        "exact_only": task.accuracy(alone),  # type: ignore[arg-type]
        "chosen": found.chosen["chosen"],
        "graph_weight": found.chosen.get("graph_weight"),
        "log_loss": float(-log_probs[torch.arange(len(task.y_test)), task.y_test].mean()),
        "calibration_error": calibration_error(log_probs, task.y_test),
        "seconds": seconds,
    }


def calibration_error(log_probs: Tensor, y: Tensor, bins: int = 15) -> float:
    """Expected calibration error of the top class, equal-width bins."""
    certainty, guess = log_probs.exp().max(dim=1)
    gap = (guess == y).double() - certainty.double()
    place = (certainty * bins).long().clamp(max=bins - 1)
    return float(torch.zeros(bins, dtype=torch.float64).index_add(0, place, gap).abs().sum() / len(y))


def plain_gradient(task: Task, labels: Labels) -> Linear:
    """60 full-batch Adam steps on the likelihood of the evidence."""
    torch.manual_seed(task.seed)
    head = Linear(task.x.shape[1], labels.n_classes)
    torch.nn.init.normal_(head.weight, std=0.01)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(60):
        log_probs = head(task.x)
        loss = -(labels.posterior(log_probs.detach()) * log_probs).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head


def sklearn_peers(task: Task, per_class: int) -> dict[str, Any]:
    """Exact labels and unlabelled rows: scikit-learn has no coarse labels."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

    y = task.exact(per_class).numpy()
    spread = LabelSpreading(kernel="knn", n_neighbors=10, alpha=0.95, max_iter=100).fit(task.near.numpy(), y)
    transduced = float((spread.transduction_ == task.y.numpy())[y < 0].mean())
    own = SelfTrainingClassifier(LogisticRegression(C=1.0, max_iter=60), max_iter=5).fit(task.x.numpy(), y)
    return {
        "self_training": float((own.predict(task.x_test.numpy()) == task.y_test.numpy()).mean()),
        "label_spreading_train": transduced,
    }


# -- other kinds -------------------------------------------------------------------------------------------------------


def random_bags(task: Task, size: int, skew: bool = False) -> Bags:
    n = len(task.y)
    order = task.generator.permutation(n)
    if skew:  # rows of a bag come from a few classes: sort by class with noise
        order = np.argsort(task.y.numpy() / task.k + 0.3 * task.generator.standard_normal(n), kind="stable")
    ids = np.empty(n, dtype=np.int64)
    ids[order] = np.arange(n) // size
    return Bags.from_ids(torch.tensor(ids))


def other_kind(task: Task, kind: str) -> tuple[Labels, Tensor, Tensor]:
    """Labels of a kind on all rows, and the classes (train, test) they are about."""
    y, k, generator = task.y, task.k, task.generator
    n = len(y)
    name, *rest = kind.split()
    if name == "candidates":
        mask = torch.tensor(generator.random((n, k)) < float(rest[0]))
        mask[torch.arange(n), y] = True
        return Candidates(mask), y, task.y_test
    if name == "noisy":
        wrong = torch.tensor(generator.integers(1, k, n))
        flip = torch.tensor(generator.random(n) < float(rest[0]))
        return Noisy(torch.where(flip, (y + wrong) % k, y), k), y, task.y_test
    if name == "counts":
        bags = random_bags(task, int(rest[0]), skew="skew" in rest)
        counts = torch.zeros(len(bags), k, dtype=torch.long)
        counts.index_put_(
            (bags.index, y[bags.members]), torch.ones(len(bags.members), dtype=torch.long), accumulate=True
        )
        return Counts(bags, counts), y, task.y_test
    if name == "pairs":
        m = 5000
        i = torch.tensor(generator.integers(0, n, 20 * m))
        j = torch.tensor(generator.integers(0, n, 20 * m))
        order = torch.argsort(y + torch.tensor(generator.random(n)))  # rows by class, at random within
        near = torch.tensor(generator.integers(0, n - 1, m))
        a, b = order[near], order[near + 1]
        i, j = torch.cat([a, i[i != j][:m]]), torch.cat([b, j[i != j][:m]])
        pairs = Pairs(i, j, y[i] == y[j], n, k)
        return pairs & Exact(task.exact(1), k), y, task.y_test
    if name == "any-of":
        target = (task.parents[y] == 0) if task.name == "clinc150" else (y == 0)
        target_test = (task.parents[task.y_test] == 0) if task.name == "clinc150" else (task.y_test == 0)
        bags = random_bags(task, 10)
        present = torch.zeros(len(bags), dtype=torch.long).index_add(0, bags.index, target[bags.members].long()) > 0
        return AnyOf(bags, present, 1, 2), target.long(), target_test.long()
    if name == "positive":  # even against odd, so many positives labelled, the prior known
        even, even_test = (task.parents[y] == 0), (task.parents[task.y_test] == 0)
        labelled = torch.zeros(n, dtype=torch.bool)
        labelled[torch.tensor(generator.permutation(even.nonzero()[:, 0].numpy())[: int(rest[0])])] = True
        prior = float(even.double().mean())
        return Positive(labelled, prior=prior), even.long(), even_test.long()
    raise ValueError(kind)


def average_precision(score: Tensor, truth: Tensor) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(truth.numpy(), score.numpy()))


def run_other(task: Task, kind: str) -> dict[str, Any]:
    labels, y, y_test = other_kind(task, kind)
    begun = time.process_time()
    # pairs become edges of the graph as well, so the recipe builds its own
    graph = None if kind == "pairs" else task.graph
    found = recipe_for(task, task.x, labels, graph).run()
    seconds = time.process_time() - begun
    with torch.no_grad():
        log_probs = (found.temperature * found.head.logits(task.x_test)).log_softmax(dim=1)
    out = {
        "accuracy": float((log_probs.argmax(dim=1) == y_test).float().mean()),
        "posterior": float((found.posterior.argmax(dim=1) == y).float().mean()),
        "graph_weight": found.chosen.get("graph_weight"),
        "seconds": seconds,
    }
    if kind == "any-of":
        out["accuracy"] = average_precision(log_probs[:, 1], y_test)
    return out


def run_other_plain(task: Task, kind: str) -> dict[str, Any]:
    labels, _, y_test = other_kind(task, kind)
    head = plain_gradient(task, labels)
    with torch.no_grad():
        log_probs = head(task.x_test)
    if kind == "any-of":
        return {"accuracy": average_precision(log_probs[:, 1], y_test)}
    return {"accuracy": float((log_probs.argmax(dim=1) == y_test).float().mean())}


# -- evidence about sets, pairs and samples beside exact labels --------------------------------------------------------


def beside_exact(task: Task, name: str, per_class: int) -> dict[str, Any]:
    """The recipe on a few exact labels and one kind of `KINDS`, and the head on the exact labels alone."""
    kind = KINDS[name]
    if kind.two_classes:
        truth, y_test = Truth(task.parents[task.y], 2, torch.arange(2)), task.parents[task.y_test]
    else:
        truth, y_test = Truth(task.y, task.k, task.parents), task.y_test
    exact = Exact(task.exact(per_class, truth.classes), truth.n_classes)
    labels = exact & kind.draw(truth, kind.size, torch.Generator().manual_seed(task.seed))
    only = recipe_for(task, task.x, exact, task.graph)
    alone = only.head_from(only.given >= 0, only.alone, steps=60)
    begun = time.process_time()
    recipe = recipe_for(task, task.x, labels, task.graph)
    found = recipe.run()
    seconds = time.process_time() - begun
    with torch.no_grad():
        log_probs = (found.temperature * found.head.logits(task.x_test)).log_softmax(dim=1)
        guess = alone.logits(task.x_test).argmax(dim=1)
    return {
        "accuracy": float((log_probs.argmax(dim=1) == y_test).float().mean()),
        "exact_only": float((guess == y_test).float().mean()),
        "posterior": float((found.posterior.argmax(dim=1) == truth.classes).float().mean()),
        "few": recipe.few,
        "chosen": found.chosen["chosen"],
        "graph_weight": found.chosen.get("graph_weight"),
        "calibration_error": calibration_error(log_probs, y_test),
        "seconds": seconds,
    }


def beside_table(results: dict[tuple[str, str, int, int, str], dict[str, Any]]) -> str:
    """The rows of `beside_exact`, empty where none has been run."""
    lines = [
        "",
        "## Evidence about sets, pairs and samples beside exact labels (test accuracy)",
        "",
        f"{BESIDE_ROWS} rows, all of which the evidence is about. The last four kinds on USPS tell two coarse"
        " classes apart, and so do the exact labels. Gain, bound, n: as above; worst seed: the smallest gain.",
        "",
        "| data | kind | exact per class | n | exact only | recipe | gain | lower bound | worst seed | above -.01 |"
        " exact only won | posterior on the training rows | ECE | seconds |",
        "|---" * 14 + "|",
    ]
    head = len(lines)
    for name, kind, c in (
        (name, kind, c) for name, kinds in BESIDE.items() for kind in kinds for c in BESIDE_PER_CLASS
    ):
        found = [r for key, r in sorted(results.items()) if key[:3] == (name, kind, c) and key[4] == "beside"]
        if found:
            gain = [r["accuracy"] - r["exact_only"] for r in found]
            bound = lower_bound(gain)
            cells = [
                name,
                kind,
                c,
                len(found),
                spread_of([r["exact_only"] for r in found]),
                spread_of([r["accuracy"] for r in found]),
                f"{np.mean(gain):+.3f}",
                "" if len(found) < 2 else f"{bound:+.3f}",
                f"{min(gain):+.3f}",
                "" if len(found) < 2 else "yes" if bound > -0.01 else "no",
                sum(r["chosen"] == "exact only" for r in found),
                spread_of([r["posterior"] for r in found]),
                f"{np.mean([r['calibration_error'] for r in found]):.3f}",
                f"{np.mean([r['seconds'] for r in found]):.1f}",
            ]
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n" if len(lines) > head else ""


# -- running and telling -----------------------------------------------------------------------------------------------


def jobs(
    names: list[str], seeds: int, peers: bool, others: bool, pairs: bool
) -> Iterator[tuple[str, str, int, int, str]]:
    """(data, kind, exact labels per class, seed, method), ours first."""
    for seed in range(seeds):
        for name in names:
            for kind in ("coarse", "unlabelled"):
                for per_class in PER_CLASS:
                    yield name, kind, per_class, seed, "recipe"
            yield name, "full", 0, seed, "full supervision"
    if others:
        for seed in range(seeds):
            for name, kind in OTHER_TARGETS:
                if name in names and (pairs or kind != "pairs"):
                    yield name, kind, 0, seed, "other"
                    yield name, kind, 0, seed, "other plain"
    for per_class in BESIDE_PER_CLASS:
        for seed in range(seeds):
            for name in names:
                for kind in BESIDE.get(name, ()):
                    yield name, kind, per_class, seed, "beside"
    for seed in range(seeds):
        for name in names:
            for per_class in PER_CLASS:
                yield name, "coarse", per_class, seed, "plain gradient"
                if peers:
                    yield name, "unlabelled", per_class, seed, "scikit-learn"


def run_job(task: Task, kind: str, per_class: int, method: str) -> dict[str, Any]:
    if method == "recipe":
        return ours(task, kind, per_class)
    if method == "full supervision":
        return full_supervision(task)
    if method == "plain gradient":
        return {"accuracy": task.accuracy(plain_gradient(task, few_exact(task, kind, per_class)))}
    if method == "beside":
        return beside_exact(task, kind, per_class)
    if method == "scikit-learn":
        return sklearn_peers(task, per_class)
    return run_other(task, kind) if method == "other" else run_other_plain(task, kind)


def spread_of(values: list[float]) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.3f} (1)"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def lower_bound(differences: list[float]) -> float:
    """One-sided 95 % bound of the mean of paired differences, by Student's t."""
    from scipy.stats import t

    n = len(differences)
    if n < 2:
        return float("nan")
    return float(np.mean(differences) - t.ppf(0.95, n - 1) * np.std(differences, ddof=1) / np.sqrt(n))


def tables(results: dict[tuple[str, str, int, int, str], dict[str, Any]], names: list[str]) -> str:
    def values(name: str, kind: str, per_class: int, method: str, what: str) -> list[float]:
        found = [r for key, r in sorted(results.items()) if key[:3] == (name, kind, per_class) and key[4] == method]
        return [r[what] for r in found if r.get(what) is not None]

    lines = [
        "## Few exact labels (test accuracy)",
        "",
        "Gain: paired with exact only, mean and one-sided 95 % lower bound; n: seeds. LabelSpreading: accuracy on the"
        " unlabelled training rows.",
        "",
        "| data | kind | exact per class | n | full supervision | exact only | plain gradient | self-training |"
        " LabelSpreading | recipe | target | gain | lower bound | above -.01 | target gain | targets met |"
        " exact only won | ECE | seconds |",
        "|---" * 19 + "|",
    ]
    for name in names:
        for kind in ("coarse", "unlabelled"):
            for c in PER_CLASS:
                got, base = values(name, kind, c, "recipe", "accuracy"), values(name, kind, c, "recipe", "exact_only")
                if not got:
                    continue
                gain = [a - b for a, b in zip(got, base, strict=True)]
                bound = lower_bound(gain)
                target = TARGETS.get((name, kind, c))
                met = ""
                if target is not None:
                    parts = [np.mean(got) >= target[0], np.mean(gain) >= target[1]]
                    met = (
                        "yes"
                        if all(parts)
                        else " and ".join(
                            w for w, ok in zip(("accuracy missed", "gain missed"), parts, strict=True) if not ok
                        )
                    )
                safe = "yes" if bound > -0.01 else ("undecidable" if (name, kind) in UNDECIDABLE else "no")
                won = sum(
                    r["chosen"] == "exact only"
                    for key, r in results.items()
                    if key[:3] == (name, kind, c) and key[4] == "recipe"
                )
                cells = [
                    name,
                    f"{kind} + exact" if kind == "coarse" else "exact + unlabelled",
                    c,
                    len(got),
                    spread_of(values(name, "full", 0, "full supervision", "accuracy")),
                    spread_of(base),
                    spread_of(values(name, kind, c, "plain gradient", "accuracy")),
                    spread_of(values(name, kind, c, "scikit-learn", "self_training")),
                    spread_of(values(name, kind, c, "scikit-learn", "label_spreading_train")),
                    spread_of(got),
                    "" if target is None else f"{target[0]:.3f}",
                    f"{np.mean(gain):+.3f}",
                    f"{bound:+.3f}",
                    safe,
                    "" if target is None else f"{target[1]:.3f}",
                    met,
                    won,
                    f"{np.mean(values(name, kind, c, 'recipe', 'calibration_error')):.3f}",
                    f"{np.mean(values(name, kind, c, 'recipe', 'seconds')):.1f}",
                ]
                lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    other = [
        "",
        "## Other kinds (test accuracy; any-of: average precision)",
        "",
        "| data | kind | n | full supervision | plain gradient | recipe | posterior on the training rows | target |"
        " met | seconds |",
        "|---" * 10 + "|",
    ]
    for (name, kind), goal in OTHER_TARGETS.items():
        got = values(name, kind, 0, "other", "accuracy")
        if got:
            cells = [
                name,
                kind,
                len(got),
                spread_of(values(name, "full", 0, "full supervision", "accuracy"))
                if not kind.startswith(("any-of", "positive"))
                else "",
                spread_of(values(name, kind, 0, "other plain", "accuracy")),
                spread_of(got),
                spread_of(values(name, kind, 0, "other", "posterior")),
                f"{goal:.3f}",
                "yes" if np.mean(got) >= goal else "no",
                f"{np.mean(values(name, kind, 0, 'other', 'seconds')):.1f}",
            ]
            other.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines + (other if len(other) > 5 else [])) + "\n" + beside_table(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for features and finished fits")
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2", help="sentence encoder")
    parser.add_argument("--data", default=",".join(LOADERS), help="data sets, separated by commas")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--peers", action="store_true", help="also LabelSpreading and SelfTraining (slow)")
    parser.add_argument("--no-others", action="store_true", help="leave the other kinds out")
    parser.add_argument("--pairs", action="store_true", help="also 10,000 pairs (propagation over loops: slow)")
    parser.add_argument("--only", default="", help="one method: recipe, full supervision, other, beside, ...")
    parser.add_argument("--tables", action="store_true", help="run nothing, write the tables")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("RECIPE_RESULTS.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)
    args.cache.mkdir(parents=True, exist_ok=True)
    names = args.data.split(",")
    record = args.cache / "results.jsonl"
    results: dict[tuple[str, str, int, int, str], dict[str, Any]] = {}
    for line in record.read_text().splitlines() if record.exists() else []:
        entry = json.loads(line)
        results[tuple(entry["job"])] = entry["result"]  # type: ignore[index]
    data: dict[str, dict[str, np.ndarray]] = {}
    task: Task | None = None
    for job in [] if args.tables else jobs(names, args.seeds, args.peers, not args.no_others, args.pairs):
        name, kind, per_class, seed, method = job
        if job in results or (args.only and method != args.only):
            continue
        if name not in data:
            file = args.cache / f"{name}.npz"
            if not file.exists():
                np.savez(file, **LOADERS[name](args.encoder, args.cache))
            data[name] = dict(np.load(file))
        n_rows = BESIDE_ROWS if method == "beside" else ROWS
        if task is None or (task.name, task.seed, task.n_rows) != (name, seed, n_rows) or method.startswith("other"):
            task = Task(name, data[name], seed, n_rows)
        results[job] = run_job(task, kind, per_class, method)
        with record.open("a") as out:
            out.write(json.dumps({"job": job, "result": results[job]}) + "\n")
        print(*job, {k: round(v, 3) if isinstance(v, float) else v for k, v in results[job].items()}, flush=True)
    shown = [a for a in sys.argv[1:] if a != "--tables"]
    for i, word in enumerate(shown[:-1]):
        if word in ("--cache", "--encoder", "--out"):
            shown[i + 1] = word.strip("-").upper()
    head = (
        "# The default recipe, measured\n\n"
        f"{datetime.date.today()} · {platform.machine()}, {os.cpu_count()} cores shared with other work, one thread ·"
        f" torch {torch.__version__} · `python benchmarks/recipe.py {' '.join(shown)}`\n\n"
    )
    text = head + tables(results, [n for n in LOADERS if any(key[0] == n for key in results)])
    args.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
