"""Soft numbers from ratings: a mean and a standard deviation for every item, by several methods and their mixture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from anygrain.labels import LabelError, Ratings
from anygrain.labels.aggregate import aggregate

#: of the median of normal errors, variance against that of the mean: pi / 2
OF_MEDIAN = 1.5707963267948966
#: degrees of freedom of the errors of the robust method, and passes of its reweighting
FREEDOM, PASSES = 4.0, 50


class SoftNumbers(NamedTuple):
    """What is believed of the number of every item, both (N,); NaN for an item without ratings."""

    mean: Tensor
    sd: Tensor


def soft_numbers(ratings: Ratings, methods: Sequence[str] | None = None) -> tuple[SoftNumbers, dict[str, SoftNumbers]]:
    r"""A mean and a standard deviation for every item: one pair per method, and those of the methods' mixture.

    .. math:: \bar\mu_i = \frac1M \sum_m \mu_{im}, \qquad
              \bar\sigma_i^2 = \frac1M \sum_m \sigma_{im}^2 + \frac1M \sum_m (\mu_{im} - \bar\mu_i)^2

    The counterpart of `soft_labels` for answers on the real line: where methods differ the mixture is less sure than
    each of them. Train on it with `Value(mean, sd ** 2)`.

    Args:
        ratings: of annotators.
        methods: keys of `METHODS`; all when not given.

    Returns:
        the mixture, and what each method says by name.

    Raises:
        LabelError: an unknown method, or none; no ratings at all.
    """
    chosen = list(METHODS) if methods is None else list(methods)
    if not chosen:
        raise LabelError(f"methods is empty; expected some of {', '.join(METHODS)}")
    for name in chosen:
        if name not in METHODS:
            raise LabelError(f'method "{name}" is not known; expected one of {", ".join(METHODS)}')
    items, _, _ = _given(ratings)
    if not len(items):
        raise LabelError("there are no ratings: every value is missing")
    silent = torch.bincount(items, minlength=ratings.n_instances) == 0
    found = {
        name: SoftNumbers(*(part.masked_fill(silent, torch.nan) for part in METHODS[name](ratings))) for name in chosen
    }
    means, sds = (torch.stack(parts) for parts in zip(*found.values(), strict=True))
    middle = means.mean(dim=0)
    variance = sds.square().mean(dim=0) + (means - middle).square().mean(dim=0)
    return SoftNumbers(middle, variance.sqrt()), found


def _given(ratings: Ratings) -> tuple[Tensor, Tensor, Tensor]:
    """Item, annotator and value, float64, of the ratings that were given."""
    given = ~ratings.values.isnan()
    return ratings.items[given], ratings.annotators[given], ratings.values[given].double()


def _sums(items: Tensor, values: Tensor, n: int) -> Tensor:
    return torch.zeros(n, dtype=torch.float64, device=values.device).index_add_(0, items, values)


def _within(items: Tensor, gaps: Tensor, n: int) -> float:
    """Variance of a rating about its item, pooled over items, from gaps (R,) to the mean of the item."""
    freedom = len(items) - int((torch.bincount(items, minlength=n) > 0).sum())
    return float(gaps.square().sum()) / freedom if freedom > 0 else float(gaps.square().sum())


def mean(ratings: Ratings) -> SoftNumbers:
    r"""The mean rating and its standard error :math:`s / \sqrt{n_i}`, s pooled over items."""
    items, _, values = _given(ratings)
    n = ratings.n_instances
    count = torch.bincount(items, minlength=n).clamp(min=1).double()
    middle = _sums(items, values, n) / count
    return SoftNumbers(middle, (_within(items, values - middle[items], n) / count).sqrt())


def median(ratings: Ratings) -> SoftNumbers:
    r"""The median rating, or the mean of the middle two, and :math:`s \sqrt{\pi / 2 n_i}`; that of the mean below 3."""
    items, _, values = _given(ratings)
    n = ratings.n_instances
    order = torch.argsort(values)
    order = order[torch.argsort(items[order], stable=True)]
    ordered, count = values[order], torch.bincount(items, minlength=n)
    first = count.cumsum(0) - count
    last = len(ordered) - 1
    low, high = ((first + at).clamp(max=last) for at in ((count - 1).clamp(min=0) // 2, count // 2))
    middle = (ordered[low] + ordered[high]) / 2
    average = _sums(items, values, n) / count.clamp(min=1)
    within = _within(items, values - average[items], n)
    factor = 1 + (OF_MEDIAN - 1) * (count > 2).double()
    return SoftNumbers(middle, (within * factor / count.clamp(min=1).double()).sqrt())


def precision(ratings: Ratings) -> SoftNumbers:
    """The posterior under annotators with a bias and a variance each, see `RatingChannel`."""
    found = aggregate(ratings.with_own_channels())
    return SoftNumbers(found.mean, found.variance.sqrt())


def robust(ratings: Ratings) -> SoftNumbers:
    r"""The centre of Student errors with four degrees of freedom about the biases, by reweighting.

    .. math:: \mu_i = \frac{\sum_r w_r (x_r - b_r)}{\sum_r w_r}, \qquad w_r = \frac{5}{4 + (x_r - b_r - \mu_i)^2 / s^2}

    with the scale s common to all, and the biases b those of `precision`. The variance is
    :math:`s^2 \cdot 7 / (5 n_i)`, the inverse Fisher information.

    Source: Lange, Little and Taylor, Robust statistical modeling using the t distribution, 1989.
    """
    items, who, values = _given(ratings)
    n = ratings.n_instances
    channel = aggregate(ratings.with_own_channels()).channels[0]
    bias = torch.where(who >= 0, channel.bias[who.clamp(min=0)], 0.0) if channel.n_annotators else 0.0
    values = values - bias
    count = torch.bincount(items, minlength=n).clamp(min=1).double()
    centre = median(ratings).mean
    weight = torch.ones_like(values)
    freedom = max(len(values) - int((torch.bincount(items, minlength=n) > 0).sum()), 1)
    spread = 1.0
    for _ in range(PASSES):
        centre = torch.where(count > 0, _sums(items, weight * values, n) / _sums(items, weight, n).clamp(min=1e-300), 0)
        gap = values - centre[items]
        spread = max(float((weight * gap.square()).sum()) / freedom, 1e-300)
        weight = (FREEDOM + 1) / (FREEDOM + gap.square() / spread)
    factor = (FREEDOM + 3) / (FREEDOM + 1)
    return SoftNumbers(centre, (factor * spread / count).sqrt())


METHODS: dict[str, Callable[[Ratings], SoftNumbers]] = {
    "mean": mean,
    "median": median,
    "precision": precision,
    "robust": robust,
}
