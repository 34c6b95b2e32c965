"""A Learner whose rows are bags."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch

from anygrain.bags import InstanceClustering
from anygrain.data.bag_data import BagData
from anygrain.encoders.bags import AGGREGATORS, BagEncoder, BagNoise, segments
from anygrain.encoders.bags import bag_encoder as module
from anygrain.encoders.bags.bag_noise import some_of
from anygrain.encoders.trainable import in_batches, parts_of
from anygrain.labels import Candidates, Exact, LabelError
from anygrain.learn import Learner, RecipeState, end_to_end, load
from anygrain.learn.loop import side_by_side


def toy(number, seed, coords=False):
    """Bags of 1 to 12 instances; a positive one holds an instance that is far out in two features."""
    rng = np.random.default_rng(seed)
    truth, bags, positive = np.arange(number) % 2, [], []
    for y in truth:
        x = rng.standard_normal((rng.integers(1, 13), 5)).astype(np.float32)
        found = np.zeros(len(x), dtype=bool)
        found[rng.integers(len(x))] = y
        x[found, :2] += 5
        bags.append(3 + 10 * x)  # far from 0, as features are
        positive.append(found)
    places = [rng.random((len(x), 2)) for x in bags] if coords else None
    return BagData.from_arrays(bags, places), truth, np.concatenate(positive)


def learner(name="attention", epochs=15, **options):
    return Learner(encoder=BagEncoder(name, hidden=16, **options), epochs=epochs, learning_rate=0.01)


@pytest.mark.parametrize("name", ["attention", "noisy_or", "set_transformer", "mamba"])
def test_bags_are_learnt_and_a_saved_model_says_the_same(name, tmp_path):
    (bags, truth, _), (test, test_truth, positive) = toy(120, 0), toy(100, 1)
    options = {"layers": 1, "state": 4} if name == "mamba" else {}
    model = learner(name, **options).fit(bags, truth)
    assert model.score(test, test_truth) > (0.75 if name == "mamba" else 0.93)  # it learns slowest
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert np.array_equal(again.predict_proba(test), model.predict_proba(test))
    assert torch.equal(again.encoder_.attention(test), model.encoder_.attention(test))
    with torch.no_grad():
        score = model.head_.logits(model.encoder_.instances(test)).diff(dim=1)[:, 0].numpy()
    if name != "mamba":  # an instance there carries what was read before it
        assert score[positive].mean() > score[~positive].mean() + 1


def test_means_and_deviations_are_those_of_all_instances():
    bags, _, _ = toy(40, 0)
    shifted = BagData.from_arrays([bags[m] + 1e5 * np.arange(5, dtype=np.float32) for m in range(40)])
    encoder = BagEncoder(hidden=4).learn(shifted)
    features = shifted.features.astype(np.float64)
    assert encoder.mean.numpy() == pytest.approx(features.mean(axis=0), rel=1e-6)
    assert 1 / encoder.scale.numpy() == pytest.approx(features.std(axis=0), rel=1e-4)
    constant = BagData.from_arrays([np.ones((3, 2)), np.ones((1, 2)) * [1, 2]])
    assert BagEncoder(hidden=4).learn(constant).scale[0] == 0


@pytest.mark.parametrize("name", AGGREGATORS)
def test_configurations_come_back(name):
    bags, _, _ = toy(10, 0, coords=True)
    encoder = BagEncoder(name, hidden=8, reembedding={"regions": 2, "kernel": 3, "heads": 2}).learn(bags).eval()
    again = BagEncoder(**encoder.config())
    again.shapes_from(encoder.state_dict())
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again.eval()(bags), encoder(bags))
    assert encoder(bags).shape == (10, encoder.feature_dim)


def test_large_bags_go_through_in_parts_and_gradients_are_those_of_the_whole(monkeypatch):
    bags, truth, _ = toy(60, 0)

    def fitted(limit):
        monkeypatch.setattr(module, "AT_ONCE", limit)
        monkeypatch.setattr(end_to_end, "LOOKED_AT_ONCES", 1000)  # the same bags at the start
        encoder = BagEncoder(hidden=8, dropout=0.0)
        return Learner(encoder=encoder, epochs=2, batch_size=16, augmentation=None).fit(bags, truth)

    whole, parts = fitted(1 << 24), fitted(5 * 20)
    assert parts.encoder_.inputs(bags).costs.sum() > 3
    assert parts.predict_proba(bags) == pytest.approx(whole.predict_proba(bags), abs=1e-5)


def test_no_part_costs_more_than_goes_at_once_unless_it_is_one_row():
    bags, _, _ = toy(60, 0)
    rows = module.BagRows(bags)
    rows.costs = rows.costs * module.AT_ONCE / 100
    chosen = torch.randperm(60)
    parts = parts_of(rows, chosen, 5)
    assert torch.equal(torch.cat(parts), chosen)
    assert max(len(part) for part in parts) <= 5
    assert all(len(part) == 1 or float(rows.costs[part].sum()) <= 1 for part in parts)
    assert all(len(a) == 5 or float(rows.costs[a].sum() + rows.costs[b[0]]) > 1 for a, b in pairwise(parts))
    encoder = BagEncoder(hidden=4).learn(bags)
    one = in_batches(encoder.encode, rows, 60, encoder)
    assert torch.allclose(one, in_batches(encoder.encode, module.BagRows(bags), 60, encoder), atol=1e-6)


def test_batches_hold_as_many_bags_as_go_at_once():
    assert BagEncoder(feature_count=512, bag_size=20_000.0).training_defaults.batch_size == 1
    assert BagEncoder(feature_count=200, bag_size=10.0).training_defaults.batch_size == module.LARGEST_BATCH


def test_two_views_stand_side_by_side():
    bags, _, _ = toy(8, 0, coords=True)
    encoder = BagEncoder(hidden=8, dropout=0.0).learn(bags)
    arrays = encoder.inputs(bags)[torch.arange(8)]
    strong = BagNoise().strong(arrays, torch.Generator().manual_seed(0))
    both = encoder.encode(side_by_side([arrays, strong]))
    assert torch.allclose(both[:8], encoder.encode(arrays), atol=1e-6)
    assert torch.allclose(both[8:], encoder.encode(strong), atol=1e-6)


def test_the_strong_view_loses_instances_and_keeps_every_bag():
    sizes = torch.tensor([1, 50, 2, 400])
    kept = some_of(sizes, 0.3, torch.Generator().manual_seed(0))
    left = segments.total(kept.float(), sizes)
    assert left[0] == 1
    assert 0.6 < left[3] / 400 < 0.8
    assert some_of(sizes, 1.0, torch.Generator().manual_seed(0)).sum() == 4
    arrays = {"features": torch.randn(453, 3), "sizes": sizes, "coords": torch.arange(906.0).view(453, 2)}
    before = copy.deepcopy(arrays)
    view = BagNoise(dropped=0.3, blanked=0.0).strong(arrays, torch.Generator().manual_seed(0))
    assert all(torch.equal(arrays[k], before[k]) for k in arrays)
    assert int(view["sizes"].sum()) == len(view["features"]) == len(view["coords"])
    at = (view["coords"][:, 0] / 2).long()  # features and places of the same instances, in their order
    assert torch.equal(view["features"], arrays["features"][at])
    assert (at.diff() > 0).all()


def test_doubtful_labels_teach_by_two_views_and_unlabelled_bags_come_along():
    (bags, truth, _), (test, test_truth, _) = toy(160, 0), toy(60, 1)
    candidates = torch.nn.functional.one_hot(torch.from_numpy(truth), 3).bool()
    candidates[::3, 2] = True
    candidates[100:] = True
    model = learner(epochs=10).fit(bags, Candidates(candidates))
    assert model.score(test, test_truth) > 0.85


def test_cross_fitted_accumulated_and_gone_on_with_from_files(tmp_path):
    made, truth, _ = toy(60, 0)
    for m in range(len(made)):
        np.savez(tmp_path / f"slide_{m:02d}.npz", features=made[m])
    bags = BagData.from_folder(tmp_path)

    def settings(**how):
        return Learner(
            encoder=BagEncoder(hidden=8), epochs=3, batch_size=8, accumulate=2, augmentation=None, cross_fit=True, **how
        )

    class Stop(Exception):
        pass

    seen = []

    def callback(done, total, facts):
        seen.append(facts["step"])
        if len(seen) == 2:
            raise Stop

    state = RecipeState()
    with pytest.raises(Stop):
        settings().fit(bags, truth, callback=callback, state=state)
    tensors = {k: v.clone() for k, v in state.tensors().items()}
    again = BagData.from_folder(tmp_path)
    resumed = settings().fit(again, truth, state=RecipeState.from_tensors(tensors, list(state.history)))
    whole = settings().fit(bags, truth)
    assert np.array_equal(resumed.predict_proba(bags), whole.predict_proba(bags))
    assert whole.held_out_.all()


def test_clams_instance_branch_learns_beside_the_bags():
    bags, truth, positive = toy(120, 0)
    encoder = BagEncoder("clam", hidden=16, classes=2, clustered=1)
    model = Learner(encoder=encoder, epochs=15, learning_rate=0.01, terms=[InstanceClustering()]).fit(bags, truth)
    clam = model.encoder_.eval()
    with torch.no_grad():
        arrays = clam.inputs(bags)[torch.arange(len(bags))]
        score = clam.aggregator.instance_scores(clam.seen(arrays))[:, 1].numpy()
    assert score[positive].min() > np.quantile(score[~positive], 0.9)
    with pytest.raises(LabelError, match=r"needs encoder=BagEncoder\(\"clam\"\)"):
        learner(epochs=1).__class__(encoder=BagEncoder(hidden=4), terms=[InstanceClustering()]).fit(bags, truth)


def test_what_cannot_be_read_is_refused():
    bags, truth, _ = toy(20, 0)
    with pytest.raises(LabelError, match=r"X is ndarray; expected bags, such as BagData.from_arrays"):
        Learner(encoder="bags").fit(np.eye(4), [0, 1, 0, 1])
    model = learner(epochs=1).fit(bags, Exact(torch.from_numpy(truth), 2))
    with pytest.raises(LabelError, match="the bags have 3 features; expected the 5"):
        model.predict(BagData.from_arrays([np.ones((2, 3))]))
    with pytest.raises(LabelError, match='has no option "gate"'):
        BagEncoder("attention", gate=True)
    with pytest.raises(LabelError, match="has no attention"):
        learner("deep_sets", epochs=1).fit(bags, truth).encoder_.attention(bags)
    with pytest.raises(LabelError, match="hidden is 0"):
        BagEncoder(hidden=0)
