"""Which of two classes of bags is the one that a single instance makes."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from anygrain.data.bag_data import BagData

FOLDS = 3  # that hold out every bag once
STEPS, RATE, DECAY = 60, 0.05, 0.03  # of Adam
ENTRIES = 2**22  # numbers that are looked at: more bags are not needed to tell
FURTHEST = 4.0  # standard deviations that a number is read to
SURE = 2.0  # standard errors by which class 0 has to be better
LEAST = 1e-6  # expected instances of the class in a bag


def made_by_one(data: BagData, classes: Tensor, seed: int = 0) -> int:
    r"""The class t of 0 and 1 whose presence in a bag tells held-out bags better, by linear models of its instances:

    .. math:: P(y_m = t) = 1 - \prod_{i \in m} \sigma(-w^\top \phi(x_i) - b), \qquad \phi(x) = (x, (x^2 - 1) / 2)

    Names do not always tell; class 0 is taken where it is better by two standard errors.

    Args:
        data: M bags.
        classes: of the bags (M,); -1 where not known. Both occur.
        seed: where folds, and the bags that are looked at, come from.
    """
    rows = some_of_each(data, classes, ENTRIES, seed)
    part = data[rows.numpy()]
    fold = torch.arange(len(rows)) % FOLDS
    lead = _held_out(part, classes[rows], fold) @ torch.tensor([1.0, -1.0])  # of class 0
    return int(float(lead.sum()) < SURE * math.sqrt(len(lead)) * float(lead.std(correction=0)) + 1e-9)


def some_of_each(data: BagData, classes: Tensor, entries: int, seed: int = 0) -> Tensor:
    """Bags of known class in random order, those of a class together: about as many as have so many numbers in all.

    Args:
        data: M bags.
        classes: of the bags (M,); -1 where not known.
        entries: numbers of instances; two bags of every class are taken anyway.
        seed: of the draw.
    """
    rows = (classes >= 0).nonzero()[:, 0]
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    rows = rows[torch.argsort(classes[rows], stable=True)]
    share = entries / (float(data.sizes[rows].sum()) * data.feature_dim)
    if share >= 1:
        return rows
    _, of_class, count = classes[rows].unique(return_inverse=True, return_counts=True)
    rank = torch.arange(len(rows)) - (count.cumsum(0) - count)[of_class]
    return rows[rank < (share * count).clamp(min=2).round()[of_class]]


def _held_out(data: BagData, classes: Tensor, fold: Tensor) -> Tensor:
    """Log-likelihood (M, 2) of held-out bags, by the presence of class 0 and of class 1."""
    found = data.features
    mean, scale = found.mean(axis=0, dtype=np.float64), found.std(axis=0, dtype=np.float64)
    scale[scale < 1e-9] = np.inf
    x = torch.from_numpy(((found - mean) / scale).astype(np.float32)).clamp(-FURTHEST, FURTHEST)
    x = torch.cat([x, (x.square() - 1) / 2], dim=1)
    bag, bags = data.bags.index, len(data)
    target = torch.stack([classes == 0, classes == 1]).repeat_interleave(FOLDS, dim=0)  # (2 F, M)
    inside = torch.stack([fold != f for f in range(FOLDS)]).repeat(2, 1)
    weight = torch.zeros(x.shape[1], len(target), requires_grad=True)
    bias = torch.full((len(target),), -math.log(max(len(x) / bags, 1.0)), requires_grad=True)
    optimizer = torch.optim.Adam([weight, bias], lr=RATE)

    def log_likelihood() -> Tensor:
        expected = torch.nn.functional.softplus(x @ weight + bias)
        none = torch.zeros(bags, len(target)).index_add(0, bag, expected).T.clamp(min=LEAST)  # -log P(none), (2 F, M)
        return torch.where(target, (-torch.expm1(-none)).log(), -none)

    with torch.enable_grad():
        for _ in range(STEPS):
            optimizer.zero_grad()
            fit = (log_likelihood() * inside).sum(dim=1) / inside.sum(dim=1)
            (0.5 * DECAY * weight.square().sum() - fit.sum()).backward()
            optimizer.step()
    with torch.no_grad():
        said = log_likelihood().clamp(min=-math.log(bags)) * ~inside
        return said.view(2, FOLDS, bags).sum(dim=1).T
