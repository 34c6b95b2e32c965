"""Images in the program: guessed, read from files or bytes, trained on, predicted, shown in the report."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from anygrain.cli import run
from anygrain.data.error import InputError
from anygrain.data.pictures import image_cells, thumbnail
from anygrain.data.table import as_table, read_table, write_table
from anygrain.program.guess import guess

Image = pytest.importorskip("PIL.Image")

N = 80
TRUTH = np.arange(N) % 2
NAMES = np.array(["lying", "standing"])
CONFIG = '[data]\nsource = "rows.csv"\nid = "id"\nimages = "file"\n[[labels]]\nkind = "Crowd"\ncolumns = ["w_*"]\n'
QUICK = ["--set", "learn.epochs=20", "--set", 'learn.device="cpu"']


def png(at: int) -> bytes:
    """A noisy image of stripes that lie or stand."""
    noise = np.random.default_rng(at).integers(0, 90, (12, 12), dtype=np.uint8)
    stripes = noise + np.uint8(130) * (np.arange(12) // 3 % 2 == 0).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(stripes if TRUTH[at] else np.ascontiguousarray(stripes.T)).save(file, format="PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows with paths and three votes each, some of them wrong; and rows with bytes."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "files").mkdir()
    for at in range(N):
        (folder / "files" / f"{at}.png").write_bytes(png(at))
    random = np.random.default_rng(0)
    votes = {f"w_{i}": NAMES[np.where(random.random(N) < 0.1, 1 - TRUTH, TRUTH)].tolist() for i in range(3)}
    rows = {"id": [f"r{at}" for at in range(N)], "file": [f"files/{at}.png" for at in range(N)]}
    write_table({**rows, **votes}, folder / "rows.csv")
    new = {"image": [{"bytes": png(at), "path": None} for at in range(N)], "truth": NAMES[TRUTH].tolist()}
    parquet.write_table(pa.table(new), folder / "new.parquet")
    (folder / "c.toml").write_text(CONFIG)
    return folder


def test_a_network_is_trained_on_files_and_predicts_bytes(tables, tmp_path, monkeypatch):
    monkeypatch.chdir(tables)
    out = tmp_path / "run"
    assert run(["fit", "c.toml", "--out", str(out), *QUICK]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert "convolutional" in metrics["data"]["encoder"]
    assert metrics["worst"]
    assert all(w["image"].startswith("data:image/jpeg;base64,") for w in metrics["worst"])
    page = (out / "report.html").read_text()
    assert page.count('<img src="data:image/jpeg;base64,') == len(metrics["worst"])
    assert parquet.read_table(out / "labels.parquet")["text"][3].as_py() == "files/3.png"
    assert run(["predict", str(out), "rows.csv", "--out", str(tmp_path / "p.csv")]) == 0
    assert (read_table(tmp_path / "p.csv").strings("class") == NAMES[TRUTH]).mean() > 0.9
    from anygrain import load

    cells = image_cells(read_table("new.parquet"), "image")
    assert (load(out).predict(cells) == NAMES[TRUTH]).mean() > 0.9


def test_bytes_are_read_as_files_are(tables, tmp_path, monkeypatch):
    monkeypatch.chdir(tables)
    text = '[data]\nsource = "new.parquet"\nimages = "image"\n[[labels]]\nkind = "Exact"\ncolumn = "truth"\n'
    (tmp_path / "c.toml").write_text(text.replace("new.parquet", str(tables / "new.parquet")))
    out = tmp_path / "run"
    settings = ["--set", 'encoder.images="residual"', "--set", "encoder.size=8", "--set", "output.report=false"]
    assert run(["fit", str(tmp_path / "c.toml"), "--out", str(out), *settings, *QUICK[:1], "learn.epochs=1"]) == 0
    encoder = json.loads((out / "model" / "config.json").read_text())["encoder"]
    assert encoder["name"] == "residual"
    assert encoder["config"]["size"] == [8, 8]


def test_images_that_cannot_be_read_stop_the_fit_or_are_blank(tables, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tables)
    rows = read_table("rows.csv").arrow.to_pydict()
    rows["file"][4], rows["file"][6] = "files/none.png", None
    write_table(rows, tables / "broken.csv")
    broken = CONFIG.replace("rows.csv", "broken.csv")
    (tables / "broken.toml").write_text(broken)
    out = tmp_path / "run"
    assert run(["fit", "broken.toml", "--out", str(out), *QUICK]) == 2
    said = capsys.readouterr().err
    assert 'broken.csv: 2 of 80 images of "file" cannot be read (row r4, ' in said
    assert "none.png: no such file; row r6, empty)" in said
    assert not out.exists()
    blank = ["--set", 'data.unreadable="blank"', "--set", "output.report=false"]
    assert run(["fit", "broken.toml", "--out", str(out), *blank, *QUICK[:1], "learn.epochs=1"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["data"]["rows"] == N
    assert any("seen as images of one colour" in note for note in metrics["notes"])
    assert run(["predict", str(out), "broken.csv", "--out", str(tmp_path / "p.csv")]) == 0
    assert len(read_table(tmp_path / "p.csv")) == N


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"file"', '"fil"'), 'no column "fil". Did you mean "file"?'),
        (('"file"', '"file"\ntext = "w_0"'), 'data.images = "file" stands beside "w_0"'),
        (('"file"', '"id"'), 'images of "id" cannot be read'),
        (("[[labels]]", '[encoder]\nimages = "residul"\n[[labels]]'), 'Did you mean "residual"?'),
        (('"file"', '"file"\nunreadable = "drop"'), 'unreadable is "drop". Expected one of "stop", "blank"'),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tables, tmp_path, monkeypatch, capsys, change, said):
    monkeypatch.chdir(tables)
    (tables / "odd.toml").write_text(CONFIG.replace(*change))
    assert run(["fit", "odd.toml", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert said in error.replace("\n", " ")
    assert not (tmp_path / "run").exists()


def test_columns_of_images_are_guessed(tables):
    found = guess(tables / "rows.csv")
    assert found.settings["data"] == {"source": str(tables / "rows.csv"), "id": "id", "images": "file"}
    assert found.settings["labels"] == [{"kind": "Crowd", "columns": ["w_0", "w_1", "w_2"]}]
    row = next(row for row in found.rows if row.columns == "file")
    assert (row.read_as, row.why) == ("input image", "names of .png files")
    found = guess(tables / "new.parquet")
    assert found.settings["data"]["images"] == "image"
    assert found.settings["labels"] == [{"kind": "Exact", "column": "truth"}]
    assert "images" not in guess(tables / "rows.csv", given=["file=skip"]).settings["data"]
    said = guess(tables / "rows.csv", given=["id=image", "file=skip"]).settings["data"]
    assert said["images"] == "id"


def test_cells_of_other_columns_are_refused():
    table = as_table({"a": [1, 2], "b": [b"x", None]})
    with pytest.raises(InputError, match=r'"a" holds int64\. Expected paths of images'):
        image_cells(table, "a")
    assert image_cells(table, "b") == [b"x", None]


def test_thumbnails_keep_the_shape_and_are_small():
    import base64

    address = thumbnail(png(1))
    assert address is not None
    small = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    assert (small.size, small.mode) == ((12, 12), "L")
    wide = Image.fromarray(np.zeros((50, 400, 3), np.uint8))
    address = thumbnail(wide)
    assert address is not None
    assert Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).size == (64, 8)
    assert thumbnail(b"none") is None
    assert thumbnail(None) is None


def test_a_number_is_read_off_images(tables, tmp_path, monkeypatch):
    monkeypatch.chdir(tables)
    rows = {"id": [f"r{at}" for at in range(N)], "file": [f"files/{at}.png" for at in range(N)]}
    write_table({**rows, "height": (10.0 + 5.0 * TRUTH).tolist()}, tables / "heights.csv")
    config = CONFIG.replace("rows.csv", "heights.csv").split("[[labels]]")[0]
    (tables / "number.toml").write_text(config + '[[labels]]\nkind = "Value"\ncolumn = "height"\n')
    out = tmp_path / "run"
    assert run(["fit", "number.toml", "--out", str(out), *QUICK]) == 0
    assert json.loads((out / "metrics.json").read_text())["evaluation"]["rows"] == N  # each by a network without it
    assert run(["predict", str(out), "new.parquet", "--out", str(tmp_path / "p.csv")]) == 2  # another column
    assert run(["predict", str(out), "heights.csv", "--out", str(tmp_path / "p.csv")]) == 0
    predicted = read_table(tmp_path / "p.csv").numbers("mean", None)
    assert np.corrcoef(predicted, TRUTH)[0, 1] > 0.7
