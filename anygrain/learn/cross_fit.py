"""Predictions of every row by a network that was trained without it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from anygrain.encoders.trainable import Arrays, Inputs, TrainableEncoder
from anygrain.labels import Labels
from anygrain.labels.observations import Observations
from anygrain.learn.end_to_end import EndToEnd
from anygrain.learn.recipe import split_groups

PARTS = 2  # networks; each is trained on the rows outside its part


class SomeRows:
    """Some rows of inputs, (R,)."""

    def __init__(self, rows: Inputs, chosen: Tensor) -> None:
        self.rows, self.chosen = rows, chosen
        costs: Tensor | None = getattr(rows, "costs", None)
        self.costs = None if costs is None else costs[chosen]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, rows: Tensor) -> Arrays:
        return self.rows[self.chosen[rows.cpu()]]


def cross_fitted(
    train: Callable[..., EndToEnd],
    encoder: TrainableEncoder,
    rows: Inputs,
    labels: Observations,
    told: Tensor,
    epochs: int,
    seed: int,
    *,
    part_of: Callable[[Tensor], Observations],
    name: str = "part",
    before: int = 1,
) -> Tensor | None:
    """What is said of every data row by a network that has not seen it, (rows, ...); None where no split is possible.

    Rows that a label joins stay in one part, and every part has its share of the rows of which something is told. The
    networks have as many epochs as the one that stays, so together they cost as much as that one.

    Args:
        train: makes a training of an encoder, inputs and labels, with the options `part`, `before`, `epochs`.
        encoder: has learnt from the data, is not trained yet.
        rows: inputs of all data rows.
        labels: of these rows.
        told: rows of which something is told, bool (rows,).
        epochs: of every network.
        seed: of the split.
        part_of: labels of some rows (R,) whose channels have seen no others.
        name: what the names of the steps begin with.
        before: trainings that were before these, for progress.
    """
    fold = split_in_parts(labels.groups().cpu(), told, seed)
    if fold is None:
        return None
    found: Tensor | None = None
    for f in range(PARTS):
        inside, outside = (fold != f).nonzero()[:, 0], (fold == f).nonzero()[:, 0]
        training = train(
            copy.deepcopy(encoder),
            SomeRows(rows, inside),
            part_of(inside),
            part=f"{name} {f + 1} ",
            before=before + f,
            epochs=epochs,
        )
        training.fit()
        said = training.predicted(SomeRows(rows, outside))
        if found is None:
            found = said.new_empty(len(rows), *said.shape[1:])
        found[outside.to(said.device)] = said
    return found


def rank_in_class(labels: Labels, told: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random rank of every group of rows among those of its kind, the size of the kind, and the kind, all (rows,).

    Rows that labels join are one, and the first instance of which something is told speaks for them. Kinds are the
    classes of instances that are sure of one, K for those that are not, and -1 where nothing is told.

    Args:
        told: instances of which something is told, bool (N,), on the CPU.
    """
    _, group = labels.groups().cpu().unique(return_inverse=True)
    kind = torch.full((int(group.max()) + 1,), -1)
    uniform = torch.zeros(labels.n_instances, labels.n_classes, device=labels.device).log_softmax(dim=1)
    sure, best = labels.posterior(uniform).cpu().max(dim=1)
    known = told.nonzero()[:, 0]
    first = torch.full_like(kind, labels.n_instances)
    first = first.scatter_reduce(0, group[labels.rows.cpu()[known]], known, "amin")
    spoken = first < labels.n_instances
    kind[spoken] = torch.where(sure > 0.9, best, labels.n_classes)[first[spoken]]
    order = torch.randperm(len(kind), generator=torch.Generator().manual_seed(seed))
    order = order[torch.argsort(kind[order], stable=True)]
    count = torch.bincount(kind + 1)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order)) - (count.cumsum(0) - count)[kind[order] + 1]
    return rank[group], count[kind + 1][group], kind[group]


def held_part(labels: Labels, told: Tensor, seed: int) -> Tensor | None:
    """bool (rows,): about a fifth of the rows of which something is told, of every class its share; None for none.

    Of three or four rows of a class one is held out, of fewer none. Rows that labels join stay together.

    Args:
        told: instances of which something is told, bool (N,), on the CPU.
    """
    rank, count, kind = rank_in_class(labels, told, seed)
    held = (kind >= 0) & (rank < (count + 2) // 5)
    known = torch.zeros(len(labels), dtype=torch.bool).index_fill_(0, labels.rows.cpu()[told], True)
    few = not bool((held & known).any()) or int((held & known).sum()) > int(known.sum()) / 2
    return None if few else held


def split_in_parts(groups: Tensor, told: Tensor, seed: int, parts: int = PARTS) -> Tensor | None:
    """Part (rows,) of every row, groups (rows,) whole; None where one group is too large, or one row alone is told."""
    _, group = groups.unique(return_inverse=True)
    known = torch.zeros(int(group.max()) + 1, dtype=torch.bool).index_fill_(0, group[told], True)[group]
    generator = torch.Generator().manual_seed(seed)
    fold = torch.zeros_like(group)
    if int(known.sum()) < parts:
        return None
    for rows in (known.nonzero()[:, 0], (~known).nonzero()[:, 0]):
        if len(rows) and int(torch.bincount(group[rows]).max()) > max(len(rows) / parts, 1):
            return None
        if len(rows):
            fold[rows] = split_groups(group[rows], parts, generator)
    return fold
