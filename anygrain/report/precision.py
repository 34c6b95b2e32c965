"""Precision against recall."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from anygrain.report.svg import Drawing


class PrecisionDisplay:
    """Of what is named, the share that is right, against the share of what is there that is named.

    Args:
        precision, recall: at falling thresholds or rising ones, shape (n,).
        threshold: probability from which something is named, shape (n,).
        base: precision of naming everything.
        marked: threshold to mark on the line.
    """

    def __init__(
        self, precision: Any, recall: Any, threshold: Any, *, base: float | None = None, marked: float | None = 0.5
    ) -> None:
        self.precision, self.recall, self.threshold = (
            np.asarray(v, dtype=np.float64) for v in (precision, recall, threshold)
        )
        self.base = base
        order = np.argsort(self.threshold)
        at = int(np.searchsorted(self.threshold[order], marked)) if marked is not None else len(order)
        self.marked = int(order[at]) if at < len(order) else None

    def plot(self, ax: Any = None) -> Self:
        """Draw on matplotlib axes (new ones without `ax`); sets `ax_` and `figure_`."""
        from anygrain.report.axes import new_axes

        ax = new_axes(ax)
        ax.plot(self.recall, self.precision, color="#0072B2")
        if self.base is not None:
            ax.axhline(self.base, color="0.6", linewidth=1, linestyle="--", label="naming everything")
            ax.legend(loc="upper right", frameon=False)
        if self.marked is not None:
            ax.plot(self.recall[self.marked], self.precision[self.marked], color="#0072B2", marker="o")
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="recall", ylabel="precision", aspect="equal")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def to_svg(self, width: float = 460, height: float = 380) -> str:
        """The same as SVG for a page."""
        drawing = Drawing(width, height, margins=(50, 12, 14, 46))
        grid = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        drawing.y_axis("share of named tags that are right", grid)
        drawing.x_axis("share of tags that are named", grid, grid=False)
        if self.base is not None:
            drawing.path([0, 1], [self.base, self.base], "ideal")
            drawing.text(drawing.x(0.02), drawing.y(self.base) - 6, "naming every tag", css="hint")
        drawing.path(self.recall, self.precision, "line ours")
        if self.marked is not None:
            recall, precision, threshold = (
                float(v[self.marked]) for v in (self.recall, self.precision, self.threshold)
            )
            tip = f"above {threshold:.2f}: {precision:.2f} of what is named is right, {recall:.2f} of all is named"
            drawing.mark(drawing.x(recall), drawing.y(precision), "ours", size=5, tip=tip)
        return drawing.svg("Precision against recall")
