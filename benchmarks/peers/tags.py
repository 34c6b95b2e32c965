"""Tags of which a share is known: ours beside one logistic regression for each tag.

    ANYGRAIN_DATA=/path/to/data python benchmarks/peers/tags.py

Reads `ml_scene`, `ml_yeast`, `ml_emotions` and `ml_bibtex` from $ANYGRAIN_DATA, fits to the entries of the training
rows that are known, drawn at random, and scores all tags of the test rows. One thread; times are CPU seconds.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from results import write_section
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import average_precision_score, f1_score
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from anygrain.labels import Tags
from anygrain.learn import Learner

SETS = ("emotions", "scene", "yeast", "bibtex")
SHARES = (1.0, 0.5, 0.1)
Fit = Callable[[csr_matrix | np.ndarray, np.ndarray, csr_matrix | np.ndarray], np.ndarray]


def load(name: str) -> tuple[csr_matrix | np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, D), tags (N, L) and which rows train (N,)."""
    data = np.load(Path(os.environ["ANYGRAIN_DATA"]) / f"ml_{name}" / f"ml_{name}.npz")

    def table(part: str) -> csr_matrix | np.ndarray:
        if part in data:
            return data[part].astype(np.float64)
        indices = data[f"{part}_indices"]
        values = data[f"{part}_data"] if f"{part}_data" in data else np.ones(len(indices))
        stored = (values.astype(np.float64), indices, data[f"{part}_indptr"])
        return csr_matrix(stored, shape=tuple(data[f"{part}_shape"]))

    tags = table("Y")
    return table("X"), np.asarray(tags.todense() if hasattr(tags, "todense") else tags).astype(int), data["train"]


def ours(train: csr_matrix | np.ndarray, known: np.ndarray, test: csr_matrix | np.ndarray) -> np.ndarray:
    return Learner(seed=0).fit(train, Tags(torch.from_numpy(known))).predict_proba(test)


def one_by_one(make: Callable[[], LogisticRegression], unknown: str) -> Fit:
    """A classifier per tag, on standardised features; entries that are not known are left out, or taken as off."""

    def fit(train: csr_matrix | np.ndarray, known: np.ndarray, test: csr_matrix | np.ndarray) -> np.ndarray:
        scaler = (MaxAbsScaler() if hasattr(train, "tocsr") else StandardScaler()).fit(train)
        train, test = scaler.transform(train), scaler.transform(test)
        out = np.zeros((test.shape[0], known.shape[1]))
        for tag in range(known.shape[1]):
            y = known[:, tag]
            rows = np.flatnonzero(y >= 0) if unknown == "out" else np.arange(len(y))
            y = np.maximum(y[rows], 0)
            if (min(y.sum(), len(y) - y.sum()) < 5 and isinstance(make(), LogisticRegressionCV)) or y.min() == y.max():
                out[:, tag] = (y.sum() + 0.5) / (len(y) + 1)
            else:
                out[:, tag] = make().fit(train[rows], y).predict_proba(test)[:, 1]
        return out

    return fit


WAYS: dict[str, Fit] = {
    "anygrain": ours,
    "logistic regressions, known entries": one_by_one(lambda: LogisticRegression(max_iter=300), "out"),
    "the same, C by cross-validation": one_by_one(
        lambda: LogisticRegressionCV(Cs=6, cv=3, scoring="neg_log_loss", max_iter=200), "out"
    ),
    "logistic regressions, unknown is off": one_by_one(lambda: LogisticRegression(max_iter=300), "off"),
}


def scores(probs: np.ndarray, truth: np.ndarray) -> tuple[float, float, float, float]:
    """Macro and micro average precision, micro F1 at one half, and log loss per entry."""
    probs = np.clip(probs, 1e-6, 1 - 1e-6)
    both = np.flatnonzero((truth.sum(axis=0) > 0) & (truth.sum(axis=0) < len(truth)))
    macro = float(np.mean([average_precision_score(truth[:, tag], probs[:, tag]) for tag in both]))
    micro = float(average_precision_score(truth.ravel(), probs.ravel()))
    f1 = float(f1_score(truth.ravel(), probs.ravel() > 0.5))
    return macro, micro, f1, float(-(truth * np.log(probs) + (1 - truth) * np.log(1 - probs)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=SETS, choices=SETS)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    if "ANYGRAIN_DATA" not in os.environ:
        raise SystemExit("ANYGRAIN_DATA is not set: it names the folder that holds ml_scene and the others")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    head = "| tags | known | way | macro AP | micro AP | micro F1 | log loss | CPU s |"
    for name in given.sets:
        lines = [head, "|---|---|---|---|---|---|---|---|"]
        features, tags, train = load(name)
        for share in SHARES:
            found: dict[str, list[tuple[float, ...]]] = {way: [] for way in WAYS}
            for seed in range(given.seeds if share < 1 else 1):
                drawn = np.random.default_rng(seed).random(tags[train].shape) < share
                known = np.where(drawn, tags[train], -1)
                for way, fit in WAYS.items():
                    slow = "cross" in way and features.shape[1] > 100
                    if slow or (share == 1.0 and "off" in way):
                        continue
                    start = time.process_time()
                    probs = fit(features[train], known, features[~train])
                    found[way].append((*scores(probs, tags[~train]), time.process_time() - start))
            for way, runs in found.items():
                if runs:
                    mean, half = np.mean(runs, axis=0), 1.96 * np.std(runs, axis=0) / len(runs) ** 0.5
                    cells = [f"{m:.3f} ± {h:.3f}" for m, h in zip(mean[:4], half[:4], strict=True)]
                    lines.append(f"| {name} | {share:.0%} | {way} | {' | '.join(cells)} | {mean[4]:.1f} |")
                    print(lines[-1], flush=True)
        remark = (
            f"Test rows of the given split, all of their tags; {given.seeds} draws of the known entries, ± is 1.96 "
            "standard errors of their mean. C is chosen by cross-validation where there are at most 100 features."
        )
        write_section(f"tags_{name}", f"## Tags, {name}\n\n" + "\n".join(lines) + f"\n\n{remark}")


if __name__ == "__main__":
    main()
