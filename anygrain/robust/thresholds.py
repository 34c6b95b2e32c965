"""Thresholds of self-training: which guesses about rows without labels are taken for labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from anygrain.labels import LabelError

Measure = Literal["probability", "margin", "entropy"]


def confidence(votes: Tensor, measure: Measure = "probability") -> Tensor:
    r"""How sure votes (U, K) are of their likeliest class, (U,).

    "probability" is :math:`v_{(1)}`, "margin" :math:`v_{(1)} - v_{(2)}` (of two classes :math:`|v_1 - v_0|`),
    "entropy" :math:`1 - H(v) / \log K`.
    """
    if measure == "probability":
        highest: Tensor = votes.amax(dim=1)
        return highest
    if measure == "margin":
        two = votes.topk(2, dim=1).values
        margin: Tensor = two[:, 0] - two[:, 1]
        return margin
    if measure == "entropy":
        entropy = -torch.special.xlogy(votes, votes).sum(dim=1)
        spread: Tensor = entropy / math.log(votes.shape[1])
        return 1 - spread
    raise LabelError(f'confidence "{measure}" is not known: expected probability, margin or entropy')


@dataclass(frozen=True)
class Round:
    """What a threshold sees of a round.

    Attributes:
        votes: (U, K) probabilities of all rows without labels, also of those that were accepted before.
        number: of the round, from 1.
        held_out: (L, K) votes about rows with labels, from models that did not learn from them; None unless the
            threshold `needs_held_out`.
        truth: (L, K) what labels say of those rows.
    """

    votes: Tensor
    number: int = 1
    held_out: Tensor | None = None
    truth: Tensor | None = None


class Threshold:
    """Which of the rows without labels are accepted, bool (U,), by the votes of a round alone.

    Equal confidence means equal treatment, so the order of rows does not matter.

    Attributes:
        refresh: whether all guesses are made anew in every round, or stay once accepted.
        needs_held_out: whether `Round.held_out` is looked at.
    """

    refresh = False
    needs_held_out = False

    def __call__(self, seen: Round) -> Tensor:
        raise NotImplementedError


def _share(value: float, name: str) -> float:
    if not 0 < value <= 1:  # also where it is NaN
        raise LabelError(f"{name} is {value}; expected a number above 0 and at most 1")
    return float(value)


class Fixed(Threshold):
    r"""Confidence of at least :math:`\theta`. A threshold above 1 accepts nothing.

    Source: Yarowsky, Unsupervised Word Sense Disambiguation Rivaling Supervised Methods, 1995.
    """

    def __init__(self, threshold: float = 0.95, measure: Measure = "probability") -> None:
        if not threshold > 0:
            raise LabelError(f"threshold is {threshold}; expected a number above 0")
        self.threshold, self.measure = float(threshold), measure

    def __call__(self, seen: Round) -> Tensor:
        return confidence(seen.votes, self.measure) >= self.threshold


class Curriculum(Threshold):
    r"""The surest share :math:`\min(1, r\Delta)` of all rows in round r, guessed anew each time.

    Models start anew in every round, or they would keep the mistakes of the first.

    Args:
        step: :math:`\Delta`.
        measure: of confidence.
        balanced: whether each guessed class gives at most its share among rows with labels. Where few labels make one
            class win most guesses, the surest are all its own, and the next round loses the other classes.

    Source: Cascante-Bonilla et al., Curriculum Labeling, 2021.
    """

    refresh = True

    def __init__(self, step: float = 0.2, measure: Measure = "probability", balanced: bool = False) -> None:
        self.step, self.measure, self.balanced = _share(step, "the step"), measure, bool(balanced)

    def __call__(self, seen: Round) -> Tensor:
        sure = confidence(seen.votes, self.measure)
        wanted = math.ceil(min(1.0, seen.number * self.step) * len(sure) - 1e-9)
        guess, k = seen.votes.argmax(dim=1), seen.votes.shape[1]
        if not self.balanced:
            return surest_of_classes(sure, torch.zeros_like(guess), torch.tensor([wanted], device=sure.device))
        share = seen.votes.new_full((k,), 1 / k) if seen.truth is None else seen.truth.mean(dim=0)
        return surest_of_classes(sure, guess, (wanted * share - 1e-6).ceil().long())


def surest_of_classes(sure: Tensor, guess: Tensor, wanted: Tensor) -> Tensor:
    """bool (U,): rows as sure as the `wanted`-th (K,) of their guessed class (U,), all of a class with fewer."""
    order = torch.argsort(sure, descending=True, stable=True)
    order = order[torch.argsort(guess[order], stable=True)]  # by class, the surest first
    count = torch.bincount(guess, minlength=len(wanted))
    taken = torch.minimum(count, wanted)
    last = (count.cumsum(0) - count + taken - 1).clamp(min=0)
    least = torch.where(taken > 0, sure[order][last], torch.inf) if len(sure) else sure.new_zeros(len(wanted))
    return sure >= least[guess]


class TopPerClass(Threshold):
    """The surest `k` rows of every guessed class in round 1, twice as many in round 2, three times in round 3."""

    refresh = True

    def __init__(self, k: int = 10, measure: Measure = "probability") -> None:
        if k < 1:
            raise LabelError(f"k is {k}; expected 1 or more rows per class")
        self.k, self.measure = int(k), measure

    def __call__(self, seen: Round) -> Tensor:
        sure = confidence(seen.votes, self.measure)
        wanted = torch.full((seen.votes.shape[1],), seen.number * self.k, device=sure.device)
        return surest_of_classes(sure, seen.votes.argmax(dim=1), wanted)


class PlugInError(Threshold):
    r"""The most rows, surest first, whose mean error is below :math:`\epsilon` by the votes' own word.

    .. math:: A = \text{largest } \{i: v_{i(1)} \ge t\} \text{ with }
              \frac1{|A|}\sum_{i \in A} (1 - v_{i(1)}) \le \epsilon

    Votes must be calibrated.
    """

    def __init__(self, error: float = 0.05) -> None:
        self.error = _share(error, "the error")

    def __call__(self, seen: Round) -> Tensor:
        sure = confidence(seen.votes)
        ordered = sure.sort(descending=True).values
        mean = (1 - ordered).cumsum(0) / torch.arange(1, len(sure) + 1, device=sure.device)
        last = torch.cat([ordered[1:] < ordered[:-1], ordered.new_ones(1, dtype=torch.bool)])  # whole ties only
        fits = (mean <= self.error) & last
        if not bool(fits.any()):
            return torch.zeros_like(sure, dtype=torch.bool)
        return sure >= ordered[fits].amin()


class Adaptive(Threshold):
    r"""A threshold per guessed class, lower where fewer rows are surely of it.

    .. math:: \theta_c = \max\Big(\theta\, \frac{\sigma_c}{\max_b \sigma_b}, \ell\Big), \qquad
              \sigma_c = \#\{i: v_{i(1)} \ge \theta,\ \hat y_i = c\}

    Args:
        threshold: the :math:`\theta` of the most learnt class.
        least: :math:`\ell`; 0 is the rule of the source, which accepts all guesses of a class without sure ones.

    Source: Zhang et al., FlexMatch, 2021.
    """

    refresh = True

    def __init__(self, threshold: float = 0.95, least: float = 0.5) -> None:
        self.threshold, self.least = _share(threshold, "threshold"), float(least)

    def of_classes(self, votes: Tensor) -> Tensor:
        """Thresholds (K,)."""
        sure, guess = confidence(votes), votes.argmax(dim=1)
        count = torch.bincount(guess[sure >= self.threshold], minlength=votes.shape[1]).to(votes)
        if not bool(count.any()):
            return torch.full_like(count, self.threshold)
        return (self.threshold * count / count.max()).clamp(min=self.least)

    def __call__(self, seen: Round) -> Tensor:
        return confidence(seen.votes) >= self.of_classes(seen.votes)[seen.votes.argmax(dim=1)]


def joint_error_bound(margin: Tensor, excess: float, n: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    r"""Bound of the share of rows that are wrong and at or above a margin, for every observed margin.

    .. math:: B(\theta) = \min_{g \in [\theta, 1]} \Big[ P(\theta \le m < g)
              + \frac1g \max\big(0, \kappa + M(\theta) - M(g)\big) \Big], \qquad M(t) = \mathrm{mean}[m\, 1(m < t)]

    :math:`\kappa` is at least the mean of m over wrong rows, so errors above :math:`\theta` are most numerous where
    they sit at the lowest margins; the minimum is that linear program, found by one search in the cumulated margins.

    Args:
        margin: m in [0, 1], shape (U,).
        excess: :math:`\kappa`, of the same unit: a mean over `n` rows.
        n: rows that means are over, U where not given.

    Returns:
        Observed margins :math:`\theta` in rising order, B, and :math:`P(m \ge \theta)`, all (J,).

    Source: Amini, Usunier and Laviolette, A Transductive Bound for the Voted Classifier, 2008.
    """
    n = len(margin) if n is None else n
    threshold, count = margin.unique(return_counts=True)
    if not len(threshold):
        return threshold, threshold, threshold
    before = (count.cumsum(0) - count).to(margin) / n
    mass = threshold * count / n
    below = mass.cumsum(0) - mass
    ends = [threshold, before, below]
    if float(threshold[-1]) < 1:
        whole = torch.stack([margin.new_tensor(1.0), margin.new_tensor(len(margin) / n), mass.sum()])
        ends = [torch.cat([e, w[None]]) for e, w in zip(ends, whole, strict=True)]
    end, end_before, end_below = ends
    kappa = max(float(excess), 0.0)
    at = torch.searchsorted(end_below, below + kappa, right=True) - 1
    rest = (kappa + below - end_below[at]).clamp(min=0)
    bound = end_before[at] - before + torch.where(rest > 0, rest / end[at], 0.0)
    return threshold, bound, len(margin) / n - before


class MarginBound(Threshold):
    r"""Thresholds of the margin that minimise a bound of the error among accepted rows, for every guessed class.

    .. math:: \theta_c = \arg\min_\theta \frac{B_c(\theta)}{P(\hat y = c, m \ge \theta)}, \qquad
              \kappa_c = \mathrm{mean}\big[1(\hat y = c)\,(v_{\hat y} - v_y)\big] \ge
              \mathrm{mean}[m\, 1(\hat y = c \ne y)]

    with m the difference of the two highest votes and :math:`B_c` of `joint_error_bound`. The inequality holds since a
    wrong row has :math:`v_y \le v_{(2)}`; with two classes it is an equality and :math:`\kappa = R_G + \frac12
    (\bar m - 1)` for the Gibbs error :math:`R_G`. :math:`\kappa_c` is estimated on rows with labels by models that did
    not learn from them, a class with few of them near the mean over all.

    Args:
        per_class: False has one threshold for all guessed classes.
        prior: how many rows the mean over all counts in the estimate of a class.

    Source: Amini, Usunier and Laviolette, 2008; Feofanov, Devijver and Amini, 2019 (several classes).
    """

    refresh = True
    needs_held_out = True

    def __init__(self, per_class: bool = True, prior: float = 10.0) -> None:
        if not prior >= 0:
            raise LabelError(f"prior is {prior}; expected 0 or more rows")
        self.per_class, self.prior = per_class, float(prior)

    def excess(self, seen: Round) -> Tensor:
        r"""Estimates (K,) of :math:`\kappa_c`, without the share of rows that are guessed c.

        Half a wrong row of mean margin is added, so that no error among few rows does not count as none at all.
        """
        if seen.held_out is None or seen.truth is None or not len(seen.held_out):
            raise LabelError("a margin bound needs votes about rows with labels that the model did not learn from")
        highest, guess = seen.held_out.max(dim=1)
        gap = highest - (seen.truth * seen.held_out).sum(dim=1)
        margin = confidence(seen.held_out, "margin").mean()
        overall = (gap.sum() + 0.5 * margin) / (len(gap) + 1)
        k = seen.held_out.shape[1]
        found = gap.new_zeros(k).index_add(0, guess, gap)
        count = torch.bincount(guess, minlength=k)
        if self.prior == 0:
            return torch.where(count > 0, found / count.clamp(min=1), overall)
        return (found + self.prior * overall) / (count + self.prior)

    def of_classes(self, seen: Round) -> Tensor:
        """Thresholds (K,) of the margin."""
        votes = seen.votes
        guess, margin = votes.argmax(dim=1), confidence(votes, "margin")
        n, k = votes.shape
        excess = self.excess(seen) * torch.bincount(guess, minlength=k).to(votes) / n
        if not self.per_class:
            guess, excess = torch.zeros_like(guess), excess.sum()[None]
        groups = margin[torch.argsort(guess, stable=True)].split(torch.bincount(guess, minlength=len(excess)).tolist())
        found = [best_margin(*joint_error_bound(m, float(e), n)) for m, e in zip(groups, excess, strict=True)]
        return torch.stack(found).expand(k)

    def __call__(self, seen: Round) -> Tensor:
        return confidence(seen.votes, "margin") >= self.of_classes(seen)[seen.votes.argmax(dim=1)]


def best_margin(threshold: Tensor, bound: Tensor, share: Tensor) -> Tensor:
    """The threshold of the least bound / share (J,), of equal ones the lowest; infinite where there is none."""
    if not len(threshold):
        return threshold.new_tensor(torch.inf)
    return threshold[(bound / share).argmin()]


NAMES: dict[str, Callable[[], Threshold]] = {
    "fixed": Fixed,
    "curriculum": lambda: Curriculum(0.2, "margin"),
    "top_per_class": TopPerClass,
    "margin_bound": MarginBound,
    "plug_in_error": PlugInError,
    "adaptive": Adaptive,
}


def threshold_from(threshold: Threshold | str) -> Threshold:
    """A threshold, or the one of a name.

    Raises:
        LabelError: a name that is not known.
    """
    if isinstance(threshold, Threshold):
        return threshold
    if threshold not in NAMES:
        raise LabelError(f'threshold "{threshold}" is not known: expected one of {", ".join(NAMES)}')
    return NAMES[threshold]()
