"""Settings of methods, checked."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from anygrain.labels import LabelError


def share(value: float, name: str, *, most: float = 1.0, least: float = 0.0, open_top: bool = True) -> None:
    """Raises LabelError for a number outside [least, most), or [least, most] where the top is not open."""
    inside = least <= value < most if open_top else least <= value <= most
    if not inside:
        end = ")" if open_top else "]"
        raise LabelError(f"{name} is {value}; expected a number in [{least:g}, {most:g}{end}")


def above(value: float, name: str, least: float = 0.0, *, open_bottom: bool = True) -> None:
    """Raises LabelError for a number that is not finite, or not above `least`, which itself may be allowed."""
    if not math.isfinite(value) or value < least or (open_bottom and value == least):
        raise LabelError(f"{name} is {value}; expected a number {'above' if open_bottom else 'of at least'} {least:g}")


def distribution(value: Tensor, name: str) -> Tensor:
    """Probabilities (K,) or rows (K, K) that sum to 1, as they are.

    Raises:
        LabelError: a negative number, a sum that is not 1.
    """
    given = torch.as_tensor(value)
    given = given if given.is_floating_point() else given.float()
    if not bool((given >= 0).all()) or not torch.allclose(given.sum(dim=-1), given.new_ones(()), atol=1e-4):
        rows = "" if given.ndim == 1 else " in every row"
        raise LabelError(f"{name} must hold probabilities that sum to 1{rows}")
    return given
