"""Coarse labels: the class lies somewhere under this node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from anygrain.labels.error import LabelError
from anygrain.labels.frame import as_strings, encode, read_column
from anygrain.labels.instance import InstanceLabels, as_classes, check_error, check_mapping
from anygrain.labels.taxonomy import Taxonomy


class Coarse(InstanceLabels):
    r"""Each instance comes with a node of a taxonomy that lies above its class; -1 says nothing.

    .. math:: P(c_i \mid y_i = k) = (1 - \epsilon) M_{c_i k} + \epsilon / K

    with M the membership of class k in node c: 0 or 1 in a tree; where a node has n parents each is reported with
    probability 1 / n unless the taxonomy says otherwise. Labels are taken to be coarsened at random: how deep a label
    reaches does not depend on which of the classes below it is true.

    Args:
        coarse: node indices, shape (N,).
        taxonomy: a `Taxonomy`, or its membership matrix (C, K) with entries in [0, 1].
        level: the level that indices count in, by name or number; None is the level right above the classes, "any"
            is all nodes, in the order of `taxonomy.names`.
        error: probability, in [0, 1), that a label was drawn without regard to the truth.

    Raises:
        LabelError: an index outside the level, a node without classes, a matrix with entries outside [0, 1].

    Source: Heitjan and Rubin, Ignorability and Coarse Data, 1991.
    """

    nodes: Tensor

    def __init__(
        self,
        coarse: Tensor,
        taxonomy: Taxonomy | Tensor,
        level: str | int | None = None,
        *,
        error: float = 0.0,
        rows: Tensor | None = None,
        n_rows: int | None = None,
        weight: Tensor | None = None,
        class_names: Sequence[str] | None = None,
    ):
        if isinstance(taxonomy, Taxonomy):
            class_names = taxonomy.classes if class_names is None else class_names
            if level is None:
                level = min(1, len(taxonomy.level_names) - 1)
            matrix = taxonomy.membership(None if level == "any" else level)
        else:
            matrix = torch.as_tensor(taxonomy).to(torch.float64)
            if matrix.ndim != 2 or bool(((matrix < 0) | (matrix > 1)).any()):
                raise LabelError("a membership matrix has the shape (C, K) and entries from 0 to 1")
        nodes = as_classes(coarse, len(matrix), "coarse label")
        empty = (~(matrix > 0).any(dim=1)).to(nodes.device)
        used = nodes[nodes >= 0].unique()
        if bool(empty[used].any()):
            raise LabelError(f"coarse label {int(used[empty[used]][0])} has no class below it")
        super().__init__(
            matrix.shape[1],
            per_instance={"nodes": nodes},
            rows=rows,
            n_rows=n_rows,
            weight=weight,
            class_names=class_names,
        )
        self.membership = matrix.to(nodes.device)
        self.taxonomy = taxonomy if isinstance(taxonomy, Taxonomy) else None
        self.error = check_error(error)

    def log_evidence(self, dtype: torch.dtype = torch.float32) -> Tensor:
        table = ((1 - self.error) * self.membership + self.error / self.n_classes).log().to(dtype)
        return table[self.nodes.clamp(min=0)].masked_fill_((self.nodes == -1)[:, None], 0.0)

    def relabel(self, mapping: Tensor, n_classes: int) -> Self:
        """Merging is exact for classes that lie under the same nodes."""
        mapping = check_mapping(mapping, self.n_classes, n_classes, "Coarse", injective=False).to(self.device)
        matrix = self.membership.new_zeros(len(self.membership), n_classes)
        matrix[:, mapping] = self.membership
        if not torch.equal(matrix[:, mapping], self.membership) or (
            self.error and len(mapping.unique()) < len(mapping)
        ):
            raise LabelError("Coarse merges classes only where they lie under the same nodes (and error is 0)")
        new = self._fresh()
        new.membership, new.n_classes, new.class_names, new.taxonomy = matrix, n_classes, None, None
        return new

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        columns: str,
        *,
        taxonomy: Taxonomy,
        classes: Sequence[str] | None = None,
        level: str | int | None = "any",
        **how: Any,
    ) -> Self:
        """Labels from a column of node names; empty is missing.

        Args:
            level: where the names are looked up; "any" is the whole taxonomy, so that labels of mixed depth may meet.

        Raises:
            LabelError: no such column, a name that is not in the taxonomy, a class list that is not the taxonomy's.
        """
        if classes is not None and tuple(classes) != tuple(taxonomy.classes):
            raise LabelError("classes= and the classes of taxonomy= differ; give one of them")
        names = taxonomy.nodes(None if level == "any" else level)
        nodes = encode(as_strings(read_column(frame, columns)), names, f'"{columns}"')
        return cls(nodes, taxonomy, level, **how)

    @classmethod
    def simulate(  # type: ignore[override]
        cls,
        classes: Tensor,
        n_classes: int,
        *,
        generator: torch.Generator,
        taxonomy: Taxonomy | Tensor,
        level: str | int | None = None,
        share: float = 1.0,
        **how: Any,
    ) -> Coarse:
        """The node of `level` above the class, drawn by membership, for a random `share` of the instances."""
        if isinstance(taxonomy, Taxonomy):
            level = min(1, len(taxonomy.level_names) - 1) if level is None else level
            matrix = taxonomy.membership(level)
        else:
            matrix = torch.as_tensor(taxonomy).to(torch.float64)
        above = matrix.T.to(generator.device)[classes]
        node = torch.multinomial(above, 1, generator=generator)[:, 0]
        kept = torch.rand(len(classes), generator=generator) < share
        return cls(torch.where(kept, node, -1), taxonomy, level, **how)
