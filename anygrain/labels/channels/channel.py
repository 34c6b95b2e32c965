"""How truth becomes an observation: the base of annotators, rules and noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class Records:
    """Observations that pass through a channel, one entry each, all of shape (R,)."""

    items: Tensor  # instance that the record is about
    sources: Tensor  # who or what gave it, 0..S-1; -1 is a source that the channel has not seen
    values: Tensor  # the class given; -1 is none (missing, or an abstention where the channel models it)

    @cached_property
    def by_item(self) -> Tensor | None:
        """Order of the records that sorts them by item; None where they are sorted already."""
        if bool((self.items[1:] >= self.items[:-1]).all()):
            return None
        return torch.argsort(self.items, stable=True)

    def sums(self, table: Tensor, cells: Tensor, n_items: int) -> Tensor:
        """Sum of table[cells[r]] over the records r of each item, shape (n_items, K), for a table (C, K)."""
        if not len(cells):
            return table.new_zeros(n_items, table.shape[1])
        order = self.by_item
        count = torch.bincount(self.items, minlength=n_items)
        offsets = count.cumsum(0) - count
        return functional.embedding_bag(cells if order is None else cells[order], table, offsets, mode="sum")

    def counts(self, posterior: Tensor, cells: Tensor, n_cells: int) -> Tensor:
        """Sum of posterior[items[r]] over the records r of each cell, shape (n_cells, K)."""
        if not len(cells):
            return posterior.new_zeros(n_cells, posterior.shape[1])
        items, offsets = self._by_cell(cells, n_cells)
        return functional.embedding_bag(items, posterior.contiguous(), offsets, mode="sum")

    def _by_cell(self, cells: Tensor, n_cells: int) -> tuple[Tensor, Tensor]:
        """Items in the order of their cells, and where each cell begins; sorted once for the same cells."""
        kept = self.__dict__.get("_sorted")
        if kept is None or kept[0] is not cells:
            count = torch.bincount(cells, minlength=n_cells)
            kept = (cells, self.items[torch.argsort(cells)], count.cumsum(0) - count)
            self.__dict__["_sorted"] = kept
        return kept[1], kept[2]


class Channel(nn.Module, ABC):
    r"""A model :math:`P(\text{record} \mid y = k)` whose parameters live here, as buffers, never in the labels.

    EM over any number of shards: `statistics` of shards add up, `update` maximises the penalised objective given
    their sum and never lowers it. Before the first update a channel is its prior. `learn_prior` is the outer step of
    empirical Bayes: it changes the penalty itself (pooled parameters, strength of shrinkage), so `aggregate` takes it
    in a first phase and leaves the penalty alone in the second, whose objective never falls.

    Attributes:
        joint_records: whether records of one item depend on each other given its class.
        prior_is_settled: set by `aggregate` once the penalty is to stay as it is; `fit` then leaves it alone.
    """

    joint_records: bool = False
    prior_is_settled: bool = False

    @property
    def share_hold(self) -> float:
        """Pseudo-rows per row that hold the class shares to what is known without this channel; 0: it tells them."""
        return 0.0

    @abstractmethod
    def log_prob(self, records: Records) -> Tensor:
        """log P(record | y = k), shape (R, K); 0 for a missing record.

        Where `joint_records`: log P(record | y = k, the other records of its item).
        """

    def log_evidence(self, records: Records, n_items: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """log P(all records of item i | y_i = k), shape (n_items, K)."""
        table = self.log_prob(records).to(dtype)
        return table.new_zeros(n_items, table.shape[1]).index_add_(0, records.items, table)

    @abstractmethod
    def statistics(self, records: Records, posterior: Tensor) -> dict[str, Tensor]:
        """Sums over records given the posterior (N, K) of their items; sums of shards add up."""

    @abstractmethod
    def update(self, statistics: dict[str, Tensor]) -> None:
        """Maximise the penalised expected log-likelihood."""

    def learn_prior(self, statistics: dict[str, Tensor]) -> None:
        """Estimate the penalty from the same statistics: pooled parameters and how far sources shrink to them."""

    def fit(self, statistics: dict[str, Tensor]) -> None:
        """One M-step: the penalty first, unless it is settled, then the parameters."""
        if not self.prior_is_settled:
            self.learn_prior(statistics)
        self.update(statistics)

    @abstractmethod
    def log_prior(self) -> Tensor:
        """log density of the parameters under their prior, up to a constant, a scalar: the penalty of the objective."""
