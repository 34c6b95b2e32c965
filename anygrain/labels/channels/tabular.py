"""Channels that are one table per source: P(vote | class)."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from anygrain.labels.channels.channel import Channel, Records
from anygrain.labels.error import LabelError


class TabularChannel(Channel):
    r"""Votes that are independent given the class, each source with a confusion matrix of its own.

    .. math:: \log P(v_{1..R} \mid y = k) = \sum_r \log \theta_{w_r, k, v_r}

    A concrete channel gives `update`, which turns expected counts into the matrices. Sources that the channel has not
    seen (-1) get the pooled matrix.

    Args:
        n_sources: S.
        n_classes: K.
        history: counts of earlier votes whose truth is known, shape (S, K, K), rows are the truth; they enter as
            observed votes.

    Attributes:
        table: log P(vote | class), shape ((S + 1) K + 1, K): row w K + v is vote v of source w, source S is the
            pooled one, and the last row is a missing vote.
        counts: expected votes of the last update, shape (S, K, K): source, truth, vote; history included.
    """

    table: Tensor
    history: Tensor
    counts: Tensor

    def __init__(self, n_sources: int, n_classes: int, *, history: Tensor | None = None):
        super().__init__()
        self.n_sources, self.n_classes = int(n_sources), int(n_classes)
        shape = (self.n_sources, self.n_classes, self.n_classes)
        if history is not None:
            history = torch.as_tensor(history, dtype=torch.float64)
            if history.shape != shape:
                raise LabelError(f"history has shape {tuple(history.shape)}; expected {shape}: annotator, truth, vote")
            if bool((history < 0).any()) or not bool(torch.isfinite(history).all()):
                raise LabelError("history holds counts: they must be finite and not negative")
        self.register_buffer("history", torch.zeros(shape, dtype=torch.float64) if history is None else history)
        self.register_buffer("counts", self.history.clone())
        self.register_buffer("table", torch.zeros((self.n_sources + 1) * self.n_classes + 1, self.n_classes).double())

    # -- what votes say -----------------------------------------------------------------------------------------------

    def cells(self, records: Records) -> Tensor:
        """Row of `table` of every record, shape (R,)."""
        layout = (self.n_sources, self.n_classes)
        kept: tuple[tuple[int, int], Tensor] | None = records.__dict__.get("_cells")
        if kept is None or kept[0] != layout:
            source = torch.where(records.sources < 0, self.n_sources, records.sources)
            cells = source * self.n_classes + records.values
            kept = (layout, torch.where(records.values < 0, len(self.table) - 1, cells))
            records.__dict__["_cells"] = kept
        return kept[1]

    def log_prob(self, records: Records) -> Tensor:
        return self.table[self.cells(records)]

    def log_evidence(self, records: Records, n_items: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return records.sums(self.table.to(dtype), self.cells(records), n_items)

    def statistics(self, records: Records, posterior: Tensor) -> dict[str, Tensor]:
        """`counts`: expected number of votes v of source w on class k, shape (S, K, K), in that order: w, k, v."""
        found = records.counts(posterior, self.cells(records), len(self.table))
        found = found[: self.n_sources * self.n_classes].double()
        return {"counts": found.view(self.n_sources, self.n_classes, self.n_classes).transpose(1, 2)}

    def update(self, statistics: dict[str, Tensor]) -> None:
        self.counts = statistics["counts"].double() + self.history
        pooled, own = self.estimate(self.counts)
        self._store(pooled, own)

    def learn_prior(self, statistics: dict[str, Tensor]) -> None:
        self.learn(statistics["counts"].double() + self.history)

    @abstractmethod
    def estimate(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled matrix (K, K) and those of the sources (S, K, K) that maximise counts . log(theta) + log_prior."""

    @abstractmethod
    def learn(self, counts: Tensor) -> None:
        """One step of the pooled parameters and the strength, given the expected counts."""

    def _store(self, pooled: Tensor, own: Tensor) -> None:
        both = torch.cat([own, pooled[None]]).transpose(1, 2).reshape(-1, self.n_classes)
        floor = torch.finfo(torch.float32).tiny
        self.table = torch.cat([both.clamp(min=floor).log(), both.new_zeros(1, self.n_classes)])

    # -- what is read off ---------------------------------------------------------------------------------------------

    @property
    def confusion(self) -> Tensor:
        """P(vote | class) of every source, shape (S, K, K), rows are the truth."""
        return self._matrices()[:-1]

    @property
    def pooled(self) -> Tensor:
        """P(vote | class) of a source that was not seen, shape (K, K)."""
        return self._matrices()[-1]

    def _matrices(self) -> Tensor:
        k = self.n_classes
        return self.table[:-1].exp().view(self.n_sources + 1, k, k).transpose(1, 2)

    def accuracy(self, prior: Tensor | None = None) -> Tensor:
        """P(vote is the class) of every source, shape (S,), classes weighted by `prior` (K,) or equally."""
        right = torch.diagonal(self.confusion, dim1=1, dim2=2)
        return right.mean(dim=1) if prior is None else right @ prior.to(right)

    def accuracy_interval(self, prior: Tensor | None = None, level: float = 0.95) -> tuple[Tensor, Tensor]:
        r"""Lower and upper end, both (S,), of a credible interval of the accuracy.

        The Beta distribution that has the mean and the variance of the accuracy, given expected counts and shrinkage.
        """
        weight = torch.full_like(self.table[0], 1 / self.n_classes) if prior is None else prior.to(self.table)
        mean = self.accuracy(weight)
        variance = self.accuracy_variance(weight)
        size = (mean * (1 - mean) / variance.clamp(min=1e-300) - 1).clamp(min=1e-3)
        return _beta_interval(mean * size, (1 - mean) * size, level)

    @abstractmethod
    def accuracy_variance(self, weight: Tensor) -> Tensor:
        """Posterior variance of every accuracy, shape (S,), given the expected counts; classes weighted (K,)."""


def _beta_interval(a: Tensor, b: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Quantiles of Beta(a, b) by the distribution summed on a grid of logits, which suits any a and b."""
    grid = torch.linspace(-14, 14, 2801, dtype=a.dtype, device=a.device)
    log_density = a[:, None] * torch.nn.functional.logsigmoid(grid) + b[:, None] * torch.nn.functional.logsigmoid(-grid)
    share = torch.softmax(log_density, dim=1).cumsum(dim=1)
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=a.dtype, device=a.device)
    at = torch.searchsorted(share, ends.expand(len(a), 2).contiguous()).clamp(max=len(grid) - 1)
    low, high = torch.sigmoid(grid[at]).unbind(dim=1)
    return low, high
