"""Confusion: which classes are taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from anygrain.report.grid import square


class ConfusionDisplay:
    """Rows are true classes, columns predicted ones; shades are shares of the row.

    Args:
        matrix: rows of each true and predicted class, or expected numbers, shape (C, C).
        class_names: C names.
        name: of the group of classes, such as their parent.

    Raises:
        ValueError: a matrix that is not square, or another number of names.
    """

    def __init__(self, matrix: Any, class_names: Sequence[str], *, name: str | None = None) -> None:
        self.matrix = np.asarray(matrix, dtype=np.float64)
        self.class_names = [str(c) for c in class_names]
        if self.matrix.shape != (len(self.class_names),) * 2:
            raise ValueError(f"the matrix has shape {self.matrix.shape} for {len(self.class_names)} class names")
        self.name = name

    @property
    def shares(self) -> np.ndarray:
        """Each row divided by its sum; zero where a class has no rows."""
        total = self.matrix.sum(axis=1, keepdims=True)
        shares: np.ndarray = np.divide(self.matrix, total, out=np.zeros_like(self.matrix), where=total > 0)
        return shares

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_pred: Any,
        *,
        class_names: Sequence[str] | None = None,
        name: str | None = None,
        ax: Any = None,
        plot: bool = True,
    ) -> Self:
        """From true and predicted classes, shape (N,), as names or indices.

        Args:
            y_true, y_pred: classes; both names, or both indices 0..C-1 into `class_names`.
            class_names: the classes to show, in order; those that occur, sorted, where not given.
            name: of the group of classes.
            ax: matplotlib axes to draw on; new ones where not given.
            plot: False only computes.

        Raises:
            ValueError: lengths that differ, or a class outside `class_names`.
        """
        truth, predicted = np.asarray(y_true), np.asarray(y_pred)
        if truth.shape != predicted.shape or truth.ndim != 1:
            raise ValueError(f"y_true has shape {truth.shape} and y_pred {predicted.shape}; expected (N,) for both")
        if class_names is not None and truth.dtype.kind in "iu":
            keys: np.ndarray = np.arange(len(class_names))
            names: Sequence[str] = class_names
        else:
            keys = np.unique(np.concatenate([truth, predicted])) if class_names is None else np.asarray(class_names)
            names = [str(k) for k in keys]
        order = np.argsort(keys)
        at = [order[np.minimum(np.searchsorted(keys[order], v), len(keys) - 1)] for v in (truth, predicted)]
        odd = [v[keys[place] != v] for v, place in zip((truth, predicted), at, strict=True)]
        if sum(map(len, odd)):
            raise ValueError(f"class {next(v.tolist()[0] for v in odd if len(v))!r} is not among the class names")
        matrix = np.bincount(at[0] * len(keys) + at[1], minlength=len(keys) ** 2).reshape(len(keys), len(keys))
        display = cls(matrix, names, name=name)
        return display.plot(ax) if plot else display

    def plot(self, ax: Any = None) -> Self:
        """Draw on matplotlib axes (new ones without `ax`); sets `ax_` and `figure_`."""
        from anygrain.report.axes import new_axes

        ax = new_axes(ax)
        shares = self.shares
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in zip(*np.nonzero(self.matrix), strict=True):
            colour = "white" if shares[row, column] > 0.6 else "black"
            ax.text(column, row, f"{self.matrix[row, column]:.3g}", ha="center", va="center", color=colour)
        place = np.arange(len(self.class_names))
        ax.set_xticks(place, self.class_names, rotation=45, ha="right")
        ax.set_yticks(place, self.class_names)
        ax.set(xlabel="predicted", ylabel="true", title=self.name or "")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def to_svg(self, width: float = 360) -> str:
        """The same as SVG for a page: columns carry the numbers of the rows."""
        shares, total = self.shares, self.matrix.sum(axis=1)

        def tip(row: int, column: int) -> str:
            rows = f"{self.matrix[row, column]:.3g} of {total[row]:.3g} rows"
            return f"{self.class_names[row]} taken for {self.class_names[column]}: {rows}"

        title = f"Confusion{' inside ' + self.name if self.name else ''}"
        return square(
            shares, self.class_names, lambda row, column: "right" if row == column else "wrong", tip, title, width
        )
