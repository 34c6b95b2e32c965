"""Labelling rules: silence as an outcome, learning of tables, dependent rules."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels.aggregate import aggregate
from anygrain.labels.channels.channel import Records
from anygrain.labels.channels.labelling_function import LabellingFunction
from anygrain.labels.check import check
from anygrain.labels.error import LabelError
from anygrain.labels.exact import Exact
from anygrain.labels.identifiability import IdentifiabilityWarning
from anygrain.labels.rules import Rules


def generator(seed):
    return torch.Generator().manual_seed(seed)


def truth(n, k, seed):
    return torch.randint(k, (n,), generator=generator(seed))


def random_rules(seed, n=6, k=3, r=4, **how):
    """Rules whose channel was fitted to a random posterior."""
    votes = torch.randint(-1, k, (n, r), generator=generator(seed))
    labels = Rules(votes, k, **how)
    for step in range(3):
        labels.update(torch.rand(n, k, generator=generator(seed + step + 1), dtype=torch.float64).softmax(dim=1))
    return labels, votes


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 4), r=st.integers(1, 5), n=st.integers(1, 8))
def test_evidence_is_the_product_over_all_rules_and_outcomes(seed, k, r, n):
    labels, votes = random_rules(seed, n, k, r)
    channel = labels.channel
    evidence = labels.log_evidence(torch.float64)
    assert torch.allclose(channel.table.sum(dim=2), torch.ones(r, k).double(), atol=1e-9)
    for i, j in itertools.product(range(n), range(k)):
        total = 0.0
        for rule in range(r):
            vote = int(votes[i, rule])
            weight = float(channel.independence) if vote < 0 else float(channel.vote_weight[rule])
            total += weight * math.log(float(channel.table[rule, j, vote if vote >= 0 else k]))
        assert abs(float(evidence[i, j]) - total) < 1e-9 * max(1, abs(total))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(2, 4))
def test_rules_and_their_product_with_other_labels_equal_enumeration(seed, k):
    labels, _ = random_rules(seed, 5, k)
    log_probs = torch.randn(5, k, generator=generator(seed), dtype=torch.float64).log_softmax(dim=1)
    assert check(labels, log_probs).ok
    classes = torch.randint(-1, k, (5,), generator=generator(seed))
    assert check(labels & Exact(classes, k, error=0.1), log_probs).ok
    mapping = torch.randperm(k + 2, generator=generator(seed))[:k]
    wide = torch.randn(5, k + 2, generator=generator(seed), dtype=torch.float64).log_softmax(dim=1)
    assert check(labels.relabel(mapping, k + 2), wide).ok


def test_before_an_update_the_posterior_is_a_majority_vote():
    votes = torch.tensor([[0, 0, 1], [1, -1, -1], [-1, -1, -1], [2, 1, 1]])
    evidence = Rules(votes, 3).log_evidence(torch.float64)
    assert evidence.argmax(dim=1).tolist()[:2] == [0, 1]
    assert int(evidence[3].argmax()) == 1
    assert torch.allclose(evidence[2], evidence[2].mean().expand(3))
    assert math.isclose(float(evidence[1, 1] - evidence[1, 0]), math.log(0.7 / 0.15), rel_tol=1e-9)


def test_em_recovers_the_tables_of_independent_rules():
    k, r, n = 4, 12, 20_000
    y = truth(n, k, 0)
    table = torch.zeros(r, k, k + 1, dtype=torch.float64)
    for rule in range(r):
        share = torch.full((k, k), 0.1).double().fill_diagonal_(0.5 + 0.03 * rule)
        if rule % 2:
            share[:, [c for c in range(k) if c != rule % k]] = 0.0  # votes for one class only
        table[rule, :, :k] = share * 0.5
        table[rule, :, k] = 1 - table[rule].sum(dim=1)
    labels = Rules.simulate(y, k, generator=generator(1), table=table)
    result = aggregate(labels)
    assert float(labels.channel.independence) > 0.9
    assert float((labels.channel.table - table).abs().max()) < 0.03
    exact = torch.zeros(n, k).double()
    dense = torch.full((n, r), -1)
    dense[labels.record_instances, labels.rules] = labels.votes
    for rule in range(r):
        exact += table[rule].clamp(min=1e-12).log().T[dense[:, rule]]
    best = float((exact.argmax(dim=1) == y).double().mean())
    assert float((result.posterior.argmax(dim=1) == y).double().mean()) > best - 0.005
    unipolar = labels.channel.table[1, :, :k].sum(dim=0)
    assert float(unipolar[1]) > 0.1
    assert float(unipolar[[0, 2, 3]].max()) < 1e-3


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), copies=st.integers(0, 3), k=st.integers(2, 4))
def test_the_objective_never_falls(seed, copies, k):
    drawn = Rules.simulate(truth(300, k, seed), k, generator=generator(seed), n_rules=6)
    votes = torch.full((300, 6), -1)
    votes[drawn.record_instances, drawn.rules] = drawn.votes
    labels = Rules(torch.cat([votes] + [votes[:, :2]] * copies, dim=1), k)
    path = aggregate(labels, tolerance=-1.0, iterations=30).log_likelihood
    assert float(path.diff().min()) > -1e-9 * float(path.abs().max())


def test_copies_of_a_rule_are_found_dependent_and_count_less():
    k, n = 3, 4000
    y = truth(n, k, 3)
    drawn = Rules.simulate(y, k, generator=generator(3), n_rules=8)
    votes = torch.full((n, 8), -1)
    votes[drawn.record_instances, drawn.rules] = drawn.votes
    alone, copied = Rules(votes, k), Rules(torch.cat([votes, votes[:, :1], votes[:, :1]], dim=1), k)
    free, held = aggregate(alone), aggregate(copied)
    assert float(alone.channel.independence) > 0.8 > 0.2 > float(copied.channel.independence)
    weight = copied.channel.vote_weight
    assert torch.allclose(weight[[0, 8, 9]], weight[0].expand(3))
    assert float(weight[0]) < 0.45
    assert float(weight[1:8].min()) > 0.8

    def right(result):
        return float((result.posterior.argmax(dim=1) == y).double().mean())

    assert right(held) > right(free) - 0.03


def test_shards_add_up():
    k, n = 3, 500
    labels = Rules.simulate(truth(n, k, 4), k, generator=generator(4), n_rules=5)
    q = torch.rand(n, k, generator=generator(5), dtype=torch.float64).softmax(dim=1)
    parts = [labels[torch.arange(0, 200)], labels[torch.arange(200, n)]]
    assert all(p.channel is labels.channel for p in parts)
    whole = labels.channel.statistics(labels.channel_records, q)
    shards = [labels.channel.statistics(p.channel_records, s) for p, s in zip(parts, (q[:200], q[200:]), strict=True)]
    assert set(whole) == {"counts", "rows", "together"}
    for name, value in whole.items():
        assert torch.allclose(value, shards[0][name] + shards[1][name], atol=1e-4 if name == "together" else 1e-10)


def test_sparse_forms_equal_the_dense_one():
    class Coordinates:  # what scipy.sparse matrices offer
        def __init__(self, dense):
            self.row, self.col = np.nonzero(dense >= 0)
            self.data, self.shape = dense[self.row, self.col] + 1, dense.shape

        def tocoo(self):
            return self

    dense = torch.randint(-1, 3, (7, 4), generator=generator(6))
    rows, rules = (dense >= 0).nonzero(as_tuple=True)
    order = torch.randperm(len(rows), generator=generator(6))
    forms = [
        Rules(dense.numpy(), 3),
        Rules(Coordinates(dense.numpy()), 3),
        Rules((dense + 1).to_sparse(), 3),
        Rules.from_coordinates(rows[order], rules[order], dense[rows, rules][order], 7, 4, 3),
    ]
    q = torch.rand(7, 3, generator=generator(7)).softmax(dim=1)
    want = Rules(dense, 3)
    want.update(q)
    for form in forms:
        form.update(q)
        assert torch.equal(form.log_evidence(), want.log_evidence())


def test_frames_wide_and_long_agree():
    wide = {"r1": ["spam", "", "ham"], "r2": [None, "-1", "ham"]}
    long = {"row": ["b", "d", "d", "c"], "rule": ["r1", "r1", "r2", "r2"], "label": ["spam", "ham", "ham", "-1"]}
    a = Rules.from_frame(wide, ["r1", "r2"])
    b = Rules.from_long(long, items=["b", "c", "d"])
    assert a.class_names == b.class_names == ("ham", "spam")
    assert b.rule_names == ("r1", "r2")
    assert torch.equal(a.log_evidence(), b.log_evidence())
    assert a.n_records == b.n_records == 3


def test_an_unseen_rule_gets_the_pooled_channel_and_its_silence_says_nothing():
    labels, _ = random_rules(8, n=50)
    channel = labels.channel
    seen = channel.table[:, :, :-1].mean(dim=0)
    assert torch.allclose(channel.pooled, seen, atol=1e-9)
    records = Records(torch.tensor([0]), torch.tensor([-1]), torch.tensor([2]))
    silence = channel.log_evidence(Records(*[torch.zeros(0, dtype=torch.long)] * 3), 1, torch.float64)
    heard = channel.log_evidence(records, 1, torch.float64) - silence
    assert torch.allclose(heard[0], seen[:, 2].log(), atol=1e-9)


def test_weights_count_rows_and_selection_follows():
    labels, votes = random_rules(9, n=8)
    twice = Rules(torch.cat([votes, votes]), 3)
    weighted = Rules(votes, 3, weight=torch.full((8,), 2.0))
    q = torch.rand(8, 3, generator=generator(9), dtype=torch.float64).softmax(dim=1)
    for step in (q, q.flip(0)):
        twice.update(torch.cat([step, step]))
        weighted.update(step)
    assert torch.allclose(twice.channel.table, weighted.channel.table, atol=1e-6)
    rows = torch.tensor([5, 0, 3])
    assert torch.allclose(labels[rows].log_evidence(torch.float64), labels.log_evidence(torch.float64)[rows])


def test_a_rule_that_always_votes_and_one_that_never_does():
    votes = torch.tensor([[0, -1], [1, -1], [0, -1], [1, -1]] * 10)
    labels = Rules(votes, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentifiabilityWarning)
        posterior = aggregate(labels).posterior
    assert bool(torch.isfinite(posterior).all())
    assert bool((posterior.argmax(dim=1) == votes[:, 0]).all())


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        ([[0, 3]], "outside 0..1"),
        ([0, 1], "expected .N, R."),
        ([[0.5, 1.0]], "whole numbers"),
    ],
)
def test_bad_votes_are_refused(votes, message):
    with pytest.raises(LabelError, match=message):
        Rules(torch.tensor(votes), 2)


def test_other_bad_input_is_refused():
    one = torch.tensor([0])
    with pytest.raises(LabelError, match="rule 0 votes twice on row 0"):
        Rules.from_coordinates(torch.tensor([0, 0]), torch.tensor([0, 0]), torch.tensor([0, 1]), 1, 1, 2)
    with pytest.raises(LabelError, match=r"rule 5 in vote 0 is outside 0\.\.1"):
        Rules.from_coordinates(one, torch.tensor([5]), one, 1, 2, 2)
    with pytest.raises(LabelError, match="2 rule names for 1 rules"):
        Rules(torch.tensor([[0]]), 2, rule_names=["a", "b"])
    with pytest.raises(LabelError, match="the channel was made for 3 rules and 2 classes"):
        Rules(torch.tensor([[0]]), 2, channel=LabellingFunction(3, 2))
    with pytest.raises(LabelError, match="are not among the classes"):
        Rules.from_frame({"a": ["spam", "hm"]}, ["a"], classes=["ham", "spam"])
    with pytest.raises(LabelError, match='"x"'):
        Rules.from_long({"row": ["x"], "rule": ["r"], "label": ["a"]}, items=["y"])
    with pytest.raises(LabelError, match="cannot merge"):
        Rules(torch.tensor([[0]]), 2).relabel(torch.tensor([0, 0]), 1)


def test_what_rules_cannot_settle_is_said():
    with pytest.warns(IdentifiabilityWarning, match='"c"'):
        aggregate(Rules(torch.tensor([[0, 1, 0], [0, 1, 1]]), 3, class_names=["a", "b", "c"]))
    with pytest.warns(IdentifiabilityWarning, match=r'only 2 rules vote \(rule "x", "y"\)'):
        aggregate(Rules(torch.tensor([[0, 1], [1, 0]]), 2, rule_names=["x", "y"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        aggregate(Rules(torch.tensor([[0, 1, 1], [1, 0, 1]]), 2))


def test_rules_see_x():
    votes = torch.tensor([[0]])
    assert Rules(votes, 2).given_x
    assert not Rules(votes, 2, given_x=False).given_x


def test_votes_of_those_who_choose_what_to_answer_are_rules_that_do_not_see_x():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(2, (2000,), generator=generator)
    mine = truth[:, None] == torch.tensor([0, 0, 0, 1, 1, 1])  # every annotator prefers items of one class
    answers = torch.rand(2000, 6, generator=generator) < torch.where(mine, 0.6, 0.1)
    right = torch.rand(2000, 6, generator=generator) < 0.7
    votes = torch.where(answers, torch.where(right, truth[:, None], 1 - truth[:, None]), -1)
    labels = Rules(votes, 2, given_x=False)
    assert not labels.given_x
    assert (aggregate(labels).posterior.argmax(1) == truth).float().mean() > 0.75
