"""The program as a user meets it: what it writes, what it says, how it leaves, and that it goes on after a kill."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import parquet

import anygrain
import anygrain.labels
from anygrain.cli import app, run
from anygrain.demo import copy_demo

FAST = ["--set", "learn.rounds=2", "--set", "output.map=false"]
COLUMNS = [
    "row", "class", "probability", "entropy", "predicted", "predicted_prob", "evidence", "wrong_labels", "suspect",
    "suspect_source", "suspect_value", "exact", "given", "text", "map_x", "map_y",
]  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tickets, a configuration guessed from them, and a finished run."""
    folder = tmp_path_factory.mktemp("cli")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert run(["demo", "tickets", "--copy-only"]) == 0
        assert run(["init", "tickets/tickets.csv", "--taxonomy", "tickets/taxonomy.csv"]) == 0
        assert run(["fit", "tickets.toml", "--out", "runs/t1", *FAST]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def inside(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(here)
    return here


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int = 2) -> str:
    """The one line on standard error of a command that fails."""
    capsys.readouterr()
    assert run(arguments) == code
    error = capsys.readouterr().err
    assert error.endswith("\n")
    assert error.count("\n") == 1
    return error.rstrip("\n")


# -- a session --------------------------------------------------------------------------------------------------------


def test_the_run_folder(inside: Path) -> None:
    folder = inside / "runs" / "t1"
    names = sorted(p.name for p in folder.iterdir())
    files = ["config.toml", "held_out.safetensors", "labels.parquet", "log.jsonl", "metrics.json"]
    assert names == [*files, "model", "report.html"]
    assert sorted(p.name for p in (folder / "model").iterdir()) == ["config.json", "model.safetensors"]
    events = [json.loads(line)["event"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert events[0] == "started"
    assert events[-1] == "finished"


def test_labels_and_metrics(inside: Path) -> None:
    table = parquet.read_table(inside / "runs/t1/labels.parquet").to_pandas()
    assert table.columns.tolist() == COLUMNS
    assert len(table) == 1200
    exact = table[table.exact.notna()]
    assert len(exact) == 60
    assert (exact["class"] == exact.exact).all()
    assert np.allclose(exact.probability, 1)
    assert (table.suspect >= 0).all()
    assert table.evidence.notna().all()
    metrics = json.loads((inside / "runs/t1/metrics.json").read_text())
    assert metrics["format"] == "anygrain-run-1"
    assert [(e["name"], e["kind"], e["labels"], e["rows"]) for e in metrics["evidence"]] == [
        ("department", "Coarse", 1200, 1200),
        ("worker", "Crowd", 1371, 702),
        ("product", "Exact", 60, 60),
    ]
    assert [e["simulated"] for e in metrics["evidence"]] == [False, True, False]
    entries = {e["key"]: e for e in metrics["evaluation"]["entries"]}
    assert list(entries) == [
        "posterior",
        "features",
        "exact_only",
        "labels",
        "labels:department",
        "labels:worker",
        "majority",
    ]
    for entry in entries.values():
        assert entry["rows"] == 60
        low, high = entry["interval"]
        assert 0 <= low <= entry["accuracy"] + 0.01
        assert entry["accuracy"] - 0.01 <= high <= 1
    assert entries["labels:department"]["accuracy"] == pytest.approx(1 / 3)  # three products each, drawn evenly
    assert entries["posterior"]["accuracy"] > entries["labels"]["accuracy"] + 0.1
    assert entries["features"]["accuracy"] > entries["exact_only"]["accuracy"]
    workers = {s["name"]: s["accuracy"] for s in metrics["sources"] if s["kind"] == "Crowd"}
    truth = {"worker_1": 0.91, "worker_2": 0.58, "worker_3": 0.88}
    for name, accuracy in truth.items():
        assert workers[name] == pytest.approx(accuracy, abs=0.06)
    assert sum(sum(map(sum, c["matrix"])) for c in metrics["confusion"]) <= 1200
    assert len(metrics["confusion"]) == 8
    assert metrics["worst"][0]["suspect"] >= metrics["worst"][1]["suspect"]
    assert metrics["suspects"] == sum(s["suspects"] for s in metrics["sources"])
    assert 'the labels of "worker" are simulated: a program drew them' in metrics["warnings"]


def test_the_written_configuration_runs_again(inside: Path) -> None:
    arguments = ["fit", "runs/t1/config.toml", "--out", "runs/again", "--dry-run"]
    assert run(arguments) == 0
    assert not (inside / "runs/again").exists()


def test_predict(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", "runs/t1", "tickets/new.csv", "--out", "new.parquet", "--truth", "product"]) == 0
    said = capsys.readouterr().out
    table = parquet.read_table("new.parquet").to_pandas()
    assert table.columns.tolist() == [
        "id",
        "class",
        "probability",
        "entropy",
        "class_2",
        "probability_2",
        "class_3",
        "probability_3",
    ]
    assert table.id.iloc[0] == "5001"
    assert (table.probability >= table.probability_2).all()
    truth = anygrain_rows(inside / "tickets/new.csv", "product")
    right = float((table["class"].to_numpy() == truth).mean())
    assert right > 0.85
    assert f"accuracy {right:.2f}" in said
    learner = anygrain.load(inside / "runs/t1")
    probs = learner.predict_proba(anygrain_rows(inside / "tickets/new.csv", "text").tolist())
    np.testing.assert_allclose(probs.max(axis=1), table.probability, atol=1e-6)
    assert fails(capsys, ["predict", "runs/t1", "tickets/new.csv", "--out", "new.parquet"]) == (
        "new.parquet exists. Choose another --out, or add --overwrite"
    )


def anygrain_rows(path: Path, column: str) -> np.ndarray:
    from anygrain.data.table import read_table

    return read_table(path).strings(column)


def test_predict_at_a_level(inside: Path) -> None:
    arguments = ["predict", "runs/t1", "tickets/new.csv", "--out", "dep.csv", "--level", "department", "--overwrite"]
    assert run(arguments) == 0
    departments = set(anygrain_rows(inside / "tickets/taxonomy.csv", "department"))
    assert set(anygrain_rows(inside / "dep.csv", "node")) <= departments


def test_report(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "runs/t1"]) == 0
    assert "report.html" in capsys.readouterr().out
    assert fails(capsys, ["report", "runs/none"]) == (
        "There is no run folder runs/none. Expected one that anygrain fit wrote"
    )


def test_no_output_names_verbs_that_are_not_there(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verbs = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    said = (inside / "runs/t1/report.html").read_text()
    for arguments in (["--help"], ["labels"], ["labels", "Crowd"], ["demo", "--copy-only"], ["systems"]):
        run(arguments)
        said += capsys.readouterr().out
    named = set(re.findall(r"anygrain ([a-z]+)[ \n<]", said)) - {"is"}
    assert {"demo", "init"} <= named
    assert named <= verbs


def test_help_is_fast_and_imports_no_torch() -> None:
    code = "import sys; from anygrain.cli import run; run(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Train on a table and its labels" in done.stdout


def test_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check"]) == 0
    assert "same predictions" in capsys.readouterr().out


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_run_is_not_written_over(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(capsys, ["fit", "tickets.toml", "--out", "runs/t1", *FAST]) == (
        "runs/t1 holds a finished run. Add --overwrite to replace it, or choose another --out"
    )
    assert run(["fit", "tickets.toml", "--out", "runs/t1", *FAST, "--resume"]) == 0
    assert "is finished already" in capsys.readouterr().out
    assert fails(capsys, ["init", "tickets/tickets.csv"]) == (
        "tickets.toml exists. Choose another --out, or add --overwrite"
    )


def test_contradictions_stop_the_program_unless_softened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_demo("tickets", tmp_path)
    monkeypatch.chdir(tmp_path)
    lines = Path("tickets.csv").read_text().splitlines()
    known = [at for at, line in enumerate(lines) if at and line.rsplit(",", 1)[1]][:2]
    for at in known:
        product = lines[at].rsplit(",", 1)[1]
        other = "alarm" if product not in ("alarm", "timer", "weather") else "recipe"
        lines[at] = lines[at][: -len(product)] + other
    Path("tickets.csv").write_text("\n".join(lines) + "\n")
    rows = [lines[at].split(",")[0] for at in known]
    assert run(["init", "tickets.csv", "--taxonomy", "taxonomy.csv"]) == 0
    message = fails(capsys, ["fit", "tickets.toml", "--out", "run", *FAST])
    assert message.startswith(f'Row {rows[0]}: department "')
    assert message.endswith(
        f'2 rows contradict themselves: {rows[0]}, {rows[1]}. Continue with --set conflicts="soften", or fix them'
    )
    assert not Path("run").exists()
    assert run(["fit", "tickets.toml", "--out", "run", *FAST, "--set", "conflicts=soften"]) == 0
    assert anygrain_rows(Path("run/conflicts.csv"), "row").tolist() == rows
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["conflicts"]["rows"] == 2
    assert metrics["conflicts"]["file"] == "conflicts.csv"


def test_bad_input_writes_nothing(
    inside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path("tickets.toml").read_text()
    Path("bad.toml").write_text(text.replace('column = "department"', 'column = "departmnt"'))
    before = sorted(p.name for p in Path("runs").iterdir())
    assert fails(capsys, ["fit", "bad.toml", "--out", "runs/bad"]) == (
        'tickets.csv has no column "departmnt". Did you mean "department"? Columns: id, text, department, ... (4 more)'
    )
    Path("bad.toml").write_text(text + "[encoder]\ndims = 3\n")
    line = len(text.splitlines()) + 2
    assert fails(capsys, ["fit", "bad.toml", "--out", "runs/bad"]) == (
        f"bad.toml line {line}: encoder.dims is not a setting. Did you mean encoder.dim? (int, default 256)"
    )
    assert fails(capsys, ["fit", "tickets.toml", "--out", "runs/bad", "--set", "data.images=photo"]) == (
        'tickets.csv has no column "photo". Columns: id, text, department, ... (4 more)'
    )
    assert sorted(p.name for p in Path("runs").iterdir()) == before


def test_bad_input_that_shows_in_the_fit_leaves_nothing(
    inside: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object, **more: object) -> None:
        raise anygrain.labels.LabelError("these labels cannot be")

    monkeypatch.setattr("anygrain.learn.learner.Learner.fit", refuse)
    assert fails(capsys, ["fit", "tickets.toml", "--out", "runs/refused"]) == "these labels cannot be"
    assert not Path("runs/refused").exists()


def test_a_model_folder_with_a_pickle(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("runs/t1", "runs/pickled")
    Path("runs/pickled/model/head.pkl").write_bytes(b"\x80\x04.")
    assert fails(capsys, ["predict", "runs/pickled", "tickets/new.csv", "--out", "p.csv"]) == (
        "runs/pickled/model contains head.pkl. anygrain never opens pickles; expected config.json and "
        "model.safetensors. "
        "Export it again with anygrain, or pass only the weights"
    )
    shutil.rmtree("runs/pickled")


def test_usage_errors_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(capsys, ["sytems"]) == "No such command 'sytems'. Did you mean 'systems'? (anygrain --help)"
    assert "anygrain --help" in fails(capsys, ["fit"])
    assert fails(capsys, ["labels", "crowds"]).startswith(
        '"crowds" is not a kind of label. Did you mean "Crowd"? Kinds: Exact, '
    )
    assert fails(capsys, ["systems", "--room", "label"]).startswith('There is no room "label". Did you mean "labels"?')
    assert fails(capsys, ["demo", "ticket"]) == 'There is no demo ticket. Did you mean "tickets"? Demos: tickets'


def test_trace_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "ticket", "--trace"]) == 2
    assert "Traceback" in capsys.readouterr().err


# -- stopped and resumed ----------------------------------------------------------------------------------------------


def start(folder: Path, out: str, *more: str) -> subprocess.Popen[str]:
    arguments = ["fit", "tickets.toml", "--out", out, *FAST, "--set", "output.report=false", *more]
    code = f"from anygrain.cli import main; main({arguments!r})"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(anygrain.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stopped_after(folder: Path, out: str, steps: int, how: signal.Signals) -> subprocess.Popen[str]:
    """A fit that was stopped by a signal as soon as some of its steps were finished."""
    process = start(folder, out)
    until = time.monotonic() + 120
    while len(list((folder / out / ".state").glob("*.safetensors"))) < steps:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(how)
    process.wait(60)
    return process


@pytest.fixture(scope="module")
def whole(here: Path) -> Path:
    """A run like those that are stopped, which was not."""
    process = start(here, "runs/whole")
    assert process.wait(240) == 0, process.stderr and process.stderr.read()
    return here / "runs/whole"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_to_the_same_result(inside: Path, whole: Path, how: signal.Signals) -> None:
    process = stopped_after(inside, "runs/broken", 2, how)
    if how == signal.SIGINT:
        assert process.returncode == 3
        assert process.stderr is not None
        said = process.stderr.read().strip()
        assert said.startswith("stopped after step ")
        assert said.endswith(
            "Go on with: anygrain fit tickets.toml --out runs/broken --set learn.rounds=2 --set output.map=false --set "
            "output.report=false --resume"
        )
        refused = start(inside, "runs/broken")
        assert refused.wait(120) == 2
        assert refused.stderr is not None
        assert "holds an unfinished run (step" in refused.stderr.read()
    assert not (inside / "runs/broken/metrics.json").exists()
    resumed = start(inside, "runs/broken", "--resume")
    assert resumed.wait(240) == 0
    assert resumed.stdout is not None
    assert "goes on after" in resumed.stdout.read()
    broken = inside / "runs/broken"
    one, two = (parquet.read_table(folder / "labels.parquet") for folder in (whole, broken))
    assert one.equals(two)
    models = [anygrain.load(folder) for folder in (whole, broken)]
    for key, value in models[0].head_.state_dict().items():
        assert torch.equal(value, models[1].head_.state_dict()[key])
    for folder in (whole, broken):
        assert not (folder / ".state").exists()
    shutil.rmtree(broken)
