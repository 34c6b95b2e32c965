"""Temperature from held-out evidence, without clean labels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from anygrain.labels import All, Labels, SetLabels
from anygrain.learn.given_x import as_judged

#: confidences that `predict(level="auto")` has a threshold for
CONFIDENCES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.999)
#: inverse temperatures tried, from flatter to sharper
TEMPERATURES = tuple(float(t) for t in torch.logspace(-1, 2.585, 8, base=2.0))
FLATTEST = 0.02  # where the flattest of them is the best, flatter ones are tried down to here


def told(labels: Labels) -> Labels | None:
    """The part of labels whose likelihood is exact, so that it may fit a temperature; None where there is none.

    A composite or a bound counts correlated classes several times and sharpens too much.
    """
    if labels.exact:
        return labels
    if not isinstance(labels, All):
        return None
    parts = [part for part in labels.parts if part.exact and not isinstance(part, SetLabels)]
    return All(*parts) if parts else None


def evidence_score(labels: Labels, log_probs: Tensor, instances: Tensor) -> float:
    """Mean log-likelihood per row of the observations whose members are all among some instances, bool (N,).

    Where heads judged the target of sources that saw x, it is what they say that is observed.
    """
    labels = as_judged(labels)
    value = labels.infer(log_probs)[0]
    weight = value.new_ones(len(value)) if labels.weight is None else labels.weight.to(value)
    weight = weight * observed(labels, instances)
    return float(weight @ value / max(int(instances.sum()), 1))


def observed(labels: Labels, instances: Tensor) -> Tensor:
    """bool (M,): observations whose members are all among some instances, bool (N,)."""
    structure = labels.structure
    missing = torch.zeros(structure.n_sets, dtype=torch.bool, device=labels.device)
    missing[structure.sets[~instances[structure.members]]] = True
    if labels.n_observations == structure.n_sets:
        return ~missing
    free = instances[structure.free] if structure.n_sets else instances
    return torch.cat([~missing, free])


def place_in(confidence: Tensor, rows: Tensor, share: Tensor) -> Tensor:
    """Place of some rows, indices (n,), among all rows by confidence, (n,): 0 the least sure, 1 the surest.

    Args:
        confidence: of all rows, (N,).
        rows: indices, (n,).
        share: how many rows each row stands for, (N,).
    """
    order = confidence.argsort()
    total = torch.cat([share.new_zeros(1), share[order].cumsum(dim=0)])
    ordered = confidence[order].contiguous()
    below = total[torch.searchsorted(ordered, confidence[rows].contiguous())]
    upto = total[torch.searchsorted(ordered, confidence[rows].contiguous(), right=True)]
    return (below + upto) / (2 * total[-1])


def unlike_all(place: Tensor, weight: Tensor) -> float:
    r"""How far labelled rows are from a sample of all rows, 0: as far as chance goes, to 1.

    .. math:: \Big(1 - \frac{4}{z^2}\Big)_+, \qquad z = \frac{\bar u - 1/2}{\sqrt{\sum_i w_i^2 / 12}}

    with u the place of a row among all rows by how sure a model is that has not seen it. It is uniform for rows at
    random, and not for rows that were labelled because they are hard, or easy.

    Args:
        place: u, (n,), by `place_in`.
        weight: w, how many rows each stands for, (n,), with sum 1.
    """
    z = (float(weight @ place) - 0.5) / math.sqrt(float(weight.square().sum()) / 12)
    return 1 - 4 / z**2 if abs(z) > 2 else 0.0


def likely_right(named: Tensor, twin: Tensor, shares: Tensor) -> float:
    r"""How often classes (n,) are right, by how far a twin's (n,) agree with them beyond chance.

    .. math:: b + (1 - b) \frac{a - c}{1 - c}, \qquad b = \sum_k \pi_k p_k, \quad c = \sum_k p_k p'_k

    with a the share of rows on which both agree, p and p' the shares of classes that each names, and pi the shares of
    the truth. Networks that both name one class for everything agree on all rows and are right by chance alone; where
    classes are named as often as they are true and all are alike frequent, it is the plain agreement.
    """
    k = len(shares)
    one, two = (torch.bincount(found, minlength=k).double().cpu() / len(found) for found in (named, twin))
    agreed, chance = float((named == twin).double().mean()), float(one @ two)
    beyond = (agreed - chance) / (1 - chance) if chance < 1 else 0.0
    by_chance = float(one @ shares.double().cpu())
    return by_chance + (1 - by_chance) * min(max(beyond, 0.0), 1.0)


def fit_temperature(
    labels: Labels,
    logits: Tensor,
    instances: Tensor,
    *,
    default: float,
    through: Callable[[Tensor], Tensor] | None = None,
    by_heart: bool = False,
) -> float:
    r"""The inverse temperature that makes held-out evidence likeliest.

    .. math:: t = \arg\max_t \sum_o \log P(o \mid \mathrm{log\_softmax}(t L))

    over observations among some instances, bool (N,), with out-of-fold logits L (N, K). `default` where no evidence
    tells temperatures apart. `through` turns log-probabilities of true classes into those of classes as labels give
    them, both (N, K), where the labels do not say themselves how they err.
    `by_heart`: networks may have learnt their rows by heart, so much flatter temperatures are tried too; in the
    rounds of a recipe these would flatten a start that is only weak.
    """
    part = told(as_judged(labels))
    if part is None or not bool(instances.any()):
        return default

    def score(t: float) -> float:
        log_probs = (t * logits).log_softmax(dim=1)
        return evidence_score(part, log_probs if through is None else through(log_probs), instances)

    tried, scores = list(TEMPERATURES), [score(t) for t in TEMPERATURES]
    if max(scores) - min(scores) < 1e-4:
        return default
    step = tried[1] / tried[0]
    while by_heart and scores[0] > scores[1] and tried[0] > FLATTEST:
        tried.insert(0, tried[0] / step)
        scores.insert(0, score(tried[0]))
    best = max(range(len(tried)), key=lambda i: scores[i])
    if best in (0, len(tried) - 1):
        return tried[best]
    # the top of the parabola through the best three, in log t
    low, mid, high = scores[best - 1 : best + 2]
    bend = low - 2 * mid + high
    shift = 0.0 if bend >= 0 else 0.5 * (low - high) / bend
    return float(tried[best] * step**shift)


def confidence_temperature(logits: Tensor, wanted: float) -> float:
    """Inverse temperature at which the mean of the largest probability of logits (N, K) is `wanted`."""
    low, high = 1e-3, 1e3
    for _ in range(60):
        middle = (low * high) ** 0.5
        if float((middle * logits).softmax(dim=1).max(dim=1).values.mean()) < wanted:
            low = middle
        else:
            high = middle
    return float(min(max((low * high) ** 0.5, 0.05), 50.0))
