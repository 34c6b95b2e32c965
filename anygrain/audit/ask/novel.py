"""Queries about rows that probably belong to classes nobody has labelled yet."""

from __future__ import annotations

import math

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from anygrain.audit.ask.uncertainty import margin
from anygrain.labels import LabelError


def novel_queries(log_probs: Tensor, novel: Tensor, n: int, *, round: int, sure_rounds: int = 1) -> Tensor:
    r"""Rows predicted to be of new classes, as many of each as can be, (n,).

    :math:`\lfloor n / C_\mathrm{new} \rfloor` rows of every predicted new class, those with the largest
    :math:`p_{(1)} - p_{(2)}` in the first round (clear members give clusters reliable names), the smallest later
    (boundaries). Places that are left, because classes are small or do not divide n, go to other rows predicted to be
    new, in the same order; where these run out, to the least certain rows of any class.

    Args:
        log_probs: of the rows that may be asked about, (N, K), known and new classes.
        novel: which classes are new, bool (K,).
        n: rows to choose.
        round: of labelling, from 0.
        sure_rounds: rounds in which clear rows are asked for, as published one.

    Raises:
        LabelError: no new class, or n above N.

    Source: Ma et al., Active Generalized Category Discovery, 2024.
    """
    if not bool(novel.any()):
        raise LabelError("no class is new; expected at least one True in novel")
    if not 0 < n <= len(log_probs):
        raise LabelError(f"{n} rows were asked for, and there are {len(log_probs)}")
    predicted = log_probs.argmax(dim=1)
    unsure = margin(log_probs)
    wanted = 1 - unsure if round < sure_rounds else unsure
    order = wanted.argsort(descending=True, stable=True)
    rank = _rank_in_class(predicted[order], log_probs.shape[1])
    is_novel = novel[predicted[order]]
    quota = n // int(novel.sum())
    # 0: within its class's quota, 1: other new rows, 2: the rest, least certain first; where n is below the number of
    # new classes the quota is 0, and one row per class comes first
    first = is_novel & (rank < max(quota, 1))
    tier = torch.where(first, 0, torch.where(is_novel, 1, 2))
    least_certain = unsure[order].argsort(descending=True, stable=True).argsort()
    within = torch.where(tier == 2, least_certain, torch.arange(len(order), device=order.device))
    return order[(tier * (len(order) + 1) + within).argsort(stable=True)][:n]


def _rank_in_class(classes: Tensor, n_classes: int) -> Tensor:
    """How many earlier rows have the same class, (N,)."""
    order = classes.argsort(stable=True)
    count = torch.bincount(classes, minlength=n_classes)
    start = count.cumsum(0) - count
    rank = torch.empty_like(classes)
    rank[order] = torch.arange(len(classes), device=classes.device) - start[classes[order]]
    return rank


def label_map(predicted: Tensor, true: Tensor, n_classes: int, previous: Tensor | None = None) -> Tensor:
    """Index that a model uses for every true class, (K,), one to one: the assignment with most rows in agreement.

    Args:
        predicted: classes (n,) that the model gives to labelled rows.
        true: their true classes (n,).
        n_classes: K.
        previous: an earlier map; kept where the new one does not agree on more rows.

    Pairs of classes without labelled rows are arbitrary.
    """
    agree = torch.zeros(n_classes, n_classes, dtype=torch.long)
    agree.index_put_((true.cpu(), predicted.cpu()), torch.ones(len(true), dtype=torch.long), accumulate=True)
    rows, columns = linear_sum_assignment(agree.numpy(), maximize=True)
    found = torch.from_numpy(columns[rows.argsort()])
    every = torch.arange(n_classes)
    if previous is not None and int(agree[every, previous].sum()) >= int(agree[every, found].sum()):
        return previous
    return found


def novelty(classes: Tensor, novel: Tensor) -> dict[str, float]:
    """How new the rows of a query were.

    Args:
        classes: their true classes, (n,).
        novel: which classes are new, bool (K,).

    Returns:
        coverage: share of new classes among them; ratio: share of rows of new classes; uniformity: entropy of the
        counts of new classes, in nats, at most log(number of new classes).
    """
    counts = torch.bincount(classes[novel[classes]], minlength=len(novel))[novel].double()
    total = float(counts.sum())
    share = counts / max(total, 1.0)
    return {
        "coverage": float((counts > 0).double().mean()),
        "ratio": total / len(classes) if len(classes) else math.nan,
        "uniformity": float(-torch.special.xlogy(share, share).sum()),
    }
