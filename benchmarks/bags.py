"""Bags with one label each: the default model and any-of beside pooled summaries, networks and attention.

    ANYGRAIN_DATA=... python benchmarks/bags.py --cache FOLDER [--data musk1,fox] [--methods ...] [--repeats 10]

Ten-fold cross-validation over bags, the same folds for all methods of a repeat, on MUSK1, ELEPHANT, FOX, NEWSGROUPS 2,
PROTEIN, COREL (eight classes) and BIRDS (four tags). Every finished fold is a line in FOLDER/folds.jsonl with the
probabilities it gave, so a stopped run goes on where it was. With --digits: bags of 50 digits with known instance
labels (HOG, 64 principal components), whose answers are judged by instance. One thread. The tables go to
BAGS_RESULTS.md, ± is an interval of 95 % for the mean over repeats, which share their bags: it says how far folds and
seeds move a number, not how far another sample of bags would.

Baselines, written out here: `mean-lr`, `max-lr` logistic regression on the mean or the maximum; `stat-et` 300 extremely
randomised trees on mean, maximum, minimum, deviation and log size; `stat-et sharpened` with slope and offset from folds
held out inside; `or-mlp` the any-of likelihood of a network of 16 units by Adam, its decay from folds inside; `ens` the
mean log-odds of the two, with slope and offset; `abmil` torchmil's ABMIL at its defaults, Adam 1e-3, 100 epochs of
batches of 16 (needs torchmil; BIRDS 50 of 64, COREL 30 of 64).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit, logit
from scipy.stats import t as student
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler

from anygrain.data.bag_data import BagData
from anygrain.encoders.summary import summaries
from anygrain.labels import AnyOf, Bags, Proportions, Tags
from anygrain.learn import Learner

SETS = ("musk1", "elephant", "fox", "newsgroups2", "protein", "corel", "birds")
FOLDS, INSIDE = 10, 5
DECAYS = (0.003, 0.01, 0.03, 0.1)
RATES, DIGIT, DIGIT_SEEDS = (0.01, 0.05, 0.10, 0.20), 9, 3

#: accuracy, AUC, log loss to reach by any model of bags, and by one that answers for instances too
DEMANDS = {
    "musk1": ((88.9, 95.1, 0.334), (80.2, 87.0, 0.483)),
    "elephant": ((87.6, 95.9, 0.269), (84.8, 93.6, 0.417)),
    "fox": ((65.6, 69.3, 0.644), (58.6, 55.9, 0.706)),
    "newsgroups2": ((65.0, 69.5, 0.661), (62.8, 62.9, 0.679)),
    "protein": ((88.6, 82.5, 0.300), (86.1, 82.5, 0.300)),
    "corel": ((80.7, 96.5, 0.575), (65.3, 88.1, 0.988)),
    "birds": ((95.2, 98.4, 0.155), (92.4, 96.4, 0.212)),
}
#: rate: instance AUC, instance log loss, bag AUC, bag log loss of `or-mlp`, each with its standard deviation
DIGIT_DEMANDS = {
    0.01: ((99.6, 0.5), (0.0103, 0.0055), (97.3, 2.5), (0.217, 0.119)),
    0.05: ((99.6, 0.2), (0.0275, 0.0039), (98.6, 0.6), (0.167, 0.035)),
    0.10: ((99.4, 0.2), (0.1115, 0.0259), (99.7, 0.5), (0.050, 0.037)),
    0.20: ((98.3, 1.1), (0.3805, 0.0656), (100.0, 0.0), (0.036, 0.029)),
}


# -- data --------------------------------------------------------------------------------------------------------------


def folder(name: str) -> Path:
    root = os.environ.get("ANYGRAIN_DATA")
    if not root:
        sys.exit("ANYGRAIN_DATA is not set: the folder with mil_musk1, mil_fox, digits_domains, ...")
    return Path(root) / name


def read(name: str) -> tuple[BagData, np.ndarray]:
    """Bags, and their classes (M,) or tags (M, L)."""
    held = np.load(folder(f"mil_{name}") / "bags.npz", allow_pickle=True)
    return BagData.from_ids(held["X"].astype(np.float32), held["bag"]), held["y"].astype(np.int64)


def splits(y: np.ndarray, folds: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if y.ndim == 2:
        return KFold(folds, shuffle=True, random_state=seed).split(y)
    return StratifiedKFold(folds, shuffle=True, random_state=seed).split(y, y)


# -- methods: (bags, classes, bags to answer for, seed) -> probabilities (M, K) ---------------------------------------


def table(data: BagData) -> np.ndarray:
    return summaries(data).numpy()


def logistic(columns: Callable[[np.ndarray], np.ndarray]) -> Callable[..., np.ndarray]:
    def fit(data: BagData, y: np.ndarray, new: BagData, seed: int) -> np.ndarray:
        x, z = columns(table(data)), columns(table(new))
        scaler = StandardScaler().fit(x)
        model = LogisticRegression(max_iter=2000).fit(scaler.transform(x), y)
        return np.asarray(model.predict_proba(scaler.transform(z)))

    return fit


def trees(data: BagData, y: np.ndarray, new: BagData, seed: int) -> np.ndarray:
    model = ExtraTreesClassifier(300, random_state=seed).fit(table(data), y)
    return np.asarray(model.predict_proba(table(new)))


def slope_offset(score: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    model = LogisticRegression(C=1e3).fit(score[:, None], y)
    return float(model.coef_[0, 0]), float(model.intercept_[0])


def log_odds(p: np.ndarray) -> np.ndarray:
    return np.clip(logit(np.clip(p[:, 1], 1e-7, 1 - 1e-7)), -12, 12)


def two(score: np.ndarray) -> np.ndarray:
    p = expit(score)
    return np.stack([1 - p, p], axis=1)


class Once:
    """Work of several methods that is done once; whoever takes it again is charged its seconds again."""

    def __init__(self) -> None:
        self.known: dict[Any, tuple[Any, float]] = {}
        self.charged = 0.0

    def __call__(self, key: tuple[Any, ...], work: Callable[[], Any]) -> Any:
        if key in self.known:
            self.charged += self.known[key][1]
        else:
            began = time.process_time()
            found = work()
            self.known[key] = found, time.process_time() - began
        return self.known[key][0]


once = Once()


def held_out(method: Callable[..., np.ndarray], data: BagData, y: np.ndarray, seed: int) -> np.ndarray:
    def work() -> np.ndarray:
        found = np.zeros((len(y), int(y.max()) + 1))
        for inside, out in splits(y, INSIDE, seed):
            found[out] = method(data[inside], y[inside], data[out], seed)
        return found

    held: np.ndarray = once((method.__name__, tuple(data.names), y.tobytes(), seed), work)
    return held


def sharpened(data: BagData, y: np.ndarray, new: BagData, seed: int) -> np.ndarray:
    if y.max() > 1:
        return trees(data, y, new, seed)
    slope, offset = slope_offset(log_odds(held_out(trees, data, y, seed)), y)
    return two(slope * log_odds(trees(data, y, new, seed)) + offset)


class AnyOfNetworks(torch.nn.Module):
    """Networks of 16 units side by side, one per decay and fold, each of the any-of likelihood of its bags."""

    def __init__(self, n: int, columns: int, size: float, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        inner = torch.randn(1, columns, 16, generator=generator) / columns**0.5
        outer = torch.randn(1, 16, 1, generator=generator) / 4
        self.inner = torch.nn.Parameter(inner.repeat(n, 1, 1))
        self.outer = torch.nn.Parameter(outer.repeat(n, 1, 1))
        self.shift = torch.nn.Parameter(torch.zeros(n, 1, 16))
        self.bias = torch.nn.Parameter(torch.full((n, 1, 1), -float(np.log(size))))

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """Log-odds of instances, (n, N)."""
        return (torch.relu(x @ self.inner + self.shift) @ self.outer + self.bias)[..., 0]

    def hazard(self, x: torch.Tensor, bag: torch.Tensor, bags: int) -> torch.Tensor:
        """-log P(no instance) of every bag, (n, M)."""
        scores = self.scores(x)
        total = torch.zeros(len(scores), bags)
        return total.index_add(1, bag, torch.nn.functional.softplus(scores)).clamp(min=1e-6)


def or_mlp(data: BagData, y: np.ndarray, new: BagData, seed: int) -> np.ndarray:
    return two(networks(data, y, new, seed)[0])


def networks(data: BagData, y: np.ndarray, new: BagData, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-odds of new bags, those of the training bags held out, and those of the instances of new bags."""
    key = ("or_mlp", tuple(data.names), y.tobytes(), tuple(new.names), seed)
    found: tuple[np.ndarray, np.ndarray, np.ndarray] = once(key, lambda: _networks(data, y, new, seed))
    return found


def _networks(
    data: BagData, y: np.ndarray, new: BagData, seed: int, steps: int = 100, rate: float = 0.01
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = data.features
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale < 1e-9] = np.inf
    x, z = (torch.from_numpy((d.features - mean) / scale).float() for d in (data, new))
    bag, told = data.bags.index, torch.from_numpy(y == 1)
    folds = list(splits(y, INSIDE, seed))
    mask = torch.ones(len(DECAYS), INSIDE + 1, len(y))
    for f, (_, out) in enumerate(folds):
        mask[:, f, out] = 0
    decay = torch.tensor(DECAYS).repeat_interleave(INSIDE + 1)
    mask = mask.flatten(0, 1)
    nets = AnyOfNetworks(len(decay), x.shape[1], len(x) / len(y), seed)
    optimizer = torch.optim.Adam(nets.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        h = nets.hazard(x, bag, len(y))
        value = torch.where(told, torch.log(-torch.expm1(-h)), -h)
        size = nets.inner.square().sum(dim=(1, 2)) + nets.outer.square().sum(dim=(1, 2))
        (-(value * mask).sum(dim=1) / mask.sum(dim=1) + 0.5 * decay * size).sum().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        h = nets.hazard(x, bag, len(y)).view(len(DECAYS), INSIDE + 1, -1)
        held = torch.zeros(len(DECAYS), len(y))
        for f, (_, out) in enumerate(folds):
            held[:, out] = h[:, f, out]
        best = int(torch.where(told, torch.log(-torch.expm1(-held)), -held).clamp(min=-12).mean(dim=1).argmax())
        asked = nets.hazard(z, new.bags.index, len(new)).view(len(DECAYS), INSIDE + 1, -1)[best, -1]
        own = torch.log(torch.expm1(held[best].clamp(max=30))).numpy().clip(-12, 12)
        instances = nets.scores(z).view(len(DECAYS), INSIDE + 1, -1)[best, -1].double().numpy()
    return torch.log(torch.expm1(asked.clamp(max=30))).double().numpy(), own, instances


def ens(data: BagData, y: np.ndarray, new: BagData, seed: int) -> np.ndarray:
    asked, of_network, _ = networks(data, y, new, seed)
    network = log_odds(two(asked))
    of_trees = log_odds(held_out(trees, data, y, seed))
    slope, offset = slope_offset((of_network + of_trees) / 2, y)
    return two(slope * (network + log_odds(trees(data, y, new, seed))) / 2 + offset)


def abmil(data: BagData, y: np.ndarray, new: BagData, seed: int) -> np.ndarray:
    from torchmil.models import ABMIL

    classes = int(y.max()) + 1
    epochs, batch = (100, 16) if len(y) < 400 else (50, 64) if len(y) < 1000 else (30, 64)
    torch.manual_seed(seed)
    x = data.features
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale < 1e-9] = np.inf

    def padded(part: BagData) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.from_numpy((part.features - mean) / scale).float()
        bags = torch.nn.utils.rnn.pad_sequence(list(x.split(part.sizes.tolist())), batch_first=True)
        return bags, (torch.arange(bags.shape[1]) < part.sizes[:, None]).float()

    models = [ABMIL(in_shape=(x.shape[1],)) for _ in range(1 if classes == 2 else classes)]
    found = []
    for k, model in enumerate(models):
        target = torch.from_numpy(y == (1 if classes == 2 else k)).float()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(y)).split(batch):
                optimizer.zero_grad()
                loss = torch.nn.functional.binary_cross_entropy_with_logits(
                    model(*padded(data[rows.numpy()])), target[rows]
                )
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            found.append(model(*padded(new)).double().numpy())
    if classes == 2:
        return two(found[0])
    chances = expit(np.stack(found, axis=1))
    return chances / chances.sum(axis=1, keepdims=True)


def default(data: BagData, y: np.ndarray, new: BagData, seed: int) -> np.ndarray:
    return np.asarray(Learner(seed=seed).fit(data, y).predict_proba(new))


def any_of(data: BagData, y: np.ndarray, new: BagData, seed: int) -> np.ndarray:
    labels = AnyOf(data.bags, torch.from_numpy(y), 1, 2)
    return np.asarray(Learner(seed=seed).fit(data.features, labels).predict_proba(new, unit="set"))


def per_class(method: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Any-of for every class but the last, which is a bag of none of them."""

    def fit(data: BagData, y: np.ndarray, new: BagData, seed: int) -> np.ndarray:
        classes = int(y.max()) + 1
        if classes == 2:
            return method(data, y, new, seed)
        odds = [log_odds(method(data, (y == k).astype(np.int64), new, seed)) for k in range(classes - 1)]
        found = np.exp(np.stack([*odds, np.zeros(len(new))], axis=1))
        return np.asarray(found / found.sum(axis=1, keepdims=True))

    return fit


METHODS: dict[str, Callable[..., np.ndarray]] = {
    "mean-lr": logistic(lambda s: s[:, : (s.shape[1] - 1) // 4]),
    "max-lr": logistic(lambda s: s[:, (s.shape[1] - 1) // 4 : (s.shape[1] - 1) // 2]),
    "stat-et": trees,
    "stat-et sharpened": sharpened,
    "or-mlp": per_class(or_mlp),
    "ens": per_class(ens),
    "abmil": abmil,
    "anygrain any-of": per_class(any_of),
    "anygrain": default,
}
WITH_INSTANCES = ("or-mlp", "anygrain any-of")


def answer(method: str, data: BagData, y: np.ndarray, new: BagData, seed: int) -> np.ndarray:
    """Probabilities (M, K), of tags (M, L)."""
    fit = METHODS[method]
    if y.ndim == 1:
        return fit(data, y, new, seed)
    if method == "anygrain":
        return np.asarray(Learner(seed=seed).fit(data, Tags(torch.from_numpy(y))).predict_proba(new))
    return np.stack([fit(data, tag, new, seed)[:, 1] for tag in y.T], axis=1)


# -- scores ------------------------------------------------------------------------------------------------------------


def ece(p: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error of confidences p of answers that are right, bool."""
    place = np.minimum((p * bins).astype(int), bins - 1)
    return float(sum(abs(right[place == b].mean() - p[place == b].mean()) * (place == b).mean() for b in set(place)))


def scores(folds: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Of one repeat, from (truth, probabilities) of its folds; AUC is the mean over folds where it is defined."""
    if folds[0][0].ndim == 2:
        each = [scores([(y[:, at], np.stack([1 - p[:, at], p[:, at]], 1)) for y, p in folds]) for at in range(4)]
        return {name: float(np.mean([one[name] for one in each])) for name in each[0]}
    y, p = np.concatenate([fold[0] for fold in folds]), np.concatenate([fold[1] for fold in folds])
    p = np.clip(p, 1e-6, 1)
    if p.shape[1] == 2:
        auc = np.mean([roc_auc_score(t, q[:, 1]) for t, q in folds if 0 < t.mean() < 1])
    else:
        auc = roc_auc_score(y, p / p.sum(axis=1, keepdims=True), multi_class="ovr")
    right = p.argmax(axis=1) == y
    return {
        "accuracy": 100 * float(right.mean()),
        "AUC": 100 * float(auc),
        "log loss": float(-np.log(p[np.arange(len(y)), y]).mean()),
        "ECE": ece(p.max(axis=1), right),
    }


def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half the width of a 95 % interval."""
    n = len(values)
    half = student.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return float(np.mean(values)), float(half)


def shown(values: list[float], digits: int) -> str:
    mean, half = interval(values)
    return f"{mean:.{digits}f}" + ("" if np.isnan(half) else f" ± {half:.{digits}f}")


# -- digits ------------------------------------------------------------------------------------------------------------


def hog(images: np.ndarray, cell: int = 4, bins: int = 9) -> np.ndarray:
    """Histograms of oriented gradients (N, F) of pictures (N, H, W), over cells, normalised over 2 x 2 of them."""
    x = images.astype(np.float64) / 255
    dy, dx = np.gradient(x, axis=(1, 2))
    size, angle = np.hypot(dx, dy), (np.arctan2(dy, dx) % np.pi) / np.pi * bins
    low = np.floor(angle).astype(int) % bins
    share = angle - np.floor(angle)
    rows, cols = x.shape[1] // cell, x.shape[2] // cell
    found = np.zeros((len(x), rows, cols, bins))
    for b in range(bins):
        of_bin = size * ((low == b) * (1 - share) + ((low + 1) % bins == b) * share)
        of_bin = of_bin[:, : rows * cell, : cols * cell].reshape(len(x), rows, cell, cols, cell)
        found[..., b] = of_bin.sum(axis=(2, 4))
    blocks = [found[:, i : i + rows - 1, j : j + cols - 1] for i in (0, 1) for j in (0, 1)]
    joined = np.concatenate(blocks, axis=3)
    joined /= np.sqrt((joined**2).sum(axis=3, keepdims=True) + 1e-3)
    return joined.reshape(len(x), -1)


def digit_bags(rate: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features and truth of the instances of 200 training and 200 test bags of 50, half of them positive."""
    with np.load(folder("digits_domains") / "mnist_test.npz") as held:
        features, digits = hog(held["X"]), held["y"]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(digits))
    found: list[np.ndarray] = []
    for rows in (order[: len(order) // 2], order[len(order) // 2 :]):
        yes, no = rows[digits[rows] == DIGIT], rows[digits[rows] != DIGIT]
        chosen, truth = [], []
        for bag in range(200):
            count = 0
            while bag % 2 and not count:
                count = rng.binomial(50, rate)
            chosen.append(np.concatenate([rng.choice(yes, count), rng.choice(no, 50 - count)]))
            truth.append(np.arange(50) < count)
        found += [np.concatenate(chosen), np.concatenate(truth).astype(int)]
    pca = PCA(64, random_state=0).fit(features[order[: len(order) // 2]])
    return pca.transform(features[found[0]]), found[1], pca.transform(features[found[2]]), found[3]


LABELS = ("any-of", "any-of and rate", "or-mlp")


def digit_scores(rate: float, seed: int, name: str) -> dict[str, Any]:
    """Of any-of alone, of it with the rate as further evidence, or of `or-mlp` on the same bags."""
    x, y, z, truth = digit_bags(rate, seed)
    ids = torch.arange(len(x)) // 50
    bags = Bags.from_ids(ids)
    present = torch.from_numpy(y.reshape(-1, 50).any(axis=1).astype(int))
    wanted, trusted = truth.reshape(-1, 50).any(axis=1), None
    began = time.process_time()
    if name == "or-mlp":
        once.known.clear()
        data, new = (BagData.from_ids(one.astype(np.float32), ids.numpy()) for one in (x, z))
        of_bags, _, of_instances = networks(data, present.numpy(), new, seed)
        p, q = expit(of_instances), expit(of_bags)
    else:
        labels: Any = AnyOf(bags, present, 1, 2)
        if name == "any-of and rate":
            mean = float(y.reshape(-1, 50)[present.bool().numpy()].mean())
            labels = labels & Proportions.about(bags, {1: mean}, 2, where=present == 1)
        model = Learner(seed=seed).fit(x, labels)
        p = model.predict_proba(z)[:, 1].astype(float)
        q = model.predict_proba(z, unit="set", bags=bags, question="AnyOf")[:, 1]
        trusted = bool(model.questions_[0].trusted)
    seconds = time.process_time() - began
    p, q = np.clip(p, 1e-9, 1 - 1e-9), np.clip(q, 1e-9, 1 - 1e-9)
    return {
        "instance AUC": 100 * roc_auc_score(truth, p),
        "instance log loss": float(-np.log(np.where(truth, p, 1 - p)).mean()),
        "bag AUC": 100 * roc_auc_score(wanted, q),
        "bag log loss": float(-np.log(np.where(wanted, q, 1 - q)).mean()),
        "trusted": trusted,
        "seconds": seconds,
    }


# -- running -----------------------------------------------------------------------------------------------------------


class Cache:
    """Finished work, a line each."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.found = path, {}
        if path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                self.found[tuple(entry["key"])] = entry["value"]

    def keep(self, key: tuple[Any, ...], value: Any) -> None:
        self.found[key] = value
        with self.path.open("a") as out:
            out.write(json.dumps({"key": list(key), "value": value}) + "\n")


def run_folds(cache: Cache, sets: list[str], methods: list[str], repeats: int) -> None:
    for repeat in range(repeats):
        for name in sets:
            data, y = read(name)
            once.known.clear()  # its keys tell bags of one set apart
            for method in methods:
                for fold, (train, test) in enumerate(splits(y, FOLDS, repeat)):
                    key = (name, method, repeat, fold)
                    if key in cache.found:
                        continue
                    began, once.charged = time.process_time(), 0.0
                    p = answer(method, data[train], y[train], data[test], repeat)
                    seconds = time.process_time() - began + once.charged
                    cache.keep(key, {"test": test.tolist(), "p": np.round(p, 7).tolist(), "seconds": seconds})
                print(f"repeat {repeat}, {name}, {method}", flush=True)


def run_digits(cache: Cache, seeds: int) -> None:
    for rate in RATES:
        for seed in range(seeds):
            for name in LABELS:
                if ("digits", rate, seed, name) not in cache.found:
                    cache.keep(("digits", rate, seed, name), digit_scores(rate, seed, name))
            print(f"digits {rate:g}, seed {seed}", flush=True)


def tables(cache: Cache) -> str:
    lines = [__doc__ or "", ""]
    for name in SETS:
        known = sorted({key[1] for key in cache.found if key[0] == name}, key=list(METHODS).index)
        if not known:
            continue
        _, y = read(name)
        by_method: dict[str, list[dict[str, float]]] = {}
        for method in known:
            for repeat in sorted({key[2] for key in cache.found if key[:2] == (name, method)}):
                folds = [cache.found.get((name, method, repeat, fold)) for fold in range(FOLDS)]
                if None not in folds:
                    found = scores([(y[f["test"]], np.array(f["p"])) for f in folds])
                    by_method.setdefault(method, []).append({**found, "s": sum(f["seconds"] for f in folds)})
        any_, instances = DEMANDS[name]
        lines += [
            f"## {name}",
            "",
            f"To reach: {any_[0]} / {any_[1]} / {any_[2]} by any model of bags, {instances[0]} / {instances[1]} / "
            f"{instances[2]} with answers for instances.",
            "",
            "| method | accuracy | AUC | log loss | ECE | s a repeat | repeats | log loss less than anygrain's by |",
            "|---|---|---|---|---|---|---|---|",
        ]
        ours = by_method.get("anygrain", [])
        for method, found in by_method.items():
            cells = [shown([one[m] for one in found], d) for m, d in (("accuracy", 1), ("AUC", 1), ("log loss", 3))]
            cells += [shown([one["ECE"] for one in found], 3), f"{np.mean([one['s'] for one in found]):.1f}"]
            paired = [b["log loss"] - a["log loss"] for a, b in zip(found, ours, strict=False)]
            beside = shown(paired, 3) if paired and method != "anygrain" else ""
            lines.append(f"| {method} | {' | '.join(cells)} | {len(found)} | {beside} |")
        lines.append("")
    if any(key[0] == "digits" for key in cache.found):
        lines += [
            "## Bags of 50 digits",
            "",
            "| rate | labels | instance AUC | instance log loss | bag AUC | bag log loss | probabilities of instances "
            "are trusted | s | asked: `or-mlp` on other such bags |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        measures = (("instance AUC", 1), ("instance log loss", 4), ("bag AUC", 1), ("bag log loss", 3))
        for rate in RATES:
            for labels in LABELS:
                found = [v for k, v in cache.found.items() if k[:2] == ("digits", rate) and k[3] == labels]
                if not found:
                    continue
                cells = [shown([one[m] for one in found], d) for m, d in measures]
                trusted = f"{sum(one['trusted'] for one in found)} of {len(found)}" if labels != "or-mlp" else ""
                wanted = " / ".join(f"{mean} ± {sd}" for mean, sd in DIGIT_DEMANDS[rate])
                seconds = np.mean([one["seconds"] for one in found])
                lines.append(
                    f"| {100 * rate:g} % | {labels} | {' | '.join(cells)} | {trusted} | {seconds:.1f} | {wanted} |"
                )
        lines.append("")
    return "\n".join(lines)


def peak(name: str, method: str) -> float:
    """MiB that one fit and its answers add to the peak of this process, which has done nothing else."""
    data, y = read(name)
    train, test = next(iter(splits(y, FOLDS, 0)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer(method, data[train], y[train], data[test], 0)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--data", default=",".join(SETS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--digits", action="store_true")
    parser.add_argument("--peak", metavar="METHOD", help="print the memory of one fit on the first data set, and stop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sets = [name for name in options.data.split(",") if name]
    if options.peak:
        print(f"{options.peak} on {sets[0]}: {peak(sets[0], options.peak):.0f} MiB")
        return
    cache = Cache(options.cache / "folds.jsonl")
    run_folds(cache, sets, options.methods.split(","), options.repeats)
    if options.digits:
        run_digits(cache, DIGIT_SEEDS)
    when = datetime.date.today().isoformat()
    machine = f"{platform.machine()}, one thread, Python {platform.python_version()}, torch {torch.__version__}"
    text = f"# Bags\n\n{tables(cache)}\nMeasured {when}, {machine}.\n"
    Path(__file__).with_name("BAGS_RESULTS.md").write_text(text)


if __name__ == "__main__":
    main()
