"""Candidate sets whose false members depend on the truth: how often class j comes along with class k."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.labels.channels.channel import Channel, Records


class InclusionRates(Channel):
    r"""The true class is always in the set; every other class j joins with a rate that depends on the truth.

    .. math:: P(S \mid y = k) = [k \in S] \prod_{j \ne k} R_{kj}^{[j \in S]} (1 - R_{kj})^{[j \notin S]}, \qquad
              \hat R_{kj} = \frac{\sum_i q_{ik} [j \in S_i] + s\, r}{\sum_i q_{ik} + s}

    r is the rate at which any false class joins, learnt; s = 20 sets per class. Before the first update all rates are
    equal, and a set says no more than that it holds the truth. The values of its `Records` are sets, bool (R, K).

    Args:
        n_classes: K.
        strength: s.

    Attributes:
        rates: R, shape (K, K): truth, other class; the diagonal is 1.
        pooled: r, a scalar.
    """

    rates: Tensor
    pooled: Tensor

    def __init__(self, n_classes: int, *, strength: float = 20.0):
        super().__init__()
        self.n_classes, self.strength = int(n_classes), float(strength)
        self.register_buffer("pooled", torch.tensor(0.5, dtype=torch.float64))
        rates = torch.full((self.n_classes, self.n_classes), 0.5, dtype=torch.float64)
        self.register_buffer("rates", rates.fill_diagonal_(1.0))

    def log_prob(self, records: Records) -> Tensor:
        """log P(set | y = k), shape (R, K); -inf where the set leaves k out, 0 for the set of all classes."""
        joins, stays_out = (t.fill_diagonal_(0.0) for t in (self.rates.log(), torch.log1p(-self.rates)))
        member = records.values.to(self.rates)
        table = member @ (joins - stays_out).T + stays_out.sum(dim=1)
        table = table.masked_fill(~records.values, -torch.inf)
        return table.masked_fill(records.values.all(dim=1, keepdim=True), 0.0)

    def log_marginal(self, records: Records) -> Tensor:
        """log probability of a set drawn without regard to the truth, every class at the rate r, shape (R,)."""
        size = records.values.sum(dim=1).to(self.rates)
        return size * self.pooled.log() + (self.n_classes - size) * torch.log1p(-self.pooled)

    def statistics(self, records: Records, posterior: Tensor) -> dict[str, Tensor]:
        """`together` (K, K): expected sets of truth k that hold j; `sets` (K,): expected sets of truth k."""
        says = ~records.values.all(dim=1)
        q = posterior[records.items[says]].double()
        return {"together": q.T @ records.values[says].double(), "sets": q.sum(dim=0)}

    def learn_prior(self, statistics: dict[str, Tensor]) -> None:
        false = statistics["together"].sum() - torch.diagonal(statistics["together"]).sum()
        chances = statistics["sets"].sum() * max(self.n_classes - 1, 1)
        self.pooled = (false + 1.0) / (chances + 2.0)

    def update(self, statistics: dict[str, Tensor]) -> None:
        together, sets = statistics["together"], statistics["sets"]
        rates = (together + self.strength * self.pooled) / (sets[:, None] + self.strength)
        # a posterior that leaves the set puts a true class outside of it: rates stay below 1 all the same
        self.rates = rates.clamp(1e-9, 1 - 1e-9).fill_diagonal_(1.0)

    def log_prior(self) -> Tensor:
        joins, stays_out = (t.fill_diagonal_(0.0) for t in (self.rates.log(), torch.log1p(-self.rates)))
        return self.strength * (self.pooled * joins + (1 - self.pooled) * stays_out).sum()
