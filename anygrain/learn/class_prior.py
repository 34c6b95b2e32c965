"""The class prior of positive and unlabelled rows, estimated where it was not given."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.labels import All, LabelError, Labels, Positive
from anygrain.labels.class_prior import FEWEST, PriorEstimate, estimate_prior
from anygrain.learn.graph import Graph, neighbour_graph
from anygrain.learn.head import Linear, fit_head
from anygrain.learn.recipe import Recipe, Settings

FOLDS = 3


def with_class_prior(
    labels: Labels, features: Tensor, seed: int = 0, *, neighbours: int = 10, penalty: float = 0.01
) -> tuple[Labels, PriorEstimate | None]:
    """Labels whose `Positive` parts without class prior have an estimated one, and the estimate.

    A first guess comes from cross-fitted scores of labelled rows against the rest. With it the recipe is fitted to two
    thirds of the rows and scores the last third, whose labels it has not seen, three times; `estimate_prior` reads
    these scores.

    Args:
        labels: N instances.
        features: (N, D), of unit mean square.
        seed: where folds come from.
        neighbours, penalty: of the recipe, see `Settings`.

    Raises:
        LabelError: fewer than 10 labelled rows.
    """
    found: PriorEstimate | None = None
    parts = []
    for part in _parts(labels):
        if isinstance(part, Positive) and part.prior is None:
            estimate = _estimate(part, features, seed, Settings(rounds=3, neighbours=neighbours, penalty=penalty))
            part = part.with_possible_prior(estimate.estimate)
            found = found or estimate
        parts.append(part)
    if found is None:
        return labels, None
    return (labels.joined(parts) if isinstance(labels, All) else parts[0]), found


def with_known_prior(labels: Labels, estimate: PriorEstimate | None) -> Labels:
    """Labels whose `Positive` parts without class prior have the one that was estimated, where there is an estimate."""
    if estimate is None:
        return labels
    parts = [
        part.with_possible_prior(estimate.estimate) if isinstance(part, Positive) and part.prior is None else part
        for part in _parts(labels)
    ]
    return labels.joined(parts) if isinstance(labels, All) else parts[0]


def log_labelled_against_rest(features: Tensor, labelled: Tensor, fold: Tensor, penalty: float = 0.01) -> Tensor:
    """Cross-fitted log odds (N,) of being labelled, both sides weighing the same, by linear heads.

    Args:
        features: (N, D), of unit mean square.
        labelled: bool, (N,).
        fold: (N,), from 0 on; a row is scored by a head that trained on the other folds.
        penalty: weight decay, see `fit_head`.
    """
    scores = features.new_zeros(len(features))
    target = torch.stack([~labelled, labelled], dim=1).to(features)
    for f in range(int(fold.max()) + 1):
        inside = fold != f
        size = target[inside].sum(dim=0).clamp(min=1)
        weight = (target[inside] / size).sum(dim=1) * int(inside.sum()) / 2
        head = Linear(features.shape[1], 2).to(features.device)
        head.start(features[inside], target[inside])
        fit_head(head, features[inside], target[inside], weight=weight, penalty=penalty, steps=20)
        with torch.no_grad():
            logits = head.logits(features[~inside])
        scores[~inside] = logits[:, 1] - logits[:, 0]
    return scores


def _parts(labels: Labels) -> list[Labels]:
    return labels.parts if isinstance(labels, All) else [labels]


def _estimate(part: Positive, features: Tensor, seed: int, settings: Settings) -> PriorEstimate:
    if part.n_labelled < FEWEST:
        raise LabelError(
            f"only {part.n_labelled} rows are labelled positive; estimating the class prior takes {FEWEST} or more, so "
            "give prior=..."
        )
    known = (part.group >= 0).nonzero()[:, 0]
    features, labelled = features[known], part.group[known] == 0
    generator = torch.Generator().manual_seed(seed)
    fold = torch.empty_like(known)
    for rows in (labelled.nonzero()[:, 0], (~labelled).nonzero()[:, 0]):
        order = torch.randperm(len(rows), generator=generator).to(rows.device)
        fold[rows[order]] = torch.arange(len(rows), device=rows.device) % FOLDS
    scores = log_labelled_against_rest(features, labelled, fold, settings.penalty)
    first = estimate_prior(scores, labelled, part.scenario)
    scores = torch.zeros_like(scores)
    for f in range(FOLDS):
        inside = fold != f
        graph: Graph | None = None
        if settings.neighbours:
            graph = neighbour_graph(features[inside], settings.neighbours)
        own = Positive(labelled[inside], scenario=part.scenario)
        own = own.with_possible_prior(first.estimate)
        recipe = Recipe(
            features[inside],
            own,
            lambda: Linear(features.shape[1], 2).to(features.device),
            settings=settings,
            seed=seed,
            graph=graph,
        )
        head = recipe.run().head
        with torch.no_grad():
            logits = head.logits(features[~inside])
        scores[~inside] = logits[:, 1] - logits[:, 0]
    return estimate_prior(scores, labelled, part.scenario)
