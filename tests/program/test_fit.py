"""Every kind of label goes from tables to a model that predicts, a report, and numbers that are what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import parquet
from sklearn.datasets import load_breast_cancer

from anygrain.audit import suspects
from anygrain.audit.errors import error_share
from anygrain.audit.sources import judge_crowds
from anygrain.cli import run
from anygrain.data.config import parse_config, with_paths
from anygrain.data.dataset import read_dataset
from anygrain.data.table import write_table
from anygrain.program.audited import audited
from anygrain.program.measure_classes import MeasuredClasses

NAMES = np.array(["malignant", "benign"])
HEAD = 'classes = ["malignant", "benign"]\n[data]\nsource = "rows.csv"\nid = "id"\ncolumns = ["x_*"]\nbag = "bag"\n'
GOLD = '[[labels]]\nkind = "Exact"\nsource = "gold.csv"\ncolumn = "truth"\n'
CASES = {
    "Exact": GOLD,
    "Soft": '[[labels]]\nkind = "Soft"\nsource = "weak.csv"\ncolumns = ["p_*"]\n',
    "Candidates": GOLD + '[[labels]]\nkind = "Candidates"\nsource = "weak.csv"\ncolumn = "maybe"\n',
    "Complementary": '[[labels]]\nkind = "Complementary"\nsource = "weak.csv"\ncolumn = "not"\n',
    "Interval": GOLD + '[[labels]]\nkind = "Interval"\nsource = "weak.csv"\nlow = "low"\nhigh = "high"\n',
    "Noisy": '[[labels]]\nkind = "Noisy"\nsource = "weak.csv"\ncolumn = "guess"\n',
    "Crowd": '[[labels]]\nkind = "Crowd"\nsource = "weak.csv"\ncolumns = ["w_*"]\n',
    "Rules": '[[labels]]\nkind = "Rules"\nsource = "weak.csv"\ncolumns = ["w_*"]\n',
    "AnyOf": GOLD + '[[labels]]\nkind = "AnyOf"\nsource = "bags.csv"\ncolumn = "any"\ntarget = "malignant"\n',
    "Counts": '[[labels]]\nkind = "Counts"\nsource = "bags.csv"\ncolumns = ["n_*"]\n',
    "Proportions": '[[labels]]\nkind = "Proportions"\nsource = "bags.csv"\ncolumns = ["p_*"]\n',
    "Pairs": GOLD + '[[labels]]\nkind = "Pairs"\nsource = "pairs.csv"\nfirst = "a"\nsecond = "b"\ncolumn = "same"\n',
    "PairsUnlabeled": '[[labels]]\nkind = "PairsUnlabeled"\nsource = "drawn_pairs.csv"\nfirst = "a"\nsecond = "b"\n'
    'column = "same"\nprior = { malignant = 0.37, benign = 0.63 }\n',
    "Compare": GOLD
    + '[[labels]]\nkind = "Compare"\nsource = "pairs.csv"\nfirst = "a"\nsecond = "b"\ncolumn = "order"\n',
    "Positive": '[[labels]]\nkind = "Positive"\nsource = "drawn.csv"\ncolumn = "known"\ntarget = "benign"\n',
    "TwoUnlabeled": '[[labels]]\nkind = "TwoUnlabeled"\nsource = "drawn.csv"\ncolumn = "site"\n'
    "priors = { north = 0.85, south = 0.34 }\n",
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 rows of the breast cancer data in bags of 8, with labels of every kind."""
    folder = tmp_path_factory.mktemp("kinds")
    random = np.random.default_rng(0)
    features, truth = load_breast_cancer(return_X_y=True)
    chosen = random.permutation(len(truth))[:240]
    x, y = features[chosen], truth[chosen]
    n = len(y)
    ids, bag = [f"r{i}" for i in range(n)], np.arange(n) // 8

    def wrong(share: float) -> np.ndarray:
        return np.where(random.random(n) < share, 1 - y, y)

    def partly(values: np.ndarray, share: float) -> list[str | None]:
        return [str(v) if random.random() < share else None for v in values]

    table: dict[str, Any] = {"id": ids, **{f"x_{j}": x[:, j].tolist() for j in range(x.shape[1])}}
    write_table({**table, "bag": [f"b{b}" for b in bag], "truth": NAMES[y].tolist()}, folder / "rows.csv")
    gold = random.choice(n, 24, replace=False)
    write_table({"id": [ids[g] for g in gold], "truth": NAMES[y[gold]].tolist()}, folder / "gold.csv")
    benign = np.clip(0.2 + 0.6 * y + random.normal(size=n) * 0.05, 0, 1)
    weak = {
        "id": ids,
        "p_benign": benign.tolist(),
        "p_malignant": (1 - benign).tolist(),
        "maybe": [str(NAMES[k]) if random.random() < 0.5 else "malignant|benign" for k in y],
        "not": partly(NAMES[1 - y], 0.5),
        "low": partly(NAMES[y], 0.5),
        "high": [None] * n,
        "guess": NAMES[wrong(0.15)].tolist(),
        **{f"w_{i}": partly(NAMES[wrong(e)], 0.7) for i, e in enumerate((0.05, 0.2, 0.3))},
    }
    write_table(weak, folder / "weak.csv")
    counts = np.stack([np.bincount(y[bag == b], minlength=2) for b in range(n // 8)])
    bags = {
        "bag": [f"b{b}" for b in range(n // 8)],
        "any": np.where(counts[:, 0] > 0, "yes", "no").tolist(),
        **{f"n_{name}": counts[:, k].tolist() for k, name in enumerate(NAMES)},
        **{f"p_{name}": (counts[:, k] / 8).tolist() for k, name in enumerate(NAMES)},
    }
    write_table(bags, folder / "bags.csv")
    i, j = random.integers(0, n, (2, 300))
    i, j = i[i != j], j[i != j]
    same = np.where(y[i] == y[j], "yes", "no").tolist()
    order = np.where(y[i] > y[j], ">", np.where(y[i] < y[j], "<", "=")).tolist()
    pairs = {"a": [ids[a] for a in i], "b": [ids[b] for b in j], "same": same, "order": order}
    write_table(pairs, folder / "pairs.csv")
    known = [str(NAMES[1]) if k == 1 and random.random() < 0.4 else None for k in y]
    site = np.where(random.random(n) < np.where(y == 1, 0.77, 0.23), "north", "south").tolist()
    write_table({"id": ids, "known": known, "site": site}, folder / "drawn.csv")
    i, j = random.permutation(n)[:160].reshape(2, -1)
    same = np.where(y[i] == y[j], "yes", "no").tolist()
    write_table({"a": [ids[a] for a in i], "b": [ids[b] for b in j], "same": same}, folder / "drawn_pairs.csv")
    return folder


@pytest.mark.parametrize("kind", list(CASES))
def test_kind(tables: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tables)
    Path("c.toml").write_text(HEAD + CASES[kind])
    assert run(["fit", "c.toml", "--out", f"runs/{kind}", "--set", "output.map=false"]) == 0, capsys.readouterr().err
    metrics = json.loads(Path(f"runs/{kind}/metrics.json").read_text())
    assert kind in [e["kind"] for e in metrics["evidence"]]
    assert (metrics["evaluation"] is not None) == ("gold" in CASES[kind])
    if kind not in (
        "Pairs",
        "Compare",
    ):  # one wrong row of a large component makes all of its pairs improbable together
        assert metrics["held_out"]["evidence_per_row"] > metrics["held_out"]["chance"]
    assert ("the class prior was not given" in capsys.readouterr().out) == (kind == "Positive")
    assert Path(f"runs/{kind}/report.html").stat().st_size < 1e6
    out = f"{kind}.parquet"
    assert run(["predict", f"runs/{kind}", "rows.csv", "--out", out, "--truth", "truth"]) == 0
    found, rows = parquet.read_table(out).to_pandas(), read(tables)
    assert (found["class"].to_numpy() == rows).mean() > 0.85


def read(folder: Path) -> np.ndarray:
    from anygrain.data.table import read_table

    return read_table(folder / "rows.csv").strings("truth")


def measured_by(dataset, p: torch.Tensor) -> MeasuredClasses:
    """The numbers of a fit whose held-out probabilities are p."""
    return MeasuredClasses(dataset, audited(p.log(), dataset.labels), p.log(), np.ones(len(p), dtype=bool))


def test_numbers_of_single_labels(tmp_path: Path) -> None:
    """Suspicion is the audit's, label by label; agreement of a handful of labels is worked out by hand."""
    (tmp_path / "t.csv").write_text("id,x,y,w_1,w_2\na,0,a,a,b\nb,0,,a,\nc,0,,b,b\n")
    config = {
        "data": {"source": "t.csv", "id": "id", "columns": ["x"]},
        "labels": [
            {"kind": "Exact", "column": "y", "error": 0.1},
            {"kind": "Crowd", "columns": ["w_1", "w_2"], "channel": "OneCoin"},
        ],
    }
    dataset = read_dataset(with_paths(parse_config(config), tmp_path))
    p = torch.tensor([[0.8, 0.2], [0.7, 0.3], [0.6, 0.4]], dtype=torch.float64)
    said = suspects(p.log(), dataset.labels)
    measured = measured_by(dataset, p)
    r = measured.records
    labels = list(zip(dataset.ids[r.row].tolist(), r.source.tolist(), r.value.tolist(), strict=True))
    assert labels == [
        ("a", "y", "a"),
        ("a", "w_1", "a"),
        ("a", "w_2", "b"),
        ("b", "w_1", "a"),
        ("c", "w_1", "b"),
        ("c", "w_2", "b"),
    ]
    kept = said["given"] != ""
    np.testing.assert_allclose(r.wrong, said["prob_wrong"][kept])
    assert r.proposed.tolist() == said["proposed"][kept].tolist()
    np.testing.assert_allclose(r.suspect, -np.log(1 - r.wrong))
    sources = {s["name"]: s for s in measured.sources()}
    (crowd,) = judge_crowds(dataset.labels, p.log())
    for at, name in enumerate(("w_1", "w_2")):
        assert sources[name]["accuracy"] == pytest.approx(crowd.annotators.accuracy[at])
    assert sources["y"]["accuracy"] == pytest.approx(1 - r.wrong[0])
    assert sources["w_1"]["agreement"] == pytest.approx((0.5 + 1) / 2)  # one of two others, then one of one
    assert sources["w_1"]["compared"] == 2
    assert sources["y"]["agreement"] == pytest.approx(0.5)
    (pair,) = measured.agreement()
    assert (pair["first"], pair["second"], pair["rows"], pair["agree"]) == ("y", "w", 1, 1)


def test_wrong_votes_are_found_whatever_the_annotator_is_like(tmp_path: Path) -> None:
    """One careful annotator and one careless one: of both, the wrong votes look wrong, and hardly another."""
    random = np.random.default_rng(0)
    n, k = 3000, 4
    truth = random.integers(0, k, n)
    accuracy = {"w_1": 0.97, "w_2": 0.55}
    votes = {}
    for name, share in accuracy.items():
        wrong = random.random(n) > share
        votes[name] = np.where(wrong, (truth + random.integers(1, k, n)) % k, truth)
    letters = np.array(list("abcd"), dtype=object)
    write_table(
        {"x": [0] * n, **{name: letters[v].tolist() for name, v in votes.items()}},
        tmp_path / "t.csv",
    )
    config = {"data": {"source": "t.csv", "columns": ["x"]}, "labels": [{"kind": "Crowd", "columns": ["w_*"]}]}
    dataset = read_dataset(with_paths(parse_config(config), tmp_path))
    seen = np.where(random.random(n) < 0.999, truth, random.integers(0, k, n))  # what the features say
    p = torch.full((n, k), 0.001 / k, dtype=torch.float64)
    p[torch.arange(n), torch.from_numpy(seen)] += 0.999
    measured = measured_by(dataset, p)
    r = measured.records
    wrong = measured.voted != truth[r.row]
    for name in accuracy:
        mine = r.source == name
        assert wrong[mine & r.looks_wrong].mean() > 0.9
        assert r.looks_wrong[mine & wrong].mean() > 0.9
    table = measured.table(None)
    assert (
        sum(table["wrong_labels"].to_pylist()) == measured.suspects() == sum(s["suspects"] for s in measured.sources())
    )


def test_sets_that_everything_else_speaks_against_look_wrong(tmp_path: Path) -> None:
    """Two bags of ten, of which one gives its counts the wrong way round; worked out by Bayes."""
    names = ["a"] * 10 + ["b"] * 10
    write_table({"id": list(range(20)), "bag": names, "x": [0] * 20}, tmp_path / "t.csv")
    (tmp_path / "bags.csv").write_text("bag,n_p,n_q\na,8,2\nb,2,8\n")
    config = {
        "classes": ["p", "q"],
        "data": {"source": "t.csv", "id": "id", "bag": "bag", "columns": ["x"]},
        "labels": [{"kind": "Counts", "source": "bags.csv", "columns": ["n_*"]}],
    }
    dataset = read_dataset(with_paths(parse_config(config), tmp_path))
    p = torch.full((20, 2), 0.5, dtype=torch.float64)
    p[:, 0] = 0.9
    p[:, 1] = 0.1
    measured = measured_by(dataset, p)
    binomial = np.array([45 * 0.9**8 * 0.1**2, 45 * 0.9**2 * 0.1**8])
    drawn, _ = error_share(torch.from_numpy(binomial).log(), torch.full((2,), -np.log(11.0)))
    np.testing.assert_allclose(measured.records.wrong, drawn.numpy() * (1 - binomial), rtol=1e-6)
    (worst,) = measured.worst()
    assert (worst["row"], worst["source"], worst["given"], worst["proposed"]) == ("b", "bags", "p 2, q 8", None)
    assert measured.suspects() == 1
    assert sum(measured.table(None)["wrong_labels"].to_pylist()) == 0


def test_labels_of_classes_that_hardly_occur_are_not_called_wrong(tmp_path: Path) -> None:
    """A model that never saw a class finds it improbable everywhere: that is nothing against its one label."""
    values = ["a"] * 3 + ["b"] * 3 + ["c"]
    write_table({"x": [0] * 7, "y": values}, tmp_path / "t.csv")
    config = {"data": {"source": "t.csv", "columns": ["x"]}, "labels": [{"kind": "Exact", "column": "y"}]}
    dataset = read_dataset(with_paths(parse_config(config), tmp_path))
    p = torch.tensor([[0.98, 0.01, 0.01]] * 7, dtype=torch.float64)
    measured = measured_by(dataset, p)
    assert measured.records.wrong[6] == 0.5
    assert (measured.records.wrong[3:6] > 0.5).all()
    assert [w["given"] for w in measured.worst()] == ["b"] * 3


def test_labels_that_a_calibrated_model_finds_improbable_are_not_called_wrong() -> None:
    """Where all labels are right, and the model as sure as it should be, hardly a label looks wrong."""
    random = np.random.default_rng(0)
    n, k = 20_000, 10
    p = random.dirichlet(np.full(k, 0.2), n)
    truth = (p.cumsum(axis=1) > random.random((n, 1))).argmax(axis=1)
    right = p[np.arange(n), truth]
    assert (right < 0.1).sum() > 500  # as many look wrong where only everything else counts
    assert (suspects(np.log(p), truth)["prob_wrong"] > 0.5).mean() < 1e-3
    drawn = random.random(n) < 0.1
    said = np.where(drawn, random.integers(0, k, n), truth)
    wrong = suspects(np.log(p), said)["prob_wrong"].to_numpy()
    assert wrong.mean() == pytest.approx((said != truth).mean(), abs=0.01)
    for low, high in ((0.05, 0.3), (0.3, 0.7), (0.7, 1)):  # the probabilities mean what they say
        inside = (wrong >= low) & (wrong < high)
        assert (said != truth)[inside].mean() == pytest.approx(wrong[inside].mean(), abs=0.06)
