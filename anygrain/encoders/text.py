"""Texts as hashed TF-IDF with an SVD: no download, no vocabulary to store."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.encoders.encoder import Encoder


class Text(Encoder):
    r"""Texts to unit vectors: words, pairs of words and letter groups, hashed, TF-IDF weighted, projected by an SVD.

    .. math:: z_i = \frac{V^\top u_i}{|V^\top u_i|}, \quad u_{ij} = (1 + \log n_{ij}) \log\frac{1 + N}{1 + d_j} + 1

    with n counts of a hash bucket in a text and d the number of texts that have it. Only buckets that occur in two
    texts or more are kept, the most frequent ones first.

    Args:
        dim: number of singular vectors, fewer where there are fewer texts.
        buckets: most hash buckets kept.

    Source: Deerwester and others, Indexing by Latent Semantic Analysis, 1990; Weinberger and others, Feature Hashing,
    2009.
    """

    kept: Tensor
    idf: Tensor
    project: Tensor

    def __init__(self, dim: int = 256, buckets: int = 12288) -> None:
        super().__init__()
        self.dim, self.buckets = dim, buckets
        self.register_buffer("kept", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("idf", torch.zeros(0))
        self.register_buffer("project", torch.zeros(0, 0))

    @property
    def feature_dim(self) -> int:  # type: ignore[override]
        return self.project.shape[1]

    def config(self) -> dict[str, Any]:
        return {"dim": self.dim, "buckets": self.buckets}

    def _counts(self, texts: Any) -> Any:
        from scipy.sparse import hstack
        from sklearn.feature_extraction.text import HashingVectorizer

        said = [_clean(t) for t in texts]
        options = {"alternate_sign": False, "norm": None, "n_features": 2**18, "dtype": np.float32}
        words = HashingVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", **options)
        letters = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 4), **options)
        return hstack([words.transform(said), letters.transform(said)], format="csr")

    def _weighted(self, counts: Any) -> Any:
        from sklearn.preprocessing import normalize

        table = counts[:, self.kept.cpu().numpy()].astype(np.float32)
        table.data = 1 + np.log(table.data)
        return normalize(table.multiply(self.idf.cpu().numpy()).tocsr(), copy=False)

    def learn(self, data: Any, seed: int = 0) -> Text:
        from sklearn.utils.extmath import randomized_svd

        counts = self._counts(data)
        n = counts.shape[0]
        frequency = np.bincount(counts.indices, minlength=counts.shape[1])
        often = np.flatnonzero(frequency >= min(2, n))
        if len(often) == 0:
            often = np.flatnonzero(frequency)
        if len(often) == 0:
            often = np.array([0])
        often = np.sort(often[np.argsort(-frequency[often], kind="stable")[: self.buckets]])
        self.kept = torch.from_numpy(often.astype(np.int64))
        self.idf = torch.from_numpy((np.log((1 + n) / (1 + frequency[often])) + 1).astype(np.float32))
        dim = max(1, min(self.dim, n - 1, len(often) - 1))
        _, _, vectors = randomized_svd(self._weighted(counts), dim, n_iter=4, random_state=seed)
        self.project = torch.from_numpy(np.ascontiguousarray(vectors.T.astype(np.float32)))
        return self

    def forward(self, data: Any) -> Tensor:
        projected = torch.from_numpy(np.asarray(self._weighted(self._counts(data)) @ self.project.cpu().numpy()))
        return torch.nn.functional.normalize(projected, dim=1)


def _clean(text: Any) -> str:
    return "" if text is None or text != text else str(text).lower()
