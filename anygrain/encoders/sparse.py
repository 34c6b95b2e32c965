"""Sparse matrices: bags of words, one-hot codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.encoders.encoder import Encoder


class Sparse(Encoder):
    r"""Columns scaled by their root mean square, then projected on the leading right singular vectors.

    Nothing is centred, so the matrix stays sparse. With `dim` columns or fewer there is no projection.

    Args:
        dim: number of singular vectors.
    """

    scale: Tensor
    project: Tensor

    def __init__(self, dim: int = 256) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("scale", torch.zeros(0))
        self.register_buffer("project", torch.zeros(0, 0))

    @property
    def feature_dim(self) -> int:  # type: ignore[override]
        return self.project.shape[1] if self.project.numel() else len(self.scale)

    def config(self) -> dict[str, Any]:
        return {"dim": self.dim}

    def learn(self, data: Any, seed: int = 0) -> Sparse:
        from sklearn.utils.extmath import randomized_svd

        table = data.tocsr().astype(np.float64)
        square = np.asarray(table.multiply(table).mean(axis=0)).ravel()
        self.scale = torch.from_numpy(np.where(square > 0, 1 / np.sqrt(np.where(square > 0, square, 1)), 0))
        rank = min(self.dim, table.shape[0] - 1)
        if table.shape[1] > self.dim and rank > 0:
            scaled = table.multiply(self.scale.numpy()).tocsr()
            _, _, vectors = randomized_svd(scaled, rank, n_iter=4, random_state=seed)
            self.project = torch.from_numpy(np.ascontiguousarray(vectors.T))
        return self

    def forward(self, data: Any) -> Tensor:
        scaled = data.tocsr().astype(np.float64).multiply(self.scale.cpu().numpy()).tocsr()
        if not self.project.numel():
            return torch.from_numpy(scaled.toarray()).float()
        return torch.from_numpy(np.asarray(scaled @ self.project.cpu().numpy())).float()
