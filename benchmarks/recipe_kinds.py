"""Evidence about sets, pairs and samples beside a few exact labels, drawn from the truth of a benchmark's rows.

Every kind is what somebody could say without looking at single rows. Where a kind names one class or group of a bag,
it is drawn at random per bag, so that all classes are spoken of.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from anygrain.labels import (
    Aggregate,
    AtLeast,
    AtMost,
    Automaton,
    Bags,
    Between,
    Compare,
    Exact,
    Labels,
    Majority,
    PairsUnlabeled,
    Positive,
    SetLabel,
    TwoUnlabeled,
)

LONGEST = 3  # of the runs that the automaton counts


class Truth(NamedTuple):
    """Classes (N,) of rows, their number K, and the coarse class of every class (K,)."""

    classes: Tensor
    n_classes: int
    parents: Tensor


class Kind(NamedTuple):
    """One kind of evidence: how it is drawn, from how many rows a set, and whether about two coarse classes only."""

    draw: Callable[[Truth, int, torch.Generator], Labels]
    size: int = 0
    two_classes: bool = False


def bags_of(n: int, size: int, generator: torch.Generator) -> Bags:
    """Every row in one bag of about this size, at random."""
    ids = torch.empty(n, dtype=torch.long)
    ids[torch.randperm(n, generator=generator)] = (torch.arange(n) // size).clamp(max=n // size - 1)
    return Bags.from_ids(ids)


def target_of(truth: Truth, bags: Bags, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A class of one random member of each bag (M,), and how many members have it (M,)."""
    place = (torch.rand(len(bags), generator=generator) * bags.sizes).long()
    target = truth.classes[bags.members[bags.offsets[:-1] + place]]
    same = truth.classes[bags.members] == target[bags.index]
    return target, torch.zeros(len(bags), dtype=torch.long).index_add(0, bags.index, same.long())


def at_least(truth: Truth, size: int, generator: torch.Generator) -> Labels:
    bags = bags_of(len(truth.classes), size, generator)
    target, count = target_of(truth, bags, generator)
    return AtLeast(bags, count, target, truth.n_classes)


def at_most(truth: Truth, size: int, generator: torch.Generator) -> Labels:
    bags = bags_of(len(truth.classes), size, generator)
    target, count = target_of(truth, bags, generator)
    return AtMost(bags, count, target, truth.n_classes)


def between(truth: Truth, size: int, generator: torch.Generator) -> Labels:
    bags = bags_of(len(truth.classes), size, generator)
    target, count = target_of(truth, bags, generator)
    return Between(bags, count - 1, torch.minimum(count + 1, bags.sizes), target, truth.n_classes)


def majority(truth: Truth, size: int, generator: torch.Generator) -> Labels:
    bags = bags_of(len(truth.classes), size, generator)
    return Majority.simulate(truth.classes, truth.n_classes, generator=generator, bags=bags)


def coarse_majority(truth: Truth, size: int, generator: torch.Generator) -> Labels:
    bags = bags_of(len(truth.classes), size, generator)
    members = torch.nn.functional.one_hot(truth.parents).T.double()
    return SetLabel.simulate(truth.classes, truth.n_classes, generator=generator, bags=bags, taxonomy=members)


def distinct(truth: Truth, size: int, generator: torch.Generator) -> Labels:
    bags = bags_of(len(truth.classes), size, generator)
    return SetLabel.simulate(truth.classes, truth.n_classes, generator=generator, bags=bags, rule="distinct")


def highest(truth: Truth, size: int, generator: torch.Generator) -> Labels:
    bags = bags_of(len(truth.classes), size, generator)
    return SetLabel.simulate(truth.classes, truth.n_classes, generator=generator, bags=bags, rule="highest")


def mean_value(truth: Truth, size: int, generator: torch.Generator) -> Labels:
    bags = bags_of(len(truth.classes), size, generator)
    return Aggregate.simulate(truth.classes, truth.n_classes, generator=generator, bags=bags, how="mean")


def longest_run(truth: Truth, size: int, generator: torch.Generator) -> Labels:
    """The longest run of members of coarse class 1, up to `LONGEST`; state = run x (LONGEST + 1) + longest so far."""
    state = torch.arange((LONGEST + 1) ** 2)
    run, longest = state // (LONGEST + 1), state % (LONGEST + 1)
    inside = (run + 1).clamp(max=LONGEST)
    on = inside * (LONGEST + 1) + torch.maximum(inside, longest)
    transition = torch.where((truth.parents == 1)[None], on[:, None], longest[:, None])
    final = torch.nn.functional.one_hot(longest).T.double()
    bags = bags_of(len(truth.classes), size, generator)
    return Automaton.simulate(
        truth.classes, truth.n_classes, generator=generator, transition=transition, bags=bags, final=final
    )


def compare(truth: Truth, size: int, generator: torch.Generator) -> Labels:
    """Every row in one pair, of which the higher class was picked."""
    n = len(truth.classes) // 2 * 2
    pairs = torch.randperm(len(truth.classes), generator=generator)[:n].reshape(-1, 2)
    left, right = truth.classes[pairs].T
    picked = torch.where(left == right, torch.rand(len(pairs), generator=generator) < 0.5, left > right)
    relation = ["left" if p else "right" for p in picked.tolist()]
    return Compare(pairs, relation, truth.n_classes, len(truth.classes))


def positive(truth: Truth, size: int, generator: torch.Generator) -> Labels:
    """A tenth of the rows of class 1 labelled, the prior known."""
    return Positive.simulate(truth.classes, 2, generator=generator, share=0.1)


def two_unlabeled(truth: Truth, size: int, generator: torch.Generator) -> Labels:
    return TwoUnlabeled.simulate(truth.classes, generator=generator, priors=(0.3, 0.7))


def pairs_unlabeled(truth: Truth, size: int, generator: torch.Generator) -> Labels:
    """A quarter of the rows in pairs."""
    return PairsUnlabeled.simulate(truth.classes, 2, generator=generator, n_pairs=len(truth.classes) // 8)


def nothing(truth: Truth, size: int, generator: torch.Generator) -> Labels:
    """Rows without evidence, to tell what the evidence adds to them."""
    return Exact(torch.full_like(truth.classes, -1), truth.n_classes)


KINDS: dict[str, Kind] = {
    "unlabelled rows": Kind(nothing),
    "at least, bags of 12": Kind(at_least, 12),
    "at most, bags of 12": Kind(at_most, 12),
    "between, bags of 12": Kind(between, 12),
    "majority, bags of 12": Kind(majority, 12),
    "majority coarse, bags of 8": Kind(coarse_majority, 8),
    "distinct, bags of 8": Kind(distinct, 8),
    "highest, bags of 8": Kind(highest, 8),
    "mean value, bags of 12": Kind(mean_value, 12),
    "longest run, bags of 16": Kind(longest_run, 16),
    "compare": Kind(compare),
    "unlabelled rows, two classes": Kind(nothing, two_classes=True),
    "positive": Kind(positive, two_classes=True),
    "two unlabelled": Kind(two_unlabeled, two_classes=True),
    "pairs unlabelled": Kind(pairs_unlabeled, two_classes=True),
}
