"""Which tags go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from anygrain.report.grid import square


class TogetherDisplay:
    """Of the rows that have one tag, the share that has another.

    Args:
        matrix: number of rows with both of two tags, on the diagonal with one of them, shape (L, L).
        names: L names.

    Raises:
        ValueError: a matrix that is not square, or another number of names.
    """

    def __init__(self, matrix: Any, names: Sequence[str]) -> None:
        self.matrix = np.asarray(matrix, dtype=np.float64)
        self.names = [str(n) for n in names]
        if self.matrix.shape != (len(self.names),) * 2:
            raise ValueError(f"the matrix has shape {self.matrix.shape} for {len(self.names)} tags")

    @property
    def shares(self) -> np.ndarray:
        """P(column | row), shape (L, L); 0 on the diagonal, and where a tag has no rows."""
        total = np.diag(self.matrix)[:, None]
        shares: np.ndarray = np.divide(self.matrix, total, out=np.zeros_like(self.matrix), where=total > 0)
        np.fill_diagonal(shares, 0.0)
        return shares.clip(0, 1)

    def plot(self, ax: Any = None) -> Self:
        """Draw on matplotlib axes (new ones without `ax`); sets `ax_` and `figure_`."""
        from anygrain.report.axes import new_axes

        ax = new_axes(ax)
        ax.imshow(self.shares, cmap="Blues", vmin=0, vmax=1)
        place = np.arange(len(self.names))
        ax.set_xticks(place, self.names, rotation=45, ha="right")
        ax.set_yticks(place, self.names)
        ax.set(xlabel="share that has this tag as well", ylabel="of the rows with")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def to_svg(self, width: float = 640) -> str:
        """The same as SVG for a page."""
        shares, count = self.shares, np.diag(self.matrix)

        def tip(row: int, column: int) -> str:
            rows = f"{self.matrix[row, column]:.0f} of {count[row]:.0f} rows"
            return f"of {self.names[row]}, {100 * shares[row, column]:.0f} % have {self.names[column]}: {rows}"

        return square(shares, self.names, lambda row, column: "right", tip, "Tags that go together", width)
