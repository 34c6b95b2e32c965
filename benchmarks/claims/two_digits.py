"""Images of two digits side by side, of scikit-learn's; which digits are in an image are its tags."""

import numpy as np
from sklearn.datasets import load_digits


def two_digits(rows, seed, *, shares=None, split="train"):
    """Images (rows, 8, 16) with values in 0..1, and tags (rows, 10).

    Args:
        shares: how often each digit is drawn, (10,); None: all alike.
        split: "train" or "test", which have no digit image in common.
    """
    images, digit = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8) / 16
    order = np.random.default_rng(12345).permutation(len(images))
    part = order[: len(order) // 2] if split == "train" else order[len(order) // 2 :]
    rng = np.random.default_rng(seed + (0 if split == "train" else 10_000))
    of_class = [part[digit[part] == k] for k in range(10)]
    shares = np.full(10, 0.1) if shares is None else np.asarray(shares) / np.sum(shares)
    classes = rng.choice(10, size=(rows, 2), p=shares)
    drawn = np.array([[rng.choice(of_class[k]) for k in pair] for pair in classes])
    tags = np.zeros((rows, 10), dtype=np.int64)
    tags[np.arange(rows)[:, None], classes] = 1
    return np.concatenate([images[drawn[:, 0]], images[drawn[:, 1]]], axis=2).astype(np.float32), tags
