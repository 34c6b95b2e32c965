"""What the page of a run of a number shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anygrain.report.coverage import CoverageDisplay
from anygrain.report.histogram import ResidualDisplay
from anygrain.report.intervals import IntervalDisplay
from anygrain.report.parts import MOST_LINES, TEXT, WIDE, flagged_rows, floats, history, limits, map_rows
from anygrain.report.rowmap import MapDisplay
from anygrain.report.scatter import ScatterDisplay

MOST_POINTS = 4000
GROUPS = 5  # of rows, by the number, that the map tells apart


def number_contents(metrics: Mapping[str, Any], labels: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the template shows; pictures are SVG text, every table a list."""
    from markupsafe import Markup

    evaluation = metrics.get("evaluation") or {"entries": []}
    entries = evaluation["entries"]
    groups = _groups(labels)
    pictures = {
        "compared": _compared(entries),
        "scatter": _scatter(metrics, labels),
        "coverage": _coverage(evaluation.get("calibration")),
        "residuals": _residuals(labels),
        "sources": _sources(metrics.get("sources") or []),
        "history": history(metrics.get("history") or []),
        "map": _map(labels, groups),
    }
    by_features = next((entry for entry in entries if entry["key"] == "features"), None)
    return {
        "run": metrics,
        "data": metrics.get("data") or {},
        "ours": next((entry for entry in entries if entry["ours"]), None),
        "by_features": by_features,
        "ninety": next((c for c in (by_features or {"coverage": []})["coverage"] if c["level"] == 0.9), None),
        "mean": next((entry for entry in entries if entry["key"] == "mean"), None),
        "n_labels": sum(item["labels"] for item in metrics.get("evidence") or []),
        "pictures": {name: Markup(picture) if picture else None for name, picture in pictures.items()},
        "raters": [s for s in metrics.get("sources") or [] if s["spread"] is not None],
        "most_lines": MOST_LINES,
        "groups": _group_table(labels, groups),
    }


def _compared(entries: Sequence[Mapping[str, Any]]) -> str | None:
    if not entries:
        return None
    low, high = limits([{"interval": entry["rmse_interval"]} for entry in entries])
    values = floats(e["rmse"] for e in entries)
    top = 1.05 * float(np.nanmax(np.concatenate([values, high])))
    display = IntervalDisplay(
        [entry["name"] for entry in entries],
        values,
        low,
        high,
        ours=[e["ours"] for e in entries],
        label="error (RMSE), smaller is better",
        limits=(0.0, top or 1.0),
    )
    return display.to_svg(TEXT, title="Error of ours and of the baselines, with intervals", line=34)


def _known(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows with a given value, (n,)."""
    return np.flatnonzero(np.isfinite(labels["value"].astype(np.float64)))


def _scatter(metrics: Mapping[str, Any], labels: Mapping[str, np.ndarray]) -> str | None:
    rows = _known(labels)
    if len(rows) < 2 or not metrics.get("evaluation"):
        return None
    by_features = next(e for e in metrics["evaluation"]["entries"] if e["key"] == "features")
    wide = next(c["width"] for c in by_features["coverage"] if c["level"] == 0.9)
    rows = rows[:: -(-len(rows) // MOST_POINTS)]
    predicted, sd, given = (labels[name][rows].astype(np.float64) for name in ("predicted", "predicted_sd", "value"))
    reach = 0.5 * wide / max(float(labels["predicted_sd"][_known(labels)].mean()), 1e-300)
    return ScatterDisplay(predicted, given, low=predicted - reach * sd, high=predicted + reach * sd).to_svg()


def _coverage(points: Sequence[Mapping[str, Any]] | None) -> str | None:
    if not points:
        return None
    low, high = limits(points)
    return CoverageDisplay(
        floats(p["level"] for p in points), floats(p["share"] for p in points), low=low, high=high
    ).to_svg()


def _residuals(labels: Mapping[str, np.ndarray]) -> str | None:
    rows = _known(labels)
    if len(rows) < 2:
        return None
    predicted, sd, given = (labels[name][rows].astype(np.float64) for name in ("predicted", "predicted_sd", "value"))
    return ResidualDisplay((given - predicted) / np.maximum(sd, 1e-300)).to_svg()


def _sources(sources: Sequence[Mapping[str, Any]]) -> str | None:
    raters = sorted((s for s in sources if s["spread"] is not None), key=lambda s: -abs(s["bias"]))[:MOST_LINES]
    if not raters:
        return None
    bias, spread = floats(s["bias"] for s in raters), floats(s["spread"] for s in raters)
    reach = 1.05 * float(np.max(np.abs(bias) + spread)) or 1.0
    display = IntervalDisplay(
        [s["name"] for s in raters],
        bias,
        bias - spread,
        bias + spread,
        label="bias, and one standard deviation to either side",
        limits=(-reach, reach),
    )
    return display.to_svg(TEXT, title="Bias and spread of every annotator", line=26)


def _groups(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Rows by the posterior mean: which fifth, and from what to what, (N,)."""
    mean = labels["mean"].astype(np.float64)
    rank = np.argsort(np.argsort(mean, kind="stable"), kind="stable")
    fifth = rank * GROUPS // max(len(mean), 1)
    names = np.array(
        [
            f"{mean[fifth == g].min():.4g} to {mean[fifth == g].max():.4g}" if (fifth == g).any() else ""
            for g in range(GROUPS)
        ],
        dtype=object,
    )
    return np.asarray(names[fifth])


def _map(labels: Mapping[str, np.ndarray], groups: np.ndarray) -> str | None:
    rows = map_rows(labels)
    if len(rows) < 3:
        return None
    places = np.stack([labels["map_x"][rows], labels["map_y"][rows]], axis=1).astype(np.float64)
    return MapDisplay(places, groups[rows], flagged=flagged_rows(labels)[rows]).to_svg(WIDE, 600)


def _group_table(labels: Mapping[str, np.ndarray], groups: np.ndarray) -> list[dict[str, Any]]:
    flagged = flagged_rows(labels)
    out = []
    for name in dict.fromkeys(groups[np.argsort(labels["mean"], kind="stable")].tolist()):
        inside = groups == name
        sd = float(labels["predicted_sd"][inside].astype(np.float64).mean())
        out.append({"name": name, "rows": int(inside.sum()), "sd": sd, "in_doubt": int(flagged[inside].sum())})
    return out
