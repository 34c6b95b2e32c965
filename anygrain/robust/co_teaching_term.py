"""Co-teaching for networks that are trained with their head: a second network beside the first."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anygrain.encoders.trainable import TrainableEncoder, seeded
from anygrain.labels import LabelError
from anygrain.learn.loss import cross_entropy
from anygrain.learn.step import Step
from anygrain.learn.term import Term
from anygrain.robust.co_teaching import easiest, kept_share
from anygrain.robust.fresh import fresh_head
from anygrain.robust.settings import share

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner


class CoTeachingTerm(Term):
    r"""In every batch two networks learn the :math:`R(e)` part of it that the other one finds easiest.

    .. math:: \frac{1}{|B_2|} \sum_{i \in B_2} \mathrm{loss}(\log p^1_i, q_i)
              + \frac{1}{|B_1|} \sum_{i \in B_1} \mathrm{loss}(\log p^2_i, q_i)

    with :math:`B_j` the instances of a batch of smallest loss under network j. The second network has the form of the
    first, other first weights unless they are pretrained, and its own random changes of the rows; it is left aside when
    predicting. q is the posterior of a row's evidence under the first, so it goes with every kind of label of classes.
    A whole objective: use it with `loss=terms_alone`, as `method("co_teaching_term")` does.

    Args:
        noise: the share of labels that is taken to be wrong.
        ramp: epochs in which the share that is left out rises to it.

    Source: Han et al., Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels, 2018.
    """

    def __init__(self, noise: float = 0.2, ramp: int = 10) -> None:
        super().__init__()
        share(noise, "noise")
        if ramp < 0:
            raise LabelError(f"ramp is {ramp}; expected 0 or more epochs")
        self.noise, self.ramp = float(noise), int(ramp)

    def on_fit_start(self, learner: Learner) -> None:
        encoder = learner.encoder_
        if not isinstance(encoder, TrainableEncoder):
            raise LabelError('CoTeachingTerm trains networks; on fixed features use method("co_teaching")')
        seed, labels = int(learner.seed), learner.labels_
        self.weight = labels.instance_weight()
        self.change = encoder.augmentation() if isinstance(learner.augmentation, str) else learner.augmentation
        self.encoder = started_anew(encoder, seed)
        device = next(encoder.parameters()).device
        self.head = fresh_head(learner, encoder.feature_dim, labels.n_classes, seed + 1).to(device)

    def forward(self, step: Step) -> Tensor:
        view = step.view
        if view is None:
            raise LabelError("CoTeachingTerm looks at rows, which a procedure does not show it")
        arrays = view.arrays
        if self.change is not None:  # the loop seeds torch's generator by epoch
            generator = torch.Generator().manual_seed(int(torch.randint(2**62, (1,))))
            moved = self.change.weak({name: array.cpu() for name, array in arrays.items()}, generator)
            arrays = {name: array.to(arrays[name].device) for name, array in moved.items()}
        said = self.head(self.encoder.encode(arrays))
        other = view.of_instances(said, view.place, step.instances)
        w = self.weight[step.instances.to(self.weight.device)].to(step.posterior)
        losses = [cross_entropy(log_probs, step.posterior) for log_probs in (step.log_probs, other)]
        part = kept_share(step.epoch, self.noise, self.ramp)
        chosen = [easiest(loss.detach(), part) for loss in losses]
        means = [
            (w[rows] * loss[rows]).sum() / w[rows].sum().clamp(min=1e-12)
            for loss, rows in zip(losses, chosen[::-1], strict=True)
        ]
        return means[0] + means[1]


def started_anew(encoder: TrainableEncoder, seed: int) -> TrainableEncoder:
    """A copy with first weights of its own, where those of the encoder were drawn from the seed; else with the same."""
    twin = copy.deepcopy(encoder)
    if type(twin).build is TrainableEncoder.build:
        return twin
    device = next(encoder.parameters()).device
    rebuilt = copy.deepcopy(encoder)
    with seeded(seed):
        rebuilt.build()
    before, after = encoder.state_dict(), rebuilt.state_dict()
    drawn = all(torch.equal(before[key].cpu(), after[key].cpu()) for key in before)
    if drawn:
        with seeded(seed + 1):
            twin.build()
    return twin.to(device)
