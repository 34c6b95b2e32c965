"""The default model of bags."""

import json

import numpy as np
import pytest
import torch

from anygrain.data.bag_data import BagData
from anygrain.labels import Noisy
from anygrain.learn import Learner, bag_model
from anygrain.learn.recipe import RecipeState
from anygrain.learn.slope_offset import fit_slope_offset
from anygrain.learn.trees import Trees

SIZE, N = 6, 60


def bags(seed, n=N):
    """Bags of two classes: their mean tells a little, one instance far off tells more."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, SIZE, 3))
    y = np.arange(n) % 2
    x[:, :, 1] += 0.3 * y[:, None]
    x[y == 1, 0, 0] += 3
    return BagData.from_ids(x.reshape(-1, 3).astype(np.float32), np.repeat(np.arange(n), SIZE)), y


DATA, Y = bags(0)
NEW, NEW_Y = bags(1)


@pytest.fixture(scope="module", autouse=True)
def few_trees():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trees, "trees", 40)
        yield


@pytest.fixture(scope="module")
def model():
    return Learner(seed=0).fit(DATA, Y)


def test_it_is_the_pool_of_its_parts(model):
    """What is said of training bags comes from parts that did not see them, and so do slopes and offsets."""
    assert list(model.parts_) == ["trees", "linear", "instances"]
    held = [torch.from_numpy(model.parts_[name].held_out_log_probs_) for name in ("trees", "linear")]
    instances = model.parts_["instances"]
    of_instances = instances.questions_[0].as_fitted(torch.from_numpy(instances.held_out_log_probs_))
    none = of_instances[:, 0].reshape(N, SIZE).sum(dim=1)
    held.append(torch.stack([none, torch.log(-torch.expm1(none))], dim=1))
    pool = fit_slope_offset(held, torch.nn.functional.one_hot(torch.from_numpy(Y), 2))
    assert model.pool_.slopes == pytest.approx(pool.slopes, abs=1e-3)
    np.testing.assert_allclose(model.held_out_log_probs_, pool(*held).numpy(), atol=1e-3)
    accuracy = (model.predict(NEW) == NEW_Y).mean()
    assert accuracy > 0.8
    assert accuracy >= (model.held_out_log_probs_.argmax(axis=1) == Y).mean() - 0.15


def test_log_loss_where_nothing_tells_is_that_of_the_classes():
    shuffled = np.random.default_rng(3).permutation(Y)
    found = Learner(seed=0).fit(DATA, shuffled).predict_proba(NEW)
    assert float(-np.log(found[np.arange(N), NEW_Y]).mean()) < 0.76


def test_goes_on_to_the_same(model):
    """A fit that was stopped after a part, or at its end, and goes on: the same model, nothing is said twice."""
    stopped = RecipeState()

    class Stop(Exception):
        pass

    def stop(done, total, facts):
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        Learner(seed=0).fit(DATA, Y, callback=stop, state=stopped)
    kept = RecipeState.from_tensors(stopped.tensors(), json.loads(json.dumps(stopped.history)))
    said = []
    again = Learner(seed=0).fit(DATA, Y, callback=lambda done, total, facts: said.append(facts["step"]), state=kept)
    assert said == ["instances", "pool"]
    assert (again.predict_proba(NEW) == model.predict_proba(NEW)).all()
    assert (again.held_out_log_probs_ == model.held_out_log_probs_).all()
    assert [facts["step"] for facts in again.history_] == [facts["step"] for facts in model.history_]


def test_unknown_classes():
    unknown = np.where(np.arange(N) < 50, Y, -1)
    model = Learner(seed=0, rounds=1).fit(DATA, unknown)
    assert model.posterior_.shape == (N, 2)
    assert ((model.posterior_[50:, 1] > 0.5) == Y[50:]).mean() > 0.6
    assert (model.predict(NEW) == NEW_Y).mean() > 0.75


def test_noisy_classes_of_bags():
    flipped = np.where(np.random.default_rng(0).random(N) < 0.1, 1 - Y, Y)
    matrix = torch.tensor([[0.9, 0.1], [0.1, 0.9]])
    model = Learner(seed=0, rounds=1).fit(DATA, Noisy(torch.from_numpy(flipped), 2, matrix))
    assert (model.predict(NEW) == NEW_Y).mean() > 0.75


def test_classes_whose_names_are_swapped():
    swapped = Learner(seed=0).fit(DATA, 1 - Y)
    found = swapped.predict_proba(NEW, unit="instance").reshape(N, SIZE, 2)
    planted = NEW_Y == 1
    assert (found[planted, 0, 0] > found[planted, 1:, 0].max(axis=1)).mean() > 0.8
    assert (swapped.predict(NEW) == 1 - NEW_Y).mean() > 0.8


def test_instances_of_more_than_two_classes(tmp_path):
    """An instance counts for the class of the bags that have such ones; scores of a bag are means of its instances'."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(90, SIZE, 3))
    y = np.arange(90) % 3
    for k in (1, 2):
        x[y == k, :2, k - 1] += 4
    data = BagData.from_ids(x.reshape(-1, 3).astype(np.float32), np.repeat(np.arange(90), SIZE))
    model = Learner(seed=0).fit(data, y)
    found = model.predict_proba(data, unit="instance")
    assert found.shape == (90 * SIZE, 3)
    of_bags = found.reshape(90, SIZE, 3)
    for k in (1, 2):
        assert (of_bags[y == k, :2, k] > 0.5).mean() > 0.8
        assert (of_bags[y == k, 2:, k] > 0.5).mean() < 0.3
    linear = model.parts_["linear"]
    with torch.no_grad():
        said = linear.log_probs(model.encoder_(data).numpy()[:, :3]).double().numpy()
    mean = np.log(of_bags).mean(axis=1)
    np.testing.assert_allclose(mean - mean[:, :1], said - said[:, :1], atol=1e-3)
    model.save(tmp_path / "model")
    assert (Learner.load(tmp_path / "model").predict_proba(data, unit="instance") == found).all()


def test_large_bags_are_seen_in_part(model, monkeypatch):
    """A model of instances of some bags says of the others what it would of new ones; chunks do not change answers."""
    whole = model.predict_proba(NEW), model.predict_proba(NEW, unit="instance")
    monkeypatch.setattr(bag_model, "AT_ONCE", 4 * SIZE)
    np.testing.assert_allclose(model.predict_proba(NEW), whole[0], atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(NEW, unit="instance"), whole[1], atol=1e-6)
    monkeypatch.setattr(bag_model, "ENTRIES", N // 2 * SIZE * 3)
    part, said = bag_model._by_instances(model, DATA, torch.from_numpy(Y))
    assert part.held_out_log_probs_.shape == (N // 2 * SIZE, 2)
    shown = bag_model.some_of_each(DATA, torch.from_numpy(Y), bag_model.ENTRIES, 0)
    rest = np.setdiff1d(np.arange(N), shown.numpy())
    fitted = part.questions_[0].as_fitted(part.log_probs(DATA[rest].features))
    none = fitted[:, 0].reshape(-1, SIZE).sum(dim=1).exp().numpy()
    np.testing.assert_allclose(said[rest, 0].exp().numpy(), none, atol=1e-5)
    assert ((said[:, 1] > said[:, 0]).numpy() == Y).mean() > 0.7
