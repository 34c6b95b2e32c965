"""Shares with their intervals, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from anygrain.report.svg import Drawing, shortened, ticks


class IntervalDisplay:
    """One line per name: a value as a dot, its interval as a bar.

    Args:
        names: of the lines, from top to bottom.
        values: shape (n,); NaN leaves the line empty.
        low, high: limits, shape (n,); NaN where there are none.
        ours: which lines to draw in the strong colour; all where not given.
        label: what the values are.
        limits: of the axis; (0, 1) where not given.
    """

    def __init__(
        self,
        names: Sequence[str],
        values: Any,
        low: Any,
        high: Any,
        *,
        ours: Sequence[bool] | None = None,
        label: str = "accuracy",
        limits: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.names = list(names)
        self.values, self.low, self.high = (np.asarray(v, dtype=np.float64) for v in (values, low, high))
        self.ours = [True] * len(self.names) if ours is None else list(ours)
        self.label, self.limits = label, limits

    def plot(self, ax: Any = None) -> Self:
        """Draw on matplotlib axes (new ones without `ax`); sets `ax_` and `figure_`."""
        from anygrain.report.axes import new_axes

        ax = new_axes(ax)
        place = np.arange(len(self.names))[::-1]
        for at, value, low, high, ours in zip(place, self.values, self.low, self.high, self.ours, strict=True):
            colour = "#0072B2" if ours else "0.45"
            ax.plot([low, high], [at, at], color=colour, linewidth=2)
            ax.plot([value], [at], color=colour, marker="o" if ours else "s")
        ax.set_yticks(place, self.names)
        ax.set(xlim=self.limits, xlabel=self.label)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def to_svg(self, width: float = 520, title: str = "", line: float = 30.0) -> str:
        """The same as SVG for a page."""
        longest = max((len(shortened(name, 46)) for name in self.names), default=0)
        left = min(20 + 7.2 * longest, 0.5 * width)
        height = line * len(self.names) + 54
        drawing = Drawing(width, height, x=self.limits, y=(len(self.names) - 0.5, -0.5), margins=(left, 8, 56, 46))
        drawing.x_axis(self.label, ticks(*self.limits))
        room = int((left - 14) / 6.8)
        for at, name in enumerate(self.names):
            value, low, high, ours = self.values[at], self.low[at], self.high[at], self.ours[at]
            y, css = drawing.y(at), "ours" if ours else "base"
            strong = "name strong" if ours and not all(self.ours) else "name"
            cut = shortened(name, room)
            drawing.text(left - 10, y + 4, cut, anchor="end", css=strong, tip=name if cut != name else "")
            if not np.isfinite(value):
                drawing.text(drawing.x(self.limits[0]) + 6, y + 4, "not measured", css="hint")
                continue
            tip = f"{name}: {value:.2f}"
            if np.isfinite(low) and np.isfinite(high):
                begin, end = drawing.x(max(low, self.limits[0])), drawing.x(min(high, self.limits[1]))
                drawing.box(begin, y - 4, end - begin, 8, f"band {css}")
                tip += f" [{low:.2f}, {high:.2f}]"
            shape = "circle" if ours else "square"
            drawing.mark(drawing.x(value), y, css, shape=shape, size=5 if ours else 4, tip=tip)
            drawing.text(drawing.right + 12, y + 4, f"{value:.2f}", css=strong)
        return drawing.svg(title or f"{self.label} with intervals")
