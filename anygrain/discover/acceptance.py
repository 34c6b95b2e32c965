"""Rows that a classifier of known classes accepts, and the division of those that it rejects into new classes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from anygrain.discover.semi_supervised_k_means import Centres, SemiSupervisedKMeans
from anygrain.discover.task import Task


def accepted(task: Task, known: Tensor, unknown: Tensor) -> Tensor:
    """The known class (N,) that accepts a row, -1 where none does, as far as what is said of the row allows it.

    Args:
        known: (N, G) log-scores of known classes.
        unknown: (N,) log-score of being of none; where it is as high as that of every known class, the row is rejected.
    """
    node, g = task.node, task.n_known
    table = task.evidence.log_table(node)
    if table is not None:
        known = known + table[:, :g].to(known)
        some = table[:, g:].max(dim=1).values if len(node) > g else torch.full((task.n_rows,), -torch.inf)
        unknown = unknown + some.to(known)
    elif len(node) == g:
        unknown = torch.full_like(unknown, -torch.inf)
    if g == 0:
        return torch.full((task.n_rows,), -1)
    best = known.max(dim=1)
    return torch.where(unknown >= best.values, -1, best.indices).cpu()


def divided(task: Task, x: Tensor, choice: Tensor) -> Centres:
    """Centres of all K classes in a space, by k-means in which accepted rows stay and rejected ones are new.

    Args:
        x: (N, E) the rows in that space.
        choice: (N,) known class of every row, -1 for none.
    """
    evidence, g = task.evidence, task.n_known
    if g:
        taken, old = choice >= 0, evidence.known
        table = torch.full((task.n_rows, g), -torch.inf)
        table[taken, choice[taken]] = 0
        if old is not None:
            table[evidence.told] = old[evidence.told]
        evidence = replace(evidence, known=table, told=evidence.told | taken)
    part = replace(task, features=x.to(task.features.device), evidence=evidence)
    model = SemiSupervisedKMeans(seed=task.seed)._find(part).model
    assert isinstance(model, Centres)
    return model


def joined(known: Tensor, unknown: Tensor, new: Tensor) -> Tensor:
    r"""Log-probabilities (B, G + N) of known and new classes, of which a new one is likeliest where `unknown` wins.

    .. math:: p_k \propto e^{a_k}\ (k < G), \qquad p_{G + j} \propto e^{u + b_j - \max_l b_l}

    Args:
        known: a, (B, G) log-scores of known classes.
        unknown: u, (B,) log-score of being of none.
        new: b, (B, N) log-scores of the new classes.
    """
    if new.shape[1]:
        new = unknown[:, None] + new - new.max(dim=1, keepdim=True).values
    return torch.cat([known, new], dim=1).log_softmax(dim=1)
