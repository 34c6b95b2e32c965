"""Annotators with an accuracy for each class."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.labels.channels.dirichlet import learn_strength
from anygrain.labels.channels.one_coin import coins
from anygrain.labels.channels.tabular import TabularChannel


class ClassCoin(TabularChannel):
    r"""Each source w is right with a probability that depends on the class, and errs evenly.

    .. math:: P(v \mid y = k) = a_{wk} [v = k] + \frac{1 - a_{wk}}{K - 1} [v \ne k], \qquad
              a_{wk} \sim \mathrm{Beta}(1 + s\, m_k, 1 + s (1 - m_k))

    The pooled accuracies m and the strength s are learnt by the marginal likelihood of all sources.

    Args:
        n_sources: S.
        n_classes: K.
        history: counts of earlier votes whose truth is known, shape (S, K, K), rows are the truth.
        strength: votes that the pooled accuracy is worth at the start.
    """

    mean: Tensor
    strength: Tensor

    def __init__(self, n_sources: int, n_classes: int, *, history: Tensor | None = None, strength: float = 4.0):
        super().__init__(n_sources, n_classes, history=history)
        self.register_buffer("mean", torch.tensor([0.6, 0.4], dtype=torch.float64).repeat(n_classes, 1))
        self.register_buffer("strength", torch.tensor(float(strength), dtype=torch.float64))
        self._store(*self.estimate(self.counts))

    def _outcomes(self, counts: Tensor) -> Tensor:
        """Right and wrong votes on each class, shape (S, K, 2)."""
        right = torch.diagonal(counts, dim1=1, dim2=2)
        return torch.stack([right, counts.sum(dim=2) - right], dim=2)

    def estimate(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        seen = self._outcomes(counts) + self.strength * self.mean
        right = seen[..., 0] / seen.sum(dim=2)
        both = coins(torch.cat([right, self.mean[None, :, 0]]))
        return both[-1], both[:-1]

    def learn(self, counts: Tensor) -> None:
        strength, draws = learn_strength(self._outcomes(counts), self.mean, self.strength)
        mean = draws.sum(dim=0) + torch.tensor([1.2, 0.8], dtype=draws.dtype, device=draws.device)
        self.strength, self.mean = strength, mean / mean.sum(dim=1, keepdim=True)

    def accuracy_variance(self, weight: Tensor) -> Tensor:
        right = torch.diagonal(self.confusion, dim1=1, dim2=2)
        return (right * (1 - right) / (self.counts.sum(dim=2) + self.strength + 1)) @ weight.square()

    def log_prior(self) -> Tensor:
        matrices = self.confusion
        right = torch.diagonal(matrices, dim1=1, dim2=2)
        wrong = (1 - right).clamp(min=1e-300).log()
        penalty = self.strength * (self.mean[:, 0] * right.clamp(min=1e-300).log() + self.mean[:, 1] * wrong).sum()
        return penalty + (self.history * matrices.clamp(min=1e-300).log()).sum()
