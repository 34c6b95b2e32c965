"""Annotators with one accuracy each."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.labels.channels.dirichlet import learn_strength
from anygrain.labels.channels.tabular import TabularChannel


class OneCoin(TabularChannel):
    r"""Each source w is right with one probability on all classes and errs evenly.

    .. math:: P(v \mid y = k) = a_w [v = k] + \frac{1 - a_w}{K - 1} [v \ne k], \qquad
              a_w \sim \mathrm{Beta}(1 + s\, m, 1 + s (1 - m))

    The pooled accuracy m and the strength s are learnt by the marginal likelihood of all sources.

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
        self.register_buffer("mean", torch.tensor([0.6, 0.4], dtype=torch.float64))
        self.register_buffer("strength", torch.tensor(float(strength), dtype=torch.float64))
        self._store(*self.estimate(self.counts))

    def _outcomes(self, counts: Tensor) -> Tensor:
        """Right and wrong votes, shape (S, 2)."""
        right = torch.diagonal(counts, dim1=1, dim2=2).sum(dim=1)
        return torch.stack([right, counts.sum(dim=(1, 2)) - right], dim=1)

    def estimate(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        seen = self._outcomes(counts) + self.strength * self.mean
        right = seen[:, 0] / seen.sum(dim=1)
        both = coins(torch.cat([right, self.mean[:1]])[:, None].expand(-1, self.n_classes))
        return both[-1], both[:-1]

    def learn(self, counts: Tensor) -> None:
        strength, draws = learn_strength(self._outcomes(counts), self.mean, self.strength)
        mean = draws.sum(dim=0) + torch.tensor([1.2, 0.8], dtype=draws.dtype, device=draws.device)
        self.strength, self.mean = strength, mean / mean.sum()

    def accuracy_variance(self, weight: Tensor) -> Tensor:
        right = self.accuracy(weight)
        return right * (1 - right) / (self.counts.sum(dim=(1, 2)) + self.strength + 1)

    def log_prior(self) -> Tensor:
        matrices = self.confusion.clamp(min=1e-300).log()
        right = matrices[:, 0, 0]
        wrong = torch.log1p(-matrices[:, 0, 0].exp()).clamp(min=-700.0)
        penalty = self.strength * (self.mean[0] * right + self.mean[1] * wrong).sum()
        return penalty + (self.history * matrices).sum()


def coins(right: Tensor) -> Tensor:
    """Confusion matrices (S, K, K) of sources that are right with probability right (S, K) and err evenly."""
    n_classes = right.shape[1]
    if n_classes == 1:
        return torch.ones_like(right)[:, :, None]
    wrong = ((1 - right) / (n_classes - 1))[:, :, None].expand(-1, -1, n_classes)
    return torch.diagonal_scatter(wrong, right, dim1=1, dim2=2)
