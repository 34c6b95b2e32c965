"""Censored numbers: a range in which the number lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.error import LabelError, require
from anygrain.labels.frame import read_numbers
from anygrain.labels.real.base import RealInstanceLabels, as_values
from anygrain.labels.real.point import PointEvidence


class Censored(RealInstanceLabels):
    r"""Each instance comes with the lowest and the highest number that it can be.

    .. math:: P([l_i, h_i] \mid y_i) = [l_i \le y_i \le h_i], \qquad
              P(o_i \mid m, v) = \Phi\Big(\frac{h_i - m_i}{\sqrt{v_i}}\Big) -
                                 \Phi\Big(\frac{l_i - m_i}{\sqrt{v_i}}\Big)

    The posterior is a truncated normal; it is given by its mean and variance. Where both ends are the same the number
    itself is known, as in `Value`. That a number was censored is taken to say nothing else about it.

    Args:
        low, high: shape (N,); -inf, inf or NaN is an open end, two of them say nothing.

    Raises:
        LabelError: a low end above the high one, a low end of inf or a high one of -inf, naming the first rows.

    Source: Tobin, Estimation of relationships for limited dependent variables, 1958.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        low: Tensor,
        high: Tensor,
        *,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        name: str | None = None,
    ):
        low, high = as_values(low, "low ends", infinite=True), as_values(high, "high ends", infinite=True)
        if low.shape != high.shape:
            raise LabelError(f"low and high have {len(low)} and {len(high)} entries; expected one of each a row")
        low = torch.where(low.isnan(), -torch.inf, low)
        high = torch.where(high.isnan(), torch.inf, high)
        require((low < torch.inf) & (high > -torch.inf), "has no finite number between its ends")
        require(low <= high, "has a low end above its high end")
        tables = {"low": low, "high": high}
        super().__init__(len(low), rows=rows, n_rows=n_rows, weight=weight, device=low.device)
        self._keep(tables, None, None)
        self.name = name

    def evidence(self, centre: Tensor) -> PointEvidence:
        empty = PointEvidence.nothing(centre)
        same = self.low == self.high
        low, high = self.low.to(centre) - centre, self.high.to(centre) - centre
        return PointEvidence(
            empty.precision,
            empty.linear,
            empty.constant,
            torch.where(same, -torch.inf, low),
            torch.where(same, torch.inf, high),
            torch.where(same, low, torch.nan),
            empty.against,
        )

    def said(self) -> Tensor:
        return (self.low > -torch.inf) | (self.high < torch.inf)

    def residual(self, mean: Tensor, variance: Tensor) -> Tensor:
        below, above = self.low.to(mean) - mean, mean - self.high.to(mean)
        outside = torch.where(below > 0, below, -above.clamp(min=0))
        return torch.where(variance > 0, outside / variance.sqrt(), torch.nan)

    def rough(self) -> Tensor:
        low, high = self.low.double(), self.high.double()
        middle = (low + high) / 2
        one_end = torch.where(low > -torch.inf, low, high)
        guess = torch.where(middle.isfinite(), middle, one_end)
        return torch.where(self.said(), guess, torch.nan)

    @classmethod
    def from_frame(cls, frame: Any, columns: Sequence[str], **how: Any) -> Self:
        """Labels from two columns of numbers, the low and the high end; an empty cell is an open end.

        Raises:
            LabelError: other than two columns, no such column, or an entry that is no number, with its row.
        """
        if isinstance(columns, str) or len(columns) != 2:
            given = 1 if isinstance(columns, str) else len(columns)
            raise LabelError(f"Censored reads two columns, the low and the high end; {given} were given")
        ends = torch.from_numpy(read_numbers(frame, list(columns)))
        return cls(ends[:, 0], ends[:, 1], **how)

    @classmethod
    def simulate(
        cls, values: Tensor, *, generator: torch.Generator, cuts: Sequence[float] | None = None, **how: Any
    ) -> Censored:
        """The range between neighbouring cuts that holds each number; the first and the last range are open.

        Args:
            cuts: ascending; at the quartiles of the numbers when not given.
        """
        values = torch.as_tensor(values).double()
        given = (
            values.quantile(torch.tensor([0.25, 0.5, 0.75]).double())
            if cuts is None
            else torch.tensor(list(cuts)).double()
        )
        ends = torch.cat([given.new_tensor([-torch.inf]), given, given.new_tensor([torch.inf])])
        at = torch.searchsorted(ends, values, right=True) - 1
        return cls(ends[at], ends[at + 1], **how)
