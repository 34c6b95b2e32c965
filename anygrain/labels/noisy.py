"""Noisy labels: the class given is the truth seen through a transition matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.channels.channel import Channel, Records
from anygrain.labels.channels.transition import Transition, check_transition
from anygrain.labels.error import LabelError
from anygrain.labels.frame import ClassColumn
from anygrain.labels.instance import InstanceLabels, as_classes, check_error, check_mapping

#: labels per class from which the hard count of an out-of-fold model beats the soft one
HARD_FROM = 100


class Noisy(ClassColumn, InstanceLabels):
    r"""Each instance comes with a class that may be wrong; -1 says nothing.

    .. math:: P(v_i \mid y_i = k) = T_{kv_i}

    The transition matrix T (rows are the truth) is given, or estimated. One label per instance cannot settle T by
    itself: it takes a classifier, or other evidence beside it.

    *Estimating.* `update(posterior)` counts labels by the posterior (soft). Given `log_probs` of a model that did not
    see the rows, it counts by their argmax instead (hard), which leaves the row's own label out; the soft step keeps T
    too diagonal at much noise. Below about 100 labels per class, where argmax errors of the model would be taken for
    noise, the soft step stays.

    Args:
        classes: class indices, shape (N,).
        n_classes: K.
        transition: T, shape (K, K), when it is known; it is then never changed.
        channel: a `Transition` fitted before, in place of a new one.

    Raises:
        LabelError: a class outside -1..K-1, or a matrix that is not (K, K) with rows that sum to 1.

    Source: Patrini et al., Making deep neural networks robust to label noise, 2017.
    """

    labels: Tensor

    def __init__(
        self,
        classes: Tensor,
        n_classes: int,
        transition: Tensor | None = None,
        *,
        channel: Transition | None = None,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        labels = as_classes(classes, n_classes)
        super().__init__(
            n_classes, per_instance={"labels": labels}, rows=rows, n_rows=n_rows, weight=weight, class_names=class_names
        )
        if channel is not None and transition is not None:
            raise LabelError("give either a transition matrix or a channel that holds one")
        self.channel = channel or Transition(n_classes, transition=transition).to(self.device)
        if self.channel.n_classes != n_classes:
            raise LabelError(f"the channel was made for {self.channel.n_classes} classes, the labels have {n_classes}")
        self._columns: Tensor | None = None

    @property
    def channels(self) -> tuple[Channel, ...]:
        return (self.channel,)

    @property
    def channel_records(self) -> Records:
        """The labels as the channel reads them, one per instance."""
        kept: Records | None = self.__dict__.get("_channel_records")
        if kept is None or kept.values is not self.labels:
            kept = Records(
                torch.arange(self.n_instances, device=self.device), torch.zeros_like(self.labels), self.labels
            )
            self.__dict__["_channel_records"] = kept
        return kept

    def log_evidence(self, dtype: torch.dtype = torch.float32) -> Tensor:
        table = self.channel.log_prob(self.channel_records).to(dtype)
        if self._columns is None:
            return table
        new = torch.where(self.labels >= 0, -torch.inf, 0.0).to(table)[:, None].repeat(1, self.n_classes)
        new[:, self._columns] = table
        return new

    def update(self, posterior: Tensor, log_probs: Tensor | None = None) -> None:
        """M-step of T: soft counts of `posterior`; hard ones of `log_probs` from 100 labels per class on."""
        said = self.labels >= 0
        classes = self.channel.n_classes
        if log_probs is not None and int(said.sum()) >= HARD_FROM * classes:
            best = log_probs if self._columns is None else log_probs[:, self._columns]
            posterior = torch.nn.functional.one_hot(best.argmax(dim=1), classes).to(posterior)
        elif self._columns is not None:
            posterior = posterior[:, self._columns]
        if self.weight is not None:
            posterior = posterior * self.weight.to(posterior)[:, None]
        self.channel.fit(self.channel.statistics(self.channel_records, posterior))

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        mapping = check_mapping(mapping, self.n_classes, n_classes, "Noisy", injective=True).to(self.device)
        new = self._fresh()
        new._columns = mapping if self._columns is None else mapping[self._columns]
        new.n_classes, new.class_names = n_classes, None
        return new

    @classmethod
    def simulate(
        cls,
        classes: Tensor,
        n_classes: int,
        *,
        generator: torch.Generator,
        transition: Tensor | None = None,
        error: float = 0.2,
        known: bool = False,
        **how: Any,
    ) -> Noisy:
        """Every true class seen through a transition matrix.

        Args:
            classes: the truth, shape (N,); -1 stays missing.
            n_classes: K.
            generator: where the draws come from.
            transition: T, shape (K, K); without it a label is wrong with probability `error`, evenly.
            error: see `transition`.
            known: whether the labels are told T, or have to estimate it.
            how: further arguments of the constructor.
        """
        classes = as_classes(classes, n_classes)
        if transition is None:
            wrong = check_error(error) / max(n_classes - 1, 1)
            transition = torch.full((n_classes, n_classes), wrong, dtype=torch.float64).fill_diagonal_(1 - error)
        transition = check_transition(transition, n_classes)
        reach = transition.cumsum(dim=1)[classes.clamp(min=0)]
        draw = torch.rand(len(classes), 1, generator=generator, dtype=torch.float64)
        labels = (draw > reach).sum(dim=1).clamp(max=n_classes - 1)
        return cls(torch.where(classes < 0, -1, labels), n_classes, transition if known else None, **how)
