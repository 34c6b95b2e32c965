"""The loop of gradient steps, for losses, terms and weightings of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from anygrain.learn.fabric import Fabric, OneDevice
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


class Objective(nn.Module):
    """Head, loss and terms as one module, so that a fabric can wrap all that is trained."""

    step: Step

    def __init__(
        self, head: Head, loss: Loss, terms: Sequence[Term], weighting: Weighting | None, penalty: float
    ) -> None:
        super().__init__()
        self.head, self.terms, self.penalty = head, nn.ModuleList(terms), penalty
        self.loss, self.weighting = loss, weighting

    def forward(self, features: Tensor, posterior: Tensor, weight: Tensor, instances: Tensor, epoch: int) -> Tensor:
        """The objective of a batch, a scalar; the step stays in `step`."""
        self.step = Step(self.head(features), features, posterior, instances, epoch)
        terms = [term for term in self.terms if isinstance(term, Term)]
        value = objective(self.step, self.loss, terms, self.weighting, weight)
        return value + 0.5 * self.penalty * self.head.penalty()


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
    fabric: Fabric | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> None:
    """Adam on the objective plus penalty / 2 x head.penalty(), from where the head stands; order drawn from the seed.

    On several processes every one takes each world-size-th batch of the same order; the fabric averages gradients.

    Args:
        features: (N, D).  posterior: (N, K).  weight: (N,).
        fabric: a launched `lightning.Fabric`; None is one device, in plain torch.
        on_epoch: called with the number of finished epochs and the mean objective of this process.
    """
    fabric = OneDevice() if fabric is None else fabric
    hooked: list[Term | Weighting] = [*terms, *([weighting] if weighting is not None else [])]
    for part in hooked:
        part.on_fit_start(learner)
    bare = Objective(head, loss, terms, weighting, penalty)
    module, optimizer = fabric.setup(bare, torch.optim.Adam(bare.parameters(), lr=learning_rate))
    generator = torch.Generator().manual_seed(seed)
    rank, world = fabric.global_rank, fabric.world_size
    for epoch in range(epochs):
        for part in hooked:
            part.on_epoch_start(epoch)
        batches = torch.randperm(len(features), generator=generator).to(features.device).split(batch_size)
        batches += batches[: -len(batches) % world]  # as many for every process
        total, seen = 0.0, 0
        for instances in batches[rank::world]:
            value = module(features[instances], posterior[instances], weight[instances], instances, epoch)
            optimizer.zero_grad()
            fabric.backward(value)
            optimizer.step()
            total, seen = total + float(value.detach()) * len(instances), seen + len(instances)
            for part in hooked:
                part.after_step(bare.step)
        if on_epoch is not None:
            on_epoch(epoch + 1, total / seen)
