"""The program with encoders of texts and tables that are trained with the head."""

import json

import numpy as np
import pytest

from anygrain.cli import run
from anygrain.data.config import load_config
from anygrain.data.dataset import read_dataset
from anygrain.data.error import InputError
from anygrain.data.table import read_table, write_table
from anygrain.encoders import Columns, HuggingFace, Transformer
from anygrain.program.trained import trained_encoder

N = 150
QUICK = ["--set", "learn.epochs=10", "--set", "learn.learning_rate=0.005", "--set", 'learn.device="cpu"']


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Texts and columns whose class hangs on a word and a number together."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    word, number = random.choice(["open", "close"], N), random.standard_normal(N)
    rows = {
        "id": [f"r{at}" for at in range(N)],
        "text": [
            f"please {w} the {t} now" for w, t in zip(word, random.choice(["door", "box", "gate"], N), strict=True)
        ],
        "size": number.round(3).tolist(),
        "colour": random.choice(["red", "green", ""], N).tolist(),
        "word": word.tolist(),
        "class": [f"{w} {'big' if n > 0 else 'small'}" for w, n in zip(word, number, strict=True)],
    }
    write_table(rows, tmp_path / "rows.csv")
    labels = '[[labels]]\nkind = "Exact"\ncolumn = '
    text = '[data]\nsource = "rows.csv"\nid = "id"\ntext = "text"\n'
    (tmp_path / "text.toml").write_text(f'{text}{labels}"word"\n')
    (tmp_path / "mixed.toml").write_text(f'{text}columns = ["size", "colour"]\n{labels}"class"\n')
    (tmp_path / "table.toml").write_text(
        f'{text.replace("text =", "columns =").replace("text", "size")}{labels}"class"\n'
    )
    return tmp_path


def test_a_transformer_is_trained_and_predicts(folder):
    asked = [*QUICK, "--set", 'encoder.text="transformer"']
    assert run(["fit", "text.toml", "--out", "run", *asked]) == 0
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["data"]["encoder"] == "text (transformer) through a network trained with the head"
    assert run(["predict", "run", "rows.csv", "--out", "p.csv"]) == 0
    assert (read_table("p.csv").strings("class") == read_table("rows.csv").strings("word")).mean() > 0.95


def test_texts_and_columns_are_trained_in_one_network(folder):
    asked = ["--set", "learn.epochs=30", *QUICK[2:], "--set", 'encoder.table="columns"']
    assert run(["fit", "mixed.toml", "--out", "run", *asked]) == 0
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["data"]["encoder"] == "text (transformer) and 2 columns through a network trained with the head"
    assert run(["predict", "run", "rows.csv", "--out", "p.csv"]) == 0
    assert (read_table("p.csv").strings("class") == read_table("rows.csv").strings("class")).mean() > 0.8


def asked_of(name, *settings):
    config = load_config(name, settings)
    return trained_encoder(config, read_dataset(config).columns)


def test_a_configuration_asks_for_its_encoder(folder):
    tune = ('encoder.pretrained="some"', 'encoder.tune="lora"')
    assert asked_of("text.toml") is asked_of("mixed.toml") is asked_of("text.toml", tune[0]) is None
    assert isinstance(asked_of("text.toml", 'encoder.text="transformer"'), Transformer)
    found = asked_of("text.toml", *tune)
    assert isinstance(found, HuggingFace)
    assert (found.folder, found.tune) == ("some", "lora")
    (folder / "some").mkdir()
    found = asked_of("text.toml", *tune)
    assert isinstance(found, HuggingFace)
    assert found.folder == str(folder / "some")  # beside the configuration
    found = asked_of("mixed.toml", 'encoder.table="columns"', *tune)
    assert isinstance(found, Columns)
    assert found.reads == [["text"]]
    assert isinstance(found.parts[0], HuggingFace)
    found = asked_of("table.toml", 'encoder.table="columns"')
    assert isinstance(found, Columns)
    assert found.reads == []


def test_settings_that_do_not_go_together_are_refused(folder):
    def why(name, *settings):
        with pytest.raises(InputError) as error:
            asked_of(name, *settings)
        assert "\n" not in str(error.value)
        return str(error.value)

    transformer, network = 'encoder.text="transformer"', 'encoder.table="columns"'
    assert 'encoder.tune is "full", of nothing' in why("text.toml", 'encoder.tune="full"')
    assert "Expected one of them" in why("text.toml", transformer, 'encoder.pretrained="some"')
    assert 'Expected encoder.table = "columns"' in why("mixed.toml", transformer)
    assert 'Expected encoder.tune = "lora" or "full"' in why("mixed.toml", network, 'encoder.pretrained="some"')
    assert "Expected data.text" in why("table.toml", transformer)
    assert "not data.features" in why("table.toml", network, "data.columns=[]", 'data.features="size"')
