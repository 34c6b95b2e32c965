"""Positive and unlabelled rows: how well is the class prior estimated, and what is learnt with and without it?

    ANYGRAIN_DATA=... python benchmarks/learn/class_prior.py --cache FOLDER [--seeds 5] [--data digits,usps,news]

A random part of the positives of a training set is labelled. For every data set, class prior (positives are thinned
to it), number of labelled rows and seed: the prior by `with_class_prior` with its interval, by best bin estimation on
plain labelled-against-rest scores, and by Elkan and Noto's mean score of held-out labelled rows; test accuracy of the
recipe with the prior given and estimated, of nnPU (Kiryo and others, 2017: linear, sigmoid loss, 400 steps of Adam,
prior given), of Elkan-Noto weighting and of full supervision, all linear on the same features. Every finished case is a
line of FOLDER/class_prior.jsonl, so a stopped run goes on where it was. The tables go to CLASS_PRIOR_RESULTS.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.labels import Exact, Positive
from anygrain.labels.class_prior import estimate_prior
from anygrain.learn.class_prior import log_labelled_against_rest, with_class_prior
from anygrain.learn.head import Linear
from anygrain.learn.recipe import Recipe

PRIORS = (0.25, 0.5)
LABELLED = {"digits": (40, 150), "usps": (100, 500), "news": (100, 500)}
METHODS = ("supervised", "recipe", "recipe, prior estimated", "nnPU", "Elkan-Noto weights")
ESTIMATES = ("ours", "best bin", "Elkan-Noto")


def fourier(train: np.ndarray, test: np.ndarray, components: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Random Fourier features of PCA scores: cosines at half the median distance."""
    from sklearn.decomposition import PCA

    pca = PCA(components, random_state=0).fit(train)
    train, test = pca.transform(train), pca.transform(test)
    generator = np.random.default_rng(0)
    some = train[generator.permutation(len(train))[:1000]]
    distance = np.sqrt(((some[:, None] - some[None]) ** 2).sum(axis=-1))
    projection = generator.standard_normal((train.shape[1], n)) / (0.5 * np.median(distance[distance > 0]))
    phase = generator.uniform(0, 2 * np.pi, n)
    found = [(np.sqrt(2 / n) * np.cos(x @ projection + phase)).astype(np.float32) for x in (train, test)]
    return found[0], found[1]


def digits() -> tuple[np.ndarray, ...]:
    """scikit-learn's digits, even against odd."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    test, train = order[:500], order[500:]
    return *fourier(x[train] / 16, x[test] / 16, 40, 400), y[train] % 2 == 0, y[test] % 2 == 0


def usps() -> tuple[np.ndarray, ...]:
    """USPS digits, even against odd."""
    data = np.load(Path(os.environ["ANYGRAIN_DATA"]) / "digits_domains" / "usps.npz")
    flat = [data[name].reshape(-1, 256) / 255.0 for name in ("X_train", "X_test")]
    return *fourier(flat[0], flat[1], 80, 800), data["y_train"] % 2 == 0, data["y_test"] % 2 == 0


def news() -> tuple[np.ndarray, ...]:
    """20 newsgroups, those on computers and on sports and vehicles against the rest: SVD of TF-IDF."""
    import scipy.sparse
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.preprocessing import normalize

    data = np.load(Path(os.environ["ANYGRAIN_DATA"]) / "newsgroups20_bow" / "newsgroups20_bow.npz")
    values = np.ones(len(data["X_indices"]), dtype=np.float32)
    words = scipy.sparse.csr_matrix((values, data["X_indices"], data["X_indptr"]), shape=tuple(data["X_shape"]))
    fine = data["fine"].astype(int)
    words, fine = TfidfTransformer().fit_transform(words[fine >= 0]), fine[fine >= 0]
    coarse = data["fine_to_coarse"].astype(int)[fine]
    largest = np.argsort(-np.bincount(coarse))[:2]
    positive = np.isin(coarse, largest)
    order = np.random.default_rng(0).permutation(len(fine))
    test, train = order[:4000], order[4000:]
    svd = TruncatedSVD(200, random_state=0).fit(words[train])
    x, x_test = (normalize(svd.transform(words[rows])).astype(np.float32) for rows in (train, test))
    return x, x_test, positive[train], positive[test]


LOADERS = {"digits": digits, "usps": usps, "news": news}


class Case:
    """Training rows of one data set with a class prior, some positives labelled; test rows of the same prior."""

    def __init__(self, data: tuple[np.ndarray, ...], prior: float, labelled: int, seed: int):
        x, x_test, y, y_test = data
        self.seed, generator = seed, np.random.default_rng([seed, int(100 * prior)])
        rows = self._thinned(y, prior, generator)[:6000]
        test = self._thinned(y_test, prior, generator)
        scale = float(np.sqrt((x[rows] ** 2).mean()))
        self.x, self.x_test = torch.tensor(x[rows] / scale), torch.tensor(x_test[test] / scale)
        self.y, self.y_test = torch.tensor(y[rows]).long(), torch.tensor(y_test[test]).long()
        positives = generator.permutation(np.flatnonzero(y[rows]))
        self.labelled = torch.zeros(len(rows), dtype=torch.bool)
        self.labelled[positives[:labelled]] = True
        self.prior = float(self.y.float().mean())

    @staticmethod
    def _thinned(y: np.ndarray, prior: float, generator: np.random.Generator) -> np.ndarray:
        sides = [generator.permutation(np.flatnonzero(y == side)) for side in (False, True)]
        n = min(len(sides[1]) / prior, len(sides[0]) / (1 - prior))
        kept = [sides[0][: round(n * (1 - prior))], sides[1][: round(n * prior)]]
        return generator.permutation(np.concatenate(kept))

    def accuracy(self, logits: Tensor) -> float:
        return float((logits.argmax(dim=1) == self.y_test).float().mean())

    def recipe(self, labels: Any) -> float:
        head = Recipe(self.x, labels, lambda: Linear(self.x.shape[1], 2), seed=self.seed).run().head
        with torch.no_grad():
            return self.accuracy(head.logits(self.x_test))

    def scores(self) -> Tensor:
        """Cross-fitted log odds of being labelled."""
        fold = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(self.seed)) % 5
        return log_labelled_against_rest(self.x, self.labelled, fold)

    def non_negative(self) -> float:
        """nnPU of a linear model with the sigmoid loss, the prior given, unlabelled rows standing for all."""
        generator = torch.Generator().manual_seed(self.seed)
        linear = torch.nn.Linear(self.x.shape[1], 1)
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
        optimiser = torch.optim.Adam(linear.parameters(), lr=0.01, weight_decay=1e-4)
        known = self.x[self.labelled]
        for _ in range(40):
            for rows in torch.randperm(len(self.x), generator=generator).chunk(10):
                positive, anyone = linear(known)[:, 0], linear(self.x[rows])[:, 0]
                found = self.prior * torch.sigmoid(-positive).mean()
                negative = torch.sigmoid(anyone).mean() - self.prior * torch.sigmoid(positive).mean()
                risk = found + negative if negative >= 0 else -negative
                optimiser.zero_grad()
                risk.backward()
                optimiser.step()
        with torch.no_grad():
            above = linear(self.x_test)[:, 0]
        return self.accuracy(torch.stack([-above, above], dim=1))

    def elkan_noto(self) -> tuple[float, float]:
        """Prior by the mean held-out score of labelled rows, and accuracy with Elkan and Noto's weights."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import cross_val_predict

        x, said = self.x.numpy(), self.labelled.numpy()
        model = LogisticRegression(C=1.0, max_iter=300)
        score = cross_val_predict(model, x, said, cv=3, method="predict_proba")[:, 1]
        c = float(score[said].mean())
        weight = np.clip((1 - c) / c * score / (1 - score), 0, 1)[~said]
        rows = np.concatenate([x[said], x[~said], x[~said]])
        target = np.concatenate([np.ones(said.sum()), np.ones((~said).sum()), np.zeros((~said).sum())])
        weights = np.concatenate([np.ones(said.sum()), weight, 1 - weight])
        model.fit(rows, target, sample_weight=weights)
        above = torch.from_numpy(model.decision_function(self.x_test.numpy()))
        return min(float(said.mean()) / c, 1.0), self.accuracy(torch.stack([-above, above], dim=1))


def measured(case: Case) -> dict[str, Any]:
    unknown = Positive(case.labelled)
    begun = time.process_time()
    found, estimate = with_class_prior(unknown, case.x, case.seed)
    seconds = time.process_time() - begun
    assert estimate is not None
    by_mean, weighted = case.elkan_noto()
    return {
        "prior": case.prior,
        "ours": estimate.estimate,
        "low": estimate.low,
        "high": estimate.high,
        "seconds": seconds,
        "best bin": estimate_prior(case.scores(), case.labelled).estimate,
        "Elkan-Noto": by_mean,
        "accuracy": {
            "supervised": case.recipe(Exact(case.y, 2)),
            "recipe": case.recipe(unknown.with_prior(case.prior)),
            "recipe, prior estimated": case.recipe(found),
            "nnPU": case.non_negative(),
            "Elkan-Noto weights": weighted,
        },
    }


def report(lines: list[dict[str, Any]]) -> str:
    groups: dict[tuple[str, float, int], list[dict[str, Any]]] = {}
    for line in lines:
        groups.setdefault((line["data"], line["class prior"], line["labelled"]), []).append(line)
    out = [
        "# Class priors of positive and unlabelled rows",
        "",
        f"Written by `benchmarks/learn/class_prior.py` on {datetime.date.today()}, {platform.machine()}, torch "
        f"{torch.__version__}. One training set, a random part of whose positives is labelled. Mean over seeds; "
        "errors are estimate minus truth, ± their standard deviation.",
        "",
        "## The estimate",
        "",
        "| data | prior | labelled | seeds | error, ours | error, best bin on plain scores | error, Elkan-Noto | "
        "interval, mean | covers | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    covered, total = 0, 0
    for (name, prior, labelled), found in sorted(groups.items()):
        errors = {e: np.array([line[e] - line["prior"] for line in found]) for e in ESTIMATES}
        inside = sum(line["low"] <= line["prior"] <= line["high"] for line in found)
        covered, total = covered + inside, total + len(found)
        cells = [f"{errors[e].mean():+.3f} ± {errors[e].std():.3f}" for e in ESTIMATES]
        low, high = (np.mean([line[end] for line in found]) for end in ("low", "high"))
        seconds = np.mean([line["seconds"] for line in found])
        out.append(
            f"| {name} | {prior} | {labelled} | {len(found)} | {' | '.join(cells)} | {low:.3f} to {high:.3f} | "
            f"{inside} of {len(found)} | {seconds:.1f} |"
        )
    mean = {e: np.mean([abs(line[e] - line["prior"]) for line in lines]) for e in ESTIMATES}
    out += [
        "",
        f"Intervals cover {covered} of {total}. Mean absolute error: ours {mean['ours']:.3f}, best bin on plain scores "
        f"{mean['best bin']:.3f}, Elkan-Noto {mean['Elkan-Noto']:.3f}.",
        "",
        "## Test accuracy",
        "",
        f"| data | prior | labelled | {' | '.join(METHODS)} |",
        "|---" * (3 + len(METHODS)) + "|",
    ]
    for (name, prior, labelled), found in sorted(groups.items()):
        cells = []
        for method in METHODS:
            values = np.array([line["accuracy"][method] for line in found])
            cells.append(f"{values.mean():.3f} ± {values.std():.3f}")
        out.append(f"| {name} | {prior} | {labelled} | {' | '.join(cells)} |")
    return "\n".join([*out, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", default=",".join(LOADERS))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    arguments.cache.mkdir(parents=True, exist_ok=True)
    path = arguments.cache / "class_prior.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(line["data"], line["class prior"], line["labelled"], line["seed"]) for line in lines}
    for name in arguments.data.split(","):
        data = LOADERS[name]()
        for seed in range(arguments.seeds):
            for prior in PRIORS:
                for labelled in LABELLED[name]:
                    if (name, prior, labelled, seed) in done:
                        continue
                    key = {"data": name, "class prior": prior, "labelled": labelled, "seed": seed}
                    line = {**key, **measured(Case(data, prior, labelled, seed))}
                    print(json.dumps(line), flush=True)
                    with path.open("a") as file:
                        file.write(json.dumps(line) + "\n")
                    lines.append(line)
    Path(__file__).with_name("CLASS_PRIOR_RESULTS.md").write_text(report(lines))


if __name__ == "__main__":
    main()
