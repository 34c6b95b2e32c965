"""A Learner of a number: what fit, predict, score and save do where labels are real-valued."""

from __future__ import annotations

import copy
import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted, column_or_1d
from torch import Tensor

from anygrain.encoders.trainable import Inputs, TrainableEncoder
from anygrain.labels import Belief, LabelError, Labels, RealLabels, Value, aggregate
from anygrain.learn.cross_fit import PARTS, cross_fitted
from anygrain.learn.reading import check_rows, n_rows_of, only_of_classes
from anygrain.learn.real import RealRecipe, RealResult, weighted
from anygrain.learn.real_end_to_end import RealEndToEnd, held_apart
from anygrain.learn.real_head import make_real_head
from anygrain.learn.recipe import Callback, RecipeState

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

FOLDS = 4  # at least: a head of half the rows is less sure than the one that stays
#: what a fit to classes leaves, and a fit to numbers must not
OF_CLASSES = (
    "classes_",
    "named_",
    "temperature_",
    "held_out_log_probs_",
    "error_",
    "level_thresholds_",
    "class_prior_",
    "log_prior_shift_",
    "class_prior_estimate_",
)
#: the other way round
OF_NUMBERS = ("held_out_mean_", "held_out_variance_", "variance_scale_", "residuals_", "name_")


class Distribution(NamedTuple):
    """Predictions: normal distributions of N rows, by mean and standard deviation, both (N,)."""

    mean: np.ndarray
    sd: np.ndarray


def fit(learner: Learner, X: Any, given: RealLabels, callback: Callback | None, state: RecipeState | None) -> None:
    """Fit a Learner to rows of data and real-valued labels.

    Raises:
        LabelError: lengths that differ, labels that say nothing, an option that is for classes.
    """
    for name in ("loss", "weighting", "procedure", "taxonomy"):
        if getattr(learner, name) is not None:
            raise LabelError(f"{name}= is for labels of classes; these speak of a number")
    if not isinstance(learner.head, str):
        raise LabelError(f'head {learner.head.__name__} is of classes; expected "gaussian" or "gaussian-mlp"')
    only_of_classes(learner, ("neighbours", "exact_folds", "penalty", "rounds"), "these speak of a number")
    learner._forget()
    data = learner._check(X, reset=True)
    check_rows(n_rows_of(data), len(given), "the labels")
    for name in OF_CLASSES:
        learner.__dict__.pop(name, None)
    learner.space_, learner.taxonomy_, learner._taxonomy_columns = "real", None, None
    learner._seed = int(learner.seed)
    learner.encoder_ = learner._make_encoder(data)
    device = learner._device()
    labels = given.with_own_channels().to(device)
    fitted: Any = learner
    fitted.labels_ = labels
    if learner.terms and not isinstance(learner.encoder_, TrainableEncoder):
        raise LabelError(
            f"terms= of a number shape an encoder that is trained; {type(learner.encoder_).__name__} is not, such as "
            'Learner(encoder="columns") would be'
        )
    if isinstance(learner.encoder_, TrainableEncoder):
        found, finished = _end_to_end(learner, learner.encoder_, data, given, labels, callback, state)
    else:
        encoded = learner._learn_encoder(data)
        root = float(encoded.square().mean().sqrt())
        learner.feature_scale_ = root if root > 0 else 1.0
        recipe = RealRecipe(
            (encoded / learner.feature_scale_).to(device)[labels.rows],
            labels,
            head=learner.head,
            folds=max(learner.folds, FOLDS),
            seed=learner._seed,
            state=state,
            callback=callback,
        )
        found, finished = recipe.run(), recipe.state
    fitted.head_, fitted.chosen_, fitted.history_ = found.head, found.chosen, found.history
    fitted.recipe_state_ = finished
    fitted.posterior_ = _as_arrays(found.posterior)
    fitted.held_out_mean_, fitted.held_out_variance_ = _as_arrays(found.held_out)
    fitted.held_out_ = found.is_held_out.cpu().numpy()
    fitted.log_evidence_heldout_ = found.score
    fitted.variance_scale_ = float(found.head.spread)
    fitted.residuals_ = found.residuals.cpu().numpy()
    fitted.name_ = given.name
    fitted.labels_, fitted._given = labels.to("cpu"), given


def _end_to_end(
    learner: Learner,
    encoder: TrainableEncoder,
    data: Any,
    given: RealLabels,
    labels: RealLabels,
    callback: Callback | None,
    state: RecipeState | None,
) -> tuple[RealResult, RecipeState]:
    """Encoder and head together."""
    encoder.learn(data, seed=learner._seed)
    learner.feature_scale_ = 1.0
    _started(labels)
    rows = encoder.inputs(data)
    state = RecipeState() if state is None else state
    apart = learner.cross_fit and not learner.terms

    def training(encoder: TrainableEncoder, rows: Inputs, labels: RealLabels, **how: Any) -> RealEndToEnd:
        settings = {**learner.training_settings(encoder), "parts": 1 + PARTS * apart, **how}
        return RealEndToEnd(
            learner,
            encoder,
            make_real_head("gaussian" if learner.head == "linear" else str(learner.head), encoder.feature_dim),
            rows,
            labels,
            terms=learner.terms,
            callback=callback,
            state=state,
            **settings,
        )

    untrained = copy.deepcopy(encoder) if apart else encoder
    whole = training(encoder, rows, labels)
    found = whole.run()
    if apart:
        told = whole.taught_rows | whole.held_rows

        def part_of(inside: Tensor) -> RealLabels:
            return _started(given[inside].with_own_channels().to(labels.device))

        said = cross_fitted(training, untrained, rows, labels, told, whole.pace.epochs, learner._seed, part_of=part_of)
        if said is not None:
            found = held_apart(found, labels, Belief(*said[labels.rows].unbind(dim=1)), list(state.history))
    return found, state


def _started(labels: RealLabels) -> RealLabels:
    """The labels; their annotators start as they are found without features."""
    if labels.channels:
        aggregate(labels)
    return labels


def belief(learner: Learner, X: Any) -> Belief:
    """Mean and variance of every row, tensors (N,) on the CPU."""
    check_is_fitted(learner, "head_")
    if learner.space_ != "real":
        what = "tags" if learner.space_ == "tags" else "classes"
        raise LabelError(f"the model is of {what}, which have no mean and no interval; use predict_proba")
    features = torch.from_numpy(learner.transform(X)).to(next(learner.head_.parameters()))
    with torch.no_grad():
        mean, variance = learner.head_(features)
    return Belief(mean.double().cpu(), variance.double().cpu())


def distribution(learner: Learner, X: Any) -> Distribution:
    mean, variance = belief(learner, X)
    return Distribution(mean.numpy(), variance.sqrt().numpy())


def interval(learner: Learner, X: Any, coverage: float) -> np.ndarray:
    """Low and high end of the interval of every row, (N, 2)."""
    if not 0 < coverage < 1:
        raise LabelError(f"coverage is {coverage}; expected a probability between 0 and 1")
    mean, sd = distribution(learner, X)
    width = half_width(learner.residuals_, coverage)
    return np.stack([mean - width * sd, mean + width * sd], axis=1)


def half_width(residuals: np.ndarray, coverage: float) -> float:
    r"""Standard deviations to either side of the mean that hold a share of new values.

    The smallest residual that at least :math:`(n + 1) c` of n sorted held-out ones reach (split conformal prediction);
    where that is more than n, or there are none, the quantile of the normal distribution.

    Source: Lei and others, Distribution-free predictive inference for regression, 2018.
    """
    rank = math.ceil((len(residuals) + 1) * coverage)
    if not len(residuals) or rank > len(residuals):
        return NormalDist().inv_cdf(0.5 + coverage / 2)
    return float(residuals[rank - 1])


def posterior(learner: Learner, X: Any, labels: Any) -> Belief:
    """Mean and variance of every instance of labels of the rows of X, given these labels too; arrays (N,)."""
    mean, variance = belief(learner, X)
    if isinstance(labels, RealLabels):
        check_rows(len(mean), len(labels), "the labels")
        known = learner.labels_ if labels is getattr(learner, "_given", None) else labels.to("cpu")
    elif isinstance(labels, Labels):
        raise LabelError(f"{type(labels).__name__} labels speak of classes; the model is of a number")
    else:
        known = Value(_numbers(labels, len(mean)))
    assert isinstance(known, RealLabels)
    return _as_arrays(known.posterior(mean[known.rows], variance[known.rows]))


def score(learner: Learner, X: Any, y: Any, sample_weight: Any) -> float:
    """R^2 on a vector of numbers, missing ones left out; for labels the mean log-likelihood per row with evidence."""
    mean, variance = belief(learner, X)
    if isinstance(y, RealLabels):
        check_rows(len(mean), len(y), "the labels")
        labels = y.to("cpu")
        value = weighted(labels, labels.infer(mean[labels.rows], variance[labels.rows])[0])
        return float(value.sum() / max(len(labels.rows[labels.evident].unique()), 1))
    if isinstance(y, Labels):
        raise LabelError(f"{type(y).__name__} labels speak of classes; the model is of a number")
    truth = _numbers(y, len(mean))
    known = ~truth.isnan()
    if not bool(known.any()):
        raise ValueError("y holds no number: every value is missing")
    weight = torch.ones_like(mean) if sample_weight is None else torch.as_tensor(np.asarray(sample_weight)).double()
    weight, truth, mean = weight[known], truth[known], mean[known]
    centre = (weight * truth).sum() / weight.sum()
    total = float((weight * (truth - centre).square()).sum())
    left = float((weight * (truth - mean).square()).sum())
    return 1 - left / total if total > 0 else float(left == 0)


def state(learner: Learner) -> dict[str, Any]:
    """What `config.json` holds of a number, beside the rest."""
    return {
        "variance_scale": learner.variance_scale_,
        "residuals": np.asarray(learner.residuals_)[_kept(len(learner.residuals_))].tolist(),
        "name": learner.name_,
    }


def restore(learner: Learner, config: dict[str, Any]) -> None:
    """The inverse of `state`, with an unfitted head."""
    learner.variance_scale_, learner.name_ = config["variance_scale"], config["name"]
    learner.residuals_ = np.asarray(config["residuals"], dtype=np.float64)
    fitted: Any = learner
    fitted.head_ = make_real_head(config["head"], config["feature_dim"])


def _kept(n: int) -> np.ndarray:
    """All residuals, or 2000 of them, evenly by rank."""
    return np.arange(n) if n <= 2000 else np.linspace(0, n - 1, 2000).round().astype(int)


def _numbers(y: Any, n: int) -> Tensor:
    """A vector of numbers (N,), NaN where missing.

    Raises:
        LabelError: lengths that differ.  ValueError: not numbers.
    """
    given = np.asarray(column_or_1d(y))
    check_rows(n, len(given), "y")
    try:
        return torch.from_numpy(given.astype(np.float64))
    except (TypeError, ValueError):
        shown = next(v for v in given.tolist() if isinstance(v, str))
        raise ValueError(f'y holds "{shown}"; the model is of a number') from None


def _as_arrays(found: Belief) -> Belief:
    return Belief(found.mean.double().cpu().numpy(), found.variance.double().cpu().numpy())
