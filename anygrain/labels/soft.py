"""Soft labels: a distribution over classes, of one of three meanings."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from anygrain.labels.base import IMPOSSIBLE
from anygrain.labels.error import LabelError, require
from anygrain.labels.frame import read_column
from anygrain.labels.instance import InstanceLabels, relabelled_columns, with_gradient

KINDS = ("target", "evidence", "posterior")


class Soft(InstanceLabels):
    r"""Each instance comes with a number per class; a row of NaN says nothing.

    - ``kind="target"``: a training target t, not a likelihood. Alone :math:`q = t` and the value is
      :math:`\sum_k t_k \log p_k`; with hard evidence q is t cut to the classes left and renormalised.
    - ``kind="evidence"``: a true likelihood, :math:`P(o \mid y = k) \propto t_k`; rows need not sum to 1.
    - ``kind="posterior"``: the posterior of a teacher that saw the same x; divided by the teacher's prior
      :math:`\pi` it is evidence, :math:`t_k / \pi_k`.

    Args:
        probs: shape (N, K).
        kind: "target", "evidence" or "posterior".
        prior: shape (K,), the teacher's class prior, for "posterior"; their mean over rows when not given (warns).

    Raises:
        LabelError: negative or partly missing rows; rows that do not sum to 1 (targets and posteriors); rows of zeros.

    Source: Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015.
    """

    probs: Tensor
    missing: Tensor

    def __init__(
        self,
        probs: Tensor,
        kind: str = "target",
        prior: Tensor | None = None,
        *,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        if kind not in KINDS:
            raise LabelError(f'kind is "{kind}"; expected one of {", ".join(KINDS)}')
        probs = torch.as_tensor(probs)
        probs = probs if probs.is_floating_point() else probs.to(torch.get_default_dtype())
        if probs.ndim != 2:
            raise LabelError(f"soft labels have shape {tuple(probs.shape)}; expected (N, K)")
        missing = probs.isnan().all(dim=1)
        require(~(probs.isnan().any(dim=1) & ~missing), "holds NaN beside numbers (a row of NaN alone is missing)")
        probs = torch.where(missing[:, None], torch.zeros_like(probs), probs)
        require((probs >= 0).all(dim=1) & torch.isfinite(probs).all(dim=1), "holds a negative or infinite number")
        total = probs.sum(dim=1)
        require(missing | (total > 0), "holds zeros only (a row of NaN is missing)")
        if kind != "evidence":
            off = ~missing & ((total - 1).abs() > 1e-3)
            if bool(off.any()):
                first = int(off.nonzero()[0])
                raise LabelError(
                    f"{int(off.sum())} of {len(probs)} rows do not sum to 1 (first: row {first} sums to "
                    f"{float(total[first]):.3g}); expected 1 +- 0.001"
                )
        super().__init__(
            probs.shape[1],
            per_instance={"probs": probs, "missing": missing},
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )
        self.kind = kind
        self.given_x = kind == "posterior"
        self.prior: Tensor | None = None
        if kind == "posterior":
            if prior is None:
                warnings.warn(
                    "Soft posteriors without prior=: the teacher's prior is taken as their mean", stacklevel=2
                )
                prior = probs[~missing].mean(dim=0)
            self.prior = torch.as_tensor(prior).to(probs)
            if self.prior.shape != (self.n_classes,) or bool((self.prior < 0).any()):
                raise LabelError(f"prior must be {self.n_classes} numbers, none negative")
            if bool((probs[:, self.prior == 0] > 0).any()):
                raise LabelError("a class of prior 0 has a positive posterior; give the teacher's true prior")
        elif prior is not None:
            raise LabelError('prior= belongs to kind="posterior"')

    def log_evidence(self, dtype: torch.dtype = torch.float32) -> Tensor:
        if self.kind == "target":
            return torch.zeros(self.n_instances, self.n_classes, dtype=dtype, device=self.device)
        table = self.probs.to(dtype).log()
        if self.prior is not None:  # a class that the teacher does not know is neither likely nor unlikely
            table = torch.where(self.prior > 0, table - self.prior.to(dtype).log(), torch.zeros_like(table))
        return table.masked_fill(self.missing[:, None], 0.0)

    def target(self, dtype: torch.dtype = torch.float32) -> Tensor | None:
        return self.probs.to(dtype) if self.kind == "target" else None

    def infer(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        if self.kind != "target":
            return super().infer(log_probs)
        target = self.probs.to(log_probs.dtype)
        target = target / target.sum(dim=1, keepdim=True).clamp(min=torch.finfo(target.dtype).tiny)
        reached = log_probs.detach().clamp(min=IMPOSSIBLE)
        fit = torch.where(target > 0, target * reached, torch.zeros_like(target)).sum(dim=1)
        return fit, torch.where(self.missing[:, None], log_probs.detach().exp(), target)

    def log_likelihood(self, log_probs: Tensor) -> Tensor:
        if self.kind != "target":
            return super().log_likelihood(log_probs)
        value, posterior = self.infer(log_probs)
        return with_gradient(value, posterior * ~self.missing[:, None], log_probs)

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        new = self._fresh()
        new.probs = relabelled_columns(self.probs, mapping, n_classes, "Soft", 0.0)
        if self.prior is not None:
            new.prior = relabelled_columns(self.prior[None], mapping, n_classes, "Soft", 0.0)[0]
        new.n_classes, new.class_names = n_classes, None
        return new

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: Sequence[str],
        *,
        taxonomy: Any = None,
        classes: Sequence[str] | None = None,
        **how: Any,
    ) -> Self:
        """Labels from one column of numbers per class, in the order of the class list (else of the columns)."""
        names = tuple(classes or (taxonomy.classes if taxonomy is not None else columns))
        if len(names) != len(columns):
            raise LabelError(f"{len(columns)} columns of soft labels for {len(names)} classes")
        table = np.stack([np.asarray(read_column(frame, c), dtype=np.float64) for c in columns], axis=1)
        return cls(torch.from_numpy(table), class_names=names, **how)

    @classmethod
    def simulate(
        cls, classes: Tensor, n_classes: int, *, generator: torch.Generator, strength: float = 2.0, **how: Any
    ) -> Soft:
        r"""Likelihood rows as a Gaussian sensor gives them: :math:`\exp(s z_k + s^2 [k = y])`, z standard normal."""
        noise = torch.randn(len(classes), n_classes, generator=generator)
        score = strength * noise + strength**2 * torch.nn.functional.one_hot(classes, n_classes)
        return cls(torch.softmax(score, dim=1), **{"kind": "evidence", **how})
