"""Annotators and rules of audited labels, with what is known of the items beside their votes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anygrain.audit.agreement import Agreement, fleiss_kappa, krippendorff_alpha
from anygrain.audit.annotators import Annotators, judge_annotators, table_of
from anygrain.audit.auditing import Audit
from anygrain.audit.further_votes import VotesNeeded, votes_needed
from anygrain.audit.judging import OTHERS
from anygrain.audit.rules import JudgedRules, judge_rules
from anygrain.labels import All, Crowd, Exact, IdentifiabilityWarning, Labels, Ordinal, Rules, aggregate

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


def judge_crowds(found: Audit, *, confidence: float = 0.95) -> list[JudgedCrowd]:
    """Every `Crowd` of an audit; annotators are fitted to what the model and the other labels say.

    Args:
        confidence: of an item that needs no more votes.
    """
    parts = _parts(found)
    out = []
    for at, part in enumerate(parts):
        if not isinstance(part, Crowd):
            continue
        rest = _beside(parts, at, found.log_probs)
        own = _fitted(part, rest)
        # of items that nobody voted on the model alone is no ground to say how many votes they need
        belief = (rest + own.log_evidence(torch.float64)).softmax(dim=1)
        needed = None
        if own._columns is None and own.n_classes > 1:
            needed = votes_needed(belief, table_of(own).pooled, confidence=max(confidence, 1.001 / own.n_classes))
        level = "ordinal" if isinstance(part.channel, Ordinal) else "nominal"
        out.append(
            JudgedCrowd(at, judge_annotators(own, rest), krippendorff_alpha(part, level), fleiss_kappa(part), needed)
        )
    return out


def judge_all_rules(found: Audit) -> dict[int, JudgedRules]:
    """Every `Rules` of an audit, by its place in the labels."""
    parts = _parts(found)
    out = {}
    for at, part in enumerate(parts):
        if isinstance(part, Rules) and found.posterior is not None:
            exact = np.full(part.n_instances, -1)
            for other in parts:
                if isinstance(other, Exact) and other.labels.shape == exact.shape:
                    exact = np.where(exact < 0, other.labels.cpu().numpy(), exact)
            own = part.with_own_channels()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", IdentifiabilityWarning)
                aggregate(own)
            out[at] = judge_rules(own, found.posterior, exact)
    return out


def _fitted(part: Crowd, rest: Tensor) -> Crowd:
    """The votes with a channel of their own, fitted with log-probabilities (N, K) of everything beside them."""
    own = part.to("cpu").with_own_channels()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentifiabilityWarning)
        aggregate(own)
    for _ in range(ROUNDS):
        own.update((rest + own.log_evidence(torch.float64)).softmax(dim=1))
    return own


def _beside(parts: list[Labels], at: int, log_probs: np.ndarray | None) -> Tensor:
    """Log-probabilities (N, K) by the model and all kinds of label but one."""
    part = parts[at]
    n, k = part.n_instances, part.n_classes
    base = torch.full((n, k), -float(np.log(k)), dtype=torch.float64)
    if log_probs is not None:
        base = torch.from_numpy(log_probs).double()
    others = [p.to("cpu").with_error(OTHERS) for i, p in enumerate(parts) if i != at and not p.given_x]
    if not others:
        return base
    return (others[0] if len(others) == 1 else All(*others)).posterior(base).clamp(min=1e-30).log()


def _parts(found: Audit) -> list[Labels]:
    labels = found.labels
    if not isinstance(labels, Labels):
        return []
    return list(labels.parts) if isinstance(labels, All) else [labels]
