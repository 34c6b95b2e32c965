"""The class prior of positive and unlabelled rows, from scores."""

import math

import numpy as np
import pytest
import torch

from anygrain.labels import LabelError
from anygrain.labels.class_prior import estimate_prior


def drawn(seed, n, u, alpha, apart):
    """Scores and labels of n labelled and u unlabelled rows, a share alpha of which is positive."""
    g = np.random.default_rng(seed)
    positive = np.concatenate([np.ones(n, dtype=bool), g.random(u) < alpha])
    return g.standard_normal(n + u) + apart * positive, np.arange(n + u) < n, positive


def test_the_ratio_is_that_of_the_definition():
    scores = [5.0, 4.0, 3.0, *range(-10, -3), 4.5, 3.5, *range(-30, -20)]
    labelled = [True] * 10 + [False] * 12
    found = estimate_prior(scores, labelled, "case-control")
    # all unlabelled rows: 12 of 12 over 10 of 10; 2 of 12 over 3 of 10 at z = 3; slack decides for the larger bin
    slack = 1.01 * (math.sqrt(math.log(40) / 24) + math.sqrt(math.log(40) / 20))
    table = []
    for z in sorted(s for s, one in zip(scores, labelled, strict=True) if one):
        mine = np.mean([s >= z for s, one in zip(scores, labelled, strict=True) if one])
        rest = np.mean([s >= z for s, one in zip(scores, labelled, strict=True) if not one])
        table.append((rest / mine + slack / mine, rest / mine))
    assert found.estimate == pytest.approx(min(table)[1])
    single = estimate_prior(scores, labelled, "single")
    assert single.estimate == pytest.approx((10 + 12 * found.estimate) / 22)


@pytest.mark.parametrize("alpha", [0.1, 0.5])
@pytest.mark.parametrize("scenario", ["single", "case-control"])
def test_the_interval_covers_where_a_bin_is_pure(alpha, scenario):
    inside, errors = 0, []
    for seed in range(60):
        scores, labelled, positive = drawn(seed, 200, 3000, alpha, apart=4.0)
        truth = positive.mean() if scenario == "single" else positive[~labelled].mean()
        found = estimate_prior(scores, labelled, scenario)
        assert found.low <= found.estimate <= found.high
        inside += found.low <= truth <= found.high
        errors.append(found.estimate - truth)
    assert inside >= 54
    assert abs(np.mean(errors)) < 0.03


def test_overlap_makes_the_estimate_too_large_and_the_low_end_reaches_further():
    errors = []
    for seed in range(30):
        scores, labelled, _ = drawn(seed, 200, 3000, 0.3, apart=1.5)
        found = estimate_prior(scores, labelled, "case-control")
        errors.append(found.estimate - 0.3)
        assert found.low < 0.35
    assert np.mean(errors) > 0.05


def test_scores_that_say_nothing_leave_everything_possible():
    scores, labelled, _ = drawn(0, 100, 1000, 0.3, apart=0.0)
    found = estimate_prior(scores, labelled, "case-control")
    assert found.estimate > 0.8
    assert found.high > 0.9


def test_only_the_order_of_scores_matters():
    scores, labelled, _ = drawn(1, 100, 1000, 0.3, apart=2.0)
    assert estimate_prior(scores, labelled) == estimate_prior(np.exp(scores), torch.tensor(labelled))


def test_ties_are_in_a_bin_together():
    scores, labelled = np.repeat([1.0, 0.0], [50, 150]), np.arange(200) % 2 == 0
    assert estimate_prior(scores, labelled, "case-control").estimate == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("scores", "labelled", "message"),
    [
        (torch.rand(30), torch.arange(30) < 4, "only 4 labelled rows; estimating a class prior takes 10"),
        (torch.rand(30), torch.arange(30) < 25, "only 5 unlabelled"),
        (torch.full((30,), torch.nan), torch.arange(30) < 15, "not finite"),
        (torch.rand(29), torch.arange(30) < 15, r"expected .N,."),
    ],
)
def test_bad_input_is_refused_in_one_line(scores, labelled, message):
    with pytest.raises(LabelError, match=message) as caught:
        estimate_prior(scores, labelled)
    assert "\n" not in str(caught.value)
