"""The Learner: features and labels of any kind in, a model of the fine class out."""

from __future__ import annotations

import difflib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import TransformerTags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch import Tensor

from anygrain.encoders import Encoder, Frame, Pretrained, Sparse, Table, Text, encoder_for, encoder_from
from anygrain.encoders.choose import ENCODERS, is_mixed, is_text
from anygrain.labels import All, Exact, LabelError, Labels, Taxonomy
from anygrain.labels.frame import as_strings
from anygrain.labels.identifiability import warn_unidentified
from anygrain.learn.calibration import confidence_temperature, evidence_score
from anygrain.learn.common_error import common_error
from anygrain.learn.fabric import Fabric
from anygrain.learn.given_x import target_from_sources
from anygrain.learn.head import HEADS, Head, make_head
from anygrain.learn.loop import objective, train
from anygrain.learn.loss import Loss, cross_entropy
from anygrain.learn.procedure import Procedure
from anygrain.learn.recipe import Callback, Recipe, RecipeState, Settings
from anygrain.learn.started_channels import with_started_channels
from anygrain.learn.step import Step
from anygrain.learn.term import Term
from anygrain.learn.weighting import Weighting

FORMAT = 1
CONFIDENCES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.999)  # with a threshold for level="auto"
NUMBERS = ("rounds", "folds", "exact_folds", "neighbours", "penalty", "epochs", "batch_size", "learning_rate")
PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".bin")


class Learner(ClassifierMixin, BaseEstimator):
    r"""A classifier that learns from whatever labels there are.

    .. math:: \log p(y = k \mid x) = \mathrm{log\_softmax}(t \cdot \mathrm{head}(\mathrm{encoder}(x)))_k

    The encoder is frozen. By default the head is fitted by the recipe of `anygrain.learn.recipe`, which says on its own
    held-out evidence whether the weak evidence helped (`chosen_`). A loss, terms or a weighting of one's own shape the
    last fit of the head, to the recipe's posteriors; a procedure takes the recipe's place.

    Args:
        encoder: an `Encoder`, a folder or name of a sentence encoder, or None: chosen for the data at hand.
        head: "linear", "cosine", "prototype", "quadratic", or a `Head` class.
        loss: (log_probs (B, K), posterior (B, K)) -> (B,); None is cross-entropy.
        terms: `Term` objects added to the loss.
        weighting: a `Weighting` of instances.
        procedure: a `Procedure` in place of the recipe.
        seed: where all that is random comes from.
        device: "auto" (a GPU if there is one), "cpu", "cuda", ...
        fabric: a launched `lightning.Fabric`, for the loop below on several devices or in mixed precision; every
            process calls `fit`. None is one device, in plain torch. The recipe runs on every process alike.
        taxonomy: for `predict(level=...)`; taken from the labels if they carry one.
        rounds, folds, exact_folds, neighbours, penalty: of the recipe, see `Settings`.
        epochs, batch_size, learning_rate: of the loop that a loss, terms or a weighting of one's own run in.

    Attributes:
        classes_: (K,) what `predict` gives: values of y, class names, or 0..K-1.
        n_features_in_: number of columns of X, for arrays and tables.
        taxonomy_: the taxonomy, or None.
        head_, encoder_, temperature_: the fitted parts.
        error_: the small error that hard kinds share, 0 where they never contradict each other.
        chosen_: whether "evidence" or "exact only" won, and why.
        history_: one dict per step: track, round, temperature, held-out evidence per row.
        held_out_log_probs_: (N, K) of the training instances, from heads that saw neither row nor evidence; where
            `held_out_` (N,) is False that was not possible.
        log_evidence_heldout_: mean log-likelihood of the evidence per row under `held_out_log_probs_`.
        posterior_: (N, K), what all evidence and the features say of the training instances.
        labels_: the labels as `fit` read them: channels fitted, the common error, sources that saw the features (rules,
            teachers) as the target that they come to. `labels_.channels` tell what became of the annotators.
        recipe_state_: finished steps, to go on from (`fit(state=...)`).
    """

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
        epochs: int = 30,
        batch_size: int = 256,
        learning_rate: float = 0.01,
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

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags = TransformerTags(preserves_dtype=[])
        return tags

    # -- fitting ------------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, *, callback: Callback | None = None, state: RecipeState | None = None) -> Learner:
        """Fit to rows of data and labels.

        Args:
            X: (N, D) array or sparse matrix, data frame, or texts.
            y: `Labels` of any kind, or a vector of classes; missing: None, NaN, "" or -1 (unless -1 and 1 are its only
                values).
            callback: called after every step with (finished, all, what was found): progress, checkpoints.
            state: finished steps of an interrupted fit (`RecipeState.from_tensors`); the result is the same.

        Raises:
            LabelError: lengths that differ, a setting outside its range, a taxonomy of other classes.
            ValueError: NaN or infinite features.
        """
        self._check_settings()
        device = self._device()
        data, given = self._read(X, y)
        self._taxonomy_for(given)
        labels = given
        warn_unidentified(labels, stacklevel=2)
        labels = with_started_channels(target_from_sources(labels))
        self.error_ = common_error(labels)
        if self.error_:
            labels = labels.with_error(self.error_)
        self._seed = int(self.seed)
        self.encoder_ = self._make_encoder(data)
        encoded = self._learn_encoder(data)
        root = float(encoded.square().mean().sqrt())
        self.feature_scale_ = root if root > 0 else 1.0
        labels = labels.to(device)
        features = (encoded / self.feature_scale_).to(device)[labels.rows]
        if self.procedure is not None:
            self._fit_procedure(features, labels)
        else:
            self._fit_recipe(features, labels, callback, state)
        self.log_evidence_heldout_ = evidence_score(
            labels, torch.as_tensor(self.held_out_log_probs_, device=device), torch.ones_like(labels.rows).bool()
        )
        self.labels_, self._given = labels.to("cpu"), given
        self.level_thresholds_ = self._level_thresholds()
        return self

    def _level_thresholds(self) -> dict[float, float]:
        """For `level="auto"`: by confidence, the threshold at which held-out rows reach it."""
        if self.taxonomy_ is None:
            return {}
        log_probs = self._for_taxonomy(torch.as_tensor(self.held_out_log_probs_))
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
        }
        for name, least in lowest.items():
            if not getattr(self, name) >= least:
                raise LabelError(f"{name} is {getattr(self, name)}; expected {least} or more")
        if not self.learning_rate > 0:
            raise LabelError(f"learning_rate is {self.learning_rate}; expected a number above 0")
        if isinstance(self.terms, Term) or not all(isinstance(term, Term) for term in self.terms):
            raise LabelError("terms must be a list of Term objects, such as [MyTerm()]")
        if self.taxonomy is not None and not isinstance(self.taxonomy, Taxonomy):
            raise LabelError(f"taxonomy is {self.taxonomy!r}; expected a Taxonomy, such as Taxonomy.from_csv(path)")

    def _fit_recipe(
        self, features: Tensor, labels: Labels, callback: Callback | None, state: RecipeState | None
    ) -> None:
        recipe = Recipe(
            features,
            labels,
            lambda: make_head(self.head, features.shape[1], labels.n_classes).to(features.device),
            settings=Settings(
                rounds=self.rounds,
                folds=self.folds,
                exact_folds=self.exact_folds,
                neighbours=self.neighbours,
                penalty=self.penalty,
            ),
            seed=self._seed,
            state=state,
            callback=callback,
        )
        found = recipe.run()
        self.head_, self.temperature_ = found.head.requires_grad_(True), found.temperature
        self.chosen_, self.history_ = found.chosen, found.history
        self.posterior_ = found.posterior.cpu().numpy()
        self.held_out_log_probs_ = found.held_out_log_probs.cpu().numpy()
        self.held_out_ = found.held_out.cpu().numpy()
        self.recipe_state_ = recipe.state
        if self.loss is not None or self.terms or self.weighting is not None:
            self._fit_loop(features, labels, found.posterior)

    def _fit_loop(self, features: Tensor, labels: Labels, posterior: Tensor) -> None:
        """The last fit of the head, with the loss, the terms and the weighting that were given."""

        def say(epoch: int, value: float) -> None:
            self.history_.append({"step": f"epoch {epoch}", "track": "loop", "round": epoch, "objective": value})

        torch_state = torch.random.get_rng_state()
        torch.manual_seed(self._seed)  # terms may draw
        train(
            self,
            self.head_,
            features,
            posterior,
            labels.instance_weight().to(features),
            loss=cross_entropy if self.loss is None else self.loss,
            terms=self.terms,
            weighting=self.weighting,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            penalty=self.penalty,
            seed=self._seed,
            fabric=self.fabric,
            on_epoch=say,
        )
        torch.random.set_rng_state(torch_state)
        self.temperature_ = self._temperature_of(features, labels)

    def _temperature_of(self, features: Tensor, labels: Labels) -> float:
        """Temperature that gives the head the mean confidence that the held-out log-probabilities have."""
        wanted = float(torch.as_tensor(self.held_out_log_probs_).exp().max(dim=1).values.mean())
        with torch.no_grad():
            logits = self.head_.logits(features)
        return confidence_temperature(logits, wanted)

    def _fit_procedure(self, features: Tensor, labels: Labels) -> None:
        assert self.procedure is not None
        self.head_ = make_head(self.head, features.shape[1], labels.n_classes).to(features.device)
        self.temperature_, self.history_ = 1.0, []
        self.chosen_ = {"chosen": "evidence", "why": f"fitted by {type(self.procedure).__name__}"}
        self.procedure.run(self, features, labels)
        with torch.no_grad():
            log_probs = self.head_(features)
        self.posterior_ = labels.posterior(log_probs).cpu().numpy()
        self.held_out_log_probs_ = log_probs.cpu().numpy()
        self.held_out_ = np.zeros(len(log_probs), dtype=bool)

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
        n = _n_rows(data)
        if isinstance(y, list | tuple) and any(isinstance(part, Labels) for part in y):
            raise LabelError("y is a list of labels; join them with &, such as Exact(...) & Coarse(...)")
        if isinstance(y, Labels):
            _check_rows(n, len(y), "the labels")
            names = y.class_names
            self.classes_ = np.arange(y.n_classes) if names is None else np.array(names)
            self.named_ = names is not None
            return data, y
        self.classes_, codes = read_classes(y)
        self.named_ = self.classes_.dtype.kind in "UO"
        _check_rows(n, len(codes), "y")
        return data, Exact(torch.from_numpy(codes), len(self.classes_))

    def _forget(self) -> None:
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)

    def _check(self, X: Any, *, reset: bool) -> Any:
        encoder = self.encoder if reset else self.encoder_
        if isinstance(X, str):
            raise LabelError("X is a single text; expected a list of texts, such as [text]")
        if is_text(X):
            if isinstance(encoder, Table | Sparse | Frame):
                raise LabelError("X holds texts; expected a table of numbers, which the model is for")
            return [str(v) if isinstance(v, str) else None for v in X]
        if isinstance(encoder, Text | Pretrained):
            raise LabelError(f"X is {_shown(X)}; expected a list of texts, which the model is for")
        # a Frame reads columns by name and fills gaps, also where all of them are numbers
        by_name = isinstance(encoder, Frame) and hasattr(X, "columns")
        if by_name or is_mixed(X):
            if reset:
                import narwhals as nw

                names = nw.from_native(X, eager_only=True).columns
                self.feature_names_in_ = np.array([str(c) for c in names], dtype=object)
                self.n_features_in_ = len(self.feature_names_in_)
            return X
        if isinstance(encoder, Frame):
            raise LabelError(f"X is {_shown(X)}; expected a data frame, which the model is for")
        _name_bad_columns(X)
        data = validate_data(self, X, reset=reset, accept_sparse="csr", dtype=np.float64)
        if isinstance(encoder, Table) and hasattr(data, "toarray"):
            return data.toarray()
        return csr_matrix(data) if isinstance(encoder, Sparse) else data

    def _make_encoder(self, data: Any) -> Encoder:
        import copy

        if isinstance(self.encoder, str):
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
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            torch.zeros(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise LabelError(f'device "{self.device}" cannot be used here: {str(error).splitlines()[0]}') from error
        return torch.device(self.device)

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
            raise LabelError(f'the taxonomy has no class "{odd[0]}"; its classes are {_listed(self.taxonomy_.classes)}')
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
            encoded = self.encoder_(self._check(X, reset=False)) / self.feature_scale_
        return np.asarray(encoded.cpu().numpy())

    def fit_transform(self, X: Any, y: Any) -> np.ndarray:
        """Fit, then the features (N, D) of the same rows."""
        return self.fit(X, y).transform(X)

    def log_probs(self, X: Any) -> Tensor:
        """Calibrated log-probabilities (N, K) of the fine classes, on the CPU."""
        features = torch.from_numpy(self.transform(X)).to(next(self.head_.parameters()).device)
        with torch.no_grad():
            return (self.temperature_ * self.head_.logits(features)).log_softmax(dim=1).cpu()

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Log-probabilities (N, K), columns in the order of `classes_`."""
        return np.asarray(self.log_probs(X).double().log_softmax(dim=1).numpy())

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (N, K), columns in the order of `classes_`."""
        return np.asarray(self.log_probs(X).double().softmax(dim=1).numpy())

    def predict(
        self, X: Any, level: str | int | None = None, unknown: float | None = None, confidence: float = 0.9
    ) -> np.ndarray:
        """The likeliest class of every row, (N,): names where the labels carried names, else indices or values of y.

        Args:
            level: a level of the taxonomy, by name or number: names of its nodes. "auto": the deepest node that is
                true with the `confidence` asked for. None: the finest class.
            unknown: a probability; rows whose likeliest class has less become -1, or "unknown" where classes are names.
            confidence: for level="auto", at most .999; taken up to the next of `CONFIDENCES`. Its threshold is the one
                at which held-out training rows reach it, so a row's answer does not depend on the rows beside it.

        Raises:
            LabelError: a level without a taxonomy, a probability outside 0..1.
        """
        if unknown is not None and not 0 <= unknown <= 1:
            raise LabelError(f"unknown is {unknown}; expected a probability, 0 to 1")
        log_probs = self.log_probs(X)
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

    def _threshold(self, confidence: float) -> float:
        """The threshold of the least confidence tabled that is as high as the one asked for."""
        if not 0 <= confidence <= CONFIDENCES[-1]:
            raise LabelError(f"confidence is {confidence}; expected a probability of at most {CONFIDENCES[-1]}")
        return self.level_thresholds_[min(c for c in CONFIDENCES if c >= confidence - 1e-9)]

    def posterior(self, X: Any, labels: Any) -> np.ndarray:
        """P(y = k | x, evidence) of every instance of labels of the rows of X, (N, K).

        The labels of `fit` are read as `fit` read them (`labels_`), others with the channels that they have: make new
        votes of the same annotators with `channel=model.labels_.channels[0]`.

        Args:
            X: data.
            labels: `Labels`, or a vector of classes.

        Raises:
            LabelError: lengths that differ, classes that the model does not know.
        """
        log_probs = self.log_probs(X)
        if isinstance(labels, Labels):
            _check_rows(len(log_probs), len(labels), "the labels")
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
                f"y holds {given.tolist()[codes.index(-2)]!r}; the classes are {_listed(self.classes_.tolist())}"
            )
        return torch.tensor(codes)

    def _values(self, y: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
        """A vector of classes (N,) in the type of `classes_`, and where it is not missing, bool (N,).

        Raises:
            LabelError: lengths that differ.  ValueError: numbers where classes are names, or names where numbers are.
        """
        given = np.asarray(column_or_1d(y))
        _check_rows(n, len(given), "y")
        known = ~missing_classes(given, np.isin(-1, self.classes_).item())
        as_given = given
        if self.classes_.dtype.kind == "U":
            text = as_strings(given) if given.dtype.kind not in "UO" else given
            given = np.where(known, text, "").astype(str)
        of_another_sort = as_given.dtype.kind != self.classes_.dtype.kind
        if of_another_sort and known.any() and not np.isin(given[known], self.classes_).any():
            shown = as_given[known].tolist()[0]
            raise ValueError(f"y holds {shown!r}; the classes are {_listed(self.classes_.tolist())}")
        return given, known

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on a vector of classes, missing ones left out; for `Labels` the mean log-likelihood per row.

        Raises:
            LabelError: lengths that differ.  ValueError: no class in y, or names where classes are numbers.
        """
        if isinstance(y, Labels):
            log_probs = self.log_probs(X)
            _check_rows(len(log_probs), len(y), "the labels")
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
        from safetensors.torch import save_file

        head_name = next((n for n, c in HEADS.items() if type(self.head_) is c), None)
        encoder_name = next((n for n, c in ENCODERS.items() if type(self.encoder_) is c), None)
        if head_name is None:
            raise LabelError(f"{type(self.head_).__name__} is not in anygrain.learn.head.HEADS: add it there to save")
        if encoder_name is None:
            raise LabelError(f"{type(self.encoder_).__name__} is not in ENCODERS: add it there to save")
        names = getattr(self, "feature_names_in_", None)
        config = {
            "format": FORMAT,
            "project": "anygrain",
            "head": head_name,
            "encoder": {"name": encoder_name, "config": self.encoder_.config()},
            "feature_dim": self.head_.feature_dim,
            "classes": self.classes_.tolist(),
            "named": bool(self.named_),
            "n_features_in": getattr(self, "n_features_in_", None),
            "feature_names_in": None if names is None else [str(n) for n in names],
            "feature_scale": self.feature_scale_,
            "temperature": self.temperature_,
            "chosen": self.chosen_,
            "log_evidence_heldout": self.log_evidence_heldout_,
            "taxonomy": None if self.taxonomy_ is None else self.taxonomy_.state(),
            "level_thresholds": [self.level_thresholds_.get(c) for c in CONFIDENCES],
            "taxonomy_columns": None if self._taxonomy_columns is None else self._taxonomy_columns.tolist(),
            "settings": {name: getattr(self, name) for name in ("seed", *NUMBERS)},
        }
        tensors = {f"head.{k}": v for k, v in self.head_.state_dict().items()}
        tensors.update({f"encoder.{k}": v for k, v in self.encoder_.state_dict().items()})
        target = Path(folder)
        if target.exists() and not target.is_dir():
            raise LabelError(f"{target} is a file: choose a folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            save_file(
                {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, unfinished / "model.safetensors"
            )
            (unfinished / "config.json").write_text(json.dumps(config, indent=1, default=_plain), encoding="utf-8")
            os.chmod(unfinished, 0o755)
            if target.exists():
                odd = [p.name for p in target.iterdir() if p.name not in ("config.json", "model.safetensors")]
                if odd:
                    raise LabelError(f"{target} holds {odd[0]}, which is no part of a model: choose another folder")
                shutil.rmtree(target)
            os.replace(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Learner:
        """Read what `save` wrote. Nothing but JSON and tensors is opened; predictions are the same.

        Raises:
            LabelError: no model there, another format, half a model, a folder with pickles.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = Path(folder)
        if not (path / "config.json").exists() and (path / "model" / "config.json").exists():
            path = path / "model"  # a run folder
        if path.is_dir():
            pickles = sorted(p.name for p in path.iterdir() if p.suffix in PICKLES)
            if pickles:
                raise LabelError(
                    f"{path} contains {pickles[0]}. anygrain never opens pickles; expected config.json and "
                    "model.safetensors. Export it again with anygrain, or pass only the weights"
                )
        for name in ("config.json", "model.safetensors"):
            if not (path / name).exists():
                raise LabelError(f"{path} has no {name}. Expected a folder that Learner.save wrote")
        try:
            config = json.loads((path / "config.json").read_text(encoding="utf-8"))
            if config.get("project") != "anygrain" or config.get("format") != FORMAT:
                raise LabelError(f"{path}/config.json is not an anygrain model of format {FORMAT}")
            return cls._restored(config, load_file(path / "model.safetensors"))
        except LabelError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise LabelError(f"{path} holds a damaged model: {str(error).splitlines()[0]}. Save it again") from error

    @classmethod
    def _restored(cls, config: dict[str, Any], tensors: dict[str, Tensor]) -> Learner:
        """The Learner of a configuration and tensors that `save` wrote."""
        learner = cls(head=config["head"], **config["settings"])
        values = np.array(config["classes"], dtype=object if config["named"] else None)
        learner.classes_ = values.astype(str) if config["named"] and all(isinstance(v, str) for v in values) else values
        learner.named_ = config["named"]
        if config["n_features_in"] is not None:
            learner.n_features_in_ = config["n_features_in"]
        if config["feature_names_in"] is not None:
            learner.feature_names_in_ = np.array(config["feature_names_in"], dtype=object)
        learner.feature_scale_, learner.temperature_ = config["feature_scale"], config["temperature"]
        learner.chosen_, learner.log_evidence_heldout_ = config["chosen"], config["log_evidence_heldout"]
        learner.taxonomy_ = None if config["taxonomy"] is None else Taxonomy.from_state(config["taxonomy"])
        learner.level_thresholds_ = dict(zip(CONFIDENCES, config["level_thresholds"], strict=True))
        columns = config["taxonomy_columns"]
        learner._taxonomy_columns = None if columns is None else torch.tensor(columns)
        parts: dict[str, dict[str, Tensor]] = {"head": {}, "encoder": {}}
        for key, tensor in tensors.items():
            part, name = key.split(".", 1)
            parts[part][name] = tensor
        learner.head_ = make_head(config["head"], config["feature_dim"], len(learner.classes_))
        learner.head_.load_state_dict(parts["head"])
        learner.encoder_ = encoder_from(config["encoder"]["name"], config["encoder"]["config"], parts["encoder"])
        return learner


def load(folder: str | os.PathLike[str]) -> Learner:
    """The Learner that `save` wrote to a folder, or that a run folder holds."""
    return Learner.load(folder)


def missing_classes(values: np.ndarray, minus_one: bool | None = None) -> np.ndarray:
    """bool (N,): None, NaN, "" or -1.

    Args:
        values: (N,).
        minus_one: whether -1 is a class; where -1 and 1 are the only values when not given.
    """
    missing = np.zeros(len(values), dtype=bool)
    if values.dtype.kind in "iuf":
        missing |= values != values
        if minus_one is None:
            minus_one = set(np.unique(values[~missing])) == {-1, 1}
        if not minus_one:
            missing |= values == -1
    elif values.dtype.kind != "b":
        missing |= np.array([v is None or str(v) in ("", "<NA>") or v != v for v in values.tolist()], dtype=bool)
    return missing


def read_classes(y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct values (K,) of a vector, and the code of every row (N,), -1 where missing.

    Raises:
        ValueError: not a vector of classes, or no class in it.
    """
    if y is None:
        raise ValueError("Learner.fit requires y to be passed, but the target y is None")
    values = np.asarray(column_or_1d(y, warn=True))
    if values.dtype.kind == "f" and np.isinf(values).any():
        raise ValueError("Input y contains infinity")
    gone = missing_classes(values)
    known = values[~gone]
    if values.dtype == object:
        known = np.array([str(v) for v in known]) if any(isinstance(v, str) for v in known) else np.array(list(known))
    if not len(known):
        raise ValueError("y holds no class: every value is missing")
    check_classification_targets(known)
    classes, codes = np.unique(known, return_inverse=True)
    out = np.full(len(values), -1, dtype=np.int64)
    out[~gone] = codes
    return classes, out


def _n_rows(data: Any) -> int:
    return int(data.shape[0]) if hasattr(data, "shape") else len(data)


def _check_rows(n: int, given: int, what: str) -> None:
    if n != given:
        raise LabelError(f"X has {n} rows and {what} {given}; expected the same rows in the same order")


def _listed(names: Sequence[Any]) -> str:
    """The first names, quoted where they are texts."""
    shown = ", ".join(f'"{name}"' if isinstance(name, str) else str(name) for name in names[:6])
    return shown + (f", ... ({len(names) - 6} more)" if len(names) > 6 else "")


def _shown(X: Any) -> str:
    """What kind of thing X is, for messages."""
    if hasattr(X, "__len__") and not hasattr(X, "shape") and len(X) == 0:
        return "empty"
    shape = f" of shape {tuple(X.shape)}" if hasattr(X, "shape") else ""
    return f"{type(X).__name__}{shape}"


def _name_bad_columns(X: Any) -> None:
    """Raises ValueError that names the columns of a data frame or array with NaN or infinite values."""
    if hasattr(X, "columns"):
        import narwhals as nw

        columns = nw.from_native(X, eager_only=True).iter_columns()
        counts = {f'"{c.name}"': int((~np.isfinite(c.cast(nw.Float64).to_numpy())).sum()) for c in columns}
    elif isinstance(X, np.ndarray) and X.ndim == 2 and X.dtype.kind == "f":
        counts = {f"column {at}": int(n) for at, n in enumerate((~np.isfinite(X)).sum(axis=0))}
    else:
        return
    bad = [f"{name} ({n} rows)" for name, n in counts.items() if n]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise ValueError(f"Input X contains NaN or infinity in {', '.join(bad[:3])}{more}. Fill or drop these rows")


def _plain(value: Any) -> Any:
    """Numpy numbers as JSON can hold them."""
    return value.item() if hasattr(value, "item") else str(value)
