"""What is worth knowing is said once, in words, and only where it is so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from anygrain.data.checks import warnings_for
from anygrain.data.config import parse_config, with_paths
from anygrain.data.dataset import Dataset, model_input, read_dataset
from anygrain.data.table import write_table

EXACT = {"kind": "Exact", "column": "y"}


def table(n: int = 40) -> dict[str, list[Any]]:
    random = np.random.default_rng(0)
    return {
        "id": [f"r{i}" for i in range(n)],
        "words": [f"some words number {i}" for i in range(n)],
        "size": random.normal(size=n).round(3).tolist(),
        "y": [("a", "b")[i % 2] for i in range(n)],
    }


def read(folder: Path, frame: dict[str, list[Any]], *labels: dict[str, Any], **data: Any) -> Dataset:
    write_table(frame, folder / "t.csv")
    data = {"source": "t.csv", "id": "id", **({"text": "words", "columns": ["size"]} | data)}
    return read_dataset(with_paths(parse_config({"data": data, "labels": list(labels)}), folder))


def test_nothing_to_say(tmp_path: Path) -> None:
    assert warnings_for(read(tmp_path, table(), EXACT)) == []


def test_few_exact_rows_and_none(tmp_path: Path) -> None:
    columns = table()
    columns["y"] = [y if i < 5 else None for i, y in enumerate(columns["y"])]
    assert warnings_for(read(tmp_path, columns, EXACT)) == ["only 5 exact rows: the interval of the accuracy is wide"]
    noisy = {"kind": "Noisy", "column": "y"}
    assert warnings_for(read(tmp_path, table(), noisy)) == [
        "no row has an exact label: accuracy cannot be measured, only how well labels are predicted"
    ]


def test_rules_that_never_vote(tmp_path: Path) -> None:
    columns = table()
    rules = {**columns, "if_long": ["a", None] * 20, "if_red": [None] * 40, "if_old": [None, "b"] * 20}
    found = warnings_for(read(tmp_path, rules, {"kind": "Rules", "columns": ["if_*"]}, columns=["size"]))
    assert [s for s in found if "abstain" in s] == ['1 rule of "if" abstains on every row: "if_red"']


def test_more_classes_than_rows(tmp_path: Path) -> None:
    columns = table(22)
    columns["y"] = [f"c{i}" for i in range(21)] + [None]
    columns["z"] = [None] * 21 + ["c99"]
    only = {"kind": "Noisy", "column": "y"}
    found = read(tmp_path, {**columns, "y": columns["y"][:20] + [None] * 2}, only)
    assert "20 classes for 20 rows with labels: more classes than rows" not in warnings_for(found)
    columns = table(40)
    columns["y"] = ["a", "b"] + [None] * 38
    config = parse_config(
        {
            "classes": ["a", "b", "c"],
            "data": {"source": "t.csv", "id": "id", "text": "words"},
            "labels": [EXACT],
        }
    )
    write_table(columns, tmp_path / "t.csv")
    assert warnings_for(read_dataset(with_paths(config, tmp_path))) == [
        "only 2 exact rows: the interval of the accuracy is wide",
        "3 classes for 2 rows with labels: more classes than rows",
        'no label at all speaks for 1 class: "c"',
    ]


def test_a_class_that_only_coarse_labels_include(tmp_path: Path) -> None:
    write_table({"fine": ["a", "b", "c"], "top": ["x", "x", "x"]}, tmp_path / "taxonomy.csv")
    columns = {**table(), "where": ["x"] * 40}
    coarse = {"kind": "Coarse", "column": "where", "taxonomy": "taxonomy.csv"}
    assert warnings_for(read(tmp_path, columns, EXACT, coarse)) == [
        'no single label names 1 class: "c"; only coarser labels include it'
    ]


def test_one_annotator(tmp_path: Path) -> None:
    columns = {**table(), "w": table()["y"]}
    crowd = {"kind": "Crowd", "columns": ["w"]}
    assert warnings_for(read(tmp_path, columns, EXACT, crowd)) == [
        '"w" has one annotator only, w: nothing tells how reliable they are'
    ]


def test_columns_that_say_nothing_or_too_much(tmp_path: Path) -> None:
    columns = {**table(), "same": ["k"] * 40, "leak": [("p", "q")[i % 2] for i in range(40)]}
    found = read(tmp_path, columns, EXACT, columns=["size", "same", "leak"])
    assert warnings_for(found) == [
        '1 column with one value only: "same"',
        'column "leak" predicts the exact label perfectly: does it come from the label?',
    ]


def test_text_that_is_an_id(tmp_path: Path) -> None:
    assert warnings_for(read(tmp_path, table(), EXACT, text="id", columns=[])) == [
        'text column "id" looks like an id: every value is one word, all are different'
    ]


def test_rows_that_repeat(tmp_path: Path) -> None:
    columns = table()
    columns["words"] = ["the same words"] * 3 + columns["words"][3:]
    found = read(tmp_path, columns, EXACT, columns=[])
    assert warnings_for(found) == ["2 rows repeat the features of another row: what is held out was partly seen"]


def test_simulated_labels_are_called_so(tmp_path: Path) -> None:
    assert warnings_for(read(tmp_path, table(), {**EXACT, "simulated": True})) == [
        'the labels of "y" are simulated: a program drew them'
    ]


def test_rows_of_a_group_stay_together(tmp_path: Path) -> None:
    columns = {**table(), "patient": [f"p{i // 4}" for i in range(40)]}
    groups = read(tmp_path, columns, EXACT, group="patient").labels.groups()
    assert len(groups.unique()) == 10
    assert bool((groups.view(10, 4) == groups.view(10, 4)[:, :1]).all())
    write_table({"a": ["r0", "r5"], "b": ["r39", "r6"], "same": ["yes", "no"]}, tmp_path / "pairs.csv")
    pairs = {"kind": "Pairs", "source": "pairs.csv", "first": "a", "second": "b", "column": "same"}
    labels = read(tmp_path, columns, EXACT, pairs, group="patient").labels
    groups = labels.groups()
    assert len(groups.unique()) == 9
    assert groups[0] == groups[39]
    part = labels[torch.tensor([0, 1, 2, 3, 36, 37, 38, 39])]
    assert len(part.groups().unique()) == 1


def test_exact_labels_of_a_group_are_held_out_together(tmp_path: Path) -> None:
    from anygrain.learn.head import Linear
    from anygrain.learn.recipe import Recipe

    columns = {**table(), "patient": [f"p{i // 4}" for i in range(40)]}
    columns["y"] = [y if i % 4 < 3 else None for i, y in enumerate(columns["y"])]
    labels = read(tmp_path, columns, EXACT, group="patient").labels
    fold = Recipe(torch.randn(40, 2), labels, lambda: Linear(2, 2)).exact_fold.view(10, 4)
    assert bool((fold[:, :3] == fold[:, :1]).all())
    assert bool((fold[:, 3] == -1).all())
    assert len(fold[:, 0].unique()) == 3


def test_columns_of_every_type_go_to_the_model(tmp_path: Path) -> None:
    columns = {**table(), "city": ["Oslo", None] * 20, "when": ["2024-01-02", "2024-03-04T05:06:07"] * 20}
    columns["size"][3] = None
    found = read(tmp_path, columns, EXACT, columns=["size", "city", "when"])
    assert (found.columns.numbers, found.columns.categories, found.columns.dates) == (["size"], ["city"], ["when"])
    frame = model_input(found.table, found.columns, found.ids)
    assert frame.columns == ["words", "size", "city", "when"]
    assert frame["size"].null_count() == 1
    assert frame["city"].null_count() == 20
    assert [str(frame[c].dtype) for c in ("size", "when")] == ["Float64", "Datetime(time_unit='us', time_zone=None)"]
    only_text = read(tmp_path, table(), EXACT, columns=[])
    assert model_input(only_text.table, only_text.columns, only_text.ids) == table()["words"]
    only_numbers = read(tmp_path, table(), EXACT, text=[], columns=[], features="size")
    assert model_input(only_numbers.table, only_numbers.columns, only_numbers.ids).shape == (40, 1)
