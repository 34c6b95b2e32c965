"""Exact labels: the class is this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.frame import ClassColumn
from anygrain.labels.instance import InstanceLabels, as_classes, check_error, check_mapping


class Exact(ClassColumn, InstanceLabels):
    r"""Each instance comes with its class; -1 says nothing.

    .. math:: P(c_i \mid y_i = k) = (1 - \epsilon) [k = c_i] + \epsilon / K

    Args:
        classes: class indices, shape (N,).
        n_classes: K.
        error: probability, in [0, 1), that a label was drawn without regard to the truth.

    Raises:
        LabelError: a class outside -1..K-1, naming the first rows.
    """

    labels: Tensor

    def __init__(
        self,
        classes: Tensor,
        n_classes: int,
        *,
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        labels = as_classes(classes, n_classes)
        super().__init__(
            n_classes, per_instance={"labels": labels}, rows=rows, n_rows=n_rows, weight=weight, class_names=class_names
        )
        self.error = check_error(error)

    def log_evidence(self, dtype: torch.dtype = torch.float32, classes: Tensor | None = None) -> Tensor:
        missing = (self.labels == -1)[:, None]
        drawn = self.error / self.n_classes
        if classes is None:
            prob = torch.full((self.n_instances, self.n_classes), drawn, dtype=dtype, device=self.device)
            prob.scatter_(1, self.labels.clamp(min=0)[:, None], 1 - self.error + drawn)
            return prob.log_().masked_fill_(missing, 0.0)
        # where K is large: only the columns asked for, and the mean over the rest
        hit = self.labels[:, None] == classes
        n_rest = max(self.n_classes - len(classes), 1)
        in_rest = ~hit.any(dim=1, keepdim=True)
        prob = torch.cat([hit * (1 - self.error), in_rest * ((1 - self.error) / n_rest)], dim=1).to(dtype) + drawn
        return prob.log_().masked_fill_(missing, 0.0)

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        mapping = check_mapping(mapping, self.n_classes, n_classes, "Exact", injective=self.error > 0).to(self.device)
        new = self._fresh()
        new.labels = torch.where(self.labels < 0, self.labels, mapping[self.labels.clamp(min=0)])
        new.n_classes, new.class_names = n_classes, None
        return new

    @classmethod
    def simulate(
        cls,
        classes: Tensor,
        n_classes: int,
        *,
        generator: torch.Generator,
        share: float = 1.0,
        error: float = 0.0,
        **how: Any,
    ) -> Exact:
        """The true class of a random `share` of the instances, with the given error."""
        drawn = torch.randint(n_classes, classes.shape, generator=generator)
        said = torch.where(torch.rand(len(classes), generator=generator) < error, drawn, classes)
        kept = torch.rand(len(classes), generator=generator) < share
        return cls(torch.where(kept, said, -1), n_classes, error=error, **how)
