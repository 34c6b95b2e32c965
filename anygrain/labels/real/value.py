"""Values: the number itself, or a noisy reading of it."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.frame import read_numbers
from anygrain.labels.real.base import RealInstanceLabels, as_noise, as_values
from anygrain.labels.real.point import LOG_2PI, PointEvidence


class Value(RealInstanceLabels):
    r"""Each instance comes with its number, read with Gaussian noise.

    .. math:: P(o_i \mid y_i) = N(o_i; y_i, s_i^2)

    Args:
        values: shape (N,); NaN is missing.
        noise: standard deviation s of the reading, one number or (N,); 0: the number itself.

    Raises:
        LabelError: an infinite value, a noise below 0.
    """

    values: Tensor
    noise: Tensor

    def __init__(
        self,
        values: Tensor,
        noise: float | Tensor = 0.0,
        *,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        name: str | None = None,
    ):
        values = as_values(values, "values")
        tables = {"values": values, "noise": as_noise(noise, len(values), "row").to(values.device)}
        super().__init__(
            self._number_of_instances(tables, None), rows=rows, n_rows=n_rows, weight=weight, device=values.device
        )
        self._keep(tables, None, None)
        self.name = name

    def evidence(self, centre: Tensor) -> PointEvidence:
        gap = self.values.to(centre) - centre
        noise = self.noise.to(centre)
        told = ~gap.isnan() & (noise < torch.inf)
        noisy = told & (noise > 0)
        scale = torch.where(noisy, noise, 1.0)
        d = torch.where(noisy, gap / scale, 0.0)
        zero = torch.zeros_like(centre)
        said = PointEvidence.gaussian(
            torch.where(noisy, 1 / scale.square(), zero),
            d / scale,
            torch.where(noisy, -0.5 * (d.square() + LOG_2PI) - scale.log(), zero),
        )
        known = torch.where(told & ~noisy, gap, torch.nan)
        return PointEvidence(
            said.precision, said.linear, said.constant, said.low, said.high, known, torch.zeros_like(told)
        )

    def said(self) -> Tensor:
        return ~self.values.isnan() & (self.noise < torch.inf)

    def residual(self, mean: Tensor, variance: Tensor) -> Tensor:
        spread = (variance + self.noise.to(mean).square()).sqrt()
        return torch.where(spread > 0, (self.values.to(mean) - mean) / spread, torch.nan)

    def rough(self) -> Tensor:
        return torch.where(self.said(), self.values.double(), torch.nan)

    @classmethod
    def from_frame(cls, frame: Any, columns: str, **how: Any) -> Self:
        """Labels from a column of numbers; empty, None and NaN are missing.

        Raises:
            LabelError: no such column, or an entry that is no number, with its row.
        """
        return cls(torch.from_numpy(read_numbers(frame, [columns])[:, 0]), **{"name": columns, **how})

    @classmethod
    def simulate(cls, values: Tensor, *, generator: torch.Generator, noise: float = 0.0, **how: Any) -> Value:
        """Readings of all instances with noise."""
        drawn = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        return cls(torch.as_tensor(values).double() + noise * drawn, noise, **how)
