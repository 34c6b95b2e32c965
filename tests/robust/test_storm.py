"""STORM: its features against integration, its step against torch, its gradient against finite differences."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.distributions import Normal

from anygrain.labels import Exact, LabelError, Soft
from anygrain.learn import Learner, Term
from anygrain.learn.head import Linear, Perceptron
from anygrain.learn.loss import cross_entropy
from anygrain.robust.storm import (
    FEATURES,
    AdamState,
    Hard,
    Rescaler,
    Storm,
    Window,
    adam_step,
    group_mean_and_std,
    normal_divergence,
    normal_overlap,
    sample_features,
)

X, Y = load_digits(return_X_y=True)
X = X / 16


class Constant(nn.Module):
    """The same weight for all."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, features):
        return features.new_full((len(features),), self.value)


@pytest.mark.parametrize("seed", range(8))
def test_divergence_and_overlap_are_integrals(seed):
    generator = torch.Generator().manual_seed(seed)
    m, s, mu, sigma = torch.rand(4, generator=generator, dtype=torch.float64) * 2 + 0.05
    if seed == 0:
        sigma = s
    if seed == 1:
        mu, sigma = m, s * (1 + 1e-9)
    x = torch.linspace(-30, 30, 400_001, dtype=torch.float64)
    f, g = Normal(m, s).log_prob(x), Normal(mu, sigma).log_prob(x)
    assert float(normal_divergence(m, s, mu, sigma)) == pytest.approx(
        float(torch.trapezoid(f.exp() * (f - g), x)), abs=1e-6
    )
    area = float(torch.trapezoid(torch.minimum(f, g).exp(), x))
    assert float(normal_overlap(m, s, mu, sigma)) == pytest.approx(area, abs=1e-5)
    assert float(normal_overlap(mu, sigma, m, s)) == pytest.approx(area, abs=1e-5)


def test_deviations_of_zero_give_numbers():
    zero, one = torch.zeros(2), torch.ones(2)
    assert normal_divergence(one, zero, one, one).tolist() == [0.0, 0.0]
    assert normal_overlap(one, zero, one, zero).tolist() == [1.0, 1.0]
    assert normal_overlap(zero, zero, one, zero).tolist() == [0.0, 0.0]
    assert normal_overlap(zero, zero, one, one).tolist() == [0.0, 0.0]


def test_statistics_of_groups():
    values, group = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).double(), torch.arange(20) % 4
    mean, std = group_mean_and_std(values, group, 6)
    for g in range(4):
        assert torch.allclose(mean[g], values[group == g].mean(dim=0))
        assert torch.allclose(std[g], values[group == g].std(dim=0, unbiased=False))
    assert not bool(mean[4:].any() or std[4:].any())


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("category", ["all", "own"])
def test_features_by_hand(by_class, category):
    generator = torch.Generator().manual_seed(1)
    losses = torch.rand(3, 6, generator=generator, dtype=torch.float64)
    tops = torch.rand(3, 6, generator=generator, dtype=torch.float64)
    agree, classes = torch.tensor([1, 1, 0, 1, 0, 1]).bool(), torch.tensor([0, 0, 0, 1, 1, 1])
    found = sample_features(losses, tops, agree, classes, 2, by_class=by_class, category=category)
    assert found.shape == (6, FEATURES)
    i = 1
    mates = [
        j
        for j in range(6)
        if (not by_class or classes[j] == classes[i]) and (category == "all" or agree[j] == agree[i])
    ]
    own = losses.mean(dim=0)
    assert float(found[i, 0]) == pytest.approx(float(own[i]))
    assert float(found[i, 4]) == pytest.approx(float(own[mates].mean()))
    assert float(found[i, 8]) == pytest.approx(float(own[mates].std(unbiased=False)))
    spread = losses.std(dim=0)
    bulk = own[mates].mean(), spread[mates].mean()
    assert float(found[i, 12]) == pytest.approx(float(normal_divergence(own[i], spread[i], *bulk)))
    assert float(found[i, 13]) == pytest.approx(float(normal_overlap(own[i], spread[i], *bulk)))
    assert found[:, 18].tolist() == agree.double().tolist()
    assert bool(found.isfinite().all())


def test_a_step_of_adam_is_that_of_torch():
    torch.manual_seed(0)
    ours = {"w": torch.randn(4, 3, dtype=torch.float64), "b": torch.zeros(3, dtype=torch.float64)}
    theirs = {name: value.clone().requires_grad_() for name, value in ours.items()}
    optimizer, state = torch.optim.Adam(theirs.values(), lr=0.01), AdamState.of(ours)
    for _ in range(5):
        gradients = {"w": torch.randn(4, 3, dtype=torch.float64), "b": torch.zeros(3, dtype=torch.float64)}
        ours, state = adam_step(ours, gradients, state, 0.01)
        for name, value in theirs.items():
            value.grad = gradients[name]
        optimizer.step()
    for name, value in theirs.items():
        assert torch.allclose(ours[name], value, atol=1e-12)


@pytest.mark.parametrize(("step", "inner_steps"), [("sgd", 1), ("adam", 1), ("sgd", 3), ("adam", 3)])
def test_the_meta_gradient_is_that_of_finite_differences(step, inner_steps):
    """Features are held fixed, as they carry no gradient."""
    torch.manual_seed(0)
    head = Linear(5, 3).double()
    with torch.no_grad():
        head.weight.normal_()
    parameters = {name: p.detach().clone().requires_grad_() for name, p in head.named_parameters()}
    storm = Storm(step=step)
    fixed = {6: torch.randn(6, FEATURES, dtype=torch.float64), 7: torch.randn(7, FEATURES, dtype=torch.float64)}
    plain = storm.look

    def look(head, parameters, features, target, loss, window=None):
        value, _, classes = plain(head, parameters, features, target, loss)
        return value, fixed[len(features)], classes

    storm.look = look
    rescalers = nn.ModuleList([Rescaler()]).double()

    def batch(n):
        target = torch.eye(3, dtype=torch.float64)[torch.arange(n) % 3]
        return torch.randn(n, 5, dtype=torch.float64), target, torch.rand(n, dtype=torch.float64) + 0.5

    inner, second = [batch(6) for _ in range(inner_steps)], batch(7)

    def meta():
        return storm.meta_loss(
            head, parameters, AdamState.of(parameters), rescalers, inner, second, cross_entropy, 0.1
        )[0]

    entries = [p for p in rescalers.parameters() if p.ndim == 2]
    slopes = torch.autograd.grad(meta(), entries)
    direct = torch.autograd.grad(
        (storm.weigh(rescalers, fixed[7], None) * meta().detach()).mean(), entries, allow_unused=True
    )
    for p, slope, only in zip(entries, slopes, direct, strict=True):
        at, values = (0, 1), []
        for change in (1e-5, -2e-5):
            with torch.no_grad():
                p[at] += change
            values.append(float(meta()))
        with torch.no_grad():
            p[at] += 1e-5
        difference = (values[0] - values[1]) / 2e-5
        assert difference == pytest.approx(float(slope[at]), rel=1e-3, abs=1e-9)
        assert float(only[at]) != pytest.approx(float(slope[at]), rel=1e-2)  # the step counts as well


def test_a_window_compares_samples_with_those_of_the_batches_before():
    generator = torch.Generator().manual_seed(0)
    losses, tops = (torch.rand(3, 15, generator=generator, dtype=torch.float64) for _ in range(2))
    agree, classes = torch.rand(15, generator=generator) < 0.5, torch.arange(15) % 2
    how = {"by_class": True, "category": "own"}
    window, parts = Window(2), torch.arange(15).split(5)
    found = [sample_features(losses[:, p], tops[:, p], agree[p], classes[p], 2, window=window, **how) for p in parts]
    last_two = torch.cat([parts[2], parts[1]])
    wanted = sample_features(losses[:, last_two], tops[:, last_two], agree[last_two], classes[last_two], 2, **how)
    assert torch.allclose(found[2], wanted[:5])
    alone = sample_features(losses[:, :5], tops[:, :5], agree[:5], classes[:5], 2, **how)
    assert torch.equal(found[0], alone)
    window.clear()
    again = sample_features(losses[:, :5], tops[:, :5], agree[:5], classes[:5], 2, window=window, **how)
    assert torch.equal(again, alone)


def test_windows_and_several_inner_steps_find_wrong_labels():
    given = np.where(np.arange(400) % 4 == 0, (Y[:400] + 1 + np.arange(400) % 9) % 10, Y[:400])
    storm = Storm(epochs=10, window=3, inner_steps=2)
    storm.finds_temperature = True  # one run is enough here
    Learner(head="mlp", procedure=storm).fit(X[:400], given)
    wrong = given != Y[:400]
    assert storm.weights_[wrong].mean() < storm.weights_[~wrong].mean() - 0.15
    assert not storm.weights_.isnan().any()


def test_weights_of_one_half_are_plain_training_with_half_the_loss():
    how = {"epochs": 2, "batch_size": 50, "step": "sgd"}
    half = Learner(head="mlp", procedure=Storm(rescaler=Constant(0.5), learning_rate=0.2, **how)).fit(X[:200], Y[:200])
    whole = Learner(head="mlp", procedure=Storm(rescaler=Constant(1.0), learning_rate=0.1, **how)).fit(X[:200], Y[:200])
    for one, two in zip(half.head_.parameters(), whole.head_.parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-6)


def test_wrong_labels_get_less_weight_and_do_less_harm():
    generator = np.random.default_rng(0)
    wrong = generator.random(1000) < 0.3
    noisy = np.where(wrong, (Y[:1000] + generator.integers(1, 10, 1000)) % 10, Y[:1000])
    storm = Storm(epochs=10)
    ours = Learner(head="mlp", procedure=storm).fit(X[:800], noisy[:800])
    plain = Learner(head="mlp", procedure=Storm(epochs=10, rescaler=Constant(1.0))).fit(X[:800], noisy[:800])
    assert ours.score(X[1000:], Y[1000:]) > plain.score(X[1000:], Y[1000:]) + 0.01
    weights = storm.weights_.numpy()
    assert weights[~wrong[:800]].mean() > weights[wrong[:800]].mean() + 0.4


@pytest.mark.parametrize(
    "options", [{"by_class": True}, {"floor": 0.4}, {"relative": True}, {"threshold": 0.5}, {"warm_up": 1}]
)
def test_options_keep_their_promise(options):
    soft = 0.7 * np.eye(10)[Y[:300]] + 0.03
    soft[:20] = np.nan
    storm = Storm(epochs=2, **options)
    model = Learner(head="mlp", procedure=storm).fit(X[:300], Soft(torch.tensor(soft)))
    weights = storm.weights_
    assert bool(weights[:20].isnan().all())
    weights = weights[20:]
    assert bool(weights.isfinite().all())
    assert np.isfinite(model.predict_proba(X)).all()
    if "floor" in options:
        assert float(weights.min()) >= 0.4
    if "relative" in options:
        assert float(weights.max()) == 1.0
    if "threshold" in options:
        assert set(weights.tolist()) == {0.0, 1.0}


def test_hard_weights_pass_a_clipped_gradient():
    weight = torch.tensor([0.2, 0.7], requires_grad=True)
    hard = Hard.apply(weight, 0.5)
    assert hard.tolist() == [0.0, 1.0]
    (hard * torch.tensor([3.0, -0.5])).sum().backward()
    assert weight.grad.tolist() == [1.0, -0.5]


def test_dropout_is_on_while_it_trains_and_off_after():
    assert Perceptron.dropout > 0
    model = Learner(head="mlp", procedure=Storm(epochs=1)).fit(X[:100], Y[:100])
    assert np.array_equal(model.predict_proba(X[:5]), model.predict_proba(X[:5]))
    assert math.isclose(float(model.predict_proba(X[:5]).sum()), 5.0, rel_tol=1e-6)


def test_refusals_are_one_line():
    with pytest.raises(LabelError, match="batch_size is 1"):
        Learner(head="mlp", procedure=Storm(batch_size=1)).fit(X[:50], Y[:50])
    with pytest.raises(LabelError, match="2 samples or more"):
        Rescaler()(torch.zeros(1, FEATURES))
    with pytest.raises(LabelError, match="floor is 1"):
        Storm(floor=1.0)
    with pytest.raises(LabelError, match="does not compose with terms"):
        Learner(procedure=Storm(), terms=[Term()]).fit(X[:50], Y[:50])


def test_labels_that_weigh_next_to_nothing_teach_next_to_nothing():
    wrong = torch.as_tensor(Y[:200]).clone()
    wrong[100:] = (wrong[100:] + 1) % 10
    weight = torch.where(torch.arange(200) < 100, 1.0, 1e-6)
    model = Learner(head="mlp", procedure=Storm(epochs=15)).fit(X[:200], Exact(wrong, 10, weight=weight))
    assert model.score(X[100:200], Y[100:200]) > 0.6
