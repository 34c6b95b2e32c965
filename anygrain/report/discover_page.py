"""What the page of found classes shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anygrain.report.svg import Drawing, shortened

COLOURS = 8  # of the style sheet
MOST_CELLS = 6000  # of a table of labels against classes
MOST_LABELS = 60  # words of a label in it
IN_CARD = 3  # words of a label that a class shows
STABLE, DISSOLVES = 0.75, 0.5
NAME = 26  # letters of a name on the map
WIDTH, HEIGHT = 980.0, 640.0


def discover_contents(metrics: Mapping[str, Any], labels: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the template shows; the map is SVG text, every table a list."""
    from markupsafe import Markup

    classes = metrics["classes"]
    crossed = [_shown(entry, classes) for entry in metrics["crossed"]]
    largest = max((c["size"] for c in classes), default=1)
    said = _said_of_classes(metrics["crossed"])
    cards = [
        {
            **c,
            "width": 100 * c["size"] / max(largest, 1),
            "level": _level(c["stability"]),
            "said": said.get(c["id"], []),
            "pictures": any(e["image"] for e in c["exemplars"]),
            "colour": c["id"] % COLOURS,
        }
        for c in classes
    ]
    stable = [c["stability"] for c in classes if c["stability"] is not None]
    points = _points(labels)
    return {
        "run": metrics,
        "data": metrics["data"],
        "tree": _tree(cards),
        "cards": cards,
        "crossed": crossed,
        "n_known": sum(c["known"] for c in classes),
        "dissolve": [c for c in cards if c["level"] == "weak"],
        "mean_stability": float(np.mean(stable)) if stable else None,
        "smallest": min((c["size"] for c in classes), default=0),
        "map": Markup(_map(points, classes)) if points else None,
        "points": [[p["x"], p["y"], p["class"], p["row"], p["text"]] for p in points],
        "names": [c["name"] for c in classes],
    }


def _level(stability: float | None) -> str:
    if stability is None:
        return ""
    return "firm" if stability >= STABLE else "weak" if stability < DISSOLVES else "fair"


def _tree(cards: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Classes by parent, in the order of the classes; the largest first within each."""
    parents = list(dict.fromkeys(card["parent"] for card in cards))
    tree = []
    for parent in parents:
        below = sorted((c for c in cards if c["parent"] == parent), key=lambda c: -c["size"])
        tree.append({"name": parent, "size": sum(c["size"] for c in below), "classes": below})
    return tree


def _said_of_classes(crossed: Sequence[Mapping[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """The most frequent words of every label in every class, but for coarse ones, which the tree shows."""
    out: dict[int, list[dict[str, Any]]] = {}
    for entry in crossed:
        if entry["kind"] == "Coarse":
            continue
        table = np.asarray(entry["table"], dtype=np.int64).reshape(len(entry["values"]), -1)
        for k, column in enumerate(table.T):
            total = int(column.sum())
            top = [at for at in np.argsort(-column, kind="stable")[:IN_CARD].tolist() if column[at]]
            if total:
                words = [{"value": entry["values"][at], "share": float(column[at] / total)} for at in top]
                out.setdefault(k, []).append({"name": entry["name"], "rows": total, "words": words})
    return out


def _shown(entry: Mapping[str, Any], classes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A label against the classes: its words, each with the shares of the classes, columns along the diagonal."""
    table = np.asarray(entry["table"], dtype=np.float64).reshape(len(entry["values"]), -1)
    table = table[: max(1, min(MOST_LABELS, MOST_CELLS // max(table.shape[1], 1)))]
    total = table.sum(axis=1, keepdims=True)
    shares = np.divide(table, total, out=np.zeros_like(table), where=total > 0)
    order = np.lexsort((-table.max(axis=0), table.argmax(axis=0))) if len(table) else np.arange(table.shape[1])
    order = order[table.sum(axis=0)[order] > 0]
    lines = []
    for at in range(len(table)):
        top = np.argsort(-table[at], kind="stable")[:IN_CARD].tolist()
        lines.append(
            {
                "value": entry["values"][at],
                "rows": int(total[at, 0]),
                "cells": [{"share": float(shares[at, k]), "rows": int(table[at, k]), "id": k} for k in order.tolist()],
                "top": [{"name": classes[k]["name"], "share": float(shares[at, k])} for k in top if table[at, k]],
            }
        )
    return {
        **entry,
        "lines": lines,
        "columns": [{"id": k, "name": classes[k]["name"]} for k in order.tolist()],
        "left_out": len(entry["values"]) - len(lines),
    }


def _points(labels: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Rows that have a place, in user units of the map."""
    if "map_x" not in labels:
        return []
    x, y = labels["map_x"].astype(np.float64), labels["map_y"].astype(np.float64)
    shown = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if len(shown) < 3:
        return []
    ends = [(float(v[shown].min()), float(v[shown].max())) for v in (x, y)]
    drawing = Drawing(WIDTH, HEIGHT, x=ends[0], y=ends[1], margins=(30, 22, 30, 26))
    return [
        {
            "x": round(drawing.x(float(x[at])), 1),
            "y": round(drawing.y(float(y[at])), 1),
            "class": int(labels["class"][at]),
            "row": str(labels["row"][at]),
            "text": shortened(str(labels["text"][at] or ""), 110),
        }
        for at in shown.tolist()
    ]


def _map(points: Sequence[Mapping[str, Any]], classes: Sequence[Mapping[str, Any]]) -> str:
    """Rows as dots, a group per class, names above each; names that hit others show when one comes near."""
    from html import escape

    parts = []
    x, y = (np.array([p[axis] for p in points]) for axis in ("x", "y"))
    of = np.array([p["class"] for p in points])
    for k in np.unique(of).tolist():
        at = "".join(f"M{a:g} {b:g}h0" for a, b in zip(x[of == k].tolist(), y[of == k].tolist(), strict=True))
        parts.append(f'<g data-class="{k}"><path d="{at}" class="c{k % COLOURS} dots"/></g>')
    taken: list[tuple[float, float, float]] = []
    for k in sorted(np.unique(of).tolist(), key=lambda k: -int((of == k).sum())):
        name = shortened(classes[k]["name"], NAME)
        wide = 3.4 * len(name) + 4
        middle = float(np.clip(np.median(x[of == k]), wide, WIDTH - wide))
        here = (middle, max(float(np.quantile(y[of == k], 0.1)) - 9, 12.0), wide)
        free = all(abs(here[0] - a) > wide + other or abs(here[1] - b) > 14 for a, b, other in taken)
        if free:
            taken.append(here)
        css = "place" if free else "place deep"
        parts.append(
            f'<text x="{here[0]:.1f}" y="{here[1]:.1f}" text-anchor="middle" class="{css}" data-class="{k}">'
            f"{escape(name)}</text>"
        )
    return (
        f'<svg id="places" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" tabindex="0" '
        f'aria-label="Map of the rows; every class is in the table of classes">{"".join(parts)}</svg>'
    )
