"""Mean responses: the identity of the losses, the closed form, the chosen rho, what private means give away."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.bags.aggregate_losses import aggregate_loss, bag_means, within_bag_spread
from anygrain.bags.aggregate_models import AggregateClassifier, AggregateRegressor
from anygrain.bags.privacy import private_means
from anygrain.bags.within_bag import WithinBag
from anygrain.labels import AggregateValue, Bags, LabelError, Proportions
from anygrain.learn import Learner, Step


def ragged(generator, n_bags=6, largest=5):
    sizes = torch.randint(1, largest + 1, (n_bags,), generator=generator)
    ids = torch.repeat_interleave(torch.arange(n_bags), sizes)
    return Bags.from_ids(ids[torch.randperm(len(ids), generator=generator)])


def looped(predicted, bags, responses, rho, per="bag"):
    """The definition, bag by bag and member by member, with squares."""
    total, mass = 0.0, 0.0
    for a in range(len(bags)):
        members = bags.members[bags.offsets[a] : bags.offsets[a + 1]].tolist()
        weight = 1.0 if per == "bag" else len(members)
        mean = sum(float(predicted[i]) for i in members) / len(members)
        of_bag = (float(responses[a]) - mean) ** 2
        of_members = sum((float(responses[a]) - float(predicted[i])) ** 2 for i in members) / len(members)
        total += weight * ((1 - rho) * of_bag + rho * of_members)
        mass += weight
    return total / mass


@given(seed=st.integers(0, 10_000), rho=st.sampled_from([0.0, 0.3, 1.0, 2.0]), per=st.sampled_from(["bag", "instance"]))
@settings(max_examples=40, deadline=None)
def test_the_mix_is_the_loss_of_the_bag_plus_the_spread(seed, rho, per):
    generator = torch.Generator().manual_seed(seed)
    bags = ragged(generator)
    predicted = torch.randn(bags.n_instances, generator=generator, dtype=torch.float64)
    responses = torch.randn(len(bags), generator=generator, dtype=torch.float64)
    found = aggregate_loss(predicted, bags, responses, rho, per=per)
    assert float(found) == pytest.approx(looped(predicted, bags, responses, rho, per), abs=1e-10)
    spread = within_bag_spread(predicted, bags, per)
    of_bag = aggregate_loss(predicted, bags, responses, 0.0, per=per)
    assert float(found) == pytest.approx(float(of_bag + rho * spread), abs=1e-10)


def test_the_spread_is_that_of_pairs():
    generator = torch.Generator().manual_seed(3)
    bags = ragged(generator)
    predicted = torch.randn(bags.n_instances, generator=generator, dtype=torch.float64)
    total = 0.0
    for a in range(len(bags)):
        f = predicted[bags.members[bags.offsets[a] : bags.offsets[a + 1]]]
        total += float((f[:, None] - f).square().sum()) / (2 * len(f) ** 2)
    assert float(within_bag_spread(predicted, bags)) == pytest.approx(total / len(bags), abs=1e-12)


def test_cross_entropy_of_the_instances_is_never_below_that_of_the_bag():
    generator = torch.Generator().manual_seed(0)
    bags = ragged(generator, 20)
    log_probs = (2 * torch.randn(bags.n_instances, 3, generator=generator, dtype=torch.float64)).log_softmax(1)
    shares = torch.rand(len(bags), 3, generator=generator, dtype=torch.float64)
    shares /= shares.sum(1, keepdim=True)
    of_bag, mixed, of_members = (
        float(aggregate_loss(log_probs, bags, shares, rho, loss="cross_entropy")) for rho in (0.0, 0.25, 1.0)
    )
    by_hand = -(shares * bag_means(log_probs.exp(), bags).log()).sum(1).mean()
    assert of_bag == pytest.approx(float(by_hand), abs=1e-10)
    assert of_members > of_bag
    assert mixed == pytest.approx(0.75 * of_bag + 0.25 * of_members, abs=1e-10)


def test_a_bag_without_a_response_says_nothing():
    generator = torch.Generator().manual_seed(1)
    bags = Bags.from_ids(torch.arange(12) // 3)
    predicted = torch.randn(12, generator=generator, dtype=torch.float64).requires_grad_()
    responses = torch.tensor([1.0, math.nan, -1.0, 0.5], dtype=torch.float64)
    loss = aggregate_loss(predicted, bags, responses, 0.5)
    left = Bags.from_ids(torch.arange(9) // 3)
    kept = torch.cat([predicted[:3], predicted[6:]])
    without = aggregate_loss(kept, left, responses[[0, 2, 3]], 0.5)
    assert float(loss.detach()) == pytest.approx(float(without.detach()), abs=1e-12)
    loss.backward()
    assert predicted.grad[3:6].abs().sum() == 0


def task(seed=0, n=240, d=6, size=4, noise=0.1):
    generator = torch.Generator().manual_seed(seed)
    x = 3 + 2 * torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = x @ torch.randn(d, generator=generator, dtype=torch.float64) + 5
    y = y + noise * torch.randn(n, generator=generator, dtype=torch.float64)
    bags = Bags.from_ids(torch.arange(n) // size)
    return x, y, bags, AggregateValue(bags, bag_means(y, bags))


@pytest.mark.parametrize("rho", [0.0, 0.4, 1.0, 1.5])
@pytest.mark.parametrize("per", ["bag", "instance"])
def test_the_closed_form_is_the_minimum(rho, per):
    x, y, _, _ = task()
    bags = ragged(torch.Generator().manual_seed(5), 60)
    x, y = x[: bags.n_instances], y[: bags.n_instances]
    means = bag_means(y, bags)
    model = AggregateRegressor(rho=rho, penalty=0.05, per=per).fit(x, AggregateValue(bags, means))
    said = torch.from_numpy(model.predict(x))
    scale = x.std(0, unbiased=False)

    def objective(coef, intercept):
        loss = aggregate_loss(x @ coef + intercept, bags, means, rho, per=per)
        return loss + 0.05 * (coef * scale).square().sum()

    coef = torch.tensor(model.coef_, requires_grad=True)
    intercept = torch.tensor(model.intercept_, dtype=torch.float64, requires_grad=True)
    objective(coef, intercept).backward()
    assert float(coef.grad.abs().max()) < 1e-8
    assert abs(float(intercept.grad)) < 1e-8
    assert torch.allclose(said, x @ coef + intercept)


def test_bags_of_one_are_ridge_regression_at_every_rho():
    from sklearn.linear_model import Ridge

    x, y, _, _ = task(n=60, noise=1.0)
    alone = AggregateValue(Bags.from_ids(torch.arange(60)), y)
    columns = (x - x.mean(0)) / x.std(0, unbiased=False)
    expected = Ridge(alpha=60 * 0.1).fit(columns.numpy(), y.numpy()).predict(columns.numpy())
    for rho in (0.0, 0.5, 1.0, "auto"):
        found = AggregateRegressor(rho=rho, penalty=0.1).fit(x, alone).predict(x)
        np.testing.assert_allclose(found, expected, atol=1e-8)


def test_sums_are_means_times_the_size():
    x, y, bags, labels = task()
    sums = AggregateValue(bags, bag_means(y, bags) * bags.sizes, "sum")
    first, second = (AggregateRegressor().fit(x, given) for given in (labels, sums))
    np.testing.assert_allclose(first.predict(x), second.predict(x), atol=1e-9)


def test_rho_is_chosen_by_held_out_bags_and_helps_near_as_many_bags_as_columns():
    better, chosen = [], []
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(330, 60, generator=generator, dtype=torch.float64)
        y = x @ torch.randn(60, generator=generator, dtype=torch.float64) / 8
        y = y + 0.5 * torch.randn(330, generator=generator, dtype=torch.float64)
        bags = Bags.from_ids(torch.arange(330) // 5)
        labels = AggregateValue(bags, bag_means(y, bags))
        auto = AggregateRegressor(penalty=1e-6, seed=seed).fit(x, labels)
        plain = AggregateRegressor(rho=0.0, penalty=1e-6).fit(x, labels)
        assert auto.rho_ == pytest.approx(auto.grid[int(auto.held_out_loss_.argmin())])
        errors = [np.mean((m.predict(x) - y.numpy()) ** 2) for m in (auto, plain)]
        better.append(errors[0] < errors[1])
        chosen.append(auto.rho_)
    assert all(better)
    assert np.mean(chosen) > 0.05


def test_random_bags_and_bags_of_similar_rows_are_told_apart():
    x, y, bags, labels = task(n=400)
    order = x[:, 0].argsort()
    first = AggregateRegressor().fit(x, labels)
    second = AggregateRegressor().fit(x[order][:, :1], AggregateValue(bags, bag_means(y[order], bags)))
    assert first.within_ > 0.9
    assert second.within_ < 0.05


def test_the_classifier_minimises_its_loss_and_learns_from_shares():
    from sklearn.datasets import load_breast_cancer
    from sklearn.metrics import roc_auc_score

    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))[:560]
    x, y = x[order], y[order]
    bags = Bags.from_ids(torch.arange(560) // 8)
    shares = bag_means(torch.nn.functional.one_hot(torch.from_numpy(y)).double(), bags)
    model = AggregateClassifier(rho=0.1, penalty=1e-2).fit(x, Proportions(bags, shares))
    assert roc_auc_score(y, model.predict_proba(x)[:, 1]) > 0.95
    scale = torch.from_numpy(x.std(0))
    coef = torch.from_numpy(model.coef_).requires_grad_()
    intercept = torch.from_numpy(model.intercept_).requires_grad_()
    log_probs = (torch.from_numpy(x) @ coef.T + intercept).log_softmax(1)
    loss = aggregate_loss(log_probs, bags, shares, 0.1, loss="cross_entropy") + 1e-2 * (coef * scale).square().sum()
    loss.backward()
    assert float((coef.grad / scale).abs().max()) < 1e-4
    assert float(intercept.grad.abs().max()) < 1e-4


def test_private_means_have_the_variance_that_they_tell():
    generator = torch.Generator().manual_seed(0)
    bags = Bags.from_ids(torch.arange(80_000) // 4)
    values = torch.full((80_000,), 7.0)
    labels = private_means(values, bags, epsilon=0.5, bound=2.0, generator=generator)
    b = 2 * 2.0 / (4 * 0.5)
    error = labels.values - 2.0  # clipped
    assert float(labels.noise[0]) == pytest.approx(math.sqrt(2) * b)
    assert float(error.var()) == pytest.approx(2 * b**2, rel=0.05)
    assert float(error.abs().mean()) == pytest.approx(b, rel=0.03)  # of Laplace; .80 sd if it were normal


def test_the_density_ratio_of_neighbours_is_bounded_by_epsilon():
    """Two sets that differ in one label, at the largest distance: Laplace densities of what is released."""
    epsilon, bound = 0.7, 1.5
    bags = Bags(torch.tensor([0, 1, 0, 2]), torch.tensor([0, 2, 4]))  # the first row lies in both bags
    generator = torch.Generator().manual_seed(0)
    first, second = torch.tensor([9.0, 0.3, -0.2]), torch.tensor([-9.0, 0.3, -0.2])
    labels = private_means(first, bags, epsilon, bound, generator=generator)
    b = labels.noise / math.sqrt(2)
    means = [bag_means(v.clamp(-bound, bound).double(), bags) for v in (first, second)]
    for at in torch.linspace(-3, 3, 13, dtype=torch.float64):
        ratio = ((at - means[1]).abs() / b - (at - means[0]).abs() / b).sum()
        assert abs(float(ratio)) <= epsilon + 1e-9
    assert float(((means[0] - means[1]).abs() / b).sum()) == pytest.approx(epsilon)


def test_noise_that_is_told_lets_large_bags_count_more():
    errors = {True: [], False: []}
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        ids = torch.cat([torch.arange(200), 200 + torch.arange(2000) // 10])  # alone, and in tens
        x = torch.randn(2200, 3, generator=generator, dtype=torch.float64)
        y = x.sum(1) / 3
        labels = private_means(y, Bags.from_ids(ids), 1.0, 2.0, generator=generator)
        silent = AggregateValue(labels.sets, labels.values)
        for told, read in ((True, labels), (False, silent)):
            said = AggregateRegressor(rho=0.0).fit(x, read).predict(x)
            errors[told].append(float(np.mean((said - y.numpy()) ** 2)))
    assert np.mean(errors[True]) < 0.7 * np.mean(errors[False])


def test_the_term_is_the_spread_of_the_bags_in_the_batch():
    bags = Bags.from_ids(torch.arange(12) // 3)
    instances = torch.tensor([8, 6, 3, 7, 4, 5])  # bags 1 and 2
    log_probs = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(1)
    step = Step(log_probs, torch.zeros(6, 1), log_probs.exp(), instances, 0)
    probs = torch.zeros(12, 2, dtype=torch.float64)
    probs[instances] = log_probs.exp()
    expected = within_bag_spread(probs[3:9], Bags.from_ids(torch.arange(6) // 3))
    assert float(WithinBag(bags, 0.7)(step)) == pytest.approx(0.7 * float(expected), abs=1e-12)


def test_the_term_shapes_the_head_of_a_learner():
    x = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    bags = Bags.from_ids(torch.arange(120) // 4)
    shares = bag_means(torch.nn.functional.one_hot((x[:, 0] > 0).long()).double(), bags)
    sizes = []
    for rho in (0.0, 20.0):
        model = Learner(seed=0, terms=[WithinBag(bags, rho)], epochs=300).fit(x.numpy(), Proportions(bags, shares))
        sizes.append(float(model.head_.weight.detach().norm()))  # before the temperature
    assert sizes[1] < 0.7 * sizes[0]


def test_bad_input_is_one_line():
    x, y, bags, labels = task(n=40)
    refused = [
        lambda: AggregateRegressor().fit(x[:-1], labels),
        lambda: AggregateRegressor().fit(x, Proportions(bags, torch.full((10, 2), 0.5))),
        lambda: AggregateRegressor(penalty=0.0).fit(x, labels),
        lambda: AggregateRegressor(rho="best").fit(x, labels),
        lambda: AggregateRegressor().fit(x, AggregateValue(bags, torch.full((10,), math.nan))),
        lambda: aggregate_loss(y, bags, torch.zeros(3), 0.0),
        lambda: aggregate_loss(y, bags, torch.zeros(10), -1.0),
        lambda: private_means(y, bags, 0.0, 1.0, generator=torch.Generator()),
        lambda: private_means(y[:3], bags, 1.0, 1.0, generator=torch.Generator()),
        lambda: WithinBag(bags, -1.0),
    ]
    for bad in refused:
        with pytest.raises(LabelError) as caught:
            bad()
        assert "\n" not in str(caught.value)
