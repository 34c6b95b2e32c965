"""Votes of heads on fixed features, calibrated on rows that they did not learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anygrain.labels import Labels
from anygrain.learn.calibration import fit_temperature
from anygrain.learn.end_to_end import SHRINK, doubts
from anygrain.learn.head import Head
from anygrain.learn.loss import cross_entropy
from anygrain.learn.recipe import split_groups
from anygrain.robust.fresh import alone, fit_with, fresh_head

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

FOLDS = 3  # of rows with labels, for votes by models that did not learn from them


def told_rows(labels: Labels) -> Tensor:
    """Instances of which something is said, bool (N,)."""
    return (doubts(labels) < 1).to(labels.device)


def folds_of(labels: Labels, target: Tensor, told: Tensor, generator: torch.Generator) -> Tensor:
    """Fold (N,) of instances with labels: sets whole, or, where there are none, classes spread; -1 elsewhere."""
    if labels.structure.n_sets:
        fold = split_groups(labels.groups()[labels.rows].cpu(), FOLDS, generator).to(target.device)
        return torch.where(told, fold, -1)
    rows = told.nonzero()[:, 0]
    rows = rows[torch.randperm(len(rows), generator=generator).to(rows.device)]
    rows = rows[torch.argsort(target[rows].argmax(dim=1), stable=True)]
    fold = torch.full((len(told),), -1, device=target.device)
    fold[rows] = torch.arange(len(rows), device=target.device) % FOLDS
    return fold


class HeadVotes:
    """Fits a fresh head of the learner's kind to rows, targets and weights; gives its probabilities of all rows.

    Args:
        features: (N, D).
        labels: of N instances; temperatures are found from what they say.
        columns: the features that the head sees, (D',); all where not given.
        share: (N,) multiplies weights, for heads that learn from samples of the rows.
        calibrate: whether votes are flattened or sharpened to what rows with labels bear out, by heads that did not
            learn from them.
        steps: of L-BFGS.
    """

    def __init__(
        self,
        learner: Learner,
        features: Tensor,
        labels: Labels,
        *,
        columns: Tensor | None = None,
        share: Tensor | None = None,
        calibrate: bool = True,
        steps: int = 40,
    ) -> None:
        self.learner, self.labels, self.calibrate, self.steps = learner, labels, calibrate, steps
        self.features = features if columns is None else features[:, columns.to(features.device)]
        self.share = share
        self.told = told_rows(labels)
        generator = torch.Generator().manual_seed(int(learner.seed))
        self.fold = folds_of(labels, alone(labels, features.dtype), self.told, generator)

    def head(self, rows: Tensor, target: Tensor, weight: Tensor) -> Head:
        """Fitted to the features of rows (R,), towards targets (R, K) with weights (R,)."""
        weight = weight if self.share is None else weight * self.share[rows]
        x, learner = self.features[rows], self.learner
        head = fresh_head(learner, x.shape[1], self.labels.n_classes, like=x)
        head.start(x, target)
        loss = cross_entropy if learner.loss is None else learner.loss
        return fit_with(head, x, target, weight, loss, penalty=learner.penalty, steps=self.steps)

    def logits(self, head: Head) -> Tensor:
        """Of all rows, (N, K)."""
        with torch.no_grad():
            return head.logits(self.features)

    def __call__(self, rows: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, tuple[Head, float]]:
        """Probabilities (N, K), the head and its inverse temperature."""
        head = self.head(rows, target, weight)
        logits = self.logits(head)
        if not self.calibrate:
            return logits.softmax(dim=1), (head, 1.0)
        apart, seen = torch.zeros_like(logits), torch.zeros_like(self.told)
        for f in self.fold[self.told].unique().tolist():
            kept = self.fold[rows] != f
            if bool(kept.any()):
                apart[self.fold == f] = self.logits(self.head(rows[kept], target[kept], weight[kept]))[self.fold == f]
                seen |= self.fold == f
        n = int((seen & self.told).sum())
        temperature = fit_temperature(self.labels, apart, seen & self.told, default=1.0) ** (n / (n + SHRINK))
        return (temperature * logits).softmax(dim=1), (head, temperature)
