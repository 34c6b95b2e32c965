"""Pairs of instances: the core of every kind that answers a question about two of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from anygrain.labels.bags import Bags
from anygrain.labels.error import LabelError, check_error, require, whole_numbers
from anygrain.labels.sets import SetLabels


class PairSets(SetLabels):
    r"""Each observation is the answer to a yes-or-no question about the classes of two instances.

    .. math:: P(o \mid y_i, y_j) = (1 - \epsilon) A_o(y_i, y_j) + \epsilon / 2, \qquad
              P(o \mid y_i = k) = \sum_l P(o \mid k, l)\, p_j(l)

    with a table A for each answer, mostly of 0 and 1, and 1 where it is missing. A kind gives `holds`, the table, and
    `message`, its product with the other's probabilities, in O(K).

    Args:
        i, j: instance ids, shape (M,).
        answer: what was answered, shape (M,), -1 where missing; it becomes the attribute `name`.
        name: name of the answers.
        n_instances: N.
        n_classes: K.
        error: probability, in [0, 1), that the answer was drawn without regard to the truth.

    Raises:
        LabelError: lengths that differ, an instance outside 0..N-1, a pair of an instance with itself.
    """

    def __init__(
        self,
        i: Tensor,
        j: Tensor,
        answer: Tensor,
        name: str,
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
        if i.ndim != 1 or i.shape != j.shape or i.shape != answer.shape:
            raise LabelError(
                f"i, j and {name} have {len(i)}, {len(j)} and {len(answer)} entries; expected one of each a pair"
            )
        require(i != j, "pairs an instance with itself", noun="pair")
        inside = (torch.minimum(i, j) >= 0) & (torch.maximum(i, j) < n_instances)
        require(inside, f"names an instance outside 0..{n_instances - 1}", noun="pair")
        members = torch.stack([i, j], dim=1).reshape(-1)
        bags = Bags(members, 2 * torch.arange(len(i) + 1, device=i.device), n_instances)
        super().__init__(
            n_classes, bags, per_set={name: answer}, rows=rows, n_rows=n_rows, weight=weight, class_names=class_names
        )
        self._answer = name
        self.error = check_error(error)

    @property
    def answer(self) -> Tensor:
        """What was answered, shape (M,); -1 where missing."""
        given: Tensor = getattr(self, self._answer)
        return given

    @abstractmethod
    def message(self, pair: Tensor) -> Tensor:
        """log P(the answer is true | this one's class is k), shape (M, 2, K), for log-probabilities (M, 2, K)."""

    @abstractmethod
    def holds(self, first: Tensor, second: Tensor) -> Tensor:
        """How probably the answer is given of two classes, (S, M) in 0..1, for S assignments (S, M) of either."""

    def factor(self, log_p: Tensor) -> tuple[Tensor, Tensor]:
        pair = log_p.reshape(-1, 2, self.n_classes)
        missing = self.answer == -1
        message = self.message(pair)
        if self.error:
            drawn = message.new_tensor(self.error / 2).log()
            message = torch.logaddexp(message + message.new_tensor(1 - self.error).log(), drawn)
        message = torch.where(missing[:, None, None], torch.zeros_like(message), message)
        value = torch.logsumexp(pair[:, 0] + message[:, 0], dim=1)
        return torch.where(missing, torch.zeros_like(value), value), message.reshape(-1, self.n_classes)

    def log_prob_given(self, classes: Tensor) -> Tensor:
        right = self.holds(classes[:, 0::2], classes[:, 1::2]).to(torch.float64)
        prob = (1 - self.error) * right + self.error / 2
        return torch.where(self.answer == -1, torch.ones_like(prob), prob).log()

    def _name_of_set(self, index: int) -> str:
        return f"pair {int(self._set_rows[index])}"


def drawn_pairs(n: int, n_pairs: int | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`n_pairs` (default n) pairs (i, j) of different instances of n, drawn at random, both of shape (M,)."""
    m = n if n_pairs is None else n_pairs
    i = torch.randint(n, (m,), generator=generator)
    return i, (i + torch.randint(1, n, (m,), generator=generator)) % n


def drawn_answers(truth: Tensor, error: float, generator: torch.Generator) -> Tensor:
    """Answers bool (M,): the truth, or with probability `error` a coin."""
    coin = torch.rand(len(truth), generator=generator) < error
    return torch.where(coin, torch.rand(len(truth), generator=generator) < 0.5, truth)
