"""At least one: a bag holds, or does not hold, an instance of the target class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.counting import any_of, mix_error
from anygrain.labels.error import LabelError, require, whole_numbers
from anygrain.labels.frame import as_strings, read_column
from anygrain.labels.random_bags import random_bags
from anygrain.labels.segments import Segments
from anygrain.labels.sets import FLOOR, Events
from anygrain.labels.target import Target, as_table, read_target, split, spread
from anygrain.labels.target_sets import TargetSets

YES, NO = ("1", "true", "yes", "y", "t"), ("0", "false", "no", "n", "f")


class AnyOf(TargetSets):
    r"""Each bag says that at least one, or none, of its instances is of the target class (multiple instance learning).

    .. math:: P(\text{none}) = \prod_{i \in m} (1 - p_i(t)), \quad P(\text{any}) = 1 - P(\text{none}), \quad
              P' = (1 - \epsilon) P + \epsilon / 2

    Args:
        bags: M bags.
        present: shape (M,); True or 1: at least one, False or 0: none, -1: missing.
        target: a class; a list, tuple or set of classes, any of which will do; a tensor (M,) of one class per bag; a
            bool tensor (K,) or (M, K) of classes.
        n_classes: K.
        how: `error`, the probability, in [0, 1), that the answer was drawn without regard to the truth;
            `rows`, `n_rows`, `weight` and `class_names` of every kind.

    Raises:
        LabelError: an answer that is not 1, 0 or -1, a target outside 0..K-1, tables that do not fit the bags.

    Source: Dietterich, Lathrop and Lozano-Perez, Solving the multiple instance problem, 1997.
    """

    present: Tensor

    def __init__(self, bags: Bags, present: Tensor, target: Target, n_classes: int, **how: Any):
        Bags.require(bags)
        present = whole_numbers(present, "answers of bags").to(torch.int8)
        if present.shape != (len(bags),):
            raise LabelError(f"present has shape {tuple(present.shape)}; expected ({len(bags)},), one answer per bag")
        require(
            (present >= -1) & (present <= 1), "has an answer that is not 1 (any), 0 (none) or -1 (missing)", noun="bag"
        )
        super().__init__(bags, target, n_classes, per_set={"present": present}, **how)

    def factor(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        if self.error:  # messages of a bag that contradicts its members matter then
            log_p = log_p.clamp(min=FLOOR)
        target = self.target[self.sets.index]
        value, message = any_of(split(log_p, target), self._segments, self.present)
        if self.error:
            message = message.masked_fill(torch.isneginf(value)[self.sets.index][:, None], -torch.inf)
            value, message = mix_error(value, message, self.error, 2.0, self.sets.index, self.present < 0)
        return value, spread(message, target, self.n_classes)

    def log_prob_given(self, classes: Tensor) -> Tensor:
        right = ((self._hits(classes) > 0) == (self.present == 1)).double()
        prob = (1 - self.error) * right + self.error / 2
        return torch.where(self.present == -1, torch.ones_like(prob), prob).log()

    def events(self) -> Events | None:
        if self.error:
            return None
        sets = (self.present >= 0).nonzero()[:, 0]
        low = self.present[sets].long()
        return Events(sets, as_table(self.target[sets], self.n_classes), low, self.sets.sizes[sets] * low)

    def asked(self) -> dict[str, Any]:
        return {"target": self._common_target(self.present >= 0)}

    @classmethod
    def answers_of(cls, n_classes: int, **asked: Any) -> tuple[str, ...]:
        return ("absent", "present")

    @classmethod
    def answer_to(cls, log_probs: Tensor, bags: Bags, n_classes: int, **asked: Any) -> Tensor:
        r""":math:`\prod_{i \in m} (1 - p_i(t))` and what is left to 1, (M, 2)."""
        log_p = log_probs[bags.members]
        column = read_target(asked["target"], len(bags), n_classes, log_p.device)[bags.index]
        either = split(log_p, column)
        segments = Segments(bags.offsets)
        silent = torch.ones(len(bags), device=log_p.device)
        found = [any_of(either, segments, present).log_likelihood for present in (0 * silent, silent)]
        return torch.stack(found, dim=1).exp()

    def answered(self) -> Tensor:
        return self.present.long()

    @classmethod
    def _read(cls, frame: Any, columns: str) -> Sequence[Tensor]:
        values = [v.lower() for v in as_strings(read_column(frame, columns)).tolist()]
        odd = [v for v in values if v not in (*YES, *NO, "")]
        if odd:
            raise LabelError(
                f'"{columns}" holds "{odd[0]}" (row {values.index(odd[0])}); expected 1/0, true/false or yes/no'
            )
        return [torch.tensor([-1 if v == "" else int(v in YES) for v in values])]

    @classmethod
    def simulate(
        cls,
        classes: Tensor,
        n_classes: int,
        *,
        generator: torch.Generator,
        target: Target = 0,
        bags: Bags | None = None,
        bag_size: int = 5,
        error: float = 0.0,
        **how: Any,
    ) -> AnyOf:
        """Truthful answers on the given bags, or on random ones of `bag_size`, but for the given error."""
        bags = random_bags(len(classes), bag_size, generator) if bags is None else bags
        labels = cls(bags, torch.ones(len(bags)), target, n_classes, error=error, **how)
        wrong = torch.rand(len(bags), generator=generator) < error
        drawn = torch.rand(len(bags), generator=generator) < 0.5
        labels.present = torch.where(wrong, drawn, labels._hits(classes[bags.members][None])[0] > 0).to(torch.int8)
        return labels
