"""Real-valued labels against dense Gaussian conditioning and numerical integration, in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from anygrain.labels import (
    AggregateValue,
    Bags,
    Censored,
    Exact,
    LabelError,
    RatingChannel,
    Ratings,
    RealAll,
    Value,
    aggregate,
)
from anygrain.labels.base import IMPOSSIBLE
from anygrain.labels.real.truncated import truncated_normal

TIGHT = {"atol": 1e-9, "rtol": 1e-9}
nan, inf = math.nan, math.inf


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def beliefs(n, seed=0):
    return random(n, seed=seed), random(n, seed=seed + 1).exp()


def overlapping(n, m, seed, size=4):
    """m bags of 1 to `size` of n instances."""
    generator = np.random.default_rng(seed)
    members = [generator.choice(n, generator.integers(1, min(size, n) + 1), replace=False) for _ in range(m)]
    offsets = np.cumsum([0, *[len(b) for b in members]])
    return Bags(torch.from_numpy(np.concatenate(members)), torch.from_numpy(offsets), n)


# -- dense Gaussian conditioning -------------------------------------------------------------------------------------


def rows_of(labels):
    """Every Gaussian record of labels as (A (R, N), offset, observed, noise variance); missing ones left out."""
    parts = labels.parts if isinstance(labels, RealAll) else [labels]
    matrix, offset, observed, noise = [], [], [], []
    for part in parts:
        n = part.n_instances
        if isinstance(part, AggregateValue):
            for b, value in enumerate(part.values.tolist()):
                row = torch.zeros(n, dtype=torch.float64)
                members = part.sets.members[part.sets.offsets[b] : part.sets.offsets[b + 1]]
                row[members] = 1 / len(members) if part.how == "mean" else 1.0
                add = (row, 0.0, value, float(part.noise[b]) ** 2)
                for table, entry in zip((matrix, offset, observed, noise), add, strict=True):
                    table.append(entry)
        elif isinstance(part, Value):
            for i, value in enumerate(part.values.tolist()):
                add = (torch.eye(n, dtype=torch.float64)[i], 0.0, value, float(part.noise[i]) ** 2)
                for table, entry in zip((matrix, offset, observed, noise), add, strict=True):
                    table.append(entry)
        else:
            slope, bias, variance = part.channel.reading(part.annotators)
            for r, value in enumerate(part.values.tolist()):
                row = torch.zeros(n, dtype=torch.float64)
                row[part.items[r]] = slope[r]
                add = (row, float(bias[r]), value, float(variance[r]))
                for table, entry in zip((matrix, offset, observed, noise), add, strict=True):
                    table.append(entry)
    return torch.stack(matrix), tensor(offset), tensor(observed), tensor(noise)


def by_conditioning(labels, mean, variance):
    """Total log-density, posterior mean and variance, score and residual of every record."""
    matrix, offset, observed, noise = rows_of(labels)
    kept = ~observed.isnan() & noise.isfinite()
    a, gap = matrix[kept], (observed - offset)[kept] - matrix[kept] @ mean
    covariance = a * variance @ a.T + torch.diag(noise[kept])
    inverse = torch.linalg.inv(covariance)
    total = -0.5 * (gap @ inverse @ gap + torch.logdet(covariance) + len(gap) * math.log(2 * math.pi))
    gain = variance[:, None] * a.T @ inverse
    after = variance - (gain * (a * variance).T).sum(dim=1)
    precision = inverse.diagonal()
    away = (inverse @ gap) / precision.sqrt()
    score, residual = torch.zeros_like(observed), torch.full_like(observed, nan)
    score[kept] = -0.5 * (away.square() - precision.log() + math.log(2 * math.pi))
    residual[kept] = away
    return total, mean + gain @ gap, after, score, residual


def agrees_with_conditioning(labels, mean, variance):
    value, belief = labels.infer(mean, variance)
    total, wanted_mean, wanted_variance, score, residual = by_conditioning(labels, mean, variance)
    assert torch.allclose(value.sum(), total, **TIGHT)
    assert torch.allclose(belief.mean, wanted_mean, **TIGHT)
    assert torch.allclose(belief.variance, wanted_variance, **TIGHT)
    assert torch.allclose(labels.record_scores(mean, variance), score, **TIGHT)
    known = ~residual.isnan()
    found = labels.record_residuals(mean, variance)
    assert torch.equal(found.isnan(), residual.isnan())
    assert torch.allclose(found[known], residual[known], **TIGHT)


def kinds(n=9, seed=0):
    """One of each kind of Gaussian evidence of n instances."""
    holes = torch.where(torch.arange(n) % 3 == 0, nan, random(n, seed=seed + 2))
    exact = torch.where(torch.arange(n) % 4 == 1, random(n, seed=seed + 3), nan)
    channel = RatingChannel(3, slope=True, centre=0.3)
    channel.bias, channel.slope = tensor([0.5, -1.0, 0.0]), tensor([1.0, 0.6, 1.7])
    channel.variance = tensor([0.3, 1.0, 2.0])
    ratings = tensor([0.1, 2.0, nan, -1.0, 0.4, 0.7])
    items, annotators = torch.tensor([0, 0, 1, 5, 5, 0]), torch.tensor([0, 1, 2, 2, -1, 0])
    apart = Bags.from_ids(torch.tensor([0, 0, 1, -1, 1, 1, 2, -1, -1][:n]))
    return {
        "noisy values": Value(holes, noise=0.5),
        "values": Value(exact),
        "ratings": Ratings(items, annotators, ratings, n, channel),
        "means": AggregateValue(apart, tensor([0.2, -1.0, 0.5]), noise=tensor([0.3, 0.0, 0.1])),
        "missing mean": AggregateValue(apart, tensor([0.2, nan, 0.5]), how="sum", noise=0.2),
        "overlapping sums": AggregateValue(overlapping(n, 4, seed=5), random(4, seed=6), how="sum", noise=0.4),
    }


@pytest.mark.parametrize("name", list(kinds()))
def test_every_kind_is_gaussian_conditioning(name):
    agrees_with_conditioning(kinds()[name], *beliefs(9, seed=7))


@pytest.mark.parametrize("first", list(kinds()))
@pytest.mark.parametrize("second", list(kinds()))
def test_pairs_of_kinds_are_gaussian_conditioning(first, second):
    if first == second and first in ("values", "means"):
        pytest.skip("the same number told twice without noise is no density; see the tests of what is implied")
    agrees_with_conditioning(kinds()[first] & kinds()[second], *beliefs(9, seed=3))


def test_all_kinds_together_are_gaussian_conditioning():
    labels = RealAll(*kinds().values())
    assert labels.exact
    agrees_with_conditioning(labels, *beliefs(9, seed=11))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 12))
def test_overlapping_bags_are_gaussian_conditioning(seed, n, m):
    noise = 0.05 + random(m, seed=seed).abs()
    labels = AggregateValue(overlapping(n, m, seed), random(m, seed=seed + 1), noise=noise)
    agrees_with_conditioning(labels & Value(random(n, seed=seed + 2), noise=0.7), *beliefs(n, seed=seed))


def test_many_components_of_several_sizes():
    generator = np.random.default_rng(0)
    members, start = [], 0
    for size in generator.integers(2, 9, size=30):  # chains of bags of two
        members += [[start + k, start + k + 1] for k in range(size)]
        start += size + 1
    bags = Bags(torch.tensor(members).reshape(-1), torch.arange(0, 2 * len(members) + 1, 2), start)
    agrees_with_conditioning(AggregateValue(bags, random(len(members)), noise=0.3), *beliefs(start))


# -- the identities and their limits ---------------------------------------------------------------------------------


def every_kind():
    cut = Censored(
        tensor([-inf, 0.2, 0.5, -1.0, 3.0, -inf, -9.0, 1.0, 0.0]),
        tensor([0.0, inf, 0.6, 1.0, 3.0, inf, -8.0, 1.5, 0.1]),
    )
    return {
        **kinds(),
        "ranges": cut,
        "ranges and values": cut & kinds()["noisy values"],
        "ranges in bags": cut & kinds()["means"],
    }


@pytest.mark.parametrize("name", [n for n in every_kind() if n != "ranges in bags"])
def test_the_posterior_is_tweedies_formula(name):
    """m' = m + v dlogP/dm, v' = v + v^2 d2logP/dm2, and dlogP/dv = (d2logP/dm2 + (dlogP/dm)^2) / 2."""
    labels = every_kind()[name]
    mean, variance = beliefs(9, seed=4)
    mean, variance = mean.requires_grad_(), variance.requires_grad_()
    value = labels.log_likelihood(mean, variance)
    slope, by_variance = torch.autograd.grad(value.sum(), (mean, variance))
    belief = labels.posterior(mean, variance)
    m, v = mean.detach(), variance.detach()
    assert torch.allclose(belief.mean, m + v * slope, **TIGHT)
    assert torch.allclose(belief.variance, v + v.square() * (2 * by_variance - slope.square()), atol=1e-8)
    step = 1e-4
    for i in range(9):
        bump = step * torch.eye(9, dtype=torch.float64)[i]
        up, down = labels.infer(m + bump, v)[0].sum(), labels.infer(m - bump, v)[0].sum()
        assert float(slope[i]) == pytest.approx(float(up - down) / (2 * step), abs=1e-5, rel=1e-5)
        up, down = labels.infer(m, v + bump)[0].sum(), labels.infer(m, v - bump)[0].sum()
        assert float(by_variance[i]) == pytest.approx(float(up - down) / (2 * step), abs=1e-4, rel=1e-4)


def test_ranges_are_numerical_integration():
    low, high = [-inf, 0.2, 0.5, -1.0, -inf, 1.0, nan], [0.0, inf, 0.6, 1.0, inf, 1.5, 2.0]
    labels = Censored(tensor(low), tensor(high))
    mean, variance = beliefs(7, seed=2)
    value, belief = labels.infer(mean, variance)
    for i in range(7):
        a, b = (e if e == e else s for e, s in ((low[i], -inf), (high[i], inf)))
        m, s = float(mean[i]), float(variance[i]) ** 0.5
        a, b = max(a, m - 12 * s), min(b, m + 12 * s)
        moments = [quad(lambda y, k=k, m=m, s=s: y**k * norm.pdf(y, m, s), a, b, epsabs=1e-14)[0] for k in range(3)]
        assert float(value[i]) == pytest.approx(math.log(moments[0]), abs=1e-9)
        assert float(belief.mean[i]) == pytest.approx(moments[1] / moments[0], abs=1e-9)
        spread = moments[2] / moments[0] - (moments[1] / moments[0]) ** 2
        assert float(belief.variance[i]) == pytest.approx(spread, abs=1e-8)


@settings(max_examples=50, deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(1e-6, 1e3))
def test_truncated_moments_in_the_tails(start, width):
    """For a wide range in the far tail y - a is exponential; for a narrow one it is uniform; always inside."""
    log_mass, mean, variance = truncated_normal(tensor([start]), tensor([start + width]))
    end = start + width
    assert start <= float(mean) <= end
    assert 0 < float(variance) <= min(1.0, width**2 / 4) + 1e-9
    near = max(start, -end, 0.0)
    if near * width < 1e-3 and width < 1e-3 * (1 + near):
        assert float(log_mass) == pytest.approx(math.log(width) + norm.logpdf((start + end) / 2), abs=1e-3)
    if near > 100 and near * width > 40:
        assert float(log_mass) == pytest.approx(norm.logsf(near), rel=1e-9)
        assert float(variance) * near**2 == pytest.approx(1, abs=1e-3)


def test_truncated_probability_is_that_of_scipy():
    ends = [(-1.0, 1.0), (0.0, inf), (1.0, 2.0), (-inf, -7.0), (3.0, inf), (-3.0, 20.0), (30.0, inf), (-inf, inf)]
    log_mass, mean, _ = truncated_normal(*(tensor([e[k] for e in ends]) for k in range(2)))
    for (a, b), found, centre in zip(ends, log_mass.tolist(), mean.tolist(), strict=True):
        wanted = norm.logsf(a) if b == inf else math.log(norm.cdf(b) - norm.cdf(a))
        assert found == pytest.approx(wanted, abs=1e-11, rel=1e-12)
        if b == inf and a > -inf:
            assert centre == pytest.approx(math.exp(norm.logpdf(a) - norm.logsf(a)), rel=1e-11)


def test_what_says_nothing_leaves_the_belief():
    mean, variance = beliefs(9)
    bags = Bags.from_ids(torch.arange(9) // 3)
    silent = [
        Value(torch.full((9,), nan)),
        Value(random(9), noise=inf),
        Censored(torch.full((9,), -inf), torch.full((9,), inf)),
        AggregateValue(bags, torch.full((3,), nan)),
        AggregateValue(bags, tensor([1.0, 2.0, 3.0]), noise=inf),
        Ratings(torch.tensor([0, 3]), torch.tensor([0, 1]), tensor([nan, nan]), 9),
    ]
    for labels in [*silent, RealAll(*silent)]:
        value, belief = labels.infer(mean, variance)
        assert torch.equal(value, torch.zeros_like(value))
        assert torch.allclose(belief.mean, mean, **TIGHT)
        assert torch.allclose(belief.variance, variance, **TIGHT)
        assert not bool(labels.evident.any())
        assert torch.equal(labels.record_scores(mean, variance), torch.zeros(labels.n_records, dtype=torch.float64))


def test_more_noise_is_less_evidence():
    mean, variance = beliefs(9)
    near = Value(random(9, seed=5), noise=1e6).posterior(mean, variance)
    assert torch.allclose(near.mean, mean, atol=1e-9)
    assert torch.allclose(near.variance, variance, atol=1e-9)
    far = Value(random(9, seed=5), noise=1e-7).posterior(mean, variance)
    assert torch.allclose(far.mean, random(9, seed=5), atol=1e-12)


def test_a_perfect_annotator_is_a_value():
    y = random(6)
    channel = RatingChannel(1)
    channel.variance = tensor([0.04])
    ratings = Ratings(torch.arange(6), torch.zeros(6, dtype=torch.long), y, 6, channel)
    mean, variance = beliefs(6, seed=1)
    values = Value(y, noise=0.2)
    assert torch.allclose(ratings.infer(mean, variance)[0], values.infer(mean, variance)[0], **TIGHT)
    for found, wanted in zip(ratings.posterior(mean, variance), values.posterior(mean, variance), strict=True):
        assert torch.allclose(found, wanted, **TIGHT)


def test_a_bag_of_one_is_a_value():
    mean, variance = beliefs(5)
    bags = Bags.from_ids(torch.arange(5))
    for how in ("mean", "sum"):
        bag, value = AggregateValue(bags, random(5, seed=2), how, 0.3), Value(random(5, seed=2), 0.3)
        assert torch.allclose(bag.infer(mean, variance)[0], value.infer(mean, variance)[0], **TIGHT)
        assert torch.allclose(bag.posterior(mean, variance).mean, value.posterior(mean, variance).mean, **TIGHT)


def test_a_range_of_one_number_is_a_value():
    mean, variance = beliefs(5)
    same, value = Censored(random(5, seed=2), random(5, seed=2)), Value(random(5, seed=2))
    assert torch.equal(same.infer(mean, variance)[0], value.infer(mean, variance)[0])
    assert torch.allclose(same.posterior(mean, variance).mean, random(5, seed=2), **TIGHT)
    assert torch.equal(same.posterior(mean, variance).variance, torch.zeros(5, dtype=torch.float64))


def test_ranges_of_one_instance_intersect():
    mean, variance = beliefs(1)
    both = Censored(tensor([-1.0]), tensor([2.0])) & Censored(tensor([0.5]), tensor([inf]))
    one = Censored(tensor([0.5]), tensor([2.0]))
    assert torch.allclose(both.infer(mean, variance)[0], one.infer(mean, variance)[0], **TIGHT)


# -- ranges in bags ---------------------------------------------------------------------------------------------------


def by_grid(labels, mean, variance, low, high, total, noise, points=2001):
    """Two instances in a bag whose sum is known, one of them (0) in a range: posterior by integration."""
    s = variance.sqrt()
    y = torch.linspace(max(low, float(mean[0] - 9 * s[0])), min(high, float(mean[0] + 9 * s[0])), points).double()
    rest = variance[1] + noise**2
    weight = (-0.5 * (y - mean[0]) ** 2 / variance[0] - 0.5 * (total - y - mean[1]) ** 2 / rest).exp()
    weight = weight / torch.trapezoid(weight, y)
    m = torch.trapezoid(weight * y, y)
    return m, torch.trapezoid(weight * (y - m) ** 2, y)


def test_a_range_in_a_bag_is_matched_by_moments():
    """One range in a bag: expectation propagation gives that instance its true moments."""
    mean, variance = tensor([0.0, 0.5]), tensor([1.0, 0.5])
    labels = Censored(tensor([0.4, nan]), tensor([1.2, nan])) & AggregateValue(
        Bags.from_ids(torch.zeros(2, dtype=torch.long)), tensor([1.0]), "sum", 0.3
    )
    assert not labels.exact
    value, belief = labels.infer(mean, variance)
    m, v = by_grid(labels, mean, variance, 0.4, 1.2, 1.0, 0.3)
    assert float(belief.mean[0]) == pytest.approx(float(m), abs=1e-6)
    assert float(belief.variance[0]) == pytest.approx(float(v), abs=1e-6)
    y = torch.linspace(0.4, 1.2, 4001).double()
    joint = norm.pdf(y, 0.0, 1.0) * norm.pdf(1.0 - y, 0.5, (0.5 + 0.09) ** 0.5)
    assert float(value.sum()) == pytest.approx(math.log(np.trapezoid(joint, y)), abs=1e-6)


def test_ranges_in_a_bag_stay_inside():
    """Three ranges and a total: means lie inside, and add up to the total where it has no noise."""
    low, high = tensor([0.0, 1.0, 2.0]), tensor([1.0, 2.0, 9.0])
    labels = Censored(low, high) & AggregateValue(Bags.from_ids(torch.zeros(3, dtype=torch.long)), tensor([5.0]), "sum")
    belief = labels.posterior(tensor([0.0, 0.0, 0.0]), tensor([4.0, 4.0, 4.0]))
    assert bool(((belief.mean > low) & (belief.mean < high)).all())
    assert float(belief.mean.sum()) == pytest.approx(5.0, abs=1e-6)


def test_expectation_propagation_against_samples():
    generator = torch.Generator().manual_seed(0)
    mean, variance = beliefs(4, seed=9)
    bags = Bags(torch.tensor([0, 1, 2, 2, 3]), torch.tensor([0, 3, 5]), 4)
    low, high = tensor([-0.5, nan, 0.0, -inf]), tensor([0.5, nan, 2.0, 0.3])
    totals = tensor([0.5, 0.4])
    labels = AggregateValue(bags, totals, "sum", 0.5) & Censored(low, high)
    belief = labels.posterior(mean, variance)
    y = mean + variance.sqrt() * torch.randn(400_000, 4, generator=generator, dtype=torch.float64)
    lower, upper = low.nan_to_num(-inf, neginf=-inf), high.nan_to_num(inf, posinf=inf)
    weight = ((y >= lower) & (y <= upper)).all(dim=1).double()
    for b, members in enumerate(([0, 1, 2], [2, 3])):
        weight *= torch.exp(-0.5 * ((totals[b] - y[:, members].sum(dim=1)) / 0.5) ** 2)
    weight /= weight.sum()
    wanted = weight @ y
    assert torch.allclose(belief.mean, wanted, atol=0.02)
    assert torch.allclose(belief.variance, weight @ (y - wanted).square(), atol=0.03)


# -- what is implied, and what cannot be -------------------------------------------------------------------------------


def test_what_others_imply_adds_nothing():
    mean, variance = beliefs(4)
    bags = Bags(torch.tensor([0, 1, 2, 3, 0, 1, 2, 3]), torch.tensor([0, 2, 4, 8]), 4)
    y = random(4, seed=3)
    parts = AggregateValue(Bags.from_ids(torch.tensor([0, 0, 1, 1])), torch.stack([y[:2].sum(), y[2:].sum()]), "sum")
    whole = AggregateValue(bags, torch.stack([y[:2].sum(), y[2:].sum(), y.sum()]), "sum")
    assert torch.allclose(whole.infer(mean, variance)[0].sum(), parts.infer(mean, variance)[0].sum(), **TIGHT)
    assert torch.allclose(whole.posterior(mean, variance).mean, parts.posterior(mean, variance).mean, **TIGHT)
    off = AggregateValue(bags, torch.stack([y[:2].sum(), y[2:].sum(), y.sum() + 1]), "sum")
    assert off.contradictions(mean, variance).tolist() == [False, False, True]
    assert off.infer(mean, variance)[0][2] == IMPOSSIBLE


def test_contradictions_stay_finite_and_leave_the_belief():
    mean, variance = beliefs(3)
    torn = Value(tensor([1.0, 2.0, nan])) & Censored(tensor([0.0, 3.0, nan]), tensor([2.0, 4.0, nan]))
    assert torn.contradictions(mean, variance).tolist() == [False, True, False]
    belief = torn.posterior(mean, variance)
    assert float(belief.mean[1]) == float(mean[1])
    assert float(belief.mean[0]) == 1.0
    mean.requires_grad_()
    torn.log_likelihood(mean, variance).sum().backward()
    assert float(mean.grad[1]) == 0.0
    assert (Value(tensor([1.0])) & Value(tensor([1.5]))).contradictions([0.0], [1.0]).all()
    known = Value(tensor([1.0, 2.0])) & AggregateValue(Bags.from_ids(torch.zeros(2, dtype=torch.long)), tensor([5.0]))
    assert known.contradictions([0.0, 0.0], [1.0, 1.0]).all()


def test_a_known_number_in_a_bag_tells_of_the_others():
    labels = Value(tensor([1.0, nan])) & AggregateValue(Bags.from_ids(torch.zeros(2, dtype=torch.long)), tensor([2.0]))
    belief = labels.posterior([0.0, 0.0], [1.0, 1.0])
    assert belief.mean.tolist() == [1.0, 3.0]
    assert belief.variance.tolist() == [0.0, 0.0]


# -- large components --------------------------------------------------------------------------------------------------


def test_large_components_find_the_same_means(monkeypatch):
    labels = AggregateValue(overlapping(60, 30, seed=1), random(30), noise=1.0)
    mean, variance = beliefs(60)
    exact = labels.posterior(mean, variance)
    total = labels.infer(mean, variance)[0].sum()
    monkeypatch.setattr("anygrain.labels.real.bag_sums.LARGEST", 1)
    again = AggregateValue(labels.sets, labels.values, noise=labels.noise)
    assert not again.exact
    near = again.posterior(mean, variance)
    assert torch.allclose(near.mean, exact.mean, atol=1e-7)
    assert torch.allclose(near.variance, exact.variance, rtol=0.05)
    assert float(again.infer(mean, variance)[0].sum()) == pytest.approx(float(total), abs=0.5)


def test_propagation_is_exact_on_trees(monkeypatch):
    n = 40
    members = torch.stack([torch.arange(n - 1), torch.arange(1, n)], dim=1).reshape(-1)
    chain = AggregateValue(Bags(members, torch.arange(0, 2 * n - 1, 2), n), random(n - 1), noise=0.7)
    mean, variance = beliefs(n)
    value, exact = chain.infer(mean, variance)
    monkeypatch.setattr("anygrain.labels.real.bag_sums.LARGEST", 1)
    again = AggregateValue(chain.sets, chain.values, noise=chain.noise)
    other, near = again.infer(mean, variance)
    assert torch.allclose(near.mean, exact.mean, atol=1e-8)
    assert torch.allclose(near.variance, exact.variance, atol=1e-8)
    assert float(other.sum()) == pytest.approx(float(value.sum()), abs=1e-7)


def test_a_hundred_thousand_overlapping_bags():
    """No table of instances by instances: short chains are solved side by side."""
    n = 200_000
    ids = torch.arange(n)
    pairs, inner = ids.view(-1, 2), ids.view(-1, 4)[:, 1:3]  # of every four: {0, 1}, {2, 3} and {1, 2}
    members = torch.cat([pairs.reshape(-1), inner.reshape(-1)])
    bags = Bags(members, torch.arange(0, len(members) + 1, 2), n)
    y = random(n)
    labels = AggregateValue(bags, y[members.view(-1, 2)].sum(dim=1), "sum", 0.1) & Value(
        torch.where(ids % 4 == 0, y, nan)
    )
    assert labels.exact
    belief = labels.posterior(torch.zeros(n).double(), torch.ones(n).double())
    assert float((belief.mean - y).square().mean().sqrt()) < 0.2


# -- annotators --------------------------------------------------------------------------------------------------------


def test_annotators_are_found_without_truth():
    generator = torch.Generator().manual_seed(0)
    y = 50 + 3 * random(600)
    bias, noise = tensor([1.0, -1.0, 2.0, -2.0, 0.0, 0.0]), tensor([0.3, 0.3, 1.0, 1.0, 3.0, 3.0])
    ratings = Ratings.simulate(
        y, generator=generator, n_annotators=6, ratings_per_item=3, bias=bias, noise=noise, name="length"
    )
    fitted = aggregate(ratings, iterations=300)
    assert bool((fitted.log_likelihood.diff() > -1e-8).all())
    assert torch.allclose(ratings.channel.bias, bias, atol=0.5)
    assert torch.allclose(ratings.channel.variance.sqrt(), noise, rtol=0.35)
    error = (fitted.mean - y).square().mean().sqrt()
    plain = (ratings.rough() - y).square().mean().sqrt()
    assert float(error) < 0.6 * float(plain)
    assert fitted.prior_mean == pytest.approx(50, abs=0.5)


def test_use_of_the_scale_is_found():
    generator = torch.Generator().manual_seed(1)
    y = 10 + 2 * random(500)
    slopes = tensor([1.5, 0.6, 1.0, 1.0])
    ratings = Ratings.simulate(
        y, generator=generator, n_annotators=4, bias=0.3, noise=(0.2, 0.5), slopes=slopes, slope=True
    )
    aggregate(ratings, iterations=300)
    found = ratings.channel.slope
    assert torch.allclose(found / found.mean(), slopes / slopes.mean(), atol=0.1)


def test_statistics_of_shards_add_up():
    ratings = Ratings.simulate(random(40), generator=torch.Generator().manual_seed(0), slope=True)
    mean, variance = beliefs(40)
    whole = ratings.statistics(mean, variance)
    first, second = (ratings[rows] for rows in (slice(0, 25), slice(25, 40)))
    parts = [
        part.statistics(m, v) for part, m, v in zip((first, second), mean.split(25), variance.split(25), strict=True)
    ]
    for name, value in whole.items():
        assert torch.allclose(parts[0][name] + parts[1][name], value, **TIGHT)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_an_update_never_lowers_the_objective(seed, slope):
    generator = torch.Generator().manual_seed(seed)
    ratings = Ratings.simulate(5 * random(30, seed=seed), generator=generator, bias=2.0, noise=(0.1, 4.0), slope=slope)
    channel = ratings.channel
    channel.prior_is_settled = True
    mean, variance = torch.zeros(30).double(), torch.full((30,), 25.0).double()
    last = -inf
    for _ in range(6):
        value, belief = ratings.infer(mean, variance)
        now = float(value.sum() + channel.log_prior())
        assert now >= last - 1e-9 * abs(now)
        last = now
        ratings.update(*belief)


def test_an_unknown_annotator_is_less_sure():
    channel = RatingChannel(1)
    known = Ratings(torch.tensor([0]), torch.tensor([0]), tensor([1.0]), 1, channel)
    unknown = Ratings(torch.tensor([0]), torch.tensor([-1]), tensor([1.0]), 1, channel, n_annotators=1)
    assert float(unknown.posterior([0.0], [1.0]).variance) > float(known.posterior([0.0], [1.0]).variance)


def test_the_population_is_found_from_bags_and_ranges():
    generator = torch.Generator().manual_seed(2)
    y = 30 + 4 * random(3000)
    bags = AggregateValue.simulate(y, generator=generator, bag_size=3)
    found = aggregate(bags, iterations=400, tolerance=1e-9)
    assert found.prior_mean == pytest.approx(30, abs=0.3)
    assert found.prior_variance**0.5 == pytest.approx(4, abs=0.3)
    cut = aggregate(Censored.simulate(y, generator=generator, cuts=[26, 29, 33]), iterations=400, tolerance=1e-9)
    assert cut.prior_mean == pytest.approx(30, abs=0.3)
    assert cut.prior_variance**0.5 == pytest.approx(4, abs=0.3)


# -- selections --------------------------------------------------------------------------------------------------------


def everything():
    return RealAll(*kinds().values(), Censored(torch.full((9,), -2.0), torch.full((9,), 2.0)))


def test_groups_keep_bags_whole_and_selections_say_the_same():
    labels = kinds()["means"] & kinds()["ratings"] & kinds()["noisy values"]
    mean, variance = beliefs(9)
    value, belief = labels.infer(mean, variance)
    group = labels.groups()
    total = 0.0
    for g in group.unique():
        rows = group == g
        part = labels[rows]
        found, after = part.infer(mean[rows], variance[rows])
        total += float(found.sum())
        assert torch.allclose(after.mean, belief.mean[rows], **TIGHT)
    assert total == pytest.approx(float(value.sum()), abs=1e-9)
    with pytest.raises(LabelError, match="cut bag 0 of AggregateValue"):
        labels[[0, 2]]


def test_an_epoch_sees_every_observation_once():
    labels = kinds()["means"] & kinds()["noisy values"]
    seen = torch.cat([b.observations for b in labels.batches(3, torch.Generator().manual_seed(0))])
    assert sorted(seen.tolist()) == list(range(labels.n_observations))
    mean, variance = beliefs(9)
    total = sum(
        float(labels.select(b).infer(mean[b.instances], variance[b.instances])[0].sum())
        for b in labels.batches(3, torch.Generator().manual_seed(1))
    )
    assert total == pytest.approx(float(labels.infer(mean, variance)[0].sum()), abs=1e-9)


def test_records_of_a_join_are_those_of_its_parts():
    labels = everything()
    part, row = labels.records()
    assert len(part) == len(row) == labels.n_records == sum(p.n_records for p in labels.parts)
    assert len(labels.record_scores(*beliefs(9))) == labels.n_records
    assert part.unique().tolist() == list(range(7))


def test_a_record_is_scored_by_all_but_itself():
    """The score of a value does not change with its range; with another value of the row it does."""
    mean, variance = beliefs(2)
    scores = (Value(tensor([0.3, 0.4]), 0.5) & Censored(tensor([0.0, nan]), tensor([1.0, nan]))).record_scores(
        mean, variance
    )
    s = float(variance[0]) ** 0.5
    inside = quad(lambda y: norm.pdf(y, float(mean[0]), s) * norm.pdf(0.3, y, 0.5), 0, 1)[0]
    mass = norm.cdf(1, float(mean[0]), s) - norm.cdf(0, float(mean[0]), s)
    assert float(scores[0]) == pytest.approx(math.log(inside / mass), abs=1e-9)
    assert float(scores[1]) == pytest.approx(norm.logpdf(0.4, float(mean[1]), (float(variance[1]) + 0.25) ** 0.5))


def test_weights_scale_losses_and_not_posteriors():
    mean, variance = beliefs(9)
    plain, heavy = Value(random(9), 0.5), Value(random(9), 0.5, weight=torch.full((9,), 3.0))
    assert torch.equal(plain.posterior(mean, variance).mean, heavy.posterior(mean, variance).mean)
    assert (heavy & plain).weight.tolist() == [3.0] * 9


def test_results_have_the_type_of_the_mean():
    labels = everything()
    value, belief = labels.infer(torch.zeros(9), torch.ones(9))
    assert value.dtype == belief.mean.dtype == torch.float32


def test_labels_move_and_copy():
    labels = everything().to("cpu").with_own_channels()
    assert labels.channels[0] is not everything().channels[0]
    assert labels.n_records == everything().n_records


# -- reading and simulating --------------------------------------------------------------------------------------------


def test_simulated_labels_are_likely_under_the_truth():
    """The mean squared residual at the truth is 1 for readings with noise; ranges and exact means hold it."""
    y = 3 * random(2000)
    generator = torch.Generator().manual_seed(0)
    tiny = torch.full_like(y, 1e-12)
    noisy = Value.simulate(y, generator=generator, noise=0.7).record_residuals(y, tiny)
    assert float(noisy.square().mean()) == pytest.approx(1, abs=0.1)
    bags = AggregateValue.simulate(y, generator=generator, bag_size=4, noise=0.5).record_residuals(y, tiny)
    assert float(bags.square().mean()) == pytest.approx(1, abs=0.2)
    cut = Censored.simulate(y, generator=generator)
    assert bool(((cut.low <= y) & (y <= cut.high)).all())
    assert torch.allclose(AggregateValue.simulate(y, generator=generator).posterior(y, tiny).mean, y, atol=1e-6)


def test_labels_come_from_tables():
    frame = {
        "kg": ["1.5", "", "3"],
        "low": ["", "1", "2"],
        "high": ["4", "", "2"],
        "a": [1.0, None, 2.0],
        "b": ["", "5", "6"],
    }
    value = Value.from_frame(frame, "kg", noise=0.1)
    assert value.name == "kg"
    assert value.values.isnan().tolist() == [False, True, False]
    cut = Censored.from_frame(frame, ["low", "high"])
    assert cut.low.tolist() == [-inf, 1.0, 2.0]
    assert cut.high.tolist() == [4.0, inf, 2.0]
    ratings = Ratings.from_frame(frame, ["a", "b"])
    assert ratings.annotator_names == ("a", "b")
    assert ratings.n_records == 4
    bags = AggregateValue.from_frame({"total": [3, 4]}, "total", bags=Bags.from_ids(torch.tensor([0, 1, 1])), how="sum")
    assert bags.total.tolist() == [3.0, 4.0]
    long = {"item": ["x", "y", "x"], "annotator": ["p", "p", "q"], "value": ["1", "2", ""]}
    table = Ratings.from_long(long, items=["y", "x", "z"])
    assert table.items.tolist() == [1, 0, 1]
    assert table.n_instances == 3
    assert table.evident.tolist() == [True, True, False]


BAGS = Bags.from_ids(torch.tensor([0, 0, 1]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Value(["a", "b"]), "values must be numbers"),
        (lambda: Value(torch.zeros(2, 2)), "one number per row"),
        (lambda: Value([1.0, inf, inf]), "values are infinite in row 1, 2"),
        (lambda: Value([1.0, 2.0], noise=[0.1, -0.5]), "noise is -0.5 in row 1"),
        (lambda: Value([1.0, 2.0], noise=[0.1, 0.2, 0.3]), r"noise has shape \(3,\)"),
        (lambda: Value([1.0], noise=nan), "noise is nan"),
        (lambda: Censored([1.0, 5.0, 0.0], [2.0, 4.0, -1.0]), "row 1, 2 has a low end above its high end"),
        (lambda: Censored([inf], [inf]), "row 0 has no finite number"),
        (lambda: Censored([1.0], [1.0, 2.0]), "low and high have 1 and 2 entries"),
        (lambda: Censored.from_frame({"a": [1]}, "a"), "reads two columns"),
        (lambda: AggregateValue(BAGS, [1.0]), "1 values for 2 bags"),
        (lambda: AggregateValue(BAGS, [1.0, 2.0], how="median"), 'how is "median"'),
        (lambda: AggregateValue([0, 0, 1], [1.0, 2.0]), "bags are list"),
        (lambda: AggregateValue(Bags.from_ids(torch.tensor([0, 2])), [1.0]), "without a gap"),
        (lambda: Ratings([0, 1], [0, 0], [1.0]), "2 items, 2 annotators, 1 values"),
        (lambda: Ratings([0, 5], [0, 0], [1.0, 2.0], 3), "item 5 in rating 1 is outside 0..2"),
        (lambda: Ratings([0], [0], [1.0], 1, RatingChannel(3), n_annotators=2), "channel is of 3 annotators"),
        (lambda: Ratings([0], [0], [1.0], 1, RatingChannel(1), slope=True), "belongs to the channel"),
        (lambda: Ratings.from_frame({"a": ["x"]}, ["a"]), 'holds "x"'),
        (lambda: Value([1.0]) & Exact(torch.tensor([0]), 2), "fit them apart"),
        (lambda: Value([1.0]) & Value([1.0, 2.0]), "differ in n_instances: 1 and 2"),
        (lambda: Value([1.0, 2.0]).infer([0.0, 0.0], [1.0, 0.0]), "variance must be above 0"),
        (lambda: Value([1.0, 2.0]).infer([0.0, nan], [1.0, 1.0]), "mean holds NaN"),
        (lambda: Value([1.0, 2.0]).infer([0.0], [1.0]), r"mean has shape \(1,\)"),
        (lambda: Value([nan, nan]).location_scale(), "every label is missing"),
        (lambda: aggregate(Value([1.0]), channel="confusion"), "for labels of classes"),
        (lambda: RatingChannel(2, scale=0.0), "scale is 0.0"),
    ],
)
def test_bad_input_is_said_in_one_line(make, message):
    with pytest.raises(LabelError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
