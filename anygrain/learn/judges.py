r"""How sure a classifier may be that learnt from rules: judged by heads that halves of the rules taught.

What rules agree on says little of how often they are right, since they read the same text. So the posterior of a model
of them orders the classes of a row, and how sure it is means little; a temperature fitted to it stays as timid, or as
bold. Half-samples tell more: the rules are taken for a sample of all that one could have written. Then an estimate
from half of them varies around that from all of them as that from all of them varies around the truth,

.. math:: t = \arg\max_t \sum_i \sum_k \bar h_{ik} \log \mathrm{softmax}_k(t L_i)

with :math:`\bar h_{ik}` the share of heads, each taught by half of the rules, that name class k, and
L the out-of-fold logits of the head that all rules taught. What all rules have in common stays unseen.

Source: half-samples: McCarthy, Pseudo-replication: half samples, 1969.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn import functional

from anygrain.labels import All, IdentifiabilityWarning, InstanceLabels, Labels, Rules, aggregate
from anygrain.labels.positive import with_any_prior
from anygrain.learn.given_x import SourceTarget
from anygrain.learn.head import Linear, fit_head
from anygrain.learn.recipe import split_groups

FEWEST = 4  # rules that are taken for a sample
SPLITS = 6  # ways to halve them
ENOUGH = 20_000  # rows to judge
STEPS = 20  # of a head that judges


def with_judges(
    labels: Labels, given: Labels, features: Tensor, seed: int, *, folds: int = 2, penalty: float = 0.01
) -> Labels:
    """Labels whose target of rules is judged by heads that halves of the rules taught.

    Args:
        labels: N instances, prepared: the rules are a `SourceTarget`.
        given: the same labels as they were given. Returned as they are without rules, with fewer than 4 of them, and
            where other sources saw x too.
        features: (N, D), of unit mean square.
        seed: of halves and folds.
        folds: of rows, those of the recipe: what rows a head has seen is no difference between heads.
        penalty: of the heads.
    """
    parts = given.parts if isinstance(given, All) else [given]
    sources = [p for p in parts if p.given_x]
    rules = [p for p in sources if isinstance(p, Rules)]
    targets = [p for p in (labels.parts if isinstance(labels, All) else [labels]) if isinstance(p, SourceTarget)]
    if not targets or len(rules) < len(sources) or sum(p.n_rules for p in rules) < FEWEST:
        return labels
    generator = torch.Generator().manual_seed(seed)
    fold = split_groups(labels.groups()[labels.rows].cpu(), max(folds, 2), generator).to(features.device)
    told = All(*(p for p in parts if isinstance(p, InstanceLabels))).to(features.device)
    instances = torch.arange(given.n_instances, device=features.device)
    if given.n_rows > ENOUGH:
        chosen = torch.randperm(given.n_rows, generator=generator)[:ENOUGH].sort().values.to(features.device)
        instances = torch.argsort(told.rows, stable=True)  # as a selection of rows has them
        instances = instances[torch.isin(told.rows[instances], chosen)]
        told = told[chosen]
    said = _half_samples(told, targets[0].shares, features[instances], fold[instances], generator, penalty)
    if said is None:
        return labels
    judged = torch.full((labels.n_instances, labels.n_classes), torch.nan, device=features.device)
    judged[instances] = said

    def with_own(part: Labels) -> Labels:
        return part.with_judged(judged) if isinstance(part, SourceTarget) else part

    if isinstance(labels, All):
        return labels.joined([with_own(p) for p in labels.parts])
    return with_own(labels)


def _half_samples(
    told: All, shares: Tensor, features: Tensor, fold: Tensor, generator: torch.Generator, penalty: float
) -> Tensor | None:
    """Share of heads (N, K) that name each class; None where no half of the rules speaks."""
    count = sum(p.n_rules for p in told.parts if isinstance(p, Rules) and p.given_x)
    total = features.new_zeros(told.n_instances, told.n_classes)
    heads = 0
    for _ in range(SPLITS):
        order = torch.randperm(count, generator=generator)
        for half in (order[: count // 2], order[count // 2 :]):
            named = _taught(_of_rules(told, half.sort().values), shares, features, fold, penalty)
            if named is not None:
                total += functional.one_hot(named, told.n_classes).to(total)
                heads += 1
    return total / heads if heads else None


def _of_rules(told: All, half: Tensor) -> All:
    """The labels with some of their rules, numbered over all parts."""
    parts, before = [], 0
    for part in told.with_own_channels().parts:
        if isinstance(part, Rules) and part.given_x:
            own = half[(half >= before) & (half < before + part.n_rules)] - before
            before += part.n_rules
            part = part.of_rules(own.to(part.device))
        parts.append(part)
    return told.joined(parts)


def _taught(labels: All, shares: Tensor, features: Tensor, fold: Tensor, penalty: float) -> Tensor | None:
    """Class (N,) that heads of the other folds name, taught by what the labels come to; None where they say nothing.

    The class shares (K,) are those of all rules; half of them is no better for knowing them.
    """
    if not any(len(p.votes) for p in labels.parts if isinstance(p, Rules) and p.given_x):
        return None
    with warnings.catch_warnings():  # a half may leave open what all rules settle
        warnings.simplefilter("ignore", IdentifiabilityWarning)
        target = aggregate(with_any_prior(labels), prior=shares).posterior.to(features)
    named = torch.zeros_like(fold)
    for f in range(int(fold.max()) + 1):
        inside = fold != f
        head = Linear(features.shape[1], labels.n_classes).to(features)
        fit_head(head, features[inside], target[inside], penalty=penalty, steps=STEPS)
        with torch.no_grad():
            named[~inside] = head.logits(features[~inside]).argmax(dim=1)
    return named
