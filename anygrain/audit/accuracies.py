"""How often annotators are right, with all that is not known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import betaincinv

from anygrain.audit.by_others import known_without
from anygrain.audit.judged import array
from anygrain.labels import Crowd, Difficulty
from anygrain.labels.channels.confusion import Confusion
from anygrain.labels.channels.tabular import TabularChannel

#: shares of items that are mistaken by everybody, and how probable each is; found on crowds with known truth
MISTAKEN = ((0.0, 0.25), (0.05, 0.5), (0.1, 0.25))
#: share of items that are torn between two classes, where any are hard
TORN = 0.15
#: votes that the mean of all annotators is worth beside an annotator's own, at most
MOST_SHRINK = 10.0
#: of fitting one-coin annotators, and the rivals of classes
COIN_ROUNDS, RIVAL_ROUNDS = 15, 5
#: share of what votes tell of an accuracy that may be missing, as the classes of items are not known, at most
MOST_MISSING = 0.9


@dataclass(frozen=True)
class Accuracies:
    """Mean and 95 % interval of P(a vote is right), (W,) each."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def accuracies(labels: Crowd, channel: TabularChannel, log_probs: Any = None) -> Accuracies:
    r"""P(a vote is right) of every annotator on items like theirs, with an interval.

    Under one model of the votes, with n votes of an annotator of which r is the expected number of right ones,

    .. math:: a = \frac{r + s m}{n + s}, \qquad
              V = \frac{a (1 - a)}{n (1 - \gamma) + s + 1}, \qquad
              \gamma = \frac{\sum_j q_j (1 - q_j)}{n\, a (1 - a)}

    with q_j = P(vote j is right | all votes), m the mean of all annotators, s by the spread between them, and gamma the
    share of information that is missing as the classes are not known (Louis): items that others leave open tell little
    of an annotator, who in part confirms himself.

    What all annotators mistake together does not show in their votes. So the models are averaged: the channel of the
    labels and one-coin annotators, each by its likelihood per item, and within each some shares of items that everybody
    mistakes (`MISTAKEN`); their disagreement is part of the variance. The interval is that of the Beta distribution
    with this mean and variance.

    Args:
        labels: with a fitted channel.
        channel: the tables of its annotators.
        log_probs: log p(x), what is known without the votes, (N, K); None: shares of the classes, by each model.

    Source: Louis, Finding the observed information matrix when using the EM algorithm, 1982.
    """
    who, votes, item = (array(t) for t in (labels.annotators, labels.votes, labels.items))
    known = (votes >= 0) & (who >= 0)
    who, votes, item = who[known], votes[known], item[known]
    if labels._columns is not None:
        votes = array(labels._columns)[votes]
    n = np.bincount(who, minlength=labels.n_annotators).astype(np.float64)
    mean, square, within = (np.zeros(labels.n_annotators) for _ in range(3))
    for weight, belief in _beliefs(labels, channel, log_probs):
        q = belief[item, votes]
        a, variance = _under_one_model(
            n, np.bincount(who, q, minlength=len(n)), np.bincount(who, q * (1 - q), minlength=len(n))
        )
        mean += weight * a
        square += weight * a**2
        within += weight * variance
    low, high = beta_interval(mean, within + (square - mean**2).clip(0))
    return Accuracies(mean, low, high)


def beta_interval(mean: np.ndarray, variance: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Ends (W,) of the interval of the Beta distributions with means and variances (W,)."""
    mean = mean.clip(1e-6, 1 - 1e-6)
    size = (mean * (1 - mean) / variance.clip(1e-12) - 1).clip(1e-2)
    ends = [betaincinv(mean * size, (1 - mean) * size, p) for p in ((1 - level) / 2, (1 + level) / 2)]
    return ends[0], ends[1]


def _under_one_model(n: np.ndarray, right: np.ndarray, doubt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of accuracies (W,), from votes, expected right ones, and the variance of their number."""
    voted = n > 0
    m = (right.sum() + 1) / (n.sum() + 2)
    share = right[voted] / n[voted]
    # soft counts of right votes spread less than hard ones would, by the doubt that is left
    chance = (share * (1 - share) - doubt[voted] / n[voted]).sum()
    between = max(((n[voted] * (share - m) ** 2).sum() - chance) / max(n.sum(), 1), 1e-6)
    s = min(max(m * (1 - m) / between - 1, 1.0), MOST_SHRINK)
    a = (right + s * m) / (n + s)
    missing = (doubt / np.maximum(n * a * (1 - a), 1e-9)).clip(0, MOST_MISSING)
    return a, a * (1 - a) / (n * (1 - missing) + s + 1)


def _beliefs(labels: Crowd, channel: TabularChannel, log_probs: Any) -> list[tuple[float, np.ndarray]]:
    """P(class | x, all votes), (N, K), by every model, and the model's weight."""
    own = labels.to("cpu").with_channel(channel)
    models = [own]
    if isinstance(channel, Confusion):
        coin, source = own.with_channel("one_coin"), own
        for _ in range(COIN_ROUNDS):
            coin.update((known_without(source, log_probs) + source.log_evidence(torch.float64)).softmax(dim=1))
            source = coin
        models.append(coin)
    without = [known_without(model, log_probs) for model in models]
    voted = max(len(own.items[own.votes >= 0].unique()), 1)
    level = torch.stack(
        [
            torch.logsumexp(base + model.log_evidence(torch.float64), dim=1).nan_to_num(0.0).sum()
            for base, model in zip(without, models, strict=True)
        ]
    )
    out = []
    for share, base, model in zip(torch.softmax(level / voted, dim=0).tolist(), without, models, strict=True):
        votes = model.channel
        assert isinstance(votes, TabularChannel)
        hard = Difficulty(votes.n_sources, votes.n_classes, votes=votes, votes_are_settled=True, shares=_shares(0.05))
        seen = model.with_channel(hard)
        for _ in range(RIVAL_ROUNDS):
            seen.update((base + seen.log_evidence(torch.float64)).softmax(dim=1))
        for mistaken, probability in MISTAKEN:
            hard.shares = torch.tensor(_shares(mistaken), dtype=torch.float64)
            belief = (base + seen.log_evidence(torch.float64)).softmax(dim=1)
            out.append((share * probability, array(torch.where(belief.isnan(), base.exp(), belief))))
    return out


def _shares(mistaken: float) -> tuple[float, float, float]:
    """Of plain, torn and mistaken items; where none is mistaken none is torn."""
    torn = TORN if mistaken else 0.0
    return 1 - torn - mistaken, torn, mistaken
