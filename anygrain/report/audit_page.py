"""The page of an audit: one file, whole in itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anygrain.report.grid import square
from anygrain.report.intervals import IntervalDisplay
from anygrain.report.page import environment
from anygrain.report.parts import MOST_LINES, TEXT, WIDE, floats

MOST_CLASSES = 40  # of a picture of a transition matrix


def write_audit(result: Mapping[str, Any], path: Path, shown: Callable[[int], Mapping[str, Any]]) -> Path:
    """Write the page of what `audit.json` holds.

    Args:
        result: with keys `_row`, `_rows` that name the data rows.
        path: of the page.
        shown: text and image (a data address, or None) of a data row.

    Raises:
        ModuleNotFoundError: jinja2 is missing.
    """
    from markupsafe import Markup

    n, prior = result["rows"], result["class_prior"]
    mistakes = _mistakes(result["transition"], prior, result["classes"], n)
    picture = _transition(result["transition"], prior, result["classes"]) if mistakes else None
    crowds = [
        {
            **crowd,
            "picture": _markup(_annotators(crowd["annotators"]), Markup),
            "square": _markup(_transition(crowd["confusion"], None, crowd["classes"]), Markup),
            "groups": [
                {**group, "square": _markup(_transition(group["confusion"], None, crowd["classes"]), Markup)}
                for group in crowd["groups"]
            ],
        }
        for crowd in result["crowds"]
    ]
    page = (
        environment()
        .get_template("audit.html.jinja")
        .render(
            run=result,
            crowds=crowds,
            worst=_with(result["worst"], shown),
            outliers=_with(result["outliers"]["worst"], shown),
            duplicates=[
                {**pair, "one": shown(pair["_rows"][0]), "two": shown(pair["_rows"][1])}
                for pair in result["duplicates"]["worst"]
            ],
            value=None if result["value"] is None else {
                **result["value"],
                "worst": _with(result["value"]["worst"], shown),
                "best": _with(result["value"]["best"], shown),
            },
            transition=_markup(picture, Markup),
            mistakes=mistakes,
            priors=_priors(result),
            most=MOST_CLASSES,
        )
    )  # fmt: skip
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
    return path


def _markup(picture: str | None, markup: Any) -> Any:
    return None if picture is None else markup(picture)


def _with(lines: Sequence[Mapping[str, Any]], shown: Callable[[int], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Lines with the text and the image of their rows; of sets there are none."""
    nothing = {"text": "", "image": None}
    return [{**line, **(shown(line["_row"]) if line["_row"] >= 0 else nothing)} for line in lines]


def _transition(transition: Any, class_prior: Any, names: Sequence[str]) -> str | None:
    """P(label | true class), of the classes that are mistaken most; of priors that are not given all are the same."""
    if transition is None:
        return None
    matrix = np.asarray(transition)
    prior = np.full(len(matrix), 1 / len(matrix)) if class_prior is None else np.asarray(class_prior)
    lost = prior * (1 - np.diag(matrix))
    taken = prior @ matrix - prior * np.diag(matrix)
    kept = np.sort(np.argsort(-(lost + taken), kind="stable")[:MOST_CLASSES])
    part = matrix[np.ix_(kept, kept)]
    called = [names[k] for k in kept.tolist()]

    def tip(row: int, column: int) -> str:
        return f"{called[row]} is labelled {called[column]}: {100 * part[row, column]:.1f} %"

    return square(
        part,
        called,
        lambda row, column: "right" if row == column else "wrong",
        tip,
        "Estimated transition matrix",
        640 if len(kept) <= 20 else WIDE,
    )


def _mistakes(transition: Any, class_prior: Any, names: Sequence[str], n: int) -> list[dict[str, Any]]:
    """The most frequent mistakes: true class, label, how often of the class, and of n rows; at least half a row."""
    if transition is None:
        return []
    matrix, prior = np.asarray(transition), np.asarray(class_prior)
    rate = prior[:, None] * matrix
    np.fill_diagonal(rate, 0.0)
    order = np.argsort(-rate, axis=None, kind="stable")[:20]
    return [
        {"true": names[a], "label": names[b], "share": float(matrix[a, b]), "rows": float(rate[a, b] * n)}
        for a, b in zip(*np.unravel_index(order, rate.shape), strict=True)
        if rate[a, b] * n >= 0.5
    ]


def _priors(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    if result["class_prior"] is None:
        return []
    largest = max(float(np.max(result["class_prior"])), 1e-12)
    pairs = zip(result["classes"], np.asarray(result["class_prior"]).tolist(), strict=True)
    lines = [{"class": name, "share": share, "width": 100 * share / largest} for name, share in pairs]
    return sorted(lines, key=lambda line: -line["share"])


def _annotators(lines: Sequence[Mapping[str, Any]]) -> str | None:
    """Accuracy with intervals, the least accurate first."""
    voted = sorted((line for line in lines if line["votes"]), key=lambda line: line["accuracy"])[:MOST_LINES]
    if not voted:
        return None
    return IntervalDisplay(
        [str(line["annotator"]) for line in voted],
        floats(line["accuracy"] for line in voted),
        floats(line["accuracy_low"] for line in voted),
        floats(line["accuracy_high"] for line in voted),
        ours=[line["prob_spammer"] < 0.5 for line in voted],
        label="share of votes that are right",
    ).to_svg(TEXT, title="Accuracy of every annotator", line=26)
