r"""Losses for mean responses of bags: of the bag, of its instances, and all between.

.. math:: L_{bag} = \frac1m \sum_a \ell(\bar y_a, \bar f_a), \qquad
          L_{ins} = \frac1m \sum_a \frac1{k_a} \sum_{i \in a} \ell(\bar y_a, f_i), \qquad
          L_\rho = (1 - \rho) L_{bag} + \rho L_{ins}

With squares :math:`L_{ins} = L_{bag} + R`, R the spread of predictions within bags: rho pulls the predictions of a bag
together. Source: Javanmard et al., Learning from Aggregate Responses, 2024 (with the constant of R put right).
"""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.labels import Bags, LabelError

LOSSES = ("squared", "cross_entropy")
PER = ("bag", "instance")


def bag_means(values: Tensor, bags: Bags) -> Tensor:
    """Means over the members of every bag, (N, ...) to (M, ...)."""
    total = values.new_zeros(len(bags), *values.shape[1:]).index_add(0, bags.index, values[bags.members])
    return total / bags.sizes.to(values.dtype).view(-1, *[1] * (values.ndim - 1))


def within_bag_spread(predicted: Tensor, bags: Bags, per: str = "bag") -> Tensor:
    r""":math:`R = \frac1m \sum_a \frac1{k_a} \sum_{i \in a} |f_i - \bar f_a|^2`, a scalar.

    Args:
        predicted: (N,) or (N, C).
        bags: M bags of the instances.
        per: "bag": every bag counts the same; "instance": as much as it has members.
    """
    apart = predicted[bags.members] - bag_means(predicted, bags)[bags.index]
    return _mean(apart.square().flatten(1).sum(1) if apart.ndim > 1 else apart.square(), bags, per, members=True)


def aggregate_loss(
    predicted: Tensor,
    bags: Bags,
    responses: Tensor,
    rho: float = 0.0,
    *,
    loss: str = "squared",
    per: str = "bag",
) -> Tensor:
    r""":math:`L_\rho`, a scalar.

    Args:
        predicted: numbers (N,) or (N, C), or, for cross-entropy, log-probabilities (N, K).
        bags: M bags of the instances; whole ones, since a bag that is cut has another mean.
        responses: mean responses (M,) or (M, C), or shares of classes (M, K); a bag with NaN says nothing.
        rho: 0 is the loss of the bag, 1 that of its instances; more is stronger smoothing still (squares only).
        loss: "squared", or "cross_entropy" between shares and (mean) probabilities.
        per: "bag": every bag counts the same; "instance": as much as it has members.

    Raises:
        LabelError: an unknown loss or per, responses that do not fit, rho below 0, or above 1 with cross-entropy.
    """
    if loss not in LOSSES or per not in PER:
        raise LabelError(f"loss is {loss!r}, per is {per!r}; expected one of {LOSSES} and one of {PER}")
    if rho < 0 or (rho > 1 and loss == "cross_entropy"):
        raise LabelError(f"rho is {rho:g}; expected 0 (the bag) to 1 (its instances)")
    if responses.shape != (len(bags), *predicted.shape[1:]):
        raise LabelError(
            f"responses have the shape {tuple(responses.shape)}; expected ({len(bags)}, ...) of {len(bags)} bags and "
            f"predictions of the shape {tuple(predicted.shape)}"
        )
    told = ~responses.isnan().reshape(len(bags), -1).any(dim=1)
    target = torch.where(told.view(-1, *[1] * (responses.ndim - 1)), responses, 0.0).to(predicted)
    if loss == "squared":
        of_bag = (target - bag_means(predicted, bags)).square().reshape(len(bags), -1).sum(1)
        found = _mean(of_bag, bags, per, told=told)
        if rho == 0:
            return found
        spread = predicted[bags.members] - bag_means(predicted, bags)[bags.index]
        return found + rho * _mean(spread.square().reshape(len(spread), -1).sum(1), bags, per, members=True, told=told)
    mean = bag_means(predicted.exp(), bags).clamp(min=torch.finfo(predicted.dtype).tiny).log()
    found = _mean(-(target * mean).sum(1), bags, per, told=told)
    if rho == 0:
        return found
    of_members = -(target[bags.index] * predicted[bags.members]).sum(1)
    return (1 - rho) * found + rho * _mean(of_members, bags, per, members=True, told=told)


def _mean(values: Tensor, bags: Bags, per: str, *, members: bool = False, told: Tensor | None = None) -> Tensor:
    """Mean over bags of what bags (M,) or, on the mean within each bag, their members (E,) have."""
    if members:
        values = values.new_zeros(len(bags)).index_add(0, bags.index, values) / bags.sizes.to(values.dtype)
    weight = torch.ones_like(values) if per == "bag" else bags.sizes.to(values.dtype)
    if told is not None:
        weight = weight * told
    return (weight * values).sum() / weight.sum().clamp(min=torch.finfo(values.dtype).tiny)
