"""Annotators with full confusion matrices (Dawid and Skene)."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.labels.channels.dirichlet import learn_strength
from anygrain.labels.channels.tabular import TabularChannel


class Confusion(TabularChannel):
    r"""Each source w has a confusion matrix, which shrinks towards the pooled one m.

    .. math:: P(v \mid y = k) = \theta_{wkv}, \qquad \theta_{wk} \sim \mathrm{Dirichlet}(1 + s\, m_{k}), \qquad
              \hat\theta_{wkv} = \frac{n_{wkv} + s\, m_{kv}}{n_{wk} + s}

    The strength s and the pooled matrix are learnt by the marginal likelihood of the counts of all sources; m itself
    is worth 2 votes per class, 60 % of them right, before the first vote.

    Args:
        n_sources: S.
        n_classes: K.
        history: counts of earlier votes whose truth is known, shape (S, K, K), rows are the truth.
        strength: votes that the pooled matrix is worth at the start.

    Source: Dawid and Skene, Maximum likelihood estimation of observer error-rates using the EM algorithm, 1979.
    """

    mean: Tensor
    strength: Tensor

    def __init__(self, n_sources: int, n_classes: int, *, history: Tensor | None = None, strength: float = 4.0):
        super().__init__(n_sources, n_classes, history=history)
        right = 0.6 if n_classes > 1 else 1.0
        base = torch.full((n_classes, n_classes), (1 - right) / max(n_classes - 1, 1), dtype=torch.float64)
        self.register_buffer("mean", base.fill_diagonal_(right))
        self.register_buffer("base", base.clone())
        self.register_buffer("strength", torch.tensor(float(strength), dtype=torch.float64))
        self._store(*self.estimate(self.counts))

    base: Tensor

    def estimate(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        own = counts + self.strength * self.mean
        return self.mean, own / own.sum(dim=2, keepdim=True)

    def learn(self, counts: Tensor) -> None:
        strength, draws = learn_strength(counts, self.mean, self.strength)
        mean = draws.sum(dim=0) + 2 * self.base
        self.strength, self.mean = strength, mean / mean.sum(dim=1, keepdim=True)

    def accuracy_variance(self, weight: Tensor) -> Tensor:
        right = torch.diagonal(self.confusion, dim1=1, dim2=2)
        return (right * (1 - right) / (self.counts.sum(dim=2) + self.strength + 1)) @ weight.square()

    def log_prior(self) -> Tensor:
        penalty = self.strength * (self.mean * self.confusion.clamp(min=1e-300).log()).sum()
        return penalty + (self.history * self.confusion.clamp(min=1e-300).log()).sum()
