"""The page of an audit: what it says, that nothing is fetched, and that nothing sticks out of it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from anygrain.report.audit_page import write_audit
from tests.report.test_browser import BROWSER, browse

LONG = "a_class_with_a_name_that_nobody_would_want_to_read"
PROBE = """
<script>
const broken = [];
document.addEventListener("securitypolicyviolation", (event) => broken.push(event.blockedURI));
addEventListener("load", () => {
  const root = document.documentElement, wide = root.clientWidth;
  const out = [...document.querySelectorAll("main *")].filter((e) =>
    e.getBoundingClientRect().right > wide + 1 && !e.closest(".scroll, pre, svg, details:not([open])"));
  root.setAttribute("data-probe", [broken.length, out.length, root.scrollWidth - wide,
    performance.getEntriesByType("resource").length].join(" "));
});
</script>"""


def result(**other) -> dict:
    names = ["b", LONG, "c"]
    annotator = {
        "annotator": LONG, "votes": 40, "items": 40, "accuracy": 0.4, "accuracy_low": 0.3, "accuracy_high": 0.5,
        "agreement": 0.5, "overuses": "b", "overuse": 0.3, "nats_per_vote": 0.1, "prob_spammer": 0.97,
    }  # fmt: skip
    rule = {
        "rule": "says b", "polarity": "", "votes": 0, "coverage": 0.0, "overlaps": 0.0, "conflicts": 0.0,
        "accuracy": np.nan, "accuracy_low": np.nan, "accuracy_high": np.nan, "correct": 0, "incorrect": 0,
        "empirical_accuracy": np.nan, "weight": np.nan,
    }  # fmt: skip
    agreement = {"value": 0.5, "low": 0.4, "high": 0.6, "items": 30, "votes": 80}
    base = {
        "name": "run <1>", "created": "2026-01-02T03:04:05", "command": "anygrain audit run", "seconds": 1.0,
        "versions": {"anygrain": "0"}, "source": "rows.csv", "rows": 90, "fail_above": 0.05, "notes": ["two of them"],
        "labels": 100, "share_wrong": 0.081, "looks_wrong": 1, "noise_of": "class",
        "kinds": [{"label": "class", "kind": "Exact", "labels": 100, "share_wrong": None, "looks_wrong": 1}],
        "worst": [
            {"row": "r1", "label": "class", "kind": "Exact", "source": "class", "given": LONG, "proposed": "b",
             "probability": 0.9, "prob_wrong": 0.8, "nats_lost": 3.2, "looks_wrong": True, "_row": 1},
            {"row": "", "label": "bag", "kind": "Count", "source": "bag 7", "given": "3", "proposed": "other",
             "probability": np.nan, "prob_wrong": 0.7, "nats_lost": 1.0, "looks_wrong": True, "_row": -1},
        ],
        "classes": names, "class_prior": np.array([0.5, 0.3, 0.2]),
        "transition": np.array([[0.9, 0.1, 0.0], [0.02, 0.97, 0.01], [0.0, 0.0, 1.0]]),
        "tags": [], "overlap": [{"first": "b", "second": LONG, "overlap": 0.1, "confused": 3.0, "noise": np.nan}],
        "duplicates": {"exact": 1, "near": 0, "conflict": 1, "worst": [
            {"first": "r1", "second": "r2", "exact": True, "conflict": True, "_rows": [1, 2]}]},
        "outliers": {"rows": 1, "worst": [{"row": "r9", "probability": 0.7, "_row": 9}]},
        "crowds": [{"label": "votes", "alpha": agreement, "kappa": agreement, "annotators": [annotator],
                    "classes": names, "confusion": np.full((3, 3), 1 / 3), "groups": [],
                    "votes_needed": {"confidence": 0.95, "unsure": 7, "votes": 19.4, "unreached": 1, "most": 30}}],
        "rules": [{"label": "rules", "rules": [rule]}],
        "value": {"harmful": 1, "worst": [{"row": "r1", "influence": -0.002, "shapley": 0.1, "_row": 1}], "best": []},
    }  # fmt: skip
    return {**base, **other}


def shown(row: int) -> dict:
    return {"text": f"text of row {row} & more " + "x" * 60, "image": None}


def test_types_of_annotators(tmp_path):
    found = result()
    crowd = found["crowds"][0]
    crowd["annotators"] = [{**crowd["annotators"][0], "group": 1}]
    crowd["groups"] = [
        {"annotators": 3, "votes": 90, "accuracy": 0.9, "confusion": np.full((3, 3), 0.05) + 0.85 * np.eye(3)},
        {"annotators": 1, "votes": 12, "accuracy": 1 / 3, "confusion": np.full((3, 3), 1 / 3)},
    ]
    page = write_audit(found, tmp_path / "audit.html", shown).read_text(encoding="utf-8")
    assert "Type 1: 3 annotators with 90 votes, right on 90 % of each class" in page
    assert "Type 2: 1 annotator with 12 votes, right on 33 % of each class" in page
    assert '<th class="n">type</th>' in page


def test_what_the_page_says(tmp_path):
    page = write_audit(result(), tmp_path / "audit.html", shown).read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>|\s+", " ", page)
    text = re.sub(r"\s+", " ", text)
    assert "Of 100 labels 8 are expected to be wrong (8.1 %)" in text
    assert "above the limit of 5.0 %" in text
    assert "7 rows are not yet sure at 95 %: about 19 more votes of anybody settle most of them" in text
    assert "run &lt;1&gt;" in page
    assert "text of row 9 &amp; more" in page
    # of the class b one in ten is labelled otherwise: 0.5 * 0.1 * 90 rows
    assert re.search(rf"<td>b</td><td>{LONG}</td><td class=\"n\">10\.0.%</td><td class=\"n\">4\.5</td>", page)
    assert "1 pair is the same to the byte, 0 nearly so; the labels of 1 conflict." in text
    assert "nan" not in text


def test_what_is_not_there_is_not_shown(tmp_path):
    bare = result(
        worst=[], classes=None, class_prior=None, transition=None, overlap=[], crowds=[], rules=[], value=None,
        notes=[], fail_above=None, duplicates={"exact": 0, "near": 0, "conflict": 0, "worst": []},
        outliers={"rows": 0, "worst": []},
    )  # fmt: skip
    page = write_audit(bare, tmp_path / "audit.html", shown).read_text(encoding="utf-8")
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["Kinds of label", "How to repeat it"]
    # labels that are right say nothing of how labels go wrong
    clean = write_audit(result(transition=np.eye(3)), tmp_path / "clean.html", shown).read_text(encoding="utf-8")
    assert "How labels go wrong" not in clean


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [1280, 500])
def test_nothing_is_fetched_and_nothing_sticks_out(tmp_path, width):
    page: Path = write_audit(result(), tmp_path / "audit.html", shown)
    page.write_text(page.read_text(encoding="utf-8").replace("<main>", PROBE + "<main>"), encoding="utf-8")
    seen = browse(page, tmp_path / "profile", f"--window-size={width},1000", "--dump-dom")
    assert re.search(r'data-probe="([^"]*)"', seen)[1] == "0 0 0 0"
