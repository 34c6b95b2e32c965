"""Data frames through the network that is trained with the head."""

import datetime as dt
import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from anygrain.encoders import Columns, Transformer, encoder_from
from anygrain.encoders.piecewise import Piecewise
from anygrain.encoders.table_noise import TableNoise
from anygrain.labels import LabelError


def table(n=60, seed=0):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "number": rng.standard_normal(n) * 1e4 + 5e5,
            "truth": rng.random(n) < 0.5,
            "kind": rng.choice(["x", "y", "z"], n),
            "day": [dt.datetime(2020, 1, 1) + dt.timedelta(days=int(d)) for d in rng.integers(0, 900, n)],
            "since": [dt.timedelta(hours=int(h)) for h in rng.integers(0, 99, n)],
            "note": [f"text number {i} of its own" for i in range(n)],
        }
    )
    frame.loc[3, "number"] = np.nan
    frame.loc[4, ["kind", "note"]] = None
    frame.loc[5, ["day", "since"]] = pd.NaT
    frame.loc[6, "kind"] = "rare"
    return frame


def tiny(**how):
    return Columns(dim=16, **how)


def test_rows_are_read_the_same_alone_in_any_order_and_library():
    frame = table()
    encoder = tiny().learn(frame)
    assert dict(encoder.columns)["note"] == "text"
    whole = encoder(frame)
    assert torch.allclose(whole.square().mean(dim=1), torch.ones(60), atol=1e-3)
    assert torch.allclose(whole, torch.cat([encoder(frame[i : i + 1]) for i in range(60)]), atol=1e-5)
    assert torch.equal(whole, encoder(frame[frame.columns[::-1]].assign(another=1)))
    polars = pl.DataFrame({name: pl.from_pandas(frame[name]) for name in frame})
    assert torch.allclose(whole, encoder(polars), atol=1e-5)
    assert torch.allclose(whole[10:], encoder(frame[10:].reset_index(drop=True)), atol=1e-5)


def test_a_saved_network_sees_the_same():
    frame = table()
    encoder = tiny(parts={"note": Transformer(dim=8, heads=2)}).learn(frame)
    again = encoder_from("columns", json.loads(json.dumps(encoder.config())), encoder.state_dict())
    assert torch.equal(again(frame), encoder(frame))


def test_weights_depend_on_the_seed_alone():
    frame = table()
    one, same, other = (tiny().learn(frame, seed)(frame) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.allclose(one, other, atol=1e-2)


def test_unknown_and_rare_values_are_one_and_missing_is_another():
    frame = table()
    encoder = tiny().learn(frame)
    assert sorted(encoder.values["kind"]) == ["x", "y", "z"]  # "rare" occurs once
    with torch.no_grad():
        encoder.table.weight.normal_(generator=torch.Generator().manual_seed(0))
    rows = pd.concat([frame[6:7]] * 4).assign(kind=["rare", "never seen", None, "x"])
    rare, unknown, missing, known = encoder(rows)
    assert torch.equal(rare, unknown)
    assert not torch.allclose(rare, missing, atol=1e-3)
    assert not torch.allclose(rare, known, atol=1e-3)


def test_missing_numbers_and_dates_are_values_of_their_own():
    frame = table()
    encoder = tiny().learn(frame)
    with torch.no_grad():
        encoder.piecewise.missing.normal_(generator=torch.Generator().manual_seed(0))
    rows = pd.concat([frame[6:7]] * 3).reset_index(drop=True)
    gap = rows.assign(number=[rows.number[0], np.nan, np.inf])
    there, gone, infinite = encoder(gap)
    assert torch.equal(gone, infinite)
    assert not torch.allclose(there, gone, atol=1e-3)
    days = encoder(rows.assign(day=[rows.day[0], None, pd.Timestamp("2031-05-05")]))
    assert days.isfinite().all()
    assert not torch.allclose(days[0], days[1], atol=1e-3)
    assert not torch.allclose(days[0], days[2], atol=1e-3)


def test_what_cannot_be_read_is_said():
    frame = table()
    encoder = tiny().learn(frame)
    with pytest.raises(LabelError, match="the table has no column 'kind', which the model was fitted on"):
        encoder(frame.drop(columns="kind"))
    with pytest.raises(LabelError, match='column "day" held a date per row'):
        encoder(frame.assign(day="soon"))
    with pytest.raises(LabelError, match='column "number" held a number per row'):
        encoder(frame.assign(number="many"))
    with pytest.raises(LabelError, match='no column "photo" in the table'):
        tiny(parts={"photo": Transformer()}).learn(frame)
    with pytest.raises(LabelError, match="expected a data frame"):
        tiny().learn(np.eye(3))
    with pytest.raises(LabelError, match="no column to learn from"):
        tiny().learn(pd.DataFrame(index=range(4)))


def test_parts_are_read_by_their_own_encoders_in_the_same_network():
    frame = table()
    note = Transformer(dim=8, heads=2)
    encoder = tiny(parts={"note": note, "kind": Transformer(dim=8, heads=2)}).learn(frame)
    assert [name for name, _ in encoder.columns] == ["number", "truth", "day", "since"]
    assert encoder.join.in_features == encoder.width * (2 + 5 + 1) + 16
    rows = encoder.inputs(frame)[torch.arange(60)]
    encoder.encode(rows).pow(3).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encoder.parts[0].blocks.parameters())
    rates = encoder.learning_rates(0.1)
    assert sum(len(g["params"]) for g in rates) == len(list(encoder.parameters()))
    assert len({id(p) for g in rates for p in g["params"]}) == len(list(encoder.parameters()))
    changed = encoder(frame.assign(note="another thing altogether"))
    assert not torch.allclose(changed, encoder(frame), atol=1e-3)
    both = tiny(parts={("note", "kind"): Transformer(dim=8, heads=2)}).learn(frame)
    assert [len(names) for names in both.reads] == [2]
    assert not torch.allclose(both(frame), both(frame.assign(kind="z")), atol=1e-3)
    alone = tiny(parts={"note": Transformer(dim=8, heads=2)}).learn(frame[["note"]])
    assert alone(frame[["note"]]).shape == (60, 16)


def test_a_column_without_a_value_or_with_one_is_borne():
    frame = pd.DataFrame({"none": [None] * 9, "gap": [np.nan] * 9, "same": [7.0] * 9, "number": np.arange(9.0)})
    encoder = tiny().learn(frame)
    assert encoder(frame).isfinite().all()
    other = frame.assign(gap=1.0, none="now", same=8.0)
    assert encoder(other).isfinite().all()


def test_pieces_say_how_far_a_number_has_come():
    numbers = torch.tensor([[float(v)] for v in range(9)])
    layer = Piecewise(1, 4, 5)
    layer.learn(numbers)
    with torch.no_grad():  # the sum of the pieces
        layer.weight.fill_(1.0)
        layer.weight[:, -1] = 0
        layer.bias.zero_()
    # quantiles 0, 2, 4, 6, 8: every bin is two wide
    found = layer(torch.tensor([[-5.0], [0.0], [1.0], [5.0], [8.0], [50.0]]))[:, 0, 0]
    assert found.tolist() == pytest.approx([0, 0, 0.5, 2.5, 4, 4])
    twice = Piecewise(1, 4, 5)
    twice.learn(torch.tensor([[0.0]] * 60 + [[1.0]] * 40 + [[float("nan")]]))
    assert int((twice.slope > 0).sum()) == 1  # quantiles that coincide count once
    assert torch.equal(twice(torch.tensor([[float("nan")]]))[0, 0], twice.missing[0])


def test_pieces_are_monotone_and_continuous():
    draw = torch.Generator().manual_seed(0)
    numbers = torch.randn(300, 1, generator=draw).exp()
    layer = Piecewise(1, 8, 1)
    layer.learn(numbers)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    along = layer(torch.linspace(-3, 30, 5000)[:, None])[:, 0, 0]
    assert (along.diff() >= -1e-6).all()
    assert float(along.diff().max()) < 0.2


def test_strong_noise_swaps_cells_within_their_column():
    draw = torch.Generator().manual_seed(0)
    rows = {"numbers": torch.randn(500, 3, generator=draw), "categories": torch.randint(0, 9, (500, 2), generator=draw)}
    kept = {name: array.clone() for name, array in rows.items()}
    noise = TableNoise(swapped=0.3)
    found = noise.strong(rows, torch.Generator().manual_seed(1))
    assert all(torch.equal(rows[name], kept[name]) for name in rows)
    changed = found["numbers"] != rows["numbers"]
    assert float(changed.float().mean()) == pytest.approx(0.3, abs=0.03)
    for column in range(3):
        assert set(found["numbers"][:, column].tolist()) <= set(rows["numbers"][:, column].tolist())
    same = noise.strong(rows, torch.Generator().manual_seed(1))
    assert torch.equal(found["categories"], same["categories"])
    assert torch.equal(noise.weak(rows, draw)["numbers"], rows["numbers"])
    moved = TableNoise(moved=0.1).weak(rows, draw)["numbers"] - rows["numbers"]
    assert float(moved.std()) == pytest.approx(0.1, rel=0.1)


def test_parts_are_changed_by_their_own_noise():
    frame = table()
    encoder = tiny(parts={"note": Transformer(dim=8, heads=2)}).learn(frame)
    rows = encoder.inputs(frame)[torch.arange(60)]
    strong = encoder.augmentation().strong(rows, torch.Generator().manual_seed(0))
    assert strong.keys() == rows.keys()
    words = next(name for name in rows if name.endswith("words"))
    assert float((strong[words] != rows[words]).float().mean()) > 0.2
    assert not torch.equal(strong["numbers"].nan_to_num(), rows["numbers"].nan_to_num())
    assert all(strong[name].shape == rows[name].shape for name in rows)
