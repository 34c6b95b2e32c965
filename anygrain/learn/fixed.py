"""A head on fixed features: by the recipe, then a loss, terms or a weighting of one's own, or by a procedure.

Heads of one's own are calibrated as those of the recipe are: by the evidence of rows that they have not seen. Of a
loop, a head is fitted in the same way to each two thirds of the rows, towards the recipe's posteriors; of a procedure,
one is fitted without a fifth of the rows of which something is told. With `cross_fit` all is done again on each half.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from anygrain.labels import All, Labels, Majority
from anygrain.learn.calibration import confidence_temperature, evidence_score, fit_temperature
from anygrain.learn.class_prior import with_known_prior
from anygrain.learn.cross_fit import PARTS, held_part, split_in_parts
from anygrain.learn.end_to_end import SHRINK, doubts, instances_of
from anygrain.learn.fabric import OneDevice
from anygrain.learn.head import Head, Linear, make_head
from anygrain.learn.loop import ClassLoop, FeatureRows, FixedTargets, Network
from anygrain.learn.loss import AdaptiveLoss, cross_entropy, learnt_with
from anygrain.learn.recipe import Callback, Recipe, RecipeState, Settings
from anygrain.learn.set_heads import fit_network, wants_network
from anygrain.learn.together import kept_together

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

FOLDS = 3  # of a loop: a head of half the rows learns them by heart sooner than the one that stays
OWN = ("loss", "terms", "weighting", "procedure")


def fit_fixed(
    learner: Learner,
    rows: Tensor,
    labels: Labels,
    given: Labels,
    callback: Callback | None,
    state: RecipeState | None,
) -> None:
    """A head, its temperature and held-out log-probabilities, as fitted attributes of the learner.

    Args:
        rows: features (R, D) of the data rows.
        labels: as they are learnt from; their channels are fitted in place.
        given: as the user gave them: channels of a half are to see no other rows.
    """
    own = learner._shaped or learner.procedure is not None
    fresh = _copy(learner)
    recipe = _fit(learner, rows, labels, callback, state)
    if not own:
        return
    found: tuple[Tensor, Tensor] | None = None
    if not any(term.bags() is not None for term in learner.terms):
        if learner.cross_fit:
            found = _by_halves(fresh, rows, labels, given)
        elif recipe is not None:
            found = _by_loops(learner, fresh, recipe, rows, labels)
        elif learner.procedure is not None and not learner.procedure.finds_temperature:
            found = _without_some(fresh, rows, labels)
    _calibrate(learner, rows[labels.rows], labels, found)


def _copy(learner: Learner) -> Learner:
    """The learner as it is before a fit, with methods of its own, which a fit changes."""
    twin = copy.copy(learner)
    for name in OWN:
        setattr(twin, name, copy.deepcopy(getattr(learner, name)))
    return twin


def _fit(
    learner: Learner, rows: Tensor, labels: Labels, callback: Callback | None, state: RecipeState | None
) -> Recipe | None:
    """A head without a temperature of its own, unless it is the recipe's, which is returned."""
    features = rows[labels.rows]
    if learner.procedure is not None:
        _run(learner, features, with_fitted_channels(learner, features, labels))
        return None
    settings = replace(_settings(learner), penalty=_decay(learner, labels))

    def recipe_of(
        head: str | type[Head],
        penalty: float,
        state: RecipeState | None,
        callback: Callback | None,
        **how: Any,
    ) -> Recipe:
        return Recipe(
            features,
            labels,
            lambda: make_head(head, features.shape[1], labels.n_classes).to(features.device),
            settings=replace(settings, penalty=penalty),
            seed=learner._seed,
            state=state,
            callback=callback,
            **how,
        )

    if learner.head == "linear" and wants_network(labels):
        recipe, found, learner.recipe_state_ = fit_network(recipe_of, labels, learner.penalty, state, callback)
    else:
        recipe = recipe_of(learner.head, settings.penalty, state, callback)
        found, learner.recipe_state_ = recipe.run(), recipe.state
    learner._keep(found)
    if learner._shaped:
        learner.temperature_, learner._calibration = 1.0, None
        _loop(learner, rows, labels, torch.as_tensor(learner.posterior_, device=rows.device))
    return recipe


def _decay(learner: Learner, labels: Labels) -> float:
    """Weight decay in the loss of an instance: of majorities alone, each of which is one observation, more."""
    parts = labels.parts if isinstance(labels, All) else [labels]
    majorities = [part for part in parts if isinstance(part, Majority)]
    if len(majorities) < len(parts):
        return learner.penalty
    members, sets = sum(len(part.sets.members) for part in majorities), sum(len(part.sets) for part in majorities)
    return learner.penalty * members / max(sets, 1)


def _settings(learner: Learner) -> Settings:
    return Settings(
        rounds=learner.rounds,
        folds=learner.folds,
        exact_folds=learner.exact_folds,
        neighbours=learner.neighbours,
        penalty=learner.penalty,
    )


def with_fitted_channels(learner: Learner, features: Tensor, labels: Labels) -> Labels:
    """The same labels; their channels are fitted to the features (N, D) by the recipe, with a linear head."""
    if labels.channels:
        Recipe(
            features,
            labels,
            lambda: Linear(features.shape[1], labels.n_classes).to(features),
            settings=_settings(learner),
            seed=learner._seed,
        ).run()
    return labels


def _run(learner: Learner, features: Tensor, labels: Labels) -> None:
    """The procedure, on features (N, D) of the instances."""
    assert learner.procedure is not None
    learner.head_ = make_head(learner.head, features.shape[1], labels.n_classes).to(features.device)
    learner.temperature_, learner.history_ = 1.0, []
    learner.chosen_ = {"chosen": "evidence", "why": f"fitted by {type(learner.procedure).__name__}"}
    learner.procedure.run(learner, features, labels)
    learner.head_.eval()


def _loop(learner: Learner, rows: Tensor, labels: Labels, posterior: Tensor) -> None:
    """Gradient steps of the head towards posteriors (N, K), with the loss, terms and weighting that were given."""
    learner.labels_ = labels
    pace = learner.loop_pace()
    loop = ClassLoop(
        learner,
        Network(learner.head_, terms=learnt_with(learner.loss, learner.terms)),
        FeatureRows(rows),
        kept_together(labels, learner.terms),
        FixedTargets(posterior),
        pace,
        loss=cross_entropy if learner.loss is None else learner.loss,
        terms=learner.terms,
        weighting=learner.weighting,
        weight=labels.instance_weight(),
        seed=learner._seed,
        fabric=OneDevice(rows.device) if learner.fabric is None else learner.fabric,
    )
    for epoch in range(pace.epochs):
        value = loop.epoch(epoch)
        learner.history_.append({"step": f"epoch {epoch + 1}", "track": "loop", "round": epoch + 1, "objective": value})
    learner.head_.eval()


# -- what is said of rows by heads that have not seen them ------------------------------------------------------------


def told_rows(labels: Labels) -> Tensor:
    """bool (rows,), on the CPU: data rows of which something is told."""
    told = torch.zeros(len(labels), dtype=torch.bool)
    return told.index_fill_(0, labels.rows.cpu()[doubts(labels) < 1], True)


def _by_halves(fresh: Learner, rows: Tensor, labels: Labels, given: Labels) -> tuple[Tensor, Tensor] | None:
    """Logits (N, K) by heads that were fitted in the same way, recipe and channels too, to the other half of the rows.

    And which instances they speak of, bool (N,). None where no split leaves something told in both halves.
    """
    split = split_in_parts(labels.groups().cpu(), told_rows(labels), fresh._seed)
    if split is None:
        return None
    part = split.to(rows.device)
    logits = rows.new_zeros(labels.n_instances, labels.n_classes)
    for held in range(PARTS):
        twin = _copy(fresh)
        if twin.procedure is not None:
            twin.procedure = twin.procedure.for_instances(instances_of(labels, (split != held).nonzero()[:, 0]))
        rest = with_known_prior(twin._prepared(given[split != held]), twin.class_prior_estimate_)
        _fit(twin, rows[part != held], rest, None, None)
        _say(logits, part[labels.rows] == held, twin, rows[labels.rows])
    return logits, torch.ones_like(labels.rows).bool()


def _by_loops(
    learner: Learner, fresh: Learner, recipe: Recipe, rows: Tensor, labels: Labels
) -> tuple[Tensor, Tensor] | None:
    """Logits (N, K) by heads whose loop has not seen the row, and which instances they speak of.

    Each starts at a head of the other folds, towards the same posteriors. None where these come from few exact labels,
    which tell of the rows that are held out as well, and where no split is possible.
    """
    split = None if recipe.few else split_in_parts(labels.groups().cpu(), told_rows(labels), fresh._seed, FOLDS)
    if split is None:
        return None
    posterior = torch.as_tensor(learner.posterior_, device=rows.device)
    logits = rows.new_zeros(labels.n_instances, labels.n_classes)
    for held in range(FOLDS):
        twin, inside = _copy(fresh), (split != held).nonzero()[:, 0]
        instances = instances_of(labels, inside).to(rows.device)
        chosen = torch.zeros_like(labels.rows).bool().index_fill_(0, instances, True)
        # what estimates are made from, such as that of a transition matrix
        for name in ("posterior_", "held_out_log_probs_", "held_out_"):
            setattr(twin, name, getattr(learner, name)[instances.cpu().numpy()])
        twin.head_ = recipe.head_from(chosen, posterior, recipe.settings.final_steps)
        twin.temperature_, twin.history_ = 1.0, []
        _loop(twin, rows[inside.to(rows.device)], labels[inside], posterior[instances])
        _say(logits, ~chosen, twin, rows[labels.rows])
    return logits, torch.ones_like(labels.rows).bool()


def _without_some(fresh: Learner, rows: Tensor, labels: Labels) -> tuple[Tensor, Tensor] | None:
    """Logits (N, K) by the procedure on all but a fifth of the rows that are told, and of which instances.

    None where too few rows are told.
    """
    out = held_part(labels, doubts(labels) < 1, fresh._seed)
    if out is None:
        return None
    twin, inside = _copy(fresh), (~out).nonzero()[:, 0]
    kept = instances_of(labels, inside)
    assert twin.procedure is not None
    twin.procedure = twin.procedure.for_instances(kept)
    _run(twin, rows[labels.rows[kept.to(rows.device)]], labels[inside])
    logits = rows.new_zeros(labels.n_instances, labels.n_classes)
    instances = out.to(rows.device)[labels.rows]
    _say(logits, instances, twin, rows[labels.rows])
    return logits, instances


def _say(logits: Tensor, instances: Tensor, twin: Learner, features: Tensor) -> None:
    """Put the logits of a head into those of some instances, bool (N,)."""
    with torch.no_grad():
        logits[instances] = twin.temperature_ * twin.head_.logits(features[instances])


def _calibrate(learner: Learner, features: Tensor, labels: Labels, found: tuple[Tensor, Tensor] | None) -> None:
    """The temperature, and the log-probabilities that it gives.

    Args:
        features: (N, D) of the instances.
        found: logits (N, K) and the instances that they were held out of, bool (N,).
    """
    with torch.no_grad():
        own = learner.head_.logits(features)
    learner.own_held_out_ = found is not None
    if found is not None:
        logits, held = found
        n = int((held.cpu() & (doubts(labels) < 1)).sum())
        loss = learner.loss
        through = loss.as_given if isinstance(loss, AdaptiveLoss) else None
        best = fit_temperature(labels, logits, held, default=1.0, through=through, by_heart=True)
        temperature = best ** (n / (n + SHRINK))
        learner.temperature_ = temperature * learner.temperature_
        said = (temperature * logits).log_softmax(dim=1)
    elif learner.procedure is None:
        # as sure as the recipe is of rows that it has not seen
        wanted = float(torch.as_tensor(learner.held_out_log_probs_).exp().max(dim=1).values.mean())
        learner.temperature_ = confidence_temperature(own, wanted)
    fitted = (learner.temperature_ * own).log_softmax(dim=1)
    if learner.procedure is not None:
        learner.posterior_ = labels.posterior(fitted).cpu().numpy()
        learner.held_out_ = np.zeros(len(fitted), dtype=bool)
        learner.held_out_log_probs_ = fitted.cpu().numpy()
    if found is not None:
        learner.held_out_ = held.cpu().numpy()
        learner.held_out_log_probs_ = torch.where(held[:, None], said, fitted).cpu().numpy()
        facts: dict[str, Any] = {"step": "temperature", "track": "final", "round": 1}
        score = evidence_score(labels, torch.as_tensor(learner.held_out_log_probs_, device=held.device), held)
        learner.history_.append({**facts, "temperature": learner.temperature_, "held_out_evidence": score})
