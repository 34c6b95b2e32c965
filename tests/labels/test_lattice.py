"""Joint class counts against enumeration, a plain recursion, and their limits; the I-projection beyond the lattice."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import anygrain.labels.lattice as lattice_module
from anygrain.labels.iprojection import i_projection
from anygrain.labels.lattice import CountPlan, joint_counts

torch.set_num_threads(1)


def enumerated(log_p: np.ndarray, counts: list[int]) -> tuple[float, np.ndarray]:
    """log P(counts) and the posterior, by summing over all K^n assignments in long double."""
    n, k = log_p.shape
    table = log_p.astype(np.longdouble)
    whole, joint = -np.inf, np.full((n, k), -np.inf, dtype=np.longdouble)
    with np.errstate(invalid="ignore", divide="ignore"):
        for y in itertools.product(range(k), repeat=n):
            if all(c < 0 or y.count(j) == c for j, c in enumerate(counts)):
                term = sum((table[i, j] for i, j in enumerate(y)), np.longdouble(0))
                whole = np.logaddexp(whole, term)
                for i, j in enumerate(y):
                    joint[i, j] = np.logaddexp(joint[i, j], term)
        return float(whole), np.exp(joint - whole).astype(np.float64)


@st.composite
def member(draw, k):
    weights = draw(st.lists(st.sampled_from([0.0, 0.0, 1.0, 1e-30, 1e-300, 0.3, 2.0, 5.0]), min_size=k, max_size=k))
    if sum(weights) == 0:
        weights = [1.0] * k
    p = np.array(weights) / sum(weights)
    with np.errstate(divide="ignore"):
        return np.log(p)


@st.composite
def bag_with_counts(draw, k):
    n = draw(st.integers(1, 5))
    log_p = np.stack([draw(member(k)) for _ in range(n)])
    classes = draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))
    counts = [classes.count(j) for j in range(k)]
    return log_p, [-1 if draw(st.booleans()) and draw(st.booleans()) else c for c in counts]


def assert_equals_enumeration(log_p, counts, value, message):
    whole, posterior = enumerated(log_p, counts)
    if whole == -np.inf:
        assert value == -torch.inf
        assert (message == 0).all()
        return
    assert float(value) == pytest.approx(whole, rel=1e-9, abs=1e-12)
    found = torch.softmax(torch.tensor(log_p) + message, dim=1).numpy()
    assert np.abs(found - posterior).max() < 1e-9


@settings(max_examples=60, deadline=None)
@given(k=st.integers(2, 4), data=st.data())
def test_joint_counts_equal_enumeration(k, data):
    bags = data.draw(st.lists(bag_with_counts(k), min_size=1, max_size=5))
    log_p = torch.tensor(np.concatenate([b[0] for b in bags]))
    sizes = torch.tensor([len(b[0]) for b in bags])
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    value, message, _ = joint_counts(log_p, offsets, torch.tensor([b[1] for b in bags]))
    assert not value.isnan().any()
    assert not message.isnan().any()
    for m, (table, counts) in enumerate(bags):
        assert_equals_enumeration(table, counts, value[m], message[int(offsets[m]) : int(offsets[m + 1])])


def plain_recursion(p: np.ndarray, counts: list[int]) -> float:
    """log P(counts), all known, by a recursion over all but the last class in long double."""
    law = np.zeros([c + 1 for c in counts[:-1]], dtype=np.longdouble)
    law[(0,) * law.ndim] = 1
    scale = np.longdouble(0)
    for row in p.astype(np.longdouble):
        new = law * row[-1]
        for axis in range(law.ndim):
            to = [slice(None)] * law.ndim
            frm = list(to)
            to[axis], frm[axis] = slice(1, None), slice(None, -1)
            new[tuple(to)] += law[tuple(frm)] * row[axis]
        law, scale = new / new.max(), scale + np.log(new.max())
    return float(np.log(law[(-1,) * law.ndim]) + scale)


@pytest.mark.parametrize(
    ("n", "counts"), [(60, [10, 20, 30]), (400, [3, 6, 391]), (2000, [1, 2, 1997]), (900, [5, 4, 3, 888])]
)
def test_long_sets_equal_a_plain_recursion_and_match_the_counts(n, counts):
    generator = torch.Generator().manual_seed(n)
    log_p = torch.log_softmax(2 * torch.randn(n, len(counts), generator=generator, dtype=torch.float64), dim=1)
    plan = CountPlan(torch.tensor([0, n]), torch.tensor([counts]))
    assert plan.exact
    assert len(plan.lattices) == 1
    value, message, _ = joint_counts(log_p, plan.segments, torch.tensor([counts]), plan)
    assert float(value) == pytest.approx(plain_recursion(log_p.exp().numpy(), counts), rel=1e-11)
    posterior = torch.exp(log_p + message)
    assert torch.allclose(posterior.sum(dim=1), torch.ones(n, dtype=torch.float64), atol=1e-10)
    assert torch.allclose(posterior.sum(dim=0), torch.tensor(counts).double(), atol=1e-9)


def test_runs_side_by_side_equal_one_run(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    log_p = torch.log_softmax(torch.randn(1500, 4, generator=generator, dtype=torch.float64), dim=1)
    counts = torch.tensor([[2, 3, 1, -1], [1, 1, 2, -1]])
    offsets = torch.tensor([0, 800, 1500])
    cut = joint_counts(log_p, offsets, counts)
    plan = CountPlan(offsets, counts)
    assert next(iter(plan.lattices))[1].runs > 1
    monkeypatch.setattr(lattice_module.math, "sqrt", lambda x: 1.0)
    whole = joint_counts(log_p, offsets, counts)
    assert torch.allclose(cut.log_likelihood, whole.log_likelihood, rtol=1e-12)
    assert torch.allclose(cut.message, whole.message, rtol=1e-9, atol=1e-11)


def test_tables_made_anew_say_the_same(monkeypatch):
    generator = torch.Generator().manual_seed(11)
    log_p = torch.log_softmax(torch.randn(30, 4, generator=generator, dtype=torch.float64), dim=1)
    offsets, counts = torch.tensor([0, 10, 30]), torch.tensor([[2, 3, 4, 1], [5, 5, 5, 5]])
    kept = joint_counts(log_p, offsets, counts)
    monkeypatch.setattr(lattice_module, "KEPT", 0)
    monkeypatch.setattr(lattice_module, "CHUNK", 1)
    anew = joint_counts(log_p, offsets, counts)
    assert torch.equal(kept.log_likelihood, anew.log_likelihood)
    assert torch.equal(kept.message, anew.message)


def test_two_classes_are_exact_at_ten_thousand_members():
    n, count = 10_000, 4321
    log_p = torch.tensor([[math.log1p(-1e-30), math.log(1e-30)]], dtype=torch.float64).expand(n, 2)
    value, _, _ = joint_counts(log_p, torch.tensor([0, n]), torch.tensor([[n - count, count]]))
    ways = math.lgamma(n + 1) - math.lgamma(count + 1) - math.lgamma(n - count + 1)
    assert float(value) == pytest.approx(ways + count * math.log(1e-30), rel=1e-10)


def test_one_known_class_is_exact_at_ten_thousand_members_of_a_thousand_classes():
    generator = torch.Generator().manual_seed(1)
    n, k = 10_000, 1000
    log_p = torch.log_softmax(torch.randn(n, k, generator=generator), dim=1)
    counts = torch.full((1, k), -1)
    counts[0, 3] = 20
    plan = CountPlan(torch.tensor([0, n]), counts)
    assert plan.exact
    value, message, _ = joint_counts(log_p, plan.segments, counts, plan)
    assert torch.isfinite(value).all()
    assert float(torch.exp(log_p + message)[:, 3].sum()) == pytest.approx(20, rel=1e-4)


def test_all_but_one_known_says_as_much_as_all_known():
    generator = torch.Generator().manual_seed(2)
    log_p = torch.log_softmax(torch.randn(12, 3, generator=generator, dtype=torch.float64), dim=1)
    offsets = torch.tensor([0, 12])
    full = joint_counts(log_p, offsets, torch.tensor([[3, 4, 5]]))
    part = joint_counts(log_p, offsets, torch.tensor([[3, -1, 5]]))
    assert torch.allclose(full.log_likelihood, part.log_likelihood, rtol=1e-13)
    assert torch.allclose(full.message, part.message, atol=1e-12)


def test_one_class_only():
    log_p = torch.log_softmax(torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)), dim=1)
    value, message, _ = joint_counts(log_p, torch.tensor([0, 4]), torch.tensor([[0, 4, 0]]))
    assert torch.allclose(value, log_p[:, 1].sum())
    assert torch.equal(
        torch.softmax(log_p + message, dim=1), torch.nn.functional.one_hot(torch.ones(4).long(), 3).double()
    )


def test_unknown_counts_and_counts_that_do_not_fit():
    log_p = torch.log_softmax(torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4)), dim=1)
    value, message, _ = joint_counts(
        log_p, torch.tensor([0, 2, 4, 6]), torch.tensor([[-1, -1, -1], [1, 2, -1], [0, 1, 0]])
    )
    assert value.tolist() == [0.0, -math.inf, -math.inf]
    assert (message == 0).all()


def test_gradients():
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(13, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    offsets = torch.tensor([0, 5, 6, 13])
    counts = torch.tensor([[1, 2, 2], [-1, 1, -1], [3, -1, 2]])
    assert torch.autograd.gradcheck(
        lambda z: joint_counts(torch.log_softmax(z, dim=1), offsets, counts).log_likelihood, logits
    )


def test_a_contradiction_has_no_gradient():
    log_p = torch.tensor([[0.0, -math.inf, -math.inf]] * 3, requires_grad=True)
    value, message, _ = joint_counts(log_p, torch.tensor([0, 3]), torch.tensor([[1, 1, 1]]))
    assert value == -torch.inf
    assert (message == 0).all()
    value.sum().backward()
    assert (log_p.grad == 0).all()


def test_projection_matches_the_means_and_respects_hard_zeros():
    generator = torch.Generator().manual_seed(6)
    log_p = torch.log_softmax(2 * torch.randn(2, 50, 5, generator=generator, dtype=torch.float64), dim=2)
    log_p[:, :8, 2] = -math.inf
    log_p[:, 8, :4] = -math.inf
    counts = torch.tensor([[10, 12, 8, 9, 11], [30, 5, 4, 6, 5]])
    value, message = i_projection(log_p, counts)
    q = torch.exp(log_p + message)
    assert torch.allclose(q.sum(dim=2), torch.ones(2, 50, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(q.sum(dim=1), counts.double(), atol=1e-8)
    assert (q[:, :8, 2] == 0).all()
    assert torch.isfinite(message).all()
    assert torch.isfinite(value).all()


@pytest.mark.parametrize("members", [20, 60])
def test_projection_is_near_the_lattice(members, monkeypatch):
    generator = torch.Generator().manual_seed(7)
    log_p = torch.log_softmax(1.5 * torch.randn(10 * members, 3, generator=generator, dtype=torch.float64), dim=1)
    offsets = torch.arange(11) * members
    counts = torch.tensor([[members // 4, members // 4, members - 2 * (members // 4)]] * 10)
    exact = joint_counts(log_p, offsets, counts)
    monkeypatch.setattr(lattice_module, "LIMIT", 1)
    plan = CountPlan(offsets, counts)
    assert not plan.exact
    near = joint_counts(log_p, offsets, counts, plan)
    assert (near.log_likelihood - exact.log_likelihood).abs().max() < 0.15
    variation = (torch.exp(log_p + near.message) - torch.exp(log_p + exact.message)).abs().sum(dim=1) / 2
    assert variation.mean() < 0.004
    assert variation.max() < 0.03


@pytest.mark.parametrize("wide", [True, False])
def test_the_posterior_of_the_projection_is_the_gradient_of_its_value(wide, monkeypatch):
    monkeypatch.setattr(lattice_module, "LIMIT", 1)
    generator = torch.Generator().manual_seed(12)
    logits = torch.randn(24, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    counts = torch.tensor([[7, 8, 9]]) if wide else torch.tensor([[1, 1, 22]])
    assert torch.autograd.gradcheck(
        lambda z: joint_counts(torch.log_softmax(z, dim=1), torch.tensor([0, 24]), counts).log_likelihood,
        logits,
        eps=1e-5,
        atol=1e-5,
    )


def test_projection_sees_what_no_assignment_can_do(monkeypatch):
    monkeypatch.setattr(lattice_module, "LIMIT", 1)
    log_p = torch.log_softmax(
        torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(8)), dim=1
    )
    log_p[:25, 1] = -math.inf  # five members at most are of class 1
    offsets = torch.tensor([0, 30])
    assert joint_counts(log_p, offsets, torch.tensor([[10, 6, 14]])).log_likelihood == -torch.inf
    assert torch.isfinite(joint_counts(log_p, offsets, torch.tensor([[10, 5, 15]])).log_likelihood)


def test_many_classes_beyond_the_lattice_stay_finite():
    generator = torch.Generator().manual_seed(9)
    n, k = 3000, 100
    log_p = torch.log_softmax(4 * torch.randn(n, k, generator=generator), dim=1)
    counts = torch.bincount(torch.randint(0, k, (n,), generator=generator), minlength=k)[None]
    value, message, _ = joint_counts(log_p, torch.tensor([0, n]), counts)
    assert torch.isfinite(value).all()
    assert torch.allclose(torch.exp(log_p + message).sum(dim=0), counts[0].float(), rtol=1e-3, atol=1e-2)


def test_float32_follows_float64():
    generator = torch.Generator().manual_seed(10)
    sizes = torch.tensor([3, 9, 40])
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    log_p = torch.log_softmax(torch.randn(52, 3, generator=generator, dtype=torch.float64), dim=1)
    counts = torch.tensor([[1, 1, 1], [2, -1, 3], [10, 10, 20]])
    exact, single = joint_counts(log_p, offsets, counts), joint_counts(log_p.float(), offsets, counts)
    assert single.log_likelihood.dtype == single.message.dtype == torch.float32
    assert torch.allclose(single.log_likelihood.double(), exact.log_likelihood, rtol=1e-5)
    assert torch.allclose(torch.exp(log_p + single.message), torch.exp(log_p + exact.message), atol=1e-5)
