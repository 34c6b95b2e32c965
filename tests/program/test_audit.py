"""The verb audit: wrong labels that were planted are listed, in every space, and bad input is refused in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from anygrain.cli import run
from anygrain.data.table import write_table

LEARN = """
[learn]
rounds = 1
neighbours = 0
exact_folds = 2
[output]
report = false
map = false
"""
DATA = """
[data]
source = "rows.csv"
id = "id"
features = "x_*"
"""
CLASSES = (
    DATA
    + """
[[labels]]
kind = "Exact"
column = "class"
[[labels]]
kind = "Crowd"
columns = ["w_*"]
[[labels]]
kind = "Rules"
columns = ["rule_*"]
"""
    + LEARN
)
TAGS = DATA + '[[labels]]\nkind = "Tags"\ncolumns = ["is_*"]\n' + LEARN.replace("exact_folds = 2\n", "")
NUMBERS = DATA + '[[labels]]\nkind = "Value"\ncolumn = "amount"\n' + LEARN[LEARN.index("[output]") :]
N, WRONG = 240, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clusters; 12 labels are wrong, w_2 always says "a", rule_t is good, rule_n silent; row 239 is row 0."""
    path = tmp_path_factory.mktemp("audit")
    random = np.random.default_rng(0)
    truth = np.arange(N) % 3
    x = np.eye(3)[truth] * 4 + random.normal(size=(N, 3))
    names = np.array(["a", "b", "c"])
    wrong = np.zeros(N, dtype=bool)
    wrong[random.choice(N - 2, WRONG, replace=False) + 1] = True
    given = np.where(wrong, (truth + 1) % 3, truth)
    x[-1], given[-1], truth[-1] = x[0], (given[0] + 1) % 3, truth[0]
    table: dict[str, Any] = {"id": [f"r{i}" for i in range(N)]}
    table |= {f"x_{d}": x[:, d] for d in range(3)}
    table["class"] = names[given]
    for w in range(2):
        said = np.where(random.random(N) < 0.85, truth, random.integers(0, 3, N))
        table[f"w_{w}"] = np.where(random.random(N) < 0.8, names[said], "")
    table["w_2"] = np.where(random.random(N) < 0.8, "a", "")
    table["rule_t"] = np.where(random.random(N) < 0.5, names[truth], "")
    table["rule_n"] = np.where(np.arange(N) < 1, "a", "")
    on = np.stack([truth == 0, truth != 1], axis=1)
    shown = on ^ (wrong[:, None] & np.array([True, False]))
    table |= {"is_a": shown[:, 0].astype(int), "is_b": shown[:, 1].astype(int)}
    table["amount"] = x.sum(axis=1) * 2 + truth + random.normal(size=N) * 0.1 + 30 * wrong
    write_table(table, path / "rows.csv")
    for name, config in (("classes", CLASSES), ("tags", TAGS), ("numbers", NUMBERS)):
        (path / f"{name}.toml").write_text(config.replace("rows.csv", str(path / "rows.csv")), encoding="utf-8")
    p = 0.9 * np.eye(3)[truth] + 0.1 / 3
    write_table({"id": table["id"][::-1], **{c: p[::-1, k] for k, c in enumerate("abc")}}, path / "probs.parquet")
    (path / "wrong.json").write_text(json.dumps([f"r{i}" for i in np.flatnonzero(wrong)]))
    assert run(["fit", str(path / "classes.toml"), "--out", str(path / "run")]) == 0
    return path


def planted(folder: Path) -> set[str]:
    return set(json.loads((folder / "wrong.json").read_text()))


def named(out: Path, label: str, n: int) -> set[str]:
    """Rows of the first n labels of a kind."""
    lines = [line for line in parquet.read_table(out / "audit.parquet").to_pylist() if line["label"] == label]
    return {line["row"] for line in lines[:n]}


def test_a_run_is_audited(folder, capsys):
    assert run(["audit", str(folder / "run")]) == 0
    said = capsys.readouterr().out
    assert said.count("Next:") == 1
    assert "1 annotator who may guess (2)" in said or "(w_2)" in said
    out = folder / "run" / "audit"
    assert len(named(out, "class", WRONG + 1) & planted(folder)) >= WRONG - 1
    found = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    by_kind = {kind["label"]: kind for kind in found["kinds"]}
    assert abs(by_kind["class"]["share_wrong"] - (WRONG + 1) / N) < 0.025
    assert found["duplicates"]["exact"] == 1
    assert found["duplicates"]["conflict"] == 1
    assert {found["duplicates"]["worst"][0][side] for side in ("first", "second")} == {"r0", f"r{N - 1}"}
    crowd = found["crowds"][0]
    always = crowd["annotators"][2]
    assert always["overuses"] == "a"
    assert always["prob_spammer"] > 0.9
    assert max(a["prob_spammer"] for a in crowd["annotators"][:2]) < 0.1
    assert crowd["votes_needed"]["unsure"] < N / 4
    rule = {r["rule"]: r for r in found["rules"][0]["rules"]}
    good, quiet = rule.values()
    assert good["accuracy"] > 0.9
    assert good["coverage"] > 0.4
    assert good["polarity"] == "a, b, c"
    assert quiet["votes"] == 1
    lines = parquet.read_table(out / "audit.parquet").to_pylist()
    assert [line["prob_wrong"] for line in lines] == sorted((line["prob_wrong"] for line in lines), reverse=True)
    assert sum(line["looks_wrong"] for line in lines) == found["looks_wrong"]
    assert parquet.read_table(out / "audit_rows.parquet")["row"].to_pylist() == [f"r{i}" for i in range(N)]
    page = (out / "audit.html").read_text(encoding="utf-8")
    assert "What they take for what" in page
    assert found["worst"][0]["row"] in re.findall(r'<td class="key">(r\d+)</td>', page)


@pytest.mark.parametrize("space", ["classes", "tags", "numbers"])
def test_fit_and_audit_say_the_same(folder, space):
    """Suspects of the report and of labels.parquet, and accuracy of annotators and rules, are those of the audit."""
    out = folder / f"same_{space}"
    assert run(["fit", str(folder / f"{space}.toml"), "--out", str(out)]) == 0
    assert run(["audit", str(out)]) == 0
    metrics, found = (json.loads((out / name).read_text()) for name in ("metrics.json", "audit/audit.json"))
    assert metrics["suspects"] == found["looks_wrong"] > 5
    lines = parquet.read_table(out / "audit" / "audit.parquet").to_pylist()
    for ours, theirs in zip(metrics["worst"], lines, strict=False):
        assert (ours["row"], ours["given"]) == (theirs["row"], theirs["given"])
        assert ours["wrong"] == pytest.approx(theirs["prob_wrong"], abs=1e-12)
    rows = parquet.read_table(out / "labels.parquet").to_pylist()
    wrong = {row["row"]: 0 for row in rows}
    worst = dict.fromkeys(wrong, 0.0)
    for line in lines:
        wrong[line["row"]] += line["looks_wrong"]
        worst[line["row"]] = max(worst[line["row"]], line["prob_wrong"])
    assert [row["wrong_labels"] for row in rows] == list(wrong.values())
    suspect = [-np.log(max(1 - p, 1e-6)) for p in worst.values()]
    np.testing.assert_allclose([row["suspect"] for row in rows], suspect, rtol=1e-5, atol=1e-6)
    accuracy = {s["name"]: s["accuracy"] for s in metrics["sources"] if s["kind"] in ("Crowd", "Rules")}
    judged = {a["annotator"]: a["accuracy"] for crowd in found["crowds"] for a in crowd["annotators"]}
    judged |= {r["rule"]: r["accuracy"] for rules in found["rules"] for r in rules["rules"]}
    assert accuracy == pytest.approx(judged)


def test_the_limit_decides_the_exit_code(folder):
    run_folder = str(folder / "run")
    assert run(["audit", run_folder, "--out", str(folder / "strict"), "--fail-above", "0.01"]) == 1
    assert (folder / "strict" / "audit.html").exists()
    assert run(["audit", run_folder, "--out", str(folder / "strict"), "--fail-above", "0.9", "--overwrite"]) == 0


def test_names_of_other_tools(folder):
    assert run(["audit", str(folder / "run"), "--out", str(folder / "theirs"), "--names", "cleanlab"]) == 0
    table = parquet.read_table(folder / "theirs" / "audit.parquet")
    assert {"row", "is_label_issue", "label_quality", "label_score"} <= set(table.column_names)
    assert len(table) == N
    who = parquet.read_table(folder / "theirs" / "annotators.parquet")
    assert {"annotator_quality", "agreement_with_consensus", "worst_class"} <= set(who.column_names)
    assert "Learned Weight" in parquet.read_table(folder / "theirs" / "rules.parquet").column_names


@pytest.mark.parametrize(("space", "label"), [("tags", "is"), ("numbers", "amount")])
def test_a_configuration_is_fitted_first(folder, space, label):
    out = folder / f"{space}_audit"
    assert run(["audit", str(folder / f"{space}.toml"), "--out", str(out)]) == 0
    label = json.loads((out / "audit.json").read_text(encoding="utf-8"))["kinds"][0]["label"]
    assert len(named(out, label, WRONG) & planted(folder)) >= WRONG - 1


def test_anybodys_probabilities(folder):
    """In another order than the rows: they are joined by id."""
    out = folder / "theirs_probs"
    config, probs = str(folder / "classes.toml"), str(folder / "probs.parquet")
    assert run(["audit", "--probs", probs, "--labels", config, "--out", str(out)]) == 0
    assert len(named(out, "class", WRONG + 1) & planted(folder)) >= WRONG


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing"], "no run folder"),
        ([], "Expected a run folder or a configuration"),
        (["classes.toml"], "--out must say where"),
        (["run", "--out", "."], "no part of an audit"),
        (["run", "--out", "rows.csv"], "is a file"),
        (["run", "--out", "x", "--names", "cleanlib"], "Did you mean"),
        (["run", "--out", "x", "--fail-above", "5"], "from 0 to 1"),
        (["run", "--out", "x", "--probs", "probs.parquet"], "go together"),
        (["--probs", "few.csv", "--labels", "classes.toml", "--out", "x"], "has 2 rows and the data 240"),
        (["--probs", "other.csv", "--labels", "classes.toml", "--out", "x"], 'no column "c"'),
        (["--probs", "sums.csv", "--labels", "classes.toml", "--out", "x"], "do not sum to 1 (first: row r0, to 1.5)"),
        (["--probs", "odd.csv", "--labels", "classes.toml", "--out", "x"], "no probabilities (first: row r3)"),
    ],
)
def test_bad_input(folder, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(folder)
    write_table({c: [1 / 3] * 2 for c in "abc"}, "few.csv")
    write_table({c: [0.5] * N for c in "ab"}, "other.csv")
    write_table({c: [0.5] * N for c in "abc"}, "sums.csv")
    write_table({c: [1 / 3] * 3 + [-0.2] + [1 / 3] * (N - 4) for c in "abc"}, "odd.csv")
    assert run(["audit", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert "\n" not in error
    assert not Path("x").exists()


def test_an_audit_is_not_replaced_unasked(folder, capsys):
    out = folder / "twice"
    out.mkdir()
    (out / "audit.json").write_text("{}")
    assert run(["audit", str(folder / "run"), "--out", str(out)]) == 2
    assert "add --overwrite" in capsys.readouterr().err


def test_images_that_stand_twice(tmp_path):
    image = pytest.importorskip("PIL.Image")
    random = np.random.default_rng(0)
    truth = np.arange(40) % 2
    for at in range(40):
        pixels = random.integers(0, 90, (12, 12), dtype=np.uint8)
        pixels[:, :6] += np.uint8(140) * truth[at].astype(np.uint8)
        image.fromarray(pixels).save(tmp_path / f"{at}.png")
    (tmp_path / "39.png").write_bytes((tmp_path / "0.png").read_bytes())
    names = np.array(["dark", "bright"])[truth]  # the last is called bright and is a copy of a dark one
    write_table({"file": [f"{at}.png" for at in range(40)], "class": names}, tmp_path / "rows.csv")
    config = '[data]\nsource = "rows.csv"\nimages = "file"\n[[labels]]\nkind = "Exact"\ncolumn = "class"\n'
    (tmp_path / "c.toml").write_text(config, encoding="utf-8")
    out = tmp_path / "audit"
    settings = ["--set", "learn.epochs=6", "--set", 'learn.device="cpu"']
    assert run(["audit", str(tmp_path / "c.toml"), "--out", str(out), *settings]) == 0
    found = json.loads((out / "audit.json").read_text(encoding="utf-8"))
    twins = {(pair["first"], pair["second"]): pair for pair in found["duplicates"]["worst"]}
    assert twins["0", "39"]["exact"]
    assert twins["0", "39"]["conflict"]
    assert 'alt="image of row 39"' in (out / "audit.html").read_text(encoding="utf-8")


def test_sets_that_are_wrong(tmp_path):
    """Bags of ten rows, some of one class: one is said to hold no "b" and holds five."""
    random = np.random.default_rng(0)
    truth = np.arange(300) % 2
    bag = np.arange(300) // 10
    truth[bag % 3 == 0] = 0  # bags of one class, so that shares differ
    x = np.eye(2)[truth] * 5 + random.normal(size=(300, 2))
    share = np.array([truth[bag == b].mean() for b in range(30)])
    share[4] = 0.0
    write_table({"id": np.arange(300), "bag": bag, "x_0": x[:, 0], "x_1": x[:, 1]}, tmp_path / "rows.csv")
    write_table({"bag": np.arange(30), "share_a": 1 - share, "share_b": share}, tmp_path / "bags.csv")
    (tmp_path / "c.toml").write_text(
        '[data]\nsource = "rows.csv"\nid = "id"\nfeatures = "x_*"\nbag = "bag"\n'
        '[[labels]]\nkind = "Proportions"\nsource = "bags.csv"\ncolumns = ["share_*"]\n'
        + LEARN[LEARN.index("[output]") :],
        encoding="utf-8",
    )
    assert run(["audit", str(tmp_path / "c.toml"), "--out", str(tmp_path / "audit")]) == 0
    first, *others = parquet.read_table(tmp_path / "audit" / "audit.parquet").to_pylist()
    assert first["row"] == ""
    assert first["source"].split()[-1] == "4"
    assert first["proposed"] == "something else"
    assert sum(line["looks_wrong"] for line in others) <= 1
