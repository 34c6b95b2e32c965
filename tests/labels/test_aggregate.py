"""EM over labels without features: the objective, shards, gold, history, choice and average of channels."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels.aggregate import aggregate
from anygrain.labels.channels import CHANNELS
from anygrain.labels.channels.confusion import Confusion
from anygrain.labels.channels.difficulty import Difficulty
from anygrain.labels.crowd import Crowd
from anygrain.labels.error import LabelError
from anygrain.labels.exact import Exact
from anygrain.labels.identifiability import IdentifiabilityWarning


def generator(seed):
    return torch.Generator().manual_seed(seed)


def truth_of(n, k, seed=0):
    return torch.randint(k, (n,), generator=generator(seed))


def confusions(w, k, seed):
    """Annotators who are mostly right, each in a way of their own."""
    own = torch.rand(w, k, k, generator=generator(seed), dtype=torch.float64) ** 2
    own = own + torch.eye(k).double() * (1 + 2 * torch.rand(w, k, 1, generator=generator(seed + 1)).double())
    return own / own.sum(dim=2, keepdim=True)


def random_crowd(seed, channel="confusion", n=40, w=5, k=3):
    return Crowd.simulate(
        truth_of(n, k, seed),
        k,
        generator=generator(seed + 1),
        n_annotators=w,
        confusion=confusions(w, k, seed + 2),
        channel=channel,
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(sorted(CHANNELS)), gold=st.booleans())
def test_the_objective_never_falls(seed, name, gold):
    labels = random_crowd(seed, name)
    if gold:
        labels = labels & Exact(torch.where(torch.arange(40) < 5, truth_of(40, 3, seed), -1), 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentifiabilityWarning)
        found = aggregate(labels, pool=False, iterations=30, tolerance=0.0, dtype=torch.float64)
    path = found.log_likelihood
    assert len(path) > 1
    assert (path.diff() >= -1e-9 * path.abs().max()).all()


@pytest.mark.parametrize("name", sorted(CHANNELS))
def test_the_objective_is_the_penalised_likelihood_by_enumeration(name):
    labels = random_crowd(7, name, n=20)
    found = aggregate(labels, pool=False, iterations=3, tolerance=-1.0, dtype=torch.float64)
    evidence, prior = labels.log_evidence(torch.float64), found.prior
    total = sum(math.log(sum(float(prior[k]) * math.exp(float(evidence[i, k])) for k in range(3))) for i in range(20))
    total += float(prior.log().sum()) + float(found.channels[0].log_prior())
    assert float(found.log_likelihood[-1]) == pytest.approx(total, rel=1e-9)
    assert torch.allclose(found.posterior, torch.softmax(prior.log() + evidence, dim=1), atol=1e-9)
    assert not found.posterior.requires_grad


def expected(channel, counts):
    """The penalised expected log-likelihood that an M-step maximises."""
    return float((counts * channel.confusion.log()).sum() + channel.log_prior())


@pytest.mark.parametrize("name", ["one_coin", "class_coin", "confusion"])
def test_update_is_better_than_any_other_annotators(name):
    counts = 20 * torch.rand(4, 3, 3, generator=generator(0), dtype=torch.float64)
    channel = CHANNELS[name](4, 3)
    channel.learn_prior({"counts": counts})
    channel.update({"counts": counts})
    best = expected(channel, counts)
    for seed in range(20):
        other = counts * torch.exp(0.2 * torch.randn(4, 3, 3, generator=generator(seed), dtype=torch.float64))
        channel.update({"counts": other})
        assert expected(channel, counts) < best


def test_update_of_spammers_never_lowers_the_objective_and_ends_at_its_top():
    counts = 20 * torch.rand(4, 3, 3, generator=generator(0), dtype=torch.float64) + 30 * torch.eye(3).double()
    channel = CHANNELS["spammer"](4, 3)
    path = []
    for _ in range(200):
        channel.update({"counts": counts})
        path.append(expected(channel, counts))
    assert (torch.tensor(path).diff() >= -1e-9).all()
    assert path[-1] - path[-2] < 1e-8
    assert path[-1] - path[0] > 1


@pytest.mark.parametrize("name", sorted(CHANNELS))
def test_statistics_of_shards_add_up(name):
    labels = random_crowd(3, name, n=60)
    for _ in range(2):
        labels.update(torch.randn(60, 3, generator=generator(0), dtype=torch.float64).softmax(dim=1))
    posterior = torch.randn(60, 3, generator=generator(1), dtype=torch.float64).softmax(dim=1)
    channel = labels.channel
    whole = channel.statistics(labels.channel_records, posterior)
    shards = torch.randperm(60, generator=generator(2)).split(23)
    sums = [channel.statistics(labels[rows].channel_records, posterior[rows]) for rows in shards]
    for key, table in whole.items():
        assert torch.allclose(sum(s[key] for s in sums), table, atol=1e-10)


@pytest.mark.parametrize("name", ["confusion", "difficulty"])
def test_simulated_annotators_are_recovered(name):
    k, w = 3, 8
    truth, matrices = truth_of(6000, k), confusions(w, k, 5)
    labels = Crowd.simulate(truth, k, generator=generator(1), n_annotators=w, votes_per_item=5, confusion=matrices)
    labels = labels.with_channel(Difficulty(w, k, shares=(1.0, 0.0, 0.0)) if name == "difficulty" else Confusion(w, k))
    found = aggregate(labels, pool=False, iterations=100)
    channel = labels.channel.votes if name == "difficulty" else labels.channel
    assert float((channel.confusion - matrices).abs().max()) < 0.06
    assert torch.allclose(found.prior, torch.bincount(truth).double() / 6000, atol=0.02)
    right = float((found.posterior.argmax(dim=1) == truth).double().mean())
    table = torch.zeros(6000, k).double()
    table.index_add_(0, labels.items, matrices[labels.annotators, :, labels.votes].log())
    best = float(((table + found.prior.log()).argmax(dim=1) == truth).double().mean())
    assert right > best - 0.01


def test_one_coin_accuracies_lie_in_their_intervals():
    truth, accuracy = truth_of(1500, 4), torch.linspace(0.4, 0.9, 20).double()
    labels = Crowd.simulate(
        truth, 4, generator=generator(2), n_annotators=20, votes_per_item=6, accuracy=accuracy, channel="one_coin"
    )
    found = aggregate(labels, pool=False)
    for channel in (labels.channel, aggregate(labels.with_channel("confusion"), pool=False).channels[0]):
        low, high = channel.accuracy_interval(found.prior)
        assert (low < channel.accuracy(found.prior)).all()
        assert (channel.accuracy(found.prior) < high).all()
        inside = ((low <= accuracy) & (accuracy <= high)).sum()
        assert 16 <= int(inside) <= 20
        assert float((high - low).mean()) < 0.15


@pytest.mark.parametrize("name", ["one_coin", "confusion", "difficulty"])
def test_careful_and_careless_annotators_are_told_apart_where_classes_are_many(name):
    """Some 40 votes on each class say little about a row of the matrix, but much about the annotator."""
    truth, accuracy = truth_of(1500, 24, 3), torch.linspace(0.5, 0.95, 6).double()
    labels = Crowd.simulate(truth, 24, generator=generator(4), n_annotators=6, accuracy=accuracy, channel=name)
    channel = aggregate(labels, pool=False).channels[0]
    found = (channel.votes if name == "difficulty" else channel).accuracy()
    assert float((found - accuracy).abs().max()) < 0.1
    assert torch.equal(found.argsort(), torch.arange(6))


def test_gold_items_name_classes_that_votes_alone_get_wrong():
    """Most annotators call class 0 by the name of 1 and the other way round; a few gold items put it right."""
    truth = truth_of(600, 2)
    swapped = torch.tensor([[0.15, 0.85], [0.85, 0.15]]).double().expand(5, 2, 2)
    labels = Crowd.simulate(truth, 2, generator=generator(3), n_annotators=5, votes_per_item=5, confusion=swapped)
    wrong = aggregate(labels).posterior.argmax(dim=1)
    assert float((wrong == truth).double().mean()) < 0.1
    gold = Exact(torch.where(torch.arange(600) < 100, truth, -1), 2)
    together = labels.with_channel("confusion") & gold
    history = torch.tensor([[3.0, 17.0], [17.0, 3.0]]).expand(5, 2, 2)
    known = Crowd(labels.items, labels.annotators, labels.votes, 2, history=history)
    with pytest.warns(IdentifiabilityWarning, match="traded places"):
        found = aggregate(together, pool=False).posterior.argmax(dim=1), aggregate(known).posterior.argmax(dim=1)
    for each in found:
        assert float((each[100:] == truth[100:]).double().mean()) > 0.9


def test_history_counts_as_votes_whose_truth_is_known():
    truth, k = truth_of(50, 3), 3
    labels = Crowd.simulate(truth, k, generator=generator(0), n_annotators=4)
    counts = torch.zeros(4, k, k).double()
    counts.index_put_((labels.annotators, truth[labels.items], labels.votes), torch.ones(()).double(), accumulate=True)
    certain = torch.nn.functional.one_hot(truth, k).double()
    for name in ("one_coin", "class_coin", "confusion"):
        told = Crowd(
            labels.items[:0], labels.annotators[:0], labels.votes[:0], k, 50, name, n_annotators=4, history=counts
        )
        seen = Crowd(labels.items, labels.annotators, labels.votes, k, 50, name, n_annotators=4)
        seen.update(certain)
        told.update(certain)
        assert torch.allclose(told.channel.confusion, seen.channel.confusion, atol=1e-12)
        assert told.with_channel("confusion").channel.history is not None
        assert torch.equal(told.with_channel("difficulty").channel.history, counts)


def test_posterior_is_the_average_of_two_models_with_hard_items():
    labels = random_crowd(5, n=300)
    found = aggregate(labels, dtype=torch.float64)
    assert set(found.pool) == {"Confusion", "OneCoin"}
    assert sum(found.pool.values()) == pytest.approx(1.0)
    total, values = torch.zeros(300, 3).double(), []
    for name in ("confusion", "one_coin"):
        single = aggregate(labels.with_channel(name), pool=False, dtype=torch.float64)
        evidence = single.labels.log_evidence(torch.float64)
        values.append(float(torch.logsumexp(single.prior.log() + evidence, dim=1).mean()))
        hard = single.labels.with_channel(Difficulty(5, 3, votes=single.channels[0], votes_are_settled=True))
        prior = single.prior
        for _ in range(5):  # rivals and prior, the annotators stay
            posterior = hard.posterior(prior.log().expand(300, 3))
            hard.update(posterior)
            prior = (posterior.sum(dim=0) + 1) / (300 + 3)
        assert hard.channel.votes is single.channels[0]
        total += hard.posterior(prior.log().expand(300, 3)) * found.pool[type(single.channels[0]).__name__]
    weight = torch.softmax(torch.tensor(values), dim=0)
    assert found.pool["Confusion"] == pytest.approx(float(weight[0]), abs=1e-6)
    assert torch.allclose(found.posterior, total, atol=2e-3)  # it stops once nothing moves


def test_hard_items_keep_the_average_calibrated():
    """On a seventh of the items every annotator takes the class for the next one, half of the time."""
    n, k, w = 4000, 5, 40
    truth = truth_of(n, k)
    labels = Crowd.simulate(truth, k, generator=generator(1), n_annotators=w, votes_per_item=10, accuracy=(0.4, 0.8))
    hard = torch.rand(n, generator=generator(2)) < 1 / 7
    pulled = hard[labels.items] & (torch.rand(len(labels.items), generator=generator(3)) < 0.5)
    votes = torch.where(pulled, (labels.votes + 1) % k, labels.votes)
    labels = Crowd(labels.items, labels.annotators, votes, k)
    rows = torch.arange(n)
    losses = {}
    for pool in (True, False):
        posterior = aggregate(labels.with_channel("confusion"), pool=pool).posterior.double()
        losses[pool] = float(-posterior[rows, truth].clamp(min=1e-12).log().mean())
        sure = posterior.max(dim=1).values.mean() - (posterior.argmax(dim=1) == truth).double().mean()
        assert not pool or abs(float(sure)) < 0.04
    assert losses[True] < 0.85 * losses[False]


def test_the_simplest_channel_that_fits_is_chosen():
    truth = truth_of(1500, 3, 17)
    even = Crowd.simulate(truth, 3, generator=generator(1), n_annotators=8, votes_per_item=5, accuracy=0.7)
    found = aggregate(even, channel="auto")
    assert found.channel_name == "one_coin"
    assert list(found.held_out) == list(CHANNELS)
    uneven = confusions(8, 3, 2)
    uneven[:, 0] = torch.tensor([0.5, 0.5, 0.0]).double()
    odd = Crowd.simulate(truth, 3, generator=generator(1), n_annotators=8, votes_per_item=5, confusion=uneven)
    chosen = aggregate(odd, channel=["one_coin", "confusion"])
    assert chosen.channel_name == "confusion"
    assert isinstance(chosen.channels[0], Confusion)
    with pytest.raises(LabelError, match="no channel"):
        aggregate(odd, channel="oracle")
    with pytest.raises(LabelError, match="no votes whose channel"):
        aggregate(Exact(truth, 3), channel="auto")


def test_a_known_prior_is_kept():
    labels = random_crowd(1)
    shares = torch.tensor([0.2, 0.3, 0.5]).double()
    assert torch.allclose(aggregate(labels, prior=shares).prior, shares, atol=1e-15)
    with pytest.raises(LabelError, match="prior has shape"):
        aggregate(labels, prior=shares[:2])


def test_items_without_votes_get_the_prior():
    labels = random_crowd(1)
    wider = Crowd(labels.items, labels.annotators, labels.votes, 3, n_items=41)
    found = aggregate(wider, pool=False)
    assert torch.allclose(found.posterior[40], found.prior)


def test_what_votes_leave_open_is_said():
    truth = truth_of(100, 3)
    two = Crowd.simulate(truth, 3, generator=generator(0), n_annotators=2, votes_per_item=2)
    with pytest.warns(IdentifiabilityWarning, match="only 2 annotators"):
        aggregate(two)
    three = Crowd.simulate(truth.clamp(max=1), 3, generator=generator(0), n_annotators=4, accuracy=1.0)
    with pytest.warns(IdentifiabilityWarning, match="class 2"):
        aggregate(three)


def test_float32_and_float64_agree():
    labels = random_crowd(2, n=200)
    single = aggregate(labels.with_channel("confusion"), dtype=torch.float32).posterior
    assert single.dtype == torch.float32
    double = aggregate(labels.with_channel("confusion"), dtype=torch.float64).posterior
    assert torch.allclose(single.double(), double, atol=2e-3)


def stream(n=3000, w=12, seed=0, **how):
    truth = truth_of(n, 3, seed)
    how = {"n_annotators": w, "votes_per_item": 3, "confusion": confusions(w, 3, seed + 2), **how}
    return truth, Crowd.simulate(truth, 3, generator=generator(seed + 1), **how)


def test_a_stream_of_votes_comes_to_the_fit_to_all_of_them():
    truth, votes = stream()
    whole = aggregate(votes.with_own_channels(), pool=False)
    parts = torch.arange(3000).split(300)
    found = aggregate(votes[parts[0]].with_own_channels(), pool=False)
    before = {name: value.clone() for name, value in found.channels[0].state_dict().items()}
    said = [found.posterior]
    for rows in parts[1:]:
        found = found.update(votes[rows])
        said.append(found.posterior)
    assert found.seen == 3000
    assert float((found.channels[0].confusion - whole.channels[0].confusion).abs().max()) < 0.05
    assert float((found.prior - whole.prior).abs().max()) < 0.02
    right = [float((p.argmax(1) == truth).double().mean()) for p in (torch.cat(said), whole.posterior)]
    assert right[0] > right[1] - 0.01
    # all votes seen are counted, and the fit before is as it was
    assert float(found.channels[0].counts.sum()) == pytest.approx(9000, rel=1e-6)
    first = aggregate(votes[parts[0]].with_own_channels(), pool=False)
    first.update(votes[parts[1]])
    assert all(torch.allclose(before[k], v) for k, v in first.channels[0].state_dict().items())


def test_an_update_starts_where_the_fit_ended():
    _, votes = stream(n=900)
    found = aggregate(votes.with_own_channels(), pool=False, iterations=200, tolerance=0.0)
    none = Crowd(*(torch.zeros(0, dtype=torch.long),) * 3, 3, n_items=0, n_annotators=12)
    after = found.update(none)
    assert float((after.channels[0].confusion - found.channels[0].confusion).abs().max()) < 0.01
    assert torch.allclose(after.prior, found.prior)


def test_updates_that_do_not_fit_are_refused():
    _, votes = stream(n=60)
    found = aggregate(votes.with_own_channels(), pool=False)
    with pytest.raises(LabelError, match="number annotators as before"):
        found.update(stream(n=20, w=11)[1])
    with pytest.raises(LabelError, match="only votes alone"):
        aggregate(votes & Exact(torch.full((60,), -1), 3)).update(votes)
    with pytest.raises(LabelError, match="takes a Crowd"):
        found.update(Exact(torch.zeros(3).long(), 3))
