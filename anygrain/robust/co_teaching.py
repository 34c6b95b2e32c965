"""Co-teaching: two networks, each of which learns from what the other one finds easy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from anygrain.encoders.trainable import seeded
from anygrain.labels import LabelError, Labels
from anygrain.learn.procedure import Procedure
from anygrain.robust.fresh import Course, EpochTargets, fresh_head, takes_only

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner


def kept_share(epoch: int, noise: float, ramp: int) -> float:
    r""":math:`R(e) = 1 - \tau \min(e / T, 1)`: which part of a batch is learnt from in epoch e, counted from 0."""
    return 1 - noise * min(epoch / max(ramp, 1), 1.0) if ramp else 1 - noise


def easiest(loss: Tensor, share: float) -> Tensor:
    """Indices of the `share` of a batch with the smallest losses (B,), at least one of them."""
    return loss.topk(max(1, math.ceil(share * len(loss) - 1e-9)), largest=False).indices


class CoTeaching(Procedure):
    r"""Two heads that start apart; in every batch each picks the :math:`R(e)` part of smallest loss for the other.

    A network fits right labels before wrong ones, so its easy rows are mostly right; that another network picks them
    keeps an error from being confirmed by the one that made it. Composes with every kind of label (an epoch learns the
    posteriors under both heads of the epoch before), every loss and every head; not with terms or a weighting. Weights
    are not decayed.

    Args:
        noise: :math:`\tau`, the share of labels that is taken to be wrong.
        ramp: epochs in which the share that is left out rises to it.
        epochs, batch_size, learning_rate: used where the learner has none of its own.

    Attributes:
        picked_: (N,) how often, of the last `ramp` epochs, an instance was picked for the other head, 0..1, over both.

    Source: Han et al., Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels, 2018.
    """

    def __init__(
        self,
        noise: float = 0.2,
        ramp: int = 10,
        *,
        epochs: int = 40,
        batch_size: int = 128,
        learning_rate: float = 0.003,
    ) -> None:
        if not 0 <= noise < 1:
            raise LabelError(f"noise is {noise}; expected a share of 0 up to, not including, 1")
        if ramp < 0:
            raise LabelError(f"ramp is {ramp}; expected 0 or more epochs")
        self.noise, self.ramp = float(noise), int(ramp)
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate

    def check(self, learner: Learner, labels: Labels) -> None:
        takes_only(self, learner, "loss")

    def run(self, learner: Learner, features: Tensor, labels: Labels) -> None:
        course = Course.of(self, learner)
        loss, epochs = course.loss, course.epochs
        seed, width, k = int(learner.seed), features.shape[1], labels.n_classes
        heads = [fresh_head(learner, width, k, seed=2 * seed + i, like=features) for i in range(2)]
        steppers = [torch.optim.Adam(head.parameters(), lr=course.learning_rate) for head in heads]
        targets = EpochTargets(labels, features)
        weight = labels.instance_weight().to(features)
        generator = torch.Generator().manual_seed(seed)
        picked = features.new_zeros(len(features))
        counted = min(max(self.ramp, 1), epochs)
        history: list[dict[str, Any]] = []
        with seeded(seed):
            for epoch in range(epochs):
                target = targets.of_epoch(heads)
                share = kept_share(epoch, self.noise, self.ramp)
                for stepper in steppers:
                    course.at(stepper, min(1.0, (1 - epoch / epochs) / 0.6))
                total = 0.0
                for rows in targets.batches(course, generator):
                    for head in heads:
                        head.train()
                    values = [loss(head(features[rows]), target[rows]) for head in heads]
                    choices = [easiest(value.detach(), share) for value in values]
                    for value, stepper, chosen in zip(values, steppers, choices[::-1], strict=True):
                        w = weight[rows[chosen]]
                        objective = (w * value[chosen]).sum() / w.sum().clamp(min=1e-12)
                        stepper.zero_grad()
                        objective.backward()
                        stepper.step()
                        total += float(objective.detach()) / 2
                    if epoch >= epochs - counted:
                        for chosen in choices:
                            picked[rows[chosen]] += 0.5 / counted
                history.append(
                    {
                        "step": f"epoch {epoch + 1}",
                        "track": "co-teaching",
                        "round": epoch + 1,
                        "kept": share,
                        "objective": total / max(math.ceil(len(targets.rows) / course.batch_size), 1),
                    }
                )
        self.picked_ = picked.cpu()
        learner.head_, learner.history_ = heads[0].eval(), history
