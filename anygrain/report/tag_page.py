"""What the page of a run of tags shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from anygrain.report.balance import BalanceDisplay
from anygrain.report.intervals import IntervalDisplay
from anygrain.report.parts import MOST_LINES, TEXT, WIDE, flagged_rows, floats, history, limits, map_rows
from anygrain.report.precision import PrecisionDisplay
from anygrain.report.reliability import ReliabilityDisplay
from anygrain.report.rowmap import MapDisplay
from anygrain.report.together import TogetherDisplay

MOST_BARS = 40
MOST_PAIRS = 60
MOST_GROUPS = 30  # sets of tags in the table below the map


def tag_contents(metrics: Mapping[str, Any], labels: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the template shows; pictures are SVG text, every table a list."""
    from markupsafe import Markup

    evaluation = metrics.get("evaluation") or {"entries": []}
    entries = evaluation["entries"]
    tags = metrics.get("tags_table") or []
    groups = _groups(labels)
    rounds = metrics.get("history") or []
    pictures = {
        "compared": _compared(entries),
        "by_tag": _by_tag(tags),
        "reliability": _reliability(evaluation.get("reliability")),
        "precision": _precision(evaluation, tags),
        "agreement": _agreement(metrics.get("agreement") or []),
        "together": _together(metrics.get("together")),
        "balance": _balance(tags),
        "history": history(rounds) if len(rounds) > 2 else None,
        "map": _map(labels, groups),
    }
    return {
        "run": metrics,
        "data": metrics.get("data") or {},
        "ours": next((entry for entry in entries if entry["ours"]), None),
        "prior": next((entry for entry in entries if entry["key"] == "prior"), None),
        "n_labels": sum(item["labels"] for item in metrics.get("evidence") or []),
        "pictures": {name: Markup(picture) if picture else None for name, picture in pictures.items()},
        "pairs": _pairs(metrics.get("together")),
        "groups": _group_table(labels, groups),
        "most_bars": MOST_BARS,
        "most_lines": MOST_LINES,
    }


def _compared(entries: Sequence[Mapping[str, Any]]) -> str | None:
    if not entries:
        return None
    low, high = limits([{"interval": entry["micro_f1_interval"]} for entry in entries])
    display = IntervalDisplay(
        [entry["name"] for entry in entries],
        floats(entry["micro_f1"] for entry in entries),
        low,
        high,
        ours=[entry["ours"] for entry in entries],
        label="F1 of all tags together",
    )
    return display.to_svg(TEXT, title="F1 of ours and of the baselines, with intervals", line=34)


def _by_tag(tags: Sequence[Mapping[str, Any]]) -> str | None:
    measured = [tag for tag in tags if tag["average_precision"] is not None]
    # with many tags, those that are found worst are those to look at
    shown = sorted(measured, key=lambda tag: tag["average_precision"])[:MOST_LINES][::-1]
    if not shown:
        return None
    found = floats(tag["average_precision"] for tag in shown)
    display = IntervalDisplay(
        [tag["tag"] for tag in shown],
        found,
        np.minimum(floats(tag["on"] / max(tag["on"] + tag["off"], 1) for tag in shown), found),
        found,
        label="average precision",
    )
    return display.to_svg(TEXT, title="Average precision of every tag", line=24)


def _reliability(bins: Sequence[Mapping[str, Any]] | None) -> str | None:
    if not bins:
        return None
    low, high = limits(bins)
    stated, share, count = (floats(b[name] for b in bins) for name in ("confidence", "accuracy", "rows"))
    return ReliabilityDisplay(stated, share, count, low=low, high=high, event="has the tag").to_svg()


def _precision(evaluation: Mapping[str, Any], tags: Sequence[Mapping[str, Any]]) -> str | None:
    curve = evaluation.get("precision_recall")
    if not curve:
        return None
    on, known = sum(tag["on"] for tag in tags), sum(tag["on"] + tag["off"] for tag in tags)
    return PrecisionDisplay(
        curve["precision"], curve["recall"], curve["threshold"], base=on / max(known, 1), marked=evaluation["threshold"]
    ).to_svg()


def _agreement(pairs: Sequence[Mapping[str, Any]]) -> str | None:
    shown = pairs[:MOST_LINES]
    if not shown:
        return None
    low, high = limits(shown)
    names = [f"{pair['first']} and {pair['second']}" for pair in shown]
    return IntervalDisplay(
        names, floats(pair["share"] for pair in shown), low, high, label="share of entries that agree"
    ).to_svg(TEXT, title="How often two kinds of label agree")


def _together(together: Mapping[str, Any] | None) -> str | None:
    if not together or len(together["tags"]) < 2:
        return None
    return TogetherDisplay(together["matrix"], together["tags"]).to_svg(640 if len(together["tags"]) <= 20 else WIDE)


def _pairs(together: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Pairs of tags, the most frequent first."""
    if not together or len(together["tags"]) < 2:
        return []
    display = TogetherDisplay(together["matrix"], together["tags"])
    shares = display.shares
    first, second = np.triu_indices(len(display.names), 1)
    rows = display.matrix[first, second]
    return [
        {
            "first": display.names[first[at]],
            "second": display.names[second[at]],
            "rows": float(rows[at]),
            "of_first": float(shares[first[at], second[at]]),
            "of_second": float(shares[second[at], first[at]]),
        }
        for at in np.argsort(-rows, kind="stable")[:MOST_PAIRS].tolist()
    ]


def _balance(tags: Sequence[Mapping[str, Any]]) -> str | None:
    shown = sorted(tags, key=lambda tag: -tag["expected"])[:MOST_BARS]
    if not shown:
        return None
    return BalanceDisplay(
        [tag["tag"] for tag in shown],
        floats(tag["expected"] for tag in shown),
        floats(tag["on"] for tag in shown),
        given="said to have it",
    ).to_svg()


def _groups(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """The tags of every row in a word, (N,)."""
    return np.array([" + ".join(tags) if len(tags) else "no tag" for tags in labels["tags"].tolist()], dtype=object)


def _map(labels: Mapping[str, np.ndarray], groups: np.ndarray) -> str | None:
    rows = map_rows(labels)
    if len(rows) < 3:
        return None
    places = np.stack([labels["map_x"][rows], labels["map_y"][rows]], axis=1).astype(np.float64)
    return MapDisplay(places, groups[rows], flagged=flagged_rows(labels)[rows]).to_svg(WIDE, 600, legend=300)


def _group_table(labels: Mapping[str, np.ndarray], groups: np.ndarray) -> list[dict[str, Any]]:
    names, inverse, rows = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
    doubt = np.bincount(inverse, flagged_rows(labels), len(names))
    order = np.argsort(-rows, kind="stable")[:MOST_GROUPS]
    return [{"name": names[at], "rows": int(rows[at]), "in_doubt": int(doubt[at])} for at in order]
