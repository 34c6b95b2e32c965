"""Answers per instance and per set of a Learner."""

import numpy as np
import pytest
import torch

from anygrain.data.bag_data import BagData
from anygrain.encoders.bags import BagEncoder
from anygrain.labels import All, AnyOf, AtLeast, Bags, Counts, Exact, LabelError, Majority, Tags
from anygrain.learn import Learner

N, SIZE = 240, 4


def instances(seed=0, n=N, rate=0.2):
    """Features (n, 5), truth (n,): rare members of class 1 lie apart in two columns."""
    generator = np.random.default_rng(seed)
    truth = (generator.random(n) < rate).astype(int)
    features = generator.standard_normal((n, 5))
    features[:, 0] += 3 * truth
    features[:, 1] -= 2 * truth
    return features, truth


X, TRUTH = instances()
BAGS = Bags.from_ids(torch.arange(N) // SIZE)
PRESENT = torch.from_numpy(TRUTH.reshape(-1, SIZE).any(axis=1))
NEW, NEW_TRUTH = instances(1)
NEW_PRESENT = NEW_TRUTH.reshape(-1, SIZE).any(axis=1)


@pytest.fixture(scope="module")
def any_of():
    return Learner(seed=0, neighbours=0).fit(X, AnyOf(BAGS, PRESENT, 1, 2))


def test_instances_and_bags(any_of):
    instances = any_of.predict_proba(NEW)
    bags = any_of.predict_proba(NEW, unit="set", bags=BAGS)
    assert instances.shape == (N, 2)
    assert bags.shape == (len(BAGS), 2)
    np.testing.assert_allclose(bags.sum(axis=1), 1, atol=1e-9)
    assert ((bags[:, 1] > 0.5) == NEW_PRESENT).mean() > 0.8
    assert (any_of.predict(NEW, unit="set", bags=BAGS) == bags.argmax(axis=1)).all()
    assert (any_of.predict(NEW, unit="instance") == any_of.predict(NEW)).all()
    # before slope and offset the answer is 1 - prod (1 - p), of instances before their own slope and offset
    question = any_of.questions_[0]
    log_probs = any_of.log_probs(NEW, "population")
    slope, offsets = question.instances
    fitted = question.as_fitted(log_probs)
    again = (slope * fitted + torch.tensor(offsets)).log_softmax(dim=1)
    torch.testing.assert_close(again.exp(), log_probs.double().exp(), atol=1e-6, rtol=0)
    plain = question.labels.answer_to(fitted, BAGS, 2, target=[1])
    np.testing.assert_allclose(plain[:, 0], fitted[:, 0].reshape(-1, SIZE).sum(dim=1).exp(), atol=1e-9)
    torch.testing.assert_close(question.calibration(plain.log()).exp(), torch.from_numpy(bags), atol=1e-6, rtol=0)


def test_bags_may_be_others(any_of):
    ragged = Bags.from_ids(torch.tensor([0] * 7 + [1] + [2] * 12))
    found = any_of.predict_proba(NEW[:20], unit="set", bags=ragged)
    assert found.shape == (3, 2)
    shuffled = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    moved = Bags.from_ids(ragged.index[shuffled])
    np.testing.assert_allclose(any_of.predict_proba(NEW[:20][shuffled], unit="set", bags=moved), found, atol=1e-6)


def test_bag_data_hold_their_bags(any_of):
    data = BagData.from_ids(NEW.astype(np.float32), np.arange(N) // SIZE)
    expected = any_of.predict_proba(data.features, unit="set", bags=BAGS)
    np.testing.assert_allclose(any_of.predict_proba(data, unit="set"), expected, atol=1e-6)
    assert any_of.predict_proba(data).shape == (N, 2)


def test_saved_and_loaded(any_of, tmp_path):
    any_of.save(tmp_path / "model")
    again = Learner.load(tmp_path / "model")
    for how in ({}, {"unit": "set", "bags": BAGS}):
        assert (again.predict_proba(NEW, **how) == any_of.predict_proba(NEW, **how)).all()


def test_several_questions():
    counts = torch.from_numpy(np.stack([SIZE - TRUTH.reshape(-1, SIZE).sum(1), TRUTH.reshape(-1, SIZE).sum(1)], 1))
    labels = All(AnyOf(BAGS, PRESENT, 1, 2), Counts(BAGS, counts))
    model = Learner(seed=0, neighbours=0, rounds=1).fit(X, labels)
    with pytest.raises(LabelError, match=r'several questions of sets \(0 "AnyOf", 1 "Counts"\)'):
        model.predict_proba(NEW, unit="set", bags=BAGS)
    with pytest.raises(LabelError, match="expected the number of one"):
        model.predict_proba(NEW, unit="set", bags=BAGS, question="Majority")
    expected = model.predict_proba(NEW, unit="set", bags=BAGS, question="Counts")
    by_hand = model.predict_proba(NEW).reshape(-1, SIZE, 2).sum(axis=1)
    np.testing.assert_allclose(expected, by_hand, atol=1e-5)
    assert (model.predict(NEW, unit="set", bags=BAGS, question=1) == expected).all()
    assert model.predict_proba(NEW, unit="set", bags=BAGS, question="AnyOf").shape == (len(BAGS), 2)


def test_the_majority_is_named():
    winner = torch.from_numpy((TRUTH.reshape(-1, SIZE).sum(axis=1) > 1).astype(int))
    labels = Majority(BAGS, winner, 2, class_names=["cat", "dog"])
    model = Learner(seed=0, neighbours=0, rounds=2).fit(X, labels)
    assert set(model.predict(NEW, unit="set", bags=BAGS)) <= {"cat", "dog"}
    assert model.predict_proba(NEW, unit="set", bags=BAGS).shape == (len(BAGS), 2)


def test_at_least():
    count = torch.from_numpy(TRUTH.reshape(-1, SIZE).sum(axis=1))
    labels = AtLeast(BAGS, torch.where(count >= 2, 2, -1), 1, 2) & Exact(torch.from_numpy(TRUTH), 2)
    model = Learner(seed=0, neighbours=0).fit(X, labels)
    found = model.predict_proba(NEW, unit="set", bags=BAGS)
    many = NEW_TRUTH.reshape(-1, SIZE).sum(axis=1) >= 2
    assert ((found[:, 1] > 0.5) == many).mean() > 0.8


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"unit": "set"}, "needs bags="),
        ({"unit": "set", "bags": Bags.from_ids(torch.arange(5))}, f"bags are of 5 instances, X has {N} rows"),
        ({"unit": "bag"}, 'expected "instance" or "set"'),
        ({"bags": BAGS}, "leave it out"),
        ({"unit": "set", "bags": torch.arange(N)}, "expected Bags"),
        ({"question": 0}, "question= chooses among"),
    ],
)
def test_bad_input(any_of, how, message):
    with pytest.raises(LabelError, match=message) as caught:
        any_of.predict_proba(NEW, **how)
    assert "\n" not in str(caught.value)


def test_a_model_without_a_question():
    model = Learner(seed=0).fit(X, TRUTH)
    with pytest.raises(LabelError, match="was told about sets"):
        model.predict_proba(NEW, unit="set", bags=BAGS)
    with pytest.raises(LabelError, match="attention is that of an encoder of bags"):
        model.attention(NEW)


def test_calibration_is_of_held_out_bags(any_of):
    """Slope and offset move the answers of held-out bags to how often they are right, as far as few bags tell."""
    question = any_of.questions_[0]
    held = question.as_fitted(torch.from_numpy(any_of.held_out_log_probs_))
    plain = AnyOf(BAGS, PRESENT, 1, 2).answers(held.double())
    moved = question.calibration(plain.log())
    chosen = PRESENT.long()[:, None]
    assert moved.gather(1, chosen).mean() >= plain.log().clamp(min=-12).gather(1, chosen).mean() - 1e-9
    assert float(moved.exp()[:, 1].mean()) == pytest.approx(float(PRESENT.double().mean()), abs=0.05)


# -- a model of bags ---------------------------------------------------------------------------------------------------

DATA = BagData.from_ids(X.astype(np.float32), np.arange(N) // SIZE)
NEW_DATA = BagData.from_ids(NEW.astype(np.float32), np.arange(N) // SIZE)


@pytest.fixture(scope="module")
def of_bags():
    return Learner(seed=0, rounds=2).fit(DATA, PRESENT.long().numpy())


def test_the_default_model_of_bags(of_bags, tmp_path):
    bags, parts = of_bags.predict_proba(NEW_DATA), of_bags.predict_proba(NEW_DATA, unit="instance")
    assert bags.shape == (len(BAGS), 2)
    assert parts.shape == (N, 2)
    assert ((bags[:, 1] > 0.5) == NEW_PRESENT).mean() > 0.8
    assert (parts.argmax(axis=1) == NEW_TRUTH).mean() > 0.85
    of_bags.save(tmp_path / "model")
    again = Learner.load(tmp_path / "model")
    assert (again.predict_proba(NEW_DATA) == bags).all()
    assert (again.predict_proba(NEW_DATA, unit="instance") == parts).all()
    assert (again.predict(NEW_DATA, unit="instance") == parts.argmax(axis=1)).all()


def test_units_of_a_model_of_bags(of_bags):
    with pytest.raises(LabelError, match="X holds the bags"):
        of_bags.predict_proba(NEW_DATA, unit="set", bags=BAGS)
    with pytest.raises(LabelError, match="attention"):
        of_bags.attention(NEW_DATA)


def test_an_aggregating_encoder():
    model = Learner(encoder=BagEncoder("attention"), epochs=3, seed=0).fit(DATA, PRESENT.long().numpy())
    attention = model.attention(NEW_DATA)
    np.testing.assert_allclose(attention.reshape(-1, SIZE).sum(axis=1), 1, atol=1e-5)
    parts = model.predict_proba(NEW_DATA, unit="instance")
    assert parts.shape == (N, 2)
    # a bag of one instance is that instance
    single = BagData.from_ids(NEW.astype(np.float32), np.arange(N))
    np.testing.assert_allclose(model.predict_proba(single), parts, atol=1e-5)


def test_tags_of_bags(tmp_path):
    on = np.stack([PRESENT.numpy(), X[:, 2].reshape(-1, SIZE).mean(axis=1) > 0], axis=1).astype(int)
    model = Learner(seed=0, rounds=1).fit(DATA, Tags(torch.from_numpy(on)))
    found = model.predict_proba(NEW_DATA)
    assert found.shape == (len(BAGS), 2)
    assert ((found[:, 0] > 0.5) == NEW_PRESENT).mean() > 0.85
    assert (model.predict(NEW_DATA) == (found > 0.5)).all()
    assert model.predict_proba(NEW_DATA, unit="instance").shape == (N, 2)
    assert model.held_out_log_probs_.shape == (2 * len(BAGS), 2)
    # rows of held-out probabilities stand in the order of the labels
    tag = model.labels_.tag.numpy()
    of_first = model.parts_["0"].held_out_log_probs_
    np.testing.assert_array_equal(model.held_out_log_probs_[tag == 0], of_first)
    model.save(tmp_path / "model")
    assert (Learner.load(tmp_path / "model").predict_proba(NEW_DATA) == found).all()
