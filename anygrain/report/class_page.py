"""What the page of a run of classes shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anygrain.report.balance import BalanceDisplay
from anygrain.report.confusion import ConfusionDisplay
from anygrain.report.heat import HeatDisplay
from anygrain.report.intervals import IntervalDisplay
from anygrain.report.parts import MOST_LINES, TEXT, WIDE, flagged_rows, floats, history, limits, map_rows
from anygrain.report.reliability import ReliabilityDisplay
from anygrain.report.rowmap import MapDisplay
from anygrain.report.scatter import ScatterDisplay

MOST_BARS = 40
MOST_PANELS = 12
MOST_CELLS = 4000
MOST_PAIRS = 60


def class_contents(metrics: Mapping[str, Any], labels: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the template shows; pictures are SVG text, every table a list."""
    from markupsafe import Markup

    parents = _parents(metrics.get("confusion") or [])
    pictures = {
        "compared": _compared(metrics.get("evaluation")),
        "reliability": _reliability(metrics.get("evaluation"), "reliability"),
        "reliability_features": _reliability(metrics.get("evaluation"), "reliability_features"),
        "agreement": _agreement(metrics.get("agreement") or []),
        "sources": _sources(metrics.get("sources") or []),
        "history": history(metrics.get("history") or []),
        "balance": _balance(metrics.get("classes_table") or []),
        "map": _map(labels, parents),
    }
    panels = _panels(metrics.get("confusion") or [])
    evaluation = metrics.get("evaluation") or {"entries": []}
    evidence = metrics.get("evidence") or []
    bags = metrics.get("bags") or {}
    return {
        "run": metrics,
        "bags": _bags(bags.get("entries", [])),
        "bag_answers": [
            {**q, "svg": Markup(_bins(q["reliability"]))} for q in bags.get("questions", []) if q.get("reliability")
        ],
        "bag_numbers": [{**q, "svg": Markup(_sums(q))} for q in bags.get("questions", []) if q.get("points")],
        "data": metrics.get("data") or {},
        "ours": next((entry for entry in evaluation["entries"] if entry["ours"]), None),
        "versus": next((e for e in evaluation["entries"] if e["key"] == "exact_only"), None),
        "n_labels": sum(item["labels"] for item in evidence),
        "pictures": {name: Markup(picture) if picture else None for name, picture in pictures.items()},
        "panels": [{**panel, "svg": Markup(panel["svg"])} for panel in panels],
        "panel_layout": _panel_layout(metrics.get("confusion") or [])[0],
        "pairs": _pairs(metrics.get("confusion") or []),
        "groups": _groups(labels, parents),
        "most_bars": MOST_BARS,
    }


def _compared(evaluation: Mapping[str, Any] | None) -> str | None:
    if not evaluation or not evaluation["entries"]:
        return None
    entries = evaluation["entries"]
    low, high = limits(entries)
    names = [entry["name"] for entry in entries]
    display = IntervalDisplay(
        names, floats(e["accuracy"] for e in entries), low, high, ours=[e["ours"] for e in entries]
    )
    return display.to_svg(TEXT, title="Accuracy of ours and of the baselines, with intervals", line=34)


def _bags(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Bags with their heat: probabilities on one scale for all, attention on one of each bag, as it sums to 1 there."""
    from markupsafe import Markup

    highest = max((max(entry["score"]) for entry in entries), default=1.0)
    out: list[dict[str, Any]] = []
    for entry in entries:
        heat = HeatDisplay(
            entry["score"], entry["coords"], f"probability of {entry.get('of', entry['class'])}", highest
        )
        weights = entry.get("attention")
        attention = HeatDisplay(weights, entry["coords"], "attention").to_svg() if weights else ""
        out.append({**entry, "highest": highest, "svg": Markup(heat.to_svg()), "attention_svg": Markup(attention)})
    return out


def _sums(question: Mapping[str, Any]) -> str:
    expected, given, half = np.array(question["points"], dtype=np.float64).T
    low = np.maximum(expected - half, 0)
    return ScatterDisplay(expected, given, low=low, high=expected + half, name=question["number"]).to_svg()


def _reliability(evaluation: Mapping[str, Any] | None, key: str) -> str | None:
    bins = (evaluation or {}).get(key)
    return _bins(bins) if bins else None


def _bins(bins: Sequence[Mapping[str, Any]]) -> str:
    low, high = limits(bins)
    confidence, accuracy, count = (floats(b[name] for b in bins) for name in ("confidence", "accuracy", "rows"))
    return ReliabilityDisplay(confidence, accuracy, count, low=low, high=high).to_svg()


def _agreement(pairs: Sequence[Mapping[str, Any]]) -> str | None:
    pairs = pairs[:MOST_LINES]
    if not pairs:
        return None
    low, high = limits(pairs)
    names = [f"{pair['first']} and {pair['second']}" for pair in pairs]
    values = floats(pair["share"] for pair in pairs)
    return IntervalDisplay(names, values, low, high, label="share of rows that agree").to_svg(
        TEXT, title="How often two kinds of label agree"
    )


def _sources(sources: Sequence[Mapping[str, Any]]) -> str | None:
    measured = [source for source in sources if source["accuracy"] is not None]
    # with many sources, the least accurate are those to look at
    shown = sorted(measured, key=lambda source: source["accuracy"])[:MOST_LINES]
    if not shown:
        return None
    low, high = limits(shown)
    values = floats(source["accuracy"] for source in shown)
    return IntervalDisplay(
        [s["name"] for s in shown], values, low, high, label="share of labels that are right"
    ).to_svg(TEXT, title="Accuracy of every source of labels", line=26)


def _balance(classes: Sequence[Mapping[str, Any]]) -> str | None:
    shown = sorted(classes, key=lambda c: -c["expected"])[:MOST_BARS]
    if not shown:
        return None
    return BalanceDisplay(
        [c["class"] for c in shown], floats(c["expected"] for c in shown), floats(c["exact"] for c in shown)
    ).to_svg()


def _panels(confusion: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    panels = []
    _, width = _panel_layout(confusion)
    for entry in confusion:
        matrix = np.asarray(entry["matrix"], dtype=np.float64)
        if not entry["rows"] or matrix.size < 4:
            continue
        kept = float(np.trace(matrix) / matrix.sum()) if matrix.sum() else 0.0
        svg = ConfusionDisplay(matrix, entry["classes"], name=entry["parent"]).to_svg(width)
        panels.append({**entry, "svg": svg, "kept": kept})
    panels.sort(key=lambda panel: panel["kept"])
    drawn = np.cumsum([panel["svg"].count("<rect") for panel in panels])
    return panels[: max(1, min(MOST_PANELS, int((drawn <= MOST_CELLS).sum())))] if panels else []


def _panel_layout(confusion: Sequence[Mapping[str, Any]]) -> tuple[str, float]:
    """The style of the grid and the width of a panel: the more classes, the fewer panels side by side."""
    most = max((len(entry["classes"]) for entry in confusion), default=0)
    if len(confusion) == 1 or most > 20:
        return "full", 640 if most <= 20 else WIDE
    return ("", 340) if most <= 6 else ("roomy", 480)


def _pairs(confusion: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    pairs = []
    for entry in confusion:
        matrix = np.asarray(entry["matrix"], dtype=np.float64).reshape(len(entry["classes"]), -1)
        total = matrix.sum(axis=1)
        for row, column in zip(*np.nonzero(matrix), strict=True):
            if row != column:
                rows = float(matrix[row, column])
                names = {"class": entry["classes"][row], "taken_for": entry["classes"][column]}
                pairs.append({"parent": entry["parent"], **names, "rows": rows, "share": rows / total[row]})
    return sorted(pairs, key=lambda pair: -pair["rows"])[:MOST_PAIRS]


def _parents(confusion: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {c: entry["parent"] for entry in confusion if entry["parent"] is not None for c in entry["classes"]}


def _group_of(labels: Mapping[str, np.ndarray], parents: Mapping[str, str]) -> np.ndarray:
    classes, inverse = np.unique(labels["class"].astype(str), return_inverse=True)
    names = [parents.get(c, "other") for c in classes.tolist()] if parents else classes.tolist()
    groups: np.ndarray = np.array(names, dtype=object)[inverse] if len(names) else np.array([], dtype=object)
    return groups


def _map(labels: Mapping[str, np.ndarray], parents: Mapping[str, str]) -> str | None:
    placed = map_rows(labels)
    if len(placed) < 3:
        return None
    places = np.stack([labels["map_x"][placed], labels["map_y"][placed]], axis=1).astype(np.float64)
    groups, flagged = _group_of(labels, parents)[placed], flagged_rows(labels)[placed]
    # without parents, the classes are the groups, and the legend names them
    classes = labels["class"][placed] if parents else None
    return MapDisplay(places, groups, classes=classes, flagged=flagged).to_svg(WIDE, 600)


def _groups(labels: Mapping[str, np.ndarray], parents: Mapping[str, str]) -> list[dict[str, Any]]:
    names, inverse = np.unique(_group_of(labels, parents).astype(str), return_inverse=True)
    rows = np.bincount(inverse, minlength=len(names))
    sums = [np.bincount(inverse, labels[name].astype(np.float64), len(names)) for name in ("probability", "entropy")]
    doubt = np.bincount(inverse, flagged_rows(labels), len(names))
    order = np.argsort(-rows, kind="stable")
    return [
        {
            "name": names[at],
            "rows": int(rows[at]),
            "probability": float(sums[0][at] / rows[at]),
            "entropy": float(sums[1][at] / rows[at]),
            "in_doubt": int(doubt[at]),
        }
        for at in order
    ]
