"""What is known about the classes of instances: the base of every kind of label."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from anygrain.labels.error import LabelError, check_error
from anygrain.labels.observations import IMPOSSIBLE, Batch, Observations

if TYPE_CHECKING:
    from anygrain.labels.all import All
    from anygrain.labels.channels.channel import Channel

__all__ = ["IMPOSSIBLE", "Batch", "Labels"]


class Labels(Observations):
    r"""Observations o of N instances, each of one unseen class of K.

    .. math:: \log P(o \mid p) = \log \sum_y P(o \mid y) \prod_i p_i(y_i), \qquad
              q_i = \mathrm{softmax}(z_i) + \partial \log P(o \mid \mathrm{log\_softmax}(z)) / \partial z_i

    An *observation* is one set, or one instance that lies in no set (M of them). A *record* is what the user gave in
    one row: a vote, a label, a set, a pair (R of them). Log-probabilities are normalised over classes.

    Labels are immutable: methods return new ones, which share tensors and channels. A concrete kind derives from
    `InstanceLabels` or `SetLabels`; a kind that derives from `Labels` itself needs `log_likelihood` only and gets its
    posterior by differentiation.

    Attributes:
        rows: data row of every instance, shape (N,).
        weight: factor of each observation in losses and totals, shape (M,), or None; never changes a posterior.
        class_names: names of the K classes, or None.
        given_x: whether the source saw the same features as the classifier (rules, teachers): its word is then not
            multiplied with p(y | x), which would count x twice.
    """

    given_x: bool = False
    error: float

    def __init__(
        self,
        n_classes: int,
        n_instances: int,
        *,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
        device: torch.device | None = None,
    ):
        if n_classes < 1:
            raise LabelError(f"n_classes is {n_classes}; expected 1 or more")
        self.n_classes = int(n_classes)
        self.class_names = None if class_names is None else tuple(str(c) for c in class_names)
        super().__init__(n_instances, rows=rows, n_rows=n_rows, weight=weight, device=device)
        if self.class_names is not None and len(self.class_names) != self.n_classes:
            raise LabelError(f"{len(self.class_names)} class names for {self.n_classes} classes")

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels whose parameters these labels are read with."""
        return ()

    @property
    def log_prior_shift(self) -> Tensor:
        r""":math:`\log \pi(y) - \log \tilde\pi(y)`, shape (K,), in float64.

        What is added to log-probabilities of the pooled rows, of class prior :math:`\tilde\pi`, to speak of the
        population, of class prior :math:`\pi`. 0 where the rows are the population, or nothing says otherwise.
        """
        return torch.zeros(self.n_classes, dtype=torch.float64, device=self.device)

    @property
    def pooled_prior(self) -> Tensor | None:
        """Class prior of the rows that were pooled, shape (K,), where the labels state it; else None."""
        return None

    @abstractmethod
    def log_likelihood(self, log_probs: Tensor) -> Tensor:
        """log P(o | log_probs) of every observation, shape (M,), for log_probs of shape (N, K).

        An impossible observation has the constant -1e4 and no gradient. Where sets overlap only the sum over a
        connected component is a log-probability.
        """

    def infer(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """Log-likelihood (M,) and posterior (N, K) in one pass, without gradient."""
        with torch.enable_grad():
            logits = log_probs.detach().clone().requires_grad_(True)
            value = self.log_likelihood(torch.log_softmax(logits, dim=-1))
            gradient = torch.zeros_like(logits)
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value.sum(), logits)
        moved = (torch.softmax(log_probs.detach(), dim=-1) + gradient.nan_to_num(0.0)).clamp(min=0)
        return value.detach(), moved / moved.sum(dim=-1, keepdim=True)

    def posterior(self, log_probs: Tensor) -> Tensor:
        """P(y_i = k | all observations), shape (N, K), without gradient."""
        return self.infer(log_probs)[1]

    def contradictions(self, log_probs: Tensor) -> Tensor:
        """bool, shape (M,): observations that are impossible given the rest."""
        return self.infer(log_probs)[0] == IMPOSSIBLE

    def log_evidence(self, dtype: torch.dtype = torch.float32, *args: Any, **kwargs: Any) -> Tensor:
        """log P(o_i | y_i = k), shape (N, K): instance kinds only."""
        raise LabelError(f"{type(self).__name__} speaks of sets: it has no evidence of a single instance")

    @abstractmethod
    def record_scores(self, log_probs: Tensor) -> Tensor:
        """log P(o_r | x, all other records) of every record, shape (R,); 0 for a missing one."""

    def update(self, posterior: Tensor, log_probs: Tensor | None = None) -> None:
        """M-step: fit the channels to a posterior (N, K); log_probs are those of a model that did not see the rows."""
        return None

    def with_error(self, error: float) -> Self:
        """The same labels, where every hard kind that was given no `error` has this one; channels stay shared."""
        if getattr(self, "error", None) != 0:
            return self
        new = self._fresh()
        new.error = check_error(error)
        return new

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        """The same observations over new classes: class k becomes mapping[k], shape (K,).

        Raises:
            LabelError: classes that are merged, where the kind is not exact under merging; a kind without `relabel`.
        """
        raise LabelError(f"{type(self).__name__} has no relabel")

    @classmethod
    def simulate(cls, classes: Tensor, n_classes: int, *, generator: torch.Generator, **how: Any) -> Labels:
        """Labels of this kind drawn from their own likelihood, given the true classes (N,)."""
        raise LabelError(f"{cls.__name__} cannot be simulated")

    def __and__(self, other: Labels) -> All:
        from anygrain.labels.all import All

        return All(self, other)
