"""Votes of annotators whose reliability is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from anygrain.labels.channels import CHANNELS, channel_name
from anygrain.labels.channels.channel import Channel, Records
from anygrain.labels.error import LabelError
from anygrain.labels.frame import as_strings, class_list, encode, read_column
from anygrain.labels.instance import InstanceLabels, as_classes, check_mapping
from anygrain.labels.long_table import as_indices, read_long

if TYPE_CHECKING:
    from anygrain.labels.taxonomy import Taxonomy


class Crowd(InstanceLabels):
    r"""Items come with votes of annotators, each of them right in a way of their own.

    .. math:: P(\text{votes of } i \mid y_i = k) = \prod_{r : i_r = i} P(v_r \mid y_i = k, w_r)

    with the annotators' probabilities in a `Channel`; channel "difficulty" lets the votes of one item depend on each
    other. Which item an annotator answers is taken to say nothing about its class; where annotators choose what they
    answer, give the votes as `Rules(votes, n_classes, given_x=False)`, to which silence is evidence too.

    Before `aggregate` or a `Learner` has fitted the channel, every annotator is the prior one.

    Args:
        items: instance of every vote, 0..N-1, shape (R,).
        annotators: who gave it, 0..W-1, shape (R,); -1 is somebody unknown.
        votes: the class given, shape (R,); -1 is missing.
        n_classes: K.
        n_items: N; the largest item + 1 when not given.
        channel: "confusion", "one_coin", "class_coin", "spammer", "groups", "difficulty", "ordinal" (for ordered
            classes), a class of channels (or its name), or a Channel.
        n_annotators: W; the largest annotator + 1 when not given.
        history: counts (W, K, K) of earlier votes whose truth is known: annotator, truth, vote.
        annotator_names, item_names: for messages and reports.

    Raises:
        LabelError: lengths that differ, an item, annotator or vote outside its range, an unknown channel.
    """

    annotators: Tensor
    votes: Tensor

    def __init__(
        self,
        items: Tensor,
        annotators: Tensor,
        votes: Tensor,
        n_classes: int,
        n_items: int | None = None,
        channel: str | Channel | type[Channel] = "confusion",
        *,
        n_annotators: int | None = None,
        history: Tensor | None = None,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
        annotator_names: Sequence[str] | None = None,
        item_names: Sequence[str] | None = None,
    ):
        items, n_items = as_indices(items, n_items, "item", lowest=0)
        if n_annotators is None and annotator_names is not None:
            n_annotators = len(annotator_names)
        if n_annotators is None and isinstance(channel, Channel):
            n_annotators = getattr(channel, "n_sources", None)
        annotators, n_annotators = as_indices(annotators, n_annotators, "annotator", lowest=-1)
        votes = as_classes(votes, n_classes, "vote")
        if not len(items) == len(annotators) == len(votes):
            lengths = f"{len(items)} items, {len(annotators)} annotators, {len(votes)} votes"
            raise LabelError(f"{lengths}; expected one of each per vote")
        if annotator_names is not None and len(annotator_names) != n_annotators:
            raise LabelError(f"{len(annotator_names)} annotator names for {n_annotators} annotators")
        self.n_annotators = n_annotators
        super().__init__(
            n_classes,
            per_record={"annotators": annotators, "votes": votes},
            record_instances=items,
            n_instances=n_items,
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )
        self.annotator_names = None if annotator_names is None else tuple(str(a) for a in annotator_names)
        self.item_names = None if item_names is None else tuple(str(i) for i in item_names)
        self.channel = make_channel(channel, n_annotators, n_classes, history).to(self.device)
        self._columns: Tensor | None = None

    # -- what it says -------------------------------------------------------------------------------------------------

    @property
    def items(self) -> Tensor:
        assert self.record_instances is not None
        return self.record_instances

    @property
    def channels(self) -> tuple[Channel, ...]:
        return (self.channel,)

    @property
    def channel_records(self) -> Records:
        """The votes as the channel reads them; what it sorts is kept with them."""
        kept: Records | None = self.__dict__.get("_channel_records")
        if kept is None or kept.items is not self.record_instances:
            kept = Records(self.items, self.annotators, self.votes)
            self.__dict__["_channel_records"] = kept
        return kept

    def log_evidence(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self._moved(self.channel.log_evidence(self.channel_records, self.n_instances, dtype))

    def record_log_prob(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self._moved(self.channel.log_prob(self.channel_records).to(dtype))

    def unrecorded_evidence(self, dtype: torch.dtype = torch.float32) -> Tensor | None:
        """What the votes say together beyond what each says given the others; None where they are independent."""
        if not self.channel.joint_records:
            return None
        alone = self.channel.log_prob(self.channel_records).to(dtype)
        whole = self.channel.log_evidence(self.channel_records, self.n_instances, dtype)
        rest = whole.index_add_(0, self.items, alone, alpha=-1)
        return (
            rest if self._columns is None else torch.zeros_like(self._moved(rest)).index_copy_(1, self._columns, rest)
        )

    def update(self, posterior: Tensor, log_probs: Tensor | None = None) -> None:
        if self._columns is not None:
            posterior = posterior[:, self._columns]
        if self.weight is not None:
            posterior = posterior * self.weight.to(posterior)[:, None]
        self.channel.fit(self.channel.statistics(self.channel_records, posterior))

    def _moved(self, table: Tensor) -> Tensor:
        """Columns of the channel's classes moved to those of the labels; votes rule the classes in between out."""
        if self._columns is None:
            return table
        said = (table != 0).any(dim=1, keepdim=True)
        new = torch.where(said, -torch.inf, 0.0).to(table).repeat(1, self.n_classes)
        new[:, self._columns] = table
        return new

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        mapping = check_mapping(mapping, self.n_classes, n_classes, "Crowd", injective=True).to(self.device)
        new = self._fresh()
        new._columns = mapping if self._columns is None else mapping[self._columns]
        new.n_classes, new.class_names = n_classes, None
        return new

    def with_channel(self, channel: str | Channel | type[Channel]) -> Self:
        """The same votes read by another channel, which starts from its prior and keeps the annotators' history."""
        new = self._fresh()
        history = None if isinstance(channel, Channel) else getattr(self.channel, "history", None)
        k = self.n_classes if self._columns is None else len(self._columns)
        new.channel = make_channel(channel, self.n_annotators, k, history).to(self.device)
        return new

    # -- how it is made -----------------------------------------------------------------------------------------------

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: Sequence[str],
        *,
        taxonomy: Taxonomy | None = None,
        classes: Sequence[str] | None = None,
        **how: Any,
    ) -> Self:
        """Votes from one column per annotator; empty, None and NaN are missing.

        Args:
            frame: any data frame, or a mapping of columns; a row is an item.
            columns: names of the columns; they name the annotators.
            taxonomy, classes: the class list; without either, the values that occur in any of the columns.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, or a value outside the class list.
        """
        columns = [columns] if isinstance(columns, str) else list(columns)
        if not columns:
            raise LabelError("Crowd needs at least one column of votes")
        values = [as_strings(read_column(frame, c)) for c in columns]
        names = class_list(values, taxonomy=taxonomy, classes=classes)
        table = torch.stack([encode(v, names, f'"{c}"') for c, v in zip(columns, values, strict=True)], dim=1)
        items, annotators = (table >= 0).nonzero(as_tuple=True)
        return cls(
            items,
            annotators,
            table[items, annotators],
            len(names),
            n_items=len(table),
            class_names=names,
            annotator_names=columns,
            **how,
        )

    @classmethod
    def from_long(
        cls,
        frame: Any,
        *,
        item: str = "item",
        annotator: str = "annotator",
        vote: str = "vote",
        items: Sequence[Any] | None = None,
        taxonomy: Taxonomy | None = None,
        classes: Sequence[str] | None = None,
        **how: Any,
    ) -> Self:
        """Votes from a long table, one row per vote.

        Args:
            frame: any data frame, or a mapping of columns.
            item, annotator, vote: names of its columns; an empty vote is missing.
            items: ids of all items in the order of the data rows; without it, those that occur, sorted.
            taxonomy, classes: the class list; without either, the votes that occur.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, an item that is not among `items`, a repeated id in `items`, a vote outside the
                class list, a row without item or annotator.
        """
        place, item_names, who = read_long(frame, item, annotator, items)
        given = as_strings(read_column(frame, vote))
        annotator_names = class_list([who])
        names = class_list([given], taxonomy=taxonomy, classes=classes)
        return cls(
            place,
            encode(who, annotator_names, f'"{annotator}"'),
            encode(given, names, f'"{vote}"'),
            len(names),
            n_items=len(item_names),
            class_names=names,
            annotator_names=annotator_names,
            item_names=item_names,
            **how,
        )

    @classmethod
    def simulate(
        cls,
        classes: Tensor,
        n_classes: int,
        *,
        generator: torch.Generator,
        n_annotators: int = 10,
        votes_per_item: int = 3,
        accuracy: float | tuple[float, float] | Tensor = (0.5, 0.95),
        confusion: Tensor | None = None,
        **how: Any,
    ) -> Crowd:
        """Votes of random annotators on every item, each annotator at most once per item.

        Args:
            classes: the truth, shape (N,).
            n_classes: K.
            generator: where the draws come from.
            n_annotators: W.
            votes_per_item: how many of them vote on each item.
            accuracy: of the annotators, (W,), one number, or a range from which each draws theirs; errors are even.
            confusion: P(vote | class) of every annotator, (W, K, K), in place of `accuracy`.
            how: further arguments of the constructor.
        """
        classes = as_classes(classes, n_classes)
        if votes_per_item > n_annotators:
            raise LabelError(f"{votes_per_item} votes per item from {n_annotators} annotators: ask each at most once")
        if confusion is None:
            right = torch.as_tensor(accuracy, dtype=torch.float64)
            if right.shape == (2,) and isinstance(accuracy, tuple):
                right = right[0] + right.diff() * torch.rand(n_annotators, generator=generator, dtype=torch.float64)
            right = right.expand(n_annotators)
            even = (1 - right) / max(n_classes - 1, 1)
            confusion = even[:, None, None].repeat(1, n_classes, n_classes)
            confusion = torch.diagonal_scatter(confusion, right[:, None].expand(-1, n_classes), dim1=1, dim2=2)
        n = len(classes)
        keys = torch.rand(n, n_annotators, generator=generator)
        annotators = keys.topk(votes_per_item, dim=1).indices.reshape(-1)
        items = torch.arange(n).repeat_interleave(votes_per_item)
        reach = confusion.cumsum(dim=2)[annotators, classes[items]]
        draw = torch.rand(len(items), 1, generator=generator, dtype=reach.dtype)
        votes = (draw > reach).sum(dim=1).clamp(max=n_classes - 1)
        return cls(items, annotators, votes, n_classes, n_items=n, n_annotators=n_annotators, **how)


def make_channel(channel: str | Channel | type[Channel], n_sources: int, n_classes: int, history: Any) -> Channel:
    """The channel that is meant, for S sources and K classes.

    Raises:
        LabelError: an unknown name, or a channel made for other numbers.
    """
    if isinstance(channel, str):
        channel = CHANNELS[channel_name(channel)]
    if not isinstance(channel, Channel):
        return channel(n_sources, n_classes, history=history)
    if history is not None:
        raise LabelError("give the history to the channel, or name the channel by its class")
    for what, ours in (("n_sources", n_sources), ("n_classes", n_classes)):
        if getattr(channel, what, ours) != ours:
            raise LabelError(f"the channel was made for {what}={getattr(channel, what)}, the votes have {ours}")
    return channel
