"""The share of positives among unlabelled rows, from held-out scores."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from anygrain.labels.error import LabelError, numbers

#: labelled rows from which a prior can be estimated
FEWEST = 10
#: standard errors on the low side of an interval
BELOW = 1.96
#: and on the high side: the bin was chosen to be low
ABOVE = 2.5
#: share of the labelled rows that a bin for the low end must hold
SMALLEST_BIN = 0.1


class PriorEstimate(NamedTuple):
    """A class prior and its 95 % interval."""

    estimate: float
    low: float
    high: float


def estimate_prior(
    scores: Any, labelled: Any, scenario: Literal["single", "case-control"] = "single", *, delta: float = 0.1
) -> PriorEstimate:
    r"""The class prior from scores that rank positives high, by best bin estimation.

    Let :math:`F_L(z)` and :math:`F_U(z)` be the shares of labelled and of unlabelled rows with a score of z or more.
    Positives score alike in both, so :math:`F_U(z) \ge \alpha F_L(z)` for the share :math:`\alpha` of positives among
    unlabelled rows, with equality where all rows that score as high are positives. The estimate is

    .. math:: \hat\alpha = \frac{F_U(\hat z)}{F_L(\hat z)}, \quad \hat z = \arg\min_z \frac{F_U(z)}{F_L(z)}
              + \frac{1.01}{F_L(z)} \Big( \sqrt{\tfrac{\log(4/\delta)}{2 n_U}}
              + \sqrt{\tfrac{\log(4/\delta)}{2 n_L}} \Big)

    In one training set the prior is :math:`(n_L + \alpha n_U) / N`, in case-control it is :math:`\alpha`.

    *Interval.* The high end is 2.5 standard errors of the log ratio above the estimate, whose bin was chosen to be low.
    Where no bin is pure the estimate is too high, and nothing in the scores can tell by how much; so the low end is the
    least that any bin of a tenth or more of the labelled rows allows, 1.96 standard errors below its own ratio. It
    covers impurity as far as purer bins show it: where positives and negatives overlap everywhere, the truth may be
    lower still.

    Args:
        scores: shape (N,), higher where positive is likelier, of a model that saw none of these rows' labels.
        labelled: bool, shape (N,); the other rows are unlabelled.
        scenario: as in `Positive`.
        delta: 1 - the confidence of the bound that chooses the bin.

    Raises:
        LabelError: fewer than 10 labelled or unlabelled rows, or scores that are not finite.

    Source: Garg, Wu, Smola, Balakrishnan and Lipton, Mixture proportion estimation and PU learning: a modern approach,
    2021; the standard error of a ratio of shares: Katz and others, 1978.
    """
    score = numbers(scores, "scores").detach().cpu().double()
    is_labelled = numbers(labelled, "labelled").cpu().bool()
    if score.shape != is_labelled.shape or score.ndim != 1:
        raise LabelError(
            f"scores have shape {tuple(score.shape)} and labelled {tuple(is_labelled.shape)}; expected (N,)"
        )
    if not bool(torch.isfinite(score).all()):
        raise LabelError("a score is not finite; expected a number for every row")
    n, u = int(is_labelled.sum()), int((~is_labelled).sum())
    if min(n, u) < FEWEST:
        few = f"{n} labelled" if n < u else f"{u} unlabelled"
        raise LabelError(f"only {few} rows; estimating a class prior takes {FEWEST} or more, so give prior=...")
    of_labelled, of_unlabelled = _reached(score, is_labelled, n, u)
    slack = 1.01 * (math.sqrt(math.log(4 / delta) / 2 / u) + math.sqrt(math.log(4 / delta) / 2 / n))
    ratio = of_unlabelled / of_labelled
    best = int((ratio + slack / of_labelled).argmin())
    error = ((1 - of_labelled) / (n * of_labelled) + (1 - of_unlabelled) / (u * of_unlabelled.clamp(min=1 / u))).sqrt()
    large = of_labelled >= min(max(SMALLEST_BIN, FEWEST / n), 1.0)
    low = float((ratio * (-BELOW * error).exp())[large].min())
    high = float(ratio[best] * (ABOVE * error[best]).exp())
    share = [min(max(a, 0.5 / u), 1 - 0.5 / u) for a in (float(ratio[best]), low, high)]
    if scenario == "single":
        share = [(n + a * u) / (n + u) for a in share]
    return PriorEstimate(*share)


def _reached(score: Tensor, labelled: Tensor, n: int, u: int) -> tuple[Tensor, Tensor]:
    """Shares of n labelled and of u unlabelled rows that score at least as high as each labelled row, both (n,)."""
    own, other = -score[labelled].sort(descending=True).values, -score[~labelled].sort(descending=True).values
    return torch.searchsorted(own, own, right=True) / n, torch.searchsorted(other, own, right=True) / u
