"""Labels that speak of one instance at a time: a table of log evidence."""

from __future__ import annotations

import functools
import inspect
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from anygrain.labels.base import IMPOSSIBLE, Labels
from anygrain.labels.error import LabelError, check_error, numbers, require
from anygrain.labels.of_instances import OfInstances

__all__ = [
    "InstanceLabels",
    "as_classes",
    "as_mask",
    "check_error",
    "check_mapping",
    "relabelled_columns",
    "require",
    "tilt",
]


def tilt(log_probs: Tensor, evidence: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log softmax(log_probs + evidence) (N, K), its log normaliser (N,), and where the two contradict each other (N,).

    Where they do, log_probs stay as they are and the normaliser is 0.

    Raises:
        LabelError: tables of different shapes.
    """
    if log_probs.shape != evidence.shape:
        expected = f"{tuple(evidence.shape)}, instances by classes"
        raise LabelError(f"log_probs have shape {tuple(log_probs.shape)}; expected {expected}")
    joint = log_probs + evidence
    normaliser = torch.logsumexp(joint, dim=-1)
    against = normaliser == -torch.inf
    normaliser = torch.where(against, torch.zeros_like(normaliser), normaliser)
    tilted = torch.where(against[:, None], log_probs, joint - normaliser[:, None])
    return tilted, normaliser, against


def with_gradient(value: Tensor, posterior: Tensor, log_probs: Tensor) -> Tensor:
    r"""Give log-likelihoods (n,) of n instances their gradient: :math:`\partial \log P / \partial \log p = q`.

    P(o) is linear in the probabilities of every instance, so this holds for every kind of label.
    """
    if not log_probs.requires_grad:
        return value
    moves = (posterior > 0) & (log_probs > -torch.inf)
    change = torch.where(moves, log_probs - log_probs.detach(), torch.zeros_like(log_probs))
    return value + (posterior * change).sum(dim=-1)


class InstanceLabels(OfInstances, Labels):
    r"""Evidence about single instances.

    .. math:: \log P(o_i \mid y_i = k) = \mathrm{log\_evidence}_{ik}, \qquad q_i = \mathrm{softmax}(\log p_i + e_i)

    A kind gives `log_evidence(dtype)`; the base picks columns for `log_evidence(dtype, classes=ids)`. An instance may
    have several records (votes): then `record_instances` says whose each is, and `record_log_prob` what it says.

    Args:
        n_classes: K.
        per_instance: tensors with N rows; they become attributes and follow `select` and `.to`.
        per_record: tensors with R rows, kept likewise.
        record_instances: instance of every record, shape (R,); record i is about instance i when not given.
        n_instances: N, needed only where `per_instance` is empty.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get("log_evidence")
        if own is not None and "classes" not in inspect.signature(own).parameters:
            cls.log_evidence = _picking_columns(own)  # type: ignore[method-assign]

    def __init__(
        self,
        n_classes: int,
        *,
        per_instance: Mapping[str, Tensor] | None = None,
        per_record: Mapping[str, Tensor] | None = None,
        record_instances: Tensor | None = None,
        n_instances: int | None = None,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        n = self._number_of_instances(per_instance, n_instances)
        device = self._device_of(per_instance, per_record)
        super().__init__(n_classes, n, rows=rows, n_rows=n_rows, weight=weight, class_names=class_names, device=device)
        self._keep(per_instance, per_record, record_instances)

    @abstractmethod
    def log_evidence(self, dtype: torch.dtype = torch.float32, *args: Any, **kwargs: Any) -> Tensor:
        """log P(o_i | y_i = k), shape (N, K); rows of 0 say nothing.

        With `classes` (C,) the result has C + 1 columns: these classes, and the mean over all others ("the rest").
        """

    def record_log_prob(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """log P(o_r | y = k) of every record, shape (R, K)."""
        return self.log_evidence(dtype)

    def unrecorded_evidence(self, dtype: torch.dtype = torch.float32) -> Tensor | None:
        """Evidence that stands in no record (the silence of rules), shape (N, K); None where there is none."""
        return None

    def target(self, dtype: torch.dtype = torch.float32) -> Tensor | None:
        """Training targets (N, K), rows of 0 where there is none; None for kinds that are evidence."""
        return None

    def infer(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        log_probs = log_probs.detach()
        tilted, value, against = tilt(log_probs, self.log_evidence(log_probs.dtype))
        return torch.where(against, torch.full_like(value, IMPOSSIBLE), value), tilted.exp()

    def log_likelihood(self, log_probs: Tensor) -> Tensor:
        value, posterior = self.infer(log_probs)
        return with_gradient(value, posterior * (value != IMPOSSIBLE)[:, None], log_probs)

    def record_scores(self, log_probs: Tensor) -> Tensor:
        from anygrain.labels.all import All

        return All(self).record_scores(log_probs)


def _picking_columns(own: Any) -> Any:
    @functools.wraps(own)
    def log_evidence(self: InstanceLabels, dtype: torch.dtype = torch.float32, classes: Tensor | None = None) -> Tensor:
        table: Tensor = own(self, dtype)
        if classes is None:
            return table
        rest = torch.ones(table.shape[1], dtype=torch.bool, device=table.device)
        rest[classes] = False
        n_rest = int(rest.sum())
        if n_rest == 0:
            other = torch.full_like(table[:, :1], -torch.inf)
        else:
            other = torch.logsumexp(table[:, rest], dim=1, keepdim=True) - torch.log(table.new_tensor(float(n_rest)))
        return torch.cat([table[:, classes], other], dim=1)

    return log_evidence


def relabelled_columns(table: Tensor, mapping: Tensor, n_classes: int, kind: str, fill: float | bool) -> Tensor:
    """Columns (N, K) moved to their new classes (N, n_classes) by an injective mapping (K,); others are `fill`.

    Raises:
        LabelError: a mapping that is not injective, or leaves 0..n_classes-1.
    """
    mapping = check_mapping(mapping, table.shape[1], n_classes, kind, injective=True).to(table.device)
    new = torch.full((table.shape[0], n_classes), fill, dtype=table.dtype, device=table.device)
    new[:, mapping] = table
    return new


def check_mapping(mapping: Tensor, old: int, n_classes: int, kind: str, *, injective: bool) -> Tensor:
    """A class map as a tensor (K,) of 0..n_classes-1.

    Raises:
        LabelError: the wrong length, a class outside, or merged classes where `injective`.
    """
    mapping = torch.as_tensor(mapping).long()
    if mapping.shape != (old,):
        raise LabelError(f"the class map has shape {tuple(mapping.shape)}; expected ({old},), one new class for each")
    if bool((mapping < 0).any()) or bool((mapping >= n_classes).any()):
        raise LabelError(f"the class map names a class outside 0..{n_classes - 1}")
    if injective and len(mapping.unique()) < old:
        raise LabelError(f"{kind} cannot merge classes without loss; give every class a new one of its own")
    return mapping


def as_classes(classes: Any, n_classes: int, what: str = "class", *, ndim: int = 1) -> Tensor:
    """Class indices (N,), or a table of them, as int64; -1 is missing.

    Raises:
        LabelError: another number of dimensions, not whole numbers, or outside -1..n_classes-1, naming the first rows
            and values.
    """
    given = numbers(classes, f"{what} indices")
    if given.is_floating_point() or given.is_complex():
        raise LabelError(f"{what} indices must be whole numbers, not {given.dtype} (-1 is missing)")
    if given.ndim != ndim:
        expected = "one number per row" if ndim == 1 else "a table"
        raise LabelError(f"{what} indices have shape {tuple(given.shape)}; expected {expected}")
    index = given.long()
    bad = ((index < -1) | (index >= n_classes)).nonzero()
    if len(bad):
        first = ", ".join(f"{int(index[tuple(b)])} in row {int(b[0])}" for b in bad[:3])
        raise LabelError(f"{len(bad)} {what} values are outside 0..{n_classes - 1} (or -1, missing): {first}")
    return index


def as_mask(table: Any, what: str) -> Tensor:
    """A table of True and False, or 1 and 0, as bool (N, K).

    Raises:
        LabelError: another number of dimensions, or other numbers, naming the first such rows.
    """
    given = torch.as_tensor(table)
    if given.ndim != 2:
        raise LabelError(f"{what} have shape {tuple(given.shape)}; expected (N, K), one column per class")
    require(((given == 0) | (given == 1)).all(dim=1), f"of {what} holds something other than 0 and 1")
    return given.bool()
