"""Rules one by one: what they cover, where they conflict, how often they are right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import betaincinv
from torch import Tensor

from anygrain.audit.judged import array
from anygrain.audit.suspicion import frame
from anygrain.labels import LabelError, Rules


@dataclass(frozen=True)
class JudgedRules:
    """The rules of a data set, R of them.

    Attributes:
        names: of the rules.
        polarity: the classes that each names, in words.
        votes: rows that it votes on, (R,).
        coverage, overlaps, conflicts: share of all rows that it votes on; on which another does too; on which another
            names another class, (R,).
        accuracy, accuracy_low, accuracy_high: expected share of its votes that are right, with a 95 % credible
            interval, (R,); NaN for a rule that always abstains.
        correct, incorrect: votes on rows with an exact label, (R,).
        weight: nats that a vote adds in favour of the class it names, mean over its votes, (R,).
    """

    names: tuple[str, ...]
    polarity: tuple[str, ...]
    votes: np.ndarray
    coverage: np.ndarray
    overlaps: np.ndarray
    conflicts: np.ndarray
    accuracy: np.ndarray
    accuracy_low: np.ndarray
    accuracy_high: np.ndarray
    correct: np.ndarray
    incorrect: np.ndarray
    weight: np.ndarray

    @property
    def empirical_accuracy(self) -> np.ndarray:
        """Share of right votes among rows with an exact label, (R,); NaN where there are none."""
        known = self.correct + self.incorrect
        return np.asarray(np.where(known > 0, self.correct / np.maximum(known, 1), np.nan))

    def columns(self) -> dict[str, np.ndarray]:
        """A row per rule."""
        return {
            "rule": np.array(self.names, dtype=object),
            "polarity": np.array(self.polarity, dtype=object),
            "votes": self.votes,
            "coverage": self.coverage,
            "overlaps": self.overlaps,
            "conflicts": self.conflicts,
            "accuracy": self.accuracy,
            "accuracy_low": self.accuracy_low,
            "accuracy_high": self.accuracy_high,
            "correct": self.correct,
            "incorrect": self.incorrect,
            "empirical_accuracy": self.empirical_accuracy,
            "weight": self.weight,
        }

    def snorkel(self) -> dict[str, np.ndarray]:
        """The columns under the names of Snorkel's analysis."""
        return {
            "rule": np.array(self.names, dtype=object),
            "j": np.arange(len(self.names)),
            "Polarity": np.array(self.polarity, dtype=object),
            "Coverage": self.coverage,
            "Overlaps": self.overlaps,
            "Conflicts": self.conflicts,
            "Correct": self.correct,
            "Incorrect": self.incorrect,
            "Emp. Acc.": self.empirical_accuracy,
            "Learned Weight": self.weight,
        }

    def frame(self) -> Any:
        """`columns` as a frame."""
        return frame(self.columns())


def judge_rules(labels: Rules, posterior: Any, exact: Any = None) -> JudgedRules:
    r"""Judge every rule.

    The expected number of right votes is :math:`a = \sum_r P(y_{i_r} = v_r \mid \text{all})`; the interval is that of
    Beta(a + 1/2, n - a + 1/2). A vote for v weighs :math:`\log P(v \mid v) - \log \sum_{k \ne v} \pi_k P(v \mid k) /
    (1 - \pi_v)` with the shares pi of the classes.

    Args:
        labels: with a fitted channel: `Aggregated.labels`.
        posterior: P(class | all), (N, K).
        exact: known classes (N,), -1 where there is none.

    Raises:
        LabelError: a posterior or exact classes that do not fit.

    Source: the columns are those of Ratner et al., Snorkel, 2017.
    """
    belief = _checked(posterior, labels)
    n, k, count = labels.n_instances, labels.n_classes, labels.n_rules
    assert labels.record_instances is not None
    row, rule, vote = array(labels.record_instances), array(labels.rules), array(labels.votes)
    if labels._columns is not None:
        vote = np.where(vote < 0, -1, array(labels._columns)[vote.clip(0)])
    said = vote >= 0
    row, rule, vote = row[said], rule[said], vote[said]
    votes = np.bincount(rule, minlength=count)
    all_of = np.bincount(row, minlength=n)[row]
    cell = row * k + vote
    _, place, times = np.unique(cell, return_inverse=True, return_counts=True)
    same = times[place]
    right = array(belief)[row, vote]
    a = np.bincount(rule, right, minlength=count)
    voted = votes > 0
    low, high = betaincinv(a + 0.5, votes - a + 0.5, 0.025), betaincinv(a + 0.5, votes - a + 0.5, 0.975)
    known = np.full(n, -1) if exact is None else np.asarray(exact)
    if known.shape != (n,):
        raise LabelError(f"exact has shape {known.shape}; expected ({n},)")
    told = known[row] >= 0
    names = labels.class_names or [str(c) for c in range(k)]
    used = np.zeros((count, k), dtype=bool)
    used[rule, vote] = True
    rows = max(n, 1)
    return JudgedRules(
        names=tuple(labels.rule_names or [str(r) for r in range(count)]),
        polarity=tuple(", ".join(names[c] for c in np.flatnonzero(line)) for line in used),
        votes=votes,
        coverage=votes / rows,
        overlaps=np.bincount(rule[all_of > 1], minlength=count) / rows,
        conflicts=np.bincount(rule[all_of > same], minlength=count) / rows,
        accuracy=np.where(voted, a / np.maximum(votes, 1), np.nan),
        accuracy_low=np.where(voted, low, np.nan),
        accuracy_high=np.where(voted, high, np.nan),
        correct=np.bincount(rule[told & (known[row] == vote)], minlength=count),
        incorrect=np.bincount(rule[told & (known[row] != vote)], minlength=count),
        weight=np.where(voted, _weights(labels, array(belief.mean(dim=0)), rule, vote, said), np.nan),
    )


def _checked(posterior: Any, labels: Rules) -> Tensor:
    """A posterior as a tensor (N, K).

    Raises:
        LabelError: another shape, or rows that are no probabilities.
    """
    table = torch.as_tensor(posterior).detach().double().cpu()
    if tuple(table.shape) != (labels.n_instances, labels.n_classes):
        raise LabelError(
            f"posterior has shape {tuple(table.shape)}; expected ({labels.n_instances}, {labels.n_classes})"
        )
    bad = (~((table.sum(dim=1) - 1).abs() < 1e-3) | (table < 0).any(dim=1)).nonzero()[:, 0]
    if len(bad):
        raise LabelError(f"{len(bad)} rows of posterior are no probabilities (first: row {int(bad[0])})")
    return table


def _weights(labels: Rules, prior: np.ndarray, rule: np.ndarray, vote: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Mean nats of a vote of every rule, (R,)."""
    table = array(labels.to("cpu").record_log_prob().double())[said]
    place = np.arange(len(vote))
    own = table[place, vote]
    top = table.max(axis=1, initial=-np.inf)
    others = np.exp(table - top[:, None]) * prior
    others[place, vote] = 0.0
    rest = np.log(others.sum(axis=1).clip(1e-300)) + top - np.log((1 - prior[vote]).clip(1e-12))
    return np.asarray(np.bincount(rule, own - rest, minlength=labels.n_rules)) / np.maximum(
        np.bincount(rule, minlength=labels.n_rules), 1
    )
