"""Labels that speak of a set of instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.base import Labels
from anygrain.labels.error import LabelError
from anygrain.labels.of_sets import OfSets

#: log-probability that stands in for a hard zero where a kind is differentiated
FLOOR = -690.7755278982137  # log 1e-300


class Events(NamedTuple):
    """What sets say as ranges of counts: set `sets[c]` holds low..high members of a class in `target[c]`."""

    sets: Tensor  # (C,)
    target: Tensor  # (C, K) bool
    low: Tensor  # (C,)
    high: Tensor  # (C,)


class SetLabels(OfSets, Labels):
    r"""One observation per set of instances.

    A kind gives `factor`, or only `log_factor`, which the base differentiates:

    .. math:: P(o \mid y_i = k) = P(o) \Big( \frac{g_{ik}}{p_i(k)} + 1 - \sum_j g_{ij} \Big), \qquad
              g_{ik} = \frac{\partial \log P(o)}{\partial \log p_i(k)}

    Args:
        n_classes: K.
        bags: the sets; N is `bags.n_instances`.
        per_set: tensors with a row per set; they become attributes and follow `select` and `.to`.
    """

    def __init__(
        self,
        n_classes: int,
        bags: Bags,
        *,
        per_set: Mapping[str, Tensor] | None = None,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        self.sets = bags
        super().__init__(
            n_classes,
            bags.n_instances,
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
            device=bags.members.device,
        )
        self._keep(per_set)

    def factor(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        """Log-likelihood (M,) and message log P(o | y_i = k) (E, K) for the flat members' log_p (E, K).

        An impossible set has the log-likelihood -inf. Members' log_p may hold -inf.
        """
        floored = log_p.detach().to(torch.float64 if log_p.device.type != "mps" else log_p.dtype).clamp(min=FLOOR)
        with torch.enable_grad():
            floored.requires_grad_(True)
            value = self.log_factor(floored)
            finite = torch.isfinite(value)
            (slope,) = torch.autograd.grad(torch.where(finite, value, torch.zeros_like(value)).sum(), floored)
        value = value.detach()
        # a floored zero that decides the value stands for an impossible observation
        zeros = (log_p < FLOOR).any(dim=1)
        touched = torch.zeros(len(self.sets), dtype=torch.bool, device=log_p.device)
        touched[self.sets.index[zeros]] = True
        value = torch.where(finite & ~(touched & (value < FLOOR / 2)), value, torch.full_like(value, -torch.inf))
        # the second term is 0 for a formula that uses every column, and right for one that uses 1 - p
        ratio = slope * (-floored.detach()).exp() + (1 - slope.sum(dim=1, keepdim=True))
        message = value[self.sets.index][:, None] + ratio.clamp(min=0).log()
        absent = touched[self.sets.index][:, None] & (message < FLOOR / 2)
        message = torch.where(absent, torch.full_like(message, -torch.inf), message)
        return value.to(log_p.dtype), message.to(log_p.dtype)

    def log_factor(self, log_p: Tensor) -> Tensor:
        """log P(o) of every set, shape (M,), differentiable, for the flat members' log_p (E, K)."""
        raise NotImplementedError(f"{type(self).__name__} defines neither factor nor log_factor")

    def tiled(self, copies: int) -> Self:
        """The same labels of `copies` disjoint copies of the instances."""
        new = self._fresh()
        new.sets = self.sets.tile(copies)
        new.n_instances, new.n_rows = new.sets.n_instances, copies * self.n_rows
        shift = torch.arange(copies, device=self.device)[:, None] * self.n_rows
        new.rows = (self.rows + shift).reshape(-1)
        new.weight = None if self.weight is None else self.weight.repeat(copies)
        for name in self._per_set:
            table = getattr(self, name)
            setattr(new, name, table.repeat(copies, *[1] * (table.ndim - 1)))
        new._set_rows = self._set_rows.repeat(copies)
        return new

    def log_prob_given(self, classes: Tensor) -> Tensor:
        """log P(o | y) of every set, shape (S, M), for S assignments of classes to the flat members, shape (S, E)."""
        copies = len(classes)
        tiled = self.tiled(copies)
        certain = torch.full((classes.numel(), self.n_classes), -torch.inf, dtype=torch.float64, device=self.device)
        certain.scatter_(1, classes.reshape(-1, 1), 0.0)
        return tiled.factor(certain)[0].reshape(copies, -1)

    def events(self) -> Events | None:
        """Ranges of counts that say all that these sets say; None for kinds that say anything else.

        Sets of the same members are merged by them: as factors of their own they would be a loop.
        """
        return None

    # -- the question that is asked of a bag --------------------------------------------------------------------------

    def asked(self) -> dict[str, Any]:
        """What is asked of every bag, as JSON can hold it: what `answer_to` takes beside bags.

        Raises:
            LabelError: a kind whose sets have no answer of their own; bags that are asked different things.
        """
        raise LabelError(f"{type(self).__name__} asks nothing of a bag that could be answered for other bags")

    @classmethod
    def answers_of(cls, n_classes: int, **asked: Any) -> tuple[str, ...] | None:
        """Names of the columns of `answer_to`; None where they are the classes."""
        return None

    @classmethod
    def answer_to(cls, log_probs: Tensor, bags: Bags, n_classes: int, **asked: Any) -> Tensor:
        """The answer for every bag, (M, C), for log_probs (N, K) of its instances and what was `asked`."""
        raise LabelError(f"{cls.__name__} asks nothing of a bag that could be answered for other bags")

    def answers(self, log_probs: Tensor, bags: Bags | None = None) -> Tensor:
        """What these labels would say of bags whose instances have log_probs (N, K): (M, C).

        Probabilities of the possible answers; of shares and counts of classes their expectation. The answer is the
        truth about a bag: an `error` of those who tell is left out.

        Args:
            log_probs: of the instances of the bags, normalised.
            bags: other bags; those of the labels when not given.
        """
        return self.answer_to(log_probs, self.sets if bags is None else bags, self.n_classes, **self.asked())

    def answered(self) -> Tensor:
        """column of `answers` that every bag was said to be, (M,); -1 where nothing is said or no column is meant."""
        return torch.full((len(self.sets),), -1, device=self.device)

    def infer(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        from anygrain.labels.all import All

        value, posterior = All(self).infer(log_probs)
        return value[: self.n_observations], posterior

    def log_likelihood(self, log_probs: Tensor) -> Tensor:
        from anygrain.labels.all import All

        return All(self).log_likelihood(log_probs)[: self.n_observations]

    @property
    def exact(self) -> bool:
        from anygrain.labels.all import All

        return self.factor_exact and All(self).exact

    @property
    def factor_exact(self) -> bool:
        """Whether `factor` itself is exact."""
        return True

    def record_scores(self, log_probs: Tensor) -> Tensor:
        from anygrain.labels.all import All

        return All(self).record_scores(log_probs)
