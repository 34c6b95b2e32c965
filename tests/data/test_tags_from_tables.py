"""Tags as tables hold them: lists in cells, 0 / 1 columns, long tables; what is known of every row, and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anygrain.data.config import parse_config, with_paths
from anygrain.data.error import InputError
from anygrain.data.table import write_table
from anygrain.data.tag_checks import warnings_for_tags
from anygrain.data.tag_dataset import TagDataset, read_tag_dataset, softened_tags

IDS = {"id": ["a", "b", "c", "d"], "x": [1, 2, 3, 4]}
LISTS = {"kind": "Tags", "column": "tags"}


def read(folder: Path, columns: dict[str, Any], *labels: dict[str, Any], **more: Any) -> TagDataset:
    text = {name: [str(cell) for cell in column] for name, column in columns.items()}
    write_table({**IDS, **text}, folder / "t.csv")
    data = {"source": "t.csv", "id": "id", "columns": ["x"], **more.pop("data", {})}
    return read_tag_dataset(with_paths(parse_config({"data": data, "labels": list(labels), **more}, "c.toml"), folder))


def refused(folder: Path, columns: dict[str, Any], *labels: dict[str, Any], **more: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(folder, columns, *labels, **more)
    said = str(caught.value)
    assert "\n" not in said
    return said


def known(dataset: TagDataset) -> dict[str, list[int]]:
    return dict(zip(dataset.tags.names, dataset.given().T.tolist(), strict=True))


def test_a_list_is_complete_and_an_empty_cell_says_nothing(tmp_path: Path) -> None:
    cells = {"tags": ["night|rain", " rain ", "", "[]"]}
    assert known(read(tmp_path, cells, LISTS)) == {"night": [1, 0, -1, 0], "rain": [1, 1, -1, 0]}
    assert known(read(tmp_path, cells, {**LISTS, "empty": "absent"})) == {"night": [1, 0, 0, 0], "rain": [1, 1, 0, 0]}
    partly = read(
        tmp_path, cells | {"not": ["", "night", "rain|night", ""]}, LISTS | {"unlisted": "unknown", "absent": "not"}
    )
    assert known(partly) == {"night": [1, 0, 0, -1], "rain": [1, 1, 0, -1]}
    found = partly.evidence[0]
    assert (found.n_labels, found.values, found.rows.tolist()) == (6, 2, [True, True, True, False])
    assert found.record_value.tolist() == ["has", "has", "lacks", "has", "lacks", "lacks", "", ""]


def test_json_lists_other_separators_aliases_and_case(tmp_path: Path) -> None:
    cells = {"tags": ['["night", "Rain"]', "wet", "n/a", "NIGHT"]}
    data = {"aliases": {"wet": "rain"}, "fold_case": True, "missing": ["N/A"]}
    found = read(tmp_path, cells, LISTS, data=data)
    assert known(found) == {"night": [1, 0, -1, 1], "Rain": [1, 1, -1, 0]}
    cells = {"tags": ["night; rain", "rain", "", "night"]}
    assert known(read(tmp_path, cells, {**LISTS, "separator": ";"})) == {"night": [1, 0, -1, 1], "rain": [1, 1, -1, 0]}
    note = read(tmp_path, cells, LISTS).notes[0]
    assert note == (
        't.csv: "|" never occurs in "tags": every cell is read as one tag; ";" stands in 1 cell: '
        '--set labels.tags.separator=";"?'
    )


def test_one_column_per_tag_with_empty_cells(tmp_path: Path) -> None:
    cells = {"is_night": ["1", "0", "", "0"], "is_rain": ["", "1.0", "", "true"]}
    columns = {"kind": "Tags", "columns": ["is_*"]}
    assert known(read(tmp_path, cells, columns)) == {"night": [1, 0, -1, 0], "rain": [-1, 1, -1, 1]}
    complete = read(tmp_path, cells, {**columns, "unlisted": "absent"})
    assert known(complete) == {"night": [1, 0, -1, 0], "rain": [0, 1, -1, 1]}
    named = read(tmp_path, cells, {**columns, "classes": ["dark", "wet"]})
    assert named.tags.names == ("dark", "wet")


def test_a_long_table(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("id,tag,has\na,night,1\na,rain,0\nd,rain,1\nd,rain,1\n")
    label = {"kind": "Tags", "source": "tags.csv", "tag": "tag"}
    assert known(read(tmp_path, {}, {**label, "value": "has"})) == {"night": [1, -1, -1, -1], "rain": [0, -1, -1, 1]}
    assert known(read(tmp_path, {}, label)) == {"night": [1, -1, -1, 0], "rain": [1, -1, -1, 1]}
    (tmp_path / "tags.csv").write_text("id,tag,has\na,night,1\na,night,0\nd,rain,1\n")
    assert refused(tmp_path, {}, {**label, "value": "has"}) == (
        'tags.csv: 1 repeated (tag, row) pair, first night on row a: "1" and "0". Keep last or first? '
        '--set labels.tags.repeats="last"'
    )
    for repeats, value in (("last", 0), ("first", 1)):
        (tmp_path / "tags.csv").write_text("id,tag,has\na,night,1\na,night,0\nd,rain,1\nb,night,1\nb,rain,0\n")
        found = read(tmp_path, {}, {**label, "value": "has", "repeats": repeats})
        assert known(found)["night"] == [value, 1, -1, -1]


def test_groups_of_tags_speak_of_their_own(tmp_path: Path) -> None:
    cells = {"weather": ["rain", "sun|rain", "", "sun"], "time": ["", "night", "day", "night"]}
    found = read(tmp_path, cells, {"kind": "Tags", "column": "weather"}, {"kind": "Tags", "column": "time"})
    assert known(found) == {
        "day": [-1, 0, 1, 0],
        "night": [-1, 1, 0, 1],
        "rain": [1, 1, -1, 0],
        "sun": [0, 1, -1, 1],
    }
    assert not found.conflicts
    assert found.labels.n_instances == 16


def test_who_contradicts_whom(tmp_path: Path) -> None:
    cells = {"ann": ["rain|night", "rain", "", "night"], "bob": ["rain", "rain|night", "rain", ""]}
    two = ({"kind": "Tags", "column": "ann"}, {"kind": "Tags", "column": "bob"})
    found = read(tmp_path, cells, *two)
    assert [(c.row, c.problem) for c in found.conflicts] == [
        ("a", 'ann says that it has "night", bob that it lacks it'),
        ("b", 'bob says that it has "night", ann that it lacks it'),
    ]
    soft = softened_tags(found)
    assert [e.error for e in soft.config.labels] == [0.2, 0.2]
    even = np.log([[0.5, 0.5]]).repeat(8, axis=0)
    import torch

    on = soft.labels.posterior(torch.from_numpy(even))[:, 1].reshape(4, 2)
    np.testing.assert_allclose(on[:2, 0], 0.5)  # of equal errors nothing is left
    np.testing.assert_allclose(on[0, 1], 0.9**2 / (0.9**2 + 0.1**2))
    one = read(tmp_path, {"tags": ["rain", "night", "", ""], "not": ["rain", "", "", ""]}, LISTS | {"absent": "not"})
    assert [(c.row, c.problem) for c in one.conflicts] == [("a", 'tags says that it has "rain", and that it lacks it')]
    assert known(softened_tags(one)) == {"night": [0, 1, -1, -1], "rain": [-1, 0, -1, -1]}


@pytest.mark.parametrize(
    ("columns", "label", "more", "said"),
    [
        (
            {"tags": ["night", "nihgt", "rain", ""]},
            LISTS,
            {"classes": ["night", "rain"]},
            't.csv: 1 value of "tags" is not in the setting classes: "nihgt" (1 row, first row b, did you '
            'mean "night"?)',
        ),
        (
            {"is_a": [1, 0, 2, ""], "is_b": [0, 1, 1, 0]},
            {"kind": "Tags", "columns": ["is_*"]},
            {},
            't.csv: 1 cell of "is_a", "is_b" is neither 0 nor 1 (first: "2" in row c of "is_a"). Expected 1 where a '
            "row has the tag, 0 where it lacks it, and an empty cell where nobody knows",
        ),
        (
            {"tags": ["night", "rain", "rain", ""]},
            LISTS,
            {"classes": ["night", "rain", "snow"]},
            't.csv: 1 tag that no row has: "snow". Nothing can be learnt of a tag without a row: remove it, or leave '
            'such tags out with --set labels.tags.unused="drop"',
        ),
        (
            {"tags": ["", "[]", "", ""]},
            LISTS,
            {"classes": ["night"]},
            "t.csv: no row has any tag, so nothing can be learnt. Expected cells that list tags, or columns that hold "
            "1 where a row has the tag",
        ),
        (
            {"tags": ["night", "rain", "rain", ""]},
            LISTS | {"unlisted": "unknown"},
            {},
            "t.csv: 3 labels say that a row has a tag, and none that it lacks one: every row would be given every tag. "
            'Expected cells of 0, a column of tags that rows lack (absent = "..."), unlisted = "absent" where lists '
            'are complete, or [learn] method = "pu_mlc" or "comic", which learn from such labels',
        ),
        (
            {"tags": ["night", '["rain"', "rain", ""]},
            LISTS,
            {},
            't.csv, "tags", row b: "["rain"" is not a JSON list',
        ),
        (
            {"tags": ["night", "rain", "rain", ""]},
            {"kind": "Tags", "column": "tags", "columns": ["x"]},
            {},
            'labels "tags" (Tags) have column and columns at once. Expected one of column = "..." (cells that list '
            'tags), columns = [...] (one 0 / 1 column per tag), and tag = "..." (a table with a row per row and tag)',
        ),
        ({"tags": ["night", "rain", "rain", ""]}, {"kind": "Tags", "column": "tagz"}, {}, 't.csv has no column "tagz"'),
        (
            {"tags": ["night", "rain", "rain", ""]},
            {"kind": "Tags", "tag": "tags"},
            {},
            'labels "tags" (Tags): "tags" names a column of a table with a row per row and tag, which is not t.csv.',
        ),
    ],
)
def test_bad_input(tmp_path: Path, columns: Any, label: dict[str, Any], more: dict[str, Any], said: str) -> None:
    assert refused(tmp_path, columns, label, **more).startswith(said)


def test_tags_without_a_row_may_be_left_out(tmp_path: Path) -> None:
    cells = {"is_a": [1, 0, 1, ""], "is_b": [0, 0, 0, 0], "is_c": [0, 1, 1, 0]}
    found = read(tmp_path, cells, {"kind": "Tags", "columns": ["is_*"], "unused": "drop"})
    assert found.tags.names == ("a", "c")
    assert found.notes == ['t.csv: 1 tag that no row has: "b"; left out.']


@pytest.mark.parametrize(
    ("labels", "more", "said"),
    [
        (
            [LISTS, {"kind": "Exact", "column": "y"}],
            {},
            'c.toml: labels "tags" (Tags) speak of tags, "y" (Exact) of classes. Expected one of the two; fit the '
            "other with a configuration of its own.",
        ),
        (
            [LISTS, {"kind": "Value", "column": "y"}],
            {},
            'c.toml: labels "y" (Value) speak of a number, "tags" (Tags) of tags. Expected one of the two; fit the '
            "other with a configuration of its own.",
        ),
        (
            [{"kind": "Candidates", "column": "y"}, LISTS],
            {},
            'c.toml: labels "tags" (Tags) speak of tags, "y" (Candidates) of classes. Expected one of the two; fit the '
            'other with a configuration of its own. May a row of "y" have several of them? kind = "Tags"',
        ),
        ([LISTS], {"taxonomy": "t.csv"}, 'c.toml: taxonomy is for labels of classes, and "tags" lists tags. Remove it'),
        (
            [LISTS],
            {"learn": {"head": "cosine"}},
            'c.toml: learn.head "cosine" is for classes, and the labels speak of tags. Expected "linear"',
        ),
    ],
)
def test_tags_do_not_mix(labels: list[dict[str, Any]], more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_config({"data": {"source": "t.csv"}, "labels": labels, **more}, "c.toml")
    assert str(caught.value) == said


def test_what_is_worth_knowing(tmp_path: Path) -> None:
    n = 60
    tags = ["night|rain" if i % 2 else "rain" for i in range(n)]
    tags[0] = "nihgt"
    table = {"id": [f"r{i}" for i in range(n)], "x": list(range(n)), "flag": [i % 2 for i in range(n)], "tags": tags}
    write_table(table, tmp_path / "t.csv")
    raw = {"data": {"source": "t.csv", "id": "id", "columns": ["x", "flag"]}, "labels": [LISTS]}
    said = warnings_for_tags(read_tag_dataset(with_paths(parse_config(raw), tmp_path)))
    assert said[:2] == [
        '1 tag stands on fewer than 5 rows, little can be learnt of them: "nihgt" (1 row)',
        'tags that may be misspelt: "nihgt" (1 row) for "night". Other spellings: [data] aliases, fold_case',
    ]
    assert 'column "flag" is the tag "night": does it come from the label?' in said
    cells = {"is_a": [1, 0, 1, ""], "is_b": [1, 1, "", ""]}
    told = warnings_for_tags(read(tmp_path, cells, {"kind": "Tags", "columns": ["is_*"]}))
    assert 'nothing says that any row lacks 1 tag, so every row will be given it: "b"' in told
