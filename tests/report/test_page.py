"""The page of a run: whole, true to its numbers, and safe to open."""

import json
import re
import sys
from html.parser import HTMLParser

import pytest

from anygrain.report import write_report
from tests.report.folders import write_run, write_tag_run


class Outline(HTMLParser):
    """Headings, table cells, and where pictures and folds stand."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.order: list[str] = []
        self.cells: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag in ("svg", "details", "table", "h2", "section"):
            self.order.append(tag)
        if tag == "td":
            self.cells.append("")
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "data", "srcset")]

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        if "td" in self.open:
            self.cells[-1] += data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "t1"
    metrics = write_run(folder)
    path = write_report(folder)
    return metrics, path, path.read_text(encoding="utf-8")


def test_page_is_one_small_file(run):
    _, path, page = run
    assert path.name == "report.html"
    assert not list(path.parent.glob(".report*"))
    assert path.stat().st_size < 300_000
    assert Outline(page).links == ["data:,"]
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttp", page)
    assert "default-src 'none'" in page


def test_large_runs_stay_below_a_megabyte(tmp_path):
    write_run(tmp_path / "big", parents=12, children=50, rows=20_000, annotators=800)
    assert write_report(tmp_path / "big").stat().st_size < 1_000_000


def test_every_number_is_on_the_page(run):
    metrics, _, page = run
    cells = Outline(page).cells
    for entry in metrics["evaluation"]["entries"]:
        at = cells.index(entry["name"])
        shown = cells[at + 1 : at + 5]
        limits = "[{:.2f}, {:.2f}]".format(*entry["interval"])
        assert shown == [str(entry["rows"]), str(entry["correct"]), f"{entry['accuracy']:.3f}", limits]
    for worst in metrics["worst"]:
        at = next(i for i, c in enumerate(cells) if c == worst["row"] and cells[i + 1] == worst["given"])
        shown = cells[at + 2 : at + 8]
        assert shown[:3] == [worst["source"], f"{worst['wrong']:.3f}", f"{worst['suspect']:.1f}"]
        assert shown[3:] == [worst["proposed"], f"{worst['probability']:.2f}", worst["text"]]
    for source in metrics["sources"]:
        assert f"{source['accuracy']:.3f}" in cells[cells.index(source["name"]) :]
    for parent in metrics["confusion"]:
        assert f"{100 * parent['inside']:.0f}" in page
    for sentence in (*metrics["warnings"], *metrics["notes"], metrics["command"]):
        assert sentence.replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;") in page


def test_every_picture_has_its_numbers_behind_a_fold(run):
    order = [tag for tag in Outline(run[2]).order if tag in ("svg", "details", "section")]
    sections = "".join({"svg": "p", "details": "n", "section": "|"}[tag] for tag in order).split("|")
    pictured = [s for s in sections if "p" in s]
    assert len(pictured) == 7
    assert all(re.fullmatch(r"(p+n)+n*", s) for s in pictured)


def test_text_of_the_user_is_escaped(run):
    page = run[2]
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in page
    assert "<internal>" not in page
    assert page.count("<script>") == 1


def test_a_run_without_exact_rows_says_so(tmp_path):
    folder = tmp_path / "t2"
    metrics = write_run(folder, parents=0)
    metrics |= {"evaluation": None, "worst": [], "agreement": [], "history": [], "suspects": 0}
    metrics["sources"] = [source | {"accuracy": None, "interval": None} for source in metrics["sources"]]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    page = write_report(folder).read_text(encoding="utf-8")
    assert "accuracy could not be measured" in page
    assert "\u22120.47" in page
    assert "Labels that look wrong" not in page
    assert "inside each parent" not in page


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no metrics\.json: expected the folder of a finished run"):
        write_report(tmp_path)
    write_run(tmp_path)
    (tmp_path / "metrics.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="has format 'other'; expected"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_missing_jinja2_is_named(tmp_path, monkeypatch):
    write_run(tmp_path)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'anygrain\[report\]'"):
        write_report(tmp_path)


def test_the_page_of_tags_holds_its_numbers(tmp_path):
    metrics = write_tag_run(tmp_path / "t")
    path = write_report(tmp_path / "t")
    page = path.read_text(encoding="utf-8")
    cells = Outline(page).cells
    for tag in metrics["tags_table"]:
        shown = cells[cells.index(tag["tag"]) + 1 :][:5]
        found = tag["average_precision"]
        assert shown[:3] == [str(tag["on"]), str(tag["off"]), "0"]
        assert shown[3] == ("\u2013" if found is None else f"{found:.2f}")
    for entry in metrics["evaluation"]["entries"]:
        shown = cells[cells.index(entry["name"]) + 1 :][:13]
        assert shown[1] == f"{entry['map']:.3f}"
        assert shown[4] == "[{:.2f}, {:.2f}]".format(*entry["micro_f1_interval"])
    for worst in metrics["worst"]:
        at = cells.index(f"{worst['given']} {worst['tag']}", cells.index(worst["row"]))
        assert cells[at + 1 : at + 5] == [worst["source"], f"{worst['wrong']:.3f}", f"{worst['suspect']:.1f}", "0.030"]
    assert "<script>alert" not in page
    assert "tag <1>" not in page
    order = [tag for tag in Outline(page).order if tag in ("svg", "details", "section")]
    sections = "".join({"svg": "p", "details": "n", "section": "|"}[tag] for tag in order).split("|")
    pictured = [s for s in sections if "p" in s]
    assert len(pictured) == 7
    assert all(re.fullmatch(r"(p+n)+n*", s) for s in pictured)


def test_a_run_of_tags_without_scores_says_so(tmp_path):
    metrics = write_tag_run(tmp_path / "t")
    metrics |= {"evaluation": None, "worst": [], "agreement": [], "history": [], "suspects": 0}
    (tmp_path / "t" / "metrics.json").write_text(json.dumps(metrics))
    page = write_report(tmp_path / "t").read_text(encoding="utf-8")
    assert "nothing could be measured" in page
    assert "Entries that look wrong" not in page
