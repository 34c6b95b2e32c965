"""Comparisons of ordered classes: every relation against enumeration, and how they are read."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels import Compare, Exact, Interval, LabelError, Pairs, check, identifiability
from anygrain.labels.compare import RELATIONS

HOLDS = {
    ">": int.__gt__,
    ">=": int.__ge__,
    "=": int.__eq__,
    "<=": int.__le__,
    "<": int.__lt__,
    "left": lambda a, b: 0.5 if a == b else float(a > b),
    "right": lambda a, b: 0.5 if a == b else float(a < b),
}


def log_probs_of(seed, n, k):
    g = torch.Generator().manual_seed(seed)
    return torch.log_softmax(2 * torch.randn(n, k, dtype=torch.float64, generator=g), dim=1)


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("error", [0.0, 0.3])
def test_a_comparison_is_the_sum_over_the_classes_that_it_is_true_of(relation, error):
    k, log_probs = 4, log_probs_of(1, 2, 4)
    p = log_probs.exp()
    joint = torch.zeros(k, k, dtype=torch.float64)
    for a, b in itertools.product(range(k), repeat=2):
        said = (1 - error) * HOLDS[relation](a, b) + error / 2
        joint[a, b] = said * p[0, a] * p[1, b]
    labels = Compare([[0, 1]], [relation], k, error=error)
    value, posterior = labels.infer(log_probs)
    torch.testing.assert_close(value[0], joint.sum().log())
    torch.testing.assert_close(posterior, torch.stack([joint.sum(1), joint.sum(0)]) / joint.sum())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 5),
    error=st.sampled_from([0.0, 0.2]),
    codes=st.lists(st.integers(-1, 6), min_size=3, max_size=3),
)
def test_chains_of_comparisons_equal_enumeration(seed, k, error, codes):
    chain = torch.tensor([[0, 1], [2, 1], [2, 3]])
    labels = Compare(chain, codes, k, 5, error=error) & Exact(torch.tensor([-1, 0, -1, k - 1, -1]), k, error=0.1)
    assert labels.exact
    found = check(labels, log_probs_of(seed, 5, k))
    assert found.ok, str(found)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), codes=st.lists(st.integers(0, 6), min_size=2, max_size=2))
def test_classes_that_are_ruled_out_are_accepted(seed, codes):
    g = torch.Generator().manual_seed(seed)
    log_probs = log_probs_of(seed, 3, 3).masked_fill(torch.rand(3, 3, generator=g) < 0.4, -torch.inf)
    log_probs[(log_probs == -torch.inf).all(dim=1)] = 0.0
    found = check(Compare([[0, 1], [1, 2]], codes, 3), torch.log_softmax(log_probs, dim=1))
    assert found.ok, str(found)


def test_the_answers_of_a_question_have_probability_one():
    log_probs = log_probs_of(0, 2, 4)
    for question in ((">", "=", "<"), (">=", "<"), (">", "<="), ("left", "right")):
        total = sum(Compare([[0, 1]], [r], 4).log_likelihood(log_probs).exp() for r in question)
        assert float(total) == pytest.approx(1.0, abs=1e-12)


def test_equal_is_a_pair_of_one_class_and_turned_pairs_say_the_opposite():
    log_probs = log_probs_of(0, 4, 3)
    same = Pairs([0, 2], [1, 3], [1, 1], 4, 3, error=0.1)
    equal = Compare([[0, 1], [2, 3]], ["=", "="], 3, error=0.1)
    torch.testing.assert_close(same.posterior(log_probs), equal.posterior(log_probs))
    one, two = Compare([[0, 1]], [">="], 3), Compare([[1, 0]], ["<="], 3)
    torch.testing.assert_close(one.posterior(log_probs[:2]), two.posterior(log_probs[:2]))


def test_two_classes_are_the_pair_comparison_of_positives():
    p, q = 0.7, 0.4
    log_probs = torch.tensor([[1 - p, p], [1 - q, q]], dtype=torch.float64).log()
    value = Compare([[0, 1]], ["left"], 2).log_likelihood(log_probs)
    assert float(value.exp()) == pytest.approx((1 + p - q) / 2, abs=1e-12)


def test_picks_do_not_favour_a_model_that_calls_everything_equal():
    all_positive = torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64).log()
    right = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64).log()
    pick = Compare([[0, 1]], ["left"], 2)
    assert float(pick.log_likelihood(all_positive).exp()) == pytest.approx(0.5)
    assert float(pick.log_likelihood(right).exp()) == pytest.approx(1.0)


def test_simulated_comparisons_are_true_as_often_as_they_should():
    y = torch.randint(4, (4000,), generator=torch.Generator().manual_seed(0))
    for relation, error in ((">=", 0.0), (">", 0.0), ("<", 0.4)):
        made = Compare.simulate(y, 4, generator=torch.Generator().manual_seed(1), relation=relation, error=error)
        right = (made.log_prob_given(y[made.sets.members][None])[0].exp() > 0.5).double().mean()
        assert float(right) == pytest.approx(1 - error / 2, abs=0.02 if error else 1e-12)
    with pytest.raises(LabelError, match="opposite"):
        Compare.simulate(y, 4, generator=torch.Generator(), relation="=")


def test_order_is_what_comparisons_tell():
    y = torch.arange(3).repeat(20)
    drawn = Compare.simulate(y, 3, generator=torch.Generator().manual_seed(0), n_pairs=200)
    assert not any("permute" in sentence for sentence in identifiability(drawn))
    ties = Compare([[0, 1], [2, 3]], ["=", "="], 3)
    assert "only permute" in identifiability(ties)[0]


def test_frames_of_pairs():
    frame = {"a": ["x", "y", "z"], "b": ["y", "z", "x"], "said": ["left", "<", None]}
    labels = Compare.from_frame(frame, ["a", "b", "said"], classes=["low", "mid", "high"])
    assert labels.sets.members.tolist() == [0, 1, 1, 2, 2, 0]
    assert labels.relation.tolist() == [5, 4, -1]
    assert labels.class_names == ("low", "mid", "high")
    assert Compare.from_frame(frame, ["a", "b", "said"], classes="ab", items=["w", "z", "y", "x"]).n_instances == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Compare([[0, 1]], [">>"], 3),
            'relation of pair 0 is ">>"; expected one of >, >=, =, <=, <, left, right',
        ),
        (lambda: Compare([[0, 1]], [7], 3), "pair 0 has another relation"),
        (lambda: Compare([0, 1], [">"], 3), r"shape \(2,\); expected \(M, 2\)"),
        (lambda: Compare([[0, 0]], [">"], 3), "with itself"),
        (lambda: Compare([[0, 9]], [">"], 3, 5), "outside 0..4"),
        (lambda: Compare([[0, 1]], [">", "<"], 3), "2 entries"),
        (lambda: Compare([[0, 1]], [">"], 3).relabel(torch.tensor([2, 1, 0]), 3), "keeps the order"),
        (lambda: Compare.from_frame({"a": [0], "b": [1], "r": [">"]}, ["a", "b", "r"]), "from low to high"),
        (lambda: Interval.from_frame({"a": ["good"], "b": ["bad"]}, ["a", "b"]), "from low to high"),
    ],
)
def test_bad_comparisons_are_named(make, message):
    with pytest.raises(LabelError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
