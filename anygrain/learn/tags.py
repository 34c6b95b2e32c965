"""A Learner of tags: what fit, predict, score and save do where each row has any number of L tags."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from anygrain.encoders.trainable import TrainableEncoder
from anygrain.labels import All, LabelError, Labels, Tags
from anygrain.learn.calibration import evidence_score
from anygrain.learn.common_error import common_error
from anygrain.learn.end_to_end import ClassEndToEnd
from anygrain.learn.reading import check_rows, n_rows_of
from anygrain.learn.recipe import Callback, RecipeState
from anygrain.learn.tag_recipe import TagHead, TagRecipe, tags_of

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
    "recipe_state_",
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
    for name in ("loss", "weighting", "procedure", "taxonomy"):
        if getattr(learner, name) is not None:
            raise LabelError(f"{name}= is for labels of classes; these are tags")
    if learner.terms:
        raise LabelError("terms= are for labels of classes; these are tags")
    if learner.head != "linear":
        raise LabelError(f'head is {learner.head!r}; tags have the head "linear"')
    learner._forget()
    data = learner._check(X, reset=True)
    check_rows(n_rows_of(data), len(given), "the labels")
    part = tags_of(given)
    if not bool((part.labels >= 0).any()) and part is given:
        raise LabelError("no tag of any row is known: nothing can be learnt")
    for name in OF_CLASSES:
        learner.__dict__.pop(name, None)
    learner.space_, learner.taxonomy_, learner._taxonomy_columns = "tags", None, None
    learner.classes_, learner.named_ = np.arange(2), False
    learner._seed = int(learner.seed)
    learner.encoder_ = learner._make_encoder(data)
    error = common_error(given)
    labels = (given.with_error(error) if error else given).to(learner._device())
    fitted: Any = learner
    fitted.error_, fitted.tag_names_ = error, part.tag_names
    fitted.labels_, fitted._given = labels.to("cpu"), given
    if isinstance(learner.encoder_, TrainableEncoder):
        _fit_end_to_end(learner, learner.encoder_, data, labels, part.n_tags, callback, state)
        return
    encoded = learner._learn_encoder(data)
    root = float(encoded.square().mean().sqrt())
    learner.feature_scale_ = root if root > 0 else 1.0
    features = (encoded / learner.feature_scale_).to(labels.device)
    found = TagRecipe(
        features, labels, folds=max(learner.folds, FOLDS), rounds=learner.rounds, seed=learner._seed
    ).run()
    fitted.head_, fitted.history_ = found.head, found.history
    fitted.chosen_ = {"chosen": "evidence", "why": "tags have one way to be learnt"}
    fitted.posterior_ = found.posterior.cpu().numpy()
    fitted.held_out_log_probs_ = found.held_out_log_probs.cpu().numpy()
    fitted.held_out_ = np.ones(len(found.posterior), dtype=bool)
    fitted.log_evidence_heldout_ = found.score
    if callback is not None:
        callback(1, 1, {"step": "tags", "evidence": found.score})


class TagEndToEnd(ClassEndToEnd):
    """An encoder and a head of L tags, trained together."""

    def tag_of(self, labels: Labels) -> Tensor | None:
        return tags_of(labels).tag


def _fit_end_to_end(
    learner: Learner,
    encoder: TrainableEncoder,
    data: Any,
    labels: Labels,
    n_tags: int,
    callback: Callback | None,
    state: RecipeState | None,
) -> None:
    """Encoder and head together; the temperature becomes part of the head."""
    learner._fit_end_to_end(
        encoder, data, labels, callback, state, kind=TagEndToEnd, head=lambda width: TagHead(width, n_tags)
    )
    fitted: Any = learner
    with torch.no_grad():
        fitted.head_.log_scale += math.log(learner.temperature_)
        fitted.head_.shift *= learner.temperature_
    del fitted.temperature_
    held = torch.as_tensor(learner.held_out_)
    log_probs = torch.as_tensor(learner.held_out_log_probs_)
    where = held if bool(held.any()) else torch.ones_like(held)
    learner.log_evidence_heldout_ = evidence_score(fitted.labels_, log_probs, where)


def log_odds(learner: Learner, X: Any) -> Tensor:
    """Calibrated log odds of every tag of every row, (N, L), on the CPU."""
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
    fitted.head_ = TagHead(config["feature_dim"], config["n_tags"])


def _as_tags(y: Any) -> Labels:
    """Labels as they are, and a table (N, L) of 1, 0 and -1 or NaN as `Tags`."""
    if isinstance(y, Labels):
        return y
    table = np.asarray(y)
    if table.dtype.kind == "f":
        table = np.where(np.isnan(table), -1, table).astype(np.int64)
    return Tags(torch.from_numpy(table.astype(np.int64)))
