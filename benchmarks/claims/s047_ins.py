"""INS (S047): instances of digit bags from the labels of bags, against copied labels and attention.

Digits (scikit-learn), half of the rows for training bags, half for test bags: 100 bags of 50, every second one with 10
or 20 % of nines. Instance AUC on test bags; bag AUC by the largest instance probability. Baselines: the bag's label
copied onto every instance; attention of AB-MIL. It comes out when the instance AUC of INS is above both baselines at
both rates (lower ends of intervals, paired by seed) and its bag AUC is not below that of attention by more than a
point.
"""

import numpy as np
import torch
from digit_bags import as_rows, bags_of, halves
from results import arguments, interval, record, shown
from sklearn.metrics import roc_auc_score

from anygrain.bags import INS
from anygrain.encoders.bags import BagEncoder, segments
from anygrain.labels import AnyOf, Exact
from anygrain.learn import Learner

RATES = (0.1, 0.2)


def run(seed, rate):
    """Instance and bag AUC by method."""
    train, test = halves(seed)

    def positives(rng, n):
        return max(1, rng.binomial(n, rate))

    x, _, bags, w = bags_of(train, 100, 50, positives, seed)
    x_test, y_test, bags_test, w_test = bags_of(test, 100, 50, positives, 1000 + seed)
    labels = AnyOf(bags, torch.from_numpy(w), 1, 2)
    score = {}
    for name, model, given in (
        ("INS", Learner(head="mlp", procedure=INS(), seed=seed), labels),
        ("copied", Learner(seed=seed), Exact(w[bags.index.numpy()], 2)),
    ):
        score[name] = model.fit(x, given).predict_proba(x_test)[:, 1]
    attention = Learner(encoder=BagEncoder("attention"), seed=seed).fit(as_rows(x, bags), Exact(w, 2))
    data = as_rows(x_test, bags_test)
    score["attention"] = np.asarray(attention.attention(data))
    found = {name: roc_auc_score(y_test, values) for name, values in score.items()}
    of_bag = {
        name: roc_auc_score(w_test, segments.maximum(torch.as_tensor(values), bags_test.sizes).numpy())
        for name, values in score.items()
        if name != "attention"
    }
    of_bag["attention"] = roc_auc_score(w_test, attention.predict_proba(data)[:, 1])
    return found, of_bag


def main():
    given = arguments(__doc__, 5)
    ours, baseline, gains, came_out = [], [], [], True
    for rate in RATES:
        runs = [run(seed, rate) for seed in range(given.seeds)]
        auc = {name: np.array([r[0][name] for r in runs]) for name in runs[0][0]}
        of_bag = {name: np.array([r[1][name] for r in runs]) for name in runs[0][1]}
        ours.append(f"{rate:.0%}: {shown(auc['INS'])}")
        baseline.append(f"{rate:.0%}: " + ", ".join(f"{n} {shown(auc[n])}" for n in ("copied", "attention")))
        gain = {name: interval(auc["INS"] - auc[name]) for name in ("copied", "attention")}
        bag = interval(of_bag["INS"] - of_bag["attention"])
        gains.append(
            f"{rate:.0%}: "
            + ", ".join(f"over {n} {m:+.1f} [{low:+.1f}, {high:+.1f}]" for n, (m, low, high) in gain.items())
            + f", bag AUC over attention {bag[0]:+.1f} [{bag[1]:+.1f}, {bag[2]:+.1f}]"
        )
        came_out = came_out and all(low > 0 for _, low, _ in gain.values()) and bag[0] >= -1
        print(ours[-1], baseline[-1], gains[-1], flush=True)
    record(
        "S047",
        ours="instance AUC at rate of positives " + "; ".join(ours),
        baseline="; ".join(baseline),
        interval="; ".join(gains),
        came_out=came_out,
        note=f"one positive kept per positive bag, which the source does not; {given.seeds} seeds",
        dry=given.dry,
    )


if __name__ == "__main__":
    main()
