"""What the encoders make of data."""

import sys
import types

import numpy as np
import pytest
import scipy.sparse
import torch

from anygrain.encoders import Frame, Pretrained, Sparse, Table, Text, encoder_for, encoder_from
from anygrain.labels import LabelError


def test_columns_in_different_units_are_standardised():
    x = np.random.default_rng(0).standard_normal((200, 3)) * [1, 1000, 1e-4] + [0, 5, 9]
    z = Table().learn(x)(x)
    assert torch.allclose(z.mean(dim=0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(z.std(dim=0, correction=0), torch.ones(3), atol=1e-5)


def test_columns_that_are_alike_keep_their_proportions():
    x = np.random.default_rng(0).standard_normal((200, 3)) * [1, 2, 3]
    z = Table().learn(x)(x)
    ratio = z.std(dim=0) / torch.tensor(x.std(axis=0))
    assert torch.allclose(ratio, ratio[0].expand(3), atol=1e-5)


def test_a_constant_column_is_zero():
    x = np.c_[np.full(50, 0.1), np.arange(50.0)]
    assert torch.equal(Table().learn(x)(x)[:, 0], torch.zeros(50))


def test_texts_with_the_same_words_are_near():
    texts = ["pay my bill", "the bill I pay", "book a flight", "a flight to book", "bill and pay", "flight book now"]
    z = Text(dim=3).learn(texts)(texts)
    assert torch.allclose(z.norm(dim=1), torch.ones(6), atol=1e-5)
    near = z @ z.T
    assert float(near[0, 1]) > float(near[0, 2]) + 0.2
    assert Text().learn(texts)(["", None]).isfinite().all()


def test_sparse_is_dense_times_scale():
    dense = np.random.default_rng(0).integers(0, 2, (30, 8)).astype(float)
    z = Sparse().learn(scipy.sparse.csr_matrix(dense))(scipy.sparse.csr_matrix(dense))
    scale = np.sqrt((dense**2).mean(axis=0))
    assert np.allclose(z.numpy(), dense / scale, atol=1e-5)
    projected = Sparse(dim=4).learn(scipy.sparse.csr_matrix(dense))(scipy.sparse.csr_matrix(dense))
    _, _, v = np.linalg.svd(dense / scale, full_matrices=False)
    own = (dense / scale) @ v[:4].T
    assert np.allclose(projected.numpy() @ projected.numpy().T, own @ own.T, atol=1e-3)


def test_encoders_are_chosen_by_the_data():
    import pandas as pd

    assert isinstance(encoder_for(["a text", "another"]), Text)
    assert isinstance(encoder_for(pd.Series(["a text", "another"])), Text)
    assert isinstance(encoder_for(np.eye(3)), Table)
    assert isinstance(encoder_for(pd.DataFrame({"a": [1.0, 2.0]})), Table)
    assert isinstance(encoder_for(pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})), Frame)
    assert isinstance(encoder_for(scipy.sparse.eye(3, format="csr")), Sparse)


def test_saved_encoders_see_the_same():
    texts = ["pay my bill", "the bill I pay", "book a flight", "a flight to book"]
    text = Text(dim=2).learn(texts)
    again = encoder_from("text", text.config(), text.state_dict())
    assert torch.equal(again(texts), text(texts))
    with pytest.raises(LabelError, match='encoder "own", which is not one of table'):
        encoder_from("own", {}, {})


def test_a_text_is_embedded_once(tmp_path, monkeypatch):
    seen = []

    class Fake:
        def __init__(self, model):
            self.model = model

        def encode(self, texts, **how):
            seen.extend(texts)
            return np.array([[len(t), 1.0] for t in texts])

    monkeypatch.setitem(sys.modules, "sentence_transformers", types.SimpleNamespace(SentenceTransformer=Fake))
    first = Pretrained("some/model", cache=str(tmp_path))(["a", "bb", "a"])
    assert first.tolist() == [[1, 1], [2, 1], [1, 1]]
    second = Pretrained("some/model", cache=str(tmp_path))(["bb", "ccc"])
    assert second.tolist() == [[2, 1], [3, 1]]
    assert seen == ["a", "bb", "ccc"]
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(LabelError, match="pip install"):
        Pretrained("other/model", cache="")(["a"])


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_row_of_a_table_is_read_the_same_alone(library):
    import datetime as dt

    import pandas as pd
    import polars as pl

    days = [dt.datetime(2020, 1, 1) + dt.timedelta(days=3 * i) for i in range(12)]
    cells = {
        "text": [f"word{i} here is a text of its own" for i in range(12)],
        "kind": ["x", "y", "z"] * 4,
        "number": [float(i) for i in range(12)],
        "day": days,
        "since": [dt.timedelta(hours=i) for i in range(12)],
    }
    for row, name in enumerate(cells):
        cells[name] = [None if i == row else v for i, v in enumerate(cells[name])]
    frame = (pd if library == "pandas" else pl).DataFrame(cells)
    encoder = Frame().learn(frame)
    assert encoder.columns == [
        ("text", "text"), ("kind", "category"), ("number", "number"), ("day", "date"), ("since", "number")
    ]  # fmt: skip
    assert sorted(encoder.values["kind"]) == ["x", "y", "z"]
    assert encoder.fills["number"] == pytest.approx(np.mean([i for i in range(12) if i != 2]))
    assert encoder.fills["since"] == pytest.approx(3600 * np.mean([i for i in range(12) if i != 4]))
    whole = encoder(frame)
    alone = torch.cat([encoder(frame[i : i + 1]) for i in range(12)])
    assert torch.allclose(whole, alone, atol=1e-6)
    again = encoder_from("frame", encoder.config(), encoder.state_dict())
    assert torch.equal(again(frame), whole)


def test_two_kinds_of_data_frame_are_read_the_same():
    import pandas as pd
    import polars as pl

    frame = pd.DataFrame(
        {
            0: ["x", "y", None] * 6,
            "day": [*pd.date_range("2020-01-01", periods=17, tz="Europe/Berlin"), pd.NaT],
            "whole": pd.array([1, None, 3] * 6, dtype="Int64"),
        }
    )
    other = pl.DataFrame({str(name): pl.from_pandas(frame[name]) for name in frame})
    encoder = Frame().learn(frame)
    assert torch.allclose(encoder(frame), encoder(other), atol=1e-6)
    with pytest.raises(LabelError, match='column "day" held a date per row'):
        encoder(frame.assign(day="soon"))
    with pytest.raises(LabelError, match='column "whole" held a number per row'):
        encoder(frame.assign(whole="many"))
    with pytest.raises(LabelError, match="no value in any column: a"):
        Frame().learn(pd.DataFrame({"a": [None, None]}))
