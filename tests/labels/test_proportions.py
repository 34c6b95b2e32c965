"""Proportions: rounding to counts, noisy readings by enumeration, limits, merging and simulation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import anygrain.labels.shares as shares_module
from anygrain.labels import Bags, Exact, LabelError, check
from anygrain.labels.counts import Counts, count_classes
from anygrain.labels.proportions import Proportions, nearest_counts

K = 3
BAGS = Bags(torch.tensor([4, 0, 1, 2, 3, 5]), torch.tensor([0, 3, 4, 6]), 7)


def log_probs_of(seed: int, n: int, k: int = K) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(3 * torch.randn(n, k, dtype=torch.float64, generator=generator), dim=1)


@settings(max_examples=40, deadline=None)
@given(
    k=st.sampled_from([2, 3]),
    noise=st.sampled_from([1.0, 7.5, 300.0]),
    seed=st.integers(0, 1000),
    hard=st.booleans(),
    data=st.data(),
)
def test_noisy_shares_equal_enumeration(k, noise, seed, hard, data):
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(3, k, generator=generator, dtype=torch.float64)
    shares[torch.rand(3, k, generator=generator) < 0.2] = 0.0
    shares[:, 0] += 0.1
    shares = shares / shares.sum(dim=1, keepdim=True)
    for m in range(3):
        if data.draw(st.booleans()):
            shares[m, data.draw(st.integers(0, k - 1))] = math.nan
    labels = Proportions(BAGS, shares, noise)
    if hard:
        labels = labels & Exact(torch.tensor([0, -1, 1, -1, -1, 1, -1]), k)
    result = check(labels, log_probs_of(seed, 7, k))
    assert result.ok, str(result)


def test_what_a_noisy_reading_says_is_multinomial():
    bags = Bags.from_ids(torch.zeros(4).long())
    labels = Proportions(bags, torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64), 8)
    classes = torch.tensor([[0, 0, 1, 2], [0, 1, 1, 2], [0, 2, 1, 2]])
    said = labels.log_prob_given(classes)[:, 0]
    for row, value in zip(classes, said, strict=True):
        share = torch.bincount(row, minlength=3) / 4
        expected = torch.distributions.Multinomial(8, probs=share).log_prob(torch.tensor([4.0, 2, 2]))
        assert float(value) == pytest.approx(float(expected), rel=1e-6)
    # a class that was read cannot be absent
    assert labels.log_prob_given(torch.tensor([[0, 0, 1, 1]])) == -torch.inf


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), error=st.sampled_from([0.0, 0.2]), known=st.sampled_from([1.0, 0.6]))
def test_exact_shares_are_counts(seed, error, known):
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(0, K, (7,), generator=generator)
    labels = Proportions.simulate(classes, K, generator=generator, bags=BAGS, error=error, known=known)
    counts = Counts(BAGS, labels.counts, error=error)
    log_probs = log_probs_of(seed, 7)
    assert torch.equal(labels.posterior(log_probs), counts.posterior(log_probs))
    result = check(labels, log_probs)
    assert result.ok, str(result)


def test_shares_of_a_few_digits_find_their_counts():
    counts = torch.tensor([[1, 2, 4], [0, 3, -1]])
    shares = torch.tensor([[0.143, 0.286, 0.571], [0.0, 0.43, math.nan]])
    assert torch.equal(nearest_counts(shares, torch.tensor([7, 7])), counts)


@pytest.mark.parametrize(
    ("shares", "noise", "message"),
    [
        (
            [[0.5, 0.25, 0.25], [0, 1, 0], [1, 0, 0]],
            None,
            "bag 0 has the shares 0.5, 0.25, 0.25, which are no whole counts of its 3",
        ),
        ([[1, 0, 0], [0, 1, 0], [0.75, 0.25, 0]], None, "bag 2 has the shares 0.75, 0.25, 0, which"),
        ([[1, 0, 0], [0, 1, 0], [1.5, 0, 0]], None, "bag 2 has a share outside [0, 1]"),
        ([[1, 0, 0], [0, 1, 0], [0.5, 0.2, 0]], 10, "bag 2 has shares that do not sum to 1"),
        ([[1, 0, 0], [0, 1, 0], [1, 0, 0]], 0, "more than 0"),
        ([[1, 0, 0], [0, 1, 0], [1, 0, 0]], torch.ones(2), "expected one sample size"),
        ([[1, 0, 0], [0, 1, 0]], None, "expected (3, K)"),
    ],
)
def test_bad_input_is_named(shares, noise, message):
    with pytest.raises(LabelError) as caught:
        Proportions(BAGS, torch.tensor(shares, dtype=torch.float64), noise)
    assert message in str(caught.value)


def test_a_large_sample_is_an_exact_reading():
    counts = torch.tensor([[1, 1, 1], [0, 1, 0], [2, 0, 0]])
    log_probs = log_probs_of(1, 7)
    noisy = Proportions(BAGS, counts / BAGS.sizes[:, None], 1e5).posterior(log_probs)
    assert torch.allclose(noisy, Counts(BAGS, counts).posterior(log_probs), atol=1e-6)


def test_nothing_known_says_nothing():
    log_probs = log_probs_of(2, 7)
    value, posterior = Proportions(BAGS, torch.full((3, K), math.nan), 20).infer(log_probs)
    assert (value.abs() < 1e-15).all()
    assert torch.allclose(posterior, log_probs.exp())


@pytest.mark.parametrize("noise", [5.0, 50.0, 2000.0])
def test_laplace_is_near_the_sum_over_all_counts(noise, monkeypatch):
    generator = torch.Generator().manual_seed(3)
    classes = torch.randint(0, K, (800,), generator=generator)
    labels = Proportions.simulate(classes, K, generator=generator, bag_size=80, noise=noise)
    log_probs = torch.log_softmax(1.5 * torch.randn(800, K, dtype=torch.float64, generator=generator), dim=1)
    assert labels.exact
    value, posterior = labels.infer(log_probs)
    monkeypatch.setattr(shares_module, "LIMIT", 1)
    near = Proportions(labels.sets, labels.proportions, noise)
    assert not near.exact
    near_value, near_posterior = near.infer(log_probs)
    assert (near_value - value).abs().max() < 0.1
    assert (near_posterior - posterior).abs().sum(dim=1).mean() / 2 < 0.01


def test_large_bags_of_many_classes_stay_finite():
    generator = torch.Generator().manual_seed(4)
    classes = torch.randint(0, 30, (5000,), generator=generator)
    labels = Proportions.simulate(classes, 30, generator=generator, bag_size=2500, noise=400)
    value, posterior = labels.infer(torch.log_softmax(4 * torch.randn(5000, 30, generator=generator), dim=1))
    assert torch.isfinite(value).all()
    assert torch.allclose(posterior.sum(dim=1), torch.ones(5000), atol=1e-4)


def test_contradiction_is_constant():
    labels = Proportions(Bags.from_ids(torch.zeros(2).long()), torch.tensor([[0.5, 0.5, 0.0]]), 4)
    joined = labels & Exact(torch.tensor([2, 2]), K)
    log_probs = log_probs_of(5, 2).requires_grad_()
    assert joined.log_likelihood(log_probs).tolist() == [-1e4]
    (slope,) = torch.autograd.grad(joined.log_likelihood(log_probs).sum(), log_probs)
    assert (slope == 0).all()


def test_relabelling():
    exact = Proportions(BAGS, torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0, 1, 0], [1, 0, 0]]))
    merged = exact.relabel(torch.tensor([0, 1, 1]), 2)
    assert merged.counts.tolist() == [[1, 2], [0, 1], [2, 0]]
    assert torch.allclose(merged.proportions, merged.counts / BAGS.sizes[:, None])
    noisy = Proportions(BAGS, torch.tensor([[0.2, 0.3, 0.5], [0, 1, 0], [0.5, math.nan, 0.1]]).double(), 10)
    order = torch.tensor([2, 0, 1])
    log_probs = log_probs_of(6, 7)
    moved = noisy.relabel(order, 3)
    assert torch.allclose(moved.log_likelihood(log_probs[:, [1, 2, 0]]), noisy.log_likelihood(log_probs))
    with pytest.raises(LabelError, match="cannot merge"):
        noisy.relabel(torch.tensor([0, 1, 1]), 2)


def test_simulated_shares_are_those_of_samples_of_the_bag():
    generator = torch.Generator().manual_seed(7)
    classes = torch.randint(0, K, (40_000,), generator=generator)
    labels = Proportions.simulate(classes, K, generator=generator, bag_size=10, noise=25)
    truth = count_classes(classes[labels.sets.members][None], labels.sets, K)[0] / 10
    miss = labels.proportions - truth
    assert float(miss.mean().abs()) < 1e-3
    assert torch.allclose((miss**2).mean(dim=0), (truth * (1 - truth)).mean(dim=0).double() / 25, rtol=0.1)


def test_select_follows():
    generator = torch.Generator().manual_seed(8)
    classes = torch.randint(0, K, (60,), generator=generator)
    labels = Proportions.simulate(classes, K, generator=generator, bag_size=4, noise=10)
    log_probs = log_probs_of(9, 60)
    whole = labels.posterior(log_probs)
    for batch in labels.batches(12, generator):
        part = labels.select(batch).posterior(log_probs[batch.instances])
        assert torch.allclose(part, whole[batch.instances], atol=1e-12)


def test_from_frame_reads_one_column_per_class():
    labels = Proportions.from_frame({"a": [1, "0", 0.5], "b": [0, "1.0", ""]}, ["a", "b"], bags=BAGS)
    assert labels.counts.tolist() == [[3, 0], [0, 1], [1, -1]]
    assert labels.class_names == ("a", "b")


def test_a_rate_known_beforehand():
    bags = Bags.from_ids(torch.tensor([0, 0, 0, 1, 1, 2]))
    log_p = torch.log_softmax(torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), 1)
    nan = torch.nan
    by_hand = torch.tensor([[nan, 0.25, nan], [nan, nan, nan], [nan, 0.25, nan]], dtype=torch.float64)
    there = torch.tensor([True, False, True])
    about = Proportions.about(bags, {1: 0.25}, 3, where=there)
    expected = Proportions(bags, by_hand, bags.sizes.double())
    torch.testing.assert_close(about.log_likelihood(log_p), expected.log_likelihood(log_p))
    torch.testing.assert_close(about.posterior(log_p)[3:5], log_p[3:5].exp())
    # the more it is worth, the nearer the expected share comes to it
    gaps = [
        abs(float(Proportions.about(bags, {1: 1 / 3}, 3, worth=w).posterior(log_p)[:3, 1].mean()) - 1 / 3)
        for w in (1, 10, 100)
    ]
    assert gaps == sorted(gaps, reverse=True)
    with pytest.raises(LabelError, match="rate is given for class 3"):
        Proportions.about(bags, {3: 0.1}, 3)
    with pytest.raises(LabelError, match=r"outside \[0, 1\]"):
        Proportions.about(bags, {1: 1.5}, 3)
