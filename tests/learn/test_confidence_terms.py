"""Confidences: at the true ones the expected risk is the supervised risk, on a world of six points."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels import LabelError
from anygrain.learn.confidence_terms import (
    ConfidenceDifference,
    PositiveConfidence,
    SimilarityConfidence,
    confidence_difference_risk,
    log_same,
    log_second_higher,
    positive_confidence_risk,
    similarity_confidence_risk,
)
from anygrain.learn.step import Step


def world(seed):
    """Six points: how often each occurs, P(+ | x), and a model's log p and log(1 - p)."""
    g = torch.Generator().manual_seed(seed)
    share = torch.rand(6, generator=g, dtype=torch.float64) + 0.1
    truth = 0.05 + 0.9 * torch.rand(6, generator=g, dtype=torch.float64)
    log_probs = torch.log_softmax(2 * torch.randn(6, 2, generator=g, dtype=torch.float64), dim=1)
    share = share / share.sum()
    supervised = -(share * (truth * log_probs[:, 1] + (1 - truth) * log_probs[:, 0])).sum()
    return share, truth, (log_probs[:, 1], log_probs[:, 0]), supervised


def expectation(risk, weight, *values):
    """E of a risk that averages: the risk of each outcome alone, weighted."""
    return sum(w * risk(*(at(v, n) for v in values)) for n, w in enumerate(weight.reshape(-1)))


def at(value, n):
    return tuple(v.reshape(-1)[n : n + 1] for v in value) if isinstance(value, tuple) else value.reshape(-1)[n : n + 1]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_positive_confidence_is_the_supervised_risk(seed):
    share, truth, odds, supervised = world(seed)
    prior = float(share @ truth)
    among_positives = share * truth / prior
    got = expectation(lambda o, r: positive_confidence_risk(o, r, prior), among_positives, odds, truth)
    assert float(got) == pytest.approx(float(supervised), rel=1e-12)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_pairs_with_confidences_are_the_supervised_risk(seed):
    share, truth, odds, supervised = world(seed)
    prior = float(share @ truth)
    i, j = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    weight = share[i] * share[j]
    first, second = tuple(o[i] for o in odds), tuple(o[j] for o in odds)
    same = truth[i] * truth[j] + (1 - truth[i]) * (1 - truth[j])
    if abs(2 * prior - 1) > 0.01:
        got = expectation(lambda a, b, s: similarity_confidence_risk(a, b, s, prior), weight, first, second, same)
        assert float(got) == pytest.approx(float(supervised), rel=1e-9)
    difference = truth[j] - truth[i]
    got = expectation(lambda a, b, c: confidence_difference_risk(a, b, c, prior), weight, first, second, difference)
    assert float(got) == pytest.approx(float(supervised), rel=1e-12)


def test_corrections_are_of_parts_below_zero():
    first, second = ((torch.tensor([-0.1]), torch.tensor([-3.0])), (torch.tensor([-2.0]), torch.tensor([-0.2])))
    difference, prior = torch.tensor([0.9]), 0.4
    parts = [(0.4 - 0.9) * 0.1, (0.6 + 0.9) * 3.0, (0.4 + 0.9) * 2.0, (0.6 - 0.9) * 0.2]
    for correction, change in (("none", float), ("relu", lambda p: max(p, 0.0)), ("abs", abs)):
        got = confidence_difference_risk(first, second, difference, prior, correction)
        assert float(got) == pytest.approx(sum(map(change, parts)) / 2, rel=1e-5)
    parts = [(0.2 - 1 + 0.4) * 2.1 / -0.2, (0.4 - 0.2) * 3.2 / -0.2]
    for correction, change in (("none", float), ("relu", lambda p: max(p, 0.0)), ("abs", abs)):
        got = similarity_confidence_risk(first, second, torch.tensor([0.2]), prior, correction)
        assert float(got) == pytest.approx(sum(map(change, parts)) / 2, rel=1e-5)


def test_events_of_pairs():
    _, _, odds, _ = world(3)
    first, second = tuple(o[:3] for o in odds), tuple(o[3:] for o in odds)
    p, q = first[0].exp(), second[0].exp()
    same, other = log_same(first, second)
    torch.testing.assert_close(same.exp(), p * q + (1 - p) * (1 - q))
    torch.testing.assert_close(other.exp(), 1 - same.exp())
    higher, lower = log_second_higher(first, second)
    torch.testing.assert_close(higher.exp(), (1 + q - p) / 2)
    torch.testing.assert_close(lower.exp(), (1 + p - q) / 2)


def step_of(log_probs, instances):
    return Step(log_probs, log_probs.detach(), log_probs.detach().exp(), instances, 0)


def test_only_what_lies_in_the_batch_counts():
    log_probs = torch.log_softmax(torch.randn(8, 2, dtype=torch.float64), dim=1)
    pairs, values = torch.tensor([[5, 0], [0, 1], [3, 2], [1, 5], [7, 6]]), torch.tensor([0.1, 0.5, 0.9, 0.3, 0.2])
    batch = torch.tensor([1, 5, 0, 6])
    step = step_of(log_probs[batch], batch)
    odds = log_probs[:, 1], log_probs[:, 0]
    inside = pairs[[0, 1, 3]]
    first, second = tuple(o[inside[:, 0]] for o in odds), tuple(o[inside[:, 1]] for o in odds)
    want = confidence_difference_risk(first, second, values[[0, 1, 3]].double(), 0.3, "abs")
    term = ConfidenceDifference(pairs, values, 0.3)
    torch.testing.assert_close(term(step), want)
    want = similarity_confidence_risk(first, second, values[[0, 1, 3]].double(), 0.3, "relu")
    similar = SimilarityConfidence(pairs, values, 0.3, correction="relu", weight=2.0)
    torch.testing.assert_close(similar(step), 2 * want)
    assert sorted(term.bags().members.reshape(-1, 2).tolist()) == sorted(pairs.tolist())
    confidence = torch.tensor([math.nan, 0.9, math.nan, 0.2, math.nan, 0.001, 0.4, math.nan])
    alone = PositiveConfidence(confidence, 0.3)
    assert alone.bags() is None
    known = [1, 5, 6]
    want = positive_confidence_risk(tuple(o[known] for o in odds), torch.tensor([0.9, 0.01, 0.4]).double(), 0.3)
    torch.testing.assert_close(alone(step), want)
    none = step_of(log_probs[[2, 4]].requires_grad_(True), torch.tensor([2, 4]))
    for quiet in (term, similar, alone):
        value = quiet(none)
        value.backward()
        assert float(value.detach()) == 0.0


def test_classes_may_be_grouped_into_positive_and_negative():
    log_probs = torch.log_softmax(torch.randn(4, 5, dtype=torch.float64), dim=1)
    positive, negative = PositiveConfidence([0.5], positive=[0, 3]).log_odds(log_probs)
    torch.testing.assert_close(positive.exp(), log_probs.exp()[:, [0, 3]].sum(1))
    torch.testing.assert_close(negative.exp(), log_probs.exp()[:, [1, 2, 4]].sum(1))


@pytest.mark.parametrize("form", ["risk", "likelihood"])
@pytest.mark.parametrize("kind", ["positive", "similarity", "difference"])
def test_a_model_is_learnt_from_confidences_alone(kind, form):
    g = torch.Generator().manual_seed(0)
    y = (torch.rand(1000, generator=g) < 0.7).long()
    x = torch.randn(1000, 2, generator=g) + 1.5 * (2 * y - 1)[:, None] * torch.tensor([1.0, 0.5])
    truth = torch.sigmoid(2 * 1.5 * x @ torch.tensor([1.0, 0.5]) + math.log(0.7 / 0.3))
    pairs = torch.randint(1000, (2000, 2), generator=g)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    a, b = truth[pairs[:, 0]], truth[pairs[:, 1]]
    term = {
        "positive": lambda: PositiveConfidence(torch.where(y == 1, truth, torch.nan), 0.7, form=form),
        "similarity": lambda: SimilarityConfidence(pairs, a * b + (1 - a) * (1 - b), 0.7, form=form),
        "difference": lambda: ConfidenceDifference(pairs, b - a, 0.7, form=form),
    }[kind]()
    weight = torch.zeros(2, 3)
    weight[1, 0] = 0.1  # similarity alone does not say which class is which
    weight.requires_grad_(True)
    optimizer = torch.optim.Adam([weight], lr=0.1)
    rows = torch.arange(1000)
    for _ in range(120):
        log_probs = torch.log_softmax(torch.cat([x, torch.ones(1000, 1)], dim=1) @ weight.T, dim=1)
        optimizer.zero_grad()
        term(step_of(log_probs, rows)).backward()
        optimizer.step()
    found = log_probs.detach()[:, 1].exp()
    unsteady = kind == "similarity" and form == "risk"  # its weights are up to 1 / (2 prior - 1)
    assert float((found - truth).abs().mean()) < (0.1 if unsteady else 0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PositiveConfidence([0.5, 1.2]), "instance 1 has a confidence outside"),
        (lambda: PositiveConfidence([[0.5]]), r"expected \(N,\)"),
        (lambda: PositiveConfidence([0.5], 0.0), "class prior is 0.0"),
        (lambda: PositiveConfidence([0.5], form="loss"), 'form is "loss"'),
        (lambda: SimilarityConfidence([[0, 1]], [0.5], 0.5), "half are positive"),
        (lambda: SimilarityConfidence([[0, 1]], [1.5], 0.4), "pair 0 has a confidence outside"),
        (lambda: SimilarityConfidence([[0, 0]], [0.5], 0.4), "not of two instances"),
        (lambda: ConfidenceDifference([[0, 1]], [-1.5], 0.4), "difference outside"),
        (lambda: ConfidenceDifference([[0, 1]], [0.1, 0.2], 0.4), r"expected \(M, 2\) and \(M,\)"),
        (lambda: ConfidenceDifference([[0, 1]], [0.1], 0.4, correction="max"), 'correction is "max"'),
        (lambda: PositiveConfidence([0.5], positive=[0, 1]).log_odds(torch.zeros(1, 2)), "expected some of them"),
    ],
)
def test_bad_confidences_are_named(make, message):
    with pytest.raises(LabelError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
