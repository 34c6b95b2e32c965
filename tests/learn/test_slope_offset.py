"""Slope and offsets from held-out answers."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from anygrain.learn.slope_offset import SHARE, SlopeOffset, fit_slope_offset


def answers(n, slope, offset, seed=0):
    """Log-probabilities (n, 2) whose log-odds are off by a slope and an offset, and one-hot answers."""
    generator = torch.Generator().manual_seed(seed)
    score = 2 * torch.randn(n, dtype=torch.float64, generator=generator)
    truth = (torch.rand(n, dtype=torch.float64, generator=generator) < torch.sigmoid(slope * score + offset)).long()
    log_probs = torch.nn.functional.logsigmoid(torch.stack([-score, score], dim=1))
    return log_probs, torch.nn.functional.one_hot(truth, 2)


def test_is_slope_and_offset_on_the_log_odds():
    log_probs, _ = answers(20, 1, 0)
    found = SlopeOffset([0.5], [0.1, 0.4])(log_probs)
    odds = 0.5 * (log_probs[:, 1] - log_probs[:, 0]) + 0.3
    torch.testing.assert_close(found[:, 1] - found[:, 0], odds)
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(20, dtype=torch.float64))


def test_finds_what_the_objective_says():
    log_probs, target = answers(50, 0.4, -1)

    other, _ = answers(50, 0.4, -1, seed=3)
    other = (other + 2 * log_probs).log_softmax(dim=1)

    def loss(free):
        pool = SlopeOffset([float(np.exp(free[0])), float(free[1])], list(free[2:]), np.log(51))
        unlikely = 0.5 * float((free[[0, 2, 3]] ** 2).sum()) + free[1] / SHARE
        return float(-(target * pool(log_probs, other)).sum()) + unlikely

    expected = minimize(
        loss, np.array([0, 0.1, 0, 0]), tol=1e-10, bounds=[(None, None), (0, None)] + 2 * [(None, None)]
    ).x
    found = fit_slope_offset([log_probs, other], target)
    assert found.slopes == pytest.approx([np.exp(expected[0]), expected[1]], abs=2e-3)
    assert found.offsets == pytest.approx(expected[2:].tolist(), abs=2e-3)
    assert found.furthest == pytest.approx(np.log(51))


def test_no_answer_is_surer_than_as_many_answers_can_tell():
    """Of 20 answers all are right, of bold log-probabilities: a new bolder one counts for no more."""
    sure = torch.tensor([[-15.0, -1e-7], [-1e-7, -15.0]], dtype=torch.float64).repeat(10, 1)
    pool = fit_slope_offset([sure], torch.nn.functional.one_hot(sure.argmax(dim=1), 2))
    bolder = torch.tensor([[-40.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(pool(bolder), pool(sure[:1]), atol=1e-6, rtol=0)
    assert 1 / 500 < float(pool(bolder)[0, 0].exp()) < 1 / 20


def test_another_set_joins_where_it_tells_more():
    good, target = answers(400, 1, 0)
    noise, _ = answers(400, 1, 0, seed=9)
    assert fit_slope_offset([good, noise], target).slopes[1] < 0.05
    joined = fit_slope_offset([noise, good], target)
    assert joined.slopes[1] > 5 * joined.slopes[0]


def test_many_answers_decide_and_none_leave_all_as_it_is():
    log_probs, target = answers(20000, 0.4, -1)
    found = fit_slope_offset([log_probs], target)
    assert found.slopes[0] == pytest.approx(0.4, abs=0.03)
    assert found.offsets[1] - found.offsets[0] == pytest.approx(-1, abs=0.06)
    other, _ = answers(20000, 0.4, -1, seed=9)
    nothing = fit_slope_offset([log_probs, other], 0 * target)
    assert nothing.slopes == pytest.approx([1, 0], abs=0.01)
    assert nothing.offsets == pytest.approx([0, 0], abs=1e-6)
    torch.testing.assert_close(nothing(log_probs, other), log_probs.clamp(min=-12).log_softmax(dim=1), atol=0.1, rtol=0)


def test_a_way_back_to_how_frequent_answers_are():
    """Probabilities that tell nothing, boldly: what is left is the share of the answers."""
    generator = torch.Generator().manual_seed(0)
    score = 5 * torch.randn(400, dtype=torch.float64, generator=generator)
    target = torch.nn.functional.one_hot((torch.arange(400) % 4 == 0).long(), 2)
    log_probs = torch.nn.functional.logsigmoid(torch.stack([-score, score], dim=1))
    found = fit_slope_offset([log_probs], target)(log_probs).exp()[:, 1]
    assert float(found.std()) < 0.06
    assert float(found.mean()) == pytest.approx(0.25, abs=0.02)


def test_weights_count():
    good, target = answers(400, 1, 0)
    twice = fit_slope_offset([torch.cat([good, good])], torch.cat([target, target]))
    weighed = fit_slope_offset([good], target, torch.full((400,), 2.0))
    assert weighed.slopes == pytest.approx(twice.slopes, abs=1e-3)
    halved = fit_slope_offset([torch.cat([good, good])], torch.cat([target, target]), torch.full((800,), 0.5))
    # the same evidence, read down as far as 800 answers tell
    once = fit_slope_offset([good], target)
    assert halved.slopes == pytest.approx(once.slopes, abs=0.02)


@pytest.mark.parametrize("seed", range(10))
def test_misleading_sets_leave_finite_slopes(seed):
    """Log-probabilities that say the wrong thing, surely: their slopes end at 0, and nothing overflows on the way."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (180,), generator=generator)
    right = torch.nn.functional.one_hot(y, 2).double()
    good = (right + torch.randn(180, 2, generator=generator, dtype=torch.float64)).log_softmax(dim=1)
    wrong = (-12 * right + torch.randn(180, 2, generator=generator, dtype=torch.float64)).log_softmax(dim=1)
    pool = fit_slope_offset([good, wrong, wrong * 3], right)
    assert pool.slopes[0] > 0.5
    assert pool.slopes[1] == pytest.approx(0, abs=1e-3)
    assert pool.slopes[2] == pytest.approx(0, abs=1e-3)
    assert bool(torch.isfinite(pool(good, wrong, wrong * 3)).all())
