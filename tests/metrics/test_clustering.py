"""Found classes against true ones: brute force over matchings, and what the measures must not see."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.metrics import ari, class_number_error, hungarian_accuracy, nmi


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 5), st.integers(2, 5))
def test_the_matching_is_the_best_of_all_and_the_same_for_old_and_new(seed, k, true):
    rng = np.random.default_rng(seed)
    found, truth = rng.integers(k, size=30), rng.integers(true, size=30)
    found[:k], truth[:true] = np.arange(k), np.arange(true)
    wide = max(k, true)
    best = max((np.array(p)[found] == truth).mean() for p in itertools.permutations(range(wide)))
    got = hungarian_accuracy(found, truth, known=1)
    assert got.all == pytest.approx(best)
    right = got.matched[found] == truth
    assert right.mean() == pytest.approx(best)
    assert got.old == pytest.approx(right[truth == 0].mean())
    assert got.new == pytest.approx(right[truth > 0].mean())
    assert len(set(got.matched[got.matched >= 0])) == min(k, true)


def test_names_of_clusters_do_not_matter_and_rows_without_truth_are_left_out():
    truth = np.array([0, 0, 1, 1, 2, 2, -1])
    found = np.array([5, 5, 0, 0, 3, 3, 3])
    assert hungarian_accuracy(found, truth, known=[2]).all == 1
    assert nmi(found, truth) == pytest.approx(1)
    assert ari(found, truth) == pytest.approx(1)


def test_known_by_index_or_number_and_probabilities_are_read():
    truth = np.array([0, 1, 2, 2])
    probs = np.eye(3)[[0, 1, 2, 1]]
    by_number, by_index = hungarian_accuracy(probs, truth, known=2), hungarian_accuracy(probs, truth, known=[0, 1])
    assert (by_number.old, by_number.new) == (by_index.old, by_index.new) == (1.0, 0.5)
    assert np.isnan(hungarian_accuracy(probs, truth).old)


def test_information_of_a_cut_by_hand():
    truth, found = np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2])
    assert nmi(found, truth) == pytest.approx(np.log(2) / (0.5 * np.log(2) + 0.5 * 1.5 * np.log(2)))
    assert nmi(np.zeros(4, int), truth) == pytest.approx(0)
    assert ari(found, truth) == pytest.approx((1 - 2 / 6) / (1.5 - 2 / 6))


def test_the_error_of_the_number_has_a_sign():
    assert class_number_error(8, 10) == pytest.approx(-0.2)
    assert class_number_error(15, 10) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("found", "truth", "says"),
    [([0, 1], [0, 1, 1], "2 found classes and 3 true"), ([0, 1], [-1, -1], "No row"), ([-1, 1], [0, 1], "1 rows")],
)
def test_bad_input(found, truth, says):
    with pytest.raises(ValueError, match=says):
        hungarian_accuracy(found, truth)
