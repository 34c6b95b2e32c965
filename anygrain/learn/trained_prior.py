"""The class prior of positive and unlabelled rows where an encoder is trained, estimated where it was not given.

As on frozen features (`anygrain.learn.class_prior`) in two phases, each of networks that score the rows they have not
seen: the first tell labelled rows from the rest, and with the prior that their scores give the second learn positives
from negatives. `estimate_prior` reads both.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from anygrain.encoders.trainable import Inputs, TrainableEncoder
from anygrain.labels import All, Exact, LabelError, Labels, Positive
from anygrain.labels.class_prior import FEWEST, PriorEstimate, estimate_prior
from anygrain.learn.cross_fit import PARTS, cross_fitted
from anygrain.learn.end_to_end import ClassEndToEnd
from anygrain.learn.loss import cross_entropy
from anygrain.learn.recipe import RecipeState

PHASES = 2


def with_trained_prior(
    labels: Labels,
    train: Callable[..., ClassEndToEnd],
    encoder: TrainableEncoder,
    rows: Inputs,
    state: RecipeState,
    seed: int,
) -> tuple[Labels, PriorEstimate | None]:
    """Labels whose `Positive` parts without class prior have an estimated one, and the estimate.

    Args:
        labels: as the user gave them.
        train: makes a training of an encoder, inputs and labels.
        encoder: has learnt from the data, is not trained yet.
        rows: inputs of all data rows.
        state: of the fit; a finished estimate is taken from it.
        seed: of the split.

    Raises:
        LabelError: fewer than 10 labelled rows, or rows that cannot be split.
    """
    found: PriorEstimate | None = None
    parts: list[Labels] = []
    for part in labels.parts if isinstance(labels, All) else [labels]:
        if isinstance(part, Positive) and part.prior is None:
            if found is None:
                found = _estimate(part, train, encoder, rows, state, seed)
            part = part.with_possible_prior(found.estimate)
        parts.append(part)
    return (labels.joined(parts) if isinstance(labels, All) else parts[0]), found


def _estimate(
    part: Positive,
    train: Callable[..., ClassEndToEnd],
    encoder: TrainableEncoder,
    rows: Inputs,
    state: RecipeState,
    seed: int,
) -> PriorEstimate:
    if part.n_labelled < FEWEST:
        raise LabelError(
            f"only {part.n_labelled} rows are labelled positive; estimating the class prior takes {FEWEST} or more, so "
            "give prior=..."
        )

    def compute() -> tuple[dict[str, Tensor], dict[str, Any]]:
        known, labelled = part.group >= 0, part.group == 0
        share = float(labelled.sum() / known.sum())
        weight = torch.where(labelled, 0.5 / share, 0.5 / (1 - share))  # both sides weigh the same
        asked: Labels = Exact(
            torch.where(known, labelled.long(), -1), 2, weight=weight, rows=part.rows, n_rows=part.n_rows
        )
        estimate: PriorEstimate | None = None
        for phase, name in enumerate(("labelled", "prior")):
            if estimate is not None:
                asked = Positive(
                    torch.where(known, labelled.long(), -1),
                    scenario=part.scenario,
                    rows=part.rows,
                    n_rows=part.n_rows,
                ).with_possible_prior(estimate.estimate)
            scores = _scores(asked, labelled, train, encoder, rows, seed, name, phase * PARTS)[known]
            estimate = estimate_prior(scores, labelled[known], part.scenario)
        for step in [step for step in state.steps if step.startswith(("labelled ", "prior "))]:
            state.steps[step] = {"done": torch.ones(1)}
        assert estimate is not None
        found = torch.tensor(estimate, dtype=torch.float64)
        return {"estimate": found}, {"track": "class prior", "round": 1, **estimate._asdict()}

    return PriorEstimate(*state.step("class prior", compute)[0]["estimate"].tolist())


def _scores(
    asked: Labels,
    labelled: Tensor,
    train: Callable[..., ClassEndToEnd],
    encoder: TrainableEncoder,
    rows: Inputs,
    seed: int,
    name: str,
    before: int,
) -> Tensor:
    """Log odds of every instance by networks that have not seen its row, (N,).

    Args:
        asked: two classes, the second is scored.
        labelled: bool (N,); every network has its share of their rows.
        name: what the names of the steps begin with.
        before: trainings that were before, for progress.
    """

    def plain(encoder: TrainableEncoder, rows: Inputs, labels: Labels, **how: Any) -> ClassEndToEnd:
        return train(
            encoder, rows, labels, **{**how, "loss": cross_entropy, "terms": (), "weighting": None, "temperature": 1.0}
        )

    told = torch.zeros(len(asked), dtype=torch.bool).index_fill_(0, asked.rows[labelled].cpu(), True)
    epochs = plain(copy.deepcopy(encoder), rows, asked).pace.epochs
    said = cross_fitted(
        plain, encoder, rows, asked, told, epochs, seed, part_of=lambda inside: asked[inside], name=name, before=before
    )
    if said is None:
        raise LabelError("rows cannot be split to estimate the class prior; give prior=... to Positive")
    of_instances = said[asked.rows]
    return of_instances[:, 1] - of_instances[:, 0]
