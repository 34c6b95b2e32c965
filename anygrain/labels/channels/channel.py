"""How truth becomes an observation: the base of annotators, rules and noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


class Records(NamedTuple):
    """Observations that pass through a channel, one entry each, all of shape (R,)."""

    items: Tensor  # instance that the record is about
    sources: Tensor  # who or what gave it, 0..S-1; -1 is a source that the channel has not seen
    values: Tensor  # the class given; -1 is none (missing, or an abstention where the channel models it)


class Channel(nn.Module, ABC):
    r"""A model :math:`P(\text{record} \mid y = k)` whose parameters live here, as buffers, never in the labels.

    EM over any number of shards: `statistics` of shards add up, `update` maximises the penalised objective given
    their sum and never lowers it. Before the first update a channel is its prior.
    """

    @abstractmethod
    def log_prob(self, records: Records) -> Tensor:
        """log P(record | y = k), shape (R, K); 0 for a missing record."""

    @abstractmethod
    def statistics(self, records: Records, posterior: Tensor) -> dict[str, Tensor]:
        """Sums over records given the posterior (N, K) of their items; sums of shards add up."""

    @abstractmethod
    def update(self, statistics: dict[str, Tensor]) -> None:
        """Maximise the penalised expected log-likelihood."""

    @abstractmethod
    def log_prior(self) -> Tensor:
        """log density of the parameters under their prior, a scalar: the penalty of the objective."""
