"""What is believed about a number: a mean and a variance per instance."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from anygrain.labels.error import LabelError


class Belief(NamedTuple):
    """Means and variances of N instances, tensors or arrays of shape (N,)."""

    mean: Any
    variance: Any


def checked(mean: Any, variance: Any, n_instances: int) -> tuple[Tensor, Tensor]:
    """Mean and variance (N,) in float64, without gradient.

    Raises:
        LabelError: other shapes, a variance that is not above 0, a mean that is not finite.
    """
    mean, variance = (
        t.detach() if isinstance(t, Tensor) else torch.from_numpy(np.array(t, dtype=np.float64))
        for t in (mean, variance)
    )
    for what, given in (("mean", mean), ("variance", variance)):
        if given.shape != (n_instances,):
            raise LabelError(f"{what} has shape {tuple(given.shape)}; expected ({n_instances},), one per instance")
    mean, variance = as_double(mean), as_double(variance)
    if not bool(torch.isfinite(mean).all()):
        raise LabelError("mean holds NaN or infinity; expected a number per instance")
    if not bool(((variance > 0) & torch.isfinite(variance)).all()):
        raise LabelError("variance must be above 0 and finite for every instance")
    return mean, variance


def as_double(values: Tensor) -> Tensor:
    """In float64, or in float32 on a device that has no float64."""
    return values.to(torch.float32 if values.device.type == "mps" else torch.float64)
