"""What to ask of numbers and tags: tasks for every tool, answers that come back as labels, refusals in one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anygrain.cli import run
from anygrain.data.table import write_table

FAST = '[learn]\nhead = "gaussian"\n[output]\nreport = false\nmap = false\n'
NUMBERS = '[data]\nsource = "rows.csv"\nid = "id"\ncolumns = ["x_*"]\n'
GOLD = '[[labels]]\nkind = "Value"\nsource = "gold.csv"\ncolumn = "y"\n'
STARS = '[[labels]]\nkind = "Ratings"\nsource = "stars.csv"\ncolumns = ["r_*"]\n'
TAGGED = (
    NUMBERS
    + '[[labels]]\nkind = "Tags"\nsource = "tags.csv"\ncolumns = ["is_*"]\n[output]\nreport = false\nmap = false\n'
)
N = 80


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 rows; a number known of 40, stars of a careful and a careless rater on 50, three tags known of 40."""
    path = tmp_path_factory.mktemp("ask_numbers")
    random = np.random.default_rng(0)
    x = random.normal(size=(N, 3))
    y = x @ np.array([2.0, -1.0, 0.5]) + 0.3 * random.normal(size=N)
    ids = [f"r{i}" for i in range(N)]
    write_table({"id": ids, **{f"x_{j}": x[:, j].tolist() for j in range(3)}}, path / "rows.csv")
    write_table({"id": ids[:40], "y": y[:40].tolist()}, path / "gold.csv")
    truth = np.clip(np.round(3 + y), 1, 5)
    careless = np.clip(np.round(3 + 1.2 * random.normal(size=N)), 1, 5)
    stars = {"r_anna": truth, "r_bob": careless}
    write_table(
        {"id": ids, **{k: [int(v[i]) if i < 50 else None for i in range(N)] for k, v in stars.items()}},
        path / "stars.csv",
    )
    on = (x + 0.2 * random.normal(size=x.shape) > 0).astype(int)
    write_table(
        {"id": ids, **{f"is_{t}": [int(on[i, j]) if i < 40 else None for i in range(N)] for j, t in enumerate("abc")}},
        path / "tags.csv",
    )
    write_table({"id": ids, "y": y.tolist(), **{t: on[:, j].tolist() for j, t in enumerate("abc")}}, path / "truth.csv")
    for name, text in (("gold", NUMBERS + GOLD + FAST), ("stars", NUMBERS + STARS + FAST), ("tags", TAGGED)):
        (path / f"{name}.toml").write_text(text, encoding="utf-8")
        assert run(["fit", str(path / f"{name}.toml"), "--out", str(path / name)]) == 0
    return path


def read(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def ask(folder: Path, of: str, name: str, *more: str) -> Path:
    assert run(["ask", str(folder / of), "--out", str(folder / name), "--overwrite", *more]) == 0
    return folder / name


def answered(path: Path, tool: str, results: Any) -> Path:
    """Tasks answered as the tool would export them; `results` gives the result of a task."""
    written = json.loads(path.read_text(encoding="utf-8"))
    for at, task in enumerate(written):
        if tool == "argilla":
            (question, _), value = next(iter(task["suggestions"].items())), results(task["metadata"])
            task["responses"] = {question: [{"value": value, "user_id": "carl"}]}
        else:
            task.pop("predictions", None)
            task["id"], task["annotations"] = at, [{"completed_by": "carl", "result": results(task["data"])}]
    out = path.with_name(f"export_{path.name}")
    out.write_text(json.dumps(written), encoding="utf-8")
    return out


def labels_read(folder: Path, config: str, name: str) -> int:
    (folder / f"{name}.toml").write_text(config, encoding="utf-8")
    assert run(["fit", str(folder / f"{name}.toml"), "--out", str(folder / name), "--overwrite"]) == 0
    metrics = json.loads((folder / name / "metrics.json").read_text(encoding="utf-8"))
    return int(next(e for e in metrics["evidence"] if e["name"] == "asked")["labels"])


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["", "model_variance", "badge", "k_center", "random"])
def test_numbers_without_a_value_are_asked_for(folder: Path, by: str) -> None:
    rows = read(ask(folder, "gold", "a.csv", "--n", "10", *(("--by", by) if by else ())))
    assert len({r["row"] for r in rows}) == 10
    assert all(int(r["row"][1:]) >= 40 and r["question"] == "the number" for r in rows)
    assert all(float(r["gain"]) == pytest.approx(float(r["sd"]) ** 2, rel=1e-4) for r in rows)


def test_numbers_go_to_label_studio_and_come_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = ask(folder, "gold", "n.json", "--n", "6", "--tool", "label-studio")
    assert 'kind = "Value"' in capsys.readouterr().out
    (result,) = json.loads(tasks.read_text(encoding="utf-8"))[0]["predictions"][0]["result"]
    assert result["type"] == "number"
    assert isinstance(result["value"]["number"], float)
    assert "<Number name=" in tasks.with_suffix(".interface.xml").read_text(encoding="utf-8")
    truth = {r["id"]: float(r["y"]) for r in read(folder / "truth.csv")}
    export = answered(tasks, "label-studio", lambda d: [{**result, "value": {"number": truth[d["row"]]}}])
    more = f'[[labels]]\nkind = "Value"\nname = "asked"\nsource = "{export.name}"\nformat = "label-studio"\n'
    assert labels_read(folder, NUMBERS + GOLD + more + FAST, "more") == 6


@pytest.mark.parametrize("tool", ["label-studio", "argilla"])
def test_ratings_go_out_and_come_back(folder: Path, tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = ask(folder, "stars", f"{tool}.json", "--n", "5", "--tool", tool)
    assert 'kind = "Ratings"' in capsys.readouterr().out
    first = json.loads(tasks.read_text(encoding="utf-8"))[0]
    if tool == "argilla":
        (value,) = (s["value"] for s in first["suggestions"].values())
        export = answered(tasks, tool, lambda d: 4)
    else:
        (result,) = first["predictions"][0]["result"]
        value = result["value"]["rating"]
        assert result["type"] == "rating"
        assert 'maxRating="5"' in tasks.with_suffix(".interface.xml").read_text(encoding="utf-8")
        export = answered(tasks, tool, lambda d: [{**result, "value": {"rating": 4}}])
    assert isinstance(value, int)
    assert 1 <= value <= 5
    more = f'[[labels]]\nkind = "Ratings"\nname = "asked"\nsource = "{export.name}"\nformat = "{tool}"\n'
    assert labels_read(folder, NUMBERS + STARS + more + FAST, "more_stars") == 5


def test_nobody_rates_a_row_twice_and_the_careful_rater_is_asked_at_equal_cost(folder: Path) -> None:
    both = ["--question", "r_anna=1", "--question", "r_bob=1"]
    rows = read(ask(folder, "stars", "who.csv", "--n", "30", *both))
    assert {r["row"] for r in rows} == {f"r{i}" for i in range(50, N)}  # both have rated all others
    assert {r["question"] for r in rows} == {"a rating of r_anna"}
    dear = ["--question", "r_anna=1000", "--question", "r_bob=1"]
    assert {r["question"] for r in read(ask(folder, "stars", "who.csv", "--n", "5", *dear))} == {"a rating of r_bob"}


# -- tags --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["", "badge", "k_center", "random"])
def test_rows_with_unknown_tags_are_asked_about(folder: Path, by: str) -> None:
    rows = read(ask(folder, "tags", "t.csv", "--n", "10", *(("--by", by) if by else ())))
    assert all(int(r["row"][1:]) >= 40 and r["question"] == "tags" for r in rows)
    assert len({r["row"] for r in rows}) == 10


@pytest.mark.parametrize("tool", ["label-studio", "argilla"])
def test_tags_go_out_and_come_back_also_where_none_is_on(folder: Path, tool: str) -> None:
    tasks = ask(folder, "tags", f"tags_{tool}.json", "--n", "40", "--tool", tool)
    written = json.loads(tasks.read_text(encoding="utf-8"))
    truth = {r["id"]: [t for t in "abc" if r[t] == "1"] for r in read(folder / "truth.csv")}
    assert any(not tags for i, tags in truth.items() if int(i[1:]) >= 40)
    if tool == "argilla":
        for record in written:
            record["suggestions"] = {"tags": {"value": [], "score": 1.0, "agent": "x"}}
        tasks.write_text(json.dumps(written), encoding="utf-8")
        export = answered(tasks, tool, lambda d: truth[d["row"]])
    else:
        proposed = [t["predictions"][0]["result"][0] for t in written if "predictions" in t]
        assert all(r["type"] == "choices" and set(r["value"]["choices"]) <= set("abc") for r in proposed)
        assert 'choice="multiple"' in tasks.with_suffix(".interface.xml").read_text(encoding="utf-8")

        def results(data: dict[str, Any]) -> list[dict[str, Any]]:
            chosen = truth[data["row"]]
            return [{**proposed[0], "value": {"choices": chosen}}] if chosen else []

        export = answered(tasks, tool, results)
    more = f'[[labels]]\nkind = "Tags"\nname = "asked"\nsource = "{export.name}"\nformat = "{tool}"\n'
    assert labels_read(folder, TAGGED.replace("[output]", more + "[output]"), "more_tags") == 3 * 40


def test_single_tags_go_out_and_come_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = ask(folder, "tags", "single.json", "--n", "12", "--tool", "label-studio", "--question", "tag=0.2")
    assert 'tag = "anygrain_question"' in capsys.readouterr().out
    written = json.loads(tasks.read_text(encoding="utf-8"))
    pairs = {(t["data"]["row"], t["data"]["anygrain_question"]) for t in written}
    assert len(pairs) == 12
    assert {tag for _, tag in pairs} <= set("abc")
    (result,) = written[0]["predictions"][0]["result"]
    truth = {r["id"]: r for r in read(folder / "truth.csv")}

    def results(data: dict[str, Any]) -> list[dict[str, Any]]:
        said = "yes" if truth[data["row"]][data["anygrain_question"]] == "1" else "no"
        return [{**result, "value": {"choices": [said]}}]

    export = answered(tasks, "label-studio", results)
    more = (
        f'[[labels]]\nkind = "Tags"\nname = "asked"\nsource = "{export.name}"\nformat = "label-studio"\n'
        'tag = "anygrain_question"\n'
    )
    assert labels_read(folder, TAGGED.replace("[output]", more + "[output]"), "more_single") == 12


@pytest.mark.parametrize(
    ("of", "arguments", "said"),
    [
        ("gold", ["--tool", "argilla"], "Argilla has no field for numbers"),
        ("gold", ["--tool", "doccano"], "doccano has no field for numbers"),
        ("stars", ["--tool", "doccano"], "doccano has no field for ratings"),
        ("gold", ["--by", "margin"], "Expected one of variance, model_variance"),
        ("gold", ["--question", "class=1"], 'Expected one of "number"'),
        ("tags", ["--by", "bald"], "Expected one of evidence_gain, badge"),
        ("tags", ["--question", "tags=1", "--question", "tag=1"], "given several times"),
        ("tags", ["--question", "a=1"], "nothing that can be asked"),
        ("tags", ["--by", "k_center", "--question", "tag=1"], "tells rows apart"),
    ],
)
def test_what_cannot_be_asked(
    folder: Path, of: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = "--tool" in arguments
    out = folder / ("bad.json" if tool else "bad.csv")
    assert run(["ask", str(folder / of), "--out", str(out), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("of", ["gold", "stars", "tags"])
def test_rows_of_another_table_are_all_new(folder: Path, of: str) -> None:
    rows = read(ask(folder, of, "new.csv", "--n", str(N), "--table", str(folder / "rows.csv")))
    assert len({r["row"] for r in rows}) == N
    assert all(float(r["gain"]) > 0 for r in rows)
