"""MHIM-MIL (S048): attention pooling on hard instances, which a slow teacher finds, against attention pooling alone.

Digits (scikit-learn), half of the rows for 200 training bags of 20 to 50, half for 200 test bags; every second bag
holds 1 to 3 nines. Attention pooling of 64 hidden units, 40 epochs; then, with it as the first teacher, 40 epochs with
masks (half at random, the top 2 % by attention in half of the draws; teacher momentum .99, consistency .1). Since that
is two trainings, attention pooling for 80 epochs is a second baseline. Recall of later positives: of the bags with two
or three nines, the share of nines other than the one with the highest score that are among the bag's three highest
scores of the head. It comes out when that recall is higher than that of both baselines (lower ends of the intervals,
paired by seed) and the bag AUC is not lower than that of the first by more than half a point.
"""

import numpy as np
import torch
from digit_bags import as_rows, bags_of, halves
from results import arguments, interval, record, shown
from sklearn.metrics import roc_auc_score

from anygrain.bags import mhim
from anygrain.encoders.bags import BagEncoder
from anygrain.labels import Exact
from anygrain.learn import Learner

BAGS, SIZE, ENCODER = 200, (20, 50), {"hidden": 64}
TRAINING = {"epochs": 40, "batch_size": 16}


def tables(seed):
    """Training bags and their classes, test bags, truth of instances and of bags."""
    train, test = halves(seed)

    def positives(rng, n):
        return int(rng.integers(1, 4))

    x, _, bags, w = bags_of(train, BAGS, SIZE, positives, seed)
    x_test, y_test, bags_test, w_test = bags_of(test, BAGS, SIZE, positives, 1000 + seed)
    return as_rows(x, bags), w, as_rows(x_test, bags_test), y_test, w_test


def measured(model, test, y_test, w_test):
    """Bag AUC, instance AUC by the head, and recall of later positives of a bag in its three highest."""
    score = model.predict_proba(test, unit="instance")[:, 1]
    found, asked = 0, 0
    for start, size in zip(np.cumsum([0, *test.sizes.tolist()[:-1]]), test.sizes.tolist(), strict=True):
        here, truth = score[start : start + size], y_test[start : start + size]
        if truth.sum() >= 2:
            order = np.argsort(-here)
            others = set(np.flatnonzero(truth)) - {max(np.flatnonzero(truth), key=lambda i: here[i])}
            found += len(others & set(order[:3].tolist()))
            asked += len(others)
    return roc_auc_score(w_test, model.predict_proba(test)[:, 1]), roc_auc_score(y_test, score), found / asked


def base(seed, longer=1):
    training = {**TRAINING, "epochs": longer * TRAINING["epochs"]}
    return Learner(encoder=BagEncoder("attention", **ENCODER), augmentation=None, seed=seed, **training)


def main():
    given = arguments(__doc__, 5)
    found = {"attention": [], "attention, 80 epochs": [], "MHIM": []}
    for seed in range(given.seeds):
        train, w, *test = tables(seed)
        teacher = base(seed).fit(train, Exact(w, 2))
        masked = mhim(1, momentum=0.99, decays_over=TRAINING["epochs"], teacher=teacher, encoder=ENCODER)
        models = {
            "attention": teacher,
            "attention, 80 epochs": base(seed, 2).fit(train, Exact(w, 2)),
            "MHIM": Learner(**masked, seed=seed, **TRAINING).fit(train, Exact(w, 2)),
        }
        for name, model in models.items():
            found[name].append(measured(model, *test))
            print(seed, name, [round(float(v), 3) for v in found[name][-1]], flush=True)
    table = {name: np.array(rows) for name, rows in found.items()}
    gain = [interval(table["MHIM"][:, j] - table["attention"][:, j]) for j in range(3)]
    longer = interval(table["MHIM"][:, 2] - table["attention, 80 epochs"][:, 2])

    def said(name):
        bag, instance, recall = table[name].T
        return f"recall of later positives {shown(recall)}, instance AUC {shown(instance)}, bag AUC {shown(bag)}"

    record(
        "S048",
        ours=said("MHIM"),
        baseline=said("attention") + "; 80 epochs: " + said("attention, 80 epochs"),
        interval="; ".join(
            f"{what} {m:+.1f} [{low:+.1f}, {high:+.1f}]"
            for what, (m, low, high) in zip(("bag AUC", "instance AUC", "recall"), gain, strict=True)
        )
        + f"; recall over 80 epochs {longer[0]:+.1f} [{longer[1]:+.1f}, {longer[2]:+.1f}]",
        came_out=gain[2][1] > 0 and longer[1] > 0 and gain[0][0] >= -0.5,
        note=f"{given.seeds} seeds",
        dry=given.dry,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
