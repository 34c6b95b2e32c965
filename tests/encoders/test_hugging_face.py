"""Pretrained text encoders that are trained further, on tiny ones made on the spot."""

import json

import pytest
import torch
from torch.nn import functional

from anygrain.encoders import Columns, HuggingFace, encoder_from
from anygrain.encoders.trainable import seeded
from anygrain.labels import LabelError

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

TEXTS = ["pay my bill", "the bill I pay", "book a flight", "a flight to book now, please", "", None]


@pytest.fixture
def folder(tiny_encoder):
    return tiny_encoder()


def stepped(encoder, data=TEXTS, rate=0.1):
    """The encoder after three steps of gradient on its features."""
    rows = encoder.inputs(data)[torch.arange(len(data))]
    groups = encoder.learning_rates(rate)
    goal = torch.randn(len(data), encoder.feature_dim, generator=torch.Generator().manual_seed(1))
    if groups:
        optimizer = torch.optim.SGD(groups)
        with seeded(0):
            for _ in range(3):
                optimizer.zero_grad()
                functional.mse_loss(encoder.encode(rows), goal).backward()
                optimizer.step()
    return encoder


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_features_are_the_mean_of_the_last_states(tiny_encoder, kind):
    place = tiny_encoder(kind, kind)
    found = HuggingFace(place).learn(TEXTS)(TEXTS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    model = transformers.AutoModel.from_pretrained(place).eval()
    model = model.get_encoder() if kind == "t5" else model
    for text, row in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            states = model(**tokenizer(text or "", return_tensors="pt", return_token_type_ids=False)).last_hidden_state
        assert torch.allclose(functional.layer_norm(states[0].mean(dim=0), (16,)), row, atol=1e-5)
    first = HuggingFace(place, pooling="first").learn(TEXTS)(TEXTS)
    with torch.no_grad():
        states = model(**tokenizer(TEXTS[0], return_tensors="pt", return_token_type_ids=False)).last_hidden_state
    assert torch.allclose(functional.layer_norm(states[0, 0], (16,)), first[0], atol=1e-5)


def test_padding_and_company_do_not_change_features(folder):
    encoder = HuggingFace(folder).learn(TEXTS)
    assert torch.allclose(encoder(TEXTS), torch.cat([encoder([t]) for t in TEXTS]), atol=1e-5)
    many = [" ".join(["bill"] * (1 + 7 * i % 31)) for i in range(60)]  # these go by length, in parts
    assert torch.allclose(encoder(many), torch.cat([encoder([t]) for t in many]), atol=1e-5)
    low = HuggingFace(folder, tune="lora").learn(TEXTS)
    rows = low.eval().inputs(many)[torch.arange(60)]
    assert low.encode(rows).requires_grad
    assert torch.allclose(low.encode(rows), encoder(many), atol=1e-5)


@pytest.mark.parametrize("tune", ["full", "last", "lora", "none"])
def test_what_was_trained_is_saved(folder, tune):
    import shutil

    encoder = HuggingFace(folder, tune=tune, last=1).learn(TEXTS)
    before = encoder(TEXTS)
    stepped(encoder)
    after = encoder(TEXTS)
    assert torch.allclose(before, after, atol=1e-5) == (tune == "none")
    tensors = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    config = json.loads(json.dumps(encoder.config()))
    held = {"full": "q" not in tensors, "lora": all("lora" in n for n in tensors), "none": not tensors}
    assert (held | {"last": bool(tensors) and all(".layer.1." in n for n in tensors)})[tune]
    if tune == "full":  # the folder is not needed any more
        shutil.rmtree(folder)
    again = encoder_from("hugging_face", config, tensors)
    assert torch.equal(again(TEXTS), after)
    if tune != "full":
        moved = shutil.copytree(folder, f"{folder}-moved")
        again = encoder_from("hugging_face", {**config, "folder": moved}, tensors)
        assert torch.equal(again(TEXTS), after)
        model = transformers.AutoModel.from_pretrained(folder)
        with torch.no_grad():
            model.encoder.layer[0].output.dense.bias += 1
        model.save_pretrained(folder)
        with pytest.raises(LabelError, match="holds other weights than those"):
            encoder_from("hugging_face", config, tensors)
        shutil.rmtree(folder)
        with pytest.raises(LabelError, match=r'is not there. Put it back, or write where it lies now to "folder"'):
            encoder_from("hugging_face", config, tensors)


def test_it_reads_a_column_of_a_table_in_the_same_network(folder):
    import pandas as pd

    frame = pd.DataFrame({"note": TEXTS, "number": range(6)})
    encoder = Columns(parts={"note": HuggingFace(folder, tune="lora")}, dim=16).learn(frame)
    stepped(encoder, frame)
    tensors = encoder.state_dict()
    assert not any("embeddings" in name for name in tensors)
    again = encoder_from("columns", json.loads(json.dumps(encoder.config())), tensors)
    assert torch.equal(again(frame), encoder(frame))
    assert not torch.allclose(encoder(frame), encoder(frame.assign(note="pay")), atol=1e-3)


def test_low_rank_changes_begin_at_nothing_and_are_few(folder):
    full, low = HuggingFace(folder).learn(TEXTS), HuggingFace(folder, tune="lora", rank=2).learn(TEXTS)
    assert torch.allclose(full(TEXTS), low(TEXTS), atol=1e-6)
    trained = sum(p.numel() for p in low.parameters() if p.requires_grad)
    # rank 2 on four square and two 16 x 24 matrices in each of two layers
    assert trained == 2 * (4 * 2 * (16 + 16) + 2 * 2 * (16 + 24))
    assert low.state_dict().keys() == {n for n, p in low.named_parameters() if p.requires_grad}


def test_low_rank_changes_depend_on_the_seed_alone(folder):
    one, same, other = (stepped(HuggingFace(folder, tune="lora").learn(TEXTS, seed)) for seed in (1, 1, 2))
    assert torch.equal(one(TEXTS), same(TEXTS))
    assert not torch.allclose(one(TEXTS), other(TEXTS))


def test_lower_layers_learn_more_slowly(folder):
    groups = HuggingFace(folder, share=0.1, decay=0.5).learn(TEXTS).learning_rates(1.0)
    encoder = HuggingFace(folder, share=0.1, decay=0.5).learn(TEXTS)
    rates = {id(p): g["lr"] for g in encoder.learning_rates(1.0) for p in g["params"]}
    network = encoder.backbone
    assert [round(g["lr"], 6) for g in groups] == [0.1, 0.05, 0.025]
    assert rates[id(network.encoder.layer[1].output.dense.weight)] == pytest.approx(0.1)
    assert rates[id(network.encoder.layer[0].output.dense.weight)] == pytest.approx(0.05)
    assert rates[id(network.embeddings.word_embeddings.weight)] == pytest.approx(0.025)
    assert sum(len(g["params"]) for g in groups) == len(list(encoder.parameters()))


def test_what_noise_hides_is_not_seen(folder):
    encoder = HuggingFace(folder).learn(TEXTS).eval()
    rows = encoder.inputs(TEXTS)[torch.arange(6)]
    noise = encoder.augmentation()
    strong = noise.strong(rows, torch.Generator().manual_seed(0))
    assert strong["filled"].sum() < rows["filled"].sum()
    assert strong["filled"][:, 0].all()
    assert (strong["filled"] <= rows["filled"]).all()
    other = {**strong, "tokens": torch.where(strong["filled"], strong["tokens"], 7)}
    with torch.no_grad():
        assert torch.allclose(encoder.encode(strong), encoder.encode(other), atol=1e-6)


def test_folders_that_are_no_encoder_are_refused(folder, tmp_path):
    def why(place, **how):
        with pytest.raises(LabelError) as error:
            HuggingFace(place, **how).learn(TEXTS)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "is not there" in why(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no config.json" in why(tmp_path / "empty")
    with pytest.raises(LabelError, match='tune is "half"; expected full, last, lora or none'):
        HuggingFace(folder, tune="half")
    files = sorted(p.name for p in folder.iterdir())
    assert "model.safetensors" in files
    kept = {name: (folder / name).read_bytes() for name in files}
    for name in files:
        if name.startswith(("tokenizer", "special", "vocab")):
            (folder / name).unlink()
    assert "has no tokenizer" in why(folder)
    (folder / "tokenizer.json").write_bytes(kept["tokenizer.json"])
    (folder / "tokenizer_config.json").write_bytes(kept["tokenizer_config.json"])
    (folder / "config.json").write_text(
        kept["config.json"].decode().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3')
    )
    assert "has no weights for encoder.layer.2" in why(folder)
    (folder / "config.json").write_text('{"model_type": "nothing"}')
    assert "cannot be read" in why(folder)
    (folder / "config.json").write_bytes(kept["config.json"])
    (folder / "model.safetensors").write_bytes(kept["model.safetensors"][:100])
    assert "cannot be read" in why(folder)
    (folder / "model.safetensors").unlink()
    assert "has no weights" in why(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert "Convert to safetensors" in why(folder)
