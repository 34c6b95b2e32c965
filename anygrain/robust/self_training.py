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

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from anygrain.labels import Exact, LabelError, Labels
from anygrain.labels.observations import Observations
from anygrain.learn.procedure import Procedure
from anygrain.learn.reading import read_classes
from anygrain.robust.fresh import alone, takes_only
from anygrain.robust.thresholds import Measure, Round, Threshold, confidence, threshold_from
from anygrain.robust.votes import HeadVotes, folds_of, told_rows

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

#: fits a fresh model to rows (R,), their targets (R, K) and weights (R,): gives probabilities (N, K) and the model
Fit = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Any]]
#: votes (V, U, K) of V learners: the votes that each of them is taught, and where it is taught at all, bool (V, U)
Teach = Callable[[Tensor], tuple[Tensor, Tensor]]
SURE, SETTLING = 0.999, 5  # belief of a label that leaves nothing open; E-steps before round 1 where some does


@dataclass
class Handling:
    r"""What is done about wrong guesses.

    Attributes:
        weigh: whether a guess counts as much as it was sure, times `weight`; or by which measure of `confidence`,
            "probability" where it is True.
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

    weigh: bool | Measure = False
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
        if not self.weigh:
            return target, weight
        return target, weight * confidence(votes, "probability" if self.weigh is True else self.weigh)


@dataclass
class Outcome:
    """How self-training went.

    Attributes:
        target: (N, K) what every row was learnt with last; rows that were not accepted have their last votes.
        weight: (N,) how much every row counted.
        accepted: bool (N,), guesses that were learnt from.
        probs: (N, K) of the last model.
        model: the last model; a list of them where there are several learners. Target, weight and probabilities are
            then what they have in common: means, of probabilities geometric ones.
        history: one dict per round: how many guesses, of which classes, how many are new.
    """

    target: Tensor
    weight: Tensor
    accepted: Tensor
    probs: Tensor
    model: Any
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rows(self) -> Tensor:
        """Instances that were learnt from, (R,)."""
        return (self.weight > 0).nonzero()[:, 0]


def to_itself(votes: Tensor) -> tuple[Tensor, Tensor]:
    """Every learner is taught its own guesses."""
    return votes, torch.ones_like(votes[:, :, 0], dtype=torch.bool)


def together(probs: Tensor) -> Tensor:
    """Normalised geometric mean (N, K) of the probabilities (V, N, K) of several learners."""
    if len(probs) == 1:
        return probs[0]
    return probs.clamp(min=1e-30).log().mean(dim=0).softmax(dim=1)


def self_train(
    labels: Labels,
    fits: Fit | Sequence[Fit],
    threshold: Threshold,
    *,
    rounds: int,
    handling: Handling,
    seed: int,
    dtype: torch.dtype,
    teach: Teach = to_itself,
) -> Outcome:
    """The loop, with any model, or with several that teach each other.

    Args:
        labels: of N instances.
        fits: see `Fit`; one for each of V learners.
        teach: see `Teach`.

    Raises:
        LabelError: nothing is told of any row.
    """
    one = not isinstance(fits, Sequence)
    learners: Sequence[Fit] = [fits] if not isinstance(fits, Sequence) else fits
    told = told_rows(labels)
    if not bool(told.any()):
        raise LabelError("no row has any evidence: self-training starts from rows with labels")
    number_of, track = len(learners), range(len(learners))
    target = alone(labels, dtype).expand(number_of, -1, -1).clone()
    fold = folds_of(labels, target[0], told, torch.Generator().manual_seed(seed))
    given = labels.instance_weight().to(dtype)
    taken = told.expand(number_of, -1).clone()
    weight = torch.where(taken, given, 0.0)
    untold = (~told).nonzero()[:, 0]
    history: list[dict[str, Any]] = []

    def learn(use: Tensor) -> tuple[Tensor, list[Any]]:
        """Probabilities (V, N, K) and models, each fitted to what it was taught of rows in use, bool (N,)."""
        rows = [(taken[v] & use).nonzero()[:, 0] for v in track]
        found = [learners[v](rows[v], target[v, rows[v]], weight[v, rows[v]]) for v in track]
        return torch.stack([probs for probs, _ in found]), [model for _, model in found]

    def settle(probs: Tensor) -> None:
        """Rows with labels are learnt with what these say under the learners' common belief."""
        target[:, told] = labels.posterior(together(probs).clamp(min=1e-30).log())[told]

    everyone = torch.ones_like(told)
    probs, models = learn(everyone)
    if bool((target[0, told].amax(dim=1) < SURE).any()):  # labels that leave classes open settle first
        for _ in range(SETTLING):
            settle(probs)
            probs, models = learn(everyone)
    for number in range(1, rounds + 1):
        if not len(untold):
            break
        votes, taught = teach(probs[:, untold])
        truth = target[0, told]
        if handling.align:
            votes = torch.stack([aligned(v, truth.mean(dim=0)) for v in votes])
        apart = torch.zeros_like(probs)
        if threshold.needs_held_out or handling.correct:
            for f in fold[told].unique().tolist():
                apart[:, fold == f] = learn(fold != f)[0][:, fold == f]
        held_out, heard = teach(apart[:, told])
        before = taken[:, untold]
        accepted, same = torch.zeros_like(before), torch.ones_like(before)
        for v in track:
            seen, held = taught[v], (held_out[v, heard[v]], truth[heard[v]])
            asked = threshold.needs_held_out or handling.correct
            transition = guesses_given_truth(*held) if handling.correct else None
            if bool(seen.any()):
                about = Round(votes[v, seen], number, held[0] if asked else None, held[1])
                accepted[v, seen] = threshold(about)
            if not threshold.refresh:
                accepted[v] &= ~before[v]
            guess, counts = handling.of_round(votes[v], number, transition)
            same[v] = target[v, untold].argmax(dim=1) == votes[v].argmax(dim=1)
            if threshold.refresh:
                taken[v, untold], weight[v, untold] = accepted[v], 0.0
            chosen = untold[accepted[v]]
            taken[v, chosen], target[v, chosen] = True, guess[accepted[v]]
            weight[v, chosen] = counts[accepted[v]] * given[chosen]
        new = accepted & ~before
        settled = not bool(new.any()) and (
            not threshold.refresh or bool(((accepted == before) & same)[accepted | before].all())
        )
        history.append(
            {
                "step": f"round {number}",
                "track": "self-training",
                "round": number,
                "accepted": int(taken[:, untold].any(dim=0).sum()),
                "new": int(new.any(dim=0).sum()),
                "by_class": torch.bincount(votes.argmax(dim=2)[accepted], minlength=votes.shape[2]).tolist(),
                "mean_confidence": float(confidence(votes.flatten(0, 1)).mean()),
            }
        )
        if settled:
            break
        settle(probs)
        probs, models = learn(everyone)
    share = weight / weight.sum(dim=0).clamp(min=1e-30)
    common = (share[:, :, None] * target).sum(dim=0)
    mean = weight.mean(dim=0)
    believed = together(probs)
    common[mean == 0] = believed[mean == 0]
    return Outcome(common, mean, taken.any(dim=0) & ~told, believed, models[0] if one else models, history)


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

    #: whether what takes part is one head of all features, which stays
    own_head = True

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
        self.finds_temperature = calibrate and self.own_head

    def learners(self, learner: Learner, features: Tensor, labels: Labels) -> Sequence[Fit]:
        """What takes part."""
        return [HeadVotes(learner, features, labels, calibrate=self.calibrate, steps=self.steps)]

    def teach(self, votes: Tensor) -> tuple[Tensor, Tensor]:
        """See `Teach`."""
        return to_itself(votes)

    def check(self, learner: Learner, labels: Labels) -> None:
        takes_only(self, learner, "loss")

    def run(self, learner: Learner, features: Tensor, labels: Labels) -> None:
        self.check(learner, labels)
        found = self.learners(learner, features, labels)
        self.outcome_ = self_train(
            labels,
            found,
            self.threshold,
            rounds=self.rounds,
            handling=self.handling,
            seed=int(learner.seed),
            dtype=features.dtype,
            teach=self.teach,
        )
        self.keep(learner, features, labels)
        told = int(told_rows(labels).sum())
        start = {"step": "labels", "track": "self-training", "round": 0, "told": told}
        learner.history_ = [start, *self.outcome_.history]

    def keep(self, learner: Learner, features: Tensor, labels: Labels) -> None:
        """Sets the head that stays: the one that took part, or one of all features that learns what was taught."""
        if self.own_head:
            learner.head_, learner.temperature_ = self.outcome_.model[0]
            return
        rows = self.outcome_.rows
        whole = HeadVotes(learner, features, labels, calibrate=False, steps=self.steps)
        learner.head_ = whole.head(rows, self.outcome_.target[rows], self.outcome_.weight[rows])


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
