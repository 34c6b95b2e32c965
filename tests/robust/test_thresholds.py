"""Thresholds of self-training: brute force, identities, and what must not matter."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels import LabelError
from anygrain.robust.thresholds import (
    Adaptive,
    Curriculum,
    Fixed,
    MarginBound,
    PlugInError,
    Round,
    TopPerClass,
    confidence,
    joint_error_bound,
)


def votes_of(seed, n=40, k=4, steps=None):
    """Random probabilities (n, k), on a grid of 1 / steps where ties are wanted."""
    generator = np.random.default_rng(seed)
    if steps is None:
        return torch.tensor(generator.dirichlet(np.full(k, 0.7), size=n))
    return torch.tensor(generator.multinomial(steps, np.full(k, 1 / k), size=n) / steps)


def seen(seed, n=40, k=4, number=2, steps=None):
    held_out = votes_of(seed + 1, 12, k)
    truth = torch.nn.functional.one_hot(torch.arange(12) % k, k).double()
    return Round(votes_of(seed, n, k, steps), number, held_out, truth)


ALL = [
    Fixed(0.7),
    Fixed(0.3, "margin"),
    Fixed(0.4, "entropy"),
    Curriculum(0.2),
    Curriculum(0.15, balanced=True),
    TopPerClass(3),
    PlugInError(0.2),
    Adaptive(0.8),
    Adaptive(0.8, least=0.0),
    MarginBound(),
    MarginBound(per_class=False),
]


@pytest.mark.parametrize("threshold", ALL, ids=lambda t: f"{type(t).__name__}-{ALL.index(t)}")
@pytest.mark.parametrize("steps", [None, 10])
def test_the_order_of_rows_does_not_matter(threshold, steps):
    for seed in range(5):
        before = seen(seed, steps=steps)
        order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
        after = Round(before.votes[order], 2, before.held_out, before.truth)
        assert torch.equal(threshold(before)[order], threshold(after))


@pytest.mark.parametrize("threshold", ALL, ids=lambda t: f"{type(t).__name__}-{ALL.index(t)}")
def test_the_numbering_of_classes_does_not_matter(threshold):
    for seed in range(5):
        before = seen(seed)
        order = torch.tensor([2, 0, 3, 1])
        after = Round(before.votes[:, order], 2, before.held_out[:, order], before.truth[:, order])
        assert torch.equal(threshold(before), threshold(after))


@settings(max_examples=60, deadline=None)
@given(
    margin=st.lists(st.integers(0, 10), min_size=1, max_size=12),
    excess=st.floats(0, 0.7),
    more=st.integers(0, 5),
)
def test_the_bound_is_the_least_over_all_pairs(margin, excess, more):
    m = torch.tensor(margin, dtype=torch.float64) / 10
    n = len(m) + more
    threshold, bound, share = joint_error_bound(m, excess, n)
    assert torch.equal(threshold, m.unique())

    def below(t):
        return sum(float(x) for x in m if x < t) / n

    for t, b, p in zip(threshold.tolist(), bound.tolist(), share.tolist(), strict=True):
        ends = [g for g in {*m.tolist(), 1.0} if g >= t and g > 0]
        least = min(sum(t <= x < g for x in m.tolist()) / n + max(0, excess + below(t) - below(g)) / g for g in ends)
        assert b == pytest.approx(least, abs=1e-12)
        assert p == pytest.approx(sum(x >= t for x in m.tolist()) / n, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_the_bound_holds_for_every_labelling_of_two_classes(seed):
    """All truths of few rows: the true excess is the mean margin of wrong rows, and errors above stay below."""
    margin = torch.rand(7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for wrong in itertools.product([False, True], repeat=7):
        error = torch.tensor(wrong)
        threshold, bound, _ = joint_error_bound(margin, float((margin * error).mean()))
        joint = ((margin[None] >= threshold[:, None]) & error).double().mean(dim=1)
        assert bool((joint <= bound + 1e-12).all())


@pytest.mark.parametrize("seed", range(20))
def test_the_excess_is_an_upper_bound_and_exact_with_two_classes(seed):
    for k in (2, 5):
        votes = votes_of(seed, 200, k)
        truth = torch.nn.functional.one_hot(torch.randint(k, (200,), generator=torch.Generator().manual_seed(seed)), k)
        wrong = votes.argmax(dim=1) != truth.argmax(dim=1)
        mass = float((confidence(votes, "margin") * wrong).mean())
        gap = float((votes.amax(dim=1) - (truth * votes).sum(dim=1)).mean())
        assert gap >= mass - 1e-12
        if k == 2:  # the Gibbs error and the mean margin
            gibbs = float((1 - (truth * votes).sum(dim=1)).mean())
            assert gap == pytest.approx(gibbs + 0.5 * (float(confidence(votes, "margin").mean()) - 1), abs=1e-12)
            assert gap == pytest.approx(mass, abs=1e-12)


def test_a_margin_bound_chooses_the_least_ratio_of_all_pairs_in_every_class():
    before = seen(4, n=25)
    margin, guess = confidence(before.votes, "margin"), before.votes.argmax(dim=1)
    rule = MarginBound()
    excess = rule.excess(before)
    for c in range(4):
        m = margin[guess == c].tolist()
        kappa, best = float(excess[c]) * len(m) / 25, (np.inf, 0.0)
        for t in sorted(m):
            low = sum(x for x in m if x < t) / 25
            bound = min(
                sum(t <= x < g for x in m) / 25 + max(0, kappa + low - sum(x for x in m if x < g) / 25) / g
                for g in [*m, 1.0]
                if g >= t
            )
            best = min(best, (bound / (sum(x >= t for x in m) / 25), t))
        assert float(rule.of_classes(before)[c]) == pytest.approx(best[1], abs=1e-12)


def test_fixed_above_one_accepts_nothing():
    assert not bool(Fixed(1.1)(Round(torch.eye(3))).any())


def test_curriculum_takes_the_share_of_the_round():
    votes = votes_of(3, 50)
    for number in (1, 3, 5, 8):
        taken = Curriculum(0.2)(Round(votes, number))
        assert int(taken.sum()) == min(10 * number, 50)
        if not bool(taken.all()):
            assert float(confidence(votes)[taken].min()) > float(confidence(votes)[~taken].max())


def test_top_per_class_takes_k_of_each_guess():
    votes = votes_of(5, 60)
    guess = votes.argmax(dim=1)
    taken = TopPerClass(2)(Round(votes, 3))
    for c in range(4):
        of_class = guess == c
        assert int(taken[of_class].sum()) == min(6, int(of_class.sum()))
        assert set(confidence(votes)[of_class & taken].tolist()) == set(
            sorted(confidence(votes)[of_class].tolist(), reverse=True)[:6]
        )


@pytest.mark.parametrize("steps", [None, 10])
def test_plug_in_error_is_the_largest_set_that_keeps_it(steps):
    for seed in range(5):
        votes = votes_of(seed, 30, steps=steps)
        sure = confidence(votes)
        sets = [sure >= t for t in sure.unique()]
        fitting = [int(s.sum()) for s in sets if float((1 - sure[s]).mean()) <= 0.25]
        assert int(PlugInError(0.25)(Round(votes)).sum()) == max(fitting, default=0)


def test_adaptive_thresholds_by_hand():
    votes = torch.tensor([[0.9, 0.1], [0.95, 0.05], [0.85, 0.15], [0.92, 0.08], [0.1, 0.9], [0.45, 0.55]])
    votes = votes.double().round(decimals=2)  # three sure guesses of class 0, one of class 1
    threshold = Adaptive(0.9, least=0.0)
    assert torch.allclose(threshold.of_classes(votes), torch.tensor([0.9, 0.3], dtype=torch.float64))
    assert threshold(Round(votes)).tolist() == [True, True, False, True, True, True]
    assert Adaptive(0.9, least=0.6)(Round(votes)).tolist() == [True, True, False, True, True, False]
    assert not bool(Adaptive(0.99)(Round(votes)).any())


def test_what_is_out_of_range_is_refused_in_one_line():
    for make in (lambda: Fixed(0), lambda: Curriculum(0), lambda: TopPerClass(0), lambda: PlugInError(2)):
        with pytest.raises(LabelError, match="expected"):
            make()
    with pytest.raises(LabelError, match="not known"):
        confidence(votes_of(0), "gut")
    with pytest.raises(LabelError, match="needs votes about rows with labels"):
        MarginBound()(Round(votes_of(0)))
