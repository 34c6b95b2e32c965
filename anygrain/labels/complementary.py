"""Complementary labels: the true class is none of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from anygrain.labels.candidates import read_sets
from anygrain.labels.error import LabelError
from anygrain.labels.instance import InstanceLabels, as_classes, as_mask, check_error, relabelled_columns, require

if TYPE_CHECKING:
    from anygrain.labels.taxonomy import Taxonomy


class Complementary(InstanceLabels):
    r"""Each instance comes with one class, or several, that it is not.

    .. math:: P(\bar S_i \mid y_i = k) = (1 - \epsilon) [k \notin \bar S_i] + \epsilon / K

    Args:
        classes: class indices, shape (N,), -1 says nothing; or bool, shape (N, K), True where class k is ruled out.
        n_classes: K; needed with class indices.
        error: probability, in [0, 1), that a label was drawn without regard to the truth.

    Raises:
        LabelError: a row that rules out every class, or a class outside -1..K-1, naming the first such rows.

    Source: Ishida and others, Learning from Complementary Labels, 2017.
    """

    excluded: Tensor

    def __init__(
        self,
        classes: Tensor,
        n_classes: int | None = None,
        *,
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        excluded = torch.as_tensor(classes)
        if excluded.ndim == 1:
            if n_classes is None:
                raise LabelError("Complementary with class indices needs n_classes")
            index = as_classes(excluded, n_classes)
            excluded = torch.zeros(len(index), n_classes, dtype=torch.bool, device=index.device)
            excluded[(index >= 0).nonzero()[:, 0], index[index >= 0]] = True
        excluded = as_mask(excluded, "excluded classes")
        if n_classes is not None and excluded.shape[1] != n_classes:
            raise LabelError(f"excluded classes have {excluded.shape[1]} columns; expected {n_classes}")
        require(~excluded.all(dim=1), "rules out every class")
        super().__init__(
            excluded.shape[1],
            per_instance={"excluded": excluded},
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )
        self.error = check_error(error)

    def log_evidence(self, dtype: torch.dtype = torch.float32) -> Tensor:
        prob = (1 - self.error) * (~self.excluded).to(dtype) + self.error / self.n_classes
        return prob.log_().masked_fill_(~self.excluded.any(dim=1, keepdim=True), 0.0)

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        new = self._fresh()
        new.excluded = relabelled_columns(self.excluded, mapping, n_classes, type(self).__name__, False)
        new.n_classes, new.class_names = n_classes, None
        return new

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: str,
        *,
        taxonomy: Taxonomy | None = None,
        classes: Sequence[str] | None = None,
        separator: str = "|",
        **how: Any,
    ) -> Self:
        """Labels from a column of cells such as "a" or "a|b"; an empty cell says nothing."""
        excluded, names = read_sets(frame, columns, separator, taxonomy, classes)
        return cls(excluded, class_names=names, **how)

    @classmethod
    def simulate(
        cls, classes: Tensor, n_classes: int, *, generator: torch.Generator, share: float = 1.0, **how: Any
    ) -> Complementary:
        """One wrong class, drawn uniformly, for a random `share` of the instances."""
        wrong = (classes + torch.randint(1, n_classes, classes.shape, generator=generator)) % n_classes
        kept = torch.rand(len(classes), generator=generator) < share
        return cls(torch.where(kept, wrong, -1), n_classes, **how)
