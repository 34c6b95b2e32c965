"""A run folder is never written over by chance, and is whole or says that it is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from anygrain.data.error import InputError
from anygrain.data.run_folder import RunFolder, fingerprint

CONFIG = "[learn]\nseed = 0\n"


def test_new_finished_and_overwritten(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", CONFIG, "data")
    assert folder.check() == "new"
    assert not folder.path.exists()
    folder.open("new")
    folder.write_json("metrics.json", {"bad": float("nan"), "good": 1.5})
    folder.finish()
    folder.close()
    assert json.loads((folder.path / "metrics.json").read_text()) == {"bad": None, "good": 1.5}
    assert sorted(p.name for p in folder.path.iterdir()) == ["log.jsonl", "metrics.json"]
    with pytest.raises(InputError) as caught:
        folder.check()
    assert str(caught.value) == (
        f"{folder.path} holds a finished run. Add --overwrite to replace it, or choose another --out"
    )
    assert folder.check(resume=True) == "finished"
    assert folder.check(overwrite=True) == "overwrite"
    folder.open("overwrite")
    folder.close()
    assert not (folder.path / "metrics.json").exists()


def test_unfinished(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", CONFIG, "data")
    folder.open("new")
    folder.keep_step(1, {"a": torch.arange(3)}, {"step": "one", "value": 0.5})
    folder.say_progress(1, 4)
    folder.close()
    with pytest.raises(InputError) as caught:
        folder.check()
    assert str(caught.value) == (
        f"{folder.path} holds an unfinished run (step 1 of 4, same config). Add --resume to continue, --overwrite "
        "to start "
        "again, or choose another --out"
    )
    assert folder.check(resume=True) == "resume"
    folder.open("resume")
    ((tensors, facts),) = folder.steps()
    assert tensors["a"].tolist() == [0, 1, 2]
    assert facts == {"step": "one", "value": 0.5}
    folder.close()

    other = RunFolder(tmp_path / "run", "[learn]\nseed = 1\n", "data")
    with pytest.raises(InputError) as caught:
        other.check(resume=True)
    assert str(caught.value) == (
        f"{folder.path} was begun with another configuration (learn.seed was 0, is 1). Use the same one to "
        "--resume, or "
        "--overwrite to start again"
    )
    with pytest.raises(InputError) as caught:
        RunFolder(tmp_path / "run", CONFIG, "other data").check(resume=True)
    assert str(caught.value) == (
        f"{folder.path} was begun on other data: a file has changed since. Add --overwrite to start again"
    )


def test_in_use(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", CONFIG, "data")
    folder.open("new")
    for resume, overwrite in ((False, False), (True, False), (False, True)):
        with pytest.raises(InputError) as caught:
            RunFolder(tmp_path / "run", CONFIG, "data").check(resume=resume, overwrite=overwrite)
        assert str(caught.value) == f"{folder.path} is in use by another fit. Wait for it, or choose another --out"
    folder.close()


def test_files_of_somebody_else_are_never_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    folder = RunFolder(tmp_path, CONFIG, "data")
    with pytest.raises(InputError) as caught:
        folder.check(overwrite=True)
    assert str(caught.value) == f"{tmp_path} holds 1 file that no run wrote: thesis.txt. Choose another --out"


def test_fingerprints(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("a")
    two.write_text("b")
    before = fingerprint([one, two])
    assert before == fingerprint([one, two])
    assert before != fingerprint([two, one])
    two.write_text("c")
    assert before != fingerprint([one, two])
