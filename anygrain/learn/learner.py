"""The Learner: features and labels of any kind in, a model of the fine class out."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import TransformerTags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch import Tensor

from anygrain.encoders import Encoder, Frame, Pretrained, Text, encoder_for, encoder_from
from anygrain.encoders.choose import ENCODERS, is_mixed, is_text
from anygrain.labels import All, Exact, LabelError, Labels, Taxonomy
from anygrain.labels.identifiability import warn_unidentified
from anygrain.learn.calibration import confidence_temperature, evidence_score
from anygrain.learn.common_error import common_error
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
PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".bin")


class Learner(ClassifierMixin, BaseEstimator):
    r"""A classifier that learns from whatever labels there are.

    .. math:: \log p(y = k \mid x) = \mathrm{log\_softmax}(t \cdot \mathrm{head}(\mathrm{encoder}(x)))_k

    The encoder is frozen. By default the head is fitted by the recipe of `anygrain.learn.recipe`, which says on its own
    held-out evidence whether the weak evidence helped (`chosen_`). A loss, terms or a weighting of one's own shape the
    last fit of the head, to the recipe's posteriors; a procedure takes the recipe's place.

    Args:
        encoder: an `Encoder`, a folder or name of a sentence encoder, or None: chosen for the data at hand.
        head: "linear", "cosine", "prototype", "gaussian", or a `Head` class.
        loss: (log_probs (B, K), posterior (B, K)) -> (B,); None is cross-entropy.
        terms: `Term` objects added to the loss.
        weighting: a `Weighting` of instances.
        procedure: a `Procedure` in place of the recipe.
        seed: where all that is random comes from.
        device: "auto" (a GPU if there is one), "cpu", "cuda", ...
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
            LabelError: lengths that differ.  ValueError: NaN or infinite features.
        """
        data, labels = self._read(X, y)
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
        device = self._device()
        labels = labels.to(device)
        features = (encoded / self.feature_scale_).to(device)[labels.rows]
        self.taxonomy_ = self._find_taxonomy(labels)
        if self.procedure is not None:
            self._fit_procedure(features, labels)
        else:
            self._fit_recipe(features, labels, callback, state)
        self.log_evidence_heldout_ = evidence_score(
            labels, torch.as_tensor(self.held_out_log_probs_, device=device), torch.ones_like(labels.rows).bool()
        )
        return self

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
        if isinstance(y, Labels):
            if len(y) != n:
                raise LabelError(f"X has {n} rows and the labels {len(y)}; expected the same rows in the same order")
            names = y.class_names
            self.classes_ = np.arange(y.n_classes) if names is None else np.array(names)
            self.named_ = names is not None
            return data, y
        self.classes_, codes = read_classes(y)
        self.named_ = self.classes_.dtype.kind in "UO"
        if len(codes) != n:
            raise LabelError(f"X has {n} rows and y {len(codes)}; expected the same rows in the same order")
        return data, Exact(torch.from_numpy(codes), len(self.classes_))

    def _forget(self) -> None:
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)

    def _check(self, X: Any, *, reset: bool) -> Any:
        if is_text(X):
            return [None if v is None or v != v else str(v) for v in X]
        # a Frame reads columns by name and fills gaps, also where all of them are numbers
        by_name = isinstance(self.encoder if reset else self.encoder_, Frame) and hasattr(X, "columns")
        if by_name or is_mixed(X):
            if reset:
                self.feature_names_in_ = np.array([str(c) for c in X.columns], dtype=object)
                self.n_features_in_ = len(self.feature_names_in_)
            return X
        _name_bad_columns(X)
        return validate_data(self, X, reset=reset, accept_sparse="csr", dtype=np.float64)

    def _make_encoder(self, data: Any) -> Encoder:
        import copy

        if isinstance(self.encoder, str):
            return Text() if self.encoder == "text" else Pretrained(self.encoder)
        return encoder_for(data) if self.encoder is None else copy.deepcopy(self.encoder)

    def _learn_encoder(self, data: Any) -> Tensor:
        self.encoder_.learn(data, seed=self._seed)
        with torch.no_grad():
            encoded: Tensor = self.encoder_(data)
        return encoded

    def _device(self) -> torch.device:
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)

    def _find_taxonomy(self, labels: Labels) -> Taxonomy | None:
        if self.taxonomy is not None:
            return self.taxonomy
        for part in labels.parts if isinstance(labels, All) else [labels]:
            found = getattr(part, "taxonomy", None)
            if isinstance(found, Taxonomy):
                return found
        return None

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
            confidence: for level="auto".

        Raises:
            LabelError: a level without a taxonomy.
        """
        log_probs = self.log_probs(X)
        if level is None:
            best = log_probs.max(dim=1)
            found, certainty = self.classes_[best.indices.numpy()], best.values.exp().numpy()
        else:
            if self.taxonomy_ is None:
                raise LabelError(
                    f'predict(level="{level}") needs a taxonomy: pass Learner(taxonomy=...) or labels that carry one'
                )
            if level == "auto":
                node, certain = self.taxonomy_.deepest(log_probs, confidence)
                names, certainty = np.array(self.taxonomy_.names), certain.numpy()
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

    def posterior(self, X: Any, labels: Labels) -> np.ndarray:
        """P(y = k | x, evidence) of every instance of labels of the rows of X, (N, K)."""
        log_probs = self.log_probs(X)
        return np.asarray(labels.to("cpu").posterior(log_probs[labels.rows.cpu()]).numpy())

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on a vector of classes, missing ones left out; for `Labels` the mean log-likelihood per row."""
        if isinstance(y, Labels):
            log_probs = self.log_probs(X)[y.rows.cpu()]
            return evidence_score(y.to("cpu"), log_probs, torch.ones(y.n_instances, dtype=torch.bool))
        given = np.asarray(column_or_1d(y))
        known = ~missing_classes(given)
        right = np.asarray(self.predict(X))[known] == given[known]
        weight = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(np.average(right, weights=weight))

    # -- keeping ------------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write config.json and model.safetensors, whole or not at all. An existing model there is replaced.

        Raises:
            LabelError: a head or encoder class that could not be found again on loading.
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
            "settings": {
                name: getattr(self, name)
                for name in ("seed", "rounds", "folds", "exact_folds", "neighbours", "penalty", "epochs")
            },
        }
        tensors = {f"head.{k}": v for k, v in self.head_.state_dict().items()}
        tensors.update({f"encoder.{k}": v for k, v in self.encoder_.state_dict().items()})
        target = Path(folder)
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
            LabelError: no model there, another format, a folder with pickles.
        """
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
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        if config.get("project") != "anygrain" or config.get("format") != FORMAT:
            raise LabelError(f"{path}/config.json is not an anygrain model of format {FORMAT}")
        tensors = load_file(path / "model.safetensors")
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


def missing_classes(values: np.ndarray) -> np.ndarray:
    """bool (N,): None, NaN, "" or -1; -1 is a class where -1 and 1 are the only values."""
    missing = np.zeros(len(values), dtype=bool)
    if values.dtype.kind in "iuf":
        missing |= values != values
        if not set(np.unique(values[~missing])) <= {-1, 1}:
            missing |= values == -1
    elif values.dtype.kind != "b":
        missing |= np.array([v is None or v != v or v == "" for v in values.tolist()], dtype=bool)
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


def _name_bad_columns(X: Any) -> None:
    """Raises ValueError that names the columns of a data frame with NaN or infinite values."""
    if not hasattr(X, "columns"):
        return
    import narwhals as nw

    frame = nw.from_native(X, eager_only=True)
    bad = []
    for column in frame.iter_columns():
        values = np.array([np.nan if v is None else float(v) for v in column.to_list()])
        if not np.isfinite(values).all():
            bad.append(f'"{column.name}" ({int((~np.isfinite(values)).sum())} rows)')
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise ValueError(f"Input X contains NaN or infinity in {', '.join(bad[:3])}{more}. Fill or drop these rows")


def _plain(value: Any) -> Any:
    """Numpy numbers as JSON can hold them."""
    return value.item() if hasattr(value, "item") else str(value)
