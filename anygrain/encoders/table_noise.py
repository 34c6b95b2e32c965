"""Rows of a table that are changed so that their class stays."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from anygrain.encoders.trainable import Arrays, Augmentation


class TableNoise(Augmentation):
    """Numbers moved a little; in the strong view, cells that take the value which another row has in their column.

    A cell that is taken from another row of the same batch is a draw from the column's marginal. What a part of the
    table that is read by an encoder of its own holds (texts, images) is changed as that encoder says.

    Args:
        moved: standard deviation of what is added to the numbers of the weak view, in standard deviations of theirs.
        swapped: share of cells of the strong view that come from other rows.
        parts: by the beginning of the names of their arrays, the augmentations of the parts; None leaves a part.

    Source: Bahri and others, SCARF: Self-Supervised Contrastive Learning using Random Feature Corruption, 2022.
    """

    def __init__(
        self,
        moved: float = 0.0,
        swapped: float = 0.3,
        parts: Mapping[str, Augmentation | None] | None = None,
    ) -> None:
        self.moved, self.swapped, self.parts = moved, swapped, dict(parts or {})

    def weak(self, arrays: Arrays, generator: torch.Generator) -> Arrays:
        out = dict(arrays)
        if self.moved and "numbers" in arrays:
            numbers = arrays["numbers"]
            out["numbers"] = numbers + self.moved * torch.randn(numbers.shape, generator=generator)
        for prefix, part in self.parts.items():
            if part is not None:
                changed = part.weak(part_of(arrays, prefix), generator)
                out.update({prefix + name: array for name, array in changed.items()})
        return out

    def strong(self, arrays: Arrays, generator: torch.Generator) -> Arrays:
        out = dict(arrays)
        for name in ("numbers", "categories"):
            if name in arrays:
                cells = arrays[name]
                others = torch.rand(cells.shape, generator=generator).argsort(dim=0)
                swapped = torch.rand(cells.shape, generator=generator) < self.swapped
                out[name] = torch.where(swapped, cells.gather(0, others), cells)
        for prefix, part in self.parts.items():
            if part is not None:
                changed = part.strong(part_of(arrays, prefix), generator)
                out.update({prefix + name: array for name, array in changed.items()})
        return out


def part_of(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays whose names begin so, under the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
