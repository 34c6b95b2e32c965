"""Layers of large bags are computed again for their gradient, so that what is inside them is not kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LARGE = 1 << 22  # numbers of instances, (E, D), from which on memory counts more than a third of the time


def sparing(layer: Callable[..., Tensor], features: Tensor, *more: Any) -> Tensor:
    """`layer(features, *more)` of features (E, D), with the same gradient.

    From `LARGE` numbers on only these features are kept until the gradient is asked for, and the layer is computed
    anew then, with the same draws: a network of many layers needs the memory of one.
    """
    if features.numel() < LARGE or not torch.is_grad_enabled():
        return layer(features, *more)
    out: Tensor = checkpoint(layer, features, *more, use_reentrant=False)
    return out
