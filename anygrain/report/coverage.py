"""Whether intervals hold as many true numbers as they say."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from anygrain.report.svg import Drawing


class CoverageDisplay:
    """Stated coverage of intervals against the share of numbers that they held.

    Args:
        level: stated coverage, shape (L,).
        share: of given numbers inside, shape (L,).
        low, high: limits of that share, shape (L,).
    """

    def __init__(self, level: Any, share: Any, *, low: Any, high: Any) -> None:
        self.level, self.share, self.low, self.high = (
            np.asarray(v, dtype=np.float64) for v in (level, share, low, high)
        )

    def plot(self, ax: Any = None) -> Self:
        """Draw on matplotlib axes (new ones without `ax`); sets `ax_` and `figure_`."""
        from anygrain.report.axes import new_axes

        ax = new_axes(ax)
        ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="as stated")
        ax.fill_between(self.level, self.low, self.high, color="#0072B2", alpha=0.2)
        ax.plot(self.level, self.share, color="#0072B2", marker="o", label="held")
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="stated coverage", ylabel="share inside", aspect="equal")
        ax.legend(loc="upper left", frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def to_svg(self, width: float = 460, height: float = 380) -> str:
        """The same as SVG for a page."""
        drawing = Drawing(width, height, margins=(50, 12, 14, 46))
        grid = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        drawing.y_axis("share of given numbers inside", grid)
        drawing.x_axis("stated coverage of the interval", grid, grid=False)
        drawing.path([0, 1], [0, 1], "ideal")
        drawing.text(drawing.x(0.03), drawing.y(0.94), "too wide", css="hint")
        drawing.text(drawing.x(0.98), drawing.y(0.04), "too narrow", anchor="end", css="hint")
        drawing.path(self.level, self.share, "line ours join")
        for level, share, low, high in zip(self.level, self.share, self.low, self.high, strict=True):
            x = drawing.x(float(level))
            drawing.segment(x, drawing.y(float(low)), x, drawing.y(float(high)), "whisker ours")
            drawing.mark(x, drawing.y(float(share)), "ours", size=3.5, tip=f"stated {level:.2f}, held {share:.2f}")
        return drawing.svg("Coverage of intervals against what they state")
