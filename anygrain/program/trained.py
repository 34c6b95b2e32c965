"""Texts and columns that are trained with the head: which encoder a configuration asks for, and what it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from anygrain.data.config import Config
from anygrain.data.dataset import Columns
from anygrain.data.error import InputError, number

if TYPE_CHECKING:
    from anygrain.encoders.trainable import TrainableEncoder


def trained_encoder(config: Config, columns: Columns) -> TrainableEncoder | None:
    """The encoder of texts and columns that is trained with the head; None where it is fixed, or there are images.

    Raises:
        InputError: settings that do not go together, or columns that the encoder does not read.
    """
    from anygrain.encoders import Columns as Network
    from anygrain.encoders import HuggingFace, Transformer

    asked = config.encoder
    if columns.images or columns.instances:
        return None
    others = len(columns.all) - len(columns.text)
    if asked.tune != "none" and not asked.pretrained:
        raise InputError(f'encoder.tune is "{asked.tune}", of nothing. Expected encoder.pretrained, the folder to tune')
    if asked.pretrained and asked.text == "transformer":
        raise InputError('encoder.text is "transformer" and encoder.pretrained is given. Expected one of them')
    if not columns.text and (asked.text == "transformer" or asked.tune != "none"):
        raise InputError("encoder.text and encoder.tune are about text columns. Expected data.text, the name of one")
    joined = asked.table == "columns" and others > 0
    if not joined and asked.text == "hashed" and asked.tune == "none":
        return None
    if others and not joined:
        raise InputError(
            'texts beside other columns are trained with the head in one network. Expected encoder.table = "columns"'
        )
    if asked.pretrained and asked.tune == "none":
        raise InputError(
            'encoder.pretrained is fixed, and encoder.table = "columns" trains with the head. Expected encoder.tune = '
            '"lora" or "full"'
        )
    if others and others == len(columns.features):
        raise InputError(
            'encoder.table = "columns" reads numbers, categories and dates. Expected data.columns, not data.features'
        )
    text = HuggingFace(asked.pretrained, tune=asked.tune) if asked.pretrained else Transformer()
    if not others:
        return text
    return Network(parts={tuple(columns.text): text} if columns.text else {})


def trained_words(config: Config, columns: Columns) -> str:
    """What such an encoder is, in words."""
    parts = []
    if columns.text:
        by = (
            f"{config.encoder.pretrained}, tuned ({config.encoder.tune})"
            if config.encoder.pretrained
            else "transformer"
        )
        parts.append(f"text ({by})")
    if len(columns.all) > len(columns.text):
        parts.append(f"{len(columns.all) - len(columns.text)} columns")
    return f"{' and '.join(parts)} through a network trained with the head"


def is_trained(config: Config, columns: Columns) -> bool:
    """Whether the encoder is trained with the head."""
    return bool(columns.images) or trained_encoder(config, columns) is not None or _is_bag_network(config, columns)


def _is_bag_network(config: Config, columns: Columns) -> bool:
    return bool(columns.instances) and config.encoder.bags != "auto"


def learnt_without_labels(learner: Any, features: np.ndarray) -> np.ndarray | None:
    """Features (N, D) of a fitted learner, or None where its encoder was trained with the labels."""
    from anygrain.encoders.trainable import TrainableEncoder

    return None if isinstance(learner.encoder_, TrainableEncoder) else features


def seen_note(learner: Any, held_out: np.ndarray | None = None) -> list[str]:
    """A sentence on rows that are scored by a model which was trained on their labels; none where there are none.

    Or one on numbers that are not those of the method: on fixed features a loss, terms or a weighting shape the last
    fit of the head, and where labels are few or terms speak of several rows, what is held out is of the recipe before.

    Args:
        learner: fitted.
        held_out: bool (N,), rows that are not; those of the learner where not given.
    """
    from anygrain.encoders.trainable import TrainableEncoder

    apart = learner.held_out_ if held_out is None else held_out
    held, n = int(apart.sum()), len(apart)
    fixed = not isinstance(learner.encoder_, TrainableEncoder)
    if fixed and learner._shaped and not learner.own_held_out_:
        how = "" if learner.cross_fit else ": learn.cross_fit = true measures the method"
        return [f"what is held out was predicted without learn.method, which shapes the last fit alone{how}"]
    if held == n or (fixed and learner.procedure is None):
        return []
    why = "learn.cross_fit = true keeps every row apart once"
    if learner.cross_fit:
        why = "their sets join most rows" if not fixed else "too few labels, or sets that join most rows"
    return [f"{number(n - held)} of {number(n)} rows are scored by a model that was trained on their labels: {why}"]
