"""How far predictions are off, in units of what they said themselves."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from anygrain.report.svg import Drawing, ticks

ENDS = 5.0  # standard deviations; what lies beyond stands in the outermost bars
BARS = 40


class ResidualDisplay:
    """Histogram of (given - predicted) / standard deviation, with the normal curve that is promised.

    Args:
        residuals: shape (n,).
    """

    def __init__(self, residuals: Any) -> None:
        self.residuals = np.asarray(residuals, dtype=np.float64)
        self.edges = np.linspace(-ENDS, ENDS, BARS + 1)
        self.count = np.histogram(self.residuals.clip(-ENDS, ENDS), self.edges)[0]

    def _promised(self, at: np.ndarray) -> np.ndarray:
        """Rows that a bar would hold at these places, (m,), if the predictions were right about themselves."""
        width = self.edges[1] - self.edges[0]
        return np.asarray(len(self.residuals) * width * np.exp(-0.5 * np.square(at)) / np.sqrt(2 * np.pi))

    def plot(self, ax: Any = None) -> Self:
        """Draw on matplotlib axes (new ones without `ax`); sets `ax_` and `figure_`."""
        from anygrain.report.axes import new_axes

        ax = new_axes(ax)
        ax.stairs(self.count, self.edges, fill=True, color="#0072B2", alpha=0.5, label="rows")
        at = np.linspace(-ENDS, ENDS, 201)
        ax.plot(at, self._promised(at), color="0.4", linestyle="--", label="as promised")
        ax.set(xlabel="(given - predicted) / standard deviation", ylabel="rows")
        ax.legend(frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def to_svg(self, width: float = 460, height: float = 300) -> str:
        """The same as SVG for a page."""
        at = np.linspace(-ENDS, ENDS, 101)
        promised = self._promised(at)
        top = 1.06 * max(float(self.count.max(initial=0)), float(promised.max()), 1.0)
        drawing = Drawing(width, height, x=(-ENDS, ENDS), y=(0.0, top), margins=(50, 12, 14, 46))
        drawing.y_axis("rows", ticks(0.0, top, 4))
        drawing.x_axis("(given \u2212 predicted) / standard deviation", [-4, -2, 0, 2, 4], grid=False)
        for begin, end, count in zip(self.edges[:-1], self.edges[1:], self.count, strict=True):
            left, right, y = drawing.x(float(begin)), drawing.x(float(end)), drawing.y(float(count))
            tip = f"{begin:.2f} to {end:.2f}: {count} rows"
            drawing.box(left + 0.5, y, right - left - 1, drawing.bottom - y, "bar", tip=tip)
        drawing.path(at, promised, "ideal")
        return drawing.svg("Residuals in standard deviations")
