"""Which numbers of clusters come back in other rows, and stand apart: curves over the number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from anygrain.discover.k_means import k_means, plus_plus, squared_distances

SEEN = 1500  # rows of which the silhouette is taken: their distances are held together
STEPS = 20
AT_ONCE = 65536
LEFT = 0.02  # least room above the agreement by chance
FEW = 6  # numbers at which the silhouette of Gaussian rows is looked at


@dataclass(frozen=True)
class Curves:
    r"""What clusters look like, for every number M of them that was tried.

    Attributes:
        numbers: (T,) rising.
        silhouette: (T,) mean silhouette.
        repeated: (T,) how far clusters of one half of the rows are those of the other half,
            :math:`\kappa = (a - a_0) / (1 - a_0)`, with a the adjusted Rand index of the two on all rows and a_0 that
            of Gaussian rows with the same principal variances. 1: the same clusters; 0: no more than Gaussians give.
        above_gaussian: the highest silhouette of few clusters over that of the Gaussian rows.
        labels: the clusters (N,) of all rows by number.
    """

    numbers: np.ndarray
    silhouette: np.ndarray
    repeated: np.ndarray
    above_gaussian: float
    labels: list[np.ndarray]


def curves(z: Tensor, numbers: list[int], generator: torch.Generator, used: int) -> Curves:
    """Curves over numbers of clusters by k-means.

    Args:
        z: (N, D) rows in an order at random, in principal components.
        numbers: from 2 to half of the rows that are used.
        used: rows, the first ones, that are clustered; the others are put to the nearest centre.

    Source: Rousseeuw, Silhouettes, 1987; the agreement of halves as in Lange et al., Stability-based validation of
    clustering solutions, 2004; the Gaussian rows as in Tibshirani et al., the gap statistic, 2001.
    """
    own, seen = z[:used], z[: min(SEEN, used)]
    noise = torch.randn(own.shape, generator=generator).to(z) * own.std(dim=0)
    apart, apart_noise = (_distances(rows[: len(seen)]) for rows in (own, noise))
    chance: list[float] = []
    heights, repeats, labels = [], [], []
    for number in numbers:
        label = nearest_of(z, centres(own, number, generator))
        labels.append(label.cpu().numpy())
        heights.append(silhouette(apart, label[: len(seen)], number))
        agreed, by_chance = (_halves_agree(rows, number, generator) for rows in (own, noise))
        repeats.append(max(0.0, (agreed - by_chance) / max(1 - by_chance, LEFT)))
        if len(chance) < FEW:
            other = nearest_of(noise[: len(seen)], centres(noise, number, generator))
            chance.append(silhouette(apart_noise, other, number))
    above = max(heights[:FEW]) / max(*chance, 1e-9) if len(chance) > 1 else heights[0] / max(chance[0], 1e-9)
    return Curves(np.array(numbers), np.array(heights), np.array(repeats), float(above), labels)


def centres(z: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Centres (number, D) of a run of k-means."""
    return k_means(z, plus_plus(z, z[:0], number, generator), None, STEPS)[0]


def nearest_of(z: Tensor, centre: Tensor) -> Tensor:
    """The nearest centre (N,) of every row."""
    return torch.cat([squared_distances(part, centre).argmin(dim=1) for part in z.split(AT_ONCE)])


def silhouette(apart: Tensor, label: Tensor, number: int) -> float:
    r"""Mean of :math:`(b - a) / \max(a, b)`: a the mean distance to the own cluster, b to the nearest other one.

    0 for a row alone in its cluster; 0 where all rows are in one.

    Args:
        apart: (n, n) distances.
        label: (n,) clusters.
        number: of clusters, of which some may be empty.
    """
    member = torch.nn.functional.one_hot(label, number).to(apart)
    size = member.sum(dim=0)
    if int((size > 0).sum()) < 2:
        return 0.0
    total = apart @ member
    own = total.gather(1, label[:, None])[:, 0] / (size[label] - 1).clamp(min=1)
    mean = torch.where(size > 0, total / size.clamp(min=1), torch.inf).scatter(1, label[:, None], torch.inf)
    other = mean.amin(dim=1)
    value = (other - own) / torch.maximum(own, other).clamp(min=1e-12)
    return float(torch.where(size[label] > 1, value, 0.0).mean())


def agreement(told: Tensor, labels: list[np.ndarray]) -> np.ndarray:
    """Adjusted Rand index (T,) of each clustering with classes (N,) that are told of some rows, others -1."""
    from sklearn.metrics import adjusted_rand_score

    rows = (told >= 0).nonzero().flatten().numpy()
    return np.array([adjusted_rand_score(told.numpy()[rows], label[rows]) for label in labels])


def _halves_agree(z: Tensor, number: int, generator: torch.Generator) -> float:
    """Adjusted Rand index of the clusters of two halves of the rows, on all of them."""
    from sklearn.metrics import adjusted_rand_score

    half = len(z) // 2
    one, other = (nearest_of(z, centres(part, number, generator)) for part in (z[:half], z[half:]))
    return float(adjusted_rand_score(one.cpu().numpy(), other.cpu().numpy()))


def _distances(z: Tensor) -> Tensor:
    return squared_distances(z, z).sqrt()
