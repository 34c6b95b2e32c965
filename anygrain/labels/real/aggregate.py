"""Numbers and annotators from labels alone, without features: expectation maximisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from anygrain.labels.real.base import RealLabels
from anygrain.labels.real.rating_channel import RatingChannel

LEARNING = 15  # iterations that learn the penalty of the channels


@dataclass(frozen=True)
class RealAggregated:
    """What real-valued labels say by themselves.

    Attributes:
        mean, variance: posterior of every instance, shape (N,), in float64.
        prior_mean, prior_variance: of the population.
        log_likelihood: path of the penalised log-likelihood under the learnt penalty; it never falls.
        channels: the fitted channels of the labels.
        labels: the labels with these channels.
        converged: whether the path had settled.
    """

    mean: Tensor
    variance: Tensor
    prior_mean: float
    prior_variance: float
    log_likelihood: Tensor
    channels: tuple[RatingChannel, ...]
    labels: RealLabels
    converged: bool


def aggregate_values(labels: RealLabels, *, iterations: int = 200, tolerance: float = 1e-7) -> RealAggregated:
    r"""Fit the channels of labels and the population :math:`y_i \sim N(\mu, \sigma^2)` by EM, without features.

    .. math:: \max_{\theta, \mu, \sigma} \sum_o w_o \log P(o \mid \mu, \sigma^2, \theta) + \log p(\theta)

    In a first phase each step also learns the penalty of the channels (spread of the biases, strength of shrinkage) by
    marginal likelihood; then it stands and the objective never falls. Channels are fitted in place.

    Args:
        labels: real-valued labels of any kind.
        iterations: at most, in the second phase.
        tolerance: stop once the objective rises by less than this per instance.

    Raises:
        LabelError: labels that say nothing at all.
    """
    mean, sd = labels.location_scale()
    seen = labels.evident
    like = torch.zeros(labels.n_instances, dtype=torch.float64, device=labels.device)
    channels = tuple(dict.fromkeys(labels.channels))
    weight = None if labels.weight is None else labels.weight.double()
    share = seen.double() if labels.weight is None else labels.instance_weight().double() * seen
    floor = (1e-3 * sd) ** 2
    variance = sd**2

    def infer() -> tuple[Tensor, Tensor, Tensor]:
        value, belief = labels.infer(like + mean, like + variance)
        total = value.sum() if weight is None else (value * weight).sum()
        return total + sum((c.log_prior() for c in channels), like.new_zeros(())), *belief

    def step(found: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        nonlocal mean, variance
        _, y, spread = found
        labels.update(y, spread)
        mean = float((share * y).sum() / share.sum())
        variance = max(float((share * ((y - mean).square() + spread)).sum() / share.sum()), floor)
        return infer()

    was_settled = [c.prior_is_settled for c in channels]
    found = infer()
    try:
        for _ in range(LEARNING if channels else 0):
            found = step(found)
        for c in channels:
            c.prior_is_settled = True
        path, converged = [infer()[0]], False
        for _ in range(iterations):
            found = step(found)
            path.append(found[0])
            if path[-1] - path[-2] < tolerance * labels.n_instances:
                converged = True
                break
    finally:
        for c, was in zip(channels, was_settled, strict=True):
            c.prior_is_settled = was
    if len(path) > 1 and path[-1] < path[-2]:  # by rounding, once nothing moves any more
        path.pop()
    return RealAggregated(found[1], found[2], mean, variance, torch.stack(path), channels, labels, converged)
