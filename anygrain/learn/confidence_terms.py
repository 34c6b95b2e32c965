"""Confidences in place of labels: how probably positive, similar, or more positive somebody says instances are.

`PositiveConfidence` is for positive instances alone, each with its probability to be positive; `SimilarityConfidence`
and `ConfidenceDifference` are for pairs. Each has two forms. "risk" is an unbiased estimate of the supervised risk at
the stated confidences, corrected where it goes below 0. "likelihood" is one sentence for all: the cross-entropy

.. math:: -t \\log m - (1 - t) \\log(1 - m)

of the stated probability t of an event and the model's probability m of it: the instance is positive, the two are of
one class, the second is the higher one (ties drawn by a coin).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from anygrain.labels import Bags, LabelError
from anygrain.labels.error import require, whole_numbers
from anygrain.learn.step import Step
from anygrain.learn.term import Term

Correction = Literal["none", "relu", "abs"]
Form = Literal["risk", "likelihood"]


# -- on plain tensors -------------------------------------------------------------------------------------------------


def positive_confidence_risk(log_odds: tuple[Tensor, Tensor], confidence: Tensor, prior: float = 1.0) -> Tensor:
    r"""The supervised risk from positive instances and their confidences r, a scalar.

    .. math:: R = \pi \, E_+\Big[-\log p(x) - \frac{1 - r(x)}{r(x)} \log(1 - p(x))\Big]

    Args:
        log_odds: log p and log(1 - p) of the positive class, both (n,).
        confidence: r, shape (n,), in (0, 1].
        prior: pi, the share of positives; it scales the risk.

    Source: Ishida, Niu and Sugiyama, Binary classification from positive-confidence data, 2018.
    """
    positive, negative = log_odds
    return prior * (-positive - (1 - confidence) / confidence * negative).mean()


def similarity_confidence_risk(
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    confidence: Tensor,
    prior: float,
    correction: Correction = "none",
) -> Tensor:
    r"""The supervised risk from independent pairs and their probabilities s to be of one class, a scalar.

    .. math:: R = E\Big[\frac{(s - 1 + \pi)(\ell_+(x) + \ell_+(x')) + (\pi - s)(\ell_-(x) + \ell_-(x'))}
                             {2 (2 \pi - 1)}\Big]

    Args:
        first, second: log p and log(1 - p) of the positive class, all (n,).
        confidence: s, shape (n,).
        prior: pi, the share of positives; other than 1/2.
        correction: of the positive and of the negative part, which are at least 0 in expectation.

    Source: Cao and others, Learning from similarity-confidence data, 2021.
    """
    positive = (confidence - 1 + prior) * -(first[0] + second[0])
    negative = (prior - confidence) * -(first[1] + second[1])
    parts = torch.stack([positive.mean(), negative.mean()]) / (2 * (2 * prior - 1))
    return _corrected(parts, correction)


def confidence_difference_risk(
    first: tuple[Tensor, Tensor],
    second: tuple[Tensor, Tensor],
    difference: Tensor,
    prior: float,
    correction: Correction = "none",
) -> Tensor:
    r"""The supervised risk from independent pairs and the differences c = p(+|x') - p(+|x), a scalar.

    .. math:: R = \tfrac12 E[(\pi - c)\, \ell_+(x) + (1 - \pi + c)\, \ell_-(x) +
                             (\pi + c)\, \ell_+(x') + (1 - \pi - c)\, \ell_-(x')]

    Args:
        first, second: log p and log(1 - p) of the positive class, all (n,).
        difference: c, shape (n,), second minus first.
        prior: pi, the share of positives.
        correction: of the four parts, which are at least 0 in expectation.

    Source: Wang and others, Binary classification with confidence difference, 2023.
    """
    weights = torch.stack([prior - difference, 1 - prior + difference, prior + difference, 1 - prior - difference])
    losses = -torch.stack([first[0], first[1], second[0], second[1]])
    return _corrected((weights * losses).mean(dim=1) / 2, correction)


def _corrected(parts: Tensor, correction: Correction) -> Tensor:
    return {"none": parts, "relu": parts.relu(), "abs": parts.abs()}[correction].sum()


def event_cross_entropy(log_event: Tensor, log_other: Tensor, stated: Tensor) -> Tensor:
    """Mean of -t log m - (1 - t) log(1 - m), a scalar, for log m, log(1 - m) and t, all (n,)."""
    return -(stated * log_event + (1 - stated) * log_other).mean()


def log_same(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """log P(both positive or both negative), and of its opposite, both (n,)."""
    same = torch.logaddexp(first[0] + second[0], first[1] + second[1])
    return same, torch.logaddexp(first[0] + second[1], first[1] + second[0])


def log_second_higher(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """log P(second higher, ties by a coin) = log (1 + p' - p) / 2, and of its opposite, both (n,)."""
    tie = log_same(first, second)[0] - math.log(2)
    return torch.logaddexp(first[1] + second[0], tie), torch.logaddexp(first[0] + second[1], tie)


# -- as terms ---------------------------------------------------------------------------------------------------------


class _Confidences(Term):
    """What the three have in common: the positive classes, the form, and values of those in the batch."""

    def __init__(
        self, prior: float, positive: int | Sequence[int], form: Form, correction: Correction, weight: float
    ) -> None:
        super().__init__()
        if not 0 < float(prior) <= 1:
            raise LabelError(f"the class prior is {prior}; expected the share of positives, above 0 and at most 1")
        if form not in ("risk", "likelihood"):
            raise LabelError(f'form is "{form}"; expected risk or likelihood')
        if correction not in ("none", "relu", "abs"):
            raise LabelError(f'correction is "{correction}"; expected none, relu or abs')
        self.prior, self.form, self.correction, self.weight = float(prior), form, correction, float(weight)
        self.positive = (positive,) if isinstance(positive, int) else tuple(positive)

    def log_odds(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """log-probabilities of the positive classes and of the others, both (B,), from (B, K)."""
        is_positive = torch.zeros(log_probs.shape[1], dtype=torch.bool, device=log_probs.device)
        is_positive[list(self.positive)] = True
        if bool(is_positive.all()) or not bool(is_positive.any()):
            raise LabelError(f"positive classes are {list(self.positive)} of {len(is_positive)}; expected some of them")
        return torch.logsumexp(log_probs[:, is_positive], dim=1), torch.logsumexp(log_probs[:, ~is_positive], dim=1)


class PositiveConfidence(_Confidences):
    r"""Positive instances, each with the probability r that one like it is positive; no negative one was seen.

    See `positive_confidence_risk`; the form "likelihood" has r as a soft label.

    Args:
        confidence: shape (N,); NaN where an instance has none.
        prior: share of positives; it scales the risk.
        positive: class, or classes, that count as positive.
        form: "risk" or "likelihood".
        least: confidences below are raised to this, so that no instance weighs more than (1 - least) / least.
        weight: factor of the term.

    Raises:
        LabelError: a confidence outside [0, 1], a prior outside (0, 1], an unknown form.
    """

    confidence: Tensor

    def __init__(
        self,
        confidence: Any,
        prior: float = 1.0,
        *,
        positive: int | Sequence[int] = 1,
        form: Form = "risk",
        least: float = 0.01,
        weight: float = 1.0,
    ) -> None:
        super().__init__(prior, positive, form, "none", weight)
        given = torch.as_tensor(confidence).float()
        if given.ndim != 1:
            raise LabelError(f"confidence has shape {tuple(given.shape)}; expected (N,), one per instance")
        require(given.isnan() | ((given >= 0) & (given <= 1)), "has a confidence outside 0..1", noun="instance")
        self.register_buffer("confidence", given.clamp(min=least), persistent=False)

    def forward(self, step: Step) -> Tensor:
        confidence = self.confidence[step.instances]
        known = ~confidence.isnan()
        if not bool(known.any()):
            return step.log_probs.sum() * 0
        positive, negative = self.log_odds(step.log_probs[known])
        stated = confidence[known].to(positive.dtype)
        if self.form == "likelihood":
            return self.weight * event_cross_entropy(positive, negative, stated)
        return self.weight * positive_confidence_risk((positive, negative), stated, self.prior)


class _PairConfidences(_Confidences):
    """Values of pairs: those of a batch are the pairs that lie in it as a whole."""

    pairs: Tensor
    values: Tensor
    offsets: Tensor

    def __init__(
        self,
        pairs: Any,
        values: Any,
        prior: float,
        *,
        positive: int | Sequence[int] = 1,
        form: Form = "risk",
        correction: Correction = "abs",
        weight: float = 1.0,
    ) -> None:
        super().__init__(prior, positive, form, correction, weight)
        pairs, values = whole_numbers(pairs, "instances of pairs"), torch.as_tensor(values).float()
        if pairs.ndim != 2 or pairs.shape[1] != 2 or values.shape != pairs.shape[:1]:
            shapes = f"{tuple(pairs.shape)} and {tuple(values.shape)}"
            raise LabelError(f"pairs and their values have shapes {shapes}; expected (M, 2) and (M,)")
        require((pairs >= 0).all(dim=1) & (pairs[:, 0] != pairs[:, 1]), "is not of two instances", noun="pair")
        order = torch.argsort(pairs[:, 0], stable=True)
        count = torch.bincount(pairs[:, 0], minlength=int(pairs.max()) + 1 if len(pairs) else 0)
        self.register_buffer("pairs", pairs[order], persistent=False)
        self.register_buffer("values", values[order], persistent=False)
        self.register_buffer("offsets", torch.cat([count.new_zeros(1), count.cumsum(0)]), persistent=False)

    def bags(self) -> Bags:
        steps = 2 * torch.arange(len(self.pairs) + 1, device=self.pairs.device)
        return Bags(self.pairs.reshape(-1), steps, len(self.offsets) - 1)

    def inside(self, instances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Places in the batch (m,) of both members of the pairs that lie in it, and their values (m,)."""
        ordered, place = instances.sort()
        known = (instances < len(self.offsets) - 1).nonzero()[:, 0]
        first = instances[known]
        sizes = self.offsets.diff()[first]
        starts = self.offsets[first] - (sizes.cumsum(0) - sizes)
        at = torch.repeat_interleave(starts, sizes) + torch.arange(int(sizes.sum()), device=instances.device)
        other = self.pairs[at, 1]
        found = torch.searchsorted(ordered, other).clamp(max=max(len(ordered) - 1, 0))
        held = ordered[found] == other
        return known[torch.repeat_interleave(sizes)][held], place[found][held], self.values[at][held]

    def forward(self, step: Step) -> Tensor:
        i, j, values = self.inside(step.instances)
        if not len(values):
            return step.log_probs.sum() * 0
        positive, negative = self.log_odds(step.log_probs)
        stated = values.to(positive.dtype)
        return self.weight * self.value((positive[i], negative[i]), (positive[j], negative[j]), stated)

    def value(self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], stated: Tensor) -> Tensor:
        raise NotImplementedError


class SimilarityConfidence(_PairConfidences):
    r"""Pairs of instances, each with the probability s that both are of one class.

    See `similarity_confidence_risk` for the form "risk"; pairs are then taken to be drawn independently.

    Args:
        pairs: instance ids, shape (M, 2).
        confidence: s, shape (M,).
        prior: share of positives, other than 1/2 for "risk".
        positive: class, or classes, that count as positive.
        form: "risk" or "likelihood"; the latter cannot tell which of the classes is the positive one.
        correction: of parts of the risk that go below 0: "none", "relu" or "abs".
        weight: factor of the term.

    Raises:
        LabelError: shapes that differ, a pair of an instance with itself, a confidence outside [0, 1], a prior of 1/2.
    """

    def __init__(self, pairs: Any, confidence: Any, prior: float, **how: Any) -> None:
        super().__init__(pairs, confidence, prior, **how)
        require((self.values >= 0) & (self.values <= 1), "has a confidence outside 0..1", noun="pair")
        if self.form == "risk" and abs(2 * self.prior - 1) < 1e-3:
            raise LabelError(
                'similarity tells nothing where half are positive: give another prior, or form="likelihood"'
            )

    def value(self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], stated: Tensor) -> Tensor:
        if self.form == "likelihood":
            return event_cross_entropy(*log_same(first, second), stated)
        return similarity_confidence_risk(first, second, stated, self.prior, self.correction)


class ConfidenceDifference(_PairConfidences):
    r"""Pairs of instances, each with how much more probably the second is positive, p(+|x') - p(+|x).

    See `confidence_difference_risk` for the form "risk"; pairs are then taken to be drawn independently.

    Args:
        pairs: instance ids, shape (M, 2).
        difference: shape (M,), second minus first, in [-1, 1].
        prior: share of positives.
        positive: class, or classes, that count as positive.
        form: "risk" or "likelihood".
        correction: of parts of the risk that go below 0: "none", "relu" or "abs".
        weight: factor of the term.

    Raises:
        LabelError: shapes that differ, a pair of an instance with itself, a difference outside [-1, 1].
    """

    def __init__(self, pairs: Any, difference: Any, prior: float, **how: Any) -> None:
        super().__init__(pairs, difference, prior, **how)
        require(self.values.abs() <= 1, "has a difference outside -1..1", noun="pair")

    def value(self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], stated: Tensor) -> Tensor:
        if self.form == "likelihood":
            return event_cross_entropy(*log_second_higher(first, second), (1 + stated) / 2)
        return confidence_difference_risk(first, second, stated, self.prior, self.correction)
