"""Input as it comes from spreadsheets and other programs: read where it can be meant one way only, else refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from anygrain.cli import run
from anygrain.data.table import read_table

CONFIG = """
[data]
source = "t.csv"
id = "id"
columns = ["x", "z"]
[[labels]]
kind = "Exact"
column = "y"
"""
LINES = [f"{i:03d},{i % 7},{i % 3},{'ab'[i % 2]}" for i in range(24)]
TABLE = "id,x,z,y\n" + "\n".join(LINES) + "\n"
DRY = ["fit", "c.toml", "--out", "r", "--dry-run"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text(CONFIG)
    (tmp_path / "t.csv").write_text(TABLE)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int = 0) -> str:
    """What a command says: its output, or its one line of error."""
    capsys.readouterr()
    before = sorted(os.listdir())
    assert run(arguments) == code
    found = capsys.readouterr()
    if code:
        assert sorted(os.listdir()) == before
        assert found.err.count("\n") == 1
        return found.err.rstrip("\n")
    return found.out


def test_byte_order_marks_carriage_returns_and_semicolons(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "c.toml").write_bytes(b"\xef\xbb\xbf" + CONFIG.replace("\n", "\r\n").encode())
    (here / "t.csv").write_bytes(b"\xef\xbb\xbf" + TABLE.replace(",", " ;").replace("\n", "\r\n").encode())
    out = said(capsys, DRY)
    assert "24 rows · 2 classes" in out
    assert 'columns = ["x", "z"]' in out  # the configuration as it was filled
    assert "neighbours = 10" in out
    assert not (here / "r").exists()


@pytest.mark.parametrize(("encoding", "name"), [("cp1252", "Windows-1252 (Latin-1)"), ("utf-16", "UTF-16")])
def test_other_encodings_are_named(here: Path, capsys: pytest.CaptureFixture[str], encoding: str, name: str) -> None:
    (here / "t.csv").write_bytes(TABLE.replace("a", "ä").encode(encoding))
    line = (
        f"t.csv is not UTF-8; it looks like {name}. Save it as UTF-8 (CSV UTF-8 in a spreadsheet), or: "
        f"iconv -f {encoding} -t utf-8 t.csv > new.csv"
    )
    assert said(capsys, DRY, 2) == line
    assert said(capsys, ["init", "t.csv"], 2) == line
    (here / "t.csv").write_text(TABLE)
    (here / "tax.csv").write_bytes("y,over\na,ü\nb,ö\n".encode(encoding))
    assert said(capsys, [*DRY, "--set", "taxonomy=tax.csv"], 2).startswith("tax.csv is not UTF-8; it looks like ")


def test_decimal_commas(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "t.csv").write_text("id;x;z;y\n" + "\n".join(f"{i};{i},5;{i};{'ab'[i % 2]}" for i in range(24)))
    assert said(capsys, DRY, 2) == (
        't.csv: "x" holds numbers with commas (first: "0,5"). Write decimal points and no separators of thousands'
    )
    assert said(capsys, [*DRY, "--set", "data.columns=[]", "--set", "data.features=x"], 2).endswith(
        '(first: "0,5" in row 0). Write decimal points, not commas'
    )
    assert "numbers with commas: write decimal points" in said(capsys, ["init", "t.csv"])
    assert "x" not in read_toml(here / "t.toml")["data"]["columns"]


def read_toml(path: Path) -> dict:
    import tomllib

    return tomllib.loads(path.read_text())


def test_all_missing_columns_are_named_at_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "c.toml").write_text(CONFIG.replace('"x", "z"', '"w", "z"').replace('column = "y"', 'column = "yy"'))
    assert said(capsys, DRY, 2) == 't.csv has no columns "w", "yy". Columns: id, x, z, ... (1 more)'


def test_places_that_cannot_be_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "file").write_text("")
    line = f"{here / 'file'} is a file, so file/r cannot be written. Choose another --out"
    assert said(capsys, ["fit", "c.toml", "--out", "file/r"], 2) == line
    assert said(capsys, ["fit", str(here), "--out", "r"], 2).endswith("Did you mean " + str(here / "c.toml") + "?")


@pytest.mark.parametrize("labels", ["labels = [1]\n", 'labels = "y"\n'])
def test_labels_that_are_no_tables(here: Path, capsys: pytest.CaptureFixture[str], labels: str) -> None:
    (here / "c.toml").write_text(labels + CONFIG.split("[[labels]]")[0])
    assert said(capsys, DRY, 2) == (
        'c.toml line 1: labels is no list of tables. Expected [[labels]] with kind = "Exact" and column = "..."'
    )


def test_ids_that_another_program_wrote_as_floats(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "t.csv").write_text(TABLE.replace("\n0", "\n1"))
    (here / "gold.csv").write_text("id,y\n103.0,a\n104.0,b\n")
    gold = ["--set", "labels.source=gold.csv"]
    out = said(capsys, [*DRY, *gold])
    assert 'gold.csv, "id": 2 ids such as "103.0" are read as "103".' in out
    (here / "gold.csv").write_text("key,y\n103,a\n")
    assert said(capsys, [*DRY, *gold], 2) == (
        'gold.csv has no column "id" to join its labels to rows by. Say which one it is: --set labels.gold.id=... with '
        'one of "key", "y"'
    )


def test_percent_are_recognised(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "bags.csv").write_text("z,s_a,s_b\n0,50,50\n1,50,50\n2,50,50\n")
    kind = '[[labels]]\nkind = "Proportions"\nsource = "bags.csv"\ncolumns = ["s_*"]\n'
    (here / "c.toml").write_text(CONFIG.split("[[labels]]")[0] + 'bag = "z"\n' + kind)
    assert said(capsys, DRY, 2).endswith("Are these percent? --set labels.bags.normalize=true")
    out = said(capsys, [*DRY, "--set", "labels.bags.normalize=true"])
    assert 'bag column "z" is an input as well' in out


def test_a_table_that_says_nothing_still_gets_a_report(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "t.csv").write_text("id,x,z,y\n" + "\n".join(f"{i},1,2,{'ab'[i % 2]}" for i in range(24)))
    out = said(capsys, ["fit", "c.toml", "--out", "r"])
    assert '2 columns with one value only: "x", "z"' in out
    metrics = json.loads((here / "r/metrics.json").read_text())
    assert metrics["suspects"] == 0
    assert (here / "r/report.html").is_file()
    out = said(capsys, ["predict", "r", "t.csv", "--out", "new.csv"])
    assert "24 rows stand in the training table as well" in out
    assert len(read_table("new.csv")) == 24
