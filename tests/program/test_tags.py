"""Tags from tables to predictions: handwritten digits, of which several things are true at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from anygrain.cli import run
from anygrain.data.error import InputError
from anygrain.data.table import write_table
from anygrain.program.guess import guess

TRUE_OF = {"even": (0, 2, 4, 6, 8), "prime": (2, 3, 5, 7), "round": (0, 6, 8, 9), "large": (5, 6, 7, 8, 9)}
HEAD = '[data]\nsource = "digits.csv"\nid = "id"\nfeatures = "pixel_*"\n'
LISTS = HEAD + '[[labels]]\nkind = "Tags"\ncolumn = "tags"\nempty = "absent"\n'
FAST = ["--set", "output.map=false", "--set", "output.report=false"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 digits with their tags, one in ten of the lists with a mistake; 100 others with the right ones."""
    folder = tmp_path_factory.mktemp("tags")
    random = np.random.default_rng(0)
    images, digit = load_digits(return_X_y=True)
    chosen = random.permutation(len(digit))[:400]
    truth = np.stack([np.isin(digit[chosen], which) for which in TRUE_OF.values()], axis=1)
    said = truth.copy()
    wrong = random.choice(300, 30, replace=False)
    said[wrong, random.integers(0, 4, 30)] ^= True
    names = np.array(list(TRUE_OF))
    for name, rows, table in (("digits", slice(0, 300), said), ("new", slice(300, 400), truth)):
        pixels = {f"pixel_{j}": column.tolist() for j, column in enumerate(images[chosen][rows].T)}
        flags = {f"is_{n}": column.astype(int).tolist() for n, column in zip(names, table[rows].T, strict=True)}
        lists = ["|".join(names[row]) for row in table[rows]]
        ids = [f"d{i}" for i in range(rows.start, rows.stop)]
        write_table({"id": ids, **pixels, "tags": lists, **flags}, folder / f"{name}.csv")
    np.savez(folder / "truth.npz", truth=truth[:300], said=said[:300])
    (folder / "lists.toml").write_text(LISTS)
    return folder


@pytest.fixture
def inside(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(here)
    if not Path("runs/lists").exists():
        assert run(["fit", "lists.toml", "--out", "runs/lists"]) == 0
    return here


def test_the_run(inside: Path) -> None:
    metrics = json.loads(Path("runs/lists/metrics.json").read_text())
    assert (metrics["space"], metrics["tags"]) == ("tags", sorted(TRUE_OF))
    assert metrics["held_out"]["evidence_per_row"] > metrics["held_out"]["chance"]
    ours, prior = metrics["evaluation"]["entries"]
    assert (ours["key"], prior["key"]) == ("features", "prior")
    assert ours["map"] > 0.85 > 0.6 > prior["map"]
    assert ours["micro_f1"] > 0.85
    assert ours["log_loss"] < 0.6 * prior["log_loss"]
    assert prior["auc"] == 0.5
    for entry in (ours, prior):
        for score in ("micro_f1", "macro_f1", "log_loss"):
            low, high = entry[f"{score}_interval"]
            assert low <= entry[score] <= high
    by_tag = {t["tag"]: t for t in metrics["tags_table"]}
    said = np.load("truth.npz")["said"]
    assert [by_tag[name]["on"] for name in TRUE_OF] == said.sum(axis=0).tolist()
    assert all(t["on"] + t["off"] == 300 and t["unknown"] == 0 for t in by_tag.values())
    assert np.mean([t["average_precision"] for t in by_tag.values()]) == pytest.approx(ours["map"])
    together = np.array(metrics["together"]["matrix"])
    np.testing.assert_allclose(
        np.diag(together), [by_tag[n]["expected"] for n in metrics["together"]["tags"]], atol=0.01
    )
    assert (together <= np.diag(together)[:, None] + 0.02).all()
    page = Path("runs/lists/report.html").read_text()
    for words in ("Tag by tag", "Tags that go together", "Entries that look wrong", "naming every tag", "wrong lacks"):
        assert words in page


def test_labels_of_the_run_and_wrong_entries(inside: Path) -> None:
    table = parquet.read_table("runs/lists/labels.parquet").to_pandas()
    names = sorted(TRUE_OF)
    order = [list(TRUE_OF).index(n) for n in names]
    with np.load("truth.npz") as kept:
        truth, said = kept["truth"][:, order], kept["said"][:, order]
    assert table["given"].map(list).tolist() == [[n for n, s in zip(names, row, strict=True) if s] for row in said]
    assert (table["given_absent"] == (~said).sum(axis=1)).all()
    probs = table[[f"p_{n}" for n in names]].to_numpy()
    np.testing.assert_allclose(probs, said)  # what is known for certain stays
    predicted = table[[f"predicted_p_{n}" for n in names]].to_numpy()
    assert ((predicted > 0.5) == truth).mean() > 0.9
    of_said = np.where(said, predicted, 1 - predicted)
    np.testing.assert_allclose(table["evidence"], np.log(of_said).sum(axis=1), rtol=1e-4, atol=1e-4)
    wrong = (truth != said).any(axis=1)
    flagged = table["wrong_labels"].to_numpy() > 0
    assert flagged.sum() > 3
    assert (flagged & wrong).sum() >= 0.8 * flagged.sum()
    most = np.argsort(-table["suspect"].to_numpy(), kind="stable")[: int(wrong.sum())]
    assert wrong[most].mean() > 0.5 > 3 * wrong.mean()


def test_predict(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run(["predict", "runs/lists", "new.csv", "--out", "p.parquet", "--truth", "tags", "--overwrite"]) == 0
    out = capsys.readouterr().out
    assert 'on 100 rows with "tags": mAP 0.9' in out
    found = parquet.read_table("p.parquet").to_pandas()
    names = sorted(TRUE_OF)
    assert found.columns.tolist() == ["id", "tags", *(f"p_{n}" for n in names)]
    probs = found[[f"p_{n}" for n in names]].to_numpy()
    assert found["tags"].map(list).tolist() == [
        [n for n, p in zip(names, row, strict=True) if p > 0.5] for row in probs
    ]
    command = ["predict", "runs/lists", "new.csv", "--out", "p.csv", "--threshold", "0.2", "--truth", "is_*"]
    assert run([*command, "--overwrite"]) == 0
    assert "tags a row above 0.2" in capsys.readouterr().out
    lines = Path("p.csv").read_text().splitlines()
    assert len(lines) == 101
    assert sum(line.count('""') // 2 for line in lines) == int((probs > 0.2).sum())  # JSON lists
    for flags, said in (
        (["--level", "x"], "--level is for classes, and runs/lists predicts tags. Leave it out"),
        (["--coverage", ".8"], "--coverage is for numbers, and runs/lists predicts tags. Leave it out"),
        (["--threshold", "1"], "--threshold is 1. Expected a probability of at least 0 and below 1, such as 0.5"),
        (
            ["--truth", "id"],
            'new.csv: 100 values of "id" are not in the tags of the model: "d300" (1 row, first row d300)',
        ),
    ):
        assert run(["predict", "runs/lists", "new.csv", "--out", "q.csv", *flags]) == 2
        assert capsys.readouterr().err.startswith(said)
        assert not Path("q.csv").exists()


def test_a_killed_fit_goes_on_to_the_same_result(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from anygrain.program import fit

    Path("two.toml").write_text(LISTS + '[[labels]]\nkind = "Tags"\ncolumns = ["is_*"]\nerror = 0.05\n')
    whole = ["fit", "two.toml", *FAST, "--out"]
    assert run([*whole, "runs/whole"]) == 0
    seen = 0

    def stop() -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit, "stop_if_asked", stop)
        assert run([*whole, "runs/cut"]) == 3
    assert "stopped after step 2 of 5" in capsys.readouterr().err
    assert run([*whole, "runs/cut", "--resume"]) == 0
    assert "goes on after 2 finished steps" in capsys.readouterr().out
    model = "model/model.safetensors"
    assert Path("runs/cut", model).read_bytes() == Path("runs/whole", model).read_bytes()
    metrics = json.loads(Path("runs/whole/metrics.json").read_text())
    assert [e["key"] for e in metrics["evaluation"]["entries"]] == ["posterior", "features", "prior"]
    assert metrics["agreement"][0]["share"] == 1.0


def test_an_encoder_may_be_trained_with_the_tags(inside: Path) -> None:
    config = LISTS.replace('features = "pixel_*"', 'columns = ["pixel_*"]')
    Path("trained.toml").write_text(config + '[encoder]\ntable = "columns"\n[learn]\nepochs = 2\ncross_fit = false\n')
    assert run(["fit", "trained.toml", "--out", "runs/trained", *FAST]) == 0
    metrics = json.loads(Path("runs/trained/metrics.json").read_text())
    assert any("are scored by a model that was trained on their labels" in w for w in metrics["warnings"])
    assert 0 < metrics["evaluation"]["rows"] < 100


@pytest.mark.parametrize("method", ["pu_mlc", "comic"])
def test_tags_are_learnt_from_marks_alone(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the tags that rows have are marked, and none is known to be off: rows are ranked by the truth."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    has = x > 0.5
    marked = has & (rng.random(has.shape) < 0.5)
    table: dict[str, Any] = {"id": [f"r{i}" for i in range(300)]} | {f"x{c}": x[:, c] for c in range(3)}
    table |= {f"is_{c}": ["1" if on else "" for on in marked[:, c]] for c in range(3)}
    write_table(table, tmp_path / "t.csv")
    Path("c.toml").write_text(
        '[data]\nsource = "t.csv"\nid = "id"\ncolumns = ["x*"]\n[[labels]]\nkind = "Tags"\ncolumns = ["is_*"]\n'
    )
    assert run(["fit", "c.toml", "--out", "run", *FAST]) == 2
    assert 'method = "pu_mlc" or "comic"' in capsys.readouterr().err
    assert run(["fit", "c.toml", "--out", "run", *FAST, "--set", f"learn.method={method}"]) == 0
    assert "its probabilities have no scale" in capsys.readouterr().out
    assert run(["predict", "run", "t.csv", "--out", "p.parquet"]) == 0
    found = parquet.read_table("p.parquet").to_pandas()
    for c in range(3):
        assert roc_auc_score(has[:, c], found[f"p_{c}"]) > 0.9
    compared = ["fit", "c.toml", "--set", f"learn.method={method}", "--compare", "pu_mlc,comic", "--out", "compared"]
    assert run(compared) == 2
    assert "nothing can be compared" in capsys.readouterr().err


def test_check_and_dry_run_count_tags(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = np.load("truth.npz")["said"].sum(axis=0)
    capsys.readouterr()
    for command in (["check", "lists.toml"], ["fit", "lists.toml", "--out", "runs/dry", "--dry-run"]):
        assert run(command) == 0
        out = capsys.readouterr().out
        for name, on in zip(TRUE_OF, said.tolist(), strict=True):
            assert [name, str(on), str(300 - on), "0"] in [line.split() for line in out.splitlines()]
    assert not Path("runs/dry").exists()


# -- the guess --------------------------------------------------------------------------------------------------------


def table_of(folder: Path, **columns: list[object]) -> Path:
    n = 60
    base = {"id": [f"r{i}" for i in range(n)], "text": [f"the quick brown fox number {i} jumps" for i in range(n)]}
    write_table(
        base
        | {name: [cell for _, cell in zip(range(n), column * n, strict=False)] for name, column in columns.items()},
        folder / "t.csv",
    )
    return folder / "t.csv"


def labels(path: Path, **how: object) -> list[dict[str, object]]:
    return guess(path, **how).settings["labels"]  # type: ignore[arg-type]


def test_tags_are_guessed_where_they_are_clear(tmp_path: Path) -> None:
    lists = table_of(tmp_path, topics=["war|peace", "peace", "", "love|war|peace"])
    assert labels(lists) == [{"kind": "Tags", "column": "topics"}]
    found = guess(lists)
    assert [(r.columns, r.read_as, r.why) for r in found.rows][-1] == (
        "topics",
        "Tags",
        'cells list 3 names, up to 3 a row, split by "|"',
    )
    assert any('empty = "absent"' in note for note in found.notes)
    assert labels(table_of(tmp_path, topics=["war; peace", "peace", "love"])) == [
        {"kind": "Tags", "column": "topics", "separator": ";"}
    ]
    assert labels(table_of(tmp_path, odd=['["war", "peace"]', '["peace"]'])) == [{"kind": "Tags", "column": "odd"}]
    flags = table_of(tmp_path, is_rude=[0, 1, 1], is_late=[1, 1, 0])
    assert labels(flags) == [{"kind": "Tags", "columns": ["is_*"]}]
    assert labels(table_of(tmp_path, rude=[0, 1, 1], late=[1, 1, 0], angry=[0, 0, 1])) == [
        {"kind": "Tags", "columns": ["rude", "late", "angry"]}
    ]


def test_what_is_not_clear_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column looks like a label"):
        labels(table_of(tmp_path, town=["Paris, France", "Rome, Italy", "Oslo, Norway"]))
    one_each = guess(table_of(tmp_path, is_a=[1, 0], is_b=[0, 1]))
    assert one_each.settings["labels"][0]["kind"] == "Soft"
    both = guess(table_of(tmp_path, words=["war|peace", "peace", "love"], label=["ham", "spam"]))
    assert [label["kind"] for label in both.settings["labels"]] == ["Exact"]
    assert any("--column words=Tags" in note for note in both.notes)


def test_what_is_said_holds(tmp_path: Path) -> None:
    path = table_of(tmp_path, words=["war|peace", "peace", "love"], label=["ham", "spam"])
    assert labels(path, given=["words=Tags"]) == [{"kind": "Tags", "column": "words"}]
    assert labels(path, target="words") == [{"kind": "Tags", "column": "words"}]
    with pytest.raises(InputError, match='--column text=Tags: the cells of "text" list no names'):
        labels(path, given=["text=Tags"])
    with pytest.raises(InputError, match="--column label=Exact speaks of classes, and Tags of tags"):
        labels(path, given=["words=Tags", "label=Exact"])
    flags = table_of(tmp_path, rude=[0, 1, 1], late=[1, 1, 0])
    assert labels(flags, given=["rude=Tags", "late=Tags"]) == [{"kind": "Tags", "columns": ["rude", "late"]}]
