r"""Self-training: guesses about rows without labels, once sure enough, are learnt from as if they were labels.

1. Fit to the rows with labels and the accepted guesses.
2. Guess all other rows; a `Threshold` says which guesses are accepted.
3. Again, until nothing new is accepted, all rows are, or the rounds are over.

Rows with labels of any kind keep their evidence: in every round they are learnt with its posterior under the model of
the round before. Rows near no boundary are accepted first, which pushes the boundary to where rows are sparse; where
classes overlap there is no such place, and self-training does not help.

On a trained encoder the loop of `anygrain.learn` does this in every step already: rows without evidence teach their
strong view once their weak one is believed with .95, and the weights are averaged over time (FixMatch, mean teacher).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from anygrain.labels import Exact, LabelError, Labels
from anygrain.labels.observations import Observations
from anygrain.learn.calibration import fit_temperature
from anygrain.learn.end_to_end import SHRINK, doubts
from anygrain.learn.head import Head
from anygrain.learn.loss import cross_entropy
from anygrain.learn.procedure import Procedure
from anygrain.learn.reading import read_classes
from anygrain.learn.recipe import split_groups
from anygrain.robust.fresh import alone, fit_with, fresh_head, takes_only
from anygrain.robust.thresholds import Round, Threshold, confidence, threshold_from

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

#: fits a fresh model to rows (R,), their targets (R, K) and weights (R,): gives probabilities (N, K) and the model
Fit = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Any]]
SURE, SETTLING = 0.999, 5  # belief of a label that leaves nothing open; E-steps before round 1 where some does
FOLDS = 3  # of rows with labels, for votes by models that did not learn from them


@dataclass
class Handling:
    r"""What is done about wrong guesses.

    Attributes:
        weigh: whether a guess counts as much as it was sure, times `weight`.
        weight: of a guess beside a label.
        ramp: rounds over which the weight rises to `weight`; 0 or 1 for none.
        smoothing: share of a guess that is spread over all classes.
        soft: learn the guessed probabilities and not the class.
        align: whether votes are first tilted so that their mean is the class shares of rows with labels. Where few
            labels make one class win, its guesses would crowd out the others round by round.
        correct: whether guesses are taken as noisy, :math:`q_a \propto v_a P(\hat y \mid y = a)`, with the matrix
            counted on rows with labels by models that did not learn from them. It is one step of
            expectation-maximisation on the forward-corrected cross-entropy
            :math:`-\log \sum_a p_a P(\hat y \mid a)`.
    """

    weigh: bool = False
    weight: float = 1.0
    ramp: int = 0
    smoothing: float = 0.0
    soft: bool = False
    align: bool = False
    correct: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise LabelError(f"smoothing is {self.smoothing}; expected a share of 0 up to, not including, 1")
        if not self.weight >= 0 or not self.ramp >= 0:
            raise LabelError(f"weight is {self.weight} and ramp {self.ramp}; expected 0 or more")

    def of_round(self, votes: Tensor, number: int, transition: Tensor | None) -> tuple[Tensor, Tensor]:
        """Targets (U, K) and weights (U,) of guesses, from votes (U, K)."""
        guess = votes.argmax(dim=1)
        target = votes if self.soft else torch.nn.functional.one_hot(guess, votes.shape[1]).to(votes)
        if self.correct and transition is not None:
            target = votes * transition[:, guess].T
            target = target / target.sum(dim=1, keepdim=True)
        target = (1 - self.smoothing) * target + self.smoothing / votes.shape[1]
        weight = votes.new_full((len(votes),), self.weight * min(1.0, number / max(self.ramp, 1)))
        return target, weight * confidence(votes) if self.weigh else weight


@dataclass
class Outcome:
    """How self-training went.

    Attributes:
        target: (N, K) what every row was learnt with last; rows that were not accepted have their last votes.
        accepted: bool (N,), guesses that were learnt from.
        probs: (N, K) of the last model.
        model: the last model.
        history: one dict per round: how many guesses, of which classes, how many are new.
    """

    target: Tensor
    accepted: Tensor
    probs: Tensor
    model: Any
    history: list[dict[str, Any]] = field(default_factory=list)


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


def self_train(
    labels: Labels, fit: Fit, threshold: Threshold, *, rounds: int, handling: Handling, seed: int, dtype: torch.dtype
) -> Outcome:
    """The loop, with any model.

    Args:
        labels: of N instances.
        fit: see `Fit`.

    Raises:
        LabelError: nothing is told of any row.
    """
    told = told_rows(labels)
    if not bool(told.any()):
        raise LabelError("no row has any evidence: self-training starts from rows with labels")
    target = alone(labels, dtype)
    fold = folds_of(labels, target, told, torch.Generator().manual_seed(seed))
    given = labels.instance_weight().to(dtype)
    taken, weight = told.clone(), torch.where(told, given, 0.0)
    untold = (~told).nonzero()[:, 0]
    history: list[dict[str, Any]] = []

    def learn(rows: Tensor) -> tuple[Tensor, Any]:
        return fit(rows, target[rows], weight[rows])

    probs, model = learn(taken.nonzero()[:, 0])
    if bool((target[told].amax(dim=1) < SURE).any()):  # labels that leave classes open settle first
        for _ in range(SETTLING):
            target[told] = labels.posterior(probs.clamp(min=1e-30).log())[told]
            probs, model = learn(taken.nonzero()[:, 0])
    for number in range(1, rounds + 1):
        if not len(untold):
            break
        votes, held_out, transition = probs[untold], None, None
        if handling.align:
            votes = aligned(votes, target[told].mean(dim=0))
        if threshold.needs_held_out or handling.correct:
            held_out = probs.clone()
            for f in fold[told].unique().tolist():
                held_out[fold == f] = learn((taken & (fold != f)).nonzero()[:, 0])[0][fold == f]
            held_out = held_out[told]
            transition = guesses_given_truth(held_out, target[told])
        accepted = threshold(Round(votes, number, held_out, target[told]))
        before = taken[untold]
        if not threshold.refresh:
            accepted &= ~before
        new = accepted & ~before
        guess, counts = handling.of_round(votes, number, transition)
        same = target[untold].argmax(dim=1) == votes.argmax(dim=1)
        settled = not bool(new.any()) and (
            not threshold.refresh or bool(((accepted == before) & same)[accepted | before].all())
        )
        if threshold.refresh:
            taken[untold], weight[untold] = accepted, 0.0
        chosen = untold[accepted]
        taken[chosen], target[chosen] = True, guess[accepted]
        weight[chosen] = counts[accepted] * given[chosen]
        classes = torch.bincount(votes[accepted].argmax(dim=1), minlength=votes.shape[1])
        history.append(
            {
                "step": f"round {number}",
                "track": "self-training",
                "round": number,
                "accepted": int(taken[untold].sum()),
                "new": int(new.sum()),
                "by_class": classes.tolist(),
                "mean_confidence": float(confidence(votes).mean()),
            }
        )
        if settled:
            break
        target[told] = labels.posterior(probs.clamp(min=1e-30).log())[told]
        probs, model = learn(taken.nonzero()[:, 0])
    left = ~taken
    target[left] = probs[left]
    return Outcome(target, taken & ~told, probs, model, history)


def aligned(votes: Tensor, share: Tensor, steps: int = 50) -> Tensor:
    r"""Votes (U, K) tilted to a mean of `share` (K,): :math:`v'_{ik} \propto v_{ik} w_k`, w by repeated scaling.

    Source: Berthelot et al., ReMixMatch, 2020 (one step of it).
    """
    for _ in range(steps):
        votes = votes * (share / votes.mean(dim=0).clamp(min=1e-12))
        votes = votes / votes.sum(dim=1, keepdim=True).clamp(min=1e-30)
    return votes


def guesses_given_truth(votes: Tensor, truth: Tensor) -> Tensor:
    r""":math:`P(\hat y = b \mid y = a)`, (K, K), counted in votes and truths (L, K), with a count of one shared by all.

    The extra count lies on the diagonal and, as far as guesses are wrong on the whole, off it.
    """
    k = votes.shape[1]
    guess = torch.nn.functional.one_hot(votes.argmax(dim=1), k).to(votes)
    count = truth.T @ guess
    right = float((truth * guess).sum() / truth.sum().clamp(min=1e-12))
    prior = torch.full_like(count, (1 - right) / max(k - 1, 1)).fill_diagonal_(right)
    count = count + prior
    return count / count.sum(dim=1, keepdim=True)


class SelfTraining(Procedure):
    """Self-training of the learner's head on fixed features, by a `Threshold` of choice.

    Composes with every kind of label, every head and every loss; not with terms or a weighting, which belong to
    gradient steps. Rows without evidence are those that are guessed.

    Args:
        threshold: `Fixed`, `Curriculum`, `TopPerClass`, `MarginBound`, `PlugInError` or `Adaptive`, or one of them by
            name ("fixed", "curriculum", "top_per_class", "margin_bound",
            "plug_in_error", "adaptive"); `Curriculum(0.2, "margin")` where not given.
        rounds: at most.
        handling: of wrong guesses; `Handling(align=True)` where not given, which takes rows with labels to have the
            class shares of all rows.
        calibrate: whether votes are flattened or sharpened to what rows with labels bear out, by models that did not
            learn from them; a head that fits few labels perfectly would accept everything at once. Few rows move
            it little.
        steps: of L-BFGS in every fit.

    Attributes:
        outcome_: what every row was learnt with, and the course, see `Outcome`.

    Source: Amini et al., Self-Training: A Survey, 2022.
    """

    def __init__(
        self,
        threshold: Threshold | str | None = None,
        *,
        rounds: int = 10,
        handling: Handling | None = None,
        calibrate: bool = True,
        steps: int = 40,
    ) -> None:
        if rounds < 0:
            raise LabelError(f"rounds is {rounds}; expected 0 or more")
        self.threshold = threshold_from("curriculum" if threshold is None else threshold)
        self.handling = Handling(align=True) if handling is None else handling
        self.rounds, self.calibrate, self.steps = rounds, calibrate, steps

    def run(self, learner: Learner, features: Tensor, labels: Labels) -> None:
        takes_only(self, learner, "loss")
        loss = cross_entropy if learner.loss is None else learner.loss
        told = told_rows(labels)
        fold = folds_of(labels, alone(labels, features.dtype), told, torch.Generator().manual_seed(int(learner.seed)))

        def head_of(rows: Tensor, target: Tensor, weight: Tensor) -> Head:
            head = fresh_head(learner, features.shape[1], labels.n_classes, like=features)
            head.start(features[rows], target)
            return fit_with(head, features[rows], target, weight, loss, penalty=learner.penalty, steps=self.steps)

        def logits_of(head: Head) -> Tensor:
            with torch.no_grad():
                return head.logits(features)

        def fit(rows: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Any]:
            head = head_of(rows, target, weight)
            logits = logits_of(head)
            if not self.calibrate:
                return logits.softmax(dim=1), (head, 1.0)
            apart, seen = torch.zeros_like(logits), torch.zeros_like(told)
            for f in fold[told].unique().tolist():
                kept = fold[rows] != f
                if bool(kept.any()):
                    apart[fold == f] = logits_of(head_of(rows[kept], target[kept], weight[kept]))[fold == f]
                    seen |= fold == f
            n = int((seen & told).sum())
            temperature = fit_temperature(labels, apart, seen & told, default=1.0) ** (n / (n + SHRINK))
            return (temperature * logits).softmax(dim=1), (head, temperature)

        self.outcome_ = self_train(
            labels,
            fit,
            self.threshold,
            rounds=self.rounds,
            handling=self.handling,
            seed=int(learner.seed),
            dtype=features.dtype,
        )
        learner.head_, learner.temperature_ = self.outcome_.model
        learner.history_ = self.outcome_.history


class SelfTrainingClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Self-training of any scikit-learn classifier with `predict_proba`, from labels of any kind.

    A row with a posterior instead of a class counts in every class, by its probability, through `sample_weight`.

    Args:
        estimator: classifier; a fresh copy is fitted in every round.
        threshold, rounds, handling: as in `SelfTraining`.
        seed: of folds.

    Attributes:
        estimator_: the last model.
        classes_: (K,).
        outcome_: see `Outcome`.
    """

    def __init__(
        self,
        estimator: Any,
        threshold: Threshold | str | None = None,
        rounds: int = 10,
        handling: Handling | None = None,
        seed: int = 0,
    ) -> None:
        self.estimator, self.threshold, self.rounds = estimator, threshold, rounds
        self.handling, self.seed = handling, seed

    def fit(self, X: Any, y: Any) -> SelfTrainingClassifier:
        """Fit to rows X (N, D) and `Labels` of one instance per row, or a vector of classes with -1 as missing."""
        X = np.asarray(X)
        if isinstance(y, Observations):
            if not isinstance(y, Labels) or not torch.equal(y.rows.cpu(), torch.arange(len(X))):
                raise LabelError("SelfTrainingClassifier takes labels of classes, one instance for every row of X")
            labels: Labels = y
            self.classes_ = np.arange(y.n_classes) if y.class_names is None else np.array(y.class_names)
        else:
            self.classes_, codes = read_classes(y)
            if len(codes) != len(X):
                raise LabelError(f"X has {len(X)} rows and y {len(codes)}; expected as many")
            labels = Exact(torch.from_numpy(codes), len(self.classes_))

        def fit(rows: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Any]:
            share = target * weight[:, None]
            row, kind = (share > 1e-3 * share.amax(dim=1, keepdim=True).clamp(min=1e-30)).nonzero(as_tuple=True)
            model = clone(self.estimator)
            model.fit(X[rows[row].numpy()], kind.numpy(), sample_weight=share[row, kind].numpy())
            return torch.from_numpy(self._probs(model, X)), model

        self.outcome_ = self_train(
            labels,
            fit,
            threshold_from("curriculum" if self.threshold is None else self.threshold),
            rounds=self.rounds,
            handling=Handling(align=True) if self.handling is None else self.handling,
            seed=self.seed,
            dtype=torch.float64,
        )
        self.estimator_ = self.outcome_.model
        return self

    def _probs(self, model: Any, X: np.ndarray) -> np.ndarray:
        found = np.zeros((len(X), len(self.classes_)))
        found[:, model.classes_] = model.predict_proba(X)
        return found

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (N, K), columns in the order of `classes_`."""
        check_is_fitted(self, "estimator_")
        return self._probs(self.estimator_, np.asarray(X))

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of every row, (N,)."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])
