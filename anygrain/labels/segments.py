"""Ragged rows laid out for vectorised work: segments of similar length side by side."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor


class Block:
    """Segments of similar length, laid out as a table of S segments by n places.

    Attributes:
        segments: which segments, shape (S,); None for all of them.
        index: flat row of every place, shape (S, n); None where the rows need no gathering.
        filled: bool, shape (S, n): the place holds a row; None where all do.
    """

    def __init__(self, segments: Tensor | None, index: Tensor | None, filled: Tensor | None, shape: tuple[int, int]):
        self.segments, self.index, self.filled, self.shape = segments, index, filled, shape
        self._rows = None if index is None else (index if filled is None else index[filled])

    def lay(self, rows: Tensor, fill: float) -> Tensor:
        """(E, ...) as (S, n, ...), `fill` where a place holds no row."""
        if self.index is None:
            return rows.view(*self.shape, *rows.shape[1:])
        table = rows[self.index]
        if self.filled is None:
            return table
        return table.masked_fill(~self.filled.view(*self.shape, *[1] * (rows.ndim - 1)), fill)

    def write(self, out: Tensor, table: Tensor) -> None:
        """Put a table (S, n, ...) back into flat rows (E, ...)."""
        if self._rows is None:
            out.copy_(table.reshape(out.shape))
        elif self.filled is None:
            out[self._rows.reshape(-1)] = table.reshape(-1, *table.shape[2:])
        else:
            out[self._rows] = table[self.filled]

    def place(self, out: Tensor, values: Tensor) -> None:
        """Put values (S, ...) of the segments of this block into those of all (M, ...)."""
        out[slice(None) if self.segments is None else self.segments] = values

    def pick(self, values: Tensor) -> Tensor:
        """Values (M, ...) of the segments of this block, shape (S, ...)."""
        return values if self.segments is None else values[self.segments]


class Segments:
    """Flat rows cut into M segments: rows `offsets[m]:offsets[m + 1]` are segment m.

    Made once for given offsets; the kernels then run without looking at them again.

    Args:
        offsets: shape (M + 1,), rising from 0 to E.
    """

    def __init__(self, offsets: Tensor):
        self.offsets = offsets
        self.sizes = offsets.diff()
        lengths = self.sizes.cpu()
        self.longest = int(lengths.max()) if len(lengths) else 0
        self.total = int(lengths.sum())
        #: common length of all segments, 0 where they differ
        self.even = self.longest if len(lengths) and self.longest * len(lengths) == self.total else 0

    @classmethod
    def of(cls, offsets: Tensor | Segments) -> Segments:
        return offsets if isinstance(offsets, Segments) else cls(offsets)

    def __len__(self) -> int:
        return len(self.sizes)

    @cached_property
    def index(self) -> Tensor:
        """Segment of every row, shape (E,)."""
        return torch.repeat_interleave(self.sizes)

    @cached_property
    def blocks(self) -> list[Block]:
        """All segments in blocks."""
        if self.even:
            return [Block(None, None, None, (len(self), self.even))]
        return self.blocks_of(torch.arange(len(self), device=self.offsets.device))

    def blocks_of(self, segments: Tensor) -> list[Block]:
        """The given segments (S,) in blocks that are at most half empty; segments without rows are left out."""
        sizes = self.sizes[segments]
        segments, sizes = segments[sizes > 0], sizes[sizes > 0]
        if len(segments) == 0:
            return []
        if int(sizes.max()) * len(sizes) <= 2 * int(sizes.sum()):
            return [self._block(segments)]
        level = torch.ceil(torch.log2(sizes.double())).long()
        return [self._block(segments[level == one]) for one in level.unique().tolist()]

    def _block(self, segments: Tensor) -> Block:
        sizes = self.sizes[segments]
        place = torch.arange(int(sizes.max()), device=sizes.device)
        filled = place < sizes[:, None]
        index = (self.offsets[segments][:, None] + place).clamp(max=self.total - 1)
        return Block(segments, index, None if bool(filled.all()) else filled, (len(segments), len(place)))
