"""The loop of labelling: fit, ask, people answer in their tool, their export is a source of labels, fit again."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from anygrain.cli import run
from anygrain.data.dataset import read_dataset
from anygrain.data.table import write_table
from anygrain.program.ask_classes import known_of
from anygrain.program.predict import run_config

TEXTS = {
    "modem": ("the box with the antenna blinks", "no light on the router box", "router restarts all the time"),
    "phone": ("my handset rings twice", "handset has no tone", "handset keys are stuck"),
    "bill": ("the invoice is too high", "invoice arrived late", "wrong name on the invoice"),
}
CONFIG = """
[data]
source = "rows.csv"
id = "id"
text = "text"
[[labels]]
kind = "Exact"
column = "class"
[[labels]]
kind = "Crowd"
columns = ["w_*"]
[learn]
rounds = 1
neighbours = 0
exact_folds = 2
[output]
report = false
map = false
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 texts of three classes, 12 exact labels and votes of two people on 40, fitted."""
    path = tmp_path_factory.mktemp("ask")
    random = np.random.default_rng(0)
    names = list(TEXTS)
    truth = [names[i % 3] for i in range(60)]
    said_of = [TEXTS[t if random.random() < 0.7 else str(random.choice(names))] for t in truth]  # some mislead
    text = [f"{random.choice(texts)} {random.choice(['today', 'again', 'please help', 'hello'])}" for texts in said_of]
    table: dict[str, Any] = {"id": [f"r{i}" for i in range(60)], "text": text}
    table["class"] = [t if i < 12 else "" for i, t in enumerate(truth)]
    for w, right in enumerate((1.0, 0.3)):
        said = [t if random.random() < right else str(random.choice(names)) for t in truth]
        table[f"w_{w}"] = [s if i < 40 else "" for i, s in enumerate(said)]
    write_table(table, path / "rows.csv")
    write_table({"id": table["id"], "truth": truth}, path / "truth.csv")
    (path / "first.toml").write_text(CONFIG, encoding="utf-8")
    assert run(["fit", str(path / "first.toml"), "--out", str(path / "first")]) == 0
    return path


def asked(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rows_with_exact_labels_are_not_asked_about(folder: Path) -> None:
    out = folder / "ask.csv"
    assert run(["ask", str(folder / "first"), "--out", str(out), "--n", "100"]) == 0
    rows = asked(out)
    assert len(rows) == 48
    assert {r["row"] for r in rows} == {f"r{i}" for i in range(12, 60)}
    assert [int(r["priority"]) for r in rows] == list(range(1, 49))
    assert all(r["question"] == "a vote of anybody" for r in rows)
    assert {r["proposed"] for r in rows} <= set(TEXTS)


@pytest.mark.parametrize("names", [("w_0", "w_1"), ("w_1", "w_0")])
@pytest.mark.parametrize("rows", [(), ("--table", "rows.csv")])
def test_the_better_annotator_is_asked_at_equal_cost(
    folder: Path, names: tuple[str, str], rows: tuple[str, ...]
) -> None:
    def questions(first: int, second: int) -> list[str]:
        cost = {"w_0": first, "w_1": second}
        return [word for name in names for word in ("--question", f"{name}={cost[name]}")]

    out = folder / "who.csv"
    where = [str(folder / word) if word == "rows.csv" else word for word in rows]
    how = ["ask", str(folder / "first"), "--out", str(out), "--n", "5", "--overwrite", *where]
    assert run([*how, *questions(1, 1)]) == 0
    assert {r["question"] for r in asked(out)} == {"a vote of w_0"}
    assert run([*how, *questions(100, 1)]) == 0
    assert asked(out)[0]["question"] == "a vote of w_1"


def test_votes_that_a_model_has_seen_are_not_counted_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of rows not held out the belief is the model's own, within what exact labels leave; of others votes count."""
    copied = folder / "seen"
    shutil.copytree(folder / "first", copied)
    file = copied / "held_out.safetensors"
    said = load_file(file)
    how = ["ask", str(copied), "--out", str(folder / "seen.csv"), "--n", "48", "--overwrite"]
    assert run(how) == 0
    assert "could not be held out" not in capsys.readouterr().out
    held = torch.arange(60) % 2 == 0
    save_file({**said, "held_out": held}, file)
    assert run(how) == 0
    assert (
        "14 rows with labels that may be wrong could not be held out" in capsys.readouterr().out
    )  # every second of 12..39
    dataset = read_dataset(run_config(copied))
    log_probs = said["log_probs"].float().log_softmax(dim=1)
    known = known_of(dataset, log_probs, held)
    free = torch.from_numpy(dataset.exact() < 0)
    torch.testing.assert_close(known[~held & free].exp(), log_probs[~held & free].exp())
    assert known[~free].exp().max(dim=1).values.min() > 0.999
    voted = held & free & (torch.arange(60) < 40)
    assert (known[voted] - log_probs[voted]).abs().max() > 0.1


@pytest.mark.parametrize("tool", ["label-studio", "argilla", "doccano"])
def test_answers_come_back_as_labels(folder: Path, tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = folder / f"{tool}.{'jsonl' if tool == 'doccano' else 'json'}"
    how = ["ask", str(folder / "first"), "--out", str(tasks), "--n", "12", "--tool", tool, "--overwrite"]
    assert run(how) == 0
    assert 'kind = "Crowd"' in capsys.readouterr().out  # votes were asked for
    assert run([*how, "--question", "class=1"]) == 0
    said = capsys.readouterr().out
    assert 'kind = "Exact"' in said
    assert ("export the approved ones" in said) == (tool == "doccano")
    with open(folder / "truth.csv", encoding="utf-8") as file:
        truth = {r["id"]: r["truth"] for r in csv.DictReader(file)}
    export = folder / f"{tool}_export{tasks.suffix}"
    answered(tool, tasks, truth, export)
    config = CONFIG + f'[[labels]]\nkind = "Exact"\nname = "asked"\nsource = "{export.name}"\nformat = "{tool}"\n'
    (folder / f"{tool}.toml").write_text(config, encoding="utf-8")
    assert run(["fit", str(folder / f"{tool}.toml"), "--out", str(folder / tool)]) == 0
    metrics = json.loads((folder / tool / "metrics.json").read_text(encoding="utf-8"))
    assert next(e for e in metrics["evidence"] if e["name"] == "asked")["labels"] == 12


def answered(tool: str, tasks: Path, truth: dict[str, str], export: Path) -> None:
    """Every task answered with the truth, as the tool would export it."""
    if tool == "doccano":
        records = [json.loads(line) for line in tasks.read_text(encoding="utf-8").splitlines()]
        lines = [json.dumps({**r, "label": [truth[r["row"]]]}) for r in records]
        export.write_text("\n".join(lines), encoding="utf-8")
        return
    records = json.loads(tasks.read_text(encoding="utf-8"))
    for at, record in enumerate(records):
        if tool == "argilla":
            record["responses"] = {"class": [{"value": truth[record["id"]], "user_id": "u"}]}
        else:
            (prediction,) = record.pop("predictions")
            prediction["result"][0]["value"] = {"choices": [truth[record["data"]["row"]]]}
            record["id"], record["annotations"] = at, [{"completed_by": 1, "result": prediction["result"]}]
    export.write_text(json.dumps(records), encoding="utf-8")


def test_other_rows_can_be_chosen_from(folder: Path) -> None:
    new = {"id": ["n1", "n2", "n3"], "text": ["invoice too high", "handset or invoice or router", "handset"]}
    write_table(new, folder / "new.csv")
    out = folder / "new_ask.csv"
    how = ["--table", str(folder / "new.csv"), "--by", "margin", "--question", "class=1"]
    assert run(["ask", str(folder / "first"), "--out", str(out), "--n", "1", *how]) == 0
    assert asked(out)[0]["row"] == "n2"


@pytest.mark.parametrize("by", ["bald", "badge", "k_center", "random", "entropy", "least_confidence"])
def test_every_strategy_runs(folder: Path, by: str) -> None:
    out = folder / f"{by}.csv"
    assert run(["ask", str(folder / "first"), "--out", str(out), "--n", "4", "--by", by]) == 0
    assert len({r["row"] for r in asked(out)}) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--by", "margins"], 'Did you mean "margin"'),
        (["--tool", "labelstudio"], 'Did you mean "label-studio"'),
        (["--question", "class"], "has no cost"),
        (["--question", "w_9=1"], "nothing that can be asked"),
        (["--out", "x.txt"], "does not end in a format"),
    ],
)
def test_bad_requests(folder: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = [] if "--out" in arguments else ["--out", str(folder / "bad.csv")]
    assert run(["ask", str(folder / "first"), *out, *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (folder / "bad.csv").exists()


def test_rows_beside_known_positives_can_be_asked_about(folder: Path) -> None:
    with open(folder / "truth.csv", encoding="utf-8") as file:
        truth = [r["truth"] for r in csv.DictReader(file)]
    known = ["bill" if t == "bill" and i % 2 else "" for i, t in enumerate(truth)]
    write_table({"id": [f"r{i}" for i in range(60)], "known": known}, folder / "known.csv")
    labels = '[[labels]]\nkind = "Positive"\nsource = "known.csv"\ncolumn = "known"\ntarget = "bill"\n'
    head, rest = CONFIG.split("[[labels]]", 1)
    config = 'classes = ["bill", "other"]\n' + head + labels + rest[rest.index("[learn]") :]
    (folder / "positive.toml").write_text(config, encoding="utf-8")
    assert run(["fit", str(folder / "positive.toml"), "--out", str(folder / "positive")]) == 0
    assert run(["ask", str(folder / "positive"), "--out", str(folder / "positive.csv"), "--n", "5"]) == 0
    assert len(asked(folder / "positive.csv")) == 5
    assert run(["audit", str(folder / "positive"), "--out", str(folder / "positive_audit")]) == 0


def test_format_without_a_source(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = CONFIG.replace('column = "class"', 'column = "class"\nformat = "argilla"')
    (folder / "bad.toml").write_text(config, encoding="utf-8")
    assert run(["fit", str(folder / "bad.toml"), "--out", str(folder / "bad")]) == 2
    assert "format" in capsys.readouterr().err


def test_a_table_whose_rows_moved_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = (folder / "rows.csv").read_text(encoding="utf-8")
    head, first, *rows = table.splitlines()
    try:
        for lines, said in (([*rows, first], "row 0 was r0 and is r1 now"), (rows[:-1], "Fit again")):
            (folder / "rows.csv").write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
            assert run(["ask", str(folder / "first"), "--out", str(folder / "moved.csv")]) == 2
            assert said in capsys.readouterr().err
    finally:
        (folder / "rows.csv").write_text(table, encoding="utf-8")
