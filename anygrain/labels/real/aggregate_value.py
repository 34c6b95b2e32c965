"""Means and sums of numbers over bags."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.error import LabelError
from anygrain.labels.frame import read_numbers
from anygrain.labels.random_bags import random_bags
from anygrain.labels.real.base import RealSetLabels, as_noise, as_values

HOW = ("mean", "sum")


class AggregateValue(RealSetLabels):
    r"""Each bag comes with the mean, or the sum, of its numbers, read with Gaussian noise.

    .. math:: P(o_b \mid y) = N\Big(o_b; \sum_{i \in b} a_b y_i, s_b^2\Big), \qquad
              P(o_b \mid m, v) = N\Big(o_b; a_b \sum_i m_i, a_b^2 \sum_i v_i + s_b^2\Big)

    with :math:`a_b = 1` for sums and :math:`1 / n_b` for means. A mean is taken over all members of the bag.

    Args:
        bags: M bags.
        values: shape (M,); NaN is missing.
        how: "mean" or "sum".
        noise: standard deviation s of the mean or sum, one number or (M,).

    Raises:
        LabelError: an infinite value, another number of values than bags, a noise below 0.
    """

    values: Tensor
    noise: Tensor

    def __init__(
        self,
        bags: Bags,
        values: Tensor,
        how: str = "mean",
        noise: float | Tensor = 0.0,
        *,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        name: str | None = None,
    ):
        Bags.require(bags)
        if how not in HOW:
            raise LabelError(f'how is "{how}"; expected "mean" or "sum"')
        values = as_values(values, "values of bags")
        if len(values) != len(bags):
            raise LabelError(f"{len(values)} values for {len(bags)} bags; expected one for each")
        self.sets, self.how = bags, how
        super().__init__(bags.n_instances, rows=rows, n_rows=n_rows, weight=weight, device=bags.members.device)
        self._keep({"values": values.to(self.device), "noise": as_noise(noise, len(bags), "bag").to(self.device)})
        self.name = name

    @property
    def _times(self) -> Tensor:
        """What a reading is multiplied with to be a sum, (M,)."""
        sizes = self.sets.sizes.double()
        return sizes if self.how == "mean" else torch.ones_like(sizes)

    @property
    def total(self) -> Tensor:
        return self.values.double() * self._times

    @property
    def total_noise(self) -> Tensor:
        return (self.noise.double() * self._times).square()

    @property
    def log_unit(self) -> Tensor:
        return self._times.log()

    def rough(self) -> Tensor:
        told = ~self.values.isnan() & (self.noise < torch.inf)
        mean = (self.total / self.sets.sizes)[self.sets.index]
        held = told[self.sets.index]
        count = torch.bincount(self.sets.members[held], minlength=self.n_instances)
        total = torch.zeros(self.n_instances, dtype=torch.float64, device=self.device)
        total.index_add_(0, self.sets.members[held], mean[held])
        return torch.where(count > 0, total / count, torch.nan)

    @classmethod
    def from_frame(cls, frame: Any, columns: str, *, bags: Bags, **how: Any) -> Self:
        """Labels from a table of bags with a column of means or sums; an empty cell is missing.

        Raises:
            LabelError: no such column, an entry that is no number, or another number of rows than bags.
        """
        return cls(bags, torch.from_numpy(read_numbers(frame, [columns])[:, 0]), **{"name": columns, **how})

    @classmethod
    def simulate(
        cls,
        values: Tensor,
        *,
        generator: torch.Generator,
        bags: Bags | None = None,
        bag_size: int = 5,
        how: str = "mean",
        noise: float = 0.0,
        **also: Any,
    ) -> AggregateValue:
        """The true aggregates of the given bags, or of random ones, with noise."""
        values = torch.as_tensor(values).double()
        bags = random_bags(len(values), bag_size, generator) if bags is None else bags
        total = torch.zeros(len(bags), dtype=torch.float64).index_add(0, bags.index, values[bags.members])
        shown = total / bags.sizes if how == "mean" else total
        shown = shown + noise * torch.randn(len(bags), generator=generator, dtype=torch.float64)
        return cls(bags, shown, how, noise, **also)
