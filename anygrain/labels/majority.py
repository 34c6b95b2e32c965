"""The most frequent class of a set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.automaton import chances, drawn_labels, read_labels
from anygrain.labels.bags import Bags
from anygrain.labels.counting import mix_error
from anygrain.labels.counts import count_classes
from anygrain.labels.frame import as_strings, class_list, encode, read_column
from anygrain.labels.instance import check_error, check_mapping
from anygrain.labels.plurality import PluralityPlan
from anygrain.labels.random_bags import random_bags
from anygrain.labels.segments import Segments
from anygrain.labels.sets import SetLabels


class Majority(SetLabels):
    r"""Each bag says which class is the most frequent among its instances; ties are broken evenly at random.

    .. math:: P(w \mid y) = (1 - \epsilon) \frac{[c_w = \max_k c_k]}{\#\{k : c_k = \max_j c_j\}} + \epsilon / K,
              \qquad c_k = \sum_{i \in m} [y_i = k]

    Two classes are exact at every size; more as long as all class counts can be gone through (64 members of 3
    classes, 19 of 5, 8 of 10). Beyond, `exact` is False: the counts of the winner and of its rivals are taken for
    independent, matched in the moments of their differences (`PluralityPlan.find`).

    Args:
        bags: M bags.
        winner: the most frequent class, shape (M,); -1 where nothing is said.
        n_classes: K.
        error: probability, in [0, 1), that the class was drawn without regard to the truth.

    Raises:
        LabelError: a class outside 0..K-1, another number of bags.

    Source: learning from majority labels: Kaido Suzuki and others, Learning from majority label, 2024.
    """

    winner: Tensor

    def __init__(
        self,
        bags: Bags,
        winner: Tensor,
        n_classes: int,
        *,
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        Bags.require(bags)
        super().__init__(
            n_classes,
            bags,
            per_set={"winner": read_labels(winner, bags, n_classes)},
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )
        self.error = check_error(error)

    @cached_property
    def _plan(self) -> PluralityPlan:
        return PluralityPlan(Segments(self.sets.offsets), self.n_classes)

    @property
    def factor_exact(self) -> bool:
        return self._plan.exact

    def factor(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        silent, index = self.winner < 0, self.sets.index
        value, message = self._plan.find(log_p.detach(), self.winner.clamp(min=0))
        if self.error:
            return mix_error(value, message, self.error, self.n_classes, index, silent)
        return value.masked_fill(silent, 0.0), message.masked_fill(silent[index][:, None], 0.0)

    def log_prob_given(self, classes: Tensor) -> Tensor:
        silent = self.winner < 0
        right = chance_to_win(count_classes(classes, self.sets, self.n_classes), self.winner.clamp(min=0))
        prob = (1 - self.error) * right + self.error / self.n_classes
        return torch.where(silent, torch.ones_like(prob), prob).log()

    def asked(self) -> dict[str, Any]:
        return {}

    @classmethod
    def answer_to(cls, log_probs: Tensor, bags: Bags, n_classes: int, **asked: Any) -> Tensor:
        """P(class k is the most frequent), ties broken evenly, (M, K)."""
        return chances(cls(bags, bags.sizes.new_full((len(bags),), -1), n_classes), "winner", n_classes, log_probs)

    def answered(self) -> Tensor:
        return self.winner

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        mapping = check_mapping(mapping, self.n_classes, n_classes, "Majority", injective=True).to(self.device)
        new = self._fresh()
        new.winner = torch.where(self.winner < 0, -1, mapping[self.winner])
        new.n_classes, new.class_names = n_classes, None
        return new

    @classmethod
    def from_frame(
        cls, frame: Any, columns: str, *, bags: Bags, classes: Sequence[str] | None = None, **how: Any
    ) -> Self:
        """Labels from a column of class names of a table of bags; empty says nothing.

        Args:
            frame: any data frame, or a mapping of columns, with one row per bag.
            columns: name of the column.
            bags: the bags, in the order of the rows.
            classes: names of all classes; the values that occur when not given.
            how: further arguments of the constructor.

        Raises:
            LabelError: no such column, or a value outside the class list.
        """
        values = as_strings(read_column(frame, columns))
        names = class_list([values], classes=classes)
        return cls(bags, encode(values, names, f'"{columns}"'), len(names), class_names=names, **how)

    @classmethod
    def simulate(
        cls,
        classes: Tensor,
        n_classes: int,
        *,
        generator: torch.Generator,
        bags: Bags | None = None,
        bag_size: int = 5,
        **how: Any,
    ) -> Majority:
        """The most frequent class of the given bags, or of random ones, ties broken at random."""
        bags = random_bags(len(classes), bag_size, generator) if bags is None else bags
        labels = cls(bags, torch.zeros(len(bags)), n_classes, **how)
        labels.winner = drawn_labels(labels, "winner", n_classes, classes, generator)
        return labels


def chance_to_win(counts: Tensor, winner: Tensor) -> Tensor:
    """P(winner | counts) for counts (S, M, C) and winners (M,), shape (S, M), float64."""
    won = (counts == counts.amax(dim=2, keepdim=True)).double()
    return won.gather(2, winner.expand(len(counts), -1)[..., None])[..., 0] / won.sum(dim=2)
