"""What a training is said to cost: rows counted by hand, and a pretrained network by its size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from anygrain.data.config import parse_config, with_paths
from anygrain.encoders import Transformer
from anygrain.encoders.trainable import Training
from anygrain.program.space import space_of
from anygrain.program.training_cost import network_cost, row_views, trainings, transformer_work

LIKES = Training(batch_size=64, steps=1000)
EXACT = {"kind": "Exact", "column": "y"}


def read(folder: Path, n: int, told: int, label: dict[str, Any] = EXACT, **settings: Any) -> tuple[Any, Any]:
    """n rows of four words, of which the first ones have a label."""
    rows = [f"r{i},one two three w{i},{'ab'[i % 2] if i < told else ''}" for i in range(n)]
    (folder / "t.csv").write_text("id,text,y\n" + "\n".join(rows) + "\n")
    how = {"learn": {"epochs": 5, "cross_fit": False}, "encoder": {"text": "transformer"}} | settings
    config = with_paths(
        parse_config({"data": {"source": "t.csv", "id": "id", "text": "text"}, "labels": [label], **how}), folder
    )
    return space_of(config).read(config), config


def test_rows_of_an_epoch_are_counted(tmp_path: Path) -> None:
    assert row_views(*read(tmp_path, 1000, 1000), LIKES) == 5 * 15 * 64  # 900 rows in batches, one view
    # 14 steps for 880 silent rows, each with a batch of the 108 told ones, in two views
    assert row_views(*read(tmp_path, 1000, 120), LIKES) == 5 * (14 * 64 + 880) * 2
    dataset, config = read(tmp_path, 1000, 1000, {"kind": "Noisy", "column": "y"})
    assert row_views(dataset, config, LIKES) == 5 * 15 * 64 * 2
    dataset, config = read(tmp_path, 1000, 1000, learn={"epochs": "auto", "cross_fit": False})
    assert row_views(dataset, config, LIKES) == 67 * 15 * 64  # 1000 steps


def test_networks_beside_the_one_that_stays_are_counted(tmp_path: Path) -> None:
    assert trainings(*read(tmp_path, 300, 300)) == 1
    assert trainings(*read(tmp_path, 300, 300, learn={"cross_fit": True})) == 2  # two on a half each
    assert trainings(*read(tmp_path, 300, 60)) == pytest.approx(1 + 2 * 2 / 3)  # twins
    positive = {"kind": "Positive", "column": "y", "target": "a"}
    (tmp_path / "u").mkdir()
    rows = [f"r{i},one two,{'a' if i < 150 else ''}" for i in range(300)]
    (tmp_path / "u" / "t.csv").write_text("id,text,y\n" + "\n".join(rows) + "\n")
    raw = {"data": {"source": "t.csv", "id": "id", "text": "text"}, "labels": [positive], "classes": ["a", "b"]}
    raw |= {"learn": {"epochs": 5, "cross_fit": False}, "encoder": {"text": "transformer"}}
    config = with_paths(parse_config(raw), tmp_path / "u")
    assert trainings(space_of(config).read(config), config) == 3  # two phases of two on a half each


def test_a_pretrained_network_costs_what_its_size_says(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    for folder, layers in ((small, 2), (large, 12)):
        folder.mkdir()
        size = {"hidden_size": 128, "num_hidden_layers": layers, "intermediate_size": 512}
        (folder / "config.json").write_text(json.dumps(size))

    def seconds(folder: Path, tune: str = "full") -> float:
        found = network_cost(*read(tmp_path, 1000, 1000, encoder={"pretrained": str(folder), "tune": tune}))
        assert found is not None
        return found[0] - 4

    assert seconds(large) == pytest.approx(6 * seconds(small), rel=1e-6)
    assert seconds(small, "lora") < seconds(small)
    assert network_cost(*read(tmp_path, 1000, 1000, encoder={})) is None


def test_the_weights_of_a_transformer_are_those_that_it_has() -> None:
    network = Transformer(vocabulary=["a"])
    network.build()
    whole = sum(p.numel() for p in network.parameters() if p.ndim > 1)
    embeddings = network.words.weight.numel() + network.letters.weight.numel()
    _, weights = transformer_work(1, network.feature_dim, network.layers)
    assert weights == pytest.approx(whole - embeddings, rel=0.05)
