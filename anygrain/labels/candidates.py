"""Candidate labels: the true class is one of a given set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from anygrain.labels.channels.channel import Channel, Records
from anygrain.labels.channels.inclusion_rates import InclusionRates
from anygrain.labels.error import LabelError
from anygrain.labels.frame import as_strings, class_list, encode, read_column
from anygrain.labels.instance import InstanceLabels, as_mask, check_error, relabelled_columns, require

if TYPE_CHECKING:
    from anygrain.labels.taxonomy import Taxonomy


class Candidates(InstanceLabels):
    r"""Each instance comes with a set of classes that holds the true one (partial labels).

    .. math:: P(S_i \mid y_i = k) = (1 - \epsilon) [k \in S_i] + \epsilon / K

    The set is taken to be coarsened at random: which set is shown does not depend on which of its members is true.
    Where it does (dog and wolf are shown together, dog and car are not), `rates` learns how often each class comes
    along with each truth, and the set speaks through an `InclusionRates` channel.

    Args:
        candidates: bool, shape (N, K); True where class k is possible. An all-True row is no evidence.
        error: probability, in [0, 1), that a set was drawn without regard to the truth.
        rates: True to learn inclusion rates, or an `InclusionRates` fitted before.

    Raises:
        LabelError: a row without any candidate, naming the first such rows.

    Source: Jin and Ghahramani, Learning with Multiple Labels, 2002.
    """

    candidates: Tensor

    def __init__(
        self,
        candidates: Tensor,
        *,
        error: float = 0.0,
        rates: bool | InclusionRates = False,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        candidates = as_mask(candidates, "candidates")
        require(candidates.any(dim=1), "has no candidate class")
        super().__init__(
            candidates.shape[1],
            per_instance={"candidates": candidates},
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )
        self.error = check_error(error)
        self.channel: InclusionRates | None = None
        if rates is not False:
            self.channel = InclusionRates(self.n_classes).to(self.device) if rates is True else rates
            if self.channel.n_classes != self.n_classes:
                raise LabelError(f"the rates were made for {self.channel.n_classes} classes, not {self.n_classes}")
        self._columns: Tensor | None = None

    @property
    def channels(self) -> tuple[Channel, ...]:
        return () if self.channel is None else (self.channel,)

    @property
    def channel_records(self) -> Records:
        """The sets as an `InclusionRates` channel reads them, one per instance."""
        instances = torch.arange(self.n_instances, device=self.device)
        sets = self.candidates if self._columns is None else self.candidates[:, self._columns]
        return Records(instances, torch.zeros_like(instances), sets)

    def log_evidence(self, dtype: torch.dtype = torch.float32) -> Tensor:
        silent = self.candidates.all(dim=1, keepdim=True)
        if self.channel is not None:
            table = torch.full((self.n_instances, self.n_classes), -torch.inf, dtype=dtype, device=self.device)
            columns = slice(None) if self._columns is None else self._columns
            table[:, columns] = self.channel.log_prob(self.channel_records).to(dtype)
            if self.error > 0:
                drawn = math.log(self.error) + self.channel.log_marginal(self.channel_records).to(dtype)
                table = torch.logaddexp(math.log1p(-self.error) + table, drawn[:, None])
            return table.masked_fill_(silent, 0.0)
        prob = (1 - self.error) * self.candidates.to(dtype) + self.error / self.n_classes
        return prob.log_().masked_fill_(silent, 0.0)

    def update(self, posterior: Tensor, log_probs: Tensor | None = None) -> None:
        if self.channel is None:
            return
        if self._columns is not None:
            posterior = posterior[:, self._columns]
        if self.weight is not None:
            posterior = posterior * self.weight.to(posterior)[:, None]
        self.channel.fit(self.channel.statistics(self.channel_records, posterior))

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        new = self._fresh()
        silent = self.candidates.all(dim=1, keepdim=True)
        new.candidates = relabelled_columns(self.candidates, mapping, n_classes, type(self).__name__, False) | silent
        new.n_classes, new.class_names = n_classes, None
        if self.channel is not None:
            mapping = torch.as_tensor(mapping).long().to(self.device)
            new._columns = mapping if self._columns is None else mapping[self._columns]
        return new

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: str,
        *,
        taxonomy: Taxonomy | None = None,
        classes: Sequence[str] | None = None,
        separator: str = "|",
        **how: Any,
    ) -> Self:
        """Labels from a column of cells such as "a|b"; an empty cell says nothing.

        Raises:
            LabelError: no such column, or a value outside the class list.
        """
        sets, names = read_sets(frame, columns, separator, taxonomy, classes)
        return cls(sets | ~sets.any(dim=1, keepdim=True), class_names=names, **how)

    @classmethod
    def simulate(
        cls, classes: Tensor, n_classes: int, *, generator: torch.Generator, flip: float = 0.5, **how: Any
    ) -> Candidates:
        """The true class and, each with probability `flip`, every other class."""
        others = torch.rand(len(classes), n_classes, generator=generator) < flip
        return cls(others | torch.nn.functional.one_hot(classes, n_classes).bool(), **how)


def read_sets(
    frame: Any, column: str, separator: str, taxonomy: Taxonomy | None, classes: Sequence[str] | None
) -> tuple[Tensor, tuple[str, ...]]:
    """Cells such as "a|b" as membership (N, K), bool, and the class names."""
    cells = as_strings(read_column(frame, column))
    parts = [cell.split(separator) if cell else [] for cell in cells.tolist()]
    row = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    values = as_strings(np.array([v for p in parts for v in p], dtype=object))
    names = class_list([values], taxonomy=taxonomy, classes=classes)
    index = encode(values, names, f'"{column}"')
    sets = torch.zeros(len(parts), len(names), dtype=torch.bool)
    sets[torch.from_numpy(row)[index >= 0], index[index >= 0]] = True
    return sets, names
