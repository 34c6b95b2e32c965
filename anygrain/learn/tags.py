"""A Learner of tags: what fit, predict, score and save do where each row has any number of L tags."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from anygrain.encoders.trainable import Inputs, TrainableEncoder
from anygrain.labels import All, LabelError, Labels, Tags
from anygrain.labels.identifiability import IdentifiabilityWarning
from anygrain.learn import bag_model
from anygrain.learn.calibration import evidence_score, fit_temperature
from anygrain.learn.end_to_end import ClassEndToEnd, instances_of
from anygrain.learn.fabric import OneDevice
from anygrain.learn.loop import ClassLoop, FeatureRows, FixedTargets, Network
from anygrain.learn.loss import cross_entropy, learnt_with, terms_alone
from anygrain.learn.reading import check_rows, n_rows_of, only_of_classes
from anygrain.learn.recipe import Callback, RecipeState
from anygrain.learn.set_heads import fit_tag_network, wants_network
from anygrain.learn.tag_recipe import TAG_HEADS, TagHead, TagRecipe, TagResult, tags_of
from anygrain.learn.term import Term
from anygrain.learn.together import kept_together
from anygrain.learn.trained import fit_trained

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

FOLDS = 3  # at least: a head of half the rows is less sure than the one that stays
#: what a fit to classes leaves, and a fit to tags must not
OF_CLASSES = (
    "temperature_",
    "level_thresholds_",
    "class_prior_",
    "log_prior_shift_",
    "class_prior_estimate_",
)
#: the other way round
OF_TAGS = ("tag_names_",)


def speak_of_tags(y: Any) -> bool:
    """Whether labels are `Tags`, alone or joined with other kinds."""
    parts = y.parts if isinstance(y, All) else [y]
    return any(isinstance(part, Tags) for part in parts)


def fit(learner: Learner, X: Any, given: Labels, callback: Callback | None, state: RecipeState | None) -> None:
    """Fit a Learner to rows of data and what is known of their tags.

    Raises:
        LabelError: lengths that differ, no known tag, an option that is for classes.
    """
    for name in ("procedure", "taxonomy"):
        if getattr(learner, name) is not None:
            raise LabelError(f"{name}= is for labels of classes; these are tags")
    if learner.head != "linear":
        raise LabelError(f'head is {learner.head!r}; tags have the head "linear"')
    only_of_classes(learner, ("neighbours", "exact_folds"), "these are tags")
    learner._forget()
    data = learner._check(X, reset=True)
    check_rows(n_rows_of(data), len(given), "the labels")
    part = tags_of(given)
    if not bool((part.labels >= 0).any()) and part is given:
        raise LabelError("no tag of any row is known: nothing can be learnt")
    if part is given and not bool((part.labels == 0).any()) and learner.loss is None and not learner.terms:
        warnings.warn(
            "no tag is known to be off anywhere, so that every tag on explains the labels best: give 0 where a tag is "
            'absent, or use Learner(**anygrain.robust.method("pu_mlc"))',
            IdentifiabilityWarning,
            stacklevel=3,
        )
    for name in OF_CLASSES:
        learner.__dict__.pop(name, None)
    learner.space_, learner.taxonomy_, learner._taxonomy_columns = "tags", None, None
    learner.classes_, learner.named_ = np.arange(2), False
    learner._seed = int(learner.seed)
    learner.encoder_ = learner._make_encoder(data)
    labels = learner._start(given)
    fitted: Any = learner
    fitted.tag_names_ = part.tag_names
    if isinstance(learner.encoder_, TrainableEncoder):
        labels = _fit_end_to_end(learner, learner.encoder_, data, given, part.n_tags, callback, state)
        fitted.labels_, fitted._given = labels.to("cpu"), given
        learner.log_evidence_heldout_ = _score_held_out(learner)
        return
    encoded = learner._learn_encoder(data)
    root = float(encoded.square().mean().sqrt())
    learner.feature_scale_ = root if root > 0 else 1.0
    features = (encoded / learner.feature_scale_).to(labels.device)
    # terms that are the whole objective read marks, not posteriors: where nothing is off, they start at the heads, and
    # have the weight decay, that suit unmarked tags which are off
    alone = learner.loss is terms_alone and part is given and not bool((part.labels == 0).any())
    recipe: TagRecipe | None = None
    fitted.chosen_ = {"chosen": "evidence", "why": "tags have one way to be learnt"}
    if wants_network(labels) and not learner._shaped:
        fitted.recipe_state_ = RecipeState() if state is None else state
        how: dict[str, Any] = {"folds": learner.folds, "penalty": learner.penalty, "callback": callback}
        found, fitted.chosen_ = fit_tag_network(features, labels, state=learner.recipe_state_, **how)
    else:
        recipe = TagRecipe(
            features,
            _unmarked_off(tags_of(labels)) if alone else labels,
            folds=max(learner.folds, FOLDS),
            rounds=learner.rounds,
            seed=learner._seed,
            penalty=learner.penalty,
            state=state,
            callback=callback,
        )
        found, fitted.recipe_state_ = recipe.run(), recipe.state
    fitted.labels_, fitted._given = labels.to("cpu"), given
    fitted.head_, fitted.history_ = found.head, found.history
    fitted.posterior_ = found.posterior.cpu().numpy()
    fitted.held_out_log_probs_ = found.held_out_log_probs.cpu().numpy()
    fitted.held_out_ = np.ones(len(found.posterior), dtype=bool)
    fitted.log_evidence_heldout_ = found.score
    learner.own_held_out_ = False
    if bag_model.fits(learner, data) and given is part:
        _fit_bags(learner, data, part)
    elif recipe is not None and learner._shaped:
        _fit_shaped(learner, features, labels, recipe, found, start=alone)
        fitted.labels_ = labels.to("cpu")


def _fit_bags(learner: Learner, data: Any, given: Tags) -> None:
    """The default model of bags for every tag, as parts; nothing where one is never known to be on, or never off."""
    known = given.table(given.labels, -1).cpu()
    if bool(((known == 1).sum(dim=0) == 0).any()) or bool(((known == 0).sum(dim=0) == 0).any()):
        return
    parts = {
        str(tag): bag_model.of_same_settings(learner).fit(data, known[:, tag].numpy()) for tag in range(given.n_tags)
    }
    rows, tag = given.rows.cpu(), given.tag.cpu()
    fitted: Any = learner
    fitted.parts_ = parts
    for name in ("posterior_", "held_out_log_probs_", "held_out_"):
        stacked = torch.stack([torch.as_tensor(getattr(part, name)) for part in parts.values()], dim=1)
        setattr(fitted, name, stacked[rows, tag].numpy())
    fitted.log_evidence_heldout_ = _score_held_out(learner)
    why = "; ".join(f"tag {name}: {part.chosen_['why']}" for name, part in parts.items())
    fitted.chosen_ = {"chosen": "evidence", "why": why}


def _unmarked_off(marks: Tags) -> Tags:
    """The same tags with off where nothing is known."""
    out = copy.copy(marks)
    out.labels = marks.labels.clamp(min=0)
    return out


def _fit_shaped(
    learner: Learner, features: Tensor, labels: Labels, recipe: TagRecipe, found: TagResult, *, start: bool
) -> None:
    """The last fit of the head, with the loss, the terms and the weighting that were given, and its temperature.

    The heads of the folds are fitted on in the same way: what they say of the rows that they have not seen is what is
    held out, and gives the temperature, unless some tag is only ever known on one side. Nothing of it is done where a
    term speaks of instances by their number.

    Args:
        start: whether tags of which only one side is known start at the recipe's heads as well, else at even odds: that
            all rows are of one side is no start.
    """
    twins = [copy.copy(learner) for _ in found.heads]
    for twin, head in zip(twins, found.heads, strict=True):
        for name in ("loss", "terms", "weighting"):
            setattr(twin, name, copy.deepcopy(getattr(learner, name)))
        fitted: Any = twin
        fitted.head_, fitted.history_ = head, []
        with torch.no_grad():
            head.log_scale.copy_(found.head.log_scale)
            head.shift.copy_(found.head.shift)
    _loop(learner, features, labels, recipe.spoken, found.posterior, start)
    if any(term.bags() is not None for term in learner.terms):
        return
    own: Any = learner
    table = tags_of(labels)
    odds = features.new_zeros(len(features), table.n_tags)
    for fold, twin in enumerate(twins):
        inside = (recipe.fold != fold).nonzero()[:, 0]
        part = labels[inside.cpu()]
        instances = instances_of(labels, inside.cpu()).to(features.device)
        _loop(twin, features[inside], part, recipe.spoken[inside], found.posterior[instances], start)
        with torch.no_grad():
            head = twin.head_
            odds[recipe.fold == fold] = head(features[recipe.fold == fold])
    mine = odds[table.rows, table.tag]
    known = table.table(table.labels, -1)
    two_sided = bool(((known == 1).any(dim=0) == (known == 0).any(dim=0)).all())
    everyone = torch.ones_like(table.rows).bool()
    if two_sided:
        logits = torch.stack([torch.zeros_like(mine), mine], dim=1)
        temperature = fit_temperature(labels, logits, everyone, default=1.0)
        mine = temperature * mine
        with torch.no_grad():
            own.head_.log_scale += math.log(temperature)
            own.head_.shift *= temperature
    log_probs = torch.nn.functional.logsigmoid(torch.stack([-mine, mine], dim=1))
    own.held_out_log_probs_, own.own_held_out_ = log_probs.cpu().numpy(), True
    own.log_evidence_heldout_ = evidence_score(labels, log_probs, everyone)


def _loop(learner: Learner, features: Tensor, labels: Labels, spoken: Tensor, posterior: Tensor, start: bool) -> None:
    """Gradient steps from where the head stands, with the loss, the terms and the weighting that were given.

    Args:
        spoken: weight of every entry, (N, L).
        posterior: of the instances, (N L, 2).
        start: see `_fit_shaped`.
    """
    table = tags_of(labels)
    head: Any = learner.head_
    known = table.table(table.labels, -1)
    if not start:
        one_sided = ~((known == 1).any(dim=0) & (known == 0).any(dim=0)).to(head.bias.device)
        with torch.no_grad():
            for values in (head.weight, head.bias, head.log_scale, head.shift):
                values[one_sided] = 0
    learner.labels_ = labels
    pace = learner.loop_pace()
    loop = ClassLoop(
        learner,
        Network(head, terms=learnt_with(learner.loss, learner.terms)),
        FeatureRows(features),
        kept_together(labels, learner.terms, [table.bags_of_rows()]),
        FixedTargets(posterior),
        replace(pace, batch_size=pace.batch_size * table.n_tags, per_row=table.n_tags),
        loss=cross_entropy if learner.loss is None else learner.loss,
        terms=learner.terms,
        weighting=learner.weighting,
        weight=spoken[table.rows, table.tag],
        tag_of=table.tag,
        seed=learner._seed,
        fabric=OneDevice(features.device) if learner.fabric is None else learner.fabric,
    )
    for epoch in range(pace.epochs):
        value = loop.epoch(epoch)
        learner.history_.append({"step": f"epoch {epoch + 1}", "track": "loop", "round": epoch + 1, "objective": value})


class TagEndToEnd(ClassEndToEnd):
    """An encoder and a head of L tags, trained together; a batch holds whole rows, as many as the batch size says."""

    def __init__(
        self, learner: Learner, encoder: TrainableEncoder, head: Any, rows: Inputs, labels: Labels, **how: Any
    ) -> None:
        #: tags that are only ever known to be on would choose the network that says on of everything
        given = tags_of(labels)
        self.one_sided = given is labels and not bool((given.labels == 0).any() and (given.labels == 1).any())
        super().__init__(learner, encoder, head, rows, labels, per_row=given.n_tags, **how)

    def _choose(self) -> int:
        return self.pace.epochs if self.one_sided else super()._choose()

    def _temperature_of(self, logits: Tensor) -> float:
        return 1.0 if self.one_sided else super()._temperature_of(logits)

    def order_of(self, labels: Labels, terms: Sequence[Term]) -> Labels:
        return kept_together(labels, terms, [tags_of(labels).bags_of_rows()])

    def tag_of(self, labels: Labels) -> Tensor | None:
        return tags_of(labels).tag


def _fit_end_to_end(
    learner: Learner,
    encoder: TrainableEncoder,
    data: Any,
    given: Labels,
    n_tags: int,
    callback: Callback | None,
    state: RecipeState | None,
) -> Labels:
    """Encoder and head together; the temperature becomes part of the head. The labels as they were learnt from."""
    labels = fit_trained(
        learner,
        encoder,
        data,
        given,
        learner._prepared,
        callback=callback,
        state=state,
        kind=TagEndToEnd,
        head=lambda width: TagHead(width, n_tags),
    )
    fitted: Any = learner
    with torch.no_grad():
        fitted.head_.log_scale += math.log(learner.temperature_)
        fitted.head_.shift *= learner.temperature_
    del fitted.temperature_
    return labels


def _score_held_out(learner: Learner) -> float:
    """Mean log-likelihood per instance of the evidence of instances that were held out."""
    return evidence_score(learner.labels_, torch.as_tensor(learner.held_out_log_probs_), learner._apart())


def held_out_proba(learner: Learner) -> np.ndarray:
    """P(on) of every tag of every training row by heads that did not see the row, (N, L); NaN where there is none."""
    tags = tags_of(learner.labels_)
    on = torch.as_tensor(learner.held_out_log_probs_)[:, 1].exp()
    held = torch.as_tensor(learner.held_out_)
    return np.asarray(tags.table(torch.where(held, on, torch.nan)).numpy())


def log_odds(learner: Learner, X: Any) -> Tensor:
    """Calibrated log odds of every tag of every row, (N, L), on the CPU."""
    if learner.parts_:
        said = torch.stack([part.log_probs(X) for part in learner.parts_.values()], dim=1)
        return said[:, :, 1] - said[:, :, 0]
    features = torch.from_numpy(learner.transform(X)).to(next(learner.head_.parameters()))
    with torch.no_grad():
        found: Tensor = learner.head_(features)
    return found.cpu()


def predict_proba(learner: Learner, X: Any) -> np.ndarray:
    """P(on) of every tag of every row, (N, L)."""
    return np.asarray(log_odds(learner, X).double().sigmoid().numpy())


def predict(learner: Learner, X: Any) -> np.ndarray:
    """1 where a tag is more probably on than off, else 0, (N, L)."""
    return (predict_proba(learner, X) > 0.5).astype(np.int64)


def instance_log_probs(learner: Learner, X: Any, labels: Labels) -> Tensor:
    """Log-probabilities (N L, 2) of the instances of labels of the rows of X.

    Raises:
        LabelError: labels of another number of rows or tags.
    """
    found = log_odds(learner, X)
    check_rows(len(found), len(labels), "the labels")
    tags = tags_of(labels)
    if tags.n_tags != found.shape[1]:
        raise LabelError(f"the labels have {tags.n_tags} tags; the model has {found.shape[1]}")
    mine = found[tags.rows.cpu(), tags.tag.cpu()]
    return torch.nn.functional.logsigmoid(torch.stack([-mine, mine], dim=1))


def posterior(learner: Learner, X: Any, labels: Any) -> np.ndarray:
    """P(off), P(on) of every instance of labels of the rows of X, given these labels too, (N L, 2)."""
    known = learner.labels_ if labels is getattr(learner, "_given", None) else _as_tags(labels).to("cpu")
    return np.asarray(known.posterior(instance_log_probs(learner, X, known)).numpy())


def score(learner: Learner, X: Any, y: Any) -> float:
    """Share of the known entries of a table (N, L) that are right; for labels the mean log-likelihood per row."""
    if isinstance(y, Labels):
        log_probs = instance_log_probs(learner, X, y)
        return evidence_score(y.to("cpu"), log_probs, torch.ones(y.n_instances, dtype=torch.bool))
    table = tags_of(_as_tags(y))
    predicted = predict(learner, X)
    check_rows(len(predicted), len(table), "y")
    known = table.table(table.labels, -1).numpy()
    if known.shape[1] != predicted.shape[1]:
        raise LabelError(f"y has {known.shape[1]} columns; the model has {predicted.shape[1]} tags")
    if not (known >= 0).any():
        raise ValueError("y holds no tag: every entry is missing")
    return float((predicted == known)[known >= 0].mean())


def state(learner: Learner) -> dict[str, Any]:
    """What `config.json` holds of a model of tags, beside the rest."""
    names = learner.tag_names_
    return {"n_tags": learner.head_.n_tags, "tag_names": None if names is None else list(names)}


def restore(learner: Learner, config: dict[str, Any]) -> None:
    """The inverse of `state`, with an unfitted head."""
    names = config["tag_names"]
    fitted: Any = learner
    fitted.tag_names_ = None if names is None else tuple(names)
    fitted.classes_, fitted.named_, fitted.taxonomy_ = np.arange(2), False, None
    fitted.head, fitted.head_ = "linear", TAG_HEADS[config["head"]](config["feature_dim"], config["n_tags"])


def _as_tags(y: Any) -> Labels:
    """Labels as they are, and a table (N, L) of 1, 0 and -1 or NaN as `Tags`."""
    if isinstance(y, Labels):
        return y
    table = np.asarray(y)
    if table.dtype.kind == "f":
        table = np.where(np.isnan(table), -1, table).astype(np.int64)
    return Tags(torch.from_numpy(table.astype(np.int64)))
