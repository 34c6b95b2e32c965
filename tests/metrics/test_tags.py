"""Scores of tags: those of scikit-learn where all is known, and those of the known entries alone elsewhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as theirs

from anygrain import metrics


def tables(seed: int, n: int = 30, tags: int = 5, share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    probs = random.integers(0, 20, (n, tags)) / 20  # with ties
    truth = (random.random((n, tags)) < 0.2 + 0.5 * probs).astype(np.int64)
    return probs, np.where(random.random((n, tags)) < share, truth, -1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_where_all_is_known_they_are_those_of_scikit_learn(seed):
    probs, truth = tables(seed)
    assert metrics.ranking_loss(probs, truth) == pytest.approx(theirs.label_ranking_loss(truth, probs))
    assert metrics.tag_coverage(probs, truth) == pytest.approx(theirs.coverage_error(truth, probs))
    predicted = probs > 0.5
    assert metrics.micro_f1(probs, truth) == pytest.approx(theirs.f1_score(truth, predicted, average="micro"))
    assert metrics.macro_tag_f1(probs, truth) == pytest.approx(
        theirs.f1_score(truth, predicted, average="macro", zero_division=0)
    )
    assert metrics.mean_average_precision(probs, truth) == pytest.approx(
        theirs.average_precision_score(truth, probs, average="macro")
    )
    found = metrics.tag_scores(probs, truth)
    np.testing.assert_allclose(found.auc, theirs.roc_auc_score(truth, probs, average=None))
    np.testing.assert_allclose(found.precision, theirs.precision_score(truth, predicted, average=None, zero_division=0))
    np.testing.assert_allclose(found.recall, theirs.recall_score(truth, predicted, average=None))
    np.testing.assert_allclose(
        found.brier, [theirs.brier_score_loss(t, p) for t, p in zip(truth.T, probs.T, strict=True)]
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_unknown_entries_do_not_count(seed):
    probs, truth = tables(seed, share=0.6)
    known = truth >= 0
    losses, depth = metrics.ranking_losses(probs, truth), metrics.tag_coverages(probs, truth)
    for row in range(len(probs)):
        p, t = probs[row, known[row]], truth[row, known[row]]
        if not len(t):
            assert np.isnan(losses[row])
            assert np.isnan(depth[row])
            continue
        pairs = [(a, b) for a in p[t == 1] for b in p[t == 0]]
        assert losses[row] == pytest.approx(np.mean([a <= b for a, b in pairs]) if pairs else 0.0)
        assert depth[row] == (sum(p >= p[t == 1].min()) if (t == 1).any() else 0)
    found = metrics.tag_scores(probs, truth)
    for tag in range(probs.shape[1]):
        p, t = probs[known[:, tag], tag], truth[known[:, tag], tag]
        assert found.known[tag] == len(t)
        assert found.on[tag] == t.sum()
        if 0 < t.sum() < len(t):
            assert found.average_precision[tag] == pytest.approx(theirs.average_precision_score(t, p))
            assert found.f1[tag] == pytest.approx(theirs.f1_score(t, p > 0.5, zero_division=0))
        if len(t):
            of_truth = np.where(t == 1, p, 1 - p).clip(np.finfo(float).eps)
            assert found.log_loss[tag] == pytest.approx(-np.log(of_truth).mean())


def test_of_a_tag_that_is_always_on_nothing_is_said_but_how_sure():
    found = metrics.tag_scores([[0.8, 0.5], [0.6, 0.5]], [[1, -1], [1, -1]])
    assert np.isnan([found.auc[0], found.average_precision[0], found.f1[0], found.brier[1]]).all()
    assert found.brier[0] == pytest.approx((0.2**2 + 0.4**2) / 2)
    assert found.calibration_error[0] == pytest.approx(0.3)


def test_a_threshold_of_its_own_for_every_tag():
    probs, truth = tables(3)
    per_tag = metrics.tag_scores(probs, truth, threshold=[0.1, 0.3, 0.5, 0.7, 0.9]).f1
    for at, threshold in enumerate([0.1, 0.3, 0.5, 0.7, 0.9]):
        assert per_tag[at] == metrics.tag_scores(probs, truth, threshold=threshold).f1[at]


def test_stated_probabilities_of_events_against_how_often_they_happen():
    curve = metrics.event_reliability([0.1, 0.1, 0.9, 0.9], [False, True, True, True], bins=2)
    np.testing.assert_allclose(curve.probability, [0.1, 0.9])
    np.testing.assert_allclose(curve.share, [0.5, 1.0])
    assert metrics.event_calibration_error([0.1, 0.1, 0.9, 0.9], [0, 1, 1, 1], bins=2) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("probs", "truth", "said"),
    [
        ([[0.5]], [[1, 0]], "one shape"),
        ([[1.5]], [[1]], r"leave \[0, 1\]"),
        ([[float("nan")]], [[1]], "NaN"),
        ([[0.5]], [[2]], "holds 2"),
        ([[0.5]], [[-1]], "No entry is known"),
    ],
)
def test_what_is_no_table_of_tags_is_refused(probs, truth, said):
    with pytest.raises(ValueError, match=said):
        metrics.tag_scores(probs, truth)
