"""Rows that are unlike each other: a batch of near copies is worth one label."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from anygrain.labels import LabelError


def badge(log_probs: Tensor, features: Tensor, n: int, *, generator: torch.Generator) -> Tensor:
    r"""Rows by k-means++ on the gradients that their likeliest labels would cause, (n,), in the order drawn.

    .. math:: g_i = (p_i - e_{\hat y_i}) \otimes h_i, \qquad P(i) \propto \min_j \lVert g_i - g_j \rVert^2, j drawn

    Long gradients are unsure rows, far ones unlike what was drawn. The (N, K D) matrix of gradients is never made:
    inner products of outer products are products of inner products.

    Args:
        log_probs: (N, K).
        features: (N, D), as the last layer sees them.
        n: rows to draw, at most N.
        generator: where randomness comes from.

    Source: Ash et al., Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds, 2020.
    """
    residual = log_probs.exp()
    residual = residual - torch.nn.functional.one_hot(residual.argmax(dim=1), residual.shape[1]).to(residual)
    return drawn_by_gradient(residual, features, n, generator=generator)


def drawn_by_gradient(residual: Tensor, features: Tensor, n: int, *, generator: torch.Generator) -> Tensor:
    """Rows by k-means++ on outer products of residuals (N, C) and features (N, D), (n,), in the order drawn.

    The longest one is first.
    """
    length = residual.square().sum(dim=1) * features.square().sum(dim=1)

    def distance(i: int) -> Tensor:
        inner = (residual @ residual[i]) * (features @ features[i])
        return (length + length[i] - 2 * inner).clamp(min=0)

    return drawn_apart(distance, int(length.argmax()), n, len(features), generator)


def k_center(features: Tensor, n: int, known: Tensor | None = None) -> Tensor:
    r"""Rows that leave no row far from a chosen or labelled one, (n,), in the order chosen (core-set selection).

    .. math:: i^* = \arg\max_i \min_{j \in \text{chosen} \cup \text{labelled}} \lVert h_i - h_j \rVert

    Greedy; its radius is at most twice the best one. The first is the row farthest from the labelled ones, or from the
    mean where nothing is labelled.

    Args:
        features: (N, D).
        n: rows to choose, at most N.
        known: rows that are labelled already, (m,) indices; they are not chosen.

    Source: Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, 2018.
    """
    nearest = features.new_full((len(features),), torch.inf)
    if known is None or not len(known):
        nearest = (features - features.mean(dim=0)).square().sum(dim=1)
        first = int(nearest.argmax())
        nearest = _squared(features, features[first])
        chosen = [first]
    else:
        for block in known.split(256):
            nearest = torch.minimum(nearest, torch.cdist(features, features[block]).square().amin(dim=1))
        nearest[known] = -1
        chosen = []
    while len(chosen) < n:
        i = int(nearest.argmax())
        if nearest[i] < 0:
            raise LabelError(f"{n} rows were asked for, and only {len(chosen)} are not labelled yet")
        chosen.append(i)
        nearest = torch.minimum(nearest, _squared(features, features[i]))
        nearest[i] = -1
    return torch.tensor(chosen)


def spread(score: Tensor, features: Tensor, n: int, *, pool: int = 10, generator: torch.Generator) -> Tensor:
    """Rows with high scores that are unlike each other, (n,), the highest score first.

    The `pool` n rows of highest score are kept, and n of them drawn as k-means++ draws its centres, with chances
    proportional to score times squared distance to the nearest one drawn.

    Args:
        score: (N,), above or equal 0; higher is wanted more.
        features: (N, D).
        n: rows to draw.
        pool: how many times n rows are looked at.
        generator: where randomness comes from.
    """
    best = score.topk(min(pool * n, len(score))).indices
    near, worth = features[best], score[best].clamp(min=0)

    def distance(i: int) -> Tensor:
        return _squared(near, near[i]) * worth

    drawn = best[drawn_apart(distance, 0, min(n, len(best)), len(best), generator)]
    return drawn[score[drawn].argsort(descending=True, stable=True)]


def _squared(rows: Tensor, row: Tensor) -> Tensor:
    return (rows - row).square().sum(dim=1)


def drawn_apart(
    distance: Callable[[int], Tensor], first: int, n: int, n_rows: int, generator: torch.Generator
) -> Tensor:
    """n different rows of n_rows: `first`, then each with chances by its distance to the nearest drawn."""
    if n > n_rows:
        raise LabelError(f"{n} rows were asked for, and there are {n_rows}")
    nearest = distance(first)
    left = torch.ones(n_rows, dtype=torch.bool)
    left[first] = False
    chosen = [first]
    while len(chosen) < n:
        chance = torch.where(left.to(nearest.device), nearest, 0.0).double().cpu()
        if not float(chance.sum()) > 0:
            chance = left.double()  # what is left are copies of what was drawn
        i = _draw(chance, generator)
        chosen.append(i)
        left[i] = False
        nearest = torch.minimum(nearest, distance(i))
    return torch.tensor(chosen)


def _draw(chance: Tensor, generator: torch.Generator) -> int:
    """One index with these chances; unlike `multinomial`, of any number of rows."""
    total = chance.cumsum(dim=0)
    at = torch.rand((), generator=generator, dtype=torch.double) * total[-1]
    found = int(torch.searchsorted(total, at, right=True))
    return min(found, int(chance.nonzero()[-1]))
