"""What columns are, guessed from their values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anygrain.data.config import parse_config
from anygrain.data.error import InputError
from anygrain.data.table import write_table
from anygrain.demo import DEMOS, copy_demo, simulated_columns
from anygrain.program.guess import guess


def test_the_shipped_tickets(tmp_path: Path) -> None:
    copy_demo("tickets", tmp_path)
    found = guess(
        tmp_path / "tickets.csv",
        tmp_path / "taxonomy.csv",
        simulated=simulated_columns(tmp_path / "tickets.csv"),
    )
    assert [(r.columns, r.read_as, r.evidence) for r in found.rows] == [
        ("id", "row id", ""),
        ("text", "input text", "encoder: hashed tf-idf (no download)"),
        ("department", "Coarse", "1 200 of 1 200"),
        ("worker_1..3", "Crowd", "1 371 votes on 702 rows"),
        ("product", "Exact", "60 of 1 200"),
    ]
    assert [label["kind"] for label in found.settings["labels"]] == ["Coarse", "Crowd", "Exact"]
    assert found.settings["labels"][1]["simulated"] is True
    assert found.notes == ["the labels of worker_1, worker_2, worker_3 are simulated: a program drew them"]
    parse_config(found.settings)


def test_a_changed_copy_of_the_tickets_is_not_called_simulated(tmp_path: Path) -> None:
    copy_demo("tickets", tmp_path)
    path = tmp_path / DEMOS["tickets"][0]
    path.write_text(path.read_text() + "9999,hello there,work,,,,\n")
    assert simulated_columns(path) == ()


def rows(n: int = 60) -> dict[str, list[object]]:
    random = np.random.default_rng(0)
    words = ["screen", "router", "no", "internet", "black", "since", "noon", "cable"]
    return {
        "ticket_id": [f"t{i}" for i in range(n)],
        "text": [" ".join(random.choice(words, 6)) + f" {i}" for i in range(n)],
        "age": [round(float(v), 3) for v in random.normal(40, 9, n)],
        "city": [str(v) for v in random.choice(["Oslo", "Rome"], n)],
        "when": [f"2024-01-{1 + i % 28:02d}" for i in range(n)],
        "always": ["x"] * n,
        "split": ["train", "test"] * (n // 2),
        "p_a": [0.25] * n,
        "p_b": [0.75] * n,
        "maybe": ["a|b"] * n,
        "label": [("a", "b", None)[i % 3] for i in range(n)],
    }


def test_a_plain_table(tmp_path: Path) -> None:
    write_table(rows(), tmp_path / "t.csv")
    found = guess(tmp_path / "t.csv")
    assert {r.columns: r.read_as for r in found.rows} == {
        "ticket_id": "row id",
        "text": "input text",
        "age": "input number",
        "city": "input category",
        "when": "input date",
        "always": "not read",
        "split": "not read",
        "p_*": "Soft",
        "maybe": "not read",
        "label": "Exact",
    }
    assert found.settings["data"]["columns"] == ["age", "city", "when"]


def test_what_the_user_says_comes_first(tmp_path: Path) -> None:
    write_table(rows(), tmp_path / "t.csv")
    found = guess(tmp_path / "t.csv", given=["label=Noisy", "city=skip", "maybe=Candidates"])
    kinds = {label.get("column"): label["kind"] for label in found.settings["labels"]}
    assert kinds["label"] == "Noisy"
    assert kinds["maybe"] == "Candidates"
    assert found.settings["data"]["columns"] == ["age", "when"]


def test_sets_of_leaves_are_candidates(tmp_path: Path) -> None:
    write_table(rows(), tmp_path / "t.csv")
    write_table({"fine": ["a", "b"], "coarse": ["top", "top"]}, tmp_path / "taxonomy.csv")
    found = guess(tmp_path / "t.csv", tmp_path / "taxonomy.csv")
    assert {r.columns: r.read_as for r in found.rows}["maybe"] == "Candidates"


def test_embeddings_are_features(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table: dict[str, object] = {f"e_{i}": random.normal(size=20).tolist() for i in range(16)}
    write_table({**table, "class": ["a", "b"] * 10}, tmp_path / "t.parquet")
    found = guess(tmp_path / "t.parquet")
    assert found.settings["data"]["features"] == ["e_*"]
    assert found.settings["labels"] == [{"kind": "Exact", "column": "class"}]


def test_no_label_is_an_error_that_says_what_to_type(tmp_path: Path) -> None:
    table = rows()
    for column in ("label", "p_a", "p_b", "maybe"):
        del table[column]
    write_table(table, tmp_path / "t.csv")
    with pytest.raises(InputError) as caught:
        guess(tmp_path / "t.csv")
    assert str(caught.value) == (
        "t.csv: no column looks like a label. Say which one is, such as --column when=Exact, or --target when "
        "(columns that could be: city, when). Kinds of label: anygrain labels"
    )
    with pytest.raises(InputError) as caught:
        guess(tmp_path / "t.csv", given=["city=Exactly"])
    assert str(caught.value).startswith('--column city=Exactly: "Exactly" is not known. Did you mean "Exact"?')


def test_a_table_of_votes_is_not_a_table_of_rows(tmp_path: Path) -> None:
    lines = [f"i{n},w{w},{'ab'[(n + w) % 2]}" for n in range(20) for w in range(3)]
    (tmp_path / "votes.csv").write_text("item,worker,label\n" + "\n".join(lines) + "\n")
    with pytest.raises(InputError) as caught:
        guess(tmp_path / "votes.csv")
    assert str(caught.value) == (
        'votes.csv looks like a table of votes ("item" repeats, "worker" gave them). Expected the table of the rows '
        'themselves; name the votes in its configuration: [[labels]] kind = "Crowd", source = "votes.csv", item = '
        '"item", annotator = "worker", vote = "label"'
    )


def test_lists_and_bytes_are_neither_labels_nor_text(tmp_path: Path) -> None:
    n = 40
    columns = {
        "text": [f"some words about thing number {i}" for i in range(n)],
        "label": ["ab"[i % 2] for i in range(n)],
        "weak_labels": [[i % 2, -1] for i in range(n)],
        "picture": [b"a b c d e" * (i + 1) for i in range(n)],
        "json": [f'{{"a b c d e": {i}}}' for i in range(n)],
    }
    write_table(columns, tmp_path / "t.parquet")
    found = guess(tmp_path / "t.parquet")
    assert [(row.columns, row.read_as) for row in found.rows] == [
        ("text", "input text"),
        ("label", "Exact"),
        ("weak_labels", "not read"),
        ("picture", "not read"),
        ("json", "not read"),
    ]
