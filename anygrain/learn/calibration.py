"""Temperature from held-out evidence, without clean labels."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.labels import All, Labels, SetLabels

#: confidences that `predict(level="auto")` has a threshold for
CONFIDENCES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.999)
#: inverse temperatures tried, from flatter to sharper
TEMPERATURES = tuple(float(t) for t in torch.logspace(-1, 2.585, 8, base=2.0))


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
    """Mean log-likelihood per row of the observations whose members are all among some instances, bool (N,)."""
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


def fit_temperature(labels: Labels, logits: Tensor, instances: Tensor, *, default: float) -> float:
    r"""The inverse temperature that makes held-out evidence likeliest.

    .. math:: t = \arg\max_t \sum_o \log P(o \mid \mathrm{log\_softmax}(t L))

    over observations among some instances, bool (N,), with out-of-fold logits L (N, K). `default` where no evidence
    tells temperatures apart.
    """
    part = told(labels)
    if part is None or not bool(instances.any()):
        return default
    scores = torch.tensor([evidence_score(part, (t * logits).log_softmax(dim=1), instances) for t in TEMPERATURES])
    if float(scores.max() - scores.min()) < 1e-4:
        return default
    best = int(scores.argmax())
    if best in (0, len(TEMPERATURES) - 1):
        return TEMPERATURES[best]
    # the top of the parabola through the best three, in log t
    low, mid, high = (float(s) for s in scores[best - 1 : best + 2])
    bend = low - 2 * mid + high
    shift = 0.0 if bend >= 0 else 0.5 * (low - high) / bend
    step = TEMPERATURES[best + 1] / TEMPERATURES[best]
    return float(TEMPERATURES[best] * step**shift)


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
