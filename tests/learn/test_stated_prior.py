"""The term that keeps mean predictions at the class prior that labels state."""

import math

import torch

from anygrain.learn.stated_prior import StatedPrior
from anygrain.learn.step import Step


def value(probs, prior, inside=None):
    probs = torch.tensor(probs)
    n = len(probs)
    term = StatedPrior(torch.tensor(prior), torch.ones(n, dtype=torch.bool) if inside is None else torch.tensor(inside))
    return float(term(Step(probs.log(), torch.zeros(n, 1), probs, torch.arange(n), 0)))


def test_it_is_the_divergence_of_the_mean_prediction_from_the_prior():
    assert abs(value([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]], [0.5, 0.5])) < 1e-6
    wanted = 0.7 * math.log(0.7 / 0.5) + 0.3 * math.log(0.3 / 0.5)
    assert abs(value([[0.9, 0.1], [0.1, 0.9]], [0.7, 0.3]) - wanted) < 1e-6


def test_only_pooled_rows_count():
    rows = [[0.9, 0.1], [0.1, 0.9], [0.01, 0.99]]
    assert abs(value(rows, [0.5, 0.5], [True, True, False])) < 1e-6
    assert value(rows, [0.5, 0.5], [False, False, False]) == 0
