"""Pairs: two instances are of the same class, or of different ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.error import require, whole_numbers
from anygrain.labels.instance import check_mapping
from anygrain.labels.pair_sets import PairSets, drawn_answers, drawn_pairs


class Pairs(PairSets):
    r"""Each observation says that two instances are, or are not, of one class.

    .. math:: P(\text{same}) = \sum_k p_i(k) p_j(k), \qquad P(\text{same} \mid y_i = k) = p_j(k),

    and one minus that for "different"; with an error, :math:`P' = (1 - \epsilon) P + \epsilon / 2`.

    Args:
        i, j: instance ids, shape (M,).
        same: shape (M,); True or 1: one class, False or 0: different classes, -1: missing.
        n_instances: N.
        n_classes: K.
        error: probability, in [0, 1), that the answer was drawn without regard to the truth.

    Raises:
        LabelError: an instance outside 0..N-1, a pair of an instance with itself, an answer that is not 1, 0 or -1.

    Source: Wagstaff and others, Constrained k-means clustering (must-link, cannot-link), 2001; similar-dissimilar
    learning: Shimada and others, 2021.
    """

    same: Tensor

    def __init__(
        self,
        i: Tensor,
        j: Tensor,
        same: Tensor,
        n_instances: int,
        n_classes: int,
        *,
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        same = whole_numbers(same, "answers of pairs").to(torch.int8)
        require(
            (same >= -1) & (same <= 1), "has an answer that is not 1 (same), 0 (different) or -1 (missing)", noun="pair"
        )
        super().__init__(
            i,
            j,
            same,
            "same",
            n_instances,
            n_classes,
            error=error,
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )

    def message(self, pair: Tensor) -> Tensor:
        other = pair.flip(1)
        return torch.where((self.same == 1)[:, None, None], other, log_complement(other))

    def holds(self, first: Tensor, second: Tensor) -> Tensor:
        return (self.same == 1) == (first == second)

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        check_mapping(mapping, self.n_classes, n_classes, "Pairs", injective=True)
        new = self._fresh()
        new.n_classes, new.class_names = n_classes, None
        return new

    @classmethod
    def simulate(
        cls,
        classes: Tensor,
        n_classes: int,
        *,
        generator: torch.Generator,
        n_pairs: int | None = None,
        error: float = 0.0,
        **how: Any,
    ) -> Pairs:
        """`n_pairs` (default N) pairs of different instances drawn at random, answered with the given error."""
        i, j = drawn_pairs(len(classes), n_pairs, generator)
        answer = drawn_answers(classes[i] == classes[j], error, generator)
        return cls(i, j, answer, len(classes), n_classes, error=error, **how)


def log_complement(log_p: Tensor) -> Tensor:
    """log(1 - p_k) over the last axis of normalised log-probabilities, accurate also where p_k is close to 1."""
    top = log_p.argmax(dim=-1, keepdim=True)
    rest = torch.logsumexp(log_p.scatter(-1, top, -torch.inf), dim=-1, keepdim=True)
    return torch.log1p(-log_p.exp().clamp(max=0.75)).scatter(-1, top, rest)
