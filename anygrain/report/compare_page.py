"""The page of a comparison of methods: one file, whole in itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anygrain.report.page import environment

WIDTH = 360.0  # of the picture of intervals, in its own units


def write_comparison(result: Mapping[str, Any], path: Path) -> Path:
    """Write the page of what `compare.json` holds.

    Raises:
        ModuleNotFoundError: jinja2 is missing.
    """
    rows = result["methods"]
    low = min(row["behind_interval"][0] for row in rows)
    high = max(0.0, max(row["behind_interval"][1] for row in rows))
    span = (high - low) or 1.0

    def place(value: float) -> str:
        return f"{8 + (WIDTH - 16) * (value - low) / span:.1f}"

    marks = [
        {"low": place(r["behind_interval"][0]), "high": place(r["behind_interval"][1]), "at": place(r["behind"])}
        for r in rows
    ]
    page = (
        environment()
        .get_template("compare.html.jinja")
        .render(
            run=result,
            rows=rows,
            names=list(rows[0]["measures"]),
            marks=marks,
            zero=place(0.0),
            width=WIDTH,
            title=path.parent.name,
            best=next(row for row in rows if row["best"]),
            as_good=[row["method"] for row in rows if row["as_good"] and not row["best"]],
        )
    )
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
    return path
