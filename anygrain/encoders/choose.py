"""Which encoder fits the data at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from anygrain.data.bag_data import BagData
from anygrain.encoders.bags import BagEncoder, InstanceEncoder
from anygrain.encoders.columns import Columns
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.frame import Frame
from anygrain.encoders.hugging_face import HuggingFace
from anygrain.encoders.image import Convolutional, Residual
from anygrain.encoders.images import is_image
from anygrain.encoders.pretrained import Pretrained
from anygrain.encoders.sparse import Sparse
from anygrain.encoders.summary import Summary
from anygrain.encoders.table import Table
from anygrain.encoders.text import Text
from anygrain.encoders.timm_model import Timm
from anygrain.encoders.transformer import Transformer
from anygrain.encoders.words import is_missing
from anygrain.labels import LabelError

ENCODERS: dict[str, type[Encoder]] = {
    "table": Table,
    "text": Text,
    "sparse": Sparse,
    "frame": Frame,
    "pretrained": Pretrained,
    "convolutional": Convolutional,
    "residual": Residual,
    "timm": Timm,
    "transformer": Transformer,
    "columns": Columns,
    "hugging_face": HuggingFace,
    "bags": BagEncoder,
    "instance_of_bags": InstanceEncoder,
    "summary": Summary,
}


def is_text(data: Any) -> bool:
    """Whether data is a list, series or array of strings; some may be missing."""
    if hasattr(data, "columns") or hasattr(data, "tocsr"):
        return False
    if isinstance(data, list | tuple):
        return any(isinstance(v, str) for v in data) and all(isinstance(v, str) or is_missing(v) for v in data)
    values = np.asarray(data) if hasattr(data, "__array__") else None
    if values is None or values.ndim != 1 or len(values) == 0:
        return False
    if values.dtype == object:
        return any(isinstance(v, str) for v in values) and all(isinstance(v, str) or is_missing(v) for v in values)
    return values.dtype.kind in "UT"


def is_mixed(data: Any) -> bool:
    """Whether data is a data frame with columns that are not numbers."""
    if not hasattr(data, "columns"):
        return False
    import narwhals as nw

    frame = nw.from_native(data, eager_only=True)
    return not all(dtype.is_numeric() or dtype == nw.Boolean for dtype in frame.schema.values())


def encoder_for(data: Any) -> Encoder:
    """An encoder, not yet learnt, for bags, images, texts, a frame of mixed columns, a sparse matrix or an array."""
    if isinstance(data, BagData):
        return Summary()
    if is_image(data):
        return Convolutional()
    if is_text(data):
        return Text()
    if is_mixed(data):
        return Frame()
    return Sparse() if hasattr(data, "tocsr") else Table()


def name_of(encoder: Encoder) -> str:
    """What an encoder is saved under.

    Raises:
        LabelError: a class that could not be found again on loading.
    """
    for name, kind in ENCODERS.items():
        if type(encoder) is kind:
            return name
    raise LabelError(f"{type(encoder).__name__} is not in ENCODERS: add it there to save")


def encoder_from(name: str, config: Mapping[str, Any], tensors: dict[str, Tensor]) -> Encoder:
    """The encoder that was saved under a name, with its settings and tensors."""
    if name not in ENCODERS:
        raise LabelError(f'the model needs the encoder "{name}", which is not one of {", ".join(ENCODERS)}')
    encoder = ENCODERS[name](**config)
    encoder.shapes_from(tensors)
    encoder.load_state_dict(tensors)
    return encoder
