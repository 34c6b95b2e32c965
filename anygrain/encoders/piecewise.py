"""Numbers as pieces: how far a value has come through each bin of its column."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class Piecewise(nn.Module):
    r"""Each column of numbers to a vector, piecewise linear in the number, through a layer of its own.

    .. math:: e_c(x) = \max\Big(0,\ W_c\, [p_{c1}(x), \dots, p_{cT}(x),\ s(x)] + b_c\Big), \quad
        p_{ct}(x) = \mathrm{clip}\Big(\frac{x - q_{c,t-1}}{q_{ct} - q_{c,t-1}}, 0, 1\Big), \quad
        s(x) = \frac{x}{\sqrt{1 + (x / 3)^2}}

    with the quantiles q of the column, those that coincide taken once. A missing number (NaN) has a vector of its own.

    Args:
        columns: number of columns, C.
        bins: most bins of a column, T.
        dim: width of a column's vector, E.

    Source: Gorishniy and others, On Embeddings for Numerical Features in Tabular Deep Learning, 2022.
    """

    low: Tensor
    slope: Tensor

    def __init__(self, columns: int, bins: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(columns, bins))
        self.register_buffer("slope", torch.zeros(columns, bins))
        self.weight = nn.Parameter(torch.randn(columns, bins + 1, dim) * 2.0 / (bins + 1) ** 0.5)
        self.bias = nn.Parameter(torch.randn(columns, dim) * 0.5)
        self.missing = nn.Parameter(torch.zeros(columns, dim))

    def learn(self, numbers: Tensor) -> None:
        """Take the bins from the quantiles of (N, C), NaN where missing."""
        columns, bins = self.low.shape
        self.low, self.slope = torch.zeros_like(self.low), torch.zeros_like(self.slope)
        for c in range(columns):
            known = numbers[:, c][~numbers[:, c].isnan()].numpy()
            if len(known):
                quantiles = np.quantile(known, np.linspace(0, 1, bins + 1)).astype(np.float32)
                edges = torch.from_numpy(np.unique(quantiles))
                self.low[c, : len(edges) - 1], self.slope[c, : len(edges) - 1] = (
                    edges[:-1],
                    1 / edges.diff().clamp(min=1e-12),
                )

    def forward(self, numbers: Tensor) -> Tensor:
        """(B, C) to (B, C, E)."""
        gone = numbers.isnan()
        x = numbers.masked_fill(gone, 0.0)
        pieces = ((x[..., None] - self.low) * self.slope).clamp(0, 1)
        smooth = x / (1 + (x / 3).square()).sqrt()
        basis = torch.cat([pieces, smooth[..., None]], dim=-1)
        embedded = torch.relu(torch.einsum("bct,cte->bce", basis, self.weight) + self.bias)
        return torch.where(gone[..., None], self.missing, embedded)
