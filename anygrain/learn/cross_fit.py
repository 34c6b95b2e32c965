"""Predictions of every row by a network that was trained without it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from anygrain.encoders.trainable import Arrays, Inputs, TrainableEncoder
from anygrain.labels.observations import Observations
from anygrain.learn.end_to_end import EndToEnd
from anygrain.learn.recipe import split_groups

PARTS = 2  # networks; each is trained on the rows outside its part


class SomeRows:
    """Some rows of inputs, (R,)."""

    def __init__(self, rows: Inputs, chosen: Tensor) -> None:
        self.rows, self.chosen = rows, chosen

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
        training.run()
        said = training.predicted(SomeRows(rows, outside))
        if found is None:
            found = said.new_empty(len(rows), *said.shape[1:])
        found[outside.to(said.device)] = said
    return found


def split_in_parts(groups: Tensor, told: Tensor, seed: int) -> Tensor | None:
    """Part (rows,) of every row, groups (rows,) whole; None where one group is too large, or one row alone is told."""
    _, group = groups.unique(return_inverse=True)
    known = torch.zeros(int(group.max()) + 1, dtype=torch.bool).index_fill_(0, group[told], True)[group]
    generator = torch.Generator().manual_seed(seed)
    fold = torch.zeros_like(group)
    if int(known.sum()) < PARTS:
        return None
    for rows in (known.nonzero()[:, 0], (~known).nonzero()[:, 0]):
        if len(rows) and int(torch.bincount(group[rows]).max()) > max(len(rows) / PARTS, 1):
            return None
        if len(rows):
            fold[rows] = split_groups(group[rows], PARTS, generator)
    return fold
