"""A linear layer of standardised numbers that are never written down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

CACHED = 1 << 18  # numbers that are standardised at once, near the processor
CACHED_GPU = 1 << 24


def standardised_linear(features: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r""":math:`W ((x - \mu) \odot s) + b` (E, h) of features (E, d), a stretch of instances at a time.

    Beside what comes out no memory grows with E, neither here nor in the gradient: standardised numbers are found anew
    where they are wanted. That halves what large bags take.

    Args:
        features: (E, d).
        mean, scale: (d,).
        weight: (h, d).
        bias: (h,).
    """
    out: Tensor = StandardisedLinear.apply(features, mean, scale, weight, bias)  # type: ignore[no-untyped-call]
    return out


class StandardisedLinear(torch.autograd.Function):
    """See `standardised_linear`; gradients of features, weight and bias."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda")
    def forward(ctx: Any, features: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(features, mean, scale, weight)
        parts = [torch.nn.functional.linear(part, weight, bias) for _, part in standardised(features, mean, scale)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)
