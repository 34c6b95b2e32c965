"""Records of a number."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.audit.errors import error_share
from anygrain.audit.judged import JudgedPart, array
from anygrain.labels import RealLabels
from anygrain.labels.real.all import RealAll

LOG_2PI = float(np.log(2 * np.pi))


def judge_numbers(labels: RealLabels, mean: Any, variance: Any) -> JudgedPart:
    r"""Judge records of a number by a model's mean and variance, (N,) each.

    With probability e a record has nothing to do with its row and is drawn like any other:

    .. math:: P(\text{wrong}) = \frac{e\, u_r}{e\, u_r + (1 - e) P_r}

    with P the density of the record by everything else, and u its density where the row is not known: under the mean
    and variance of all predictions.
    """
    mean = torch.as_tensor(np.asarray(mean), dtype=torch.float64)
    variance = torch.as_tensor(np.asarray(variance), dtype=torch.float64)
    scores = labels.record_scores(mean, variance)
    told = scores != 0
    centre = mean.mean().expand_as(mean)
    spread = (mean.var(correction=0) + variance.mean()).expand_as(mean) * 2
    chance = labels.record_scores(centre, spread)
    wrong = torch.zeros_like(scores)
    astray, e = error_share(scores[told], chance[told])
    wrong[told] = astray
    residual = labels.record_residuals(mean, variance).nan_to_num(0.0)
    at, given = _instances_and_values(labels)
    return JudgedPart(
        given=given,
        proposed=np.where(at >= 0, array(mean)[at.clip(0)], np.nan),
        probability=np.full(len(scores), np.nan),
        wrong=array(wrong),
        nats=array(torch.where(told, residual.square() / 2, 0.0)),
        names=None,
        transition=None,
        error=e,
    )


def _instances_and_values(labels: RealLabels) -> tuple[np.ndarray, np.ndarray]:
    """Instance (R,) of every record, -1 of a set, and the number that it gives, NaN where none."""
    at: list[Tensor] = []
    values: list[Tensor] = []
    for part in labels.parts if isinstance(labels, RealAll) else [labels]:
        own = getattr(part, "record_instances", None)
        n = part.n_records
        if hasattr(part, "total"):
            at.append(torch.full((n,), -1))
            values.append(part.total)
            continue
        at.append(torch.arange(n) if own is None else own)
        values.append(part.rough() if own is None else part.values)  # type: ignore[attr-defined]
    return array(torch.cat(at)), array(torch.cat([v.double() for v in values]))
