"""Annotators and rules of audited labels, with what is known of the items beside their votes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.audit.agreement import Agreement, fleiss_kappa, krippendorff_alpha
from anygrain.audit.annotators import Annotators, judge_annotators, table_of
from anygrain.audit.further_votes import VotesNeeded, votes_needed
from anygrain.audit.judging import OTHERS
from anygrain.audit.rules import JudgedRules, judge_rules
from anygrain.labels import All, Crowd, Exact, IdentifiabilityWarning, Labels, Ordinal, RealLabels, Rules, aggregate

#: of fitting annotators to what is known beside their votes
ROUNDS = 10


@dataclass(frozen=True)
class JudgedCrowd:
    """One crowd of audited labels.

    Attributes:
        part: its place in the labels.
        annotators: one by one.
        alpha, kappa: Krippendorff's alpha (ordinal where the classes are ordered) and Fleiss' kappa.
        needed: votes of anybody until items are sure; None where fewer than two classes are voted on.
    """

    part: int
    annotators: Annotators
    alpha: Agreement
    kappa: Agreement
    needed: VotesNeeded | None


def judge_crowds(labels: Labels | RealLabels, log_probs: Any, *, confidence: float = 0.95) -> list[JudgedCrowd]:
    """Every `Crowd` among labels; annotators are fitted to what the model and the other labels say.

    Args:
        labels: all of them.
        log_probs: of a model that did not see them, (N, K), or None.
        confidence: of an item that needs no more votes.
    """
    out = []
    for at, own, rest in fitted_crowds(labels, log_probs):
        needed = needed_of(own, rest, confidence)
        level = "ordinal" if isinstance(own.channel, Ordinal) else "nominal"
        out.append(
            JudgedCrowd(at, judge_annotators(own, rest), krippendorff_alpha(own, level), fleiss_kappa(own), needed)
        )
    return out


def needed_of(own: Crowd, rest: Tensor, confidence: float = 0.95) -> VotesNeeded | None:
    """Votes of anybody until items are sure; None where fewer than two classes are voted on.

    Args:
        own, rest: a crowd and what is known beside its votes, as `fitted_crowds` yields them.
        confidence: of an item that needs no more votes.
    """
    if own._columns is not None or own.n_classes < 2:
        return None
    belief = (rest + own.log_evidence(torch.float64)).softmax(dim=1)
    return votes_needed(belief, table_of(own).pooled, confidence=max(confidence, 1.001 / own.n_classes))


def fitted_crowds(labels: Labels | RealLabels, log_probs: Any) -> Iterator[tuple[int, Crowd, Tensor]]:
    """Place of every `Crowd`, it with annotators fitted to everything beside its votes, and that, (N, K) in logs.

    Args:
        labels, log_probs: as for `judge_crowds`.
    """
    parts = _parts(labels)
    for at, part in enumerate(parts):
        if isinstance(part, Crowd):
            rest = _beside(parts, at, log_probs)
            yield at, _fitted(part, rest), rest


def judge_all_rules(labels: Labels | RealLabels, posterior: Any) -> dict[int, JudgedRules]:
    """Every `Rules` among labels, by its place.

    Args:
        labels: all of them.
        posterior: P(class | all), (N, K).
    """
    parts = _parts(labels)
    out = {}
    for at, part in enumerate(parts):
        if isinstance(part, Rules):
            exact = np.full(part.n_instances, -1)
            for other in parts:
                if isinstance(other, Exact) and other.labels.shape == exact.shape:
                    exact = np.where(exact < 0, other.labels.cpu().numpy(), exact)
            own = part.with_own_channels()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", IdentifiabilityWarning)
                aggregate(own, pool=False)
            out[at] = judge_rules(own, posterior, exact)
    return out


def _fitted(part: Crowd, rest: Tensor) -> Crowd:
    """The votes with a channel of their own, fitted with log-probabilities (N, K) of everything beside them."""
    own = part.to("cpu").with_own_channels()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentifiabilityWarning)
        aggregate(own, pool=False)
    for _ in range(ROUNDS):
        own.update((rest + own.log_evidence(torch.float64)).softmax(dim=1))
    return own


def _beside(parts: Sequence[Labels], at: int, log_probs: Any) -> Tensor:
    """Log-probabilities (N, K) by the model and all kinds of label but one."""
    part = parts[at]
    n, k = part.n_instances, part.n_classes
    base = torch.full((n, k), -float(np.log(k)), dtype=torch.float64)
    if log_probs is not None:
        base = torch.as_tensor(log_probs).double().cpu()
    others = [p.to("cpu").with_error(OTHERS) for i, p in enumerate(parts) if i != at and not p.given_x]
    if not others:
        return base
    return (others[0] if len(others) == 1 else All(*others)).posterior(base).clamp(min=1e-30).log()


def _parts(labels: Labels | RealLabels) -> Sequence[Labels]:
    if not isinstance(labels, Labels):
        return []
    return labels.parts if isinstance(labels, All) else [labels]
