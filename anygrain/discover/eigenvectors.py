"""Leading eigenvectors of a sparse graph."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SMALL = 500  # rows up to which all eigenvectors are computed
TOLERANCE = 1e-3


def leading(matrix: Tensor, number: int, seed: int) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues (k,), largest first, and eigenvectors (N, k) of a sparse symmetric matrix."""
    n = matrix.shape[0]
    if n <= SMALL or number >= n - 1:
        values, vectors = torch.linalg.eigh(matrix.to_dense().double())
        return values.flip(0)[:number].cpu(), vectors.flip(1)[:, :number].float()
    from scipy.sparse import csr_matrix
    from scipy.sparse.linalg import eigsh

    held = matrix.cpu()
    parts = (held.values().double().numpy(), held.col_indices().numpy(), held.crow_indices().numpy())
    start = np.random.default_rng(seed).random(n)
    values, vectors = eigsh(csr_matrix(parts, (n, n)), k=number, which="LA", v0=start, tol=TOLERANCE)
    order = np.argsort(-values, kind="stable")
    found = torch.from_numpy(vectors[:, order].astype(np.float32))
    return torch.from_numpy(values[order]), found.to(matrix.device)
