"""A square of shaded cells, rows and columns in the same order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from anygrain.report.svg import Drawing, shortened

FAINT = 0.01  # shares below this are left empty


def square(
    shares: np.ndarray,
    names: Sequence[str],
    css: Callable[[int, int], str],
    tip: Callable[[int, int], str],
    title: str,
    width: float,
) -> str:
    """The picture as SVG: columns carry the numbers of the rows.

    Args:
        shares: what shades the cells, from 0 to 1, shape (C, C).
        names: of rows and columns.
        css: style class of the cell in a row and a column.
        tip: what a cell says when one points at it.
        title: for screen readers.
        width: of the page that there is, in user units.
    """
    many = len(names)
    longest = max((len(shortened(c, 26)) for c in names), default=0)
    left = min(40 + 6.6 * longest, (0.58 if many <= 6 else 0.44) * width)
    cell = float(np.clip((width - left - 6) / max(many, 1), 5, 34))
    width = left + cell * many + 6
    drawing = Drawing(width, 24 + cell * many + 4)
    letters, room = cell >= 11, int((left - 36) / 6.3)
    for row, name in enumerate(names):
        top = 24 + cell * row
        cut = shortened(name, room)
        if letters:
            full = name if cut != name else ""
            drawing.text(left - 26, top + cell / 2 + 4, cut, anchor="end", css="name", tip=full)
            drawing.text(left - 6, top + cell / 2 + 4, str(row + 1), anchor="end", css="tick")
            drawing.text(left + cell * (row + 0.5), 17, str(row + 1), anchor="middle", css="tick")
        drawing.box(left, top, cell * many, cell - 1, "empty")
        for column in np.flatnonzero(shares[row] >= FAINT).tolist():
            share = float(shares[row, column])
            x = left + cell * column
            # thousands of cells are named by their place alone, or the picture grows large
            said = tip(row, column) if many <= 20 else ""
            drawing.box(x, top, cell - 1, cell - 1, css(row, column), opacity=0.06 + 0.94 * share**0.8, tip=said)
            if cell >= 24:
                strong = "inside bright" if share > 0.5 else "inside"
                middle = x + (cell - 1) / 2
                drawing.text(middle, top + cell / 2 + 3.5, f"{100 * share:.0f}", anchor="middle", css=strong)
    return drawing.svg(title)
