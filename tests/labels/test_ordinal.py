"""Ordered classes seen on a line: the integral, the top of the objective, what is recovered, what few votes do."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels import Crowd, aggregate
from anygrain.labels.channels.ordinal import Ordinal, confusion


def gen(seed):
    return torch.Generator().manual_seed(seed)


def common_of(k, slips=0.02):
    start = torch.zeros(2 * k, dtype=torch.float64)
    start[0], start[-1] = 0.5, math.log(slips / (1 - slips))
    return start


@settings(max_examples=20, deadline=None)
@given(k=st.integers(1, 5), bias=st.floats(-2, 2), spread=st.floats(0.2, 3), slips=st.floats(0.001, 0.2))
def test_a_vote_is_the_interval_that_a_blurred_place_falls_in(k, bias, spread, slips):
    common = common_of(k, slips)
    got = confusion(torch.tensor([bias]).double(), torch.tensor([spread]).double().log(), common)[0]
    torch.testing.assert_close(got.sum(dim=1), torch.ones(k).double(), atol=1e-12, rtol=0)
    seen = torch.linspace(-40, 40, 400_001, dtype=torch.float64)  # by summing the density
    for y in range(k):
        density = torch.exp(-0.5 * ((seen - y - bias) / spread) ** 2)
        vote = torch.bucketize(seen, torch.arange(k - 1) + 0.5)
        want = torch.zeros(k).double().index_add_(0, vote, density) / density.sum()
        torch.testing.assert_close(got[y], (1 - slips) * want + slips / k, atol=1e-3, rtol=0)


def test_tails_keep_their_digits():
    got = confusion(torch.zeros(1).double(), torch.tensor([0.1]).double().log(), common_of(4, 1e-300))[0]
    assert float(got[0, 1]) == pytest.approx(2.866515719e-7, rel=1e-6)  # P(Z > 5)
    assert float(got[3, 2]) == pytest.approx(2.866515719e-7, rel=1e-6)


def expected(channel, counts):
    return float((counts * channel.confusion.log()).sum() + channel.log_prior())


def test_updates_never_lower_the_objective_and_end_at_its_top():
    counts = 10 * torch.rand(4, 4, 4, generator=gen(0), dtype=torch.float64) + 20 * torch.eye(4).double()
    channel = Ordinal(4, 4)
    for _ in range(3):
        channel.learn_prior({"counts": counts})
    path = []
    for _ in range(30):
        channel.update({"counts": counts})
        path.append(expected(channel, counts))
    assert (torch.tensor(path).diff() >= -1e-9).all()
    assert path[-1] - path[-2] < 1e-9
    top = path[-1]
    bias, log_spread = channel.bias.clone(), channel.log_spread.clone()
    for seed in range(20):
        channel.bias = bias + 0.05 * torch.randn(4, generator=gen(seed), dtype=torch.float64)
        channel.log_spread = log_spread + 0.05 * torch.randn(4, generator=gen(seed + 50), dtype=torch.float64)
        channel._store(channel.pooled, confusion(channel.bias, channel.log_spread, channel.common))
        assert expected(channel, counts) < top


def test_biases_and_spreads_are_recovered_without_the_truth():
    k, w = 5, 12
    truth = torch.randint(k, (4000,), generator=gen(0))
    bias = torch.linspace(-0.8, 0.8, w).double()
    spread = torch.linspace(0.4, 1.2, w).double()[torch.randperm(w, generator=gen(1))]
    matrices = confusion(bias, spread.log(), common_of(k))
    labels = Crowd.simulate(
        truth, k, generator=gen(2), n_annotators=w, votes_per_item=6, confusion=matrices, channel="ordinal"
    )
    found = aggregate(labels, pool=False)
    channel = found.channels[0]
    assert float((channel.confusion - matrices).abs().max()) < 0.08
    assert float(torch.corrcoef(torch.stack([channel.bias, bias]))[0, 1]) > 0.98
    right = (found.posterior.argmax(dim=1) == truth).double().mean()
    assert float(right) > float((aggregate(labels, channel="one_coin").posterior.argmax(1) == truth).double().mean())
    low, high = channel.accuracy_interval(found.prior)
    accuracy = torch.diagonal(matrices, dim1=1, dim2=2) @ found.prior
    assert int(((low <= accuracy) & (accuracy <= high)).sum()) >= w - 3


def test_few_votes_of_an_annotator_are_safe():
    """One wild vote moves an annotator a little; ten agreeing ones more; none at all leaves the pooled place."""
    truth = torch.arange(600) % 4
    labels = Crowd.simulate(truth, 4, generator=gen(0), n_annotators=6, accuracy=0.8, channel="ordinal")
    items = torch.cat([labels.items, torch.zeros(1, dtype=torch.long), 4 * torch.arange(10)])
    who = torch.cat([labels.annotators, torch.tensor([6] + [7] * 10)])
    votes = torch.cat([labels.votes, torch.tensor([3] * 11)])
    crowd = Crowd(items, who, votes, 4, n_annotators=9, channel="ordinal")
    for _ in range(6):
        crowd.update(torch.nn.functional.one_hot(truth, 4).double())
    bias, log_spread = crowd.channel.bias, crowd.channel.log_spread
    assert 0 <= float(bias[6]) < float(bias[7])
    assert float(bias[6]) < 1.0
    assert float(bias[8]) == pytest.approx(0.0, abs=1e-6)
    assert float(log_spread[8]) == pytest.approx(float(crowd.channel.scale[0]), abs=1e-6)


def test_somebody_unknown_has_every_bias():
    channel = Ordinal(3, 4)
    drawn = float(channel.scale[1]) * torch.randn(200_000, generator=gen(0), dtype=torch.float64)
    mean = confusion(drawn, channel.scale[:1].expand(len(drawn)), channel.common).mean(dim=0)
    torch.testing.assert_close(channel.pooled, mean, atol=2e-3, rtol=0)


def test_sources_without_votes_keep_the_spread_that_was_given():
    wide = Ordinal(3, 4, spread=1.5)
    wide.learn(torch.zeros(3, 4, 4, dtype=torch.float64))
    assert float(wide.scale[0]) == pytest.approx(math.log(1.5))
