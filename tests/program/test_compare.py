"""fit --compare: the same parts for every method, numbers that a hand makes too, a page, and what is refused."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch

import anygrain
from anygrain.cli import run
from anygrain.data.config import load_config
from anygrain.labels import Crowd, OneCoin
from anygrain.program.compare import FILES, CompareFolder, Outcome, parts_of, summary
from anygrain.program.held_evidence import _said
from anygrain.program.space import space_of


def write(path, rows):
    path.write_text("\n".join(",".join(str(v) for v in row) for row in rows) + "\n")


@pytest.fixture
def classes(tmp_path):
    """180 rows of three classes, 15 % of the labels wrong, two annotators' votes beside them."""
    rng = np.random.default_rng(0)
    y = np.arange(180) % 3
    x = rng.normal(size=(180, 3)) + 3 * np.eye(3)[y]
    wrong = rng.random(180) < 0.15
    given = np.where(wrong, (y + 1) % 3, y)
    rows = [("id", "a", "b", "c", "label")]
    rows += [(i, *(f"{v:.4f}" for v in x[i]), f"k{given[i]}") for i in range(180)]
    write(tmp_path / "table.csv", rows)
    (tmp_path / "c.toml").write_text(
        """
[data]
source = "table.csv"
id = "id"
columns = ["a", "b", "c"]

[[labels]]
name = "label"
kind = "Exact"
column = "label"

[learn]
rounds = 2
epochs = 5
"""
    )
    return tmp_path


def test_methods_are_compared_on_the_same_rows(classes, capsys, monkeypatch):
    monkeypatch.chdir(classes)
    assert run(["fit", "c.toml", "--compare", "default,gce,label_smoothing:amount=0.3", "--out", "out"]) == 0
    said = capsys.readouterr().out
    assert "180 rows · 3 classes · 3 methods, each fitted 3 times" in said
    result = json.loads((classes / "out" / "compare.json").read_text())
    assert [row["method"] for row in result["methods"]] == ["default", "gce", "label_smoothing:amount=0.3"]
    assert result["observations"] == 180
    table = parquet.read_table(classes / "out" / "compare.parquet")
    for row in result["methods"]:
        values = table[row["method"]].to_numpy()
        assert row["evidence"] == pytest.approx(values.mean())
        assert row["measures"]["log_loss"]["value"] == pytest.approx(-values.mean(), abs=1e-5)  # exact labels
        assert 0.75 < row["measures"]["accuracy"]["value"] < 0.95
        low, high = row["behind_interval"]
        assert low <= row["behind"] <= high
        assert row["behind"] <= 0
    best = max(result["methods"], key=lambda row: row["evidence"])
    assert best["best"]
    assert result["best"] == best["method"]
    page = (classes / "out" / "compare.html").read_text()
    assert "label_smoothing:amount=0.3" in page
    assert "://" not in page
    again = ["fit", "c.toml", "--compare", "default,gce", "--out", "out"]
    assert run(again) == 2
    assert "holds a finished comparison" in capsys.readouterr().err
    assert run([*again, "--overwrite"]) == 0
    again = json.loads((classes / "out" / "compare.json").read_text())
    assert [row["evidence"] for row in again["methods"]] == [row["evidence"] for row in result["methods"][:2]]


def test_tags_and_numbers_are_compared(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(150, 3))
    on = (x + 0.3 * rng.normal(size=(150, 3)) > 0).astype(int)
    rows = [("id", "a", "b", "c", "t1", "t2", "t3", "y")]
    rows += [(i, *(f"{v:.4f}" for v in x[i]), *on[i], f"{x[i].sum():.4f}") for i in range(150)]
    write(tmp_path / "table.csv", rows)
    head = '[data]\nsource = "table.csv"\nid = "id"\ncolumns = ["a", "b", "c"]\n\n[learn]\nepochs = 3\n\n[[labels]]\n'
    (tmp_path / "tags.toml").write_text(head + 'name = "t"\nkind = "Tags"\ncolumns = ["t1", "t2", "t3"]\n')
    (tmp_path / "number.toml").write_text(
        head + 'name = "y"\nkind = "Value"\ncolumn = "y"\n\n[encoder]\ntable = "columns"\n'
    )
    assert run(["fit", "tags.toml", "--compare", "default,focal", "--out", "tags"]) == 0
    result = json.loads((tmp_path / "tags" / "compare.json").read_text())
    assert result["observations"] == 450
    assert all(row["measures"]["mAP"]["value"] > 0.8 for row in result["methods"])
    assert run(["fit", "number.toml", "--compare", "default,con_r:strength=0.1", "--out", "number"]) == 0
    result = json.loads((tmp_path / "number" / "compare.json").read_text())
    assert result["observations"] == 150
    assert all(row["measures"]["rmse"]["value"] < 2.0 for row in result["methods"])


def test_the_paired_interval_sees_small_steady_gains():
    rng = np.random.default_rng(0)
    rough = rng.normal(size=4000)
    steady = rough - 0.02 + 0.05 * rng.normal(size=4000)
    lost = rough + 0.5 * rng.normal(size=4000)
    outcomes = [Outcome(n, "", e, {}, {}, 0.0) for n, e in (("a", rough), ("b", steady), ("c", lost - lost.mean()))]
    outcomes[2].evidence = lost - lost.mean() + rough.mean() - 1e-4
    found = {row["method"]: row for row in summary(outcomes)["methods"]}
    assert found["a"]["best"]
    assert not found["b"]["as_good"]
    assert found["b"]["behind_interval"][1] < 0
    assert found["c"]["as_good"]


def test_parts_keep_groups_whole_and_leave_rows_without_labels_in():
    class Given:
        labelled = np.arange(40) < 30
        evidence = ()

        class labels:
            @staticmethod
            def groups():
                return torch.arange(40) // 5

        def __len__(self):
            return 40

    parts = parts_of(Given(), 0)
    assert set(parts[30:]) == {-1}
    assert set(parts[:30]) == {0, 1, 2}
    assert all(len(set(parts[i : i + 5])) == 1 for i in range(0, 30, 5))


def test_rows_without_the_label_are_held_out_where_some_are_known_to_be_positive(tmp_path, monkeypatch):
    """Evidence of 120 rows, not of the labelled ones alone: a model that says positive everywhere does not win."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = rng.normal(size=120) + 3 * y
    label = np.where((y == 1) & (rng.random(120) < 0.4), "pos", "")
    write(tmp_path / "t.csv", [("id", "a", "label"), *((i, f"{x[i]:.3f}", label[i]) for i in range(120))])
    (tmp_path / "c.toml").write_text(
        'classes = ["neg", "pos"]\n[data]\nsource = "t.csv"\nid = "id"\ncolumns = ["a"]\n[learn]\nrounds = 1\n'
        'epochs = 3\n[[labels]]\nkind = "Positive"\ncolumn = "label"\ntarget = "pos"\nprior = 0.5\n'
    )
    assert run(["fit", "c.toml", "--compare", "default,nnpu", "--out", "out"]) == 0
    result = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert result["observations"] == 120
    assert (parts_of(space_of(config := load_config("c.toml")).read(config), 0) >= 0).all()


def test_files_of_a_comparison_are_written_whole_or_not_at_all(classes, monkeypatch):
    """A disk that is full while a text is written leaves what was there before."""
    monkeypatch.chdir(classes)
    how = ["fit", "c.toml", "--compare", "default,gce", "--out", "out"]
    assert run(how) == 0
    before = {path.name: path.read_bytes() for path in (classes / "out").iterdir()}
    assert set(before) == set(FILES)
    write_text = Path.write_text

    def full(path, text, **more):
        write_text(path, text[: len(text) // 2], **more)
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with contextlib.suppress(OSError):
            run([*how, "--overwrite", "--set", "learn.seed=1"])
    for name in ("compare.json", "config.toml", "compare.html"):
        assert (classes / "out" / name).read_bytes() == before[name]
    assert run([*how, "--overwrite"]) == 0  # a part that was left is in nobody's way
    assert {path.name for path in (classes / "out").iterdir()} == set(FILES)


def without_times(path):
    """compare.json without what differs from run to run."""
    found = json.loads((path / "compare.json").read_text())
    for row in [found, *found["methods"]]:
        for name in ("created", "command", "seconds"):
            row.pop(name, None)
    return found


def same(one, two):
    assert (one / "compare.parquet").read_bytes() == (two / "compare.parquet").read_bytes()
    assert without_times(one) == without_times(two)


def test_a_killed_comparison_goes_on_to_the_same_result(classes):
    """Killed without a warning once the first method is kept; that method is not fitted again."""
    how = ["fit", "c.toml", "--compare", "default,sbcl,gce,label_smoothing"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(anygrain.__file__).parents[1])}

    def start(*more):
        code = f"from anygrain.cli import main; main({[*how, *more]!r})"
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, "-c", code], cwd=classes, env=environment, stdout=pipe, stderr=pipe, text=True
        )

    process = start("--out", "cut")
    first = classes / "cut" / ".state" / "00001.safetensors"
    while not first.exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    kept = CompareFolder(classes / "cut", "", "").kept()["default"]
    said, errors = start("--out", "cut", "--resume").communicate(timeout=300)
    assert "goes on after" in said, errors
    assert "of 4  default" not in said
    _, errors = start("--out", "whole").communicate(timeout=300)
    assert not errors
    same(classes / "cut", classes / "whole")
    first_of = json.loads((classes / "cut" / "compare.json").read_text())["methods"][0]
    assert first_of["seconds"] == kept.seconds
    assert {path.name for path in (classes / "cut").iterdir()} == set(FILES)


def _interrupted():
    raise KeyboardInterrupt  # as Ctrl-C does; the signal itself is ignored where the tests run in the background


def test_a_stopped_comparison_says_how_it_goes_on(classes, capsys, monkeypatch):
    monkeypatch.chdir(classes)
    how = ["fit", "c.toml", "--compare", "default,gce", "--out", "out", "--set", "learn.seed=1"]
    with monkeypatch.context() as patch:
        patch.setattr("anygrain.program.compare.stop_if_asked", _interrupted)
        assert run(how) == 3
    said = capsys.readouterr().err
    assert "stopped after 1 of 2 methods. Go on with: anygrain fit c.toml --compare default,gce --out out" in said
    assert run(how) == 2
    assert "holds an unfinished comparison (step 1 of 2, same config)" in capsys.readouterr().err
    assert run([*how[:-1], "learn.seed=2", "--resume"]) == 2
    assert "learn.seed was 1, is 2" in capsys.readouterr().err
    assert run([*how, "--resume"]) == 0
    assert run([*how, "--resume"]) == 0
    assert "is finished already" in capsys.readouterr().out


def test_what_is_kept_of_a_method_comes_back_as_it_was(tmp_path):
    folder = CompareFolder(tmp_path / "out", "", "")
    folder.open("new")
    values = np.array([1.0, np.nan, 1e-300])
    given = Outcome("m", "a loss", values, {"b": values[:2], "a": values}, {"z": np.nan, "y": 0.1}, 1.25)
    folder.keep(1, "m", given)
    folder.keep(2, "n", "not for these labels")
    found = folder.kept()
    folder.close()
    assert found["n"] == "not for these labels"
    assert (found["m"].method, found["m"].says, found["m"].seconds) == ("m", "a loss", 1.25)
    np.testing.assert_array_equal(found["m"].evidence, values)
    assert list(found["m"].truth) == ["b", "a"]
    np.testing.assert_array_equal(found["m"].truth["a"], values)
    assert list(found["m"].measures) == ["z", "y"]
    assert found["m"].measures["y"] == 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare", "default,gec"], 'method "gec" is not known. Did you mean "gce"?'),
        (["--compare", "default"], "is one method. Expected two or more"),
        (["--compare", "gce,gce"], '--compare names "gce" twice'),
        (["--compare", "default,comic"], 'method "comic" is for labels of tags; these labels speak of classes'),
        (["--compare", "default,con_r"], 'method "con_r" is for labels of a number, a trained encoder'),
        (["--compare", "default,nnpu"], "is for Positive labels alone; here they are Exact"),
        (["--compare", "default,gce:k=1"], 'method "gce" has no option "k"'),
        (["--set", "learn.method=forwrd"], 'Did you mean "forward"?'),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(classes, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(classes)
    assert run(["fit", "c.toml", "--out", "out", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said
    assert not (classes / "out").exists()


def test_a_method_of_the_configuration_is_used(classes, monkeypatch, capsys):
    monkeypatch.chdir(classes)
    assert run(["fit", "c.toml", "--out", "run", "--set", 'learn.method="gce:q=0.5"']) == 0
    assert 'method = "gce:q=0.5"' in (classes / "run" / "config.toml").read_text()
    assert run(["fit", "c.toml", "--out", "plain"]) == 0
    held = [json.loads((classes / r / "metrics.json").read_text())["held_out"] for r in ("run", "plain")]
    assert held[0]["evidence_per_row"] != held[1]["evidence_per_row"]  # that of the method, not of the recipe


def test_the_methods_are_listed(capsys):
    assert run(["methods"]) == 0
    said = capsys.readouterr().out
    assert "gce" in said
    assert "labels of a number, a trained encoder" in said


def test_votes_that_cancel_each_other_are_observations_for_every_method():
    votes = Crowd(*torch.tensor([[0, 0, 1], [0, 1, 0], [0, 1, 1]]), 2, 3, channel=OneCoin(2, 2))
    even = torch.full((3, 2), 0.5).log()
    assert torch.allclose(votes.posterior(even)[0], torch.tensor([0.5, 0.5]))
    assert _said(votes, [votes], [torch.tensor([True, True, False])]).tolist() == [True, True, False]


def test_a_method_that_cannot_be_fitted_is_left_out(classes, capsys, monkeypatch):
    monkeypatch.chdir(classes)
    assert run(["fit", "c.toml", "--compare", "default,sbcl,gce", "--out", "out"]) == 0  # sbcl is for head = "mlp"
    assert "sbcl  left out: SubclassContrast trains a hidden layer" in capsys.readouterr().out
    result = json.loads((classes / "out" / "compare.json").read_text())
    assert [row["method"] for row in result["methods"]] == ["default", "gce"]
    assert list(result["left_out"]) == ["sbcl"]
    assert run(["fit", "c.toml", "--compare", "default,sbcl", "--out", "again"]) == 2
    error = capsys.readouterr().err
    assert "fewer than two methods" in error
    assert error.count("\n") == 1
    assert not (classes / "again").exists()


@pytest.mark.parametrize("method", ["gce", "co_teaching"])
def test_a_run_says_which_rows_are_not_held_out_of_the_method(classes, monkeypatch, capsys, method):
    monkeypatch.chdir(classes)
    how = ["--set", f"learn.method={method}", "--set", "output.report=false", "--set", "output.map=false"]
    for cross_fit in ("false", "true"):
        assert run(["fit", "c.toml", "--out", cross_fit, "--set", f"learn.cross_fit={cross_fit}", *how]) == 0
        warnings = json.loads((classes / cross_fit / "metrics.json").read_text())["warnings"]
        partly = method == "co_teaching" and cross_fit == "false"  # a fifth of the rows, for the temperature
        assert any("of 180 rows are scored by a model that was" in said for said in warnings) == partly
        shown = capsys.readouterr().out
        assert "too few exact rows" not in shown
        assert "no exact row was held out" not in shown


@pytest.mark.parametrize(
    ("method", "head", "said"),
    [
        ("spl", "mlp", 'learn.method = "spl": expected rows with exact labels and others with weak ones'),
        ("spl", "linear", 'learn.method = "spl": SubPseudoLabels trains a hidden layer; expected learn.head = "mlp"'),
        (
            "sbcl",
            "linear",
            'learn.method = "sbcl": SubclassContrast trains a hidden layer; expected learn.head = "mlp"',
        ),
    ],
)
def test_a_refusal_names_the_method_as_the_configuration_does(classes, monkeypatch, capsys, method, head, said):
    monkeypatch.chdir(classes)
    how = ["--set", f"learn.method={method}", "--set", f"learn.head={head}"]
    assert run(["fit", "c.toml", "--out", "out", *how]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error
    assert not (classes / "out").exists()
