"""Numbers in columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.encoders.encoder import Encoder

AT_ONCE = 65536  # rows that are held in double precision


class Table(Encoder):
    r"""Columns of numbers, centred and scaled: :math:`z_{id} = (x_{id} - m_d) / s_d`.

    s is the standard deviation of the column; where the columns are alike already (the largest standard deviation is
    below `alike` times the median one: an embedding, pixels, word shares) one common scale keeps their proportions.
    A constant column becomes 0.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, alike: float = 8.0) -> None:
        super().__init__()
        self.alike = alike
        self.register_buffer("mean", torch.zeros(0, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(0, dtype=torch.float64))

    @property
    def feature_dim(self) -> int:  # type: ignore[override]
        return len(self.mean)

    def config(self) -> dict[str, Any]:
        return {"alike": self.alike}

    def learn(self, data: Any, seed: int = 0) -> Table:
        parts = _in_parts(data)
        n = sum(len(part) for part in parts)
        mean = sum(_doubles(part).sum(axis=0) for part in parts) / n
        square, largest = np.zeros_like(mean), np.zeros_like(mean)
        for part in parts:
            values = _doubles(part)
            square += np.square(values - mean).sum(axis=0)
            largest = np.maximum(largest, np.abs(values).max(axis=0))
        self.mean = torch.from_numpy(mean)
        deviation = torch.from_numpy(np.sqrt(square / n))
        # a standard deviation at the level of rounding errors is that of a constant column
        constant = deviation <= 1e-10 * torch.from_numpy(largest)
        varying = deviation[~constant]
        if len(varying) and float(varying.max()) < self.alike * float(varying.median()):
            deviation = torch.full_like(deviation, float(varying.square().mean().sqrt()))
        self.scale = torch.where(constant, torch.inf, deviation)
        return self

    def forward(self, data: Any) -> Tensor:
        mean, scale, parts = self.mean.cpu(), self.scale.cpu(), _in_parts(data)
        found = torch.empty(sum(len(part) for part in parts), len(mean))
        for part, own in zip(parts, found.split(AT_ONCE), strict=True):
            own.copy_((torch.from_numpy(_doubles(part)) - mean) / scale)
        return found


def _in_parts(data: Any) -> list[np.ndarray]:
    """Rows (N, D), some at a time, so that no second table of all of them is made to work with."""
    values = np.asarray(data)
    return [values[begin : begin + AT_ONCE] for begin in range(0, max(len(values), 1), AT_ONCE)]


def _doubles(part: np.ndarray) -> np.ndarray:
    return np.require(part, dtype=np.float64, requirements="W")
