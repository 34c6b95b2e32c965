"""Training: evidence per row, round by round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from anygrain.report.rowmap import COLOURS
from anygrain.report.svg import SHAPES, Drawing, shortened, ticks


class HistoryDisplay:
    """Log-likelihood of the labels per row against the round, one line per track.

    Args:
        tracks: name -> (rounds (T,), values (T,)), in nats per row; NaN where not measured. A track of a single value,
            such as a final fit, is a level.
    """

    def __init__(self, tracks: Mapping[str, tuple[Any, Any]]) -> None:
        self.tracks: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name, (rounds, values) in tracks.items():
            x, y = np.asarray(rounds, dtype=np.float64), np.asarray(values, dtype=np.float64)
            if np.isfinite(y).any():
                self.tracks[name] = x[np.isfinite(y)], y[np.isfinite(y)]

    @property
    def best(self) -> tuple[str, float] | None:
        """Track and round with the largest value among tracks of several rounds; None without any."""
        lines = {name: (x, y) for name, (x, y) in self.tracks.items() if len(y) > 1}
        if not lines:
            return None
        name = max(lines, key=lambda track: float(lines[track][1].max()))
        x, y = lines[name]
        return name, float(x[y.argmax()])

    def plot(self, ax: Any = None) -> Self:
        """Draw on matplotlib axes (new ones without `ax`); sets `ax_` and `figure_`."""
        from anygrain.report.axes import new_axes

        ax = new_axes(ax)
        for at, (name, (x, y)) in enumerate(self.tracks.items()):
            colour = COLOURS[at % len(COLOURS)]
            if len(y) > 1:
                ax.plot(x, y, color=colour, marker="o", label=name)
            else:
                ax.axhline(y[0], color=colour, linestyle="--", label=name)
        ax.set(xlabel="round", ylabel="log-likelihood of the labels, nats per row")
        ax.legend(frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def to_svg(self, width: float = 520, height: float = 280) -> str:
        """The same as SVG for a page."""
        every = np.concatenate([y for _, y in self.tracks.values()] or [np.zeros(1)])
        rounds = np.concatenate([x for x, y in self.tracks.values() if len(y) > 1] or [np.ones(1)])
        low, high = float(every.min()), float(every.max())
        pad = 0.1 * ((high - low) or 1.0)
        first, last = float(rounds.min()), max(float(rounds.max()), float(rounds.min()) + 1)
        scale = {"x": (first, last), "y": (low - pad, high + pad)}
        drawing = Drawing(width, height, **scale, margins=(64, 12, 112, 46))
        drawing.y_axis("nats per row", ticks(low - pad, high + pad, 4))
        drawing.x_axis("round", [t for t in ticks(first, last, 8) if t == int(t)], grid=False)
        ends: list[tuple[float, str, int]] = []
        for at, (name, (x, y)) in enumerate(self.tracks.items()):
            css = f"c{at % len(COLOURS)}"
            if len(y) > 1:
                drawing.path(x, y, f"line {css}-line")
            else:
                drawing.path([first, last], [float(y[0])] * 2, f"line dashed {css}-line")
            for a, b in zip(x, y, strict=True) if 1 < len(y) <= 40 else ():
                shape = SHAPES[at % 4]
                drawing.mark(
                    drawing.x(a), drawing.y(b), css, shape=shape, size=3.2, tip=f"{name}, round {a:g}: {b:.4f}"
                )
            ends.append((drawing.y(float(y[-1])), name, at))
        ends.sort()
        lowest = -np.inf
        for y_end, name, _ in ends:  # names stand beside the ends of their lines, pushed down where they would overlap
            lowest = max(y_end, lowest + 15)
            drawing.text(drawing.right + 10, lowest + 4, shortened(name, 16), css="name", tip=name)
        best = self.best
        if best is not None:
            x, y = self.tracks[best[0]]
            at_best = drawing.x(best[1]), drawing.y(float(y.max()))
            drawing.mark(*at_best, "flag", shape="ring", size=7.5, tip=f"largest: {best[0]}, round {best[1]:g}")
        return drawing.svg("Evidence per row, by round")
