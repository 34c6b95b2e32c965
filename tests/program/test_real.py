"""A number instead of a class: every kind of label from tables to intervals that hold what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyarrow import parquet
from sklearn.datasets import load_diabetes

from anygrain.cli import run
from anygrain.data.config import parse_config, with_paths
from anygrain.data.error import InputError
from anygrain.data.number_conflicts import find_number_conflicts
from anygrain.data.number_dataset import NumberDataset, read_number_dataset, softened_numbers
from anygrain.data.table import write_table
from anygrain.metrics import crps_scores
from anygrain.program.audited import audited
from anygrain.program.guess import guess
from anygrain.program.measure_numbers import MeasuredNumbers

HEAD = '[data]\nsource = "rows.csv"\nid = "id"\ncolumns = ["x_*"]\nbag = "bag"\n[learn]\nhead = "gaussian"\n'
GOLD = '[[labels]]\nkind = "Value"\nsource = "gold.csv"\ncolumn = "y"\n'
CASES = {
    "Value": GOLD,
    "Censored": GOLD + '[[labels]]\nkind = "Censored"\nsource = "weak.csv"\nlow = "low"\nhigh = "high"\n',
    "Ratings": '[[labels]]\nkind = "Ratings"\nsource = "weak.csv"\ncolumns = ["r_*"]\n',
    "AggregateValue": GOLD + '[[labels]]\nkind = "AggregateValue"\nsource = "bags.csv"\ncolumn = "mean"\nnoise = 0.1\n',
}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 rows of numbers that three columns explain up to noise of .5, in bags of 4, with labels of every kind."""
    folder = tmp_path_factory.mktemp("numbers")
    random = np.random.default_rng(0)
    n = 200
    x = random.normal(size=(n, 3))
    y = 10 + x @ np.array([2.0, -1.0, 0.5]) + 0.5 * random.normal(size=n)
    ids, bag = [f"r{i}" for i in range(n)], np.arange(n) // 4
    columns = {f"x_{j}": x[:, j].tolist() for j in range(3)}
    write_table({"id": ids, **columns, "bag": [f"b{b}" for b in bag], "truth": y.tolist()}, folder / "rows.csv")
    gold = random.choice(n, 60, replace=False)
    write_table({"id": [ids[g] for g in gold], "y": y[gold].tolist()}, folder / "gold.csv")
    raters = {}
    for j, (bias, spread) in enumerate([(0.0, 0.3), (2.0, 0.5), (-1.0, 1.5)]):
        given = y + bias + spread * random.normal(size=n)
        raters[f"r_{j}"] = [float(v) if random.random() < 0.8 else None for v in given]
    weak: dict[str, Any] = {"id": ids, "low": np.floor(y).tolist(), "high": [None] * n, **raters}
    write_table(weak, folder / "weak.csv")
    write_table(
        {"bag": [f"b{b}" for b in range(n // 4)], "mean": [float(y[bag == b].mean()) for b in range(n // 4)]},
        folder / "bags.csv",
    )
    return folder


@pytest.mark.parametrize("kind", list(CASES))
def test_kind(tables: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tables)
    Path("c.toml").write_text(HEAD + CASES[kind])
    assert run(["fit", "c.toml", "--out", f"runs/{kind}", "--set", "output.map=false"]) == 0, capsys.readouterr().err
    metrics = json.loads(Path(f"runs/{kind}/metrics.json").read_text())
    assert metrics["space"] == "real"
    assert kind in [e["kind"] for e in metrics["evidence"]]
    assert metrics["held_out"]["evidence_per_row"] > metrics["held_out"]["chance"]
    assert (metrics["evaluation"] is not None) == ("gold" in CASES[kind])
    if metrics["evaluation"]:
        entries = {e["key"]: e for e in metrics["evaluation"]["entries"]}
        assert entries["features"]["rmse"] < 0.8 < 2 < entries["mean"]["rmse"]
        assert abs(entries["mean"]["r2"]) < 0.1
        assert all(e["rmse_interval"][0] <= e["rmse"] <= e["rmse_interval"][1] for e in entries.values())
        if kind == "Censored":  # ranges of a row that is held out still speak of it
            assert entries["posterior"]["rmse"] < entries["features"]["rmse"]
    else:
        told = {s["name"]: s for s in metrics["sources"]}
        assert told["r_1"]["bias"] - told["r_2"]["bias"] == pytest.approx(3, abs=0.4)
        assert told["r_0"]["spread"] < told["r_1"]["spread"] < told["r_2"]["spread"]
    assert 10_000 < Path(f"runs/{kind}/report.html").stat().st_size < 1e6
    out = f"{kind}.parquet"
    capsys.readouterr()
    command = ["predict", f"runs/{kind}", "rows.csv", "--out", out, "--coverage", ".8", "--truth", "truth"]
    assert run(command) == 0
    assert "inside the 80 % intervals" in capsys.readouterr().out
    found, truth = parquet.read_table(out).to_pandas(), _truth(tables)
    assert list(found) == ["id", "mean", "sd", "low", "high"]
    assert np.corrcoef(found["mean"], truth)[0, 1] > 0.95
    assert 0.65 < ((found["low"] <= truth) & (truth <= found["high"])).mean() < 0.95
    labels = parquet.read_table(f"runs/{kind}/labels.parquet").to_pandas()
    given = labels["value"].notna()
    if kind != "Ratings":
        np.testing.assert_allclose(labels["mean"][given], labels["value"][given])  # known numbers stay what they are
        assert (labels["sd"][given] < 1e-6).all()
        assert (labels["predicted_sd"] > 0).all()


def _truth(folder: Path) -> np.ndarray:
    from anygrain.data.table import read_table

    return read_table(folder / "rows.csv").numbers("truth")


def test_a_stopped_fit_goes_on_to_the_same_result(
    tables: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from anygrain.program import fit

    monkeypatch.chdir(tables)
    Path("c.toml").write_text(HEAD + GOLD)
    whole = ["fit", "c.toml", "--set", "output.map=false", "--set", "output.report=false", "--out"]
    assert run([*whole, "runs/whole"]) == 0
    seen = 0

    def stop() -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit, "stop_if_asked", stop)
        assert run([*whole, "runs/cut"]) == 3
    assert "stopped after step 3 of" in capsys.readouterr().err
    assert run([*whole, "runs/cut"]) == 2
    assert "Add --resume to continue" in capsys.readouterr().err
    assert run([*whole, "runs/cut", "--resume"]) == 0
    assert "goes on after 3 finished steps" in capsys.readouterr().out
    model = "model/model.safetensors"
    assert Path("runs/cut", model).read_bytes() == Path("runs/whole", model).read_bytes()
    assert run([*whole, "runs/whole"]) == 2
    assert "holds a finished run. Add --overwrite" in capsys.readouterr().err
    assert run([*whole, "runs/whole", "--overwrite"]) == 0
    assert Path("runs/cut", model).read_bytes() == Path("runs/whole", model).read_bytes()


def test_dry_run_writes_nothing(tables: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tables)
    Path("c.toml").write_text(HEAD + GOLD)
    assert run(["fit", "c.toml", "--out", "runs/dry", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert '200 rows · the number "y" · 1 kind of evidence' in out
    assert not Path("runs/dry").exists()


# -- bad input --------------------------------------------------------------------------------------------------------

VALUE = {"kind": "Value", "column": "y"}
TABLE = {"id": ["a", "b", "c", "d"], "x": [1, 2, 3, 4], "bag": ["p", "p", "q", "q"]}


def dataset(folder: Path, columns: dict[str, Any], *labels: dict[str, Any], **more: Any) -> NumberDataset:
    blank = {name: [None if v == "" else v for v in column] for name, column in columns.items()}
    write_table({**TABLE, **blank}, folder / "t.csv")
    data = {"source": "t.csv", "id": "id", "columns": ["x"], "bag": "bag"}
    return read_number_dataset(with_paths(parse_config({"data": data, "labels": list(labels), **more}), folder))


@pytest.mark.parametrize(
    ("columns", "label", "said"),
    [
        (
            {"y": ["1", "high", "", "2"]},
            VALUE,
            't.csv: 1 value of "y" is not a number (first: "high" in row b); does it mean nothing? --set '
            'missing="high"',
        ),
        (
            {"y": ["1", "inf", "", "2"]},
            VALUE,
            't.csv: 1 value of "y" is infinite (first: "inf" in row b). Expected a number, or an empty cell',
        ),
        (
            {"y": ["1,5", "2,5", "", "2"]},
            VALUE,
            't.csv: 2 values of "y" are not numbers (first: "1,5" in row a). Write decimal points, not commas',
        ),
        ({"y": ["", "", "", ""]}, VALUE, 'labels "y" (Value): t.csv holds none in "y"'),
        ({"z": ["1", "", "", ""]}, VALUE, 't.csv has no column "y". Columns: id, x, bag, ... (1 more)'),
        (
            {"low": ["1", "3", "", "2"], "high": ["2", "1", "", ""]},
            {"kind": "Censored", "low": "low", "high": "high"},
            't.csv: 1 row with "low" above "high" (first: row b, 3 to 1). Expected the low end first; exchange low and '
            "high, or fix the rows",
        ),
        (
            {"low": ["inf", "3", "", "2"]},
            {"kind": "Censored", "low": "low"},
            't.csv: 1 value of "low" is infinite (first: "inf" in row a). Expected a number, or an empty cell',
        ),
        (
            {},
            {"kind": "Censored"},
            'labels "censored" (Censored) have no column. Expected low and high, or one of them, naming columns',
        ),
        (
            {},
            {"kind": "Ratings", "annotator": "x"},
            'labels "ratings" (Ratings) have no rating. Expected columns = ["rater_1", ...], or source = "ratings.csv" '
            "with item, annotator and rating naming its columns",
        ),
        (
            {"m": ["1", "2", "3", "3"]},
            {"kind": "AggregateValue", "column": "m"},
            't.csv: 1 bag with different values of "m", first bag "p": "1.0" and "2.0". Expected one value per bag',
        ),
    ],
)
def test_bad_cells(tmp_path: Path, columns: dict[str, Any], label: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        dataset(tmp_path, columns, label)
    assert str(caught.value) == said


def test_bags_of_a_table_beside_the_rows(tmp_path: Path) -> None:
    (tmp_path / "bags.csv").write_text("bag,m\np,1.5\nr,2\n")
    label = {"kind": "AggregateValue", "source": "bags.csv", "column": "m"}
    with pytest.raises(InputError) as caught:
        dataset(tmp_path, {}, label)
    assert str(caught.value) == 'bags.csv names 1 bag that no row of t.csv belongs to: r (looked in "bag").'
    (tmp_path / "bags.csv").write_text("bag,m\np,1.5\n")
    found = dataset(tmp_path, {}, label)
    assert found.notes == ["bags.csv says nothing about 1 bag of t.csv."]
    assert found.evidence[0].rows.tolist() == [True, True, False, False]


def test_ratings_of_a_long_table(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("id,who,stars\na,ann,1\na,bob,3\nc,ann,2\nc,ann,4\nd,,5\nb,bob,\n")
    label = {"kind": "Ratings", "source": "ratings.csv", "annotator": "who", "rating": "stars"}
    with pytest.raises(InputError) as caught:
        dataset(tmp_path, {}, label)
    assert str(caught.value) == (
        'ratings.csv: 1 repeated (annotator, row) pair, first ann on row c: "2.0" and "4.0". Keep last, first or both? '
        '--set labels.ratings.repeats="last"'
    )
    found = dataset(tmp_path, {}, {**label, "repeats": "last"}).evidence[0]
    assert list(zip(found.record_row.tolist(), found.record_source, found.record_value, strict=True)) == [
        (0, "ann", "1"),
        (0, "bob", "3"),
        (2, "ann", "4"),
    ]
    assert found.notes == ["ratings.csv: 2 of 6 ratings are empty or of nobody, and left out."]


def test_values_of_a_table_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "gold.csv").write_text("id,y\nc,5\na,5.50\na,5.5\n")
    found = dataset(tmp_path, {}, {**VALUE, "source": "gold.csv"})
    np.testing.assert_array_equal(found.values()[0], [5.5, np.nan, 5.0, np.nan])
    (tmp_path / "gold.csv").write_text("id,y\na,5.50\na,5.4\n")
    with pytest.raises(InputError, match=r'1 repeated row of "y", first row a: "5.5" and "5.4"'):
        dataset(tmp_path, {}, {**VALUE, "source": "gold.csv"})
    found = dataset(tmp_path, {}, {**VALUE, "source": "gold.csv", "repeats": "first"})
    assert found.values()[0][0] == 5.5


def config(*labels: dict[str, Any], **more: Any) -> str:
    with pytest.raises(InputError) as caught:
        parse_config({"data": {"source": "t.csv"}, "labels": list(labels), **more}, "c.toml")
    return str(caught.value)


def test_labels_of_classes_and_of_numbers_do_not_mix() -> None:
    assert config(VALUE, {"kind": "Interval", "low": "a", "high": "b"}) == (
        'c.toml: labels "y" (Value) speak of a number, "interval" (Interval) of classes. Expected one of the two; fit '
        'the other with a configuration of its own. Is "interval" the same number? kind = "Censored"'
    )
    assert (
        config(VALUE, taxonomy="t.csv") == 'c.toml: taxonomy is for labels of classes, and "y" is a number. Remove it'
    )
    assert config(VALUE, learn={"head": "cosine"}).startswith('c.toml: learn.head "cosine" is for classes')
    exact = {"kind": "Exact", "column": "y"}
    assert config(exact, learn={"head": "gaussian"}).startswith('c.toml: learn.head "gaussian" is for numbers')
    assert config({**VALUE, "noise": -1}) == (
        "c.toml: labels (Value).noise is -1. Expected number of at least 0, default 0.0"
    )


def test_conflicts_are_named_and_may_be_softened(tmp_path: Path) -> None:
    columns = {"y": [1, 2, 3, 4], "low": [0, 5, 3, ""], "high": [2, 6, "", 3.99], "m": [1.5, 1.5, 3, 3]}
    labels = (VALUE, {"kind": "Censored", "low": "low", "high": "high"}, {"kind": "AggregateValue", "column": "m"})
    found = dataset(tmp_path, columns, *labels)
    assert [(c.row, c.problem) for c in found.conflicts] == [
        ("b", 'y "2" and censored "5..6" do not meet'),
        ("d", 'y "4" and censored "..3.99" do not meet'),
        ("q", 'm "3" cannot be with what is known of its members, whose mean lies in 3.5..3.5'),
    ]
    assert found.gap == pytest.approx(np.sqrt((3**2 + 0.01**2 + 0.5**2) / 3))
    soft = softened_numbers(found)
    assert [getattr(e, "noise", None) for e in soft.config.labels] == [pytest.approx(1.756), None, pytest.approx(1.756)]
    assert find_number_conflicts(soft.evidence, soft.ids)[0] == []
    ranges = {"low": [0, 5, "", ""], "a": ["", 6, "", ""], "b": ["", 7, "", ""], "high": [2, 5.5, "", ""]}
    two = ({"kind": "Censored", "low": "low", "high": "high"}, {"kind": "Censored", "low": "a", "high": "b"})
    with pytest.raises(InputError, match="Ranges that do not meet cannot be softened"):
        softened_numbers(dataset(tmp_path, ranges, *two))


# -- numbers ----------------------------------------------------------------------------------------------------------


def measured_by(found: NumberDataset, mean: torch.Tensor, variance: torch.Tensor) -> MeasuredNumbers:
    """The numbers of a fit with this belief about rows that it has not seen."""
    return MeasuredNumbers(
        found, audited((mean, variance), found.labels), mean, variance, np.ones(len(mean), dtype=bool)
    )


def test_what_all_else_expects_of_a_label_is_worked_out_by_hand(tmp_path: Path) -> None:
    columns = {"y": [1.0, "", 3.0, ""], "m": [1.5, 1.5, "", ""]}
    labels = ({**VALUE, "noise": 0.5}, {"kind": "AggregateValue", "column": "m"})
    found = dataset(tmp_path, columns, *labels)
    mean, variance = torch.tensor([2.0, 1.0, 3.5, 0.0]), torch.tensor([1.0, 4.0, 1.0, 1.0])
    r = measured_by(found, mean, variance)
    # value of row a: y_a given (y_a + y_b) / 2 = 1.5 is normal, then a reading of noise .5
    gain = 1 / (1 + 4)
    first, spread = 2 + gain * (3 - 3), 1 - gain * 1
    assert r.expected[0] == pytest.approx(first)
    assert r.spread[0] == pytest.approx(np.sqrt(spread + 0.25))
    assert r.residual[0] == pytest.approx((1 - first) / np.sqrt(spread + 0.25))
    assert (r.expected[1], r.spread[1]) == (pytest.approx(3.5), pytest.approx(np.sqrt(1.25)))
    # the mean of bag p, given that y_a was read as 1
    read = 2 + 1 / 1.25 * (1 - 2)
    assert r.expected[2] == pytest.approx((read + 1) / 2)
    assert r.spread[2] == pytest.approx(np.sqrt((1 - 1 / 1.25 + 4) / 4))


def test_wrong_numbers_are_found_and_heavy_tails_are_not(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    n = 4000
    mean = random.normal(size=n)
    right = mean + 0.1 * random.normal(size=n)
    wrong = random.random(n) < 0.05
    given = np.where(wrong, random.permutation(right), right)
    for y, share in ((given, 0.05), (right, 0.0), (mean + 0.1 * random.standard_t(4, n) / np.sqrt(2), 0.0)):
        table = {"id": list(range(n)), "x": [0] * n, "y": y.tolist()}
        write_table(table, tmp_path / "t.csv")
        data = {"source": "t.csv", "id": "id", "columns": ["x"]}
        found = read_number_dataset(with_paths(parse_config({"data": data, "labels": [VALUE]}), tmp_path))
        measured = measured_by(found, torch.from_numpy(mean), torch.full((n,), 0.01))
        looks = measured.records.looks_wrong
        assert looks.mean() == pytest.approx(share, abs=0.01)
        if share:
            assert wrong[looks].mean() > 0.95
            assert measured.records.wrong.mean() == pytest.approx(share, abs=0.02)
            assert np.isin(np.flatnonzero(looks), np.flatnonzero(wrong)).mean() > 0.95


def test_scores_are_those_of_their_definitions() -> None:
    grid = np.linspace(-12, 12, 200_001)
    for error, sd in ((0.3, 1.0), (-2.0, 0.5)):
        from scipy.stats import norm

        step = np.square(norm.cdf(grid, -error, sd) - (grid >= 0))  # truth 0, mean -error
        integral = float(np.trapezoid(step, grid))
        assert crps_scores([0.0], [sd], [error])[0] == pytest.approx(integral, abs=1e-4)


# -- init and predict -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diabetes")
    frame = load_diabetes(as_frame=True, scaled=False).frame
    frame.to_csv(folder / "t.csv", index=False)
    frame.rename(columns={"target": "progression"}).to_csv(folder / "unnamed.csv", index=False)
    return folder


def test_init_reads_a_target_as_a_number(diabetes: Path) -> None:
    found = guess(diabetes / "t.csv")
    assert found.settings["labels"] == [{"kind": "Value", "column": "target"}]
    assert found.settings["data"]["columns"] == ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
    assert {r.columns: r.why for r in found.rows}["target"] == "by its name, 214 different numbers"
    with pytest.raises(InputError, match="or --target"):
        guess(diabetes / "unnamed.csv")
    found = guess(diabetes / "unnamed.csv", target="progression")
    assert found.settings["labels"] == [{"kind": "Value", "column": "progression"}]
    found = guess(diabetes / "unnamed.csv", target="sex")
    assert found.settings["labels"] == [{"kind": "Exact", "column": "sex"}]
    assert {r.columns: r.why for r in found.rows}["sex"] == (
        "as you said, 2 different numbers: read as classes (as numbers: --column sex=Value)"
    )


def test_init_joins_columns_that_were_said_to_hold_numbers(diabetes: Path) -> None:
    said = ["s2=Ratings", "s3=Ratings", "age=Censored"]
    found = guess(diabetes / "unnamed.csv", given=said)
    assert found.settings["labels"] == [
        {"kind": "Censored", "high": "age"},
        {"kind": "Ratings", "columns": ["s2", "s3"]},
    ]
    with pytest.raises(InputError, match="speaks of classes, and Value of a number"):
        guess(diabetes / "unnamed.csv", given=["sex=Exact"], target="progression")
    with pytest.raises(InputError, match="--target sex and --column sex=Value differ"):
        guess(diabetes / "unnamed.csv", given=["sex=Value"], target="sex")


def test_options_of_the_other_space_are_refused(
    tables: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tables)
    Path("c.toml").write_text(HEAD + GOLD)
    if not Path("runs/whole").exists():
        assert run(["fit", "c.toml", "--out", "runs/whole", "--set", "output.report=false"]) == 0
    capsys.readouterr()
    predict = ["predict", "runs/whole", "rows.csv", "--out", "p.csv"]
    assert run([*predict, "--level", "auto"]) == 2
    assert capsys.readouterr().err == "--level is for classes, and runs/whole predicts a number. Leave it out\n"
    assert run([*predict, "--coverage", "90"]) == 2
    assert capsys.readouterr().err == "--coverage is 90. Expected a share between 0 and 1, such as 0.9\n"
    assert run([*predict, "--truth", "id"]) == 2
    assert '200 values of "id" are not numbers (first: "r0" in row 1)' in capsys.readouterr().err
    assert not Path("p.csv").exists()
