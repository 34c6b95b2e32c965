"""A small error that all hard kinds share, learnt where they contradict each other."""

from __future__ import annotations

import math

import torch

from anygrain.labels import All, Labels

GRID = tuple(10 ** (-4 + 3.5 * step / 20) for step in range(21))  # .0001 to .32


def common_error(labels: Labels) -> float:
    r"""The error at which hard kinds explain each other best, 0 where they never contradict each other.

    .. math:: \hat\epsilon = \arg\max_\epsilon \sum_m w_m \log P_\epsilon(o_m \mid p), \qquad p_i(k) = 1 / K

    Every hard kind without an `error` of its own takes part (`Labels.with_error`). Features play no role: a poor first
    classifier must not make good labels look wrong.

    Args:
        labels: N instances of K classes.
    """
    parts = labels.parts if isinstance(labels, All) else [labels]
    hard = [p for p in parts if getattr(p, "error", None) == 0]
    overlapping = any(p.structure.overlaps for p in hard)
    if len(hard) < 2 and not overlapping:
        return 0.0
    uniform = torch.full(
        (labels.n_instances, labels.n_classes), -math.log(labels.n_classes), dtype=torch.float64, device=labels.device
    )
    if not bool(labels.contradictions(uniform).any()):
        return 0.0
    weight = 1.0 if labels.weight is None else labels.weight.to(uniform)
    scores = [float((labels.with_error(e).infer(uniform)[0] * weight).sum()) for e in GRID]
    return GRID[max(range(len(GRID)), key=scores.__getitem__)]
