"""The verb discover: classes that are there are found, decisions of a person hold, bad input is refused in a line."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from anygrain import load
from anygrain.cli import run
from anygrain.data.config import load_config
from anygrain.data.table import write_table

CORNERS = np.array([[0, 0], [0, 9], [9, 0], [9, 9], [30, 0], [30, 9]], dtype=np.float64)
TRUTH = np.arange(120) % 6
CONFIG = """
[data]
source = "rows.csv"
id = "id"
features = "x_*"
{labels}
[discover]
method = "mixture"
bootstrap = 2
{more}
"""
SIDE = """
[[labels]]
kind = "Coarse"
column = "side"
"""
CORNER = """
[[labels]]
kind = "Exact"
column = "known"
"""


def made(folder: Path, labels: str = SIDE, more: str = "n_classes = {west = 4, east = 2}", **columns: Any) -> Path:
    x = CORNERS[TRUTH] + np.random.default_rng(0).normal(size=(120, 2))
    table = {
        "id": [f"r{i}" for i in range(120)],
        "x_0": x[:, 0],
        "x_1": x[:, 1],
        "side": np.where(TRUTH < 4, "west", "east").tolist(),
        "known": [f"corner {c}" if c < 2 and i < 60 else "" for i, c in enumerate(TRUTH.tolist())],
        "truth": [f"corner {c}" for c in TRUTH.tolist()],
        **columns,
    }
    write_table(table, folder / "rows.csv")
    path = folder / "d.toml"
    path.write_text(CONFIG.format(labels=labels, more=more), encoding="utf-8")
    return path


def lines_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "classes.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def edited(folder: Path, edits: dict[int, dict[str, str]]) -> None:
    lines = lines_of(folder)
    with open(folder / "classes.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows({**line, **edits.get(k, {})} for k, line in enumerate(lines))


def class_of_corner(folder: Path) -> list[int]:
    """The found class of every true corner; each must be one class alone."""
    found = parquet.read_table(folder / "labels.parquet")["class"].to_numpy()
    own = [set(found[corner == TRUTH].tolist()) for corner in range(6)]
    assert all(len(k) == 1 for k in own)
    return [k.pop() for k in own]


def test_a_run_holds_what_was_found_and_a_model_that_predict_and_load_read(tmp_path, capsys):
    config = made(tmp_path, more='n_classes = {west = 4, east = 2}\ncompare = "truth"')
    out = tmp_path / "r1"
    assert run(["discover", str(config), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "6 classes are looked for: 4 in west, 2 in east" in said
    assert f"anygrain discover {config} --accepted {out}/classes.csv --out OUT" in said
    names = {p.name for p in out.iterdir()}
    wanted = {"config.toml", "model", "labels.parquet", "classes.csv", "taxonomy.csv", "metrics.json", "report.html"}
    assert names == {*wanted, "log.jsonl"}
    assert len(set(class_of_corner(out))) == 6
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    (compared,) = [c for c in metrics["crossed"] if c["compared"]]
    assert (compared["accuracy"], compared["nmi"], compared["ari"]) == (1.0, 1.0, 1.0)
    assert np.sum(compared["table"]) == 120
    assert all(c["stability"] > 0.9 for c in metrics["classes"])
    # the model says of the rows what was found
    assert run(["predict", str(out), str(tmp_path / "rows.csv"), "--out", str(tmp_path / "new.csv")]) == 0
    with open(tmp_path / "new.csv", newline="", encoding="utf-8") as file:
        predicted = [line["class"] for line in csv.DictReader(file)]
    assert predicted == parquet.read_table(out / "labels.parquet")["name"].to_pylist()
    assert len(load(out).classes_) == 6
    assert {line["parent"] for line in lines_of(out)} == {"west", "east"}
    # the configuration that was written out does the same again
    again = tmp_path / "again"
    assert run(["discover", str(out / "config.toml"), "--out", str(again)]) == 0
    assert parquet.read_table(again / "labels.parquet") == parquet.read_table(out / "labels.parquet")


def test_decisions_hold_in_the_next_run_and_in_a_fit(tmp_path):
    config = made(tmp_path)
    first, second, third = (tmp_path / name for name in ("r1", "r2", "r3"))
    assert run(["discover", str(config), "--out", str(first)]) == 0
    of = class_of_corner(first)
    edited(first, {of[0]: {"name": "south west"}, of[1]: {"action": f"merge {of[0]}"}, of[5]: {"action": "accept"}})
    assert run(["discover", str(config), "--accepted", str(first / "classes.csv"), "--out", str(second)]) == 0
    assert load_config(second / "config.toml").discover.n_classes == "auto"  # the table says how many
    found = parquet.read_table(second / "labels.parquet")
    name = np.array(found["name"].to_pylist())
    assert set(name[TRUTH < 2]) == {"south west"}
    assert set(found["known"].to_numpy(zero_copy_only=False)[TRUTH < 2]) == {True}
    assert len(set(name)) == 5
    # a class that was accepted two runs ago is still told, and one that is split stays apart; all else is open
    known = {line["name"]: int(line["id"]) for line in lines_of(second)}
    edited(second, {known["south west"]: {}, int(found["class"][4].as_py()): {"action": "split 2"}})
    again = ["discover", str(config), "--method", "ss-kmeans", "--accepted", str(second), "--out", str(third)]
    assert run(again) == 0
    name = np.array(parquet.read_table(third / "labels.parquet")["name"].to_pylist())
    assert set(name[TRUTH < 2]) == {"south west"}
    assert len(set(name[TRUTH == 4])) == 2
    assert not set(name[TRUTH == 4]) & set(name[TRUTH != 4])
    assert {line["parent"] for line in lines_of(third)} == {"west", "east"}
    # what was found is a source of labels like any other
    labels = """
[[labels]]
kind = "Exact"
source = "r2/labels.parquet"
id = "row"
column = "name"
error = 0.02
taxonomy = "r2/taxonomy.csv"
"""
    (tmp_path / "fit.toml").write_text(CONFIG.format(labels=labels, more=""), encoding="utf-8")
    fast = ["--set", "learn.rounds=1", "--set", "learn.neighbours=0", "--set", "output.report=false"]
    assert run(["fit", str(tmp_path / "fit.toml"), *fast, "--out", str(tmp_path / "m")]) == 0
    assert "south west" in load(tmp_path / "m").classes_.tolist()


def test_known_classes_stay_and_new_ones_follow(tmp_path):
    config = made(tmp_path, labels=CORNER, more="n_classes = 6")
    assert run(["discover", str(config), "--out", str(tmp_path / "r")]) == 0
    of = class_of_corner(tmp_path / "r")
    lines = lines_of(tmp_path / "r")
    assert [line["known"] for line in lines] == ["yes", "yes", "no", "no", "no", "no"]
    assert [lines[of[corner]]["name"] for corner in (0, 1)] == ["corner 0", "corner 1"]
    assert lines[of[2]]["nearest"] in ("corner 0", "corner 1")


def test_known_classes_lie_below_the_coarse_class_of_their_rows_and_nothing_need_be_known(tmp_path):
    config = made(tmp_path, labels=SIDE + CORNER)
    assert run(["discover", str(config), "--out", str(tmp_path / "r")]) == 0
    lines = lines_of(tmp_path / "r")
    assert [(line["name"], line["parent"]) for line in lines[:2]] == [("corner 0", "west"), ("corner 1", "west")]
    assert sorted(line["parent"] for line in lines) == ["east"] * 2 + ["west"] * 4
    config = made(tmp_path, labels="", more="")
    assert run(["discover", str(config), "--n-classes", "6", "--out", str(tmp_path / "none")]) == 0
    assert len(set(class_of_corner(tmp_path / "none"))) == 6


def test_pairs_alone_hold(tmp_path):
    write_table({"a": ["r0", "r2"], "b": ["r1", "r3"], "same": [1, 0]}, tmp_path / "pairs.csv")
    pairs = """
[[labels]]
kind = "Pairs"
source = "pairs.csv"
first = "a"
second = "b"
column = "same"
"""
    config = made(tmp_path, labels=pairs, more="n_classes = 5")
    assert run(["discover", str(config), "--out", str(tmp_path / "r")]) == 0
    found = parquet.read_table(tmp_path / "r" / "labels.parquet")["class"].to_pylist()
    assert found[0] == found[1]
    assert found[2] != found[3]


def test_texts_name_their_classes_and_the_page_is_whole_in_itself(tmp_path):
    texts = [
        *(f"please pay back my lost luggage number {i}" for i in range(20)),
        *(f"</script><b>book a flight to Oslo on day {i}" for i in range(20)),
        *(f"stop the bank transfer of {i} dollars" for i in range(20)),
    ]
    write_table({"id": list(range(60)), "text": texts}, tmp_path / "t.csv")
    (tmp_path / "t.toml").write_text(
        '[data]\nsource = "t.csv"\nid = "id"\ntext = "text"\n[discover]\nmethod = "ward"\nn_classes = 3\n',
        encoding="utf-8",
    )
    out = tmp_path / "r"
    assert run(["discover", str(tmp_path / "t.toml"), "--out", str(out)]) == 0
    names = " ".join(line["name"] for line in lines_of(out))
    assert all(word in names for word in ("luggage", "flight", "transfer"))
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<b>book" not in page  # texts are escaped, in tables and in the data of the map
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    points = json.loads(re.search(r'id="points">(.*?)</script>', page, re.S)[1])
    assert len(points) == 60
    assert {p[2] for p in points} == {0, 1, 2}
    assert run(["report", str(out)]) == 0
    assert (out / "report.html").read_text(encoding="utf-8") == page


def test_with_a_taxonomy_known_classes_lie_where_it_says(tmp_path):
    lines = "class,side\ncorner 0,west\ncorner 1,west\ncorner 4,east\n"
    (tmp_path / "taxonomy.csv").write_text(lines, encoding="utf-8")
    known = [f"corner {c}" if c in (0, 1, 4) else "" for c in TRUTH.tolist()]
    config = made(tmp_path, labels=SIDE + CORNER, known=known)
    text = config.read_text(encoding="utf-8").replace("\n[data]", 'taxonomy = "taxonomy.csv"\n[data]')
    config.write_text(text, encoding="utf-8")
    assert run(["discover", str(config), "--out", str(tmp_path / "r")]) == 0
    found = {line["name"]: (line["parent"], line["known"]) for line in lines_of(tmp_path / "r")}
    assert found["corner 0"] == found["corner 1"] == ("west", "yes")
    assert found["corner 4"] == ("east", "yes")
    assert sorted(found.values()) == sorted(
        [("west", "yes")] * 2 + [("east", "yes"), ("east", "no")] + [("west", "no")] * 2
    )
    assert len(set(class_of_corner(tmp_path / "r"))) == 6


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


BAD = [
    ("n_classes = 500", SIDE, "n_classes asks for 500 classes, the data has 120 rows"),
    ("n_classes = 1", CORNER, "n_classes is at most 1, but 2 classes are known already"),
    ("n_classes = {west = 4}", SIDE, 'n_classes does not say how many classes are in coarse class "east"'),
    ("n_classes = {west = 4, east = 2, north = 1}", SIDE, "n_classes names the coarse class 'north'"),
    ("n_classes = [4, 2]", SIDE, "n_classes is (4, 2); expected the lower number first"),
    ("n_classes = [4, 5, 6]", SIDE, "discover.n_classes is a list of 3 numbers. Expected two, [lowest, highest]"),
    ('n_classes = "many"', SIDE, 'd.toml line 14: discover.n_classes is "many". Expected "auto" or int of at least 1'),
    ('compare = "fact"', SIDE, 'rows.csv has no column "fact"'),
    ('mehtod = "gpc"', SIDE, "discover.mehtod is not a setting. Did you mean discover.method?"),
    ('accepted = "nowhere/classes.csv"', SIDE, "nowhere/classes.csv. Expected the classes.csv of a run"),
]


@pytest.mark.parametrize(("more", "labels", "message"), BAD)
def test_bad_settings_are_refused_before_work_starts(more, labels, message, tmp_path, capsys):
    config = made(tmp_path, labels=labels, more=more)
    assert message in refused(["discover", str(config), "--out", str(tmp_path / "r")], capsys)
    assert not (tmp_path / "r").exists()


def test_bad_data_are_refused(tmp_path, capsys):
    out = ["--out", str(tmp_path / "r")]
    config = made(tmp_path, x_0=[1.0] * 120, x_1=[2.0] * 120)
    assert "all 120 rows are identical" in refused(["discover", str(config), *out], capsys)
    config = made(tmp_path, side=["west"] * 119 + ["east"], more="n_classes = {west = 4, east = 2}")
    assert 'coarse class "east" has 1 row, too few for 2' in refused(["discover", str(config), *out], capsys)
    config = made(tmp_path)
    said = refused(["discover", str(config), "--method", "gcp", *out], capsys)
    assert 'discover.method is "gcp". Did you mean "gpc"?' in said
    said = refused(["discover", str(config), "--n-classes", "few", *out], capsys)
    assert "--n-classes few is no number of classes. Expected 20, or 10-30" in said
    numbers = '\n[[labels]]\nkind = "Value"\ncolumn = "x_0"\n'
    said = refused(["discover", str(made(tmp_path, labels=numbers)), *out], capsys)
    assert 'discover looks for classes, and labels "x_0" speak of a number' in said
    assert not (tmp_path / "r").exists()


def test_a_folder_in_use_and_an_edited_table_are_not_replaced(tmp_path, capsys):
    config, out = made(tmp_path), tmp_path / "r"
    begin = ["discover", str(config), "--out", str(out)]
    assert run(begin) == 0
    capsys.readouterr()
    assert "holds a finished run. Add --overwrite" in refused(begin, capsys)
    assert run([*begin, "--overwrite"]) == 0
    capsys.readouterr()
    assert "holds classes that anygrain discover found. Expected a run of fit" in refused(["audit", str(out)], capsys)
    edited(out, {0: {"action": "accept"}})
    capsys.readouterr()
    assert "classes.csv was edited since it was written" in refused([*begin, "--overwrite"], capsys)
    edited(out, {0: {"action": "acept"}})
    said = refused(["discover", str(config), "--accepted", str(out), "--out", str(tmp_path / "r2")], capsys)
    assert 'classes.csv line 2, column action: "acept" is no action' in said
    assert "holds the accepted classes" in refused([*begin, "--overwrite", "--accepted", str(out)], capsys)
    assert not (tmp_path / "r2").exists()


def test_a_fit_on_coarse_classes_alone_points_here(tmp_path, capsys):
    said = refused(["fit", str(made(tmp_path)), "--out", str(tmp_path / "r")], capsys)
    assert said.endswith("Or find the classes below it: anygrain discover\n")


def test_a_search_that_is_stopped_leaves_nothing(tmp_path, capsys, monkeypatch):
    from anygrain.discover.discover import Discover

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Discover, "fit", stop)
    config = made(tmp_path)
    assert run(["discover", str(config), "--out", str(tmp_path / "r")]) == 3
    assert "stopped before anything was written. Start again with: anygrain discover" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_the_section_is_written_only_where_it_was_given(tmp_path):
    config = load_config(made(tmp_path))
    assert "[discover]" in config.to_toml()
    path = tmp_path / "fit.toml"
    path.write_text('[data]\nsource = "rows.csv"\nfeatures = "x_*"\n', encoding="utf-8")
    assert "[discover]" not in load_config(path).to_toml()
    assert load_config(path, ["discover.n_classes=[2, 9]", "method=gce"]).discover.n_classes == [2, 9]
    assert run(["methods", "--discover"]) == 0
