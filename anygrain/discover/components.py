"""The directions in which rows differ most."""

from __future__ import annotations

import torch
from torch import Tensor

WIDE = 2048  # columns from which on directions are looked for among random ones
SPARE = 16  # random directions besides those asked for
POWERS = 4
AT_ONCE = 65536


def components(x: Tensor, most: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Mean (D,) and the leading principal directions (D, d) of rows (N, D), d at most `most`, N - 1 and D.

    From the covariance where D is at most 2048, else by random projections and power iterations: never N x N, and
    D x D only where D is small. Directions without any spread are left out, but for one.

    Source: Halko, Martinsson, Tropp, Finding structure with randomness, 2011.
    """
    n, d = x.shape
    most = max(1, min(most, n - 1, d))
    mean = x.mean(dim=0)
    if d <= WIDE:
        square = _products(x, mean, torch.eye(d, dtype=x.dtype, device=x.device))
        values, vectors = torch.linalg.eigh(square.double())  # in single precision not finite where the rank is low
        size, basis = values.flip(0), vectors.flip(1).to(x.dtype)
    else:
        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(d, min(most + SPARE, n, d), generator=generator, dtype=x.dtype).to(x.device)
        basis = torch.linalg.qr(start).Q
        for _ in range(POWERS):
            basis = torch.linalg.qr(_products(x, mean, basis)).Q
        values, vectors = torch.linalg.eigh((basis.T @ _products(x, mean, basis)).double())
        size, basis = values.flip(0), basis @ vectors.flip(1).to(x.dtype)
    kept = max(1, int((size[:most] > 1e-9 * size[0].clamp(min=1e-30)).sum()))
    return mean, basis[:, :kept]


def projected(x: Tensor, mean: Tensor, directions: Tensor) -> Tensor:
    """Rows (N, d) of (x - mean) directions, without a copy of x (N, D)."""
    found = x.new_empty(len(x), directions.shape[1])
    for part, own in zip(x.split(AT_ONCE), found.split(AT_ONCE), strict=True):
        torch.matmul(part - mean, directions, out=own)
    return found


def _products(x: Tensor, mean: Tensor, vectors: Tensor) -> Tensor:
    """Covariance of the rows times vectors (D, v)."""
    total = torch.zeros_like(vectors)
    for part in x.split(AT_ONCE):
        centred = part - mean
        total += centred.T @ (centred @ vectors)
    return total / len(x)
