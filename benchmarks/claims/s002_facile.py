"""FACILE (S002): instance features of digits from labels of sets, read out by nearest centroids of five shots.

Digits (scikit-learn), half of the rows for sets, half for episodes. 400 sets of six; the label of a set is the most
frequent superclass (digit // 2, ties to the lowest), and in a second run how many superclasses it holds. Features of
instances: 128 hidden units, trained through mean pooling (chosen beside attention and 64 units on sets of other seeds).
Read out by 10-way 5-shot nearest centroids (cosine) in 200 episodes on the other half. Baselines: pixels, the same
layer untrained, and trained on the set's label copied onto every instance. It comes out when it is above all three with
the most frequent superclass, and 3 points above the copy (lower ends of the intervals, paired by seed).
"""

import numpy as np
import torch
from digit_bags import halves
from results import arguments, interval, record, shown

from anygrain.bags import BagData, pretrain_on_sets
from anygrain.labels import Exact

SETS, SIZE, SHOTS, EPISODES, HIDDEN, EPOCHS = 400, 6, 5, 200, 128, 30


def accuracy(features, y, seed):
    """Mean accuracy of nearest centroids over episodes, on up to 15 rows per class beside the shots."""
    rng = np.random.default_rng(seed)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    right = []
    for _ in range(EPISODES):
        drawn = [rng.permutation(np.flatnonzero(y == c))[: SHOTS + 15] for c in range(10)]
        centres = np.stack([unit[rows[:SHOTS]].mean(0) for rows in drawn])
        asked = np.concatenate([rows[SHOTS:] for rows in drawn])
        distance = ((unit[asked][:, None] - centres) ** 2).sum(-1)
        right.append(np.mean(distance.argmin(1) == y[asked]))
    return float(np.mean(right))


def set_labels(digits, way):
    coarse = digits // 2
    counts = np.stack([(coarse == c).sum(1) for c in range(5)], axis=1)
    return counts.argmax(1) if way == "most frequent" else (counts > 0).sum(1) - 1


def run(seed, way):
    (x, y), (x_test, y_test) = halves(seed)
    drawn = np.random.default_rng(100 + seed).integers(0, len(y), size=(SETS, SIZE))
    w = set_labels(y[drawn], way)
    n_classes = 5
    data = BagData.from_arrays(list(x[drawn]))
    how = {"hidden": HIDDEN, "seed": seed, "epochs": EPOCHS, "batch_size": 16, "learning_rate": 3e-3}
    ours = pretrain_on_sets(data, Exact(w, n_classes), "mean", **how)
    copied = BagData.from_arrays(list(x[drawn].reshape(-1, 1, x.shape[1])))  # every instance a set of its own
    copy = pretrain_on_sets(copied, Exact(np.repeat(w, SIZE), n_classes), "mean", **{**how, "batch_size": 96})
    start = pretrain_on_sets(data, Exact(w, n_classes), "mean", **{**how, "epochs": 1, "learning_rate": 1e-12})
    seen = {"ours": ours, "copied": copy, "untrained": start}
    found = {name: accuracy(encoder(x_test).numpy(), y_test, seed) for name, encoder in seen.items()}
    return {**found, "pixels": accuracy(x_test, y_test, seed)}


def main():
    given = arguments(__doc__, 5)
    tables = {}
    for way in ("most frequent", "number"):
        found = [run(seed, way) for seed in range(given.seeds)]
        tables[way] = {name: np.array([row[name] for row in found]) for name in found[0]}
        print(way, {name: shown(values) for name, values in tables[way].items()}, flush=True)
    first = tables["most frequent"]
    gain = {name: interval(first["ours"] - first[name]) for name in ("pixels", "untrained", "copied")}
    came_out = all(low > 0 for _, low, _ in gain.values()) and gain["copied"][1] >= 3
    other = tables["number"]
    record(
        "S002",
        ours=f"10-way 5-shot accuracy {shown(first['ours'])}",
        baseline=", ".join(f"{name} {shown(first[name])}" for name in ("pixels", "untrained", "copied")),
        interval="; ".join(f"over {name}: {m:+.1f} [{low:+.1f}, {high:+.1f}]" for name, (m, low, high) in gain.items()),
        came_out=came_out,
        note=(
            f"set label = number of superclasses: ours {shown(other['ours'])}, pixels {shown(other['pixels'])}, copied "
            f"{shown(other['copied'])}; {given.seeds} seeds"
        ),
        dry=given.dry,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
