"""A transductive support vector machine: the boundary keeps away from rows without labels too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from anygrain.labels import LabelError, Labels
from anygrain.learn.calibration import fit_temperature
from anygrain.learn.head import Head
from anygrain.learn.procedure import Procedure
from anygrain.robust.fresh import alone, fresh_head, takes_only
from anygrain.robust.self_training import SURE
from anygrain.robust.settings import above
from anygrain.robust.votes import told_rows

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner


def squared_hinge(scores: Tensor, target: Tensor) -> Tensor:
    r""":math:`\sum_k q_k \max(0, 1 - z_k)^2 + (1 - q_k) \max(0, 1 + z_k)^2`, (B,), of scores and targets (B, K)."""
    inside, outside = (1 - scores).clamp(min=0).square(), (1 + scores).clamp(min=0).square()
    loss: Tensor = (target * inside + (1 - target) * outside).sum(dim=1)
    return loss


def symmetric_hinge(scores: Tensor) -> Tensor:
    r""":math:`\max(0, 1 - (z_{(1)} - z_{(2)}) / 2)^2`, (B,), the squared hinge of whatever class is likeliest.

    Of two classes with :math:`z_0 = -z_1` it is :math:`\max(0, 1 - |z_1|)^2`.
    """
    best = scores.topk(2, dim=1).values
    loss: Tensor = (1 - (best[:, 0] - best[:, 1]) / 2).clamp(min=0).square()
    return loss


class TransductiveSVM(Procedure):
    r"""A large margin on rows with labels and on rows without, whichever side these fall on.

    .. math:: \sum_{i \in L} a_i \sum_k \big[q_{ik} (1 - z_{ik})_+^2 + (1 - q_{ik}) (1 + z_{ik})_+^2\big]
              + C \Big[\sum_{i \in U} b_i \big(1 - (z_{i(1)} - z_{i(2)}) / 2\big)_+^2
              + \beta\, KL(s \,\|\, \bar p)\Big] + \tfrac{\lambda}{2} |W|^2

    with weights a and b that sum to 1. The first sum is a support vector machine of every class against the rest, the
    second the distance of rows without labels to the boundary between their two likeliest classes. The third holds
    their mean prediction, :math:`\bar p = \sum_{i \in U} b_i\, \mathrm{softmax}(2 z_i)`, near the class shares s of
    rows with labels: without, one class could take them all. C doubles from stage to stage: the problem is not convex,
    and starts as one that is. q is the posterior of a row's labels, found anew in every stage where they leave classes
    open, from scores at the temperature that makes the labels likeliest: margins of 1 are no probabilities.

    Composes with every kind of label and every head; not with a loss, terms or a weighting. Scores are made
    probabilities by the temperature of rows that were held out.

    Args:
        weight: C of the last stage; 0 is a support vector machine on rows with labels.
        balance: :math:`\beta`.
        stages: in which C rises.
        steps: of L-BFGS in a stage.

    Source: Joachims, Transductive Inference for Text Classification using Support Vector Machines, 1999; Chapelle and
    Zien, Semi-Supervised Classification by Low Density Separation, 2005.
    """

    def __init__(self, weight: float = 1.0, balance: float = 1.0, *, stages: int = 6, steps: int = 30) -> None:
        above(weight, "weight", open_bottom=False)
        above(balance, "balance", open_bottom=False)
        above(stages, "stages", 1, open_bottom=False)
        self.weight, self.balance, self.stages, self.steps = float(weight), float(balance), int(stages), int(steps)

    def check(self, learner: Learner, labels: Labels) -> None:
        takes_only(self, learner)

    def run(self, learner: Learner, features: Tensor, labels: Labels) -> None:
        self.check(learner, labels)
        told = told_rows(labels)
        if not bool(told.any()):
            raise LabelError("no row has any evidence: there is nothing to learn from")
        given = labels.instance_weight().to(features)
        target = alone(labels, features.dtype)
        unsettled = bool((target[told].amax(dim=1) < SURE).any())
        head = fresh_head(learner, features.shape[1], labels.n_classes, like=features)
        head.start(features[told], target[told])
        history: list[dict[str, Any]] = []
        for stage in range(self.stages + 1):
            cost = 0.0 if stage == 0 or bool(told.all()) else self.weight * 2.0 ** (stage - self.stages)
            value = self._minimise(head, features, target, told, given, cost, learner.penalty)
            with torch.no_grad():
                scores = head.logits(features)
            if unsettled:
                sharp = fit_temperature(labels, scores, told, default=1.0)
                target = labels.posterior((sharp * scores).log_softmax(dim=1))
            history.append(
                {
                    "step": f"stage {stage}",
                    "track": "transductive",
                    "round": stage,
                    "cost": cost,
                    "objective": value,
                    "by_class": torch.bincount(scores[~told].argmax(dim=1), minlength=labels.n_classes).tolist(),
                }
            )
        learner.head_, learner.history_ = head, history

    def _minimise(
        self, head: Head, features: Tensor, target: Tensor, told: Tensor, given: Tensor, cost: float, penalty: float
    ) -> float:
        """The objective at its minimum for one C, from where the head stands."""
        a, b = (given[rows] / given[rows].sum().clamp(min=1e-12) for rows in (told, ~told))
        share = (a @ target[told]).clamp(min=1e-6)
        stepper = torch.optim.LBFGS(
            head.parameters(), max_iter=self.steps, history_size=10, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            stepper.zero_grad()
            value: Tensor = (
                a @ squared_hinge(head.logits(features[told]), target[told]) + 0.5 * penalty * head.penalty()
            )
            if cost:
                scores = head.logits(features[~told])
                mean = (b @ (2 * scores).softmax(dim=1)).clamp(min=1e-30)
                away = (share * (share.log() - mean.log())).sum()
                value = value + cost * (b @ symmetric_hinge(scores) + self.balance * away)
            value.backward()
            return value

        with torch.enable_grad():
            return float(stepper.step(closure).detach())
