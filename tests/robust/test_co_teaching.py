"""Co-teaching: its limits, what it picks, and that it tolerates wrong labels."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from anygrain.encoders import Convolutional
from anygrain.labels import Exact, IdentifiabilityWarning, LabelError, Soft
from anygrain.learn import Learner
from anygrain.learn.loss import terms_alone
from anygrain.learn.step import Step, View
from anygrain.robust.co_teaching import CoTeaching, easiest, kept_share
from anygrain.robust.co_teaching_term import CoTeachingTerm, started_anew

X, Y = load_digits(return_X_y=True)
X = X / 16


def flipped(y, share, seed=0):
    """Some labels replaced by another class."""
    generator = np.random.default_rng(seed)
    wrong = generator.random(len(y)) < share
    return np.where(wrong, (y + generator.integers(1, 10, len(y))) % 10, y), wrong


def test_the_share_that_is_kept():
    assert [kept_share(e, 0.4, 4) for e in (0, 1, 4, 9)] == [1.0, 0.9, 0.6, 0.6]
    assert kept_share(0, 0.3, 0) == 0.7
    loss = torch.tensor([3.0, 1.0, 2.0, 5.0])
    assert easiest(loss, 0.5).tolist() == [1, 2]
    assert sorted(easiest(loss, 1.0).tolist()) == [0, 1, 2, 3]
    assert easiest(loss, 0.0).tolist() == [1]


def test_without_noise_every_row_is_learnt_from():
    model = Learner(head="mlp", procedure=CoTeaching(noise=0.0, epochs=8)).fit(X[:600], Y[:600])
    assert torch.allclose(model.procedure.picked_, torch.ones(600), atol=1e-5)
    assert model.score(X[:600], Y[:600]) > 0.95


def test_wrong_labels_are_picked_less_and_do_less_harm():
    noisy, wrong = flipped(Y[:900], 0.4)
    how = {"epochs": 25, "batch_size": 64}
    plain = Learner(head="mlp", procedure=CoTeaching(noise=0.0, **how)).fit(X[:900], noisy)
    ours = Learner(head="mlp", procedure=CoTeaching(noise=0.4, **how)).fit(X[:900], noisy)
    assert ours.score(X[900:], Y[900:]) > plain.score(X[900:], Y[900:]) + 0.03
    picked = ours.procedure.picked_.numpy()
    assert picked[~wrong].mean() > picked[wrong].mean() + 0.5


def test_labels_in_doubt_and_silent_rows():
    soft = 0.7 * np.eye(10)[Y[:400]] + 0.03
    soft[::2] = np.nan
    model = Learner(head="mlp", procedure=CoTeaching(0.1, epochs=15, batch_size=32)).fit(
        X[:400], Soft(torch.tensor(soft))
    )
    assert model.score(X[400:], Y[400:]) > 0.75
    assert float(model.procedure.picked_[::2].max()) == 0.0


def test_the_same_seed_gives_the_same_model_and_the_two_heads_differ():
    one, two = (
        Learner(head="mlp", seed=1, procedure=CoTeaching(epochs=2)).fit(X[:200], Y[:200]).predict_proba(X[:9])
        for _ in "ab"
    )
    assert np.array_equal(one, two)
    other = Learner(head="mlp", seed=2, procedure=CoTeaching(epochs=2)).fit(X[:200], Y[:200]).predict_proba(X[:9])
    assert not np.allclose(one, other)


def test_refusals_are_one_line():
    with pytest.raises(LabelError, match="noise is 1"):
        CoTeaching(noise=1.0)
    with pytest.raises(LabelError, match="no row has any evidence"), pytest.warns(IdentifiabilityWarning):
        Learner(procedure=CoTeaching()).fit(X[:20], Exact(torch.full((20,), -1), 10))


def shapes(n, seed):
    """Pictures of 8 x 8 of three kinds of bars, and their kinds."""
    generator = np.random.default_rng(seed)
    kind = generator.integers(3, size=n)
    pictures = generator.integers(0, 60, size=(n, 8, 8))
    pictures[kind == 0, 2:4, :] += 150
    pictures[kind == 1, :, 2:4] += 150
    return pictures.astype(np.uint8), kind


def test_a_second_network_starts_elsewhere_and_both_learn():
    images, kind = shapes(200, 0)
    wrong = np.random.default_rng(1).random(200) < 0.3
    given = np.where(wrong, (kind + 1) % 3, kind)
    term = CoTeachingTerm(noise=0.3, ramp=2)
    how = {"epochs": 30, "batch_size": 50, "learning_rate": 0.01, "seed": 0}
    model = Learner(encoder=Convolutional(widths=(8, 8)), terms=[term], loss=terms_alone, **how).fit(images, given)
    fresh, truth = shapes(300, 2)
    assert model.score(fresh, truth) > 0.8
    with torch.no_grad():
        second = term.head(term.encoder.eval()(fresh)).argmax(dim=1).numpy()
    assert (second == truth).mean() > 0.8
    one, two = (dict(e.named_parameters()) for e in (model.encoder_, term.encoder))
    assert not any(torch.equal(one[key], two[key]) for key in one if one[key].ndim > 1)


def test_networks_are_started_anew_but_pretrained_ones_stay():
    images, _ = shapes(20, 0)
    drawn = Convolutional(widths=(4, 8)).learn(images, seed=3)
    twin = started_anew(drawn, 3)
    assert not torch.equal(drawn.network[0].weight, twin.network[0].weight)
    assert torch.equal(drawn.mean, twin.mean)
    with torch.no_grad():
        drawn.network[0].weight.mul_(2)  # as weights that come from elsewhere
    assert torch.equal(drawn.network[0].weight, started_anew(drawn, 3).network[0].weight)


def test_each_network_learns_what_the_other_finds_easy():
    """The value of the term, by hand, from the two networks' losses."""
    term = CoTeachingTerm(noise=0.5, ramp=0)
    own = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]]).log()
    other = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.3, 0.7], [0.1, 0.9]]).log()
    target = torch.eye(2)[torch.tensor([0, 0, 1, 1])]
    term.encoder, term.head = SimpleNamespace(encode=lambda arrays: arrays["x"]), torch.nn.Identity()
    term.weight, term.change = torch.tensor([1.0, 1.0, 2.0, 1.0]), None
    view = View({"x": other}, torch.arange(4), None, None, lambda said, place, names: said[place])
    found = term(Step(own, own, target, torch.arange(4), 0, view))
    # own losses are smallest at 0 and 2, those of the other at 1 and 3
    first = -(own[1, 0] + own[3, 1]) / 2
    second = -(other[0, 0] + 2 * other[2, 1]) / 3
    assert torch.allclose(found, first + second)


def test_the_term_is_for_networks():
    images, kind = shapes(60, 0)
    with pytest.raises(LabelError, match="on fixed features use"):
        Learner(terms=[CoTeachingTerm()], epochs=1).fit(images.reshape(60, -1) / 255.0, kind)
    with pytest.raises(LabelError, match="noise is 1"):
        CoTeachingTerm(noise=1.0)
