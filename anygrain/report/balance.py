"""Class balance: how many rows each class is expected to have, and how many labels name it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from anygrain.report.svg import Drawing, shortened, ticks


class BalanceDisplay:
    """A bar per class for its expected rows, and a tick for its exact rows.

    Args:
        names: K class names.
        expected: sum of the posterior over all rows, shape (K,).
        exact: rows that are labelled with the class exactly, shape (K,).
        given: what such rows are called.
    """

    def __init__(self, names: Sequence[str], expected: Any, exact: Any, *, given: str = "exact") -> None:
        self.given = given
        self.names = [str(n) for n in names]
        self.expected, self.exact = (np.asarray(v, dtype=np.float64) for v in (expected, exact))

    def plot(self, ax: Any = None) -> Self:
        """Draw on matplotlib axes (new ones without `ax`); sets `ax_` and `figure_`."""
        from anygrain.report.axes import new_axes

        ax = new_axes(ax)
        place = np.arange(len(self.names))[::-1]
        ax.barh(place, self.expected, color="#56B4E9", label="expected rows")
        ax.plot(
            self.exact,
            place,
            color="#D55E00",
            marker="|",
            linestyle="",
            markersize=10,
            label=f"rows {self.given}" if " " in self.given else f"{self.given} rows",
        )
        ax.set_yticks(place, self.names)
        ax.set(xlabel="rows")
        ax.legend(frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def to_svg(self, width: float = 520) -> str:
        """The same as SVG for a page."""
        many = len(self.names)
        line = 20.0 if many <= 40 else 9.0
        longest = max((len(shortened(n, 30)) for n in self.names), default=0)
        left = min(18 + 6.8 * longest, 0.42 * width) if line > 12 else 20.0
        largest = max(float(self.expected.max(initial=0)), float(self.exact.max(initial=0)), 1.0)
        drawing = Drawing(width, line * many + 52, x=(0, largest), y=(many - 0.5, -0.5), margins=(left, 6, 52, 46))
        drawing.x_axis("rows", ticks(0, largest))
        room = int((left - 12) / 6.4)
        for at, name in enumerate(self.names):
            y = drawing.y(at)
            tip = f"{name}: {self.expected[at]:.0f} rows expected, {self.exact[at]:.0f} {self.given}"
            begin = drawing.x(0)
            drawing.box(begin, y - 0.33 * line, drawing.x(self.expected[at]) - begin, 0.66 * line, "bar", tip=tip)
            if self.exact[at] > 0:
                mark = drawing.x(self.exact[at])
                drawing.segment(mark, y - 0.46 * line, mark, y + 0.46 * line, "exact")
            if line > 12:
                cut = shortened(name, room)
                drawing.text(left - 8, y + 4, cut, anchor="end", css="name", tip=name if cut != name else "")
                drawing.text(drawing.right + 10, y + 4, f"{self.expected[at]:.0f}", css="name")
        return drawing.svg("Expected rows of each class")
