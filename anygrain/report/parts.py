"""What the pages of classes, of numbers and of tags have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anygrain.report.history import HistoryDisplay
from anygrain.report.rowmap import MANY

WIDE, TEXT = 980, 740  # user units of pictures that span the page, and of those that shrink with a small screen
MOST_LINES = 30


def limits(entries: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    pairs = [entry.get("interval") or (None, None) for entry in entries]
    return floats(pair[0] for pair in pairs), floats(pair[1] for pair in pairs)


def floats(values: Any) -> np.ndarray:
    return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)


def history(rounds: Sequence[Mapping[str, Any]]) -> str | None:
    tracks: dict[str, tuple[list[Any], list[Any]]] = {}
    for found in rounds:
        for key, name in (("held_out", found.get("track") or "held out"), ("evidence", "fitted")):
            if found.get(key) is not None:
                x, y = tracks.setdefault(name, ([], []))
                x.append(found["round"])
                y.append(found[key])
    return HistoryDisplay(tracks).to_svg() if tracks else None


def placed(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    if "map_x" not in labels or "map_y" not in labels:
        return np.zeros(len(labels["row"]), bool)
    places = np.isfinite(labels["map_x"].astype(np.float64)) & np.isfinite(labels["map_y"].astype(np.float64))
    return places


def flagged_rows(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """bool (N,): rows with a label that looks wrong."""
    flagged: np.ndarray = labels["wrong_labels"] > 0
    return flagged


def map_rows(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows that have a place on the map, (n,), thinned to what a page can hold."""
    rows = np.flatnonzero(placed(labels))
    return rows[:: max(1, -(-len(rows) // MANY))]
