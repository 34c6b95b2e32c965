"""Methods with gradients train an encoder that is given, end to end."""

import copy
import inspect

import numpy as np
import pandas as pd
import pytest
import torch

from anygrain.discover import Adapted, ConstrainedMixture, LabelExpansion, SelfDistillation, Ward
from anygrain.discover.adapted import FEWEST, surest
from anygrain.discover.found import Found
from anygrain.discover.methods import METHODS, method
from anygrain.encoders import Columns, Convolutional, HuggingFace, Text, Transformer
from anygrain.labels import Coarse, Exact, LabelError
from tests.discover.test_network import blobs, task_of

NAMES = [name for name, one in METHODS.items() if one.load().trains_encoder and name != "adapted"]
NODE = np.array([0, 0, 0, 1, 1, 2])  # of every class
Y = np.arange(120) % 6
COARSE = Coarse(torch.from_numpy(NODE[Y]), torch.eye(3))
TOLD = np.where((Y < 4) & (np.arange(len(Y)) // 6 % 3 == 0), Y, -1)
PARTLY = Exact(torch.from_numpy(TOLD), 4)


def frame(seed=0):
    place = 6 * np.random.default_rng(7).normal(size=(6, 4))
    x = place[Y] + np.random.default_rng(seed).normal(size=(len(Y), 4))
    return pd.DataFrame(x.astype(np.float32), columns=list("abcd"))


X, FRESH = frame(), frame(5)


def one(name, **settings):
    """The method, short, with a small network over columns."""
    of = method(name)
    has = inspect.signature(of.__init__).parameters
    few = {"members": ["ward"]} if name == "auto" else {"starts": 1} if "starts" in has else {}
    short = {key: 2 for key in has if key.endswith("epochs")} | ({"steps": 20} if name == "all-in-one" else few)
    return of(**{"encoder": Columns(dim=8, layers=1), "device": "cpu", "bootstrap": 0, **short, **settings})


def trained(found):
    """The encoder in the model."""
    return next(part for part in found.model_.modules() if isinstance(part, Columns | Transformer | HuggingFace))


def moved(encoder, data):
    """Whether the parameters of an encoder are others than at its start."""
    before = copy.deepcopy(encoder).learn(data, seed=0)
    return any(not torch.equal(a, b) for a, b in zip(encoder.parameters(), before.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_is_trained_and_reads_new_rows(name):
    found = one(name).fit(X, PARTLY, 6)
    encoder = trained(found)
    assert moved(encoder, X)
    assert (found.labels_[TOLD >= 0] == TOLD[TOLD >= 0]).all()
    before = found.predict_log_proba(FRESH)
    assert before.shape == (120, 6)
    with torch.no_grad():
        for p in encoder.parameters():
            p.mul_(0)
    assert np.abs(found.predict_log_proba(FRESH) - before).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_refits_for_stability_leave_the_model_alone_and_a_seed_repeats(name):
    first, again = one(name).fit(X, PARTLY, 6), one(name, bootstrap=1).fit(X, PARTLY, 6)
    np.testing.assert_array_equal(first.labels_, again.labels_)
    np.testing.assert_allclose(first.predict_log_proba(FRESH), again.predict_log_proba(FRESH), atol=1e-5)
    assert not np.isnan(again.stability_).all()
    assert not hasattr(first.encoder, "mean") or not moved(first.encoder, X)


@pytest.mark.parametrize("name", NAMES)
def test_coarse_labels_and_a_range_of_numbers(name):
    coarse = one(name).fit(X, COARSE, {0: 3, 1: 2, 2: 1})
    assert (coarse.node_[coarse.labels_] == NODE[Y]).all()
    assert moved(trained(coarse), X)
    ranged = one(name).fit(X, PARTLY, (5, 8))
    assert 5 <= ranged.n_classes_ <= 8
    assert moved(trained(ranged), X)


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_that_is_chosen_is_read_as_it_is(name):
    pictures = np.random.default_rng(0).random((24, 6, 6)).astype(np.float32)
    found = one(name, encoder=None).fit(pictures, None, 2)
    assert not any(isinstance(part, Convolutional) for part in found.model_.modules())
    assert found.predict(pictures[:5]).shape == (5,)


def words(n=60):
    said = ["card lost stolen", "loan rate interest", "transfer abroad fee"]
    return [f"please help {said[i % 3].split()[i % 2]} {said[i % 3]} number {i // 3}" for i in range(n)]


def test_rows_that_are_not_trained_on_are_read_by_the_encoder_for_the_data():
    found = Ward(encoder=Transformer(dim=8, layers=1, heads=2), bootstrap=0).fit(words(), None, 3)
    assert isinstance(found.encoder_, Text)
    np.testing.assert_array_equal(found.labels_, Ward(bootstrap=0).fit(words(), None, 3).labels_)
    assert found.predict([*words(3), "a much longer text about " + " ".join(words(9))]).shape == (4,)


def test_a_stream_takes_in_texts_of_other_lengths():
    truth = torch.arange(60) % 3
    stream = LabelExpansion(encoder=Transformer(dim=16, layers=1, heads=2), memory=12, device="cpu", bootstrap=0)
    stream.partial_fit(words()[:30], Exact(truth[:30], 3))
    longer = [f"{text} and then some more was said" for text in words()[30:]]
    stream.partial_fit(longer, Exact(truth[30:], 3))
    assert len(stream.stream_.memory) == 12
    assert (stream.predict([*words(), *longer]) == torch.cat([truth, truth[30:]]).numpy()).mean() > 0.9


# -- adaptation to what is told ----------------------------------------------------------------------------------------

SAID = ["pay bill bill", "book flight flight", "my the the", "a to to", "now please please", "i , ,", "pay to bill"]


def several(n=84):
    """Texts of seven kinds, of which six are known and half of their rows told."""
    truth = np.arange(n) % 7
    ends = ["please", "now", "i", "my", "the"]
    texts = [f"{SAID[k]} {ends[i % 5]}" for i, k in enumerate(truth)]
    told = np.where((truth < 6) & (np.arange(n) // 7 % 2 == 0), truth, -1)
    return texts, truth, told


@pytest.mark.parametrize("tune", ["full", "last", "lora"])
def test_an_encoder_is_adapted_to_told_rows_and_then_read(tiny_encoder, tune):
    if tune == "lora":
        pytest.importorskip("peft")
    texts, truth, told = several()
    given = HuggingFace(tiny_encoder(), tune=tune, last=1)
    found = Adapted(
        method=Ward(), encoder=given, encoder_rate=1e-2, epochs=20, batch_size=12, device="cpu", bootstrap=2
    )
    found.fit(texts, Exact(torch.from_numpy(told), 6), 7)
    assert found.adapted_ == (told >= 0).sum()
    assert found.why_.startswith("the encoder was adapted to 36 told rows")
    assert found.history_[19]["loss"] < 0.7 * found.history_[0]["loss"]
    assert moved(trained(found), texts)
    again = Adapted(
        method=Ward(), encoder=given, encoder_rate=1e-2, epochs=20, batch_size=12, device="cpu", bootstrap=0
    )
    again.fit(texts, Exact(torch.from_numpy(told), 6), 7)
    np.testing.assert_allclose(found.predict_log_proba(texts), again.predict_log_proba(texts), atol=1e-5)
    assert (found.predict(texts)[truth < 6] == truth[truth < 6]).mean() > 0.8


def test_only_the_last_layers_change(tiny_encoder):
    texts, _, told = several()
    found = Adapted(method="mixture", encoder=HuggingFace(tiny_encoder(), tune="last", last=1), epochs=1, bootstrap=0)
    encoder = trained(found.fit(texts, Exact(torch.from_numpy(told), 6), 7))
    before = HuggingFace(tiny_encoder(), tune="last", last=1).learn(texts)
    changed = {
        name for (name, a), b in zip(encoder.named_parameters(), before.parameters(), strict=True) if (a != b).any()
    }
    assert changed
    assert all(".layer.1." in name for name in changed)


def test_the_model_reads_rows_as_the_method_does(tiny_encoder):
    texts, _, told = several()
    labels = Exact(torch.from_numpy(told), 6)
    found = Adapted(method=ConstrainedMixture(), encoder=HuggingFace(tiny_encoder()), epochs=1, bootstrap=0)
    found.fit(texts, labels, 7)
    with torch.no_grad():
        features = torch.nn.functional.normalize(trained(found)(texts), dim=1).numpy()
    alone = ConstrainedMixture(bootstrap=0).fit(features, labels, 7)
    assert (found.labels_ == alone.labels_).mean() > 0.9


def test_too_little_is_said_or_nothing_can_be_trained(tiny_encoder):
    texts, truth, told = several()
    few = np.where(told < FEWEST - 1, told, -1)
    found = Adapted(method="ward", encoder=HuggingFace(tiny_encoder()), bootstrap=0)
    found.fit(texts, Exact(torch.from_numpy(few), FEWEST - 1), 7)
    assert "too few to adapt the encoder to; in features as they are and whitened by told rows and" in found.why_
    assert not moved(trained(found), texts)
    assert found.adapted_ == (few >= 0).sum()
    features = trained(found).eval()(texts).detach().numpy()
    whitened = Adapted(method="ward", bootstrap=0).fit(features, Exact(torch.from_numpy(few), FEWEST - 1), 7)
    assert (whitened.labels_ == found.labels_).all()
    assert found.predict(texts[:3]).shape == (3,)
    coarse = Adapted(method="ward", encoder=HuggingFace(tiny_encoder()), bootstrap=1)
    coarse.fit(texts, Coarse(torch.from_numpy(truth // 4), torch.eye(2)), {0: 4, 1: 3})
    assert coarse.adapted_ == 0
    scratch = Adapted(method=SelfDistillation(epochs=1), encoder=Columns(dim=8, layers=1), bootstrap=0)
    assert moved(trained(scratch.fit(X, PARTLY, 6)), X)
    with pytest.raises(LabelError, match="expected a method with gradients"):
        Adapted(method="ward", encoder=Columns(dim=8, layers=1)).fit(X, PARTLY, 6)


def test_the_surer_half_of_every_class_teaches_the_next_round():
    x, _ = blobs(61, 3)
    task = task_of(x, None, 3)
    log_probs = torch.randn(61, 3, generator=torch.Generator().manual_seed(0)).log_softmax(dim=1)
    rows, said = surest(Found(task.node, None, log_probs), task)
    sure, label = log_probs.max(dim=1)
    for k in range(3):
        own = (label == k).nonzero().flatten()
        best = own[sure[own].argsort(descending=True)][: -(-len(own) // 2)]
        assert set(rows[label[rows] == k].tolist()) == set(best.tolist())
    assert torch.equal(said.exp(), torch.nn.functional.one_hot(label[rows], 3).float())


def test_classes_that_were_found_teach_the_encoder_as_well(tiny_encoder):
    texts, _, told = several()
    labels, given = Exact(torch.from_numpy(told), 6), HuggingFace(tiny_encoder(), tune="last", last=1)
    how = {"method": Ward(), "encoder": given, "encoder_rate": 1e-2, "epochs": 3, "batch_size": 12, "bootstrap": 0}
    once, twice = (Adapted(rounds=rounds, **how).fit(texts, labels, 7) for rounds in (1, 2))
    assert len(twice.history_) == len(once.history_) + 3  # epochs
    assert ("surer half" in once.why_, "surer half" in twice.why_) == (False, True)
    assert np.abs(once.predict_log_proba(texts) - twice.predict_log_proba(texts)).max() > 1e-3
