"""A fitted Learner in a folder: config.json and model.safetensors, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from anygrain.encoders.choose import ENCODERS, encoder_from
from anygrain.labels import LabelError, Taxonomy
from anygrain.labels.class_prior import PriorEstimate
from anygrain.learn import number, tags
from anygrain.learn.calibration import CONFIDENCES
from anygrain.learn.head import HEADS, make_head
from anygrain.learn.real_head import REAL_HEADS
from anygrain.learn.slope_offset import SlopeOffset
from anygrain.learn.tag_recipe import TAG_HEADS
from anygrain.learn.units import question_from

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner

FORMAT = 1
#: settings of a Learner that are plain values
SETTINGS = (
    "seed",
    "rounds",
    "folds",
    "exact_folds",
    "neighbours",
    "penalty",
    "epochs",
    "batch_size",
    "learning_rate",
    "accumulate",
    "precision",
    "cross_fit",
)
PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".bin")


def save(learner: Learner, folder: str | os.PathLike[str]) -> None:
    """Write a fitted Learner, whole or not at all; see `Learner.save`."""
    from safetensors.torch import save_file

    config, tensors = _state(learner)
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


def _state(learner: Learner) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What config.json and model.safetensors hold."""
    spaces: dict[str, dict[str, Any]] = {"real": dict(REAL_HEADS), "tags": dict(TAG_HEADS)}
    heads = spaces.get(learner.space_, dict(HEADS))
    head_name = next((n for n, c in heads.items() if type(learner.head_) is c), None)
    encoder_name = next((n for n, c in ENCODERS.items() if type(learner.encoder_) is c), None)
    if head_name is None:
        raise LabelError(f"{type(learner.head_).__name__} is not in anygrain.learn.head.HEADS: add it there to save")
    if encoder_name is None:
        raise LabelError(f"{type(learner.encoder_).__name__} is not in ENCODERS: add it there to save")
    names = getattr(learner, "feature_names_in_", None)
    config = {
        "format": FORMAT,
        "project": "anygrain",
        "head": head_name,
        "encoder": {"name": encoder_name, "config": learner.encoder_.config()},
        "feature_dim": learner.head_.feature_dim,
        "space": learner.space_,
        "n_features_in": getattr(learner, "n_features_in_", None),
        "feature_names_in": None if names is None else [str(n) for n in names],
        "feature_scale": learner.feature_scale_,
        "chosen": learner.chosen_,
        "log_evidence_heldout": learner.log_evidence_heldout_,
        "settings": {name: getattr(learner, name) for name in SETTINGS},
        "of_sets": getattr(learner, "of_sets_", False),
        "questions": [question.state() for question in getattr(learner, "questions_", [])],
        **{"real": number.state, "tags": tags.state}.get(learner.space_, _of_classes)(learner),
    }
    tensors = {f"head.{k}": v for k, v in learner.head_.state_dict().items()}
    tensors.update({f"encoder.{k}": v for k, v in learner.encoder_.state_dict().items()})
    config["parts"] = {}
    for name, part in getattr(learner, "parts_", {}).items():
        config["parts"][name], own = _state(part)
        tensors.update({f"parts.{name}.{key}": value for key, value in own.items()})
    pool = getattr(learner, "pool_", None)
    config["pool"] = None if pool is None else pool.state()
    return config, tensors


def _of_classes(learner: Learner) -> dict[str, Any]:
    """What config.json holds of a model of classes, beside the rest."""
    return {
        "classes": learner.classes_.tolist(),
        "named": bool(learner.named_),
        "temperature": learner.temperature_,
        "class_prior": learner.class_prior_.tolist(),
        "log_prior_shift": learner.log_prior_shift_.tolist(),
        "class_prior_estimate": learner.class_prior_estimate_,
        "taxonomy": None if learner.taxonomy_ is None else learner.taxonomy_.state(),
        "level_thresholds": [learner.level_thresholds_.get(c) for c in CONFIDENCES],
        "taxonomy_columns": None if learner._taxonomy_columns is None else learner._taxonomy_columns.tolist(),
    }


def load(kind: type[Learner], folder: str | os.PathLike[str]) -> Learner:
    """Read what `save` wrote; see `Learner.load`."""
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
        return _restored(kind, config, load_file(path / "model.safetensors"))
    except LabelError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise LabelError(f"{path} holds a damaged model: {str(error).splitlines()[0]}. Save it again") from error


def _restored(kind: type[Learner], config: dict[str, Any], tensors: dict[str, Tensor]) -> Learner:
    """The Learner of a configuration and tensors that `save` wrote."""
    learner = kind(head=config["head"], **config["settings"])
    if config["n_features_in"] is not None:
        learner.n_features_in_ = config["n_features_in"]
    if config["feature_names_in"] is not None:
        learner.feature_names_in_ = np.array(config["feature_names_in"], dtype=object)
    learner.feature_scale_, learner.space_ = config["feature_scale"], config.get("space", "classes")
    learner.chosen_, learner.log_evidence_heldout_ = config["chosen"], config["log_evidence_heldout"]
    parts: dict[str, dict[str, Tensor]] = {"head": {}, "encoder": {}, "parts": {}}
    for key, tensor in tensors.items():
        part, name = key.split(".", 1)
        parts[part][name] = tensor
    learner.of_sets_ = config.get("of_sets", False)
    learner.questions_ = [question_from(state) for state in config.get("questions", [])]
    learner.parts_ = {}
    for name, own in config.get("parts", {}).items():
        of_part = {key[len(name) + 1 :]: value for key, value in parts["parts"].items() if key.startswith(f"{name}.")}
        learner.parts_[name] = _restored(kind, own, of_part)
    if config.get("pool") is not None:
        learner.pool_ = SlopeOffset(**config["pool"])
    restores = {"real": number.restore, "tags": tags.restore}
    restores.get(learner.space_, _restore_classes)(learner, config)
    learner.head_.load_state_dict(parts["head"])
    learner.encoder_ = encoder_from(config["encoder"]["name"], config["encoder"]["config"], parts["encoder"])
    return learner


def _restore_classes(learner: Learner, config: dict[str, Any]) -> None:
    """The inverse of `_of_classes`, with an unfitted head."""
    values = np.array(config["classes"], dtype=object if config["named"] else None)
    learner.classes_ = values.astype(str) if config["named"] and all(isinstance(v, str) for v in values) else values
    learner.named_ = config["named"]
    learner.temperature_ = config["temperature"]
    learner.class_prior_ = np.array(config["class_prior"])
    learner.log_prior_shift_ = np.array(config["log_prior_shift"])
    estimate = config["class_prior_estimate"]
    learner.class_prior_estimate_ = None if estimate is None else PriorEstimate(*estimate)
    learner.taxonomy_ = None if config["taxonomy"] is None else Taxonomy.from_state(config["taxonomy"])
    learner.level_thresholds_ = dict(zip(CONFIDENCES, config["level_thresholds"], strict=True))
    columns = config["taxonomy_columns"]
    learner._taxonomy_columns = None if columns is None else torch.tensor(columns)
    learner.head_ = make_head(config["head"], config["feature_dim"], len(learner.classes_))


def _plain(value: Any) -> Any:
    """Numpy numbers as JSON can hold them."""
    return value.item() if hasattr(value, "item") else str(value)
