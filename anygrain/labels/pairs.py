"""Pairs: two instances are of the same class, or of different ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.error import LabelError, require, whole_numbers
from anygrain.labels.instance import check_error, check_mapping
from anygrain.labels.sets import SetLabels


class Pairs(SetLabels):
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
        i, j = whole_numbers(i, "instances of pairs"), whole_numbers(j, "instances of pairs")
        same = whole_numbers(same, "answers of pairs")
        if i.ndim != 1 or i.shape != j.shape or i.shape != same.shape:
            raise LabelError(
                f"i, j and same have {len(i)}, {len(j)} and {len(same)} entries; expected one of each a pair"
            )
        require(i != j, "pairs an instance with itself", noun="pair")
        inside = (torch.minimum(i, j) >= 0) & (torch.maximum(i, j) < n_instances)
        require(inside, f"names an instance outside 0..{n_instances - 1}", noun="pair")
        same = same.to(torch.int8)
        require(
            (same >= -1) & (same <= 1), "has an answer that is not 1 (same), 0 (different) or -1 (missing)", noun="pair"
        )
        members = torch.stack([i, j], dim=1).reshape(-1)
        bags = Bags(members, 2 * torch.arange(len(i) + 1, device=i.device), n_instances)
        super().__init__(
            n_classes, bags, per_set={"same": same}, rows=rows, n_rows=n_rows, weight=weight, class_names=class_names
        )
        self.error = check_error(error)

    def factor(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        pair = log_p.reshape(-1, 2, self.n_classes)
        other = pair.flip(1)
        same = (self.same == 1)[:, None, None]
        message = torch.where(same, other, log_complement(other))
        if self.error:
            drawn = message.new_tensor(self.error / 2).log()
            message = torch.logaddexp(message + message.new_tensor(1 - self.error).log(), drawn)
        message = torch.where((self.same == -1)[:, None, None], torch.zeros_like(message), message)
        value = torch.logsumexp(pair[:, 0] + message[:, 0], dim=1)
        return torch.where(self.same == -1, torch.zeros_like(value), value), message.reshape(-1, self.n_classes)

    def log_prob_given(self, classes: Tensor) -> Tensor:
        agree = classes[:, 0::2] == classes[:, 1::2]
        right = ((self.same == 1) == agree).to(torch.float64)
        prob = (1 - self.error) * right + self.error / 2
        return torch.where(self.same == -1, torch.ones_like(prob), prob).log()

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        check_mapping(mapping, self.n_classes, n_classes, "Pairs", injective=True)
        new = self._fresh()
        new.n_classes, new.class_names = n_classes, None
        return new

    def _name_of_set(self, index: int) -> str:
        return f"pair {int(self._set_rows[index])}"

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
        n = len(classes)
        m = n if n_pairs is None else n_pairs
        i = torch.randint(n, (m,), generator=generator)
        j = (i + torch.randint(1, n, (m,), generator=generator)) % n
        answer = torch.where(
            torch.rand(m, generator=generator) < error,
            torch.rand(m, generator=generator) < 0.5,
            classes[i] == classes[j],
        )
        return cls(i, j, answer, n, n_classes, error=error, **how)


def log_complement(log_p: Tensor) -> Tensor:
    """log(1 - p_k) over the last axis of normalised log-probabilities, accurate also where p_k is close to 1."""
    top = log_p.argmax(dim=-1, keepdim=True)
    rest = torch.logsumexp(log_p.scatter(-1, top, -torch.inf), dim=-1, keepdim=True)
    return torch.log1p(-log_p.exp().clamp(max=0.75)).scatter(-1, top, rest)
