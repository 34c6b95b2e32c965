"""A configuration whose encoder is trained with the head: killed anywhere, it goes on to the same result."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from pyarrow import parquet

import anygrain
from anygrain.data.table import write_table

CONFIG = """
[data]
source = "words.csv"
id = "id"
text = "text"

[[labels]]
kind = "Crowd"
columns = ["w_*"]

[encoder]
text = "transformer"

[learn]
epochs = 3

[output]
report = false
map = false
loggers = ["tensorboard"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 short texts with three voters, of whom one is often wrong."""
    pytest.importorskip("tensorboard")
    folder = tmp_path_factory.mktemp("trained")
    draw = random.Random(0)
    classes = {"door": ("open the {} door", "{} door shut"), "lamp": ("a {} lamp", "light the {} lamp")}
    rows: dict[str, list[str | None]] = {"id": [], "text": [], "w_1": [], "w_2": [], "w_3": []}
    for i in range(300):
        truth = draw.choice(list(classes))
        rows["id"].append(f"r{i}")
        rows["text"].append(draw.choice(classes[truth]).format(draw.choice(["old", "red", "tall", "new"])) + f" {i}")
        for name, error in (("w_1", 0.05), ("w_2", 0.1), ("w_3", 0.4)):
            said = draw.choice(list(classes)) if draw.random() < 2 * error else truth
            rows[name].append(said if draw.random() < 0.7 else None)
    write_table(rows, folder / "words.csv")
    (folder / "words.toml").write_text(CONFIG)
    return folder


def start(folder: Path, out: str, *more: str) -> subprocess.Popen[str]:
    code = f"from anygrain.cli import main; main({['fit', 'words.toml', '--out', out, *more]!r})"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(anygrain.__file__).parents[1])}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True
    )


def finished(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def test_a_training_killed_at_random_points_goes_on_to_the_same_result(folder: Path) -> None:
    began = time.monotonic()
    whole = start(folder, "runs/whole")
    while not (folder / "runs/whole").exists() and whole.poll() is None:
        time.sleep(0.01)
    opened = time.monotonic()
    finished(whole)
    lasted = time.monotonic() - opened
    draw = random.Random(int(began))  # another place every time
    kills = 0
    for _ in range(3):
        more = ["--resume"] if (folder / "runs/broken").exists() else []
        process = start(folder, "runs/broken", *more)
        while not (folder / "runs/broken").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.uniform(0.0, 0.8 * lasted))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills
    if not (folder / "runs/broken/metrics.json").exists():
        finished(start(folder, "runs/broken", "--resume"))
    one, two = (folder / "runs" / name for name in ("whole", "broken"))
    assert parquet.read_table(one / "labels.parquet").equals(parquet.read_table(two / "labels.parquet"))
    first, second = (anygrain.load(run) for run in (one, two))
    for key, value in first.encoder_.state_dict().items():
        assert torch.equal(value, second.encoder_.state_dict()[key])
    metrics = json.loads((one / "metrics.json").read_text())
    epochs = [f"{part}epoch {e + 1}" for part in ("", "part 1 ", "part 2 ") for e in range(3)]
    assert [step["step"] for step in metrics["history"]] == epochs
    assert list((one / "tensorboard").glob("events.*"))
