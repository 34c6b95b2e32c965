"""Bags of digits with known instances, for the claims on bags: training and test bags of different rows."""

import numpy as np
import torch
from sklearn.datasets import load_digits

from anygrain.data.bag_data import BagData
from anygrain.labels import Bags

TARGET = 9


def halves(seed):
    """Digits (scikit-learn), pixels in 0..1, in two halves."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    first, second = order[: len(y) // 2], order[len(y) // 2 :]
    return (x[first] / 16, y[first]), (x[second] / 16, y[second])


def bags_of(rows, n_bags, size, positives, seed):
    """Every second bag holds the target: features (N, d), instance truth (N,), bags, bag truth (M,).

    Args:
        rows: features and digits to draw from, with replacement.
        size: instances of a bag, or their lowest and highest number.
        positives: function of a generator and a size to the number of positives of a positive bag.
    """
    x, y = rows
    rng = np.random.default_rng(seed)
    inside, outside = np.flatnonzero(y == TARGET), np.flatnonzero(y != TARGET)
    chosen, ids = [], []
    for bag in range(n_bags):
        n = size if isinstance(size, int) else int(rng.integers(size[0], size[1] + 1))
        k = positives(rng, n) if bag % 2 else 0
        drawn = np.concatenate([rng.choice(inside, k), rng.choice(outside, n - k)])
        chosen.append(rng.permutation(drawn))
        ids.append(np.full(n, bag))
    rows_of, ids = np.concatenate(chosen), np.concatenate(ids)
    return x[rows_of], (y[rows_of] == TARGET).astype(int), Bags.from_ids(torch.from_numpy(ids)), np.arange(n_bags) % 2


def as_rows(x, bags):
    """The same bags as rows."""
    return BagData.from_ids(x, bags.index.numpy())
