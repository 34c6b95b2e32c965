"""Given numbers against predicted ones, with the interval of each prediction."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from anygrain.report.svg import Drawing, ticks

WHISKERS = 300  # points up to which every interval is drawn


class ScatterDisplay:
    """Predictions from left to right, given numbers upwards; on the diagonal both are the same.

    Args:
        predicted: shape (n,).
        given: shape (n,).
        low, high: ends of the interval of every prediction, shape (n,); optional.
        name: of the number.
    """

    def __init__(self, predicted: Any, given: Any, *, low: Any = None, high: Any = None, name: str = "") -> None:
        self.predicted, self.given = (np.asarray(v, dtype=np.float64) for v in (predicted, given))
        self.low = self.predicted if low is None else np.asarray(low, dtype=np.float64)
        self.high = self.predicted if high is None else np.asarray(high, dtype=np.float64)
        if not self.predicted.shape == self.given.shape == self.low.shape == self.high.shape:
            raise ValueError(
                f"{self.predicted.shape} predictions and {self.given.shape} given numbers; expected as many"
            )
        self.name = name

    @property
    def inside(self) -> np.ndarray:
        """bool (n,): given numbers that their interval holds."""
        return np.asarray((self.low <= self.given) & (self.given <= self.high))

    def plot(self, ax: Any = None) -> Self:
        """Draw on matplotlib axes (new ones without `ax`); sets `ax_` and `figure_`."""
        from anygrain.report.axes import new_axes

        ax = new_axes(ax)
        ends = [float(min(self.predicted.min(), self.given.min())), float(max(self.predicted.max(), self.given.max()))]
        ax.plot(ends, ends, color="0.6", linewidth=1, linestyle="--", label="as predicted")
        held = self.inside
        ax.scatter(self.predicted[held], self.given[held], s=10, color="#0072B2", label="inside the interval")
        ax.scatter(self.predicted[~held], self.given[~held], s=14, color="#D55E00", marker="D", label="outside")
        ax.set(xlabel=f"predicted {self.name}".strip(), ylabel=f"given {self.name}".strip())
        ax.legend(frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def to_svg(self, width: float = 460, height: float = 380) -> str:
        """The same as SVG for a page; up to 300 points show their interval as well."""
        everything = np.concatenate([self.predicted, self.given])
        low, high = float(everything.min()), float(everything.max())
        room = 0.04 * ((high - low) or 1.0)
        limits = (low - room, high + room)
        drawing = Drawing(width, height, x=limits, y=limits, margins=(62, 12, 14, 46))
        at = ticks(*limits)
        drawing.y_axis(f"given {self.name}".strip(), at)
        drawing.x_axis(f"predicted {self.name}".strip(), at, grid=False)
        held = self.inside
        if len(self.given) <= WHISKERS:
            for x, a, b, css in zip(
                self.predicted, self.low, self.high, np.where(held, "ours", "c1-line"), strict=True
            ):
                begin, end = (drawing.y(float(np.clip(v, *limits))) for v in (a, b))
                drawing.segment(drawing.x(float(x)), begin, drawing.x(float(x)), end, f"whisker thin {css}")
        drawing.path(limits, limits, "ideal")
        points = np.stack([self.predicted, self.given], axis=1)
        drawing.marks(points[held], "c0")
        if not held.all():
            drawing.marks(points[~held], "c1", shape="diamond", size=2.6)
        return drawing.svg("Given against predicted numbers")
