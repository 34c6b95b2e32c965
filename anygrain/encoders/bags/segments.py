r"""Sums, means, maxima, softmax over the instances of every bag, without padding.

Values are (E, ...), instances bag after bag; `sizes` (B,) says how many instances each bag has, all of them at least 1
and E in all. Everything has gradients, on the device of the values and in their type; sums of narrower types are taken
and given in float32, since those of many instances would stand still in them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def bag_of(sizes: Tensor) -> Tensor:
    """Bag of every instance, (E,)."""
    return torch.repeat_interleave(sizes)


def first_of(sizes: Tensor) -> Tensor:
    """Number of the first instance of every bag, (B,)."""
    return sizes.cumsum(0) - sizes


def place_of(sizes: Tensor) -> Tensor:
    """Place of every instance in its bag, from 0, (E,)."""
    bag = bag_of(sizes)
    return torch.arange(len(bag), device=bag.device) - first_of(sizes)[bag]


def total(values: Tensor, sizes: Tensor) -> Tensor:
    """Sums (B, ...) of values (E, ...)."""
    values = widened(values)
    return values.new_zeros(len(sizes), *values.shape[1:]).index_add(0, bag_of(sizes), values)


def mean(values: Tensor, sizes: Tensor) -> Tensor:
    """Means (B, ...) of values (E, ...)."""
    return total(values, sizes) / wide(sizes, values)


def maximum(values: Tensor, sizes: Tensor) -> Tensor:
    """Maxima (B, ...) of values (E, ...); instances that tie share the gradient."""
    return torch.segment_reduce(values, "max", lengths=sizes, unsafe=True)


def minimum(values: Tensor, sizes: Tensor) -> Tensor:
    """Minima (B, ...) of values (E, ...); instances that tie share the gradient."""
    return -maximum(-values, sizes)


def deviation(values: Tensor, sizes: Tensor) -> Tensor:
    r""":math:`\sqrt{\frac1n \sum_i (v_i - \bar v)^2}` (B, ...) of values (E, ...), 0 where all are equal.

    There its gradient is 0, so that bags of one instance do no harm.
    """
    bag = bag_of(sizes)
    variance = mean((values - mean(values, sizes)[bag]).square(), sizes)
    some = variance > 0
    return torch.where(some, torch.where(some, variance, 1).sqrt(), 0)


def logsumexp(values: Tensor, sizes: Tensor) -> Tensor:
    r""":math:`\log \sum_i e^{v_i}` (B, ...) of values (E, ...)."""
    with torch.no_grad():
        largest = maximum(values, sizes)
        largest = torch.where(largest.isfinite(), largest, 0)
    bag = bag_of(sizes)
    return total(widened(values - largest[bag]).exp(), sizes).log() + largest


def softmax(values: Tensor, sizes: Tensor) -> Tensor:
    r""":math:`e^{v_i} / \sum_j e^{v_j}` (E, ...), j over the instances of the bag of i."""
    bag = bag_of(sizes)
    with torch.no_grad():
        largest = maximum(values, sizes)
    raised = widened(values - largest[bag]).exp()
    return raised / raised.new_zeros(largest.shape).index_add(0, bag, raised)[bag]


def widened(values: Tensor) -> Tensor:
    """Values in float32 at least."""
    return values.float() if values.element_size() < 4 else values


def wide(sizes: Tensor, like: Tensor) -> Tensor:
    """Sizes (B,) as numbers of the type of `like` (E, ...), with as many axes."""
    return sizes.to(like).view(-1, *[1] * (like.ndim - 1))
