"""From a configuration to a Learner that is not fitted yet, its data, and how long it will take."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from anygrain.data.config import Config
from anygrain.data.dataset import Columns, Given, model_input
from anygrain.data.error import InputError, counted, did_you_mean, quoted
from anygrain.labels import Taxonomy
from anygrain.program.trained import is_trained, trained_encoder, trained_words

#: names of encoder.bags for masked hard instances, with their version
MASKED = {"mhim": 1, "mhim2": 2}


def make_learner(config: Config, dataset: Given[Any], taxonomy: Taxonomy | None) -> tuple[Any, Any]:
    """The Learner that a configuration asks for, and the data in the form that it reads."""
    from anygrain.encoders import Encoder, Frame, Text
    from anygrain.learn import Learner

    data = model_input(dataset.table, dataset.columns, dataset.ids)
    encoder: Encoder | str | None = None
    trained = trained_encoder(config, dataset.columns)
    more: dict[str, Any] = {}
    if dataset.columns.images:
        encoder = image_encoder(config)
    elif dataset.columns.instances:
        more = bag_arguments(config)
    elif trained is not None:
        encoder = trained
    elif isinstance(data, list):
        encoder = config.encoder.pretrained or Text(dim=config.encoder.dim)
    elif config.encoder.pretrained:
        raise InputError(
            "encoder.pretrained reads text alone. Expected text = ... without columns or features, encoder.table = "
            '"columns" with encoder.tune, or no encoder.pretrained'
        )
    elif not isinstance(data, np.ndarray):
        encoder = Frame()
        encoder.text.dim = config.encoder.dim
    learn = config.learn
    learner = Learner(
        encoder=encoder,
        head=learn.head,
        seed=learn.seed,
        device=learn.device,
        taxonomy=taxonomy,
        rounds=learn.rounds,
        folds=learn.folds,
        exact_folds=learn.exact_folds,
        neighbours=learn.neighbours,
        penalty=learn.penalty,
        epochs=None if learn.epochs == "auto" else learn.epochs,
        batch_size=None if learn.batch_size == "auto" else learn.batch_size,
        learning_rate=None if learn.learning_rate == "auto" else learn.learning_rate,
        accumulate=learn.accumulate,
        augmentation="auto" if learn.augment else None,
        precision=learn.precision,
        cross_fit=learn.cross_fit,
    )
    return learner.set_params(**{**more, **_filled(method_arguments(config, dataset), more)}), data


def _filled(slots: dict[str, Any], taken: dict[str, Any]) -> dict[str, Any]:
    """What a method puts into slots that the encoder has not taken.

    Raises:
        InputError: both want the same one.
    """
    both = [name for name, value in slots.items() if value and taken.get(name)]
    if both:
        raise InputError(f"encoder.bags and learn.method both set {both[0]} of the learner. Leave out one of them")
    return {name: value for name, value in slots.items() if name not in taken}


def bag_arguments(config: Config) -> dict[str, Any]:
    """What a Learner of bags as rows is given for `encoder.bags`.

    Raises:
        InputError: an aggregator that is not known.
    """
    from anygrain.bags import mhim
    from anygrain.encoders.bags import AGGREGATORS, BagEncoder

    asked = config.encoder.bags
    if asked == "auto":
        return {}
    if asked in MASKED:
        return mhim(MASKED[asked])
    if asked not in AGGREGATORS:
        known = ["auto", *AGGREGATORS, *MASKED]
        raise InputError(
            f"encoder.bags is {quoted(asked)}.{did_you_mean(asked, known)} Expected one of {', '.join(known)}"
        )
    return {"encoder": BagEncoder(asked)}


def method_arguments(config: Config, dataset: Given[Any]) -> dict[str, Any]:
    """What the method of a configuration puts into the slots of a Learner.

    Raises:
        InputError: a method that is not known, or is not for such labels or such an encoder.
    """
    from anygrain.labels import LabelError
    from anygrain.robust.methods import CLASSES, NUMBERS, TAGS, read_method

    space = {"classes": CLASSES, "real": NUMBERS, "tags": TAGS}[config.space]
    try:
        found, options = read_method(config.learn.method)
        kinds = tuple(dict.fromkeys(e.kind for e in dataset.evidence))
        found.check(space, trained=bool(dataset.columns.images) or is_trained(config, dataset.columns), kinds=kinds)
        return found.arguments(**options)
    except LabelError as error:
        raise InputError(f"learn.method: {error}") from error


def refusal(method: str, error: Exception) -> str:
    """What a method says of labels that it cannot be fitted to, in a line that names it as the configuration does."""
    asked = r"Learner\((\w+)=([^(),]*)(?:, procedure=\w+\((?:\.\.\.)?\))?\)"
    said = re.sub(asked, r"learn.\1 = \2", " ".join(str(error).split()))
    return said if method == "default" else f"learn.method = {quoted(method)}: {said}"


def learns_from_marks_alone(method: str) -> bool:
    """Whether a method learns tags from rows that have them, with none that lacks one; False for one not known."""
    from anygrain.labels import LabelError
    from anygrain.robust.methods import read_method

    try:
        return read_method(method)[0].marks_alone
    except LabelError:  # said by `method_arguments`
        return False


def image_encoder(config: Config) -> Any:
    """The network for images that a configuration asks for.

    Raises:
        InputError: one that is not known.
    """
    from anygrain.encoders import Convolutional, Residual, Timm

    asked = config.encoder
    size = None if asked.size == "auto" else asked.size
    if asked.images.startswith("timm:"):
        name = asked.images.removeprefix("timm:")
        return Timm(name, pretrained=asked.download, size=size, unreadable=config.data.unreadable)
    known: dict[str, Any] = {"convolutional": Convolutional, "residual": Residual}
    if asked.images not in known:
        raise InputError(
            f"encoder.images is {quoted(asked.images)}.{did_you_mean(asked.images, list(known))} Expected "
            '"convolutional", "residual", or "timm:" and a name or folder'
        )
    return known[asked.images](size=size, unreadable=config.data.unreadable)


def dimensions(dataset: Given[Any], config: Config) -> int:
    """Number of features after the encoder, roughly."""
    if dataset.columns.images:
        return 256
    if dataset.columns.instances:
        return 128 if is_trained(config, dataset.columns) else 256
    trained = trained_encoder(config, dataset.columns)
    if trained is not None:
        return 384 if config.encoder.pretrained else trained.feature_dim
    return (config.encoder.dim if dataset.columns.text else 0) + len(dataset.columns.all)


def encoder_words(columns: Columns, config: Config) -> str:
    """What the encoder is, in words."""
    if columns.instances:
        how = config.encoder.bags
        if how == "auto":
            return "bags, their instances pooled as held-out bags choose"
        return f"bags through a network trained with the head: {how}"
    if columns.images:
        side = "" if config.encoder.size == "auto" else f", {config.encoder.size} pixels a side"
        return f"images through a network trained with the head: {config.encoder.images}{side}"
    if trained_encoder(config, columns) is not None:
        return trained_words(config, columns)
    parts = []
    if columns.text:
        parts.append(config.encoder.pretrained or f"hashed tf-idf with SVD, {config.encoder.dim} dimensions")
    rest = len(columns.all) - len(columns.text)
    if rest:
        parts.append(f"{counted(rest, 'column')} standardised")
    return " and ".join(parts)
