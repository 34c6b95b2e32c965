"""Small pictures as SVG text that takes its colours from the style sheet of the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise

import numpy as np

SHAPES = ("circle", "square", "triangle", "diamond", "cross", "ring")


def number(value: float) -> str:
    """A coordinate with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, that lie in [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def tick_labels(values: Iterable[float]) -> list[str]:
    """Ticks as text, all with the decimals that the closest two of them need."""
    at = list(values)
    step = min((abs(b - a) for a, b in pairwise(at)), default=0.0)
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return [f"{value:,.{digits}f}".replace(",", "\u202f").replace("-", "\u2212") for value in at]


def shortened(text: str, length: int) -> str:
    """The text, cut to `length` characters with an ellipsis."""
    return text if len(text) <= length else text[: max(length - 1, 1)].rstrip() + "…"


class Drawing:
    """One picture: a plot area with linear scales inside margins, drawn from back to front.

    Colours and strokes are classes of the page's style sheet, so the same picture is light, dark, or printed. All text
    is escaped here.

    Args:
        width, height: of the whole picture in user units; it scales with the page.
        x, y: limits of the plot area in data units; y grows upwards unless `y[0] > y[1]`.
        margins: left, top, right, bottom in user units.
    """

    def __init__(
        self,
        width: float,
        height: float,
        *,
        x: tuple[float, float] = (0.0, 1.0),
        y: tuple[float, float] = (0.0, 1.0),
        margins: tuple[float, float, float, float] = (48, 12, 12, 40),
    ) -> None:
        self.width, self.height = width, height
        self.left, self.top = margins[0], margins[1]
        self.right, self.bottom = width - margins[2], height - margins[3]
        self._x, self._y = x, y
        self._parts: list[str] = []

    def x(self, value: float) -> float:
        """Data to user units."""
        low, high = self._x
        return self.left + (value - low) / ((high - low) or 1.0) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Data to user units."""
        low, high = self._y
        return self.bottom - (value - low) / ((high - low) or 1.0) * (self.bottom - self.top)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        anchor: str = "start",
        css: str = "",
        turn: float | None = None,
        tip: str = "",
    ) -> None:
        """Text at user units; `turn` in degrees about its own place."""
        turned = f' transform="rotate({number(turn)} {number(x)} {number(y)})"' if turn is not None else ""
        name = f' class="{css}"' if css else ""
        where = f'x="{number(x)}" y="{number(y)}" text-anchor="{anchor}"'
        self._parts.append(f"<text {where}{name}{turned}>{escape(text)}{_tip(tip)}</text>")

    def segment(self, x1: float, y1: float, x2: float, y2: float, css: str) -> None:
        """A line between two points in user units."""
        self._parts.append(
            f'<line x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}" class="{css}"/>'
        )

    def box(
        self, x: float, y: float, width: float, height: float, css: str, *, opacity: float = 1.0, tip: str = ""
    ) -> None:
        """A rectangle in user units."""
        faint = f' fill-opacity="{opacity:.3f}"' if opacity < 1 else ""
        self._parts.append(
            f'<rect x="{number(x)}" y="{number(y)}" width="{number(max(width, 0.0))}" '
            f'height="{number(max(height, 0.0))}" class="{css}"{faint}{_close("rect", tip)}'
        )

    def path(self, x: Iterable[float], y: Iterable[float], css: str) -> None:
        """A line through points in data units."""
        at = " ".join(f"{number(self.x(a))},{number(self.y(b))}" for a, b in zip(x, y, strict=True))
        self._parts.append(f'<polyline points="{at}" class="{css}"/>')

    def mark(self, x: float, y: float, css: str, *, shape: str = "circle", size: float = 4.0, tip: str = "") -> None:
        """One point at user units."""
        self._parts.append(_shape(shape, x, y, size, css, tip))

    def marks(self, points: np.ndarray, css: str, *, shape: str = "circle", size: float = 2.2) -> None:
        """Many points (n, 2) in data units as one path, so that thousands stay small."""
        wide = round(1.4 * size, 2)
        stroke = {
            "circle": "h0",  # a round-capped stroke of no length: a few bytes a point
            "ring": f"m{-size} 0a{size} {size} 0 1 0 {2 * size} 0a{size} {size} 0 1 0 {-2 * size} 0z",
            "square": f"m{-size} {-size}h{2 * size}v{2 * size}h{-2 * size}z",
            "triangle": f"m0 {-1.3 * size:.2f}l{1.2 * size:.2f} {2.2 * size:.2f}h{-2.4 * size:.2f}z",
            "diamond": f"m0 {-wide}l{wide} {wide}l{-wide} {wide}l{-wide} {-wide}z",
            "cross": f"m{-size} {-size}l{2 * size} {2 * size}m0 {-2 * size}l{-2 * size} {2 * size}",
        }[shape]
        if shape == "circle":
            extra, drawn = f' stroke-width="{number(2 * size)}"', "dots"
        else:
            extra, drawn = "", "outline" if shape in ("ring", "cross") else "shapes"
        at = "".join(f"M{number(self.x(a))} {number(self.y(b))}{stroke}" for a, b in points.tolist())
        self._parts.append(f'<path d="{at}" class="{css} {drawn}"{extra}/>')

    def x_axis(
        self,
        label: str,
        values: Sequence[float],
        *,
        grid: bool = True,
    ) -> None:
        """Ticks below the plot area and a title under them."""
        for value, shown in zip(values, tick_labels(values), strict=True):
            at = self.x(value)
            if grid:
                self.segment(at, self.top, at, self.bottom, "grid")
            self.text(at, self.bottom + 16, shown, anchor="middle", css="tick")
        self.text((self.left + self.right) / 2, self.bottom + 34, label, anchor="middle", css="label")

    def y_axis(self, label: str, values: Sequence[float]) -> None:
        """Ticks left of the plot area and a turned title beside them."""
        for value, shown in zip(values, tick_labels(values), strict=True):
            at = self.y(value)
            self.segment(self.left, at, self.right, at, "grid")
            self.text(self.left - 7, at + 4, shown, anchor="end", css="tick")
        if label:
            middle = (self.top + self.bottom) / 2
            self.text(13, middle, label, anchor="middle", css="label", turn=-90)

    def svg(self, title: str) -> str:
        """The picture; `title` is what a screen reader says."""
        size = f"0 0 {number(self.width)} {number(self.height)}"
        return (
            f'<svg viewBox="{size}" style="max-width:{number(self.width)}px" role="img" '
            f'aria-label="{escape(title)}">{"".join(self._parts)}</svg>'
        )


def _tip(tip: str) -> str:
    return f"<title>{escape(tip)}</title>" if tip else ""


def _close(kind: str, tip: str) -> str:
    return f">{_tip(tip)}</{kind}>" if tip else "/>"


def _shape(shape: str, x: float, y: float, size: float, css: str, tip: str) -> str:
    if shape in ("circle", "ring"):
        drawn = " outline" if shape == "ring" else ""
        where = f'cx="{number(x)}" cy="{number(y)}" r="{number(size)}"'
        return f'<circle {where} class="{css}{drawn}"{_close("circle", tip)}'
    if shape == "cross":
        corner = f"M{number(x - size)} {number(y - size)}l{number(2 * size)} {number(2 * size)}"
        other = f"m0 {number(-2 * size)}l{number(-2 * size)} {number(2 * size)}"
        return f'<path d="{corner}{other}" class="{css} outline"{_close("path", tip)}'
    sides = {
        "square": [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)],
        "triangle": [(0.0, -1.3), (1.2, 0.9), (-1.2, 0.9)],
        "diamond": [(0.0, -1.4), (1.4, 0.0), (0.0, 1.4), (-1.4, 0.0)],
    }[shape]
    at = " ".join(f"{number(x + size * a)},{number(y + size * b)}" for a, b in sides)
    return f'<polygon points="{at}" class="{css}"{_close("polygon", tip)}'
