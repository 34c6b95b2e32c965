"""Majority, SetLabel, Automaton, Aggregate: enumeration, the kinds they coincide with, approximations and bad input."""

import itertools
import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels import (
    Aggregate,
    AnyOf,
    AtLeast,
    Automaton,
    Bags,
    Between,
    Counts,
    Exact,
    LabelError,
    Majority,
    SetLabel,
    Tables,
    Taxonomy,
    automata,
    check,
    class_sums,
    distinct,
    plurality,
)
from anygrain.labels.automata import Machine
from anygrain.labels.class_sums import find_grid
from anygrain.labels.compositions import Compositions
from anygrain.labels.segments import Segments

K = 3
BAGS = Bags(torch.tensor([4, 0, 1, 6, 2, 3, 5]), torch.tensor([0, 4, 5, 7]), 8)


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def log_probs_of(seed: int, n: int, k: int = K, sharpness: float = 3.0) -> torch.Tensor:
    return torch.log_softmax(sharpness * torch.randn(n, k, dtype=torch.float64, generator=gen(seed)), dim=1)


def one_bag(n: int) -> Bags:
    return Bags.from_ids(torch.zeros(n, dtype=torch.long))


def cycle(states: int, k: int) -> torch.Tensor:
    return (torch.arange(states)[:, None] + torch.arange(k)) % states


KINDS = {
    "majority": lambda y, k, g, **how: Majority.simulate(y, k, generator=g, **how),
    "coarse majority": lambda y, k, g, **how: SetLabel.simulate(
        y, k, generator=g, taxonomy=torch.eye(2)[(torch.arange(k) > 0).long()].T, **how
    ),
    "shared coarse majority": lambda y, k, g, **how: SetLabel.simulate(
        y, k, generator=g, taxonomy=torch.softmax(torch.arange(2.0 * k).view(2, k) % 3, 0) * 0.8, **how
    ),
    "distinct": lambda y, k, g, **how: SetLabel.simulate(y, k, generator=g, rule="distinct", **how),
    "highest": lambda y, k, g, **how: SetLabel.simulate(y, k, generator=g, rule="highest", **how),
    "tables": lambda y, k, g, **how: SetLabel.simulate(y, k, generator=g, rule=Tables(cycle(3, k), 1, {0}), **how),
    "automaton": lambda y, k, g, **how: Automaton.simulate(
        y,
        k,
        generator=g,
        transition=torch.softmax(2 * torch.randn(3, k, 3, generator=gen(1)), dim=2),
        initial=torch.tensor([0.2, 0.8, 0.0]),
        final=[{0}, {1, 2}],
        **how,
    ),
    "sum": lambda y, k, g, **how: Aggregate.simulate(
        y, k, generator=g, per_class=torch.tensor([0.25, 0.25, -1.0, 3.0])[:k], **how
    ),
    "noisy mean": lambda y, k, g, **how: Aggregate.simulate(y, k, generator=g, how="mean", noise=0.3, **how),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1000),
    k=st.integers(2, 4),
    error=st.sampled_from([0.0, 0.15]),
    sharpness=st.sampled_from([0.5, 3.0, 20.0]),
    evidence=st.sampled_from(["none", "right", "wrong"]),
)
def test_equals_enumeration(kind, seed, k, error, sharpness, evidence):
    truth = torch.randint(k, (8,), generator=gen(seed))
    labels = KINDS[kind](truth, k, gen(seed), bags=BAGS, error=error)
    assert labels.exact
    if evidence != "none":
        known = torch.rand(8, generator=gen(seed)) < 0.5
        labels = labels & Exact(torch.where(known, truth if evidence == "right" else (truth + 1) % k, -1), k)
    result = check(labels, log_probs_of(seed, 8, k, sharpness))
    assert result.ok, str(result)


# -- kinds that coincide ----------------------------------------------------------------------------------------------


def same(one, other, log_probs):
    torch.testing.assert_close(one.log_likelihood(log_probs), other.log_likelihood(log_probs), atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(one.posterior(log_probs), other.posterior(log_probs), atol=1e-10, rtol=0)


@pytest.mark.parametrize("n", [1, 4, 7, 501])
def test_a_majority_of_two_is_more_than_half(n):
    log_probs, bags = log_probs_of(n, n, 2, 1.0), one_bag(n)
    value, posterior = Majority(bags, torch.tensor([1]), 2).infer(log_probs)
    more = AtLeast(bags, torch.tensor([n // 2 + 1]), 1, 2).infer(log_probs)
    half = Between(bags, torch.tensor([(n + 1) // 2]), torch.tensor([n]), 1, 2).infer(log_probs)
    weight = torch.softmax(torch.stack([more[0], half[0]]), dim=0)[..., None]
    torch.testing.assert_close(value.exp(), (more[0].exp() + half[0].exp()) / 2)
    torch.testing.assert_close(posterior, weight[0] * more[1] + weight[1] * half[1])


def test_winners_have_probability_one_and_ties_are_even():
    log_probs = log_probs_of(0, 8)
    total = sum(Majority(BAGS, torch.full((3,), w), K).log_likelihood(log_probs).exp() for w in range(K))
    torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64))
    certain = torch.eye(K, dtype=torch.float64).log()[[0, 0, 1, 1, 2]]
    chance = [float(Majority(one_bag(5), torch.tensor([w]), K).log_likelihood(certain).exp()) for w in range(K)]
    assert chance == pytest.approx([0.5, 0.5, 0.0], abs=1e-12)


def test_labels_of_every_rule_have_probability_one():
    log_probs = log_probs_of(1, 8)
    rules = [("majority", K), ("highest", K), (Tables(cycle(4, K), 0, [{0, 1}, {2, 3}]), 2)]
    for rule, n in rules:
        total = sum(SetLabel(BAGS, torch.full((3,), o), K, rule).log_likelihood(log_probs).exp() for o in range(n))
        torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64))
    for m, size in enumerate(BAGS.sizes.tolist()):
        total = 0.0
        for number in range(1, min(size, K) + 1):
            label = torch.where(torch.arange(3) == m, number, -1)
            total += float(SetLabel(BAGS, label, K, "distinct").log_likelihood(log_probs)[m].exp())
        assert total == pytest.approx(1.0, abs=1e-12)


def test_every_class_its_own_coarse_class_is_the_plain_majority():
    winner = torch.tensor([2, 0, -1])
    same(SetLabel(BAGS, winner, K, taxonomy=torch.eye(K)), Majority(BAGS, winner, K), log_probs_of(2, 8))


def test_the_highest_of_two_classes_is_any_of():
    present = torch.tensor([1, 0, 1])
    same(SetLabel(BAGS, present, 2, "highest"), AnyOf(BAGS, present, 1, 2), log_probs_of(3, 8, 2))


def test_one_distinct_class_is_a_set_of_equals():
    log_probs = log_probs_of(4, 4)
    value = SetLabel(one_bag(4), torch.tensor([1]), K, "distinct").log_likelihood(log_probs)
    torch.testing.assert_close(value[0], torch.logsumexp(log_probs.sum(dim=0), dim=0))


@pytest.mark.parametrize("sharpness", [1.0, 30.0, 300.0])
def test_distinct_classes_are_an_automaton_whose_state_is_what_was_seen(sharpness):
    k, bags = 6, Bags.from_ids(torch.arange(60) // 20)
    log_probs = log_probs_of(5, 60, k, sharpness)
    seen = torch.arange(2**k)
    table = seen[:, None] | (1 << torch.arange(k))
    number = (seen[:, None] // 2 ** torch.arange(k) % 2).sum(dim=1)
    final = torch.nn.functional.one_hot(number, k + 1).T.double()
    label = torch.tensor([6, 2, 1])
    states = Automaton(bags, label, table, 0, k, final=final)
    same(SetLabel(bags, label, k, "distinct"), states, log_probs)


def test_an_automaton_that_counts_is_a_count():
    n, least = 9, 3
    table = torch.stack([torch.arange(least + 1), (torch.arange(least + 1) + 1).clamp(max=least)], dim=1)
    labels = Automaton(one_bag(n), torch.tensor([1]), table, 0, 2, final={least})
    same(labels, AtLeast(one_bag(n), torch.tensor([least]), 1, 2), log_probs_of(5, n, 2))


def test_a_sum_of_ones_is_a_count():
    n = 40
    counts = torch.tensor([[-1, 17, -1]])
    labels = Aggregate(one_bag(n), torch.tensor([17.0]), torch.tensor([0.0, 1.0, 0.0]))
    same(labels, Counts(one_bag(n), counts), log_probs_of(6, n))


def test_a_mean_is_a_sum_and_units_do_not_matter():
    log_probs, sizes = log_probs_of(7, 8), BAGS.sizes
    total, price = torch.tensor([7.0, 3.0, 5.0]), torch.tensor([1.0, 2.0, 3.0])
    sums = Aggregate(BAGS, total, price)
    same(Aggregate(BAGS, total / sizes, price, "mean"), sums, log_probs)
    same(Aggregate(BAGS, 0.05 * total - 2 * sizes, 0.05 * price - 2), sums, log_probs)
    rounded = torch.round(total / sizes * 100) / 100
    same(Aggregate(BAGS, rounded, price, "mean"), sums, log_probs)
    noisy = Aggregate(BAGS, total, price, noise=0.5)
    scaled = Aggregate(BAGS, 10 * total, 10 * price, noise=5.0)
    torch.testing.assert_close(noisy.posterior(log_probs), scaled.posterior(log_probs))
    difference = noisy.log_likelihood(log_probs) - scaled.log_likelihood(log_probs)
    torch.testing.assert_close(difference, torch.full((3,), math.log(10), dtype=torch.float64))  # densities


def test_little_noise_is_none_and_much_says_nothing():
    log_probs = log_probs_of(8, 8)
    total, price = torch.tensor([4.0, 1.0, 2.0]), torch.arange(3.0)
    exact = Aggregate(BAGS, total, price).posterior(log_probs)
    torch.testing.assert_close(Aggregate(BAGS, total, price, noise=0.05).posterior(log_probs), exact)
    torch.testing.assert_close(Aggregate(BAGS, total, price, noise=1e6).posterior(log_probs), log_probs.exp())


# -- kernels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("states", [2, 5, 16])
@pytest.mark.parametrize("n", [64, 97, 130])
def test_the_product_tree_equals_the_loop(states, n):
    table = torch.randn(states, K, states, generator=gen(states), dtype=torch.float64)
    machine = Machine.of(torch.softmax(table.masked_fill(table > 1, -torch.inf), dim=2))
    log_p = log_probs_of(n, 2 * n + 10)
    segments = Segments(torch.tensor([0, n, n + 10, 2 * n + 10]))
    start, final = torch.randn(states, generator=gen(0)).double(), torch.randn(3, states, generator=gen(1)).double()
    with mock.patch.object(automata, "SCAN_WIDTH", 0):
        loop = machine.read(log_p, segments, start, final)
    with mock.patch.object(automata, "SCAN_WIDTH", 10**9):
        tree = machine.read(log_p, segments, start, final)
    for one, other in zip(loop, tree, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_an_automaton_keeps_what_is_next_to_impossible():
    n = 200
    log_probs = torch.tensor([[0.0, -400.0]], dtype=torch.float64).expand(n, 2)
    table = torch.tensor([[0, 1], [1, 2], [2, 2]])
    for bags in (one_bag(n), Bags.from_ids(torch.arange(n) // 20)):  # the tree, and the loop
        value, posterior = Automaton(bags, torch.full((len(bags),), 2), table, 0, 2).infer(log_probs)
        size = n // len(bags)
        expected = -800 + math.log(size * (size - 1) / 2)
        torch.testing.assert_close(value, torch.full_like(value, expected), atol=1e-9, rtol=1e-12)
        torch.testing.assert_close(posterior[:, 1], torch.full((n,), 2 / size, dtype=torch.float64))


@pytest.mark.parametrize(("n", "columns"), [(4, 2), (3, 3), (5, 4), (2, 5)])
def test_compositions_are_all_counts_once(n, columns):
    found = [tuple(c) for c in Compositions(n + 1, columns, torch.device("cpu")).counts(n).tolist()]
    want = [c for c in itertools.product(range(n + 1), repeat=columns) if sum(c) == n]
    assert sorted(found) == sorted(want)


@pytest.mark.parametrize(
    ("values", "step"),
    [([0, 1, 2], 1.0), ([0.1, 0.25, 0.5], 0.05), ([-3, 3], 6.0), ([1 / 3, 2 / 3, 1], 1 / 3), ([7, 7], 1.0)],
)
def test_the_grid_of_values_is_found(values, step):
    found = find_grid(torch.tensor(values, dtype=torch.float64))
    assert found is not None
    assert found[0] == pytest.approx(step)
    rebuilt = min(values) + found[0] * found[1].double()
    torch.testing.assert_close(rebuilt, torch.tensor(values, dtype=torch.float64), atol=1e-8, rtol=0)


def test_values_off_a_grid_have_none():
    assert find_grid(torch.tensor([0.0, 1.0, math.sqrt(2)], dtype=torch.float64)) is None
    assert find_grid(torch.tensor([0.0, 1e-5, 1.0], dtype=torch.float64)) is None


# -- approximations ---------------------------------------------------------------------------------------------------


def distance(near, log_probs, lift):
    """Mean total variation from the exact posterior, and the largest error of log P."""
    assert not near.exact
    value, posterior = near.infer(log_probs)
    with mock.patch.object(*lift):
        exact = near._fresh()
        assert exact.exact
        true_value, true_posterior = exact.infer(log_probs)
    return float((posterior - true_posterior).abs().sum(dim=1).mean() / 2), float((value - true_value).abs().max())


@pytest.mark.parametrize(("n", "k", "close"), [(12, 9, 0.02), (30, 5, 0.005), (120, 3, 0.002)])
def test_large_majorities_are_close(n, k, close):
    truth = torch.randint(k, (4 * n,), generator=gen(n))
    labels = Majority.simulate(truth, k, generator=gen(n), bag_size=n)
    log_probs = log_probs_of(n, 4 * n, k, 1.0)
    apart, miss = distance(labels, log_probs, (plurality, "LIMIT", 10**7))
    assert apart < close
    assert miss < 0.1


def test_very_large_majorities_are_found():
    n, k = 3000, 4
    bags = one_bag(n)
    lean = torch.tensor([0.26, 0.25, 0.25, 0.24], dtype=torch.float64)
    log_probs = lean.log().expand(n, k)
    chance = torch.stack([Majority(bags, torch.tensor([w]), k).log_likelihood(log_probs)[0].exp() for w in range(k)])
    draws = np.random.default_rng(0).multinomial(n, lean.numpy(), 20_000)
    won = torch.nn.functional.one_hot(torch.from_numpy(draws.argmax(axis=1)), k).double().mean(dim=0)
    torch.testing.assert_close(chance, won, atol=0.02, rtol=0)
    assert float(chance.sum()) == pytest.approx(1.0, abs=0.01)
    moved = Majority(bags, torch.tensor([3]), k).posterior(log_probs)
    assert float(moved[0, 3]) > 0.24
    assert float(moved[0, 0]) < 0.26


def test_many_distinct_classes_are_close():
    n, k = 8, 13
    truth = torch.randint(k, (3 * n,), generator=gen(2))
    labels = SetLabel.simulate(truth, k, generator=gen(2), rule="distinct", bag_size=n)
    apart, miss = distance(labels, log_probs_of(3, 3 * n, k, 1.0), (distinct, "SUBSETS", k))
    assert apart < 0.03
    assert miss < 0.2


def test_long_sums_are_close():
    n, k = 60, 5
    truth = torch.randint(k, (3 * n,), generator=gen(4))
    labels = Aggregate.simulate(truth, k, generator=gen(4), bag_size=n)
    log_probs = log_probs_of(5, 3 * n, k, 1.0)
    value, posterior = labels.infer(log_probs)
    with mock.patch.object(class_sums, "LIMIT", 0):
        near = labels._fresh()
        assert not near.exact
        near_value, near_posterior = near.infer(log_probs)
    assert float((posterior - near_posterior).abs().max()) < 0.01
    torch.testing.assert_close(near_value, value, atol=0.02, rtol=0)


def test_values_off_a_grid_are_close():
    truth = torch.randint(K, (8,), generator=gen(6))
    labels = Aggregate.simulate(
        truth, K, generator=gen(6), bags=BAGS, per_class=torch.tensor([0.0, 1.0, math.sqrt(2)]), noise=0.2
    )
    assert not labels.exact
    found = check(labels, log_probs_of(7, 8, sharpness=1.0))
    assert found.variation[1] < 2e-3
    assert found.log_likelihood < 2e-3


# -- the rest ---------------------------------------------------------------------------------------------------------


def test_a_taxonomy_names_the_coarse_class():
    pets = Taxonomy.from_dict({"cat": ["siamese", "persian"], "dog": ["poodle", "beagle"]})
    frame = {"mostly": ["dog", "", "cat"]}
    labels = SetLabel.from_frame(frame, "mostly", bags=BAGS, taxonomy=pets)
    assert labels.label.tolist() == [1, -1, 0]
    assert labels.class_names == pets.classes
    log_probs = log_probs_of(1, 8, 4)
    coarse = torch.logsumexp(log_probs.view(8, 2, 2), dim=2)
    merged = labels.relabel(torch.tensor([0, 0, 1, 1]), 2)
    torch.testing.assert_close(labels.log_likelihood(log_probs), merged.log_likelihood(coarse))
    torch.testing.assert_close(
        merged.log_likelihood(coarse), Majority(BAGS, labels.label, 2).log_likelihood(coarse), rtol=1e-9, atol=1e-9
    )
    with pytest.raises(LabelError, match="same coarse class"):
        labels.relabel(torch.tensor([0, 1, 1, 2]), 3)


def test_merging_keeps_the_meaning_or_is_refused():
    fine = log_probs_of(9, 8)
    joined = torch.stack([fine[:, 0], fine[:, 1:].logsumexp(1)], dim=1)
    mapping = torch.tensor([0, 1, 1])
    table = torch.tensor([[0, 1, 1], [1, 0, 0]])
    moves = Automaton(BAGS, torch.tensor([1, 0, 1]), table, 0, K)
    torch.testing.assert_close(moves.relabel(mapping, 2).log_likelihood(joined), moves.log_likelihood(fine))
    prices = Aggregate(BAGS, torch.tensor([3.0, 0.0, 3.0]), torch.tensor([0.0, 3.0, 3.0]))
    torch.testing.assert_close(prices.relabel(mapping, 2).log_likelihood(joined), prices.log_likelihood(fine))
    with pytest.raises(LabelError, match="class 1 would be merged into class 1 with one that moves"):
        Automaton(BAGS, torch.tensor([1, 0, 1]), cycle(2, K), 0, K).relabel(mapping, 2)
    with pytest.raises(LabelError, match="class 1 would be merged into class 1 with one of another value"):
        Aggregate(BAGS, torch.tensor([3.0, 0.0, 3.0]), torch.tensor([0.0, 2.0, 3.0])).relabel(mapping, 2)
    with pytest.raises(LabelError, match="keeps the order"):
        SetLabel(BAGS, torch.tensor([1, 0, 1]), K, "highest").relabel(torch.tensor([1, 0, 2]), K)


def test_the_highest_class_survives_merges_of_others():
    labels = SetLabel(BAGS, torch.tensor([2, 0, -1]), 5, "highest")
    fine = log_probs_of(9, 8, 5)

    def same_under(mapping, n):
        mapping = torch.tensor(mapping)
        table = torch.zeros(5, n, dtype=torch.float64)
        table[torch.arange(5), mapping] = 1.0
        new = labels.relabel(mapping, n)
        coarse = (fine.exp() @ table).log()
        torch.testing.assert_close(new.log_likelihood(coarse), labels.log_likelihood(fine))
        torch.testing.assert_close(new.posterior(coarse), labels.posterior(fine) @ table)

    same_under([0, 1, 2, 3, 3], 4)  # above every label
    same_under([0, 2, 3, 5, 6], 7)  # new classes in between do not occur
    labels = SetLabel(BAGS, torch.tensor([3, 3, -1]), 5, "highest")
    same_under([0, 0, 0, 1, 2], 3)  # below every label
    for mapping, fault in (([0, 1, 2, 2, 3], "highest class is 3"), ([0, 1, 2, 3, 3], "highest class is 3")):
        with pytest.raises(LabelError, match=fault):
            labels.relabel(torch.tensor(mapping), 4)


def test_simulated_labels_are_true_and_errors_as_frequent_as_said():
    classes = torch.randint(K, (20_000,), generator=gen(0))
    bags = Bags.from_ids(torch.arange(20_000) // 4)
    inside = classes.view(-1, 4)
    counts = torch.nn.functional.one_hot(inside, K).sum(dim=1)
    won = Majority.simulate(classes, K, generator=gen(1), bags=bags).winner
    assert bool((counts.gather(1, won[:, None])[:, 0] == counts.amax(dim=1)).all())
    tied = ((counts[:, 0] == 2) & (counts[:, 1] == 2)).nonzero()[:, 0]
    assert float((won[tied] == 0).double().mean()) == pytest.approx(0.5, abs=0.06)
    number = SetLabel.simulate(classes, K, generator=gen(1), bags=bags, rule="distinct").label
    assert torch.equal(number, (counts > 0).sum(dim=1))
    top = SetLabel.simulate(classes, K, generator=gen(1), bags=bags, rule="highest").label
    assert torch.equal(top, inside.amax(dim=1))
    last = Automaton.simulate(classes, K, generator=gen(1), bags=bags).accept
    assert torch.equal(last, inside[:, -1])
    total = Aggregate.simulate(classes, K, generator=gen(1), bags=bags).value
    torch.testing.assert_close(total, inside.sum(dim=1).double())
    wrong = Automaton.simulate(classes, K, generator=gen(1), bags=bags, error=0.3).accept
    assert float((wrong != last).double().mean()) == pytest.approx(0.2, abs=0.02)


def test_frames_are_read():
    frame = {"mode": ["b", "", "a"], "price": [2.0, None, "1.5"], "state": ["1", "", "0"]}
    classes = ["a", "b", "c"]
    assert Majority.from_frame(frame, "mode", bags=BAGS, classes=classes).winner.tolist() == [1, -1, 0]
    assert SetLabel.from_frame(frame, "mode", bags=BAGS, classes=classes, rule="highest").label.tolist() == [1, -1, 0]
    assert SetLabel.from_frame(
        {"n": [3, None, 1]}, "n", bags=BAGS, classes=classes, rule="distinct"
    ).label.tolist() == [3, -1, 1]
    prices = Aggregate.from_frame(frame, "price", bags=BAGS, per_class=torch.tensor([0.5, 1.0, 0.0]), classes=classes)
    assert prices.value[[0, 2]].tolist() == [2.0, 1.5]
    assert bool(prices.value[1].isnan())
    parity = Automaton.from_frame(frame, "state", bags=BAGS, transition=cycle(2, K), classes=classes)
    assert parity.accept.tolist() == [1, -1, 0]
    with pytest.raises(LabelError, match=r'"z" \(1 rows\)'):
        Majority.from_frame({"mode": ["a", "z", "b"]}, "mode", bags=BAGS, classes=classes)


HALF = torch.full((2, K, 2), 0.5)
UNEVEN = HALF.clone()
UNEVEN[1, 2] = torch.tensor([0.5, 0.4])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Majority(BAGS, [0, 1, 3], K), "bag 2 has a label outside 0..2"),
        (lambda: Majority(BAGS, [0, 1], K), "expected (3,)"),
        (lambda: Majority([0, 0, 1], [0, 1], K), "expected Bags"),
        (lambda: Automaton(BAGS, [0, 1, 0], UNEVEN, 0, K), "transition from state 1 by class 2 sum to 0.9; expected"),
        (lambda: Automaton(BAGS, [0, 1, 0], -HALF + 1.5 * torch.eye(2)[:, None], 0, K), "hold a negative number"),
        (lambda: Automaton(BAGS, [0, 1, 0], HALF, torch.tensor([0.5, 0.6]), K), "initial distribution sum to 1.1"),
        (lambda: Automaton(BAGS, [0, 1, 0], HALF, 2, K), "initial state is 2; expected one of 0..1"),
        (lambda: Automaton(BAGS, [0, 1, 0], HALF[:, :2], 0, K), "expected (states, 3)"),
        (lambda: Automaton(BAGS, [0, 1, 0], cycle(2, K) + 1, 0, K), "leads from state 0 by class 1 to state 2"),
        (lambda: Automaton(BAGS, [0, 2, 0], HALF, 0, K), "bag 1 has a label outside 0..1"),
        (lambda: Automaton(BAGS, [0, 1, 0], HALF, 0, K, final={3}), "is made by final state 3"),
        (lambda: Automaton(BAGS, [0, 1, 0], HALF, 0, K, final=[{0, 1}, {1}]), "final state 1 makes several labels"),
        (lambda: Automaton(BAGS, [0, 1, 0], HALF, 0, K, final=torch.ones(2, 2)), "sum to at most 1"),
        (lambda: SetLabel(BAGS, [0, 1, 0], K, "median"), 'rule is "median"; expected majority, distinct, highest'),
        (lambda: SetLabel(BAGS, [1, 2, 1], K, "distinct"), "bag 1 has a number of different classes"),
        (lambda: SetLabel(BAGS, [0, 1, 1], K, "distinct"), "bag 0 has a number of different classes"),
        (lambda: SetLabel(BAGS, [0, 1, 1], K, "highest", taxonomy=torch.eye(3)), "other rules take none"),
        (lambda: SetLabel(BAGS, [0, 1, 1], K, taxonomy=torch.ones(2, K)), "sum to at most 1"),
        (lambda: SetLabel(BAGS, [0, 1, 1], K, taxonomy=torch.eye(2)), "expected (C, 3)"),
        (lambda: Aggregate(BAGS, [9.0, 0, 0], [0, 1, 2]), "bag 0 has the sum 9, which is outside"),
        (lambda: Aggregate(BAGS, [0.5, 0, 0], [0, 1, 2]), "bag 0 has the sum 0.5, which is between"),
        (lambda: Aggregate(BAGS, [1.1, 0, 0], [0, 1, 2], "mean"), "bag 0 has the mean 1.1, which is between"),
        (lambda: Aggregate(BAGS, [1, 0, 0], [0, 1, 2], "median"), 'expected "sum" or "mean"'),
        (lambda: Aggregate(BAGS, [1, 0, 0], [0, 1, 2], noise=-1), "expected a number of 0 or more"),
        (lambda: Aggregate(BAGS, [1, 0, 0], [0, math.nan, 2]), "class 1 has a value that is no number"),
        (lambda: Aggregate(BAGS, [1, 0], [0, 1, 2]), "expected (3,)"),
    ],
)
def test_bad_input_is_named_in_one_line(make, message):
    with pytest.raises(LabelError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_follow(kind):
    classes = torch.randint(K, (60,), generator=gen(6))
    labels = KINDS[kind](classes, K, gen(6), bag_size=4)
    log_probs = log_probs_of(7, 60)
    whole = labels.posterior(log_probs)
    for batch in labels.batches(10, gen(0)):
        part = labels.select(batch).posterior(log_probs[batch.instances])
        torch.testing.assert_close(part, whole[batch.instances], atol=1e-12, rtol=0)
