"""A linear layer of standardised numbers that are never written down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

AT_ONCE = 1 << 24  # numbers that are standardised together on a GPU
CACHED = 1 << 18  # and on a CPU, where they stay near it


def standardised_linear(features: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    r""":math:`W ((x - \mu) \odot s) + b` (E, h), a stretch of instances at a time.

    Beyond one stretch, standardised numbers are found anew where they are wanted, here and in the gradient: beside the
    features and what comes out no memory grows with E.

    Args:
        features: (E, d).
        mean, scale: (d,); they have no gradient.
        weight: (h, d).
        bias: (h,).
    """
    if features.numel() <= CACHED:
        return functional.linear((features - mean) * scale, weight, bias)
    out: Tensor = StandardisedLinear.apply(features, mean, scale, weight, bias)  # type: ignore[no-untyped-call]
    return out


class StandardisedLinear(torch.autograd.Function):
    """See `standardised_linear`."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(features, mean, scale, weight)
        out: Tensor | None = None
        for part, ready in standardised(features, mean, scale):
            found = functional.linear(ready, weight, bias)
            if out is None:
                out = found.new_empty(len(features), found.shape[1])
            out[part] = found
        return features.new_zeros(0, len(weight)) if out is None else out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = gradients
        features, mean, scale, weight = ctx.saved_tensors
        grad_features = None
        if ctx.needs_input_grad[0]:
            grad_features = (grad.to(weight.dtype) @ weight).to(features.dtype) * scale
        grad_weight = features.new_zeros(weight.shape)
        for part, ready in standardised(features, mean, scale):
            grad_weight.addmm_(grad[part].to(ready.dtype).T, ready)
        return grad_features, None, None, grad_weight.to(weight.dtype), grad.sum(dim=0)


def standardised(features: Tensor, mean: Tensor, scale: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Stretches of the instances of features (E, d), and their standardised numbers."""
    step = max(1, (AT_ONCE if features.is_cuda else CACHED) // features.shape[1])
    for at in range(0, len(features), step):
        part = slice(at, at + step)
        yield part, (features[part] - mean).mul_(scale)
