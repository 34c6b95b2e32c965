"""The loop of gradient steps, for losses, terms and weightings of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from anygrain.learn.head import Head
from anygrain.learn.loss import Loss
from anygrain.learn.step import Step
from anygrain.learn.term import Term
from anygrain.learn.weighting import Weighting

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner


def objective(step: Step, loss: Loss, terms: Sequence[Term], weighting: Weighting | None, weight: Tensor) -> Tensor:
    r""":math:`\frac{\sum_i w_i\, \mathrm{loss}(\log p_i, q_i)}{\sum_i w_i} + \sum_t \mathrm{term}_t`, a scalar.

    Args:
        weight: (B,), the user's weights of the instances.
    """
    value = loss(step.log_probs, step.posterior)
    if weighting is not None:
        weight = weight * weighting(step).detach()
    total = (weight * value).sum() / weight.sum().clamp(min=1e-12)
    for term in terms:
        total = total + term(step)
    return total


def train(
    learner: Learner,
    head: Head,
    features: Tensor,
    posterior: Tensor,
    weight: Tensor,
    *,
    loss: Loss,
    terms: Sequence[Term],
    weighting: Weighting | None,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    penalty: float,
    seed: int,
    on_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Adam on the objective plus penalty / 2 x head.penalty(), from where the head stands; order drawn from the seed.

    Args:
        features: (N, D).  posterior: (N, K).  weight: (N,).
        on_epoch: called with the number of finished epochs and the mean objective.
    """
    hooked: list[Term | Weighting] = [*terms, *([weighting] if weighting is not None else [])]
    for part in hooked:
        part.on_fit_start(learner)
    modules = nn.ModuleList([head, *terms])
    optimizer = torch.optim.Adam(modules.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    n = len(features)
    for epoch in range(epochs):
        for part in hooked:
            part.on_epoch_start(epoch)
        total = 0.0
        for instances in torch.randperm(n, generator=generator).to(features.device).split(batch_size):
            batch = features[instances]
            step = Step(head(batch), batch, posterior[instances], instances, epoch)
            value = objective(step, loss, terms, weighting, weight[instances]) + 0.5 * penalty * head.penalty()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            total += float(value.detach()) * len(instances)
            for part in hooked:
                part.after_step(step)
        if on_epoch is not None:
            on_epoch(epoch + 1, total / n)
