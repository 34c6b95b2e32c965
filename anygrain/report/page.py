"""The report of a run: one page, whole in itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anygrain.report.balance import BalanceDisplay
from anygrain.report.confusion import ConfusionDisplay
from anygrain.report.history import HistoryDisplay
from anygrain.report.intervals import IntervalDisplay
from anygrain.report.reliability import ReliabilityDisplay
from anygrain.report.rowmap import MANY, MapDisplay

FORMAT = "anygrain-run-1"
MOST_BARS = 40
WIDE, TEXT = 980, 740  # user units of pictures that span the page, and of those that shrink with a small screen
MOST_PANELS = 12
MOST_CELLS = 4000
MOST_LINES = 30
MOST_PAIRS = 60


def write_report(run_folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` into a run folder, from its `metrics.json`, `labels.parquet` and `config.toml`.

    The page is one file that needs no network: pictures are drawn in it, colours follow the reader's light or dark
    setting, and it prints on two pages.

    Args:
        run_folder: see `anygrain.data.run_folder`.

    Returns:
        Path of the page.

    Raises:
        FileNotFoundError: the folder holds no finished run.
        ValueError: its metrics are of another format.
        ModuleNotFoundError: jinja2 is missing; the message says what to type.
    """
    folder = Path(run_folder)
    page = render(*read_run(folder))
    target = folder / "report.html"
    partial = folder / ".report.html.part"
    partial.write_text(page, encoding="utf-8")
    partial.replace(target)
    return target


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], str]:
    """Metrics, the columns of the labels, and the text of the configuration.

    Raises:
        FileNotFoundError, ValueError: as `write_report`.
    """
    import pyarrow.parquet as parquet

    for name in ("metrics.json", "labels.parquet"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}: expected the folder of a finished run (anygrain fit)")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    found = metrics.get("format") if isinstance(metrics, dict) else None
    if found != FORMAT:
        raise ValueError(f'{folder / "metrics.json"} has format {found!r}; expected "{FORMAT}"')
    table = parquet.read_table(folder / "labels.parquet")
    labels = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    config = folder / "config.toml"
    return metrics, labels, config.read_text(encoding="utf-8") if config.is_file() else ""


def render(metrics: Mapping[str, Any], labels: Mapping[str, np.ndarray], config: str) -> str:
    """The page as text.

    Args:
        metrics: what `metrics.json` holds.
        labels: columns of `labels.parquet`, shape (N,) each.
        config: text of `config.toml`.
    """
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the report needs jinja2; type: pip install 'anygrain[report]'") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("anygrain.report", "template"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        whole=whole, decimal=decimal, share=share, interval=interval, sentence=sentence, base=base
    )
    return environment.get_template("page.html.jinja").render(**contents(metrics, labels), config=config)


def contents(metrics: Mapping[str, Any], labels: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the template shows; pictures are SVG text, every table a list."""
    from markupsafe import Markup

    parents = _parents(metrics.get("confusion") or [])
    pictures = {
        "compared": _compared(metrics.get("evaluation")),
        "reliability": _reliability(metrics.get("evaluation"), "reliability"),
        "reliability_features": _reliability(metrics.get("evaluation"), "reliability_features"),
        "agreement": _agreement(metrics.get("agreement") or []),
        "sources": _sources(metrics.get("sources") or []),
        "history": _history(metrics.get("history") or []),
        "balance": _balance(metrics.get("classes_table") or []),
        "map": _map(labels, parents),
    }
    panels = _panels(metrics.get("confusion") or [])
    evaluation = metrics.get("evaluation") or {"entries": []}
    evidence = metrics.get("evidence") or []
    return {
        "run": metrics,
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


def whole(value: float | None) -> str:
    """A count with thin spaces between thousands."""
    return "–" if value is None else f"{round(value):,}".replace(",", "\u202f")


def decimal(value: float | None, digits: int = 2) -> str:
    """A number, or a dash."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}".replace("-", "\u2212")


def share(value: float | None) -> str:
    """A share in percent."""
    return "–" if value is None or not np.isfinite(value) else f"{100 * value:.0f}\u202f%"


def interval(limits: Sequence[float | None] | None) -> str:
    """[low, high]."""
    return "" if not limits else f"[{decimal(limits[0])}, {decimal(limits[1])}]"


def sentence(text: str) -> str:
    """The text with a capital first and a full stop last."""
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text[-1:] in '.!?' else '.'}" if text else ""


def base(path: str | None) -> str:
    """The name of a file without its folders."""
    return Path(path or "").name


def _limits(entries: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    pairs = [entry.get("interval") or (None, None) for entry in entries]
    return _floats(pair[0] for pair in pairs), _floats(pair[1] for pair in pairs)


def _floats(values: Any) -> np.ndarray:
    return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)


def _compared(evaluation: Mapping[str, Any] | None) -> str | None:
    if not evaluation or not evaluation["entries"]:
        return None
    entries = evaluation["entries"]
    low, high = _limits(entries)
    names = [entry["name"] for entry in entries]
    display = IntervalDisplay(
        names, _floats(e["accuracy"] for e in entries), low, high, ours=[e["ours"] for e in entries]
    )
    return display.to_svg(TEXT, title="Accuracy of ours and of the baselines, with intervals", line=34)


def _reliability(evaluation: Mapping[str, Any] | None, key: str) -> str | None:
    bins = (evaluation or {}).get(key)
    if not bins:
        return None
    low, high = _limits(bins)
    confidence, accuracy, count = (_floats(b[name] for b in bins) for name in ("confidence", "accuracy", "rows"))
    return ReliabilityDisplay(confidence, accuracy, count, low=low, high=high).to_svg()


def _agreement(pairs: Sequence[Mapping[str, Any]]) -> str | None:
    pairs = pairs[:MOST_LINES]
    if not pairs:
        return None
    low, high = _limits(pairs)
    names = [f"{pair['first']} and {pair['second']}" for pair in pairs]
    values = _floats(pair["share"] for pair in pairs)
    return IntervalDisplay(names, values, low, high, label="share of rows that agree").to_svg(
        TEXT, title="How often two kinds of label agree"
    )


def _sources(sources: Sequence[Mapping[str, Any]]) -> str | None:
    measured = [source for source in sources if source["accuracy"] is not None]
    # with many sources, the least accurate are those to look at
    shown = sorted(measured, key=lambda source: source["accuracy"])[:MOST_LINES]
    if not shown:
        return None
    low, high = _limits(shown)
    values = _floats(source["accuracy"] for source in shown)
    return IntervalDisplay(
        [s["name"] for s in shown], values, low, high, label="share of labels that are right"
    ).to_svg(TEXT, title="Accuracy of every source of labels", line=26)


def _history(rounds: Sequence[Mapping[str, Any]]) -> str | None:
    tracks: dict[str, tuple[list[Any], list[Any]]] = {}
    for found in rounds:
        for key, name in (("held_out", found.get("track") or "held out"), ("evidence", "fitted")):
            if found.get(key) is not None:
                x, y = tracks.setdefault(name, ([], []))
                x.append(found["round"])
                y.append(found[key])
    return HistoryDisplay(tracks).to_svg() if tracks else None


def _balance(classes: Sequence[Mapping[str, Any]]) -> str | None:
    shown = sorted(classes, key=lambda c: -c["expected"])[:MOST_BARS]
    if not shown:
        return None
    return BalanceDisplay(
        [c["class"] for c in shown], _floats(c["expected"] for c in shown), _floats(c["exact"] for c in shown)
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


def _placed(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    if "map_x" not in labels or "map_y" not in labels:
        return np.zeros(len(labels["class"]), bool)
    places = np.isfinite(labels["map_x"].astype(np.float64)) & np.isfinite(labels["map_y"].astype(np.float64))
    return places


def _flagged(labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """bool (N,): rows with a label that looks wrong."""
    flagged: np.ndarray = labels["wrong_labels"] > 0
    return flagged


def _map(labels: Mapping[str, np.ndarray], parents: Mapping[str, str]) -> str | None:
    placed = np.flatnonzero(_placed(labels))
    if len(placed) < 3:
        return None
    placed = placed[:: -(-len(placed) // MANY)]
    places = np.stack([labels["map_x"][placed], labels["map_y"][placed]], axis=1).astype(np.float64)
    groups, flagged = _group_of(labels, parents)[placed], _flagged(labels)[placed]
    # without parents, the classes are the groups, and the legend names them
    classes = labels["class"][placed] if parents else None
    return MapDisplay(places, groups, classes=classes, flagged=flagged).to_svg(WIDE, 600)


def _groups(labels: Mapping[str, np.ndarray], parents: Mapping[str, str]) -> list[dict[str, Any]]:
    names, inverse = np.unique(_group_of(labels, parents).astype(str), return_inverse=True)
    rows = np.bincount(inverse, minlength=len(names))
    sums = [np.bincount(inverse, labels[name].astype(np.float64), len(names)) for name in ("probability", "entropy")]
    doubt = np.bincount(inverse, _flagged(labels), len(names))
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
