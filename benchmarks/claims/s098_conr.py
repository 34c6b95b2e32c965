"""ConR (S098): the contrastive regulariser on diabetes (scikit-learn) whose upper half of targets is thinned to 10 %.

A third of all rows is kept to test on, evenly over ten bins of the target. A network 64-32, absolute loss, Adam .002,
batches of 64, 200 epochs; two views of every row with Gaussian noise of .2 on standardised columns. ConR on the last
hidden layer: window 5 % of the range, temperature .2, density weights, strength .04, which is the 4 of the
source where the range is 100 years. Baselines: absolute loss, and the
same with density weights. Rare is the third of the target's range with the fewest training rows.
"""

import numpy as np
import torch
from results import arguments, interval, record, shown
from sklearn.datasets import load_diabetes
from torch import nn

from anygrain.robust import contrastive_regularizer, density_weights


def split(seed):
    """Training rows, thinned above the median, and test rows, as even over the range as there are."""
    x, y = load_diabetes(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    rng = np.random.default_rng(seed)
    bins = np.minimum(((y - y.min()) / np.ptp(y) * 10).astype(int), 9)
    test = np.concatenate([rng.permutation(np.flatnonzero(bins == b))[:15] for b in range(10)])
    rest = np.setdiff1d(np.arange(len(y)), test)
    high = y[rest] > np.median(y)
    train = rest[~high | (rng.random(len(rest)) < 0.1)]
    return x[train], y[train], x[test], y[test], (y.min(), np.ptp(y))


def errors(data, seed, *, strength=0.0, weighted=False):
    """Absolute errors of the test rows, in units of the range."""
    x, y, x_test, y_test, (low, span) = data
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
    head = nn.Linear(32, 1)
    inputs, target = torch.tensor(x, dtype=torch.float32), torch.tensor((y - low) / span, dtype=torch.float32)
    weights = density_weights(target, bins=20)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=0.002, weight_decay=1e-4)
    for _ in range(200):
        for rows in torch.randperm(len(target)).split(64):
            optimizer.zero_grad()
            views = torch.cat([inputs[rows] + 0.2 * torch.randn(len(rows), x.shape[1]) for _ in range(2)])
            features = body(views)
            said = head(features)[:, 0]
            both = target[rows].repeat(2)
            weight = weights[rows].repeat(2)
            loss = ((weight if weighted else 1.0) * (said - both).abs()).mean()
            if strength:
                loss = loss + strength * contrastive_regularizer(
                    features, both, said, weight, window=0.05, temperature=0.2, slope=1.0
                )
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        found = head(body(torch.tensor(x_test, dtype=torch.float32)))[:, 0].numpy()
    return np.abs(found - (y_test - low) / span)


def main():
    given = arguments(__doc__, 10)
    ways = {
        "ConR": {"strength": 0.04},
        "ConR, weighted": {"strength": 0.04, "weighted": True},
        "absolute": {},
        "weighted": {"weighted": True},
    }
    rare, overall = {name: [] for name in ways}, {name: [] for name in ways}
    for seed in range(given.seeds):
        data = split(seed)
        third = np.minimum((data[3] - data[4][0]) / data[4][1] * 3, 2.999).astype(int)
        inside = np.minimum((data[1] - data[4][0]) / data[4][1] * 3, 2.999).astype(int)
        fewest = np.argmin(np.bincount(inside, minlength=3))
        for name, how in ways.items():
            found = errors(data, seed, **how)
            rare[name].append(found[third == fewest].mean())
            overall[name].append(found.mean())
        print(seed, {n: (round(float(v[-1]), 3), round(float(overall[n][-1]), 3)) for n, v in rare.items()}, flush=True)
    change = {n: np.array(rare["ConR"]) / rare[n] - 1 for n in ("absolute", "weighted")}
    cost = {n: np.array(overall["ConR"]) / overall[n] - 1 for n in ("absolute", "weighted")}
    record(
        "S098",
        ours="absolute error in % of the range: "
        + "; ".join(f"{n}: rare {shown(rare[n])}, all {shown(overall[n])}" for n in ("ConR", "ConR, weighted")),
        baseline="; ".join(f"{n} loss: rare {shown(rare[n])}, all {shown(overall[n])}" for n in change),
        interval="; ".join(f"change against {n}, %: rare {shown(change[n])}, all {shown(cost[n])}" for n in change),
        came_out=all(interval(v)[0] <= -3 for v in change.values()) and all(interval(v)[0] <= 1 for v in cost.values()),
        dry=given.dry,
    )


if __name__ == "__main__":
    main()
