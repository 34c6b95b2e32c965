"""AtLeast, AtMost, Between: enumeration, the kinds they coincide with, tails, large bags and bad input."""

import itertools
import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels import AnyOf, AtLeast, AtMost, Bags, Between, Counts, Exact, LabelError, check
from anygrain.labels.counting import event_counts, range_counts

K = 3
BAGS = Bags(torch.tensor([4, 0, 1, 2, 3, 5]), torch.tensor([0, 3, 4, 6]), 7)
SIZES = [3, 1, 2]


def log_probs_of(seed: int, n: int, k: int = K, sharpness: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(sharpness * torch.randn(n, k, dtype=torch.float64, generator=generator), dim=1)


def recursion(log_yes: torch.Tensor, log_no: torch.Tensor) -> torch.Tensor:
    """log P(count = 0..n), member by member in log space: no cancellation, no underflow."""
    law = torch.full((len(log_yes) + 1,), -torch.inf, dtype=torch.float64)
    law[0] = 0.0
    for yes, no in zip(log_yes, log_no, strict=True):
        law = torch.logaddexp(law + no, torch.cat([law.new_full((1,), -torch.inf), law[:-1]]) + yes)
    return law


@settings(max_examples=30, deadline=None)
@given(
    ends=st.tuples(*[st.tuples(st.integers(-1, n), st.integers(-1, n)) for n in SIZES]),
    target=st.sampled_from([0, [1, 2], "per bag", "table"]),
    error=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 100),
    hard=st.booleans(),
)
def test_equals_enumeration(ends, target, error, seed, hard):
    if target == "per bag":
        target = torch.tensor([0, 2, 1])
    elif target == "table":
        target = torch.tensor([[True, False, False], [True, True, False], [False, True, True]])
    low, high = torch.tensor([(min(e), max(e)) if -1 not in e else e for e in ends]).T
    labels = Between(BAGS, low, high, target, K, error=error)
    joined = labels & Exact(torch.tensor([0, -1, 1, -1, -1, 2, -1]), K) if hard else labels
    result = check(joined, log_probs_of(seed, 7))
    assert result.ok, str(result)


def range_of(odds, low, high, **how):
    """log P(low..high) and messages (2, n) of absent and present members, for log-odds (n,)."""
    yes, no = torch.nn.functional.logsigmoid(odds)[:, None], torch.nn.functional.logsigmoid(-odds)[:, None]
    ends = torch.tensor([[low]]), torch.tensor([[high]])
    found = range_counts(yes, no, torch.tensor([0, len(odds)]), *ends, **how)
    return found.log_likelihood[0, 0], torch.cat([found.without, found.having], dim=1).T + found.reference[0]


def range_by_recursion(odds, low, high):
    """The same, member by member in log space."""
    yes, no = torch.nn.functional.logsigmoid(odds), torch.nn.functional.logsigmoid(-odds)
    value, message = torch.logsumexp(recursion(yes, no)[low : high + 1], dim=0), []
    for i in range(len(odds)):
        rest = recursion(torch.cat([yes[:i], yes[i + 1 :]]), torch.cat([no[:i], no[i + 1 :]]))
        message.append(torch.stack([rest[low : high + 1].logsumexp(0), rest[max(low - 1, 0) : high].logsumexp(0)]))
    return value, torch.stack(message, dim=1)


@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(1, 30),
    sharpness=st.sampled_from([0.5, 3.0, 30.0, 300.0]),
    shift=st.sampled_from([-5.0, 0.0, 5.0]),
    certain=st.booleans(),
    open_end=st.sampled_from(["low", "high", "none"]),
    seed=st.integers(0, 10**6),
)
def test_the_tails_keep_their_digits(n, sharpness, shift, certain, open_end, seed):
    generator = torch.Generator().manual_seed(seed)
    odds = sharpness * torch.randn(n, dtype=torch.float64, generator=generator) + shift * sharpness
    if certain:
        odds = torch.where(torch.rand(n, generator=generator) < 0.3, odds.sign() * torch.inf, odds)
    low, high = sorted(torch.randint(0, n + 1, (2,), generator=generator).tolist())
    low, high = 0 if open_end == "low" else low, n if open_end == "high" else high
    value, message = range_of(odds, low, high, keep_impossible=True)
    want_value, want_message = range_by_recursion(odds, low, high)
    torch.testing.assert_close(value, want_value, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(message, want_message, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("odds", "low", "high"),
    [
        ([90.0], 0, 1),
        ([-90.0], 0, 1),
        ([85.0, 78.0, 127.0, 73.0, 91.0], 1, 5),
        ([-85.0, -78.0, -127.0, -73.0, -91.0], 0, 4),
        ([-6.0] * 120, 0, 118),
        ([6.0] * 120, 2, 120),
        ([-27.0] * 120, 0, 118),
    ],
)
def test_an_end_beyond_reach_costs_no_digits(odds, low, high):
    odds = torch.tensor(odds, dtype=torch.float64)
    for ours, theirs in zip(range_of(odds, low, high), range_by_recursion(odds, low, high), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", [AtLeast, AtMost, Between])
def test_scores_of_exact_labels_that_contradict_sure_ones(kind):
    for seed in (0, 2, 12):
        generator = torch.Generator().manual_seed(seed)
        truth = torch.randint(K, (7,), generator=generator)
        labels = kind.simulate(truth, K, generator=generator, bags=BAGS, target=1)
        wrong = torch.where(torch.rand(7, generator=generator) < 0.5, (truth + 1) % K, -1)
        result = check(labels & Exact(wrong, K), log_probs_of(seed, 7, sharpness=30.0))
        assert result.ok, str(result)


def test_one_or_more_is_any_of_and_none_is_its_opposite():
    log_probs = log_probs_of(1, 7)
    any_of = AnyOf(BAGS, torch.tensor([1, 0, 1]), [0, 2], K)
    for labels, which in (
        (AtLeast(BAGS, torch.tensor([1, -1, 1]), [0, 2], K), [0, 2]),
        (AtMost(BAGS, torch.tensor([-1, 0, -1]), [0, 2], K), [1]),
    ):
        value, want = labels.log_likelihood(log_probs), any_of.log_likelihood(log_probs)
        torch.testing.assert_close(value[which], want[which])
        inside = torch.isin(BAGS.index, torch.tensor(which))
        at = BAGS.members[inside]
        torch.testing.assert_close(labels.posterior(log_probs)[at], any_of.posterior(log_probs)[at])


@pytest.mark.parametrize("error", [0.0, 0.2])
def test_a_range_of_one_count_is_that_count(error):
    log_probs, number = log_probs_of(2, 7), torch.tensor([2, 0, 1])
    counts = torch.full((3, K), -1)
    counts[:, 1] = number
    ours, theirs = Between(BAGS, number, number, 1, K, error=error), Counts(BAGS, counts, error=error)
    torch.testing.assert_close(ours.log_likelihood(log_probs), theirs.log_likelihood(log_probs))
    torch.testing.assert_close(ours.posterior(log_probs), theirs.posterior(log_probs))


@pytest.mark.parametrize("error", [0.0, 0.3])
def test_at_least_and_its_opposite_add_up(error):
    log_probs = log_probs_of(3, 7)
    for c in range(1, 4):
        up = AtLeast(BAGS, torch.tensor([c, -1, -1]), 1, K, error=error).log_likelihood(log_probs)[0]
        down = AtMost(BAGS, torch.tensor([c - 1, -1, -1]), 1, K, error=error).log_likelihood(log_probs)[0]
        assert float(up.exp() + down.exp()) == pytest.approx(1.0, abs=1e-12)


def test_open_ends_say_nothing():
    log_probs = log_probs_of(4, 7)
    for labels in (
        AtLeast(BAGS, torch.full((3,), -1), 0, K, error=0.2),
        AtLeast(BAGS, torch.zeros(3), 0, K),
        AtMost(BAGS, BAGS.sizes, 0, K),
        Between(BAGS, torch.full((3,), -1), BAGS.sizes, 0, K),
    ):
        value, posterior = labels.infer(log_probs)
        torch.testing.assert_close(value, torch.zeros_like(value), atol=1e-12, rtol=0)
        torch.testing.assert_close(posterior, log_probs.exp())


def test_ranges_of_the_same_members_are_merged_with_other_counts():
    twice = Bags(torch.tensor([0, 1, 2, 3, 0, 1, 2, 3]), torch.tensor([0, 4, 8]), 4)
    once = Bags(torch.arange(4), torch.tensor([0, 4]), 4)
    labels = (
        Between(twice, torch.tensor([1, 2]), torch.tensor([2, 4]), torch.tensor([0, 1]), K)
        & AnyOf(once, torch.tensor([1]), 2, K)
        & AtMost(once, torch.tensor([2]), [1, 2], K)
    )
    assert labels.exact
    result = check(labels, log_probs_of(5, 4))
    assert result.ok, str(result)


@pytest.mark.parametrize(("low", "high"), [(0, 40_000), (55_000, 100_000), (49_900, 50_100), (99_990, 100_000)])
def test_a_hundred_thousand_members(low, high):
    n, p = 100_000, 0.5
    log_probs = torch.full((n, 2), math.log(p), dtype=torch.float64)
    bags = Bags.from_ids(torch.zeros(n, dtype=torch.long))
    begun = time.process_time()
    value, posterior = Between(bags, torch.tensor([low]), torch.tensor([high]), 1, 2).infer(log_probs)
    assert time.process_time() - begun < 5
    count = torch.arange(low, high + 1, dtype=torch.float64)
    law = math.lgamma(n + 1) - torch.lgamma(count + 1) - torch.lgamma(n - count + 1) + n * math.log(p)
    whole = torch.logsumexp(law, dim=0)
    assert float(value[0]) == pytest.approx(float(whole), rel=1e-9)
    mean = (count * (law - whole).exp()).sum() / n  # equal members share the expected count
    torch.testing.assert_close(posterior[:, 1], mean.expand(n), atol=1e-9, rtol=0)


def test_a_range_costs_little_more_than_a_count():
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.randn(40_000, 2, generator=generator, dtype=torch.float64).log_softmax(1)
    yes, no = log_probs[:, 1:], log_probs[:, :1]
    offsets, count = torch.arange(0, 40_001, 1000), torch.full((40, 1), 520)

    def seconds(run):
        begun = time.process_time()
        run()
        return time.process_time() - begun

    ratios = []
    for _ in range(5):  # side by side: other work on the machine slows both
        one = seconds(lambda: event_counts(yes, no, offsets, count))
        ratios.append(seconds(lambda: range_counts(yes, no, offsets, count, torch.full((40, 1), 1000))) / one)
    assert min(ratios) < 4


def test_contradiction_is_constant_and_without_gradient():
    labels = AtLeast(Bags.from_ids(torch.tensor([0, 0, 1])), torch.tensor([2, 0]), 0, K) & Exact(
        torch.tensor([1, 0, 0]), K
    )
    log_probs = log_probs_of(3, 3).requires_grad_()
    value = labels.log_likelihood(log_probs)
    assert labels.contradictions(log_probs).tolist() == [True, False]
    (slope,) = torch.autograd.grad(value[0], log_probs)
    assert (slope == 0).all()


def test_relabel_merges_targets_and_refuses_to_mix_them():
    labels = Between(BAGS, torch.tensor([1, 0, 1]), torch.tensor([2, 1, 2]), [1, 2], K)
    fine = log_probs_of(4, 7)
    coarse = torch.stack([fine[:, 0], fine[:, 1:].logsumexp(1)], dim=1)
    merged = labels.relabel(torch.tensor([0, 1, 1]), 2)
    torch.testing.assert_close(merged.log_likelihood(coarse), labels.log_likelihood(fine))
    with pytest.raises(LabelError, match="merged with other classes"):
        labels.relabel(torch.tensor([0, 0, 1]), 2)


def test_simulated_statements_are_true_and_do_not_lean():
    generator = torch.Generator().manual_seed(5)
    classes = torch.randint(0, K, (40_000,), generator=generator)
    uniform = torch.full((40_000, K), 1 / K, dtype=torch.float64).log()
    for kind in (AtLeast, AtMost, Between):
        labels = kind.simulate(classes, K, generator=generator, target=1, bag_size=4)
        hits = (classes[labels.sets.members] == 1).long()
        count = torch.zeros(len(labels.sets), dtype=torch.long).index_add(0, labels.sets.index, hits)
        assert bool(((labels.low <= count) & (count <= labels.high)).all())
    expected = labels.posterior(uniform)[:, 1].mean()  # ranges are laid evenly: posteriors are right on average
    assert float(expected) == pytest.approx(float((classes == 1).double().mean()), abs=0.01)
    wrong = Between.simulate(classes, K, generator=generator, target=1, bags=labels.sets, width=0, error=0.5)
    assert float((wrong.low != count).double().mean()) == pytest.approx(0.5 * 4 / 5, abs=0.02)


def test_from_frame_reads_whole_numbers():
    frame = {"few": ["1", "", "0"], "many": [2, None, 2], "odd": ["1.5", "", ""]}
    classes = ["a", "b", "c"]
    labels = Between.from_frame(frame, ["few", "many"], bags=BAGS, target="b", classes=classes)
    assert labels.low.tolist() == [1, 0, 0]
    assert labels.high.tolist() == [2, 1, 2]
    assert AtLeast.from_frame(frame, "few", bags=BAGS, target=["a", "b"], classes=classes).least.tolist() == [1, -1, 0]
    assert AtMost.from_frame(frame, "many", bags=BAGS, target="c", classes=classes).most.tolist() == [2, -1, 2]
    with pytest.raises(LabelError, match=r'"odd" holds 1.5 \(row 0\); expected a whole number'):
        AtLeast.from_frame(frame, "odd", bags=BAGS, target="b", classes=classes)
    with pytest.raises(LabelError, match='target "d" is not among the classes'):
        AtMost.from_frame(frame, "many", bags=BAGS, target="d", classes=classes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AtLeast(BAGS, [1, 2, 3], 0, K), "bag 1 (and 1 more) has least 2, but 1 members"),
        (lambda: AtMost(BAGS, [4, 0, 0], 0, K), "bag 0 has most 4, but 3 members"),
        (lambda: Between(BAGS, [2, 0, 0], [1, 1, 1], 0, K), "bag 0 has a lowest count above its highest"),
        (lambda: Between(BAGS, [0, 0, 0], [1, 1, 3], 0, K), "bag 2 has high 3, but 2 members"),
        (lambda: AtLeast(BAGS, [1, 1, -2], 0, K), "bag 2 has a negative least"),
        (lambda: AtLeast(BAGS, [1, 1], 0, K), "expected (3,)"),
        (lambda: AtLeast(BAGS, [1, 1, 0.5], 0, K), "0.5 is not"),
        (lambda: AtLeast(BAGS, [1, 1, 1], 3, K), "target outside 0..2"),
        (lambda: AtLeast([0, 0, 1], [1, 1], 0, K), "expected Bags"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(LabelError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_select_and_batches_follow():
    generator = torch.Generator().manual_seed(6)
    classes = torch.randint(0, K, (60,), generator=generator)
    log_probs = log_probs_of(7, 60)
    for kind, size in itertools.product((AtLeast, Between), (3, 7)):
        labels = kind.simulate(classes, K, generator=generator, bag_size=size)
        whole = labels.posterior(log_probs)
        for batch in labels.batches(10, generator):
            part = labels.select(batch).posterior(log_probs[batch.instances])
            assert torch.allclose(part, whole[batch.instances], atol=1e-12)
