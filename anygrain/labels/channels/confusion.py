"""Annotators with full confusion matrices (Dawid and Skene)."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.labels.channels.dirichlet import learn_strength
from anygrain.labels.channels.tabular import TabularChannel

#: the most that an annotator is expected to be wrong on a class, however careless
_WRONG = 0.98


class Confusion(TabularChannel):
    r"""Each source w has a confusion matrix, which shrinks towards the pooled one m, as careful as w is.

    .. math:: P(v \mid y = k) = \theta_{wkv}, \qquad \theta_{wk} \sim \mathrm{Dirichlet}(1 + s\, m_{wk}), \qquad
              \hat\theta_{wkv} = \frac{n_{wkv} + s\, m_{wkv}}{n_{wk} + s}

    .. math:: m_{wkv} = \rho_w m_{kv} \; (v \ne k), \qquad m_{wkk} = 1 - \rho_w (1 - m_{kk}), \qquad
              \rho_w = \frac{\text{wrong votes of } w + c}{\text{wrong votes of the pooled source in its place} + c}

    So a source is careful or careless as a whole, errs as all do, and differs from that as far as its votes show: with
    a large s it has one accuracy, with a small s all of its matrix is its own. The strength s and the pooled matrix
    are learnt by the marginal likelihood of the counts of all sources; m itself is worth 2 votes per class, 60 % of
    them right, before the first vote.

    Args:
        n_sources: S.
        n_classes: K.
        history: counts of earlier votes whose truth is known, shape (S, K, K), rows are the truth.
        strength: votes that the prior matrix is worth at the start.

    Source: Dawid and Skene, Maximum likelihood estimation of observer error-rates using the EM algorithm, 1979.
    """

    base: Tensor
    mean: Tensor
    carelessness: Tensor
    strength: Tensor

    def __init__(self, n_sources: int, n_classes: int, *, history: Tensor | None = None, strength: float = 4.0):
        super().__init__(n_sources, n_classes, history=history)
        right = 0.6 if n_classes > 1 else 1.0
        base = torch.full((n_classes, n_classes), (1 - right) / max(n_classes - 1, 1), dtype=torch.float64)
        self.register_buffer("mean", base.fill_diagonal_(right))
        self.register_buffer("base", base.clone())
        self.register_buffer("carelessness", torch.ones(n_sources, dtype=torch.float64))
        self.register_buffer("strength", torch.tensor(float(strength), dtype=torch.float64))
        self._store(*self.estimate(self.counts))

    def means(self) -> Tensor:
        """What each matrix shrinks towards, shape (S, K, K)."""
        wrong = 1 - torch.diagonal(self.mean)
        of_source = (self.carelessness[:, None] * wrong).clamp(max=_WRONG)
        means = (of_source / wrong.clamp(min=1e-12))[:, :, None] * self.mean
        return torch.diagonal_scatter(means, 1 - of_source, dim1=1, dim2=2)

    def estimate(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        own = counts + self.strength * self.means()
        return self.mean, own / own.sum(dim=2, keepdim=True)

    def learn(self, counts: Tensor) -> None:
        seen = counts.sum(dim=2)
        wrong = seen.sum(dim=1) - torch.diagonal(counts, dim1=1, dim2=2).sum(dim=1)
        expected = seen @ (1 - torch.diagonal(self.mean))
        self.carelessness = (wrong + 2) / (expected + 2)
        self.strength, draws = learn_strength(counts, self.means(), self.strength)
        mean = draws.sum(dim=0) + 2 * self.base
        self.mean = mean / mean.sum(dim=1, keepdim=True)

    def accuracy_variance(self, weight: Tensor) -> Tensor:
        right = torch.diagonal(self.confusion, dim1=1, dim2=2)
        total = self.counts.sum(dim=2) + self.strength
        of_rows = (right * (1 - right) / (total + 1)) @ weight.square()
        # the carelessness, which all rows lean on, is known from the wrong votes
        wrong = (self.counts.sum(dim=2) - torch.diagonal(self.counts, dim1=1, dim2=2)).sum(dim=1)
        lean = (self.strength / total * (1 - torch.diagonal(self.mean))) @ weight
        return of_rows + lean.square() * self.carelessness.square() / (wrong + 2)

    def log_prior(self) -> Tensor:
        log_prob = self.confusion.clamp(min=1e-300).log()
        return ((self.strength * self.means() + self.history) * log_prob).sum()
