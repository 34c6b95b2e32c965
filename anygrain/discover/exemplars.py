"""Rows that show what a class is, and the known class that lies nearest."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

EXEMPLARS = 5  # of every class
AT_ONCE = 65536  # rows whose distances are held together


def class_means(embedded: Tensor, labels: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Means (K, E) of the rows of every class, 0 where there are none, and how many rows each has, (K,)."""
    size = torch.bincount(labels, minlength=n_classes)
    total = embedded.new_zeros(n_classes, embedded.shape[1]).index_add(0, labels, embedded)
    return total / size.clamp(min=1)[:, None], size


def exemplars(embedded: Tensor, labels: Tensor, n_classes: int, most: int = EXEMPLARS) -> list[np.ndarray]:
    """For every class the rows nearest to its mean, nearest first.

    Args:
        embedded: (N, E) rows in the space of a model.
        labels: (N,) class of every row.
    """
    means, size = class_means(embedded, labels, n_classes)
    parts = zip(embedded.split(AT_ONCE), labels.split(AT_ONCE), strict=True)
    distance = torch.cat([(part - means[own]).square().sum(dim=1) for part, own in parts])
    order = distance.argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]  # by class, nearest first within each
    first = size.cumsum(0) - size
    place = torch.arange(len(order)) - first[labels[order]]
    near = order[place < most]
    return [part.numpy() for part in near.split(size.clamp(max=most).tolist())]


def nearest_known(embedded: Tensor, labels: Tensor, n_classes: int, n_known: int) -> np.ndarray:
    """The known class, of the first G, whose mean lies nearest to that of every class, (K,); -1 where there is none."""
    if n_known == 0:
        return np.full(n_classes, -1)
    means, size = class_means(embedded, labels, n_classes)
    apart = torch.cdist(means, means[:n_known])
    apart[:, size[:n_known] == 0] = torch.inf
    nearest = apart.argmin(dim=1)
    return torch.where(torch.arange(n_classes) < n_known, torch.arange(n_classes), nearest).numpy()
