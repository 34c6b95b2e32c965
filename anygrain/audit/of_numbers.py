"""Records of a number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.audit.errors import error_share
from anygrain.audit.judged import JudgedPart, array
from anygrain.audit.residuals import Residuals
from anygrain.labels import Ratings, RealLabels, Value
from anygrain.labels.real.all import RealAll
from anygrain.labels.real.rating_channel import RatingChannel

#: of setting ratings aside that look wrong, and of fitting annotators to the rest
ROUNDS = 5


def judge_numbers(labels: RealLabels, mean: Any, variance: Any) -> JudgedPart:
    r"""Judge records of a number by a model's mean and variance, (N,) each.

    With probability e a record has nothing to do with its row and is drawn like any other:

    .. math:: P(\text{wrong}) = \frac{e\, u_r}{e\, u_r + (1 - e) P_r}

    with P the density of the record by everything else, and u its density where the row is not known. Of records that
    are a number themselves (`Value`, `Ratings`) P is learnt with e, since residuals are seldom normal (`Residuals`);
    of intervals and sums P is the model's, and u that under the mean and variance of all predictions. Ratings that look
    wrong are set aside while others of their item are judged.
    """
    mean = torch.as_tensor(np.asarray(mean), dtype=torch.float64)
    variance = torch.as_tensor(np.asarray(variance), dtype=torch.float64)
    labels = _with_new_annotators(labels)
    scores = labels.record_scores(mean, variance).double()
    residual = labels.record_residuals(mean, variance).double()
    told = scores != 0
    at, given = _instances_and_values(labels)
    value = torch.from_numpy(given)
    wrong, learnt = _by_residuals(labels, value, scores, residual)
    if any(isinstance(p, Ratings) for p in _parts(labels)):
        apart = torch.zeros_like(told)
        for _ in range(ROUNDS):
            # one rating of an item at a time: it may be what makes the others look odd
            apart = (apart & (wrong > 0.5)) | _worst_of_item(torch.where(apart, 0.0, wrong), torch.from_numpy(at))
            without = _scores_without(labels, apart, mean, variance)
            wrong, learnt = _by_residuals(labels, value, *without)
    rest = told & ~learnt
    if bool(rest.any()):
        centre = mean.mean().expand_as(mean)
        spread = (mean.var(correction=0) + variance.mean()).expand_as(mean) * 2
        chance = labels.record_scores(centre, spread).double()
        wrong[rest] = error_share(scores[rest], chance[rest])[0]
    return JudgedPart(
        given=given,
        proposed=np.where(at >= 0, array(mean)[at.clip(0)], np.nan),
        probability=np.full(len(scores), np.nan),
        wrong=array(wrong),
        nats=array(torch.where(told, residual.nan_to_num(0.0).square() / 2, 0.0)),
        names=None,
        transition=None,
        error=float(wrong[told].mean()) if bool(told.any()) else 0.0,
    )


def _by_residuals(labels: RealLabels, value: Tensor, scores: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
    """P(wrong) of the records that are numbers themselves, 0 elsewhere, and which they are, both (R,)."""
    wrong, learnt = torch.zeros_like(scores), torch.zeros_like(scores, dtype=torch.bool)
    start = 0
    for part in _parts(labels):
        mine = slice(start, start + part.n_records)
        start += part.n_records
        if not isinstance(part, Value | Ratings):
            continue
        rows = ((scores[mine] != 0) & residual[mine].isfinite()).nonzero()[:, 0] + mine.start
        if len(rows):
            z = residual[rows]
            sd = torch.exp(-scores[rows] - z.square() / 2 - 0.5 * math.log(2 * math.pi))
            predicted = value[rows] - z * sd
            wrong[rows] = Residuals.learnt(value[rows], predicted, sd).wrong(value[rows], predicted, sd)
            learnt[rows] = True
    return wrong, learnt


def _with_new_annotators(labels: RealLabels) -> RealLabels:
    """The labels with annotators of ratings as before the first rating: wrong ones would have made them careless."""
    if not any(isinstance(p, Ratings) for p in _parts(labels)):
        return labels
    parts: list[RealLabels] = []
    for part in _parts(labels):
        if isinstance(part, Ratings):
            told, slope = part.values[part.said()].double(), part.channel.with_slope
            part = part._fresh()
            scale = float(told.std(correction=0)) if len(told) else 0.0
            part.channel = RatingChannel(
                part.n_annotators,
                scale=scale if scale > 0 else 1.0,
                centre=float(told.mean()) if len(told) else 0.0,
                slope=slope,
            ).to(part.device)
        parts.append(part)
    return RealAll(*parts)


def _worst_of_item(wrong: Tensor, at: Tensor) -> Tensor:
    """bool (R,): the record of every instance that is most probably wrong, where it is wrong rather than right."""
    most = torch.zeros(int(at.max()) + 2, dtype=wrong.dtype).scatter_reduce(0, at + 1, wrong, "amax")
    return (wrong > 0.5) & (at >= 0) & (wrong == most[at + 1])


def _scores_without(labels: RealLabels, apart: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and residuals of all records, (R,), where ratings set apart, bool (R,), tell nothing of the others.

    The annotators are fitted anew to those that are kept: one rating that is far off makes its annotator careless.
    """
    kept: list[RealLabels] = []
    start = 0
    for part in _parts(labels.with_own_channels()):
        mine = slice(start, start + part.n_records)
        start += part.n_records
        if isinstance(part, Ratings):
            part = part._fresh()
            part.values = part.values.masked_fill(apart[mine], torch.nan)
        kept.append(part)
    rest = RealAll(*kept)
    belief = rest.posterior(mean, variance)
    for _ in range(ROUNDS):
        rest.update(belief.mean, belief.variance)
        belief = rest.posterior(mean, variance)
    scores, residual = rest.record_scores(mean, variance).double(), rest.record_residuals(mean, variance).double()
    start = 0
    for part, given in zip(kept, _parts(labels), strict=True):
        mine = slice(start, start + part.n_records)
        start += part.n_records
        if isinstance(part, Ratings) and isinstance(given, Ratings):
            slope, offset, noise = part.channel.reading(part.annotators)
            sd = (slope.square() * belief.variance[part.items] + noise).sqrt()
            z = (given.values.to(sd) - slope * belief.mean[part.items] - offset) / sd
            alone = -z.square() / 2 - sd.log() - 0.5 * math.log(2 * math.pi)
            scores[mine] = torch.where(apart[mine], alone, scores[mine])
            residual[mine] = torch.where(apart[mine], z, residual[mine])
    return scores, residual


def _parts(labels: RealLabels) -> list[RealLabels]:
    return list(labels.parts) if isinstance(labels, RealAll) else [labels]


def _instances_and_values(labels: RealLabels) -> tuple[np.ndarray, np.ndarray]:
    """Instance (R,) of every record, -1 of a set, and the number that it gives, NaN where none."""
    at: list[Tensor] = []
    values: list[Tensor] = []
    for part in _parts(labels):
        own = getattr(part, "record_instances", None)
        n = part.n_records
        if hasattr(part, "total"):
            at.append(torch.full((n,), -1))
            values.append(part.total)
            continue
        at.append(torch.arange(n) if own is None else own)
        values.append(part.rough() if own is None else part.values)  # type: ignore[attr-defined]
    return array(torch.cat(at)), array(torch.cat([v.double() for v in values]))
