"""What single labels are worth: data Shapley on nearest neighbours, and leave-one-out influence on a linear head."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: entries of a table of distances
CHUNK = 2**22


def knn_shapley(
    features: Tensor, labels: Tensor, validation: Tensor, validation_labels: Tensor, neighbours: int = 10
) -> Tensor:
    r"""Shapley value of every training row for nearest-neighbour classification, (N,), in float64.

    The utility of a set S of training rows is the mean, over validation rows, of the probability that the nearest
    neighbours give to the right class:

    .. math:: v(S) = \frac1V \sum_v \frac1k \sum_{i \in \text{nearest } \min(k, |S|) \text{ of } S} m(i, v), \quad
              s_N = \frac{\min(k, N)}{k N} m(N, v), \quad
              s_i = s_{i+1} + \frac{m(i, v) - m(i + 1, v)}{k} \frac{\min(k, i)}{i}

    for rows in order of their distance from v, with m the match of their labels: 1 or 0, or the chance that both are of
    one class where labels are probabilities. Exact, in N log N per validation row; never an N x N table.

    Args:
        features: (N, D).
        labels: classes (N,), or probabilities (N, K).
        validation, validation_labels: of the V rows that value is measured on, (V, D) and (V,) or (V, K).
        neighbours: k.

    Source: Jia and others, Efficient task-specific data valuation for nearest neighbor algorithms, 2019.
    """
    n = len(features)
    total = torch.zeros(n, dtype=torch.float64)
    if not n or not len(validation):
        return total
    place = torch.arange(1, n + 1, dtype=torch.float64)
    factor = place.clamp(max=neighbours) / place / neighbours  # min(k, i) / (i k)
    squares = features.square().sum(dim=1)
    for rows in torch.arange(len(validation)).split(max(CHUNK // n, 1)):
        distance = torch.addmm(squares, validation[rows], features.T, alpha=-2)  # less the square of v: same order
        order = distance.argsort(dim=1, stable=True)
        match = _match(labels, validation_labels[rows]).gather(1, order)
        step = (match[:, :-1] - match[:, 1:]) * factor[:-1]
        last = match[:, -1:] * factor[-1]
        value = torch.cat([step.flip(1).cumsum(dim=1).flip(1) + last, last], dim=1)
        total.scatter_add_(0, order.reshape(-1), value.reshape(-1))
    return total / len(validation)


def _match(labels: Tensor, other: Tensor) -> Tensor:
    """Chance that rows (V,) and (N,) are of one class, (V, N), in float64."""
    if labels.ndim == 1 and other.ndim == 1:
        return (other[:, None] == labels).double()
    if labels.ndim == 1:
        return other.double()[:, labels]
    if other.ndim == 1:
        return labels.double().T[other]
    return other.double() @ labels.double().T


def label_influence(
    features: Tensor,
    labels: Tensor,
    validation: Tensor,
    validation_labels: Tensor,
    *,
    penalty: float = 0.01,
    steps: int = 100,
) -> Tensor:
    r"""How much every label lowers the loss of a linear head on validation rows, (N,), in float64.

    To first order, the rise of the mean validation loss when row i is left out of the fit:

    .. math:: I_i = \frac1N \nabla L_{val}^\top H^{-1} \nabla \ell_i, \qquad
              L(W) = \frac1N \sum_i \ell_i(W) + \frac{\lambda}{2} \lVert W \rVert^2

    at the minimum of L for softmax regression, H its Hessian. One system H s = grad is solved by conjugate gradients
    with products by H, (N, D) and (D, K) at a time: no matrix of N x N or DK x DK is formed.

    Args:
        features: (N, D); a constant is added, without penalty but for a trace that keeps H regular.
        labels: classes (N,), or probabilities (N, K).
        validation, validation_labels: of the V rows that the loss is measured on.
        penalty: lambda.
        steps: of the fit, at most, and of conjugate gradients.

    Returns:
        positive where the label helps, negative where the head is better without it.

    Source: Koh and Liang, Understanding black-box predictions via influence functions, 2017.
    """
    k = max(_n_classes(labels), _n_classes(validation_labels))
    x, t = _with_constant(features), _one_hot(labels, k)
    decay = torch.full((x.shape[1], 1), penalty, dtype=torch.float64)
    decay[-1] = 1e-6
    weight = _fitted(x, t, decay, steps)
    p = (x @ weight).softmax(dim=1)
    gap = p - t
    z, u = _with_constant(validation), _one_hot(validation_labels, k)
    gradient = z.T @ ((z @ weight).softmax(dim=1) - u) / len(z)

    def product(v: Tensor) -> Tensor:
        change = x @ v
        bent = p * (change - (p * change).sum(dim=1, keepdim=True))
        return x.T @ bent / len(x) + decay * v

    solved = _conjugate_gradients(product, gradient, max(steps, 200))
    own = (gap * (x @ solved)).sum(dim=1)
    return own / len(x)


def _fitted(x: Tensor, target: Tensor, decay: Tensor, steps: int) -> Tensor:
    """Weights (D, K) at the minimum of the penalised loss."""
    weight = torch.zeros(x.shape[1], target.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [weight], max_iter=steps, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimiser.zero_grad()
        loss = -(target * (x @ weight).log_softmax(dim=1)).sum(dim=1).mean()
        loss = loss + (decay * weight.square()).sum() / 2
        loss.backward()
        return float(loss.detach())

    optimiser.step(closure)
    return weight.detach()


def _conjugate_gradients(product: object, right: Tensor, steps: int) -> Tensor:
    """The solution of H s = right, for a product with a positive definite H."""
    assert callable(product)
    found, rest = torch.zeros_like(right), right.clone()
    direction, size = rest.clone(), rest.square().sum()
    stop = 1e-16 * size
    for _ in range(steps):
        if bool(size <= stop):
            break
        image = product(direction)
        step = size / (direction * image).sum()
        found = found + step * direction
        rest = rest - step * image
        new = rest.square().sum()
        direction = rest + (new / size) * direction
        size = new
    return found


def _n_classes(labels: Tensor) -> int:
    return labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1


def _one_hot(labels: Tensor, k: int) -> Tensor:
    if labels.ndim == 2:
        return labels.double()
    return torch.nn.functional.one_hot(labels.long(), k).double()


def _with_constant(features: Tensor) -> Tensor:
    x = features.double()
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)


def held_out_value(
    features: np.ndarray,
    labels: Tensor,
    believed: Tensor,
    groups: np.ndarray,
    *,
    seed: int = 0,
    validation: int = 1000,
) -> tuple[np.ndarray, np.ndarray]:
    """Influence and Shapley value of every row's label, (N,) each, measured on rows of the other half.

    What is believed of the other half stands for its truth: measured on its labels as they are, wrong labels would seem
    to help, since they keep a head from being sure of labels that are wrong elsewhere. Rows of one group stay together.

    Args:
        features: (N, D).
        labels: probabilities (N, K) that the labels of a row come to.
        believed: P(class | features, all labels), (N, K).
        groups: (N,).
        seed: of the halves.
        validation: rows of the other half to measure on, at most.
    """
    from anygrain.learn.recipe import split_groups

    generator = torch.Generator().manual_seed(seed)
    half = split_groups(torch.from_numpy(groups), 2, generator)
    x = torch.from_numpy(np.asarray(features, dtype=np.float64))
    x = x / x.square().mean().sqrt().clamp(min=1e-12)
    influence, shapley = torch.zeros(len(x), dtype=torch.float64), torch.zeros(len(x), dtype=torch.float64)
    for own in (0, 1):
        rows, others = (half == own).nonzero()[:, 0], (half != own).nonzero()[:, 0]
        if not len(rows) or not len(others):
            continue
        others = others[torch.randperm(len(others), generator=generator)[:validation]]
        influence[rows] = label_influence(x[rows], labels[rows], x[others], believed[others])
        shapley[rows] = knn_shapley(x[rows].float(), labels[rows], x[others].float(), believed[others])
    return influence.numpy(), shapley.numpy()
