"""Networks that learn from labels of few sets."""

import numpy as np
import pytest
import torch

from anygrain.labels import AnyOf, Bags, Counts, Exact, Majority, Noisy, Proportions, Tags
from anygrain.learn import Learner, fixed, set_heads
from anygrain.learn.head import Committee, SmallPerceptron
from anygrain.learn.recipe import RecipeState
from anygrain.learn.set_heads import SideBySide, calibrated, copies_of, likeliest_constant, wants_network
from anygrain.learn.tag_committee import TagCommittee


def softmax(outputs):
    return outputs.log_softmax(dim=-1)


def bags(n, size):
    return Bags.from_ids(torch.arange(n * size) // size)


def problem(n=60, size=5, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random(n * size) < 0.15
    features = rng.normal(size=(n * size, 4)) + 3 * truth[:, None]
    return features, AnyOf(bags(n, size), torch.from_numpy(truth.reshape(n, size).any(axis=1)), 1, 2), truth


@pytest.mark.parametrize("size", [1, 5, 50])
def test_the_constant_that_explains_half_of_the_bags(size):
    labels = AnyOf(bags(40, size), torch.arange(40) % 2, 1, 2)
    p = float(likeliest_constant(labels)[0, 1].exp())
    assert 1 - (1 - p) ** size == pytest.approx(0.5, abs=1e-3)


def test_the_constant_of_counts_is_their_share():
    labels = Counts(bags(3, 4), torch.tensor([[4, 0], [3, 1], [1, 3]]))
    assert likeliest_constant(labels)[0].exp().tolist() == pytest.approx([8 / 12, 4 / 12], abs=1e-5)


def test_a_committee_is_the_weighted_mean_of_its_members():
    members = [SmallPerceptron(4, 3) for _ in range(3)]
    for seed, one in enumerate(members):
        one.draw(torch.Generator().manual_seed(seed))
    weights = [0.5, 0.3, 1.0]
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(9))
    expected = sum(w * one.logits(x) for w, one in zip(weights, members, strict=True))
    torch.testing.assert_close(Committee(4, 3).joined(members, weights).logits(x), expected)


def test_which_labels_networks_learn_from():
    _, labels, truth = problem()
    n, classes = len(truth), torch.from_numpy(truth.astype(int))
    assert wants_network(labels)
    assert wants_network(labels & Proportions.about(labels.sets, {1: 0.2}, 2))
    assert not wants_network(labels & Exact(classes, 2))
    assert not wants_network(Noisy(classes, 2))
    assert not wants_network(Majority(labels.sets, torch.zeros(60), 2))
    many = bags(2001, 1)
    assert not wants_network(AnyOf(many, torch.zeros(2001), 1, 2))
    assert n == 300


def test_learns_instances_from_large_bags():
    """From equal chances a bag of 50 that holds the class would seem to say nothing of its members."""
    features, labels, truth = problem(40, 50, seed=1)
    rare = truth & (np.arange(len(truth)) % 6 == 0)
    features = features - 3 * (truth & ~rare)[:, None]
    labels = AnyOf(labels.sets, torch.from_numpy(rare.reshape(40, 50).any(axis=1)), 1, 2)
    found = Learner(seed=0).fit(features, labels).predict_proba(features)[:, 1]
    assert found[rare].mean() > 0.5
    assert found[~rare].mean() < 0.05


def test_an_interrupted_fit_goes_on(monkeypatch):
    monkeypatch.setattr(set_heads, "LARGEST", 300 * SmallPerceptron.width * 6)  # six networks at once
    features, labels, _ = problem()
    steps: list[str] = []
    whole = Learner(seed=0).fit(features, labels, callback=lambda done, total, facts: steps.append(facts["step"]))
    assert steps == ["networks 1", "networks 2", "networks 3"]
    kept = whole.recipe_state_.tensors()
    half = {key: value for key, value in kept.items() if not key.startswith("networks 3")}
    again = Learner(seed=0).fit(features, labels, state=RecipeState.from_tensors(half, whole.recipe_state_.history[:2]))
    np.testing.assert_allclose(again.predict_proba(features), whole.predict_proba(features), atol=1e-6)
    assert isinstance(whole.head_, Committee)
    monkeypatch.undo()
    at_once = Learner(seed=0).fit(features, labels)
    np.testing.assert_allclose(at_once.predict_proba(features), whole.predict_proba(features), atol=1e-3)


def test_networks_side_by_side_are_what_each_is_alone():
    features, labels, _ = problem(20, 3)
    rows = torch.from_numpy(features).float()
    share = torch.full((2, 60), 1 / 20)
    decay = torch.tensor([0.01, 0.3])
    both = SideBySide(4, likeliest_constant(labels)[0], 2)
    both.learn(rows, copies_of(labels, 2), softmax, decay, share)
    for j in range(2):
        one = SideBySide(4, likeliest_constant(labels)[0], 1)
        one.learn(rows, labels, softmax, decay[j : j + 1], share[:1])
        torch.testing.assert_close(both.logits(rows)[j], one.logits(rows)[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(both.member(j).logits(rows), both.logits(rows)[j])


def test_what_is_said_of_hidden_sets_shows_in_no_weight_of_their_networks():
    """Instances of share 0 teach nothing."""
    features, labels, _ = problem(20, 3)
    turned = labels._fresh()
    turned.present = torch.where(torch.arange(20) < 5, 1 - labels.present, labels.present)
    share = (torch.arange(60) >= 15).float()[None] / 15
    found = []
    for each in (labels, turned):
        nets = SideBySide(4, torch.tensor([0.8, 0.2]).log(), 1)
        nets.learn(torch.from_numpy(features).float(), each, softmax, torch.tensor([0.01]), share)
        found.append(nets.state()["inner"])
    assert torch.equal(*found)


def test_outputs_that_are_too_sure_are_scaled_by_what_is_said_of_sets():
    """Log-odds of instances that are known, in bags of five, come back from what they are times three, and less one."""
    generator = torch.Generator().manual_seed(0)
    odds = 2 * torch.randn(5 * 2000, generator=generator).double() - 2
    truth = torch.rand(len(odds), generator=generator) < odds.sigmoid()
    labels = AnyOf(bags(2000, 5), truth.view(-1, 5).any(dim=1), 1, 2)
    given = torch.stack([-1.5 * odds, 1.5 * odds - 1], dim=1)
    slope, offset, likelihood = calibrated(labels, given, softmax, 2)
    assert float(slope) == pytest.approx(1 / 3, rel=0.1)
    assert float(offset[1] - offset[0]) == pytest.approx(1 / 3, abs=0.15)
    right = labels.log_likelihood(torch.stack([-odds, odds], dim=1).div(2).log_softmax(dim=1)).sum()
    assert float(likelihood) == pytest.approx(float(right), abs=4)


def tag_problem(n=60, size=4, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random((n * size, 3)) < 0.2
    features = rng.normal(size=(n * size, 5)) + np.pad(3.0 * truth, ((0, 0), (0, 2)))
    present = torch.from_numpy(truth.reshape(n, size, 3).any(axis=1))
    nothing = Tags(torch.full(truth.shape, -1))
    of_tags = Bags.from_ids((torch.arange(n * size)[:, None] // size * 3 + torch.arange(3)).flatten())
    asked = AnyOf(of_tags, present.flatten(), 1, 2, rows=nothing.rows, n_rows=nothing.n_rows)
    return features, nothing, asked, truth


def test_tags_of_sets_are_learnt_by_networks_that_share_hidden_units(tmp_path):
    features, nothing, asked, truth = tag_problem()
    model = Learner(seed=0).fit(features, nothing & asked)
    assert isinstance(model.head_, TagCommittee)
    on = model.predict_proba(features)
    assert on.shape == truth.shape
    assert -np.log(np.where(truth, on, 1 - on)).mean() < 0.2
    model.save(tmp_path / "model")
    np.testing.assert_allclose(Learner.load(tmp_path / "model").predict_proba(features), on, atol=1e-6)
    known = Tags(torch.from_numpy(np.where(np.arange(len(truth))[:, None] < 9, truth, -1).astype(int)))
    assert wants_network(nothing & asked)
    assert not wants_network(known & asked)


def test_the_constant_of_every_tag_is_its_own():
    nothing = Tags(torch.full((4, 2), -1))
    of_tags = Bags.from_ids(torch.arange(8))
    asked = AnyOf(of_tags, torch.tensor([1, 0, 1, 0, 1, 1, 0, 0]), 1, 2, rows=nothing.rows, n_rows=4)
    found = likeliest_constant(nothing & asked, nothing.tag, 2)[:, 1].exp()
    assert found.tolist() == pytest.approx([3 / 4, 1 / 4], abs=1e-4)


def test_a_rate_beside_any_of_is_learnt_by_networks():
    """Both speak of the same large bags, which must not be a loop."""
    labels = AnyOf(bags(40, 50), torch.arange(40) % 2, 1, 2)
    both = labels & Proportions.about(labels.sets, {1: 0.1}, 2, where=labels.present == 1)
    assert both.exact
    assert wants_network(both)


def test_a_majority_is_one_observation_of_several_instances():
    """The decay that is meant for an observation of one instance is taken per set."""
    truth = torch.arange(60) // 3 % 2
    features = np.random.default_rng(0).normal(size=(60, 3)) + truth.numpy()[:, None]
    labels = Majority(bags(20, 3), truth[::3], 2)
    assert fixed._decay(Learner(penalty=0.02), labels) == pytest.approx(0.06)
    assert fixed._decay(Learner(penalty=0.02), Exact(truth, 2)) == 0.02
    assert fixed._decay(Learner(penalty=0.02), labels & Exact(truth, 2)) == 0.02
    weak, strong = (Learner(penalty=p).fit(features, labels).head_.penalty().detach() for p in (0.01, 0.1))
    assert float(strong) < float(weak)
