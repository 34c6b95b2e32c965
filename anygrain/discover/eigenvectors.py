"""Leading eigenvectors of a sparse graph."""

from __future__ import annotations

import torch
from torch import Tensor

SMALL = 300  # rows up to which all eigenvectors are computed
SPARE = 16  # vectors beyond those asked for, or a quarter of these
DEGREE = 10  # of the filter
ROUNDS = 12
SETTLED = 1e-5  # change of an eigenvalue


def leading(matrix: Tensor, number: int, seed: int) -> tuple[Tensor, Tensor]:
    r"""The largest eigenvalues (k,), largest first, and eigenvectors (N, k) of a sparse symmetric matrix.

    Its eigenvalues lie in -1..1, as those of a normalised graph. A block of vectors is filtered by Chebyshev
    polynomials that are small from -1 to the least eigenvalue of the block, and brought to eigenvectors of the matrix
    within it. All are iterated together, so that eigenvalues that occur many times, as 1 does in a graph of many parts,
    are found as often as they occur; methods that build on one vector miss some.

    Source: Zhou et al., Self-consistent-field calculations using Chebyshev-filtered subspace iteration, 2006.
    """
    n = matrix.shape[0]
    wide = min(n, number + max(SPARE, number // 4))
    if n <= SMALL or wide > n // 2:
        values, vectors = torch.linalg.eigh(matrix.to_dense().double())
        return values.flip(0)[:number].cpu(), vectors.flip(1)[:, :number].float()
    matrix = matrix.double()
    start = torch.randn(n, wide, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    vectors, bound = torch.linalg.qr(start.to(matrix.device)).Q, 0.0
    values = torch.zeros(wide, dtype=torch.float64, device=matrix.device)
    for _ in range(ROUNDS):
        basis = torch.linalg.qr(_filtered(matrix, vectors, bound)).Q
        before = values
        values, inside = torch.linalg.eigh(basis.T @ (matrix @ basis))
        values, vectors = values.flip(0), basis @ inside.flip(1)
        bound = min(max(float(values[-1]), -0.9), 0.999)
        if float((values - before)[:number].abs().max()) < SETTLED:
            break
    return values[:number].cpu(), vectors[:, :number].float()


def _filtered(matrix: Tensor, vectors: Tensor, bound: float) -> Tensor:
    """A Chebyshev polynomial of the matrix times vectors (N, m), at most 1 on eigenvalues from -1 to the bound."""
    half, centre = (bound + 1) / 2, (bound - 1) / 2
    before, now = vectors, (matrix @ vectors - centre * vectors) / half
    for _ in range(DEGREE - 1):
        before, now = now, 2 / half * (matrix @ now - centre * now) - before
    return now
