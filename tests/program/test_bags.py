"""Bags in the program: as rows, in files and lists; as sets of rows; both units predicted; bad input named."""

import csv
import json
import tomllib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from anygrain.cli import run
from anygrain.data.table import write_table

M = 40
ROWS = '[data]\nsource = "slides.csv"\nid = "slide"\ninstances = "features"\n[[labels]]\nkind = "Exact"\ncolumn = "y"\n'
INSTANCES = """
classes = ["rest", "cell"]
[data]
source = "tiles.csv"
id = "tile"
features = "f*"
bag = "slide"
[[labels]]
kind = "AnyOf"
source = "answers.csv"
bag = "slide"
column = "has"
target = "cell"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides of 4 to 9 tiles on a grid; in every second slide two tiles stand out."""
    here, random = tmp_path_factory.mktemp("bags"), np.random.default_rng(0)
    (here / "features").mkdir()
    tiles: list[np.ndarray] = []
    for m in range(M):
        x = random.normal(size=(random.integers(4, 10), 3)).astype(np.float32)
        if m % 2:
            x[:2, 0] += 5
        tiles.append(x)
        at = np.arange(len(x))
        np.savez(here / "features" / f"s{m}.npz", features=x, coords=np.stack([at % 3, at // 3], axis=1) * 256)
    names = [f"s{m}" for m in range(M)]
    of = [name for name, x in zip(names, tiles, strict=True) for _ in x]
    everything = np.concatenate(tiles)
    write_table({"slide": names, "y": [["clean", "ill"][m % 2] for m in range(M)]}, here / "slides.csv")
    columns = {f"f{j}": everything[:, j] for j in range(3)}
    places = np.concatenate([np.arange(len(x)) for x in tiles])
    columns |= {"left": places % 3, "top": places // 3}
    write_table({"tile": [f"t{i}" for i in range(len(of))], "slide": of, **columns}, here / "tiles.csv")
    cells, sizes = [2 * (m % 2) for m in range(M)], [len(x) for x in tiles]
    rest = [size - many for size, many in zip(sizes, cells, strict=True)]
    answers = {"slide": names, "has": [m % 2 for m in range(M)], "cells": cells, "rest": rest}
    write_table(answers, here / "answers.csv")
    lists = {"slide": names, "y": [["clean", "ill"][m % 2] for m in range(M)], "features": [x.tolist() for x in tiles]}
    parquet.write_table(pa.table(lists), here / "slides.parquet")
    (here / "rows.toml").write_text(ROWS)
    (here / "instances.toml").write_text(INSTANCES)
    return here


@pytest.fixture(autouse=True)
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def bag_run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "r"
    assert run(["fit", str(folder / "rows.toml"), "--out", str(out)]) == 0
    return out


def test_rows_that_are_bags(bag_run, tmp_path):
    metrics = json.loads((bag_run / "metrics.json").read_text())
    assert metrics["data"]["encoder"].startswith("bags")
    assert metrics["evaluation"]["entries"][0]["accuracy"] > 0.9
    shown = metrics["bags"]
    assert (shown["unit"], shown["bags"]) == ("set", M)
    ill = next(b for b in shown["entries"] if b["class"] == "ill" and b["given"] == "ill")
    assert {i["instance"] for i in ill["strongest"][:2]} == {"0", "1"}  # those that stand out
    assert len(ill["score"]) == len(ill["coords"]) == ill["instances"]
    page = (bag_run / "report.html").read_text(encoding="utf-8")
    assert "Bags and their instances" in page
    assert page.count('class="heat"') == sum(len(b["score"]) for b in shown["entries"])
    out = tmp_path / "p.csv"
    assert run(["predict", str(bag_run), "slides.csv", "--out", str(out)]) == 0
    assert np.mean([row["class"] == ("ill" if int(row["slide"][1:]) % 2 else "clean") for row in table(out)]) > 0.9


def test_instances_of_rows_that_are_bags(bag_run, tmp_path):
    out = tmp_path / "p.csv"
    assert run(["predict", str(bag_run), "slides.csv", "--unit", "instance", "--out", str(out)]) == 0
    rows = [row for row in table(out) if row["slide"] == "s1"]
    assert [int(row["instance"]) for row in rows] == list(range(len(rows)))
    assert (float(rows[4]["x"]), float(rows[4]["y"])) == (256, 256)
    chance = [float(row["p_ill"]) for row in rows]
    assert min(chance[:2]) > max(chance[2:])


def test_what_is_wrong_with_bags_shows_in_an_audit(bag_run, tmp_path):
    assert run(["audit", str(bag_run), "--out", str(tmp_path / "audit")]) == 0
    assert json.loads((tmp_path / "audit" / "audit.json").read_text())["rows"] == M


def test_init_finds_files_named_by_an_id(folder, tmp_path, monkeypatch):
    """A folder of coordinates alone, as slide tools write it beside the features, is passed over."""
    place = tmp_path / "study"
    for name in ("out/patches", "out/features"):
        (place / name).mkdir(parents=True)
    for m in range(M):
        (place / "out" / "features" / f"s{m}.npz").write_bytes((folder / "features" / f"s{m}.npz").read_bytes())
        np.savez(place / "out" / "patches" / f"s{m}.npz", coords=np.zeros((3, 2)))
    rows = {"case": [f"c{m // 2}" for m in range(M)], "slide": [f"s{m}" for m in range(M)], "y": ["a", "b"] * (M // 2)}
    write_table(rows, place / "table.csv")
    monkeypatch.chdir(place)
    assert run(["init", "table.csv"]) == 0
    data = tomllib.loads((place / "table.toml").read_text())["data"]
    assert data == {"source": "table.csv", "id": "slide", "instances": "out/features"}
    assert run(["check", "table.toml"]) == 0


def test_init_finds_lists_and_places(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["init", str(folder / "slides.parquet"), "--out", "lists.toml", "--column", "slide=id"]) == 0
    data = tomllib.loads((tmp_path / "lists.toml").read_text())["data"]
    assert (data["id"], data["instances"]) == ("slide", "features")
    n = 12
    tiles = {"tile": [f"t{i}" for i in range(n)], "slide": [f"s{i // 3}" for i in range(n)], "stain": range(n)}
    tiles |= {"x": np.arange(n) % 3, "y": np.arange(n) // 3, "label": ["a", "b"] * (n // 2)}
    write_table({name: list(values) for name, values in tiles.items()}, tmp_path / "tiles.csv")
    assert run(["init", "tiles.csv"]) == 0
    data = tomllib.loads((tmp_path / "tiles.toml").read_text())["data"]
    assert (data["bag"], data["coords"]) == ("slide", ["x", "y"])
    assert data["columns"] == ["stain"]


def test_a_network_of_bags_in_lists(folder, tmp_path):
    settings = ["data.source='slides.parquet'", "data.instances='features'", "encoder.bags='attention'"]
    (folder / "lists").mkdir(exist_ok=True)  # so that "features" is the column, not the folder
    (folder / "lists" / "c.toml").write_text(ROWS)
    (folder / "lists" / "slides.parquet").write_bytes((folder / "slides.parquet").read_bytes())
    sets = [part for s in [*settings, "learn.epochs=25", "learn.learning_rate=0.01"] for part in ("--set", s)]
    out = tmp_path / "r"
    assert run(["fit", str(folder / "lists" / "c.toml"), "--out", str(out), *sets]) == 0
    entry = json.loads((out / "metrics.json").read_text())["bags"]["entries"][0]
    assert sum(entry["attention"]) == pytest.approx(1, abs=1e-2)
    assert entry["coords"] is None


def test_sets_of_rows(folder, tmp_path):
    out, predicted = tmp_path / "r", tmp_path / "p.csv"
    assert run(["fit", "instances.toml", "--out", str(out), "--set", 'data.coords=["left", "top"]']) == 0
    shown = json.loads((out / "metrics.json").read_text())["bags"]
    assert shown["unit"] == "instance"
    assert shown["questions"][0]["accuracy"] > 0.9
    assert "t" in shown["entries"][0]["strongest"][0]["instance"]
    assert shown["entries"][0]["coords"][4] == [1, 1]
    assert "is not measured" in shown["note"]
    assert (shown["warning"] is None) == shown["questions"][0]["trusted"]
    assert run(["predict", str(out), "tiles.csv", "--unit", "set", "--out", str(predicted)]) == 0
    rows = table(predicted)
    assert len(rows) == M
    assert np.mean([(float(r["AnyOf_present"]) > 0.5) == (int(r["slide"][1:]) % 2 == 1) for r in rows]) > 0.9
    assert sum(int(r["rows"]) for r in rows) == len(table(folder / "tiles.csv"))


def counted_bags(folder: Path) -> list[str]:
    """Settings that make the labels counts."""
    counts = INSTANCES.replace('"AnyOf"', '"Counts"').replace('column = "has"\ntarget = "cell"', "")
    (folder / "counts.toml").write_text(counts + 'columns = ["rest", "cells"]\nclasses = ["rest", "cell"]\n')
    return ["fit", "counts.toml"]


def test_counts_of_rows(folder, tmp_path, capsys):
    out = tmp_path / "r"
    assert run([*counted_bags(folder), "--out", str(out)]) == 0
    assert "off by" in capsys.readouterr().out
    shown = json.loads((out / "metrics.json").read_text())["bags"]
    asked = shown["questions"][0]
    expected, given, half = np.array(asked["points"]).T
    assert len(given) == 2 * M  # a point per class and bag
    assert given.sum() == len(table(folder / "tiles.csv"))
    assert asked["error"] == pytest.approx(np.abs(expected - given).mean(), rel=1e-3)
    assert asked["error"] < 0.5 * asked["error_of_means"]
    assert asked["inside"] == pytest.approx((np.abs(expected - given) <= half).mean(), abs=0.02)
    assert {bag["of"] for bag in shown["entries"]} == {"cell"}  # the class that few instances are of
    assert "Do instances add up to what bags hold?" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.coords=['left']"], "data.coords names 1 column. Expected two"),
        (["data.coords=['left', 'high']"], 'tiles.csv has no column "high"'),
        (["data.coords=['left', 'tile']"], 'values of "tile" are not numbers'),
        (["data.coords=['left', 'top']", "data.bag=''"], "data.coords needs data.bag"),
    ],
)
def test_bad_places_are_one_line(settings, message, capsys, tmp_path):
    sets = [part for s in settings for part in ("--set", s)]
    assert run(["fit", "instances.toml", "--out", str(tmp_path / "r"), *sets]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_what_labels_of_bags_leave_out_is_said_before_work_starts(folder, tmp_path, capsys):
    (tmp_path / "tiles.csv").write_bytes((folder / "tiles.csv").read_bytes())
    (tmp_path / "c.toml").write_text(INSTANCES)
    names = [f"s{m}" for m in range(M)]
    write_table({"slide": names, "has": [int(m == 3) for m in range(M)]}, tmp_path / "answers.csv")
    assert run(["check", str(tmp_path / "c.toml")]) == 0
    assert 'only 1 bag is answered by "present", fewer than' in capsys.readouterr().out
    write_table({"slide": names, "value": [1] * (M - 1) + [99]}, tmp_path / "answers.csv")
    values = INSTANCES.replace('"AnyOf"', '"Aggregate"').replace('column = "has"\ntarget = "cell"', 'column = "value"')
    (tmp_path / "c.toml").write_text(values + "values = { rest = 0, cell = 1 }\n")
    assert run(["fit", str(tmp_path / "c.toml"), "--out", str(tmp_path / "r")]) == 2
    assert f'answers.csv, bag "s{M - 1}": the sum 99 lies outside' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.instances='featurs'"], 'data.instances is "featurs": no folder, no file, and no column'),
        (["data.text=['y']"], "Bags are read alone"),
        (["data.id=''"], "data.instances joins bags by the row id"),
        (["encoder.bags='atention'"], 'encoder.bags is "atention". Did you mean "attention"?'),
    ],
)
def test_bad_settings_are_one_line(settings, message, capsys, tmp_path):
    sets = [part for s in settings for part in ("--set", s)]
    assert run(["fit", "rows.toml", "--out", str(tmp_path / "r"), *sets]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_bad_bags_are_named_before_work_starts(folder, tmp_path, capsys):
    other = tmp_path / "other"
    (other / "features").mkdir(parents=True)
    for m in range(M):
        (other / "features" / f"s{m}.npz").write_bytes((folder / "features" / f"s{m}.npz").read_bytes())
    (other / "rows.toml").write_text(ROWS)
    (other / "slides.csv").write_bytes((folder / "slides.csv").read_bytes())
    path = other / "features" / "s7.npz"

    def said() -> str:
        assert run(["fit", str(other / "rows.toml"), "--out", str(tmp_path / "r")]) == 2
        assert not (tmp_path / "r").exists()
        return capsys.readouterr().err

    np.savez(path, features=np.zeros((3, 4), dtype=np.float32), coords=np.zeros((3, 2)))
    assert "s7.npz has 4 features" in said()
    np.savez(path, features=np.zeros((0, 3), dtype=np.float32), coords=np.zeros((0, 2)))
    assert "s7.npz has no instance" in said()
    np.savez(path, features=np.zeros((3, 3), dtype=np.float32), coords=np.zeros((2, 2)))
    assert "s7.npz: coordinates have shape (2, 2). Expected (3, 2)" in said()
    path.write_bytes(path.read_bytes()[:100])
    assert "s7.npz: cannot be read, truncated" in said()
    path.unlink()
    assert "no file for 1 bag: s7" in said()


def test_units_that_a_run_does_not_have(bag_run, tmp_path, capsys):
    for unit, message in (("set", "Here rows are bags"), ("bag", "Expected one of row, instance, set")):
        assert run(["predict", str(bag_run), "slides.csv", "--unit", unit, "--out", str(tmp_path / "p.csv")]) == 2
        assert message in capsys.readouterr().err
