"""Dropout that draws cheaply on a CPU."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

STEPS = 1 << 16  # of the share that is dropped: two bytes are drawn for a number


class Dropout(nn.Module):
    r"""In training, :math:`x \odot m / (1 - p)` with m = 0 at a rate p, drawn for every number.

    As torch's, which it is on a GPU. On a CPU torch draws a number at a time; here eight bytes are drawn together and
    read as four draws, with p to the nearest of 65,536 steps: a third of the time.

    Args:
        rate: p, in 0..1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def extra_repr(self) -> str:
        return f"{self.rate:g}"

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return values
        if values.device.type != "cpu":
            return nn.functional.dropout(values, self.rate)
        dropped = round(self.rate * STEPS)
        if dropped >= STEPS:
            return values * 0
        draws = torch.empty(math.ceil(values.numel() / 4), dtype=torch.int64).random_(-(2**63), None)
        halves = draws.view(torch.int16)[: values.numel()].view(values.shape)
        kept = halves >= dropped - STEPS // 2
        return values * (kept * (STEPS / (STEPS - dropped))).to(values.dtype)
