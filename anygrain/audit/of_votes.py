"""Soft labels from votes: a distribution over classes for every item, by several methods and their average."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from anygrain.audit.pooling import POOLS
from anygrain.labels import Crowd, LabelError
from anygrain.labels.aggregate import aggregate

#: how far skills move towards agreement in a pass, halved every `STEPS_AT_A_PACE` passes
PACE, STEPS_AT_A_PACE, PASSES, SETTLED = 0.5, 20, 100, 1e-5


def soft_labels(
    votes: Crowd, methods: Sequence[str] | None = None, *, pool: str = "mean"
) -> tuple[Tensor, dict[str, Tensor]]:
    r"""A distribution over classes for every item: one per method, and all of them pooled.

    No single method is best on all crowds; their mean is rarely far from the best one, and better than each where the
    items to come are unlike those voted on. Train on it with `Soft(target, meaning="target")`.

    Args:
        votes: of annotators.
        methods: keys of `METHODS`; all when not given.
        pool: how they are joined, a key of `anygrain.audit.pooling.POOLS`: "mean", "product", "js_centroid", or
            "tempered_mean".

    Returns:
        the pooled labels (N, K), and those of each method by name; NaN for an item without votes.

    Raises:
        LabelError: an unknown method or pool, or none.

    Source: Wright and Augenstein, Aggregating Soft Labels from Crowd Annotations Improves Uncertainty Estimation Under
    Distribution Shift, 2022.
    """
    chosen = list(METHODS) if methods is None else list(methods)
    if not chosen:
        raise LabelError(f"methods is empty; expected some of {', '.join(METHODS)}")
    for name in chosen:
        if name not in METHODS:
            raise LabelError(f'method "{name}" is not known; expected one of {", ".join(METHODS)}')
    if pool not in POOLS:
        raise LabelError(f'pool "{pool}" is not known; expected one of {", ".join(POOLS)}')
    silent = vote_counts(votes).sum(dim=1) == 0
    found = {name: METHODS[name](votes).double() for name in chosen}
    spoken = torch.stack([table[~silent] for table in found.values()])
    pooled = torch.full_like(found[chosen[0]], torch.nan)
    pooled[~silent] = POOLS[pool](spoken)
    return pooled, {name: table.masked_fill(silent[:, None], torch.nan) for name, table in found.items()}


def vote_counts(votes: Crowd, weight: Tensor | None = None) -> Tensor:
    """Sum of the weights (R,) of the votes on each item for each class, (N, K), float64; 1 when not given."""
    given = votes.votes >= 0
    cell = votes.items[given] * votes.n_classes + votes.votes[given]
    worth = torch.ones(len(cell), dtype=torch.double, device=cell.device) if weight is None else weight[given].double()
    flat = torch.zeros(votes.n_instances * votes.n_classes, dtype=torch.double, device=cell.device)
    return flat.index_add_(0, cell, worth).reshape(votes.n_instances, votes.n_classes)


def _shares(counts: Tensor) -> Tensor:
    """Rows that sum to 1; even where nobody spoke."""
    total = counts.sum(dim=1, keepdim=True)
    return torch.where(total > 0, counts / total.clamp(min=1e-300), 1 / counts.shape[1])


def standard(votes: Crowd) -> Tensor:
    r"""Shares of votes, :math:`n_{ic} / \sum_c n_{ic}`, (N, K)."""
    return _shares(vote_counts(votes))


def softmax(votes: Crowd) -> Tensor:
    r""":math:`e^{n_{ic}} / \sum_c e^{n_{ic}}`, (N, K): surer with more votes, and never sure with one."""
    return vote_counts(votes).softmax(dim=1)


def agreement_with(votes: Crowd, support: Tensor) -> Tensor:
    """Share of each annotator's votes that are the best supported class of their item, (W,); 0 without votes.

    Args:
        votes: of annotators.
        support: of every class, (N, K); classes that tie share the agreement.
    """
    best = (support == support.amax(dim=1, keepdim=True)).double()
    best = best / best.sum(dim=1, keepdim=True)
    given = (votes.votes >= 0) & (votes.annotators >= 0)
    who = votes.annotators[given]
    agreed = torch.zeros(votes.n_annotators, dtype=torch.double, device=who.device)
    agreed = agreed.index_add_(0, who, best[votes.items[given], votes.votes[given]])
    return agreed / torch.bincount(who, minlength=votes.n_annotators).clamp(min=1)


def _by_skill(votes: Crowd, skill: Tensor) -> Tensor:
    """Shares of votes weighted by who gave them, (N, K); somebody unknown has the mean skill."""
    known = torch.cat([skill, skill.mean()[None]])
    return _shares(vote_counts(votes, known[votes.annotators]))


def wawa(votes: Crowd) -> Tensor:
    """Votes weighted by how often their annotator agrees with the majority (Wawa), (N, K)."""
    return _by_skill(votes, agreement_with(votes, vote_counts(votes)))


def zero_based_skill(votes: Crowd) -> Tensor:
    """Votes weighted by skills that move, from a flat start, towards agreement with the weighted vote, (N, K)."""
    skill = torch.full((votes.n_annotators,), 1 / votes.n_classes, dtype=torch.double, device=votes.device)
    pace = PACE
    for step in range(PASSES):
        if step and step % STEPS_AT_A_PACE == 0:
            pace *= 0.5
        moved = skill + pace * (agreement_with(votes, _by_skill(votes, skill)) - skill)
        settled = float((moved - skill).abs().max()) < SETTLED
        skill = moved
        if settled:
            break
    return _by_skill(votes, skill)


def _fitted(channel: str | None) -> Callable[[Crowd], Tensor]:
    """Posterior of the class under a model of annotators, fitted to the votes alone."""

    def method(votes: Crowd) -> Tensor:
        return aggregate(votes.with_own_channels(), channel=channel).posterior

    return method


#: the models of annotators are this library's: their penalties are learnt, so annotators with few votes are shrunk
METHODS: dict[str, Callable[[Crowd], Tensor]] = {
    "standard": standard,
    "softmax": softmax,
    "dawid_skene": _fitted("confusion"),
    "mace": _fitted("spammer"),
    "glad": _fitted("difficulty"),
    "wawa": wawa,
    "zero_based_skill": zero_based_skill,
}
