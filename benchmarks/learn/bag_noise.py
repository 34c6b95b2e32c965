"""Do views of a bag that lose instances and features pay, where bags have no label or a doubtful one?

    ANYGRAIN_DATA=... python benchmarks/learn/bag_noise.py [--sets elephant,fox] [--seeds 3] [--folds 5]

`BagEncoder("attention")` with and without `BagNoise`, on the same folds and seeds: three in ten training bags labelled
and the others seen without a label, or all labelled and three in ten labels drawn at random (`Noisy`). Where every bag
has a label that is sure, strong views are not used, and both are the same model. Prints accuracy in per cent, log loss,
and the difference with its interval of 95 % over folds and seeds. One thread.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold

from anygrain.encoders import BagEncoder
from anygrain.labels import Exact, Labels, Noisy
from anygrain.learn import Learner

sys.path.insert(0, str(Path(__file__).parents[1]))
from bags import interval, read

KEPT, WRONG = 0.3, 0.3


def few(y: np.ndarray, rng: np.random.Generator) -> Labels:
    """Three in ten of every class, the others silent."""
    order = rng.permutation(len(y))
    place = np.empty(len(y))
    for k in (0, 1):
        of_class = order[y[order] == k]
        place[of_class] = np.arange(len(of_class)) / len(of_class)
    return Exact(np.where(place < KEPT, y, -1), 2)


def doubtful(y: np.ndarray, rng: np.random.Generator) -> Labels:
    said = np.where(rng.random(len(y)) < WRONG, rng.integers(0, 2, len(y)), y)
    return Noisy(torch.from_numpy(said), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", default="elephant,fox")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| bags | labels | accuracy with | without | difference | log loss with | without | difference |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.sets.split(","):
        data, y = read(name)
        for title, labels in (("3 of 10 bags", few), ("30 % at random", doubtful)):
            found = []
            for seed in range(given.seeds):
                for train, test in StratifiedKFold(given.folds, shuffle=True, random_state=seed).split(y, y):
                    said = labels(y[train], np.random.default_rng(seed))
                    row: list[float] = []
                    for augmentation in ("auto", None):
                        model = Learner(BagEncoder("attention"), augmentation=augmentation, seed=seed)
                        p = model.fit(data[train], said).predict_proba(data[test])
                        row += [100 * float((p.argmax(axis=1) == y[test]).mean()), log_loss(y[test], p)]
                    found.append(row)
            a, la, b, lb = np.array(found).T
            gains = []
            for difference, digits in ((a - b, 1), (la - lb, 3)):
                mean, half = interval(list(difference))
                gains.append(f"{mean:+.{digits}f} ± {half:.{digits}f}")
            print(
                f"| {name} | {title} | {a.mean():.1f} | {b.mean():.1f} | {gains[0]} "
                f"| {la.mean():.3f} | {lb.mean():.3f} | {gains[1]} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
