"""The sum, or mean, of a known value per class over a set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal, Self

import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.class_sums import Reading, SumPlan, find_grid, least_gap
from anygrain.labels.counting import mix_error
from anygrain.labels.error import LabelError, numbers, require
from anygrain.labels.frame import read_numbers
from anygrain.labels.instance import check_error, check_mapping
from anygrain.labels.random_bags import random_bags
from anygrain.labels.segments import Segments
from anygrain.labels.sets import SetLabels

FINE = 512  # steps that values off a grid are moved to


class Aggregate(SetLabels):
    r"""Each bag comes with the sum, or mean, of a known value per class over its instances.

    .. math:: P(x \mid y) = (1 - \epsilon)\, \mathcal N(x; s, \sigma^2) + \epsilon / |O|, \qquad
              s = \sum_{i \in m} v_{y_i} \;\text{ or its mean}

    and :math:`[x = s]` without noise. With probability :math:`\epsilon` the value was drawn evenly from all that could
    be: |O| is their number on the grid, or with noise the width of their range.

    Exact where the values of the classes lie on a grid (prices, stars, ages in years: the step is found) and the
    number of sums times the members is at most 10^6. Else `exact` is False: values off a grid are moved to one of 512
    steps and, without noise, read to within a tenth of the smallest difference between two classes; beyond 10^6 the
    sum is taken for normal around what was read (saddle-point, `SumPlan.find`).

    Args:
        bags: M bags.
        value: shape (M,), NaN where nothing is said.
        per_class: value of every class, shape (K,).
        how: "sum" or "mean".
        noise: standard deviation of the reading, one number or (M,), in units of `value`; 0 is an exact reading.
        error: probability, in [0, 1), that the value was drawn without regard to the truth.

    Raises:
        LabelError: without noise, a value that no sum of class values comes to (a mean may be rounded, to a quarter of
            a step); tables that do not fit the bags; a value per class that is no number.
    """

    value: Tensor
    noise: Tensor

    def __init__(
        self,
        bags: Bags,
        value: Tensor,
        per_class: Tensor,
        how: Literal["sum", "mean"] = "sum",
        noise: float | Tensor = 0.0,
        *,
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        Bags.require(bags)
        device = bags.members.device
        given = numbers(value, "values of bags").to(device, torch.float64)
        per_class = numbers(per_class, "values of classes").to(device, torch.float64)
        if given.shape != (len(bags),):
            raise LabelError(f"value has shape {tuple(given.shape)}; expected ({len(bags)},), one value per bag")
        if per_class.ndim != 1 or len(per_class) == 0:
            raise LabelError(f"per_class has shape {tuple(per_class.shape)}; expected (K,), one value per class")
        require(torch.isfinite(per_class), "has a value that is no number", noun="class")
        require(torch.isfinite(given) | given.isnan(), "has an infinite value", noun="bag")
        if how not in ("sum", "mean"):
            raise LabelError(f'how is "{how}"; expected "sum" or "mean"')
        size = torch.as_tensor(noise, device=device).to(torch.float64)
        if size.ndim > 1 or (size.ndim == 1 and len(size) != len(bags)):
            raise LabelError(f"noise has shape {tuple(size.shape)}; expected one number, or ({len(bags)},)")
        if bool((size < 0).any()) or not bool(torch.isfinite(size).all()):
            raise LabelError("noise is a standard deviation; expected a number of 0 or more")
        super().__init__(
            len(per_class),
            bags,
            per_set={"value": given, "noise": size.expand(len(bags)).clone()},
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )
        self.per_class, self.how = per_class, how
        self.error = check_error(error)
        self._check_values()

    def _check_values(self) -> None:
        reading, silent = self._reading, self.value.isnan()
        sizes = self.sets.sizes
        known = self.per_class[~self.per_class.isnan()]
        ends = [
            sizes * v if self.how == "sum" else torch.full_like(self.value, float(v))
            for v in (known.min(), known.max())
        ]
        slack = 1e-6 * (1 + self.value.abs())
        exact = (self.noise == 0) & ~silent
        outside = exact & ((self.value < ends[0] - slack) | (self.value > ends[1] + slack))
        self._refuse(outside, "is outside what its members can come to")
        if self._grid is not None:
            miss = (reading.sum - self._raw).abs()
            allowed = torch.where(torch.tensor(self.how == "mean"), 0.25, 1e-6 * (1 + self._raw.abs()))
            self._refuse(exact & (miss > allowed), "is between what its members can come to")

    def _refuse(self, bad: Tensor, fault: str) -> None:
        found = bad.nonzero()[:, 0]
        if len(found):
            m = int(found[0])
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise LabelError(
                f"bag {m}{more} has the {self.how} {float(self.value[m]):.6g}, which {fault}: "
                f"{int(self.sets.sizes[m])} classes of values {_shown(self.per_class)}; give more digits, or noise= "
                "for a value that was measured"
            )

    @cached_property
    def _low(self) -> float:
        return float(self.per_class[~self.per_class.isnan()].min())

    @cached_property
    def _grid(self) -> tuple[float, Tensor] | None:
        return find_grid(self.per_class[~self.per_class.isnan()])

    @cached_property
    def _in_steps(self) -> Tensor:
        """Value of every class above the lowest, in steps, shape (K,): whole numbers on a grid."""
        above = (self.per_class - self._low) / self._step
        return above if self._grid is None else above.round()

    @cached_property
    def _step(self) -> float:
        """Of the grid, or where there is none of a fine one."""
        if self._grid is not None:
            return self._grid[0]
        return float(self.per_class[~self.per_class.isnan()].max() - self._low) / FINE

    @cached_property
    def _scale(self) -> Tensor:
        """How many steps of the sum one unit of `value` is in every bag, shape (M,)."""
        return (self.sets.sizes if self.how == "mean" else torch.ones_like(self.value)) / self._step

    @cached_property
    def _raw(self) -> Tensor:
        """Sums above the lowest, in steps, shape (M,); 0 where nothing is said."""
        lowest = self._low if self.how == "mean" else self._low * self.sets.sizes
        return ((self.value - lowest) * self._scale).nan_to_num(0.0)

    @cached_property
    def _reading(self) -> Reading:
        noise = self.noise * self._scale
        if self._grid is not None:
            return Reading(torch.where(noise > 0, self._raw, self._raw.round()), noise, torch.full_like(noise, 0.49))
        known = self._in_steps[~self._in_steps.isnan()]
        rounding = 3 * (self.sets.sizes / 12.0).sqrt()  # three standard deviations of values moved to steps
        return Reading(self._raw, noise, torch.maximum(0.1 * least_gap(known), rounding))

    @cached_property
    def _plan(self) -> SumPlan:
        return SumPlan(Segments(self.sets.offsets), self._in_steps.round())

    @property
    def factor_exact(self) -> bool:
        return self._grid is not None and self._plan.exact

    @cached_property
    def _log_scale(self) -> Tensor:
        """log of what turns a density per step into one of `value`, shape (M,); 0 for exact sums."""
        return torch.where(self._reading.noise > 0, self._scale.log(), 0.0)

    @property
    def _outcomes(self) -> Tensor:
        """Number of possible sums, or the width of their range in units of `value`, shape (M,)."""
        reach = self.sets.sizes.double() * float(self._in_steps[~self._in_steps.isnan()].max())
        width = torch.where(reach > 0, reach / self._scale, 1.0)
        apart = 1.0 if self._grid is not None else 2 * self._reading.within
        return torch.where(self._reading.noise > 0, width, reach / apart + 1)

    def factor(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        silent, index = self.value.isnan(), self.sets.index
        value, message = self._plan.find(log_p.detach(), self._reading)
        value, message = (
            value + self._log_scale.to(value.dtype),
            message + self._log_scale.to(value.dtype)[index][:, None],
        )
        if self.error:
            return mix_error(value, message, self.error, self._outcomes, index, silent)
        return value.masked_fill(silent, 0.0), message.masked_fill(silent[index][:, None], 0.0)

    def log_prob_given(self, classes: Tensor) -> Tensor:
        steps = self._in_steps[classes]
        dead = torch.zeros(len(classes), len(self.sets), dtype=torch.float64, device=self.device)
        total = torch.zeros_like(dead).index_add_(1, self.sets.index, steps.nan_to_num(0.0))
        dead.index_add_(1, self.sets.index, steps.isnan().double())
        reading = self._reading
        noise = torch.where(reading.noise > 0, reading.noise, 1.0)
        density = (
            -0.5 * ((reading.sum - total) / noise) ** 2 - noise.log() - 0.5 * math.log(2 * math.pi) + self._log_scale
        )
        exactly = torch.where((reading.sum - total).abs() <= reading.within, 0.0, -torch.inf).double()
        right = torch.where(reading.noise > 0, density, exactly).masked_fill(dead > 0, -torch.inf)
        if self.error:
            right = torch.logaddexp(right + math.log1p(-self.error), math.log(self.error) - self._outcomes.log())
        return right.masked_fill(self.value.isnan(), 0.0)

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        """Classes of one value may be merged; a new class has no value: it does not occur."""
        mapping = check_mapping(mapping, self.n_classes, n_classes, "Aggregate", injective=False).to(self.device)
        new = self._fresh()
        new.per_class = self.per_class.new_full((n_classes,), torch.nan)
        new.per_class[mapping] = self.per_class
        differs = (new.per_class[mapping] != self.per_class) & ~self.per_class.isnan()
        if bool(differs.any()):
            k = int(differs.nonzero()[0])
            raise LabelError(f"class {k} would be merged into class {int(mapping[k])} with one of another value")
        new.n_classes, new.class_names = n_classes, None
        return new

    @classmethod
    def from_frame(
        cls, frame: Any, columns: str, *, bags: Bags, per_class: Tensor, classes: Sequence[str], **how: Any
    ) -> Self:
        """Labels from a column of numbers of a table of bags; empty says nothing.

        Args:
            frame: any data frame, or a mapping of columns, with one row per bag.
            columns: name of the column.
            bags: the bags, in the order of the rows.
            per_class: value of every class, in the order of `classes`.
            classes: names of all classes.
            how: further arguments of the constructor, except the rule, which is `how["how"]`.

        Raises:
            LabelError: no such column, or an entry that is no number.
        """
        value = torch.from_numpy(read_numbers(frame, [columns])[:, 0])
        return cls(bags, value, per_class, class_names=classes, **how)

    @classmethod
    def simulate(
        cls,
        classes: Tensor,
        n_classes: int,
        *,
        generator: torch.Generator,
        per_class: Tensor | None = None,
        how: Literal["sum", "mean"] = "sum",
        noise: float = 0.0,
        bags: Bags | None = None,
        bag_size: int = 5,
        error: float = 0.0,
        **more: Any,
    ) -> Aggregate:
        """Sums or means of the given bags, or of random ones; the value of a class is its number by default."""
        bags = random_bags(len(classes), bag_size, generator) if bags is None else bags
        values = torch.as_tensor(torch.arange(n_classes) if per_class is None else per_class).double()
        total = torch.zeros(len(bags), dtype=torch.float64).index_add_(0, bags.index, values[classes[bags.members]])
        labels = cls(bags, torch.full((len(bags),), torch.nan), values, how, noise, error=error, **more)
        low, reach = float(values.min()), float(values.max() - values.min())
        share = torch.rand(len(bags), dtype=torch.float64, generator=generator)
        grid = labels._grid
        drawn = share * reach * bags.sizes
        if grid is not None and not noise:
            drawn = torch.floor(share * (bags.sizes * (reach / grid[0]).__round__() + 1)) * grid[0]
        wrong = torch.rand(len(bags), generator=generator) < error
        total = torch.where(wrong, drawn + low * bags.sizes, total)
        value = total / bags.sizes if how == "mean" else total
        if noise:
            blur = torch.randn(len(bags), dtype=torch.float64, generator=generator) * noise
            value = torch.where(wrong, value, value + blur)
        return cls(bags, value, values, how, noise, error=error, **more)


def _shown(values: Tensor) -> str:
    listed = [f"{v:.4g}" for v in values.tolist()[:5]]
    return ", ".join(listed) + (", ..." if len(values) > 5 else "")
