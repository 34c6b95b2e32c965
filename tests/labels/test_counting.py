"""Event counts against enumeration, a long-double recursion, and their limits."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels.counting import any_of, event_counts, log1mexp
from anygrain.labels.segments import Segments

torch.set_num_threads(1)
PROBABILITIES = st.sampled_from([0.0, 1.0, 1e-30, 1e-300, 1e-12, 0.5, 0.3, 0.999]) | st.floats(1e-6, 1 - 1e-6)


def two_columns(p: list[float]) -> torch.Tensor:
    """log of (1 - p, p) for exact p: log1p keeps both ends."""
    with np.errstate(divide="ignore"):
        p = np.asarray(p, dtype=np.float64)
        return torch.tensor(np.stack([np.log1p(-p), np.log(p)], axis=1))


def enumerated(log_p: torch.Tensor, allowed) -> tuple[float, np.ndarray]:
    """log P(o) and log P(o, y_i = k) by summing over all 2^n assignments."""
    n = len(log_p)
    table = log_p.numpy().astype(np.longdouble)
    terms, assignments = [], []
    for y in itertools.product([0, 1], repeat=n):
        if allowed(sum(y)):
            terms.append(sum((table[i, k] for i, k in enumerate(y)), np.longdouble(0)))
            assignments.append(y)
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = np.logaddexp.reduce(terms) if terms else -np.inf
        joint = np.full((n, 2), -np.inf, dtype=np.longdouble)
        for term, y in zip(terms, assignments, strict=True):
            for i, k in enumerate(y):
                joint[i, k] = np.logaddexp(joint[i, k], term)
    return float(whole), joint


def assert_equals_enumeration(log_p, value, message, allowed, absolute: float = 1e-15):
    """log P relatively, posterior absolutely; `absolute` is the rounding that log_p itself brings."""
    whole, joint = enumerated(log_p, allowed)
    if whole == -np.inf:
        assert value == -torch.inf
        assert (message == 0).all()
        return
    assert float(value) == pytest.approx(whole, rel=1e-9, abs=absolute)
    posterior = torch.softmax(log_p + message, dim=1)
    assert np.abs(posterior.numpy() - np.exp(joint - whole).astype(np.float64)).max() < 1e-9


bags_of_probabilities = st.lists(st.lists(PROBABILITIES, min_size=1, max_size=7), min_size=1, max_size=6)


def flat(bags: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    sizes = torch.tensor([len(b) for b in bags])
    return two_columns(list(itertools.chain(*bags))), torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


@settings(max_examples=60, deadline=None)
@given(bags=bags_of_probabilities, data=st.data())
def test_any_of_equals_enumeration(bags, data):
    log_p, offsets = flat(bags)
    present = torch.tensor([data.draw(st.sampled_from([1, 1, 0, -1])) for _ in bags], dtype=torch.int8)
    value, message = any_of(log_p, offsets, present)
    assert not value.isnan().any()
    assert not message.isnan().any()
    for m, bag in enumerate(bags):
        rows = slice(int(offsets[m]), int(offsets[m]) + len(bag))
        allowed = {1: lambda s: s > 0, 0: lambda s: s == 0, -1: lambda s: True}[int(present[m])]
        assert_equals_enumeration(log_p[rows], value[m], message[rows], allowed)


@settings(max_examples=60, deadline=None)
@given(bags=bags_of_probabilities)
def test_any_of_messages_equal_enumeration_of_the_other_members(bags):
    log_p, offsets = flat(bags)
    value, message = any_of(log_p, offsets, torch.ones(len(bags), dtype=torch.bool))
    for m, bag in enumerate(bags):
        for i in range(len(bag)):
            others = bag[:i] + bag[i + 1 :]
            if value[m] == -torch.inf:
                continue
            at = int(offsets[m]) + i
            expected = enumerated(two_columns(others), lambda s: s > 0)[0] if others else -math.inf
            assert float(message[at, 0]) == pytest.approx(expected, rel=1e-9, abs=1e-12)
            assert message[at, 1] == 0


@settings(max_examples=80, deadline=None)
@given(bags=bags_of_probabilities, data=st.data())
def test_event_counts_equal_enumeration(bags, data):
    log_p, offsets = flat(bags)
    counts = torch.tensor([data.draw(st.integers(-1, len(b))) for b in bags])
    value, without, having, _ = event_counts(log_p[:, 1:], log_p[:, :1], offsets, counts[:, None])
    message = torch.cat([without, having], dim=1)
    assert not value.isnan().any()
    assert not message.isnan().any()
    for m, bag in enumerate(bags):
        rows = slice(int(offsets[m]), int(offsets[m]) + len(bag))
        wanted = int(counts[m])
        # where certain members leave P = 1, log P is the rounding of the logs that were put in
        assert_equals_enumeration(
            log_p[rows], value[m, 0], message[rows], lambda s, w=wanted: w < 0 or s == w, absolute=1e-13
        )


@settings(max_examples=60, deadline=None)
@given(bags=bags_of_probabilities, data=st.data())
def test_messages_of_counts_equal_enumeration_of_the_other_members(bags, data):
    # also where the member's own probability is 0, and where the bag is impossible
    log_p, offsets = flat(bags)
    counts = torch.tensor([data.draw(st.integers(0, len(b))) for b in bags])
    found = event_counts(log_p[:, 1:], log_p[:, :1], offsets, counts[:, None], keep_impossible=True)
    for m, bag in enumerate(bags):
        for i in range(len(bag)):
            others, at = bag[:i] + bag[i + 1 :], int(offsets[m]) + i
            for own, message in ((0, found.without), (1, found.having)):
                wanted = int(counts[m]) - own
                if others:
                    expected = enumerated(two_columns(others), lambda s, w=wanted: s == w)[0]
                else:
                    expected = 0.0 if wanted == 0 else -math.inf
                assert float(message[at] + found.reference[m]) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def long_double_count(p: np.ndarray, count: int) -> tuple[float, np.ndarray]:
    """log P(S = count) and posteriors in long double, rescaled at every step."""
    n = len(p)
    p = p.astype(np.longdouble)
    forward = np.zeros((n + 1, count + 1), dtype=np.longdouble)
    forward[0, 0] = 1
    log_scale = np.zeros(n + 1, dtype=np.longdouble)
    # tilt by the odds of the mean, so that long double does not underflow either
    for i in range(n):
        row = forward[i] * (1 - p[i])
        row[1:] += forward[i, :-1] * p[i]
        scale = row.max()
        forward[i + 1], log_scale[i + 1] = row / scale, log_scale[i] + np.log(scale)
    whole = np.log(forward[n, count]) + log_scale[n]
    backward = np.zeros(count + 1, dtype=np.longdouble)
    backward[count] = 1
    posterior = np.empty(n)
    for i in reversed(range(n)):
        one = (forward[i, :-1] * backward[1:]).sum() * p[i] if count else np.longdouble(0)
        zero = (forward[i] * backward).sum() * (1 - p[i])
        posterior[i] = float(one / (one + zero))
        before = backward * (1 - p[i])
        before[:-1] += backward[1:] * p[i]
        backward = before / before.max()
    return float(whole), posterior


@pytest.mark.parametrize(
    ("n", "count", "low", "high"),
    [(300, 150, 0.0, 1.0), (1000, 3, 0.2, 0.4), (1000, 990, 0.0, 0.1), (2000, 40, 0.0, 1e-3), (2000, 1000, 0.4, 0.9)],
)
def test_large_bags_keep_their_digits(n, count, low, high):
    p = np.random.default_rng(n + count).uniform(low, high, n)
    value, without, having, _ = event_counts(
        *two_columns(p)[:, [1, 0]].split(1, dim=1), torch.tensor([0, n]), torch.tensor([[count]])
    )
    expected, posterior = long_double_count(p, count)
    assert float(value) == pytest.approx(expected, rel=1e-11)
    found = torch.sigmoid(two_columns(p)[:, 1] + having[:, 0] - two_columns(p)[:, 0] - without[:, 0])
    assert np.abs(found.numpy() - posterior).max() < 1e-11


@pytest.mark.parametrize("count", [0, 1, 2, 5000, 9999, 10000])
@pytest.mark.parametrize("p", [1e-30, 0.3, 1e-5])
def test_ten_thousand_equal_members_are_binomial(count, p):
    n = 10_000
    log_p = two_columns([p]).expand(n, 2)
    value, _, having, _ = event_counts(log_p[:, 1:], log_p[:, :1], torch.tensor([0, n]), torch.tensor([[count]]))
    ways = math.lgamma(n + 1) - math.lgamma(count + 1) - math.lgamma(n - count + 1)
    expected = ways + (count * math.log(p) if count else 0) + (n - count) * math.log1p(-p)
    assert float(value) == pytest.approx(expected, rel=1e-9)
    assert torch.allclose(torch.exp(log_p[:, 1:] + having), torch.tensor(count / n, dtype=torch.float64), atol=1e-11)


def test_ten_thousand_members_a_thousand_events():
    generator = torch.Generator().manual_seed(0)
    n, events = 10_000, 1000
    log_p = torch.log_softmax(3 * torch.randn(n, events, generator=generator), dim=1)
    classes = torch.randint(0, events, (n,), generator=generator)
    counts = torch.bincount(classes, minlength=events)[None]
    value, _, having, _ = event_counts(log_p, torch.log1p(-log_p.exp()), torch.tensor([0, n]), counts)
    assert torch.isfinite(value).all()
    assert torch.allclose(torch.exp(log_p + having).sum(dim=0), counts[0].float(), rtol=1e-3, atol=1e-3)


def test_posteriors_add_up_to_the_count():
    generator = torch.Generator().manual_seed(1)
    sizes = torch.randint(1, 300, (40,), generator=generator)
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    logits = 10 * torch.randn(int(sizes.sum()), 3, generator=generator, dtype=torch.float64)
    yes, no = torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)
    counts = (torch.rand(40, 3, generator=generator) * (sizes[:, None] + 1)).long()
    value, without, having, _ = event_counts(yes, no, offsets, counts)
    one, zero = torch.exp(yes + having), torch.exp(no + without)
    assert torch.allclose(one + zero, torch.ones_like(one), atol=1e-11)
    index = Segments(offsets).index
    total = torch.zeros(40, 3, dtype=torch.float64).index_add_(0, index, one)
    assert torch.allclose(total, counts.double(), atol=1e-9)
    assert (value < 0).all()


def test_a_staircase_of_odds_is_climbed():
    # half the members are nearly certain, the other half nearly excluded: the mean hardly moves over most tilts
    logits = torch.tensor([700.0] * 50 + [-700.0] * 50, dtype=torch.float64)[:, None]
    yes, no = torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)
    for count, expected in ((50, 0.0), (51, -700 + math.log(50)), (48, -1400 + math.log(50 * 49 / 2))):
        value = event_counts(yes, no, torch.tensor([0, 100]), torch.tensor([[count]])).log_likelihood
        assert float(value) == pytest.approx(expected, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("size", [1, 4, 33])
def test_gradients(size):
    generator = torch.Generator().manual_seed(2)
    offsets = torch.tensor([0, size, size + 3])
    logits = torch.randn(size + 3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    present = torch.tensor([1, 0])
    counts = torch.tensor([[1], [2]])

    def any_value(z):
        return any_of(torch.log_softmax(z, dim=1), offsets, present).log_likelihood

    def count_value(z):
        log_p = torch.log_softmax(z, dim=1)
        return event_counts(log_p[:, 1:], log_p[:, :1], offsets, counts).log_likelihood

    assert torch.autograd.gradcheck(any_value, logits)
    assert torch.autograd.gradcheck(count_value, logits)


def test_gradient_of_counts_in_both_columns():
    generator = torch.Generator().manual_seed(3)
    yes, no = (torch.randn(9, 2, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    counts = torch.tensor([[1, 0], [2, 5]])
    assert torch.autograd.gradcheck(
        lambda a, b: event_counts(a, b, torch.tensor([0, 4, 9]), counts).log_likelihood, (yes, no)
    )


def test_contradictions_are_impossible_silent_and_without_gradient():
    log_p = two_columns([0.0, 0.0, 1.0, 0.5]).requires_grad_()
    offsets = torch.tensor([0, 2, 4])
    value, message = any_of(log_p, offsets, torch.tensor([1, 0]))
    assert (value == -torch.inf).all()
    assert (message == 0).all()
    (slope,) = torch.autograd.grad(value.sum(), log_p)
    assert (slope == 0).all()
    counted = event_counts(log_p[:, 1:], log_p[:, :1], offsets, torch.tensor([[1], [0]]))
    assert (counted.log_likelihood == -torch.inf).all()
    assert (counted.having == 0).all()
    assert (counted.without == 0).all()
    (slope,) = torch.autograd.grad(counted.log_likelihood.sum(), log_p)
    assert (slope == 0).all()


def test_unknown_says_nothing():
    log_p = two_columns([0.2, 0.0, 1.0])
    value, message = any_of(log_p, torch.tensor([0, 3]), torch.tensor([-1]))
    assert value == 0
    assert (message == 0).all()
    counted = event_counts(log_p[:, 1:], log_p[:, :1], torch.tensor([0, 3]), torch.tensor([[-1]]))
    assert all((t == 0).all() for t in counted)


def test_mass_that_is_ruled_out_counts_against_the_bag():
    # p(1) + p(0) < 1: three members must not be in the third class at all
    generator = torch.Generator().manual_seed(4)
    log_p = torch.log_softmax(torch.randn(3, 3, generator=generator, dtype=torch.float64), dim=1)
    value = event_counts(log_p[:, :1], log_p[:, 1:2], torch.tensor([0, 3]), torch.tensor([[1]])).log_likelihood
    p = log_p.exp()
    expected = sum(p[i, 0] * p[[j for j in range(3) if j != i], 1].prod() for i in range(3)).log()
    assert torch.allclose(value, expected)


@pytest.mark.parametrize("sizes", [[1, 2, 500, 3], [5, 5, 5], [1, 1000], [7]])
def test_float32_follows_float64(sizes):
    generator = torch.Generator().manual_seed(5)
    sizes = torch.tensor(sizes)
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    log_p = torch.log_softmax(3 * torch.randn(int(sizes.sum()), 2, generator=generator, dtype=torch.float64), dim=1)
    counts = (sizes // 3)[:, None]
    present = torch.ones(len(sizes), dtype=torch.int8)
    for exact, single in (
        (any_of(log_p, offsets, present), any_of(log_p.float(), offsets, present)),
        (
            event_counts(log_p[:, 1:], log_p[:, :1], offsets, counts),
            event_counts(*log_p.float()[:, [1, 0]].split(1, 1), offsets, counts),
        ),
    ):
        assert single[0].dtype == torch.float32
        assert torch.allclose(single[0].double(), exact[0], rtol=1e-4, atol=1e-4)
        assert torch.allclose(single[1].double(), exact[1], rtol=1e-3, atol=1e-3)


def test_bags_do_not_depend_on_each_other_or_on_their_layout():
    generator = torch.Generator().manual_seed(6)
    sizes = torch.tensor([3, 100, 1, 17, 64])
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    logits = torch.randn(int(sizes.sum()), 4, generator=generator, dtype=torch.float64)
    yes, no = torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)
    counts = (sizes[:, None] * torch.tensor([0.1, 0.5, 0.9, 1.0])).long()
    together = event_counts(yes, no, offsets, counts)
    for m in range(5):
        rows = slice(int(offsets[m]), int(offsets[m + 1]))
        alone = event_counts(yes[rows], no[rows], offsets[m : m + 2] - offsets[m], counts[m : m + 1])
        assert torch.allclose(alone.log_likelihood, together.log_likelihood[m : m + 1], rtol=1e-12)
        assert torch.allclose(alone.having, together.having[rows], rtol=1e-10, atol=1e-12)
        assert torch.allclose(alone.without, together.without[rows], rtol=1e-10, atol=1e-12)


def test_log1mexp_is_precise_at_both_ends():
    x = torch.tensor([1e-300, 1e-20, 0.5, 1.0, 40.0, 700.0], dtype=torch.float64)
    expected = [
        math.log(1e-300),
        math.log(1e-20),
        math.log(-math.expm1(-0.5)),
        math.log1p(-math.exp(-1)),
        -math.exp(-40),
        -math.exp(-700),
    ]
    assert log1mexp(x).tolist() == pytest.approx(expected, rel=1e-14)
