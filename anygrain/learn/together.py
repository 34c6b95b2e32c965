"""Instances that must come in one batch, for terms that speak of several at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anygrain.labels import All, Bags, Labels, SetLabels
from anygrain.learn.term import Term


class Together(SetLabels):
    """Sets of which nothing is said: they only keep their members in one batch and one fold."""

    def factor(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        return log_p.new_zeros(len(self.sets)), torch.zeros_like(log_p)


def kept_together(labels: Labels, terms: Sequence[Term], more: Sequence[Bags] = ()) -> Labels:
    """Labels whose batches and folds also keep whole what the terms, and more bags, speak of.

    Their own sets keep their numbers.
    """
    bags = [*more, *(found for term in terms if (found := term.bags()) is not None)]
    if not bags:
        return labels
    sets = [Together(labels.n_classes, b.to(labels.device), rows=labels.rows, n_rows=labels.n_rows) for b in bags]
    return All(labels, *sets)
