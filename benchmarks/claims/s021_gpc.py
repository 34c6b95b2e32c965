"""S021: how many digits are there, when half of the rows of 0 to 4 are labelled?

    python benchmarks/claims/s021_gpc.py

From 7 and from 15 classes. Accuracy over the rows without labels under the best matching, beside semi-supervised
k-means with the starting number and with the true one.
"""

import numpy as np
import torch
from results import arguments, interval, record, shown
from sklearn.datasets import load_digits

from anygrain.discover import GPC, SemiSupervisedKMeans
from anygrain.labels import Exact
from anygrain.metrics import hungarian_accuracy

STARTS = (7, 15)


def main() -> None:
    chosen = arguments(__doc__, seeds=5)
    pixels, y = load_digits(return_X_y=True)
    x = torch.tensor(pixels / 16).float()
    numbers: dict[int, list[int]] = {start: [] for start in STARTS}
    table: dict[str, list[float]] = {}
    for seed in range(chosen.seeds):
        told = np.where((y < 5) & (np.random.default_rng(seed).random(len(y)) < 0.5), y, -1)
        free, labels = told < 0, Exact(torch.tensor(told), 5)

        def accuracy(found: np.ndarray, free: np.ndarray = free) -> float:
            return hungarian_accuracy(found[free], y[free], 5).all

        for start in STARTS:
            model = GPC(start=start, seed=seed, bootstrap=0).fit(x, labels)
            numbers[start].append(model.n_classes_)
            table.setdefault(f"from {start}", []).append(accuracy(model.labels_))
        for k in (*STARTS, 10):
            model = SemiSupervisedKMeans(seed=seed, bootstrap=0).fit(x, labels, k)
            table.setdefault(f"k-means {k}", []).append(accuracy(model.labels_))
        print(f"seed {seed}: {numbers}", flush=True)
    found = {way: np.array(values) for way, values in table.items()}
    gains = {start: found[f"from {start}"] - found[f"k-means {start}"] for start in STARTS}
    inside = all(9 <= number <= 12 for start in STARTS for number in numbers[start])
    record(
        "S021",
        ours="; ".join(f"from {s}: {shown(found[f'from {s}'])}, numbers {numbers[s]}" for s in STARTS),
        baseline="semi-supervised k-means "
        + ", ".join(f"with {k} classes {shown(found[f'k-means {k}'])}" for k in (*STARTS, 10)),
        interval="; ".join(f"from {s} over k-means with {s} {shown(gains[s])}" for s in STARTS)
        + f"; over k-means with 10 {shown(found['from 7'] - found['k-means 10'])}, "
        f"{shown(found['from 15'] - found['k-means 10'])}",
        came_out=inside and all(interval(gain)[0] >= 5 for gain in gains.values()),
        dry=chosen.dry,
    )


if __name__ == "__main__":
    main()
