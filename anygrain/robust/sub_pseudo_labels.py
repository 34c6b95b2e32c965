"""Sub-pseudo labels: where a weak label and a teacher disagree, the pair is a class of its own, to pretrain on."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from anygrain.encoders.trainable import seeded
from anygrain.labels import Exact, LabelError, Labels
from anygrain.learn.head import Perceptron
from anygrain.learn.loss import cross_entropy
from anygrain.learn.procedure import Procedure
from anygrain.learn.recipe import exact_classes, without_exact
from anygrain.robust.fresh import Course, alone, fit_with, fresh_head, needs_hidden_layer, takes_only
from anygrain.robust.subclass_balancing import fit_outer

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

Reduction = Literal["grid", "agreement", "density"]
REST = -1  # the teacher's class of a label for all that is left of a weak class


@dataclass(frozen=True)
class SubLabels:
    """Classes to pretrain on.

    Attributes:
        labels: (N,), 0..S-1, without gaps.
        table: (S, 2) weak class and teacher's class of each; -1 as the latter stands for the rest of the weak class.
        counts: (S,) rows.
    """

    labels: Tensor
    table: Tensor
    counts: Tensor

    def coverage(self) -> float:
        """Share of rows whose class is a single pair."""
        return float(self.counts[self.table[:, 1] != REST].sum() / self.counts.sum().clamp(min=1))


def sub_pseudo_labels(
    weak: Tensor,
    teacher: Tensor,
    n_classes: int,
    *,
    reduce: Reduction = "grid",
    pairs: int = 20,
    symmetric: bool = False,
) -> SubLabels:
    r"""One class for every pair of weak label l and teacher's guess c, :math:`s = l C + c`, or for the frequent ones.

    Args:
        weak, teacher: (N,), 0..C-1.
        reduce: "grid" keeps all pairs; "agreement" the pairs with l = c, and one class "l, not agreed" per weak class;
            "density" also the `pairs` most frequent others.
        pairs: for "density". Of equally frequent pairs the one of the lower number is kept.
        symmetric: whether (l, c) and (c, l) are one pair; "not agreed" stays by weak class.

    Only pairs that occur are counted, so memory grows with rows and not with the square of classes.
    """
    if reduce not in ("grid", "agreement", "density"):
        raise LabelError(f'reduce is "{reduce}"; expected grid, agreement or density')
    if weak.shape != teacher.shape:
        raise LabelError(f"weak labels and guesses have shapes {tuple(weak.shape)} and {tuple(teacher.shape)}")
    if len(weak) and not bool(((weak >= 0) & (weak < n_classes) & (teacher >= 0) & (teacher < n_classes)).all()):
        raise LabelError(f"a weak label or a guess is outside 0..{n_classes - 1}")
    first, second = (torch.minimum(weak, teacher), torch.maximum(weak, teacher)) if symmetric else (weak, teacher)
    cell, place, count = (first * n_classes + second).unique(return_inverse=True, return_counts=True)
    agreed = cell // n_classes == cell % n_classes
    if reduce == "grid":
        kept = torch.ones_like(agreed)
    else:
        kept = agreed.clone()
        if reduce == "density":
            others = (~agreed).nonzero()[:, 0]
            order = torch.argsort(count[others], descending=True, stable=True)
            kept[others[order[:pairs]]] = True
    width = n_classes + 1  # the last column is "not agreed"
    pair = cell // n_classes * width + cell % n_classes
    key = torch.where(kept[place], pair[place], weak * width + n_classes)
    found, labels, counts = key.unique(return_inverse=True, return_counts=True)
    column = found % width
    table = torch.stack([found // width, torch.where(column == n_classes, REST, column)], dim=1)
    return SubLabels(labels, table, counts)


class SubPseudoLabels(Procedure):
    r"""Pretrains a hidden layer on sub-pseudo labels of many weakly labelled rows, then fits classes to few exact ones.

    Rows with an `Exact` class are the clean set; the others carry weak evidence of any kind, whose likeliest class is
    the weak label. A teacher, fitted to the clean set alone, guesses the class of every row with a weak label; the
    student's hidden layer learns the pairs by cross-entropy, and its outer layer is then fitted to the clean set. For
    `head="mlp"`. Composes with every loss, which is that of the last fit; not with terms or a weighting.

    Args:
        reduce, pairs, symmetric: see `sub_pseudo_labels`.
        teacher: probabilities (N, K) of a model of one's own, in place of a teacher fitted here. It must not have
            learnt from the weak rows, or everything agrees.
        distill: weight of a second head of the student that learns the teacher's probabilities; 0 for none.
        rounds: of the student becoming the teacher.
        balance: exponent of class sizes in the weights of rows when pretraining: 0 none, .5 the square root, 1 all of
            a size alike.
        epochs, batch_size, learning_rate: of pretraining, where the learner has none of its own.

    Attributes:
        sub_labels_: of the last round, see `SubLabels`.
        weak_rows_: (W,) rows that it speaks of.

    Source: Learning from Weakly-labeled Web Videos via Exploring Sub-Concepts, 2022.
    """

    def __init__(
        self,
        reduce: Reduction = "density",
        pairs: int = 20,
        *,
        symmetric: bool = False,
        teacher: Tensor | None = None,
        distill: float = 0.0,
        rounds: int = 1,
        balance: float = 0.0,
        epochs: int = 40,
        batch_size: int = 128,
        learning_rate: float = 0.003,
    ) -> None:
        if reduce not in ("grid", "agreement", "density"):
            raise LabelError(f'reduce is "{reduce}"; expected grid, agreement or density')
        if pairs < 0 or rounds < 1 or distill < 0 or not 0 <= balance <= 1:
            raise LabelError(
                f"pairs is {pairs}, rounds {rounds}, distill {distill}, balance {balance}; "
                "expected 0 or more, 1 or more, 0 or more, 0 to 1"
            )
        self.reduce, self.pairs, self.symmetric, self.teacher = reduce, pairs, symmetric, teacher
        self.distill, self.rounds, self.balance = distill, rounds, balance
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate

    def for_instances(self, instances: Tensor) -> SubPseudoLabels:
        part = copy.copy(self)
        part.teacher = None if self.teacher is None else self.teacher[instances.to(self.teacher.device)]
        return part

    def check(self, learner: Learner, labels: Labels) -> None:
        takes_only(self, learner, "loss")
        needs_hidden_layer(self, learner)
        clean, weak = clean_and_weak(labels, torch.float32)
        if not bool((clean >= 0).any()) or not bool((weak >= 0).any()):
            raise LabelError("expected rows with exact labels and others with weak ones: Exact(...) & Noisy(...)")

    def run(self, learner: Learner, features: Tensor, labels: Labels) -> None:
        self.check(learner, labels)
        loss = Course.of(self, learner).loss
        k, seed = labels.n_classes, int(learner.seed)
        clean, weak = clean_and_weak(labels, features.dtype)
        known, self.weak_rows_ = (clean >= 0).nonzero()[:, 0], (weak >= 0).nonzero()[:, 0]
        target = torch.nn.functional.one_hot(clean[known], k).to(features)
        weight = labels.instance_weight().to(features)
        teacher = fresh_head(learner, features.shape[1], k, seed=seed, like=features)
        assert isinstance(teacher, Perceptron)
        if self.teacher is None:
            fit_with(teacher, features[known], target, weight[known], loss, penalty=learner.penalty, steps=60)
        elif tuple(self.teacher.shape) != (len(features), k):
            raise LabelError(f"the teacher's probabilities have shape {tuple(self.teacher.shape)}; expected (N, K)")
        history: list[dict[str, Any]] = []
        for number in range(1, self.rounds + 1):
            with torch.no_grad():
                guess = teacher(features[self.weak_rows_]).exp()
            if number == 1 and self.teacher is not None:
                guess = self.teacher.to(features)[self.weak_rows_]
            self.sub_labels_ = sub_pseudo_labels(
                weak[self.weak_rows_],
                guess.argmax(dim=1),
                k,
                reduce=self.reduce,
                pairs=self.pairs,
                symmetric=self.symmetric,
            )
            student = fresh_head(learner, features.shape[1], k, seed=seed + number, like=features)
            assert isinstance(student, Perceptron)
            value = self._pretrain(student, features, weight, guess, learner, seed + number)
            fit_outer(student.eval(), features[known], target, weight[known], loss, learner)
            teacher = student
            history.append(
                {
                    "step": f"round {number}",
                    "track": "sub-pseudo labels",
                    "round": number,
                    "labels": len(self.sub_labels_.table),
                    "coverage": self.sub_labels_.coverage(),
                    "objective": value,
                }
            )
        learner.head_, learner.history_ = teacher, history

    def _pretrain(
        self, student: Perceptron, features: Tensor, weight: Tensor, guess: Tensor, learner: Learner, seed: int
    ) -> float:
        """Train the hidden layer on the sub-labels; the mean loss of the last epoch."""
        course = Course.of(self, learner)
        found, rows = self.sub_labels_, self.weak_rows_
        share = found.counts[found.labels].to(features) ** -self.balance
        weight = weight[rows] * share / share.mean()
        generator = torch.Generator().manual_seed(seed)
        total = 0.0
        with seeded(seed):
            outer = torch.nn.Linear(student.width, len(found.table)).to(features)
            second = torch.nn.Linear(student.width, guess.shape[1]).to(features)
            trained = [student.inner_weight, student.inner_bias, *outer.parameters(), *second.parameters()]
            stepper = torch.optim.Adam(trained, lr=course.learning_rate)
            student.train()
            for epoch in range(course.epochs):
                course.at(stepper, course.cosine(epoch))
                total = 0.0
                for batch in course.batches(torch.arange(len(rows)), generator):
                    hidden = student.hidden(features[rows[batch]])
                    value = torch.nn.functional.cross_entropy(outer(hidden), found.labels[batch], reduction="none")
                    if self.distill:
                        value = value + self.distill * cross_entropy(second(hidden).log_softmax(dim=1), guess[batch])
                    w = weight[batch]
                    objective = (w * value).sum() / w.sum().clamp(min=1e-12)
                    stepper.zero_grad()
                    objective.backward()
                    stepper.step()
                    total += float(objective.detach()) * len(batch) / len(rows)
        return total


def clean_and_weak(labels: Labels, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Class (N,) of rows with an exact label, and the likeliest class of what is said otherwise of the others; -1."""
    clean = exact_classes(labels)
    if isinstance(labels, Exact):
        return clean, torch.full_like(clean, -1)
    said = alone(without_exact(labels, clean >= 0), dtype)
    told = (said.amax(dim=1) > (1 + 1e-6) / labels.n_classes) & (clean < 0)
    return clean, torch.where(told, said.argmax(dim=1), -1)
