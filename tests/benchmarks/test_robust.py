"""The table of methods for doubtful labels: what is forgotten, which rows are trusted, what is compared with what."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "benchmarks" / "peers")]

robust = pytest.importorskip("robust")


def test_what_is_forgotten():
    assert robust.named("cross_entropy, mlp", "given", {"cross_entropy"})
    assert robust.named("default", "kind", {"default/kind"})
    assert not robust.named("default", "truth", {"default/kind", "gce"})
    assert robust.names_in("gce, default/kind") == {"gce", "default/kind"}
    with pytest.raises(SystemExit, match="no method is called gces"):
        robust.names_in("gces")


def test_finished_cases_are_read_again(tmp_path):
    file = tmp_path / "robust.jsonl"
    assert robust.found_before(file) == {}
    case, found = ("weak_trec", "gce", "given", 1), {"accuracy": 0.5, "seconds": 1.0}
    file.write_text(robust.line_of(case, found))
    assert robust.found_before(file) == {case: found}


def test_the_first_rows_of_every_class_are_trusted():
    truth = np.array([2, 0, 2, 2, 1, 0, 0])
    assert robust.first_of_classes(truth, 2).tolist() == [2, 0, 2, -1, 1, 0, -1]


def test_methods_are_compared_with_the_default_on_the_same_labels():
    scores = {"balanced": 0.0, "log_loss": 1.0, "ece": 0.1, "seconds": 1.0}
    accuracy = {("default", "given"): 0.5, ("gce", "given"): 0.6, ("default", "few"): 0.2, ("tsvm", "few"): 0.3}
    done = {
        ("clinc150", *case, seed): {"accuracy": value + 0.01 * seed, **scores}
        for case, value in accuracy.items()
        for seed in range(3)
    }
    rows = robust.table("clinc150", done).splitlines()
    of = {tuple(cell.strip(" *") for cell in row.split("|")[1:3]): row for row in rows if row.startswith("| ")}
    assert "| +0.100 ± 0.000 |" in of["gce", "as given"]
    assert "| +0.100 ± 0.000 |" in of["tsvm", "few"]
    assert "**default**" in of["default", "few"]
    assert any(row.startswith("- Better") and "gce (as given" in row and "tsvm (few" in row for row in rows)
