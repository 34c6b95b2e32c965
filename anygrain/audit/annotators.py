"""Annotators one by one: how often they are right, what they mistake for what, who guesses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from anygrain.audit.accuracies import accuracies
from anygrain.audit.by_others import beliefs_by_others, known_without
from anygrain.audit.judged import array
from anygrain.audit.suspicion import frame
from anygrain.labels import Crowd, Difficulty, LabelError
from anygrain.labels.channels.groups import Groups
from anygrain.labels.channels.tabular import TabularChannel

#: share of spammers beforehand, and what that weighs, in annotators
SPAMMERS, WEIGHT = 0.05, 4.0
#: votes that the common habit is worth beside an annotator's own
HABIT = 4.0
#: shares of votes that are given knowingly, beforehand equally probable; a few against the truth
KNOWING = np.linspace(0.1, 0.99, 30)
AGAINST = 0.02


@dataclass(frozen=True)
class Annotators:
    """The annotators of a crowd, W of them.

    Attributes:
        names: of the annotators.
        class_names: of the classes.
        votes, items: how many they gave, on how many items, (W,).
        accuracy, accuracy_low, accuracy_high: P(a vote is right) on items like theirs, with a 95 % credible interval,
            (W,), which allows for items that everybody mistakes, see `accuracies`.
        confusion: P(vote | class), (W, K, K), rows are the truth.
        agreement: mean probability of their votes by everything but these votes, (W,); NaN without votes.
        overuse: share of their votes for a class less what the others believe of the same items, (W, K).
        nats: what a vote tells of the class, mutual information under their channel, (W,).
        prob_spammer: P(their votes do not depend on the truth), (W,).
        group: likeliest type of each, (W,), where the channel is `Groups`; else None.
        group_confusion: P(vote | class) of every type, (G, K, K), likewise.
    """

    names: tuple[str, ...]
    class_names: tuple[str, ...]
    votes: np.ndarray
    items: np.ndarray
    accuracy: np.ndarray
    accuracy_low: np.ndarray
    accuracy_high: np.ndarray
    confusion: np.ndarray
    agreement: np.ndarray
    overuse: np.ndarray
    nats: np.ndarray
    prob_spammer: np.ndarray
    group: np.ndarray | None = None
    group_confusion: np.ndarray | None = None

    @property
    def pooled(self) -> np.ndarray:
        """P(vote | class) of all annotators together, each as often as they voted, (K, K)."""
        share = self.votes / max(int(self.votes.sum()), 1) if self.votes.sum() else np.ones(len(self.votes))
        total = np.einsum("w,wkv->kv", share.astype(np.float64), self.confusion)
        return np.asarray(total / total.sum(axis=1, keepdims=True).clip(1e-300))

    def columns(self) -> dict[str, np.ndarray]:
        """A row per annotator; `overuses` is the class that they name too often, and `overuse` by how much."""
        most = self.overuse.argmax(axis=1)
        voted = self.votes > 0
        names = np.array([*self.class_names, ""], dtype=object)
        return {
            "annotator": np.array(self.names, dtype=object),
            "votes": self.votes,
            "items": self.items,
            "accuracy": self.accuracy,
            "accuracy_low": self.accuracy_low,
            "accuracy_high": self.accuracy_high,
            "agreement": self.agreement,
            "overuses": names[np.where(voted, most, -1)],
            "overuse": np.where(voted, self.overuse.max(axis=1), 0.0),
            "nats_per_vote": self.nats,
            "prob_spammer": self.prob_spammer,
            **({} if self.group is None else {"group": self.group}),
        }

    def cleanlab(self) -> dict[str, np.ndarray]:
        """The columns under the names of cleanlab."""
        truth = np.diagonal(self.confusion, axis1=1, axis2=2)
        return {
            "annotator": np.array(self.names, dtype=object),
            "annotator_quality": self.accuracy,
            "agreement_with_consensus": self.agreement,
            "worst_class": np.array(self.class_names, dtype=object)[truth.argmin(axis=1)],
            "num_examples_labeled": self.items,
        }

    def frame(self) -> Any:
        """`columns` as a frame."""
        return frame(self.columns())


def judge_annotators(labels: Crowd, log_probs: Any = None) -> Annotators:
    r"""Judge every annotator of a crowd.

    Whether an annotator guesses is told from votes v on items where the others believe q:

    .. math:: P(v_1, v_2, \dots \mid a) = \prod_r \big( |a| \, t_a(v_r) + (1 - |a|) \, \xi_{-r}(v_r) \big), \qquad
              t_a(v) = \begin{cases} q_r(v) & a > 0 \\ (1 - q_r(v)) / (K - 1) & a < 0 \end{cases}

    with xi the habit of the annotator, estimated from their other votes; a = 0 is a spammer. Beforehand 5 % are, a
    share that is learnt, and of the others every share a of votes that are given knowingly is equally probable; one in
    fifty votes against what they know.

    Args:
        labels: with a fitted channel: `Aggregated.labels`, or a part of `Learner.labels_`.
        log_probs: of a model that did not see the votes of the item, (N, K); None: shares of the classes.

    Raises:
        LabelError: log-probabilities that do not fit, a channel without tables of votes.

    Source: Raykar and Yu, Eliminating spammers and ranking annotators for crowdsourced labeling tasks, 2012.
    """
    base = known_without(labels, log_probs)
    belief = (base + labels.to("cpu").log_evidence(torch.float64)).softmax(dim=1)
    channel = table_of(labels)
    k, w = channel.n_classes, labels.n_annotators
    own = None if labels._columns is None else array(labels._columns)
    who, votes, item = (array(t) for t in (labels.annotators, labels.votes, labels.items))
    known = (votes >= 0) & (who >= 0)
    count = np.bincount(who[known], minlength=w)
    named = np.zeros((w, k))
    np.add.at(named, (who[known], votes[known]), 1.0)
    expected = np.zeros((w, k))
    agree = np.zeros(w)
    right, habit, at = [], [], []
    common = (named.sum(axis=0) + 1) / (named.sum() + k)
    for rows, by_others in beliefs_by_others(labels, base):
        kept = who[rows] >= 0
        rows, believed = rows[kept], by_others[kept] if own is None else by_others[kept][:, own]
        believed = believed / believed.sum(axis=1, keepdims=True).clip(1e-300)
        source, vote = who[rows], votes[rows]
        np.add.at(expected, source, believed)
        q = believed[np.arange(len(rows)), vote]
        agree += np.bincount(source, q, minlength=w)
        right.append(q)
        habit.append((named[source, vote] - 1 + HABIT * common[vote]) / (count[source] - 1 + HABIT))
        at.append(source)
    seen = np.maximum(count, 1)
    prior = array(belief.mean(dim=0)) if own is None else array(belief.mean(dim=0))[own]
    prior = prior / prior.sum()
    rate = accuracies(labels, channel, log_probs)
    confusion = array(channel.confusion)
    joint = prior[:, None] * confusion
    with np.errstate(divide="ignore", invalid="ignore"):
        told = np.where(joint > 0, joint * np.log(confusion / joint.sum(axis=1, keepdims=True)), 0.0)
    by_truth, by_habit, source = (np.concatenate(v) if v else np.zeros(0) for v in (right, habit, at))
    spam = _spammers(by_truth, by_habit, source, w, k)
    classes = labels.class_names or [str(c) for c in range(labels.n_classes)]
    pairs = np.unique(np.stack([item[known], who[known]]), axis=1) if known.any() else np.zeros((2, 0), dtype=np.int64)
    return Annotators(
        names=tuple(labels.annotator_names or [str(a) for a in range(w)]),
        class_names=tuple(classes if own is None else [classes[c] for c in own.tolist()]),
        votes=count,
        items=np.bincount(pairs[1], minlength=w),
        accuracy=rate.mean,
        accuracy_low=rate.low,
        accuracy_high=rate.high,
        confusion=confusion,
        agreement=np.where(count > 0, agree / seen, np.nan),
        overuse=(named - expected) / seen[:, None],
        nats=told.sum(axis=(1, 2)),
        prob_spammer=spam,
        **_types(labels),
    )


def table_of(labels: Crowd) -> TabularChannel:
    """The channel with the tables of the annotators.

    Raises:
        LabelError: a channel without.
    """
    channel = labels.channel.votes if isinstance(labels.channel, Difficulty) else labels.channel
    if not isinstance(channel, TabularChannel):
        raise LabelError(
            f'a channel {type(channel).__name__} has no tables of votes; fit the votes with "confusion", say'
        )
    return channel


def _types(labels: Crowd) -> dict[str, np.ndarray]:
    """Types of the annotators, numbered from the most common on, where the channel knows them."""
    if not isinstance(labels.channel, Groups):
        return {}
    share = array(labels.channel.group_share)
    order = np.argsort(-share, kind="stable")[: int((share > 0).sum())]
    number = np.empty(len(share), dtype=np.int64)
    number[order] = np.arange(len(order))
    return {
        "group": number[array(labels.channel.group)],
        "group_confusion": array(labels.channel.group_confusion)[order],
    }


def _spammers(right: np.ndarray, habit: np.ndarray, who: np.ndarray, n: int, k: int) -> np.ndarray:
    """P(spammer) (n,), from P(vote) by the others and by habit, and the annotator, of every vote, (R,)."""
    against = (1 - right) / max(k - 1, 1)
    grids = []
    for truth in (right, against):
        table = np.zeros((n, len(KNOWING)))
        for g, a in enumerate(KNOWING):  # thirty sums over all votes
            table[:, g] = np.bincount(who.astype(np.int64), np.log(a * truth + (1 - a) * habit), minlength=n)
        grids.append(table)
    guess = np.bincount(who.astype(np.int64), np.log(habit), minlength=n)
    prior = np.log(np.array([1 - AGAINST, AGAINST]) / len(KNOWING))
    both = np.concatenate([table + p for table, p in zip(grids, prior, strict=True)], axis=1)
    top = both.max(axis=1)
    knows = top + np.log(np.exp(both - top[:, None]).sum(axis=1))
    share = SPAMMERS
    for _ in range(50):
        odds = np.log(share / (1 - share)) + guess - knows
        found = 1 / (1 + np.exp(-np.clip(odds, -700, 700)))
        share = (found.sum() + WEIGHT * SPAMMERS) / (n + WEIGHT)
    return np.asarray(found)
