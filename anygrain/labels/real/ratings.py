"""Ratings of annotators whose bias and variance are learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.error import LabelError
from anygrain.labels.frame import class_list, encode, read_numbers
from anygrain.labels.long_table import as_indices, read_long
from anygrain.labels.real.base import RealInstanceLabels, as_values
from anygrain.labels.real.point import LOG_2PI, PointEvidence
from anygrain.labels.real.rating_channel import RatingChannel


class Ratings(RealInstanceLabels):
    r"""Items come with numbers that annotators gave them, each in a way of their own.

    .. math:: P(\text{ratings of } i \mid y_i) = \prod_{r : i_r = i} N(r; \; y_i + b_{w_r} + (c_{w_r} - 1)(y_i - \mu),
              \; v_{w_r})

    with bias b, variance v and, where `slope`, the use of the scale c of every annotator in a `RatingChannel`. Before
    `aggregate` or a `Learner` has fitted it all annotators are alike.

    Args:
        items: instance of every rating, 0..N-1, shape (R,).
        annotators: who gave it, 0..W-1, shape (R,); -1 is somebody unknown.
        values: the number given, shape (R,); NaN is missing.
        n_items: N; the largest item + 1 when not given.
        channel: a `RatingChannel`, such as one that was fitted before; else one is made.
        n_annotators: W; the largest annotator + 1 when not given.
        slope: whether annotators may stretch or narrow the scale.
        annotator_names, item_names: for messages and reports.

    Raises:
        LabelError: lengths that differ, an item or annotator outside its range, an infinite value, a channel of other
            annotators, `slope` beside a channel.
    """

    annotators: Tensor
    values: Tensor

    def __init__(
        self,
        items: Tensor,
        annotators: Tensor,
        values: Tensor,
        n_items: int | None = None,
        channel: RatingChannel | None = None,
        *,
        n_annotators: int | None = None,
        slope: bool = False,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        name: str | None = None,
        annotator_names: Sequence[str] | None = None,
        item_names: Sequence[str] | None = None,
    ):
        items, n_items = as_indices(items, n_items, "item", lowest=0, record="rating")
        if n_annotators is None and annotator_names is not None:
            n_annotators = len(annotator_names)
        if n_annotators is None and channel is not None:
            n_annotators = channel.n_annotators
        annotators, n_annotators = as_indices(annotators, n_annotators, "annotator", lowest=-1, record="rating")
        values = as_values(values, "ratings")
        if not len(items) == len(annotators) == len(values):
            lengths = f"{len(items)} items, {len(annotators)} annotators, {len(values)} values"
            raise LabelError(f"{lengths}; expected one of each per rating")
        if annotator_names is not None and len(annotator_names) != n_annotators:
            raise LabelError(f"{len(annotator_names)} annotator names for {n_annotators} annotators")
        self.n_annotators = n_annotators
        super().__init__(n_items, rows=rows, n_rows=n_rows, weight=weight, device=items.device)
        self._keep({}, {"annotators": annotators, "values": values}, items)
        self.name = name
        self.annotator_names = None if annotator_names is None else tuple(str(a) for a in annotator_names)
        self.item_names = None if item_names is None else tuple(str(i) for i in item_names)
        if channel is None:
            given = values[~values.isnan()].double()
            scale = float(given.std(correction=0)) if len(given) else 1.0
            centre = float(given.mean()) if len(given) else 0.0
            channel = RatingChannel(n_annotators, scale=scale if scale > 0 else 1.0, centre=centre, slope=slope)
        elif slope and not channel.with_slope:
            raise LabelError("slope=True belongs to the channel: make it with RatingChannel(..., slope=True)")
        if channel.n_annotators != n_annotators:
            raise LabelError(f"the channel is of {channel.n_annotators} annotators, the ratings of {n_annotators}")
        self.channel = channel.to(self.device)

    # -- what it says -------------------------------------------------------------------------------------------------

    @property
    def items(self) -> Tensor:
        assert self.record_instances is not None
        return self.record_instances

    @property
    def channels(self) -> tuple[RatingChannel, ...]:
        return (self.channel,)

    def said(self) -> Tensor:
        return ~self.values.isnan()

    def record_evidence(self, centre: Tensor) -> PointEvidence:
        slope, offset, variance = self.channel.reading(self.annotators)
        gap = self.values.to(offset) - offset - slope * centre.to(slope)
        told = ~gap.isnan()
        gap = torch.where(told, gap, 0.0)
        zero = torch.zeros_like(gap)
        return PointEvidence.gaussian(
            torch.where(told, slope.square() / variance, zero).to(centre),
            (slope * gap / variance).to(centre),
            torch.where(told, -0.5 * (gap.square() / variance + LOG_2PI + variance.log()), zero).to(centre),
        )

    def evidence(self, centre: Tensor) -> PointEvidence:
        record = self.record_evidence(centre[self.items])
        tables = (record.precision, record.linear, record.constant)
        return PointEvidence.gaussian(*(torch.zeros_like(centre).index_add(0, self.items, t) for t in tables))

    def residual(self, mean: Tensor, variance: Tensor) -> Tensor:
        slope, offset, noise = (t.to(mean) for t in self.channel.reading(self.annotators))
        return (self.values.to(mean) - slope * mean - offset) / (slope.square() * variance + noise).sqrt()

    def update(self, mean: Tensor, variance: Tensor) -> None:
        self.channel.fit(self.statistics(mean, variance))

    def statistics(self, mean: Tensor, variance: Tensor) -> dict[str, Tensor]:
        """Those of the channel, given a posterior, mean and variance (N,)."""
        return self.channel.statistics(self.items, self.annotators, self.values, mean, variance, self.weight)

    def rough(self) -> Tensor:
        told = self.said()
        count = torch.bincount(self.items[told], minlength=self.n_instances)
        total = torch.zeros(self.n_instances, dtype=torch.float64, device=self.device)
        total.index_add_(0, self.items[told], self.values[told].double())
        return torch.where(count > 0, total / count, torch.nan)

    # -- how it is made -----------------------------------------------------------------------------------------------

    @classmethod
    def from_frame(cls, frame: Any, columns: Sequence[str], **how: Any) -> Self:
        """Ratings from one column of numbers per annotator; empty, None and NaN are missing.

        Args:
            frame: any data frame, or a mapping of columns; a row is an item.
            columns: names of the columns; they name the annotators.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, or an entry that is no number, with its row.
        """
        columns = [columns] if isinstance(columns, str) else list(columns)
        if not columns:
            raise LabelError("Ratings needs at least one column of numbers")
        table = torch.from_numpy(read_numbers(frame, columns))
        items, annotators = (~table.isnan()).nonzero(as_tuple=True)
        return cls(items, annotators, table[items, annotators], len(table), annotator_names=columns, **how)

    @classmethod
    def from_long(
        cls,
        frame: Any,
        *,
        item: str = "item",
        annotator: str = "annotator",
        value: str = "value",
        items: Sequence[Any] | None = None,
        **how: Any,
    ) -> Self:
        """Ratings from a long table, one row per rating.

        Args:
            frame: any data frame, or a mapping of columns.
            item, annotator, value: names of its columns; an empty value is missing.
            items: ids of all items in the order of the data rows; without it, those that occur, sorted.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, an item that is not among `items`, a repeated id in `items`, a value that is no
                number, a row without item or annotator.
        """
        place, item_names, names = read_long(frame, item, annotator, items, record="rating")
        annotator_names = class_list([names])
        return cls(
            place,
            encode(names, annotator_names, f'"{annotator}"'),
            torch.from_numpy(read_numbers(frame, [value])[:, 0]),
            len(item_names),
            annotator_names=annotator_names,
            item_names=item_names,
            **{"name": value, **how},
        )

    @classmethod
    def simulate(
        cls,
        values: Tensor,
        *,
        generator: torch.Generator,
        n_annotators: int = 10,
        ratings_per_item: int = 3,
        bias: float | Tensor = 0.5,
        noise: tuple[float, float] | Tensor = (0.2, 1.0),
        slopes: Tensor | None = None,
        **how: Any,
    ) -> Ratings:
        """Ratings of random annotators on every item, each annotator at most once per item.

        Args:
            values: the truth, shape (N,).
            generator: where the draws come from.
            n_annotators: W.
            ratings_per_item: how many of them rate each item.
            bias: of the annotators, (W,), or the standard deviation that theirs are drawn with.
            noise: standard deviation of each annotator, (W,), or a range from which each draws theirs.
            slopes: use of the scale of each annotator about the mean of the values, (W,).
            how: further arguments of the constructor.
        """
        values = torch.as_tensor(values).double()
        if ratings_per_item > n_annotators:
            raise LabelError(f"{ratings_per_item} ratings per item from {n_annotators} annotators: ask each once")
        keys = torch.rand(len(values), n_annotators, generator=generator)
        annotators = keys.topk(ratings_per_item, dim=1).indices.reshape(-1)
        items = torch.arange(len(values)).repeat_interleave(ratings_per_item)
        if not isinstance(bias, Tensor):
            bias = bias * torch.randn(n_annotators, generator=generator, dtype=torch.float64)
        if isinstance(noise, tuple):
            low, high = noise
            noise = low + (high - low) * torch.rand(n_annotators, generator=generator, dtype=torch.float64)
        stretched = torch.zeros_like(bias) if slopes is None else slopes - 1
        y = values[items]
        drawn = noise[annotators] * torch.randn(len(items), generator=generator, dtype=torch.float64)
        given = y + bias[annotators] + stretched[annotators] * (y - values.mean()) + drawn
        return cls(items, annotators, given, len(values), n_annotators=n_annotators, **how)
