"""Instances of one bag where they lie, or one after another, the darker the higher their score."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np

from anygrain.report.svg import Drawing

MOST_CELLS = 2500
PER_ROW = 24  # of instances without places
LARGEST_SIDE = 40  # of a square, in user units


class HeatDisplay:
    """Scores of the instances of a bag as heat over their places, as on a slide.

    Where there are more than 2,500 instances a square shows the highest score of those inside it.

    Args:
        score: (n,), in 0..1 or any range from 0 on; shown relative to the largest, or to `highest`.
        coords: places (n, 2), y downwards as in images; without, instances follow each other in rows.
        name: of the score.
        highest: score of the darkest colour, so that several bags can be compared; the largest when not given.
    """

    def __init__(self, score: Any, coords: Any = None, name: str = "", highest: float | None = None) -> None:
        self.score, self.name = np.asarray(score, dtype=np.float64), name
        n = len(self.score)
        if coords is None:
            at = np.arange(n)
            coords = np.stack([at % PER_ROW, at // PER_ROW], axis=1)
        self.coords = np.asarray(coords, dtype=np.float64)
        if self.coords.shape != (n, 2) or n == 0:
            raise ValueError(f"{n} scores and coordinates {self.coords.shape}; expected one or more, and (n, 2)")
        self.highest = max(float(self.score.max()) if highest is None else highest, 1e-12)
        self.step = _step(self.coords)
        if n > MOST_CELLS:
            self.coords, self.score, self.step = _merged(self.coords, self.score)

    def plot(self, ax: Any = None) -> Self:
        """Draw on matplotlib axes (new ones without `ax`); sets `ax_` and `figure_`."""
        from matplotlib.collections import PatchCollection
        from matplotlib.patches import Rectangle

        from anygrain.report.axes import new_axes

        ax = new_axes(ax)
        squares = [Rectangle((x, y), self.step, self.step) for x, y in self.coords]
        cells = PatchCollection(squares, cmap="Oranges")
        cells.set_array(self.score)
        cells.set_clim(0, self.highest)
        ax.add_collection(cells)
        ax.set(xlim=self._limits(0), ylim=self._limits(1)[::-1], aspect="equal", xticks=[], yticks=[])
        ax.figure.colorbar(cells, ax=ax, label=self.name, shrink=0.8)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _limits(self, axis: int) -> tuple[float, float]:
        return float(self.coords[:, axis].min()), float(self.coords[:, axis].max() + self.step)

    def to_svg(self, width: float = 300) -> str:
        """The same as SVG for a page."""
        x, y = self._limits(0), self._limits(1)
        width = min(width, LARGEST_SIDE * (x[1] - x[0]) / self.step)
        height = min(max(width * (y[1] - y[0]) / (x[1] - x[0]), 8), 1.5 * width)
        side = min(width / (x[1] - x[0]), height / (y[1] - y[0])) * self.step
        drawing = Drawing(width, height, x=x, y=(y[1], y[0]), margins=(0, 0, 0, 0))
        for (left, top), score in zip(self.coords.tolist(), self.score.tolist(), strict=True):
            share = min(max(score / self.highest, 0.0), 1.0)
            drawing.box(
                drawing.x(left), drawing.y(top), side, side, "heat", opacity=0.06 + 0.94 * share, tip=f"{score:.3g}"
            )
        return drawing.svg(f"{self.name} of {len(self.score)} instances".strip())


def _step(coords: np.ndarray) -> float:
    """Side of a square: the smallest distance between two places along an axis, 1 where there is one place."""
    steps = [np.diff(np.unique(column)) for column in coords.T]
    smallest = [float(step.min()) for step in steps if len(step)]
    return min(smallest) if smallest else 1.0


def _merged(coords: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Squares of a coarser grid that hold something, with the highest score inside."""
    low, high = coords.min(axis=0), coords.max(axis=0)
    side = max(float(np.max(high - low)) / math.floor(math.sqrt(MOST_CELLS)), 1e-12)
    cell = np.minimum(((coords - low) / side).astype(np.int64), math.floor(math.sqrt(MOST_CELLS)) - 1)
    places, of = np.unique(cell, axis=0, return_inverse=True)
    highest = np.full(len(places), -np.inf)
    np.maximum.at(highest, of.reshape(-1), score)
    return low + places * side, highest, side
