"""The Learner: features and labels of any kind in, a model of the fine class out."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import RegressorTags, TransformerTags
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch import Tensor

from anygrain.data.bag_data import BagData
from anygrain.encoders import Encoder, Frame, Pretrained, Sparse, Table, Text, encoder_for
from anygrain.encoders.choose import ENCODERS, is_mixed, is_text
from anygrain.encoders.images import is_image
from anygrain.encoders.trainable import Augmentation, TrainableEncoder
from anygrain.labels import All, Bags, Belief, Exact, LabelError, Labels, RealLabels, Taxonomy
from anygrain.labels.frame import as_strings
from anygrain.labels.identifiability import warn_unidentified
from anygrain.labels.positive import with_any_prior
from anygrain.learn import bag_model, keeping, number, tags, units
from anygrain.learn.calibration import CONFIDENCES, evidence_score
from anygrain.learn.class_prior import with_class_prior
from anygrain.learn.common_error import common_error
from anygrain.learn.fabric import PRECISIONS, Fabric, device_of, fabric_for
from anygrain.learn.fixed import fit_fixed
from anygrain.learn.given_x import target_from_sources
from anygrain.learn.head import Head
from anygrain.learn.judges import with_judges
from anygrain.learn.loop import Pace, objective
from anygrain.learn.loss import Loss, cross_entropy
from anygrain.learn.procedure import Procedure
from anygrain.learn.reading import (
    check_rows,
    listed,
    missing_classes,
    n_rows_of,
    name_bad_columns,
    read_classes,
    shown,
)
from anygrain.learn.recipe import Callback, RecipeResult, RecipeState
from anygrain.learn.slope_offset import SlopeOffset
from anygrain.learn.started_channels import with_started_channels
from anygrain.learn.stated_prior import Prior, class_prior_of, shift_to, shifted
from anygrain.learn.step import Step
from anygrain.learn.term import Term
from anygrain.learn.trained import fit_trained, refuse_procedure
from anygrain.learn.trees import Trees as Trees
from anygrain.learn.units import Unit
from anygrain.learn.weighting import Weighting


class Learner(ClassifierMixin, BaseEstimator):
    r"""A classifier that learns from whatever labels there are.

    .. math:: \log p(y = k \mid x) = \mathrm{log\_softmax}(t \cdot \mathrm{head}(\mathrm{encoder}(x)))_k

    On a frozen encoder the head is fitted by the recipe of `anygrain.learn.recipe`, which says on its own held-out
    evidence whether the weak evidence helped (`chosen_`). A loss, terms or a weighting of one's own shape the last fit
    of the head, to the recipe's posteriors; a procedure takes the recipe's place. Their temperature comes from rows
    that were held out of them, see `anygrain.learn.fixed`. An encoder that can be trained (a
    `TrainableEncoder`: pictures, a transformer, a network on columns) is trained with the head, see
    `anygrain.learn.end_to_end`; losses, terms and weightings are then those of all its steps. Where fewer than 100 rows
    are told, and losses and terms are plain, two more networks are trained to find the temperature, see
    `anygrain.learn.twins`.

    Args:
        encoder: an `Encoder`, a folder or name of a sentence encoder, or None: chosen for the data at hand.
        head: "linear", "cosine", "prototype", "quadratic", "mlp", "small-mlp", "trees", or a `Head` class. Of a number
            "gaussian" or "gaussian-mlp"; "linear" is the one of them that predicts held-out evidence better. Where few
            sets say all that is known, "linear" becomes "committee", see `anygrain.learn.set_heads`.
        loss: (log_probs (B, K), posterior (B, K)) -> (B,); None is cross-entropy.
        terms: `Term` objects added to the loss.
        weighting: a `Weighting` of instances.
        procedure: a `Procedure` in place of the recipe.
        seed: where all that is random comes from.
        device: "auto" (a GPU if there is one), "cpu", "cuda", ...
        fabric: a launched `lightning.Fabric`, for the loop below on several devices or in mixed precision; every
            process calls `fit`. None is one device, in plain torch. The recipe runs on every process alike.
        taxonomy: for `predict(level=...)`; taken from the labels if they carry one.
        rounds, folds, exact_folds, neighbours, penalty: of the recipe, see `Settings`. Of tags penalty is the middle of
            a grid, and exact_folds and neighbours are refused; of numbers all but folds are.
        epochs, batch_size, learning_rate: of gradient steps: the training of an encoder, or the loop that a loss,
            terms or a weighting of one's own run in. None: what the encoder likes; 30, 256 and .01 in the loop.
        accumulate: batches per step in the training of an encoder.
        augmentation: how rows are changed in the training of an encoder: "auto" is what it offers, None is nothing.
        precision: "32", or "bf16-mixed" or "16-mixed" through Lightning, in the training of an encoder.
        cross_fit: whether two more encoders are trained, each on half of the rows, so that `held_out_log_probs_` speaks
            of all rows and not of the tenth that is held out anyway; twice the time. Not with terms, a weighting or a
            loss that learns. On a frozen encoder, where a loss, terms, a weighting or a procedure was given: whether
            all is done again on each half of the rows; without, only what is needed for a temperature: the loop on each
            half, or the procedure without a fifth of the rows that are told.

    Attributes:
        space_: "classes", or "real" where the labels speak of a number; then there is no `classes_` but
            `held_out_mean_` and `held_out_variance_` (N,), `posterior_` is a mean and a variance, and `residuals_` are
            the absolute standardised ones of held-out values, sorted. "tags" where they speak of tags: `classes_` are
            off and on, and attributes by instance have a row per tag of a row, in the order of `labels_.rows` and
            `.tag`; names are `tag_names_`.
        classes_: (K,) what `predict` gives: values of y, class names, or 0..K-1.
        n_features_in_: number of columns of X, for arrays and tables.
        taxonomy_: the taxonomy, or None.
        head_, encoder_, temperature_: the fitted parts.
        error_: the small error that hard kinds share, 0 where they never contradict each other.
        chosen_: whether "evidence" or "exact only" won, and why.
        history_: one dict per step: track, round, temperature, held-out evidence per row.
        held_out_log_probs_: (N, K) of the training instances, from heads that saw neither row nor evidence; where
            `held_out_` (N,) is False that was not possible.
        own_held_out_: on fixed features with a loss, terms, a weighting or a procedure: whether these log-probabilities
            are of that method, and not of the recipe before it.
        log_evidence_heldout_: mean log-likelihood of the evidence per row under `held_out_log_probs_`.
        posterior_: (N, K), what all evidence and the features say of the training instances.
        labels_: the labels as `fit` read them: channels fitted, the common error, sources that saw the features (rules,
            teachers) as the target that they come to. `labels_.channels` tell what became of the annotators.
        class_prior_: (K,), of the training rows: stated by the labels, or the mean of `posterior_`.
        log_prior_shift_: (K,), from there to the population that the labels were sampled from.
        class_prior_estimate_: (estimate, low, high) of the prior that a `Positive` came without, else None.
        recipe_state_: finished steps, to go on from (`fit(state=...)`).
        of_sets_: whether X was `BagData`, so that a row is a bag; attributes by instance then have a row per bag.
        parts_: the models that a model of bags is pooled from, see `anygrain.learn.bag_model`; else empty.
        questions_: what the labels asked of sets of rows, which `predict_proba(unit="set")` answers for other sets.
    """

    temperature_: float
    posterior_: np.ndarray
    held_out_log_probs_: np.ndarray
    held_out_: np.ndarray
    own_held_out_: bool
    of_sets_: bool
    parts_: dict[str, Learner]
    pool_: SlopeOffset
    questions_: list[units.Question]
    _calibration: tuple[float, list[float]] | None

    def __init__(
        self,
        encoder: Encoder | str | None = None,
        head: str | type[Head] = "linear",
        loss: Loss | None = None,
        terms: Sequence[Term] = (),
        weighting: Weighting | None = None,
        procedure: Procedure | None = None,
        seed: int = 0,
        device: str = "auto",
        fabric: Fabric | None = None,
        taxonomy: Taxonomy | None = None,
        rounds: int = 4,
        folds: int = 2,
        exact_folds: int = 3,
        neighbours: int = 10,
        penalty: float = 0.01,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        accumulate: int = 1,
        augmentation: Augmentation | str | None = "auto",
        precision: str = "32",
        cross_fit: bool = False,
    ) -> None:
        self.encoder = encoder
        self.head = head
        self.loss = loss
        self.terms = terms
        self.weighting = weighting
        self.procedure = procedure
        self.seed = seed
        self.device = device
        self.fabric = fabric
        self.taxonomy = taxonomy
        self.rounds = rounds
        self.folds = folds
        self.exact_folds = exact_folds
        self.neighbours = neighbours
        self.penalty = penalty
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.accumulate = accumulate
        self.augmentation = augmentation
        self.precision = precision
        self.cross_fit = cross_fit

    def __sklearn_tags__(self) -> Any:
        about = super().__sklearn_tags__()
        about.input_tags.sparse = True
        about.transformer_tags = TransformerTags(preserves_dtype=[])
        if getattr(self, "space_", "classes") == "real":
            about.estimator_type, about.classifier_tags, about.regressor_tags = "regressor", None, RegressorTags()
        return about

    # -- fitting ------------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, *, callback: Callback | None = None, state: RecipeState | None = None) -> Learner:
        """Fit to rows of data and labels.

        Args:
            X: (N, D) array or sparse matrix, data frame, or texts.
            y: `Labels` of any kind, or a vector of classes; missing: None, NaN, "" or -1 (unless -1 and 1 are its only
                values). `RealLabels`, such as `Value(numbers)`, make it a model of a number; `Tags`, alone or joined
                with other kinds, a model of tags.
            callback: called after every step with (finished, all, what was found): progress, checkpoints.
            state: finished steps of an interrupted fit (`RecipeState.from_tensors`); the result is the same.

        Raises:
            LabelError: lengths that differ, a setting outside its range, a taxonomy of other classes.
            ValueError: NaN or infinite features.
        """
        self._check_settings()
        if isinstance(y, RealLabels):
            number.fit(self, X, y, callback, state)
            return self
        if tags.speak_of_tags(y):
            tags.fit(self, X, y, callback, state)
            return self
        device = self._device()
        data, given = self._read(X, y)
        self.space_ = "classes"
        self._taxonomy_for(given)
        warn_unidentified(with_any_prior(given), stacklevel=2)
        labels = self._start(given)
        self._seed = int(self.seed)
        self.encoder_ = self._make_encoder(data)
        if self.procedure is not None:
            refuse_procedure(self, self.encoder_)
            self.procedure.check(self, labels)
        self.class_prior_estimate_ = None
        if bag_model.fits(self, data):
            labels = bag_model.fit(self, data, given, callback, state)
        elif isinstance(self.encoder_, TrainableEncoder):
            labels = fit_trained(self, self.encoder_, data, given, self._prepared, callback=callback, state=state)
        else:
            encoded = self._learn_encoder(data)
            root = float(encoded.square().mean().sqrt())
            self.feature_scale_ = root if root > 0 else 1.0
            rows = (encoded / self.feature_scale_).to(device)
            labels, self.class_prior_estimate_ = with_class_prior(labels, rows[labels.rows], self._seed)
            labels = with_judges(labels, given, rows[labels.rows], self._seed, folds=self.folds, penalty=self.penalty)
            fit_fixed(self, rows, labels, given, callback, state)
        self.log_evidence_heldout_ = evidence_score(
            labels, torch.as_tensor(self.held_out_log_probs_, device=device), self._apart().to(device)
        )
        self.labels_, self._given = labels.to("cpu"), given
        self.class_prior_, self.log_prior_shift_ = class_prior_of(self.labels_, self.posterior_)
        self.level_thresholds_ = self._level_thresholds()
        self.questions_ = units.questions_of(
            self.labels_,
            torch.as_tensor(self.held_out_log_probs_),
            torch.as_tensor(self.held_out_),
            self.folds,
            self._calibration,
        )
        return self

    def _start(self, given: Labels) -> Labels:
        """The labels as training reads them; sets `error_`."""
        self.error_ = 0.0
        labels = self._prepared(given)
        self.error_ = common_error(with_any_prior(labels))
        return labels.with_error(self.error_) if self.error_ else labels

    def _prepared(self, labels: Labels) -> Labels:
        """Labels with channels of their own, as they start, the targets of sources that saw x, and the common error."""
        labels = with_started_channels(target_from_sources(labels))
        return (labels.with_error(self.error_) if self.error_ else labels).to(self._device())

    @property
    def _shaped(self) -> bool:
        """Whether a loss, terms or a weighting shape the last fit of the head."""
        return self.loss is not None or bool(self.terms) or self.weighting is not None

    def _apart(self) -> Tensor:
        """Instances that were held out, bool (N,); all of them where none could be."""
        held = torch.as_tensor(self.held_out_)
        return held if bool(held.any()) else torch.ones_like(held)

    def _level_thresholds(self) -> dict[float, float]:
        """For `level="auto"`: by confidence, the threshold at which held-out rows reach it."""
        if self.taxonomy_ is None:
            return {}
        held_out = shifted(
            torch.as_tensor(self.held_out_log_probs_)[self._apart()], torch.as_tensor(self.log_prior_shift_)
        )
        log_probs = self._for_taxonomy(held_out)
        above_all = 2.0  # stands for infinity, which JSON cannot hold
        return {c: min(self.taxonomy_.threshold(log_probs, c), above_all) for c in CONFIDENCES}

    def _check_settings(self) -> None:
        """Raises LabelError for a setting outside its range."""
        if not isinstance(self.seed, int | np.integer) or isinstance(self.seed, bool):
            raise LabelError(f"seed is {self.seed!r}; expected a whole number")
        lowest = {
            "rounds": 0,
            "folds": 1,
            "exact_folds": 0,
            "neighbours": 0,
            "penalty": 0,
            "epochs": 0,
            "batch_size": 1,
            "accumulate": 1,
        }
        for name, least in lowest.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise LabelError(f"{name} is {value}; expected {least} or more")
        if self.precision not in PRECISIONS:
            raise LabelError(f'precision is "{self.precision}"; expected one of {", ".join(PRECISIONS)}')
        if self.augmentation != "auto" and not isinstance(self.augmentation, Augmentation | None):
            raise LabelError(f'augmentation is {self.augmentation!r}; expected "auto", None or an Augmentation')
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise LabelError(f"learning_rate is {self.learning_rate}; expected a number above 0")
        if isinstance(self.terms, Term) or not all(isinstance(term, Term) for term in self.terms):
            raise LabelError("terms must be a list of Term objects, such as [MyTerm()]")
        if self.taxonomy is not None and not isinstance(self.taxonomy, Taxonomy):
            raise LabelError(f"taxonomy is {self.taxonomy!r}; expected a Taxonomy, such as Taxonomy.from_csv(path)")

    def _keep(self, found: RecipeResult) -> None:
        """What a fit found, as fitted attributes."""
        self.head_ = found.head.requires_grad_(True).eval()
        self.temperature_ = found.temperature
        self.chosen_, self.history_, self._calibration = found.chosen, found.history, found.calibration
        self.posterior_ = found.posterior.cpu().numpy()
        self.held_out_log_probs_ = found.held_out_log_probs.cpu().numpy()
        self.held_out_ = found.held_out.cpu().numpy()

    def loop_pace(self) -> Pace:
        """How long and how fast the last fit of a head is."""
        return Pace(
            epochs=30 if self.epochs is None else self.epochs,
            batch_size=256 if self.batch_size is None else self.batch_size,
            learning_rate=0.01 if self.learning_rate is None else self.learning_rate,
            penalty=self.penalty,
        )

    def training_settings(self, encoder: TrainableEncoder) -> dict[str, Any]:
        """What the training of an encoder is told, in every space."""
        return {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "accumulate": self.accumulate,
            "augmentation": encoder.augmentation() if isinstance(self.augmentation, str) else self.augmentation,
            "seed": self._seed,
            "fabric": fabric_for(self._device(), self.precision) if self.fabric is None else self.fabric,
        }

    # -- what procedures are built from -------------------------------------------------------------------------------

    def step(self, features: Tensor, labels: Labels, instances: Tensor | None = None, epoch: int = 0) -> Step:
        """A step of some instances (B,), all by default; instances must hold whole sets. With gradient."""
        everything = torch.arange(labels.n_instances, device=features.device)
        if instances is None:
            instances, part = everything, labels
        else:
            part = labels[instances]
        batch = features[instances]
        log_probs = self.head_(batch)
        return Step(log_probs, batch, part.posterior(log_probs.detach()), instances, epoch)

    def objective(self, step: Step) -> Tensor:
        """The loss of a step with terms and weighting, a scalar."""
        loss = cross_entropy if self.loss is None else self.loss
        return objective(step, loss, self.terms, self.weighting, step.log_probs.new_ones(len(step.log_probs)))

    def evaluate(self, features: Tensor, labels: Labels) -> float:
        """Mean log-likelihood per instance of the evidence under the head."""
        with torch.no_grad():
            log_probs = self.head_(features)
        return evidence_score(labels, log_probs, torch.ones_like(labels.rows).bool())

    def posterior_of(self, features: Tensor, labels: Labels) -> Tensor:
        """Posterior (N, K) of features (N, D) under the head."""
        with torch.no_grad():
            return labels.posterior(self.head_(features))

    # -- reading data -------------------------------------------------------------------------------------------------

    def _read(self, X: Any, y: Any) -> tuple[Any, Labels]:
        """Checked data, and the labels of its rows; sets `classes_`."""
        self._forget()
        data = self._check(X, reset=True)
        n = n_rows_of(data)
        if isinstance(y, list | tuple) and any(isinstance(part, Labels) for part in y):
            raise LabelError("y is a list of labels; join them with &, such as Exact(...) & Coarse(...)")
        if isinstance(y, Labels):
            check_rows(n, len(y), "the labels")
            names = y.class_names
            self.classes_ = np.arange(y.n_classes) if names is None else np.array(names)
            self.named_ = names is not None
            return data, y
        self.classes_, codes = read_classes(y)
        self.named_ = self.classes_.dtype.kind in "UO"
        check_rows(n, len(codes), "y")
        return data, Exact(torch.from_numpy(codes), len(self.classes_))

    def _forget(self) -> None:
        for name in ("n_features_in_", "feature_names_in_", "pool_", *number.OF_NUMBERS, *tags.OF_TAGS):
            self.__dict__.pop(name, None)

    def _check(self, X: Any, *, reset: bool) -> Any:
        encoder = self.encoder if reset else self.encoder_
        if reset:
            self.of_sets_, self.parts_, self.questions_ = isinstance(X, BagData), {}, []
            self._calibration = None
        if isinstance(X, str):
            raise LabelError("X is a single text; expected a list of texts, such as [text]")
        if isinstance(X, BagData):
            return units.bags_in(encoder, X)
        if _is_trained(encoder) or (encoder is None and is_image(X)):
            return self._named_columns(X, reset=reset)
        if is_text(X):
            if isinstance(encoder, Table | Sparse | Frame):
                raise LabelError("X holds texts; expected a table of numbers, which the model is for")
            return [str(v) if isinstance(v, str) else None for v in X]
        if isinstance(encoder, Text | Pretrained):
            raise LabelError(f"X is {shown(X)}; expected a list of texts, which the model is for")
        # a Frame reads columns by name and fills gaps, also where all of them are numbers
        by_name = isinstance(encoder, Frame) and hasattr(X, "columns")
        if by_name or is_mixed(X):
            return self._named_columns(X, reset=reset)
        if isinstance(encoder, Frame):
            raise LabelError(f"X is {shown(X)}; expected a data frame, which the model is for")
        name_bad_columns(X)
        data = validate_data(self, X, reset=reset, accept_sparse="csr", dtype=np.float64)
        if isinstance(encoder, Table) and hasattr(data, "toarray"):
            return data.toarray()
        return csr_matrix(data) if isinstance(encoder, Sparse) else data

    def _named_columns(self, X: Any, *, reset: bool) -> Any:
        """The data as they are; the names of the columns of a data frame are kept."""
        if reset and hasattr(X, "columns"):
            import narwhals as nw

            names = nw.from_native(X, eager_only=True).columns
            self.feature_names_in_ = np.array([str(c) for c in names], dtype=object)
            self.n_features_in_ = len(self.feature_names_in_)
        return X

    def _make_encoder(self, data: Any) -> Encoder:
        if isinstance(self.encoder, str):
            if self.encoder == "hugging_face":
                raise LabelError('encoder "hugging_face" needs its folder: pass encoder=HuggingFace("folder")')
            if self.encoder != "pretrained" and self.encoder in ENCODERS:
                return ENCODERS[self.encoder]()
            close = difflib.get_close_matches(self.encoder, ENCODERS, n=1)
            if close and not Path(self.encoder).exists():
                raise LabelError(f'encoder "{self.encoder}" is not known. Did you mean "{close[0]}"?')
            return Pretrained(self.encoder)
        return encoder_for(data) if self.encoder is None else copy.deepcopy(self.encoder)

    def _learn_encoder(self, data: Any) -> Tensor:
        self.encoder_.learn(data, seed=self._seed)
        with torch.no_grad():
            encoded: Tensor = self.encoder_(data)
        return encoded

    def _device(self) -> torch.device:
        return device_of(self.device)

    def _taxonomy_for(self, labels: Labels) -> None:
        """Sets `taxonomy_`, and where its columns are not `classes_` one by one, the column of each class.

        Raises:
            LabelError: classes that the taxonomy does not have.
        """
        parts = labels.parts if isinstance(labels, All) else [labels]
        found = [self.taxonomy, *(getattr(part, "taxonomy", None) for part in parts)]
        self.taxonomy_: Taxonomy | None = next((t for t in found if isinstance(t, Taxonomy)), None)
        self._taxonomy_columns: Tensor | None = None
        if self.taxonomy_ is None:
            return
        position = {name: at for at, name in enumerate(self.taxonomy_.classes)}
        names = [str(c) for c in self.classes_]
        odd = [name for name in names if name not in position]
        if not odd and (self.named_ or len(names) < len(position)):
            self._taxonomy_columns = torch.tensor([position[name] for name in names])
        elif self.named_ and odd:
            raise LabelError(f'the taxonomy has no class "{odd[0]}"; its classes are {listed(self.taxonomy_.classes)}')
        elif len(names) != len(position):
            raise LabelError(f"the taxonomy has {len(position)} classes, the labels {len(names)}")

    def _for_taxonomy(self, log_probs: Tensor) -> Tensor:
        """Log-probabilities (N, K) in the order of the taxonomy's classes; what the labels leave out has none."""
        if self.taxonomy_ is None or self._taxonomy_columns is None:
            return log_probs
        wide = log_probs.new_full((len(log_probs), len(self.taxonomy_.classes)), -torch.inf)
        wide[:, self._taxonomy_columns] = log_probs
        return wide

    # -- using --------------------------------------------------------------------------------------------------------

    def transform(self, X: Any) -> np.ndarray:
        """Features (N, D), as the head sees them."""
        check_is_fitted(self, "head_")
        with torch.no_grad():
            encoded = self.encoder_(self._check(units.instances_in(self, X), reset=False)) / self.feature_scale_
        return np.asarray(encoded.cpu().numpy())

    def fit_transform(self, X: Any, y: Any) -> np.ndarray:
        """Fit, then the features (N, D) of the same rows."""
        return self.fit(X, y).transform(X)

    def log_probs(self, X: Any, prior: Prior = None) -> Tensor:
        """Calibrated log-probabilities (N, K) of the fine classes, on the CPU.

        Args:
            X: data.
            prior: see `predict`. None, the default here: as among the training rows, which is what labels of theirs are
                joined with.
        """
        check_is_fitted(self, "head_")
        if self.space_ == "real":
            raise LabelError("the model is of a number, which has no classes; use predict_distribution")
        if self.space_ == "tags":
            raise LabelError("the model is of tags, each of which is on or off; use predict_proba")
        if self.parts_:
            found = bag_model.log_probs(self, X)
        else:
            features = torch.from_numpy(self.transform(X)).to(self.head_.device)
            with torch.no_grad():
                found = (self.temperature_ * self.head_.logits(features)).log_softmax(dim=1).cpu()
        return shifted(found, shift_to(prior, self.classes_.tolist(), self.class_prior_, self.log_prior_shift_))

    def predict_log_proba(self, X: Any, prior: Prior = "population") -> np.ndarray:
        """Logarithm of `predict_proba`."""
        self._check_prior(prior)
        if getattr(self, "space_", "classes") == "tags":
            return np.asarray(np.log(tags.predict_proba(self, X)))
        return np.asarray(self.log_probs(X, prior).double().log_softmax(dim=1).numpy())

    def predict_proba(
        self,
        X: Any,
        prior: Prior = "population",
        *,
        unit: Unit | None = None,
        bags: Bags | None = None,
        question: str | int | None = None,
    ) -> np.ndarray:
        """Probabilities (N, K), columns in the order of `classes_`; prior as in `predict`. Of tags, of on (N, L).

        A model of instances that was told about sets answers for them too (`unit="set"`), and a model of bags for their
        instances where its encoder sees them (`unit="instance"`). Chances of sets are calibrated on training sets that
        were held out; of instances they are those that make what was said of sets likeliest, and say how many instances
        of a set are of a class only where the labels did (`Question.trusted`).

        Args:
            X: data; a model of instances takes the instances of `BagData`, bag after bag.
            prior: see `predict`.
            unit: "instance", a row per instance; "set", a row per bag. None: a row per row of the data of `fit`.
            bags: for unit="set" of a model of instances: which rows of X make a set.
            question: which of several questions that labels asked of sets, by kind or number (`questions_`). What the
                columns are: of `AnyOf` absent and present; of `AtLeast`, `AtMost` and `Between` no and yes; of
                `Majority` the classes; of `SetLabel` and `Automaton` the labels. `Counts` and `Proportions` are
                answered by expected counts and shares (M, K).

        Raises:
            LabelError: unit="set" without bags, bags of other rows, an empty bag, a unit that the model knows nothing
                of, several questions and no choice.
        """
        self._check_prior(prior)
        return units.predict_proba(self, X, prior, unit, bags, question)

    def predict(
        self,
        X: Any,
        level: str | int | None = None,
        unknown: float | None = None,
        confidence: float = 0.9,
        prior: Prior = "population",
        *,
        unit: Unit | None = None,
        bags: Bags | None = None,
        question: str | int | None = None,
    ) -> np.ndarray:
        """The likeliest class of every row, (N,): names where the labels carried names, else indices or values of y.

        Of a number: its mean, (N,). Of tags: 1 where one is more probably on than off, else 0, (N, L).

        Args:
            level: a level of the taxonomy, by name or number: names of its nodes. "auto": the deepest node that is
                true with the `confidence` asked for. None: the finest class.
            unknown: a probability; rows whose likeliest class has less become -1, or "unknown" where classes are names.
            confidence: for level="auto", at most .999; taken up to the next of `CONFIDENCES`. Its threshold is the one
                at which held-out training rows reach it, so a row's answer does not depend on the rows beside it.
            prior: class prior of the rows X. "population": that of the population which the labels say their rows were
                sampled from. It differs from that of the training rows only for kinds that state how rows were sampled:
                with case-control labels positives are more frequent in training than in the population, and a user of
                them wants to know of the population. None: as among the training rows. An array (K,), a mapping from
                class to probability, or, for two classes, the probability of the second: rows from elsewhere.
            unit, bags, question: see `predict_proba`. Of sets the likeliest answer is given: a class, or the number of
                the column (1 is present, or yes); of counts and shares what is expected.

        Raises:
            LabelError: an invalid prior, a level without a taxonomy, a probability outside 0..1.
        """
        if unknown is not None and not 0 <= unknown <= 1:
            raise LabelError(f"unknown is {unknown}; expected a probability, 0 to 1")
        self._check_prior(prior)
        if getattr(self, "space_", "classes") == "real" and level is None and unknown is None:
            return number.distribution(self, X).mean
        if getattr(self, "space_", "classes") == "tags" and level is None and unknown is None:
            return (units.predict_proba(self, X, prior, unit, bags, question) > 0.5).astype(np.int64)
        if units.elsewhere(self, X, unit, bags):
            if level is not None or unknown is not None:
                raise LabelError("level= and unknown= are for the unit that the model learnt; leave them out")
            return units.predict(self, X, prior, unit, bags, question)
        log_probs = self.log_probs(units.instances_in(self, X), prior)
        if level is None:
            best = log_probs.max(dim=1)
            found, certainty = self.classes_[best.indices.numpy()], best.values.exp().numpy()
        else:
            if self.taxonomy_ is None:
                raise LabelError(
                    f'predict(level="{level}") needs a taxonomy: pass Learner(taxonomy=...) or labels that carry one'
                )
            log_probs = self._for_taxonomy(log_probs)
            if level == "auto":
                node, certain = self.taxonomy_.deepest(log_probs, confidence, threshold=self._threshold(confidence))
                names, certainty = np.array([*self.taxonomy_.names, "unknown"]), certain.numpy()  # node -1: no root
            else:
                best = self.taxonomy_.at_level(log_probs, level).max(dim=1)
                node, names, certainty = best.indices, np.array(self.taxonomy_.nodes(level)), best.values.exp().numpy()
            found = names[node.numpy()]
        if unknown is None:
            return np.asarray(found)
        nothing = "unknown" if found.dtype.kind in "UO" else -1
        if found.dtype.kind == "U":
            found = found.astype(object)
        return np.where(certainty < unknown, nothing, found)

    def attention(self, X: Any) -> np.ndarray:
        """How much every instance counts in the answer for its bag, (N,), bag after bag; sums to 1 in a bag.

        It says where the encoder looks and is no evidence of a class: `predict_proba(X, unit="instance")` ranks
        instances better.

        Raises:
            LabelError: a model whose encoder has no attention.
        """
        return units.attention(self, X)

    def predict_distribution(self, X: Any) -> number.Distribution:
        """Mean and standard deviation of the number of every row, both (N,).

        Raises:
            LabelError: a model of classes.
        """
        return number.distribution(self, X)

    def predict_interval(self, X: Any, coverage: float = 0.9) -> np.ndarray:
        """Ends (N, 2) of an interval that holds the number of a new row with probability `coverage`.

        Its width comes from held-out values where there are 50 or more, else from the normal distribution.

        Raises:
            LabelError: a model of classes, a coverage outside (0, 1).
        """
        return number.interval(self, X, coverage)

    def _check_prior(self, prior: Prior) -> None:
        """Raises LabelError for a class prior where there are no classes."""
        space = {"real": "a number", "tags": "tags"}.get(getattr(self, "space_", "classes"))
        if space is not None and not (prior is None or (isinstance(prior, str) and prior == "population")):
            raise LabelError(f"prior= is for models of classes; this one is of {space}")

    def _threshold(self, confidence: float) -> float:
        """The threshold of the least confidence tabled that is as high as the one asked for."""
        if not 0 <= confidence <= CONFIDENCES[-1]:
            raise LabelError(f"confidence is {confidence}; expected a probability of at most {CONFIDENCES[-1]}")
        return self.level_thresholds_[min(c for c in CONFIDENCES if c >= confidence - 1e-9)]

    def posterior(self, X: Any, labels: Any) -> np.ndarray | Belief:
        """P(y = k | x, evidence) of every instance of labels of the rows of X, (N, K); of a number mean and variance.

        The labels of `fit` are read as `fit` read them (`labels_`), others with the channels that they have: make new
        votes of the same annotators with `channel=model.labels_.channels[0]`.

        Args:
            X: data.
            labels: `Labels`, or a vector of classes; of a number `RealLabels` or a vector of numbers.

        Raises:
            LabelError: lengths that differ, classes that the model does not know.
        """
        if isinstance(labels, RealLabels) or getattr(self, "space_", "classes") == "real":
            return number.posterior(self, X, labels)
        if getattr(self, "space_", "classes") == "tags":
            return tags.posterior(self, X, labels)
        log_probs = self.log_probs(X)
        if isinstance(labels, Labels):
            check_rows(len(log_probs), len(labels), "the labels")
            known = self.labels_ if labels is getattr(self, "_given", None) else labels.to("cpu")
        else:
            known = Exact(self._codes(labels, len(log_probs)), len(self.classes_))
        return np.asarray(known.posterior(log_probs[known.rows]).numpy())

    def _codes(self, y: Any, n: int) -> Tensor:
        """Positions in `classes_` of a vector of classes, (N,); -1 where missing.

        Raises:
            LabelError: lengths that differ, a class that the model does not know.
        """
        given, known = self._values(y, n)
        position = {value: at for at, value in enumerate(self.classes_.tolist())}
        codes = [position.get(v, -2) if k else -1 for v, k in zip(given.tolist(), known, strict=True)]
        if -2 in codes:
            raise LabelError(
                f"y holds {given.tolist()[codes.index(-2)]!r}; the classes are {listed(self.classes_.tolist())}"
            )
        return torch.tensor(codes)

    def _values(self, y: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
        """A vector of classes (N,) in the type of `classes_`, and where it is not missing, bool (N,).

        Raises:
            LabelError: lengths that differ.  ValueError: numbers where classes are names, or names where numbers are.
        """
        given = np.asarray(column_or_1d(y))
        check_rows(n, len(given), "y")
        known = ~missing_classes(given, np.isin(-1, self.classes_).item())
        as_given = given
        if self.classes_.dtype.kind == "U":
            text = as_strings(given) if given.dtype.kind not in "UO" else given
            given = np.where(known, text, "").astype(str)
        of_another_sort = as_given.dtype.kind != self.classes_.dtype.kind
        if of_another_sort and known.any() and not np.isin(given[known], self.classes_).any():
            shown = as_given[known].tolist()[0]
            raise ValueError(f"y holds {shown!r}; the classes are {listed(self.classes_.tolist())}")
        return given, known

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on a vector of classes, missing ones left out; for `Labels` the mean log-likelihood per row.

        Of a number: R^2 on a vector, and the mean log-density of `RealLabels` per row. Of tags: the share of known
        entries of a table (N, L) that are right.

        Raises:
            LabelError: lengths that differ.  ValueError: no class in y, or names where classes are numbers.
        """
        if isinstance(y, RealLabels) or getattr(self, "space_", "classes") == "real":
            return number.score(self, X, y, sample_weight)
        if getattr(self, "space_", "classes") == "tags":
            return tags.score(self, X, y)
        if isinstance(y, Labels):
            log_probs = self.log_probs(X)
            check_rows(len(log_probs), len(y), "the labels")
            instances = torch.ones(y.n_instances, dtype=torch.bool)
            return evidence_score(y.to("cpu"), log_probs[y.rows.cpu()], instances)
        predicted = self.predict(X)
        given, known = self._values(y, len(predicted))
        if not known.any():
            raise ValueError("y holds no class: every value is missing")
        weight = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(np.average(predicted[known] == given[known], weights=weight))

    # -- keeping ------------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors, whole or not at all. An existing model there is replaced.

        Raises:
            LabelError: a head or encoder class that could not be found again on loading, a file or a folder with other
                things in the place.
        """
        check_is_fitted(self, "head_")
        keeping.save(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Learner:
        """Read what `save` wrote. Nothing but JSON and tensors is opened; predictions are the same.

        Raises:
            LabelError: no model there, another format, half a model, a folder with pickles.
        """
        return keeping.load(cls, folder)


def _is_trained(encoder: Encoder | str | None) -> bool:
    """Whether an encoder, or the one of that name, is trained with the head; it then checks its data itself."""
    if isinstance(encoder, str):
        return issubclass(ENCODERS.get(encoder, Encoder), TrainableEncoder)
    return isinstance(encoder, TrainableEncoder)


def load(folder: str | os.PathLike[str]) -> Learner:
    """The Learner that `save` wrote to a folder, or that a run folder holds."""
    return Learner.load(folder)
