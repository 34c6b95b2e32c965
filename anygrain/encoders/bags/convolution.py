"""Convolution along the instances of every bag, which sees no other bag."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from anygrain.encoders.bags.segments import bag_of


def convolved(values: Tensor, weight: Tensor, sizes: Tensor, ahead: int = 0) -> Tensor:
    r""":math:`\sum_{j=0}^{k-1} w_{cj}\, v_{i + j - (k - 1 - a), c}` (E, C), of instances i in the bag alone.

    Args:
        values: (E, C).
        weight: (C, k), one kernel for each column.
        sizes: (B,).
        ahead: a, how many instances after its own a kernel sees; the others are before.
    """
    before = weight.shape[1] - 1 - ahead
    gap = max(before, ahead)  # zeros in front of every bag, and behind the last
    bag = bag_of(sizes)
    at = torch.arange(len(values), device=values.device) + gap * (bag + 1)
    line = values.new_zeros(len(values) + gap * (len(sizes) + 1), values.shape[1]).index_copy(0, at, values)
    seen = functional.conv1d(line.T[None], weight[:, None], groups=len(weight))[0]
    return seen.T[at - before]
