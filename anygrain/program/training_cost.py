"""How long the training of a network will take, roughly: rows that pass through it, times what a row costs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from anygrain.data.config import Config
from anygrain.data.dataset import Given, texts
from anygrain.encoders.trainable import Training
from anygrain.labels import Positive
from anygrain.program.setup import image_encoder
from anygrain.program.trained import trained_encoder

FLOPS = 4e10  # multiplications and additions per second, of a transformer on a core
TOKENS = 1.4  # of a word
BASE = {"hidden_size": 768, "num_hidden_layers": 12}  # a pretrained encoder that says nothing of its size
SAMPLE = 200  # texts whose words are counted
BACK = 3.0  # of the work of a forward pass: gradients of activations and weights as well
BACK_FROZEN = 2.2  # the same where most weights are not trained


def network_cost(dataset: Given[Any], config: Config) -> tuple[float, float] | None:
    """Seconds and bytes that training needs; None where the encoder is fixed. Measured on one core."""
    if dataset.columns.images:
        return _of_images(dataset, config)
    encoder = trained_encoder(config, dataset.columns)
    if encoder is None:
        return None
    n, columns, views = len(dataset), dataset.columns, row_views(dataset, config, encoder.training_defaults)
    of_row, size = 5e-5 * (len(columns.all) > len(columns.text)), 6e8 + 1e3 * n * len(columns.all)
    if columns.text:
        work, weights = _of_text(dataset, config)
        of_row += work / FLOPS
        size += 1e3 * n + weights
    return 4 + of_row * (views + n), size


def row_views(dataset: Given[Any], config: Config, likes: Training) -> float:
    """How many rows pass through the network forth and back, over all trainings.

    An epoch has as many steps as the larger of told and silent rows needs; each step takes a batch of told rows and its
    share of the silent ones, in two views where there are any or labels leave doubt. Beside the network that stays
    there are those of a cross-fit, two phases that estimate a class prior, and twins where few rows are told.
    """
    from anygrain.learn.end_to_end import FEWEST_EPOCHS, HELD_OUT, LEAST_ROWS, MOST_EPOCHS

    learn, told = config.learn, int(dataset.labelled.sum())
    classes = config.space != "real"
    size = likes.batch_size if learn.batch_size == "auto" else learn.batch_size
    taught = max(told * (1 - HELD_OUT) if told >= LEAST_ROWS else told, 1)
    teaches = learn.augment and classes
    silent = len(dataset) - told if teaches else 0
    doubtful = teaches and (silent > 0 or any(e.kind not in ("Exact", "Tags") for e in dataset.evidence))
    steps = max(math.ceil(taught / size), math.ceil(silent / size))
    epochs: float = learn.epochs if isinstance(learn.epochs, int) else 0
    if not epochs:
        epochs = min(max(math.ceil(likes.steps / steps), FEWEST_EPOCHS), MOST_EPOCHS)
    once = epochs * (steps * min(size, taught) + silent) * (2 if doubtful else 1)
    return once * trainings(dataset, config)


def trainings(dataset: Given[Any], config: Config) -> float:
    """How many whole trainings a fit comes to; those on a part of the rows count as that part."""
    from anygrain.learn.cross_fit import PARTS
    from anygrain.learn.end_to_end import LEAST_ROWS
    from anygrain.learn.trained_prior import PHASES
    from anygrain.learn.twins import EVERY, TWINS

    parted = PARTS * (1 - 1 / PARTS)
    plain, classes = config.learn.method == "default", config.space != "real"
    many = 1.0
    if config.learn.cross_fit and plain:
        many += parted
    if any(isinstance(e.labels, Positive) and e.labels.prior is None for e in dataset.evidence):
        many += PHASES * parted
    if plain and classes and int(dataset.labelled.sum()) < LEAST_ROWS:
        many += TWINS * (1 - 1 / EVERY)
    return many


def _of_text(dataset: Given[Any], config: Config) -> tuple[float, float]:
    """Multiplications of a row forth and back, and bytes of the weights and what is kept of them."""
    some = texts(dataset.table, dataset.columns.text)
    some = some[:: max(1, len(some) // SAMPLE)]
    words = float(np.mean([len(text.split()) for text in some]))
    if not config.encoder.pretrained:
        from anygrain.encoders import Transformer

        made = Transformer()
        forward, weights = transformer_work(min(words, made.longest), made.feature_dim, made.layers)
        return BACK * forward, 16 * weights
    hidden, layers, inner = _size_of(Path(config.encoder.pretrained))
    forward, weights = transformer_work(min(TOKENS * words + 2, 128), hidden, layers, inner)
    whole = config.encoder.tune == "full"
    return forward * (BACK if whole else BACK_FROZEN), weights * (
        16 if whole else 4
    ) + 4.0 * 32 * 128 * hidden * 20 * layers


def transformer_work(tokens: float, hidden: int, layers: int, inner: int | None = None) -> tuple[float, float]:
    """Multiplications and additions of a forward pass over a row of tokens, and weights beside the embeddings.

    Each layer has four square matrices, two to and from the inner width (four times the hidden one if None), and two
    products of all tokens with all.
    """
    weights = layers * (4 * hidden**2 + 2 * hidden * (4 * hidden if inner is None else inner))
    return 2.0 * tokens * weights + 4.0 * layers * tokens**2 * hidden, float(weights)


def _size_of(folder: Path) -> tuple[int, int, int | None]:
    """Hidden width, layers and inner width of a pretrained encoder, by its config.json."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # said when it is loaded
        found = BASE

    def first(*names: str) -> int | None:
        return next((int(found[name]) for name in names if isinstance(found.get(name), int)), None)

    hidden = first("hidden_size", "d_model", "dim", "n_embd") or BASE["hidden_size"]
    layers = first("num_hidden_layers", "num_layers", "n_layers", "n_layer") or BASE["num_hidden_layers"]
    return hidden, layers, first("intermediate_size", "d_ff", "hidden_dim", "n_inner")


def _of_images(dataset: Given[Any], config: Config) -> tuple[float, float]:
    """The same for images; a network of timm may take ten times as long, or more."""
    from anygrain.encoders.images import KEPT, LONGEST

    n, likes = len(dataset), image_encoder(config).training_defaults
    side = LONGEST / 2 if config.encoder.size == "auto" else config.encoder.size
    batch = likes.batch_size if config.learn.batch_size == "auto" else config.learn.batch_size
    place = 6e-7 * (1 if config.encoder.images == "convolutional" else 6)  # seconds per pixel
    duration = 4 + side**2 * place * (row_views(dataset, config, likes) + 3 * n)
    memory = 6e8 + 2e3 * batch * side**2 + min(KEPT, 3.0 * n * side**2)
    return duration, memory
