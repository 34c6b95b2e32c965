"""Training: evidence per row, round by round."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from anygrain.report.svg import Drawing, ticks


class HistoryDisplay:
    """Log-likelihood of the labels per row against the round, fitted and held out.

    Args:
        rounds: shape (T,).
        evidence: of the labels that were fitted, in nats per row, shape (T,); NaN where not measured.
        held_out: of labels held out, shape (T,); NaN where not measured.
    """

    def __init__(self, rounds: Any, evidence: Any, held_out: Any) -> None:
        self.rounds, self.evidence, self.held_out = (
            np.asarray(v, dtype=np.float64) for v in (rounds, evidence, held_out)
        )

    @property
    def best(self) -> int | None:
        """Place of the round with the most held-out evidence; None without any."""
        return int(np.nanargmax(self.held_out)) if np.isfinite(self.held_out).any() else None

    def plot(self, ax: Any = None) -> Self:
        """Draw on matplotlib axes (new ones without `ax`); sets `ax_` and `figure_`."""
        from anygrain.report.axes import new_axes

        ax = new_axes(ax)
        ax.plot(self.rounds, self.evidence, color="0.45", linestyle="--", marker="s", label="fitted")
        ax.plot(self.rounds, self.held_out, color="#0072B2", marker="o", label="held out")
        ax.set(xlabel="round", ylabel="log-likelihood of the labels, nats per row")
        ax.legend(frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def to_svg(self, width: float = 520, height: float = 250) -> str:
        """The same as SVG for a page."""
        values = np.concatenate([self.evidence, self.held_out])
        values = values[np.isfinite(values)]
        low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
        pad = 0.08 * ((high - low) or 1.0)
        first, last = (float(self.rounds.min()), float(self.rounds.max())) if len(self.rounds) else (0.0, 1.0)
        drawing = Drawing(
            width, height, x=(first, max(last, first + 1)), y=(low - pad, high + pad), margins=(64, 12, 78, 46)
        )
        drawing.y_axis("nats per row", ticks(low - pad, high + pad, 4))
        drawing.x_axis("round", [t for t in ticks(first, max(last, first + 1), 8) if t == int(t)], grid=False)
        ends: list[tuple[float, str, str]] = []
        for line, css, name in ((self.evidence, "base", "fitted"), (self.held_out, "ours", "held out")):
            kept = np.isfinite(line)
            if not kept.any():
                continue
            drawing.path(self.rounds[kept], line[kept], f"line {css}" + (" dashed" if css == "base" else ""))
            if kept.sum() <= 40:
                for x, y in zip(self.rounds[kept], line[kept], strict=True):
                    shape = "square" if css == "base" else "circle"
                    drawing.mark(drawing.x(x), drawing.y(y), css, shape=shape, size=3, tip=f"round {x:g}: {y:.3f}")
            ends.append((drawing.y(float(line[kept][-1])), name, css))
        ends.sort()
        if len(ends) == 2 and ends[1][0] - ends[0][0] < 15:
            middle = (ends[0][0] + ends[1][0]) / 2
            ends = [(middle - 7.5, *ends[0][1:]), (middle + 7.5, *ends[1][1:])]
        for y, name, css in ends:
            drawing.text(drawing.right + 10, y + 4, name, css=f"name {css}-text")
        best = self.best
        if best is not None:
            at = drawing.x(self.rounds[best]), drawing.y(self.held_out[best])
            drawing.mark(*at, "ours", shape="ring", size=7, tip=f"most held-out evidence: round {self.rounds[best]:g}")
        return drawing.svg("Evidence per row, by round")
