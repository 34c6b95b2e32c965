"""The graph of nearest neighbours, along which evidence spreads to rows that have none."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Graph:
    r"""A symmetric weighted graph over N rows, kept as sparse matrices of about 2 N k entries.

    ``walk`` is row-normalised, :math:`P = D^{-1} W`; ``spread`` is symmetrically normalised,
    :math:`S = D^{-1/2} W D^{-1/2}`.
    """

    walk: Tensor
    spread: Tensor

    @property
    def n_rows(self) -> int:
        return int(self.walk.shape[0])


def nearest(features: Tensor, k: int, *, chunk: int | None = None) -> tuple[Tensor, Tensor]:
    """The k nearest other rows of every row: squared distances and indices, both (N, k), nearest first.

    Exact, by blocks of ``chunk`` rows (2^23 / N when not given): memory is chunk x N, never N x N.
    """
    chunk = chunk or max(1, 2**23 // max(len(features), 1))
    norms = features.square().sum(dim=1)
    distances, indices = [], []
    for start in range(0, len(features), chunk):
        block = features[start : start + chunk]
        beyond = torch.addmm(norms, block, features.T, alpha=-2)  # what rows add to the square of this one
        here = torch.arange(len(block), device=features.device)
        beyond[here, here + start] = torch.inf
        closest = beyond.topk(k, dim=1, largest=False)
        distances.append((closest.values + norms[start : start + chunk, None]).clamp(min=0))
        indices.append(closest.indices)
    return torch.cat(distances), torch.cat(indices)


def neighbour_graph(
    features: Tensor, k: int = 10, *, edges: Tensor | None = None, edge_weight: float = 3.0, chunk: int | None = None
) -> Graph:
    r"""Join every row with its k nearest neighbours, with self-tuned weights.

    .. math:: W_{ij} = \exp\left(-\frac{d_{ij}^2}{s_i s_j}\right), \quad s_i = d(i, k\text{-th neighbour})

    symmetrised by the maximum.

    Args:
        features: (N, D).
        k: neighbours per row, at most N - 1 are used.
        edges: (E, 2) pairs of rows known to share their class, joined with ``edge_weight`` besides.

    Source: Zelnik-Manor and Perona, Self-Tuning Spectral Clustering, 2004.
    """
    n = len(features)
    k = min(k, n - 1)
    square, index = nearest(features, k, chunk=chunk)
    scale = square[:, -1].sqrt().clamp(min=torch.finfo(square.dtype).tiny ** 0.5)
    weight = torch.exp(-square / (scale[:, None] * scale[index])).flatten()
    source = torch.arange(n, device=features.device).repeat_interleave(k)
    target = index.flatten()
    if edges is not None and len(edges):
        source, target = torch.cat([source, edges[:, 0]]), torch.cat([target, edges[:, 1]])
        weight = torch.cat([weight, weight.new_full((len(edges),), edge_weight)])
    # the maximum over both directions and over repeated edges: sort by weight, the last write of a key wins
    key, pair_weight = torch.cat([source * n + target, target * n + source]), torch.cat([weight, weight])
    unique, where = key.unique(return_inverse=True)
    largest = pair_weight.new_zeros(len(unique)).scatter_reduce(0, where, pair_weight, "amax")
    i, j = unique // n, unique % n
    degree = largest.new_zeros(n).index_add(0, i, largest).clamp(min=torch.finfo(largest.dtype).tiny)
    start = torch.cat([i.new_zeros(1), torch.bincount(i, minlength=n).cumsum(0)])  # keys are sorted by row
    return Graph(
        _sparse(start, j, largest / degree[i], n), _sparse(start, j, largest / (degree[i] * degree[j]).sqrt(), n)
    )


def _sparse(start: Tensor, column: Tensor, value: Tensor, n: int) -> Tensor:
    with warnings.catch_warnings():  # torch calls the format a beta; rows, columns and values are sorted and in range
        warnings.filterwarnings("ignore", message=".*(Sparse CSR|Sparse invariant)")
        return torch.sparse_csr_tensor(start, column, value, (n, n))
