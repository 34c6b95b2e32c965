"""Labels made ready for many E-steps: what they say of single instances is computed once."""

from __future__ import annotations

import torch
from torch import Tensor

from anygrain.labels import All, InstanceLabels, Labels
from anygrain.labels.base import IMPOSSIBLE


class Table(InstanceLabels):
    """Log evidence that has been computed already, (N, K)."""

    table: Tensor

    def __init__(
        self, table: Tensor, *, rows: Tensor | None = None, n_rows: int | None = None, weight: Tensor | None = None
    ) -> None:
        super().__init__(table.shape[1], per_instance={"table": table}, rows=rows, n_rows=n_rows, weight=weight)

    def log_evidence(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.table.to(dtype)

    def infer(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """As its base has it, in fewer passes over the table."""
        joint = log_probs.detach() + self.table
        top = joint.amax(dim=1, keepdim=True)
        against = top == -torch.inf
        if bool(against.any()):
            joint = torch.where(against, log_probs.detach(), joint)
            top = joint.amax(dim=1, keepdim=True)
        posterior = joint.sub_(top).exp_()
        total = posterior.sum(dim=1, keepdim=True)
        value = torch.where(against, IMPOSSIBLE, top + total.log())[:, 0]
        return value, posterior.div_(total)


class Evidence:
    """Labels and a copy of them for E-steps, whose instance evidence is one table.

    Attributes:
        labels: as they were given.
        view: the same evidence; stale after `labels.update`, so update through here.
    """

    def __init__(self, labels: Labels, dtype: torch.dtype = torch.float32) -> None:
        self.labels, self.dtype = labels, dtype
        self.view = self._view()

    def _view(self) -> Labels:
        parts = self.labels.parts if isinstance(self.labels, All) else [self.labels]
        said = [p for p in parts if isinstance(p, InstanceLabels) and p.target(self.dtype) is None]
        if not said:
            return self.labels
        table = torch.stack([p.log_evidence(self.dtype) for p in said]).sum(dim=0)
        weights = [p.instance_weight() for p in said if p.weight is not None]
        weight = torch.stack(weights).prod(dim=0) if weights else None
        known = Table(table, rows=self.labels.rows, n_rows=self.labels.n_rows, weight=weight)
        rest = [p for p in parts if all(p is not q for q in said)]
        return All(known, *rest) if rest else known

    def posterior(self, log_probs: Tensor) -> Tensor:
        """P(y_i = k | all observations), (N, K)."""
        return self.view.posterior(log_probs)

    def update(self, posterior: Tensor, log_probs: Tensor) -> None:
        """M-step of the channels."""
        self.labels.update(posterior, log_probs)
        self.view = self._view()
