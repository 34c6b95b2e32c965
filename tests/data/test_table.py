"""Tables come back as they were written, whatever the format, and what cannot be read says why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from anygrain.data.error import InputError
from anygrain.data.table import as_table, read_table, write_table

COLUMNS = {"id": ["007", "8", "9"], "text": ["a, b", 'say "no"\nplease', None], "n": [1.0, None, 2.5]}


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".jsonl", ".arrow", ".feather"])
def test_round_trip(tmp_path: Path, ending: str) -> None:
    write_table(COLUMNS, tmp_path / f"t{ending}")
    table = read_table(tmp_path / f"t{ending}")
    assert table.columns == ["id", "text", "n"]
    assert table.strings("id").tolist() == ["007", "8", "9"]
    assert table.strings("text").tolist() == ["a, b", 'say "no"\nplease', ""]
    np.testing.assert_array_equal(table.numbers("n"), [1.0, np.nan, 2.5])
    assert not (tmp_path / f"t{ending}.part").exists()


def test_lists_survive_in_parquet_and_as_json_in_csv(tmp_path: Path) -> None:
    for ending in (".parquet", ".csv"):
        write_table({"c": [["a", "b"], []]}, tmp_path / f"t{ending}")
        assert read_table(tmp_path / f"t{ending}").strings("c").tolist() == ['["a", "b"]', "[]"]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table, dict])
def test_any_data_frame(make: object) -> None:
    table = as_table(make({"a": [1, 2], "b": ["x", None]}))  # type: ignore[operator]
    assert table.strings("a").tolist() == ["1", "2"]
    assert table.strings("b").tolist() == ["x", ""]


def test_cells_as_strings(tmp_path: Path) -> None:
    columns = {
        "whole": pa.array([3.0, None, float("nan")]),
        "date": pa.array([0, 1, None], pa.date32()),
        "yes": pa.array([True, False, None]),
        "kind": pa.array(["x", "NA", " y "]).dictionary_encode(),
    }
    write_table(columns, tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert table.strings("whole").tolist() == ["3", "", ""]
    assert table.strings("date").tolist() == ["1970-01-01", "1970-01-02", ""]
    assert table.strings("yes").tolist() == ["True", "False", ""]
    assert table.strings("kind").tolist() == ["x", "", "y"]
    np.testing.assert_array_equal(table.numbers("yes"), [1.0, 0.0, np.nan])


def test_separators_and_byte_order_marks(tmp_path: Path) -> None:
    (tmp_path / "semicolon.csv").write_text("\ufeffid;text\n1;a, b\n", encoding="utf-8")
    table = read_table(tmp_path / "semicolon.csv")
    assert table.columns == ["id", "text"]
    assert table.strings("text").tolist() == ["a, b"]


def test_patterns(tmp_path: Path) -> None:
    table = as_table({"e_2": [1], "x": [1], "e_1": [1]})
    assert table.matching(["x", "e_*"]) == ["x", "e_2", "e_1"]
    with pytest.raises(InputError, match='no column that matches "f_\\*"'):
        table.matching(["f_*"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "t.csv is empty. Expected a header and at least one row"),
        ("t.csv", b"a,b\n", "t.csv is empty. Expected a header and at least one row"),
        (
            "t.csv",
            b"a,b\n1,2\n1,2,3\n1\n",
            "t.csv: 2 rows without the 2 cells of the header (first: line 3 has 3). Quote cells that hold a separator",
        ),
        (
            "t.csv",
            b"a,b\n\xe9,1\n",
            "t.csv is not UTF-8; it looks like Windows-1252 (Latin-1). Save it as UTF-8 (CSV UTF-8 in a "
            "spreadsheet), or: iconv -f cp1252 -t utf-8 t.csv > new.csv",
        ),
        ("t.csv", b"a,a\n1,2\n", 't.csv has 1 column name more than once: "a". Rename them'),
        ("t.jsonl", b'{"a": 1}\nnot json\n', "t.jsonl line 2 is not JSON: Expecting value"),
        (
            "t.xlsx",
            b"PK",
            "t.xlsx is not a table that can be read. Expected one of .csv, .tsv, .parquet, .jsonl, .ndjson, .json, "
            ".arrow, .feather. Save the sheet as CSV",
        ),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_table(tmp_path / name)
    assert str(caught.value) == message


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"t\.parquet cannot be read as parquet"):
        read_table(tmp_path / "t.parquet")


def test_a_missing_file_has_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "tickets.csv").write_text("a\n1\n")
    with pytest.raises(InputError) as caught:
        read_table(tmp_path / "ticket.csv")
    assert str(caught.value) == f'There is no file {tmp_path}/ticket.csv. Did you mean "tickets.csv"?'


def test_numbers_that_are_none() -> None:
    with pytest.raises(InputError) as caught:
        as_table({"n": ["1", "x", "y"]}, "t.csv").numbers("n")
    assert str(caught.value) == 't.csv: 2 values of "n" are not numbers (first: "x" in row 2)'
