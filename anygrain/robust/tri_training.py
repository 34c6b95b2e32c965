"""Tri-training: three learners; what two of them agree on, the third learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anygrain.labels import Labels
from anygrain.robust.self_training import Handling, SelfTraining
from anygrain.robust.thresholds import Threshold
from anygrain.robust.votes import HeadVotes, told_rows

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

LEARNERS = 3


class TriTraining(SelfTraining):
    r"""Self-training by three heads that start from different samples of the rows with labels.

    A guess is taught to a head where the two others agree on the class; the threshold sees the mean of their
    probabilities, and those rows alone. Samples are drawn by exponential weights (the Bayesian bootstrap), so that no
    class is lost, one for all rows that labels join. The head that stays learns from all rows with labels, as they are,
    and what the three were taught: the mean of their targets, with the mean of their weights.

    Composes with every kind of label, every head and every loss; not with terms or a weighting.

    Args:
        sample: whether heads learn from samples; without, all three are the same head, and this is self-training.
        threshold, rounds, handling, steps: as in `SelfTraining`.
        calibrate: as there; of use to thresholds that are numbers, such as `Fixed`, and four times the time.

    Attributes:
        outcome_: see `Outcome`.

    Source: Zhou and Li, Tri-Training: Exploiting Unlabeled Data Using Three Classifiers, 2005.
    """

    own_head = False

    def __init__(
        self,
        threshold: Threshold | str | None = None,
        *,
        sample: bool = True,
        rounds: int = 10,
        handling: Handling | None = None,
        calibrate: bool = False,
        steps: int = 40,
    ) -> None:
        super().__init__(threshold, rounds=rounds, handling=handling, calibrate=calibrate, steps=steps)
        self.sample = sample

    def learners(self, learner: Learner, features: Tensor, labels: Labels) -> list[HeadVotes]:
        _, group = labels.groups().cpu().unique(return_inverse=True)
        random = torch.Generator().manual_seed(int(learner.seed))
        drawn = torch.ones(LEARNERS, int(group.max()) + 1)
        if self.sample:
            drawn.exponential_(generator=random)
        share = torch.where(told_rows(labels), drawn[:, group[labels.rows.cpu()]].to(features), 1.0)
        return [
            HeadVotes(learner, features, labels, share=own, calibrate=self.calibrate, steps=self.steps) for own in share
        ]

    def teach(self, votes: Tensor) -> tuple[Tensor, Tensor]:
        first, second = votes.roll(-1, dims=0), votes.roll(-2, dims=0)
        return (first + second) / 2, first.argmax(dim=2) == second.argmax(dim=2)
