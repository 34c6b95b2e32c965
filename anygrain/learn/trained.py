"""How a Learner of classes or tags fits an encoder and its head: the network that stays, and those beside it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from anygrain.encoders.trainable import Inputs, TrainableEncoder
from anygrain.labels import LabelError, Labels
from anygrain.labels.positive import prior_missing
from anygrain.learn.cross_fit import PARTS, cross_fitted
from anygrain.learn.end_to_end import ClassEndToEnd
from anygrain.learn.head import make_head
from anygrain.learn.loss import cross_entropy, learnt_with
from anygrain.learn.recipe import Callback, RecipeState
from anygrain.learn.trained_prior import PHASES, with_trained_prior
from anygrain.learn.twins import TWINS, twin_temperature, wants_twins

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner


def refuse_procedure(learner: Learner, encoder: object) -> None:
    """Raises LabelError where a learner has a procedure and an encoder that is trained."""
    if learner.procedure is not None and isinstance(encoder, TrainableEncoder):
        raise LabelError(
            f"{type(learner.procedure).__name__} fits a head on frozen features; {type(encoder).__name__} is trained"
        )


def fit_trained(
    learner: Learner,
    encoder: TrainableEncoder,
    data: Any,
    given: Labels,
    prepare: Callable[[Labels], Labels],
    *,
    callback: Callback | None,
    state: RecipeState | None,
    kind: type[ClassEndToEnd] = ClassEndToEnd,
    head: Callable[[int], Any] | None = None,
) -> Labels:
    """Encoder and head together; sets what a fit found, and returns the labels as they were learnt from.

    Args:
        given: labels as the user gave them.
        prepare: labels as training reads them: channels of their own that have seen no other rows, the common error.
        kind: of training.
        head: makes the head for a number of features; that of classes where not given.

    Raises:
        LabelError: a procedure, which is for frozen features; a class prior that cannot be estimated.
    """
    refuse_procedure(learner, encoder)
    state = RecipeState() if state is None else state
    seed = learner._seed
    plain = not learnt_with(learner.loss, learner.terms) and learner.weighting is None
    apart, missing = learner.cross_fit and plain, prior_missing(given)
    number = (PHASES * PARTS if missing else 0) + 1 + PARTS * apart
    shaped = {
        "loss": cross_entropy if learner.loss is None else learner.loss,
        "terms": learner.terms,
        "weighting": learner.weighting,
        "temperature": 1.0,
    }

    blank = copy.deepcopy(encoder)

    def fresh(seed: int) -> TrainableEncoder:
        """An encoder that has learnt from the data, but is not trained."""
        made = copy.deepcopy(blank)
        made.learn(data, seed=seed)
        return made

    def training(encoder: TrainableEncoder, rows: Inputs, labels: Labels, **how: Any) -> ClassEndToEnd:
        settings = {**learner.training_settings(encoder), **shaped, "parts": number, **how}
        width = encoder.feature_dim
        made = make_head(learner.head, width, labels.n_classes) if head is None else head(width)
        return kind(learner, encoder, made, rows, labels, callback=callback, state=state, **settings)

    encoder.learn(data, seed=seed)
    rows = encoder.inputs(data)
    untrained = copy.deepcopy(encoder) if apart or missing else encoder
    learner.feature_scale_, learner.class_prior_estimate_, before = 1.0, None, 0
    if missing:
        given = given.to(learner._device())
        given, learner.class_prior_estimate_ = with_trained_prior(given, training, untrained, rows, state, seed)
        before = PHASES * PARTS
    labels = prepare(given)
    learner.labels_ = labels
    whole = training(encoder, rows, labels, before=before)
    twinned = plain and wants_twins(whole)
    number += TWINS * twinned
    whole.parts = number
    found = whole.run()
    if twinned:
        temperature = twin_temperature(
            whole, training, fresh, data, lambda: prepare(given), state=state, seed=seed, before=before + 1
        )
        shaped["temperature"] = temperature
        found = replace(whole.result(temperature, found.chosen), history=list(state.history))
    if apart:
        told = whole.taught_rows | whole.held_rows
        said = cross_fitted(
            training,
            untrained,
            rows,
            labels,
            told,
            whole.pace.epochs,
            seed,
            part_of=lambda inside: prepare(given[inside]),
            before=before + 1 + TWINS * twinned,
        )
        if said is not None:
            found = replace(
                found,
                held_out_log_probs=whole.of_instances(said, labels),
                held_out=torch.ones_like(found.held_out),
                history=list(state.history),
            )
    learner._keep(found)
    learner.recipe_state_ = state
    return labels
