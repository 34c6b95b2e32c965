"""Votes of annotators: evidence of every channel, shapes of input, products with other labels."""

import itertools
import math

import numpy as np
import pandas
import polars
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels.channels import CHANNELS
from anygrain.labels.channels.channel import Records
from anygrain.labels.channels.confusion import Confusion
from anygrain.labels.channels.difficulty import Difficulty
from anygrain.labels.channels.dirichlet import learn_strength, log_marginal
from anygrain.labels.channels.one_coin import OneCoin
from anygrain.labels.check import check
from anygrain.labels.crowd import Crowd
from anygrain.labels.error import LabelError
from anygrain.labels.exact import Exact


def generator(seed):
    return torch.Generator().manual_seed(seed)


def random_crowd(seed, channel="confusion", n=5, w=4, k=3, r=12, *, fitted=True, **how):
    """Votes drawn at random, some missing, some of nobody known; the channel fitted to a random posterior."""
    g = generator(seed)
    items, votes = torch.randint(n, (r,), generator=g), torch.randint(-1, k, (r,), generator=g)
    annotators = torch.randint(-1, w, (r,), generator=g)
    labels = Crowd(items, annotators, votes, k, n_items=n, n_annotators=w, channel=channel, **how)
    for _ in range(3 if fitted else 0):
        labels.update(torch.randn(n, k, generator=g, dtype=torch.float64).softmax(dim=1))
    return labels


def log_probs(n, k, seed=0):
    return torch.randn(n, k, generator=generator(seed), dtype=torch.float64).log_softmax(dim=1)


def matrix(channel, source):
    """P(vote | class) (K, K) of one source, the pooled one for a stranger."""
    channel = channel.votes if isinstance(channel, Difficulty) else channel
    return channel.pooled if source < 0 else channel.confusion[source]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    name=st.sampled_from(["one_coin", "class_coin", "spammer", "confusion", "groups"]),
    k=st.integers(1, 4),
    fitted=st.booleans(),
)
def test_evidence_is_the_product_of_what_the_votes_say(seed, name, k, fitted):
    labels = random_crowd(seed, name, k=k, fitted=fitted)
    evidence = labels.log_evidence(torch.float64)
    want = torch.zeros(5, k, dtype=torch.float64)
    for item, who, vote in zip(labels.items, labels.annotators, labels.votes, strict=True):
        if vote >= 0:
            want[item] += matrix(labels.channel, int(who))[:, vote].log()
    assert torch.allclose(evidence, want, atol=1e-9)
    assert torch.allclose(labels.channel.confusion.sum(dim=2), torch.ones(4, k).double(), atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 4), fitted=st.booleans())
def test_difficulty_sums_over_the_states_of_an_item(seed, k, fitted):
    labels = random_crowd(seed, "difficulty", k=k, fitted=fitted)
    channel = labels.channel
    evidence = labels.log_evidence(torch.float64)
    for i in range(5):
        mine = ((labels.items == i) & (labels.votes >= 0)).nonzero()[:, 0]
        for y in range(k):
            states = [(float(channel.shares[0]) if k > 1 else 1.0, y, y, 1.0)]
            for c in set(range(k)) - {y}:
                rival = float(channel.rivals[y, c])
                states += [(float(channel.shares[1]) * rival, y, c, 0.5), (float(channel.shares[2]) * rival, y, c, 0.0)]
            total = 0.0
            for share, own, rival, part in states:
                product = share
                for r in mine.tolist():
                    theta = matrix(channel, int(labels.annotators[r]))[:, labels.votes[r]]
                    product *= float(part * theta[own] + (1 - part) * theta[rival])
                total += product
            assert abs(float(evidence[i, y]) - math.log(total)) < 1e-9


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), name=st.sampled_from(sorted(CHANNELS)), k=st.integers(2, 3))
def test_votes_alone_and_with_gold_equal_enumeration(seed, name, k):
    labels = random_crowd(seed, name, k=k)
    assert check(labels, log_probs(5, k, seed)).ok
    gold = Exact(torch.tensor([0, -1, 1, -1, -1]), k, error=0.05)
    assert check(labels & gold, log_probs(5, k, seed)).ok


def test_a_record_scores_what_it_adds_to_the_others():
    for name in CHANNELS:
        labels = random_crowd(3, name, r=8)
        p = log_probs(5, 3)
        whole = labels.log_likelihood(p).sum()
        for r in range(8):
            keep = torch.arange(8) != r
            rest = Crowd(labels.items[keep], labels.annotators[keep], labels.votes[keep], 3, 5, labels.channel)
            difference = whole - rest.log_likelihood(p).sum()
            assert float(labels.record_scores(p)[r]) == pytest.approx(float(difference), abs=1e-9)


def test_difficulty_in_chunks_is_difficulty_at_once(monkeypatch):
    labels = random_crowd(5, "difficulty", n=50, r=200)
    posterior = log_probs(50, 3).exp()
    once = labels.log_evidence(torch.float64), labels.record_log_prob(torch.float64)
    counted = labels.channel.statistics(labels.channel_records, posterior)
    monkeypatch.setattr("anygrain.labels.channels.difficulty._CHUNK", 30)
    again = Crowd(labels.items, labels.annotators, labels.votes, 3, 50, labels.channel)
    assert torch.allclose(again.log_evidence(torch.float64), once[0], atol=1e-12)
    assert torch.allclose(again.record_log_prob(torch.float64), once[1], atol=1e-12)
    for name, table in again.channel.statistics(again.channel_records, posterior).items():
        assert torch.allclose(table, counted[name], atol=1e-10)


def test_many_classes_have_the_rivals_they_are_confused_with():
    k, w = 40, 3
    matrices = torch.full((w, k, k), 0.1 / (k - 2), dtype=torch.float64)
    matrices[:, torch.arange(k), torch.arange(k)] = 0.7
    matrices[:, torch.arange(k), (torch.arange(k) + 1) % k] = 0.2
    labels = Crowd.simulate(
        torch.arange(4000) % k, k, generator=generator(0), n_annotators=w, confusion=matrices, channel="difficulty"
    )
    certain = torch.nn.functional.one_hot(torch.arange(4000) % k, k).double()
    for _ in range(3):
        labels.update(certain)
    rivals = labels.channel.rivals
    assert ((rivals > 0).sum(dim=1) <= 16).all()
    assert torch.equal((rivals > 0), (rivals > 0).T)
    near = rivals[torch.arange(k), (torch.arange(k) + 1) % k]
    assert (near > 0).all()
    assert torch.isfinite(labels.log_evidence(torch.float32)).all()


def test_somebody_unknown_is_the_pooled_annotator_and_no_vote_says_nothing():
    labels = random_crowd(1)
    channel = labels.channel
    stranger = Records(torch.tensor([0]), torch.tensor([-1]), torch.tensor([2]))
    assert torch.allclose(channel.log_prob(stranger)[0], channel.pooled[:, 2].log())
    silent = Crowd(torch.tensor([0, 1]), torch.tensor([0, 1]), torch.tensor([-1, -1]), 3, 3, channel, n_annotators=4)
    assert torch.equal(silent.log_evidence(torch.float64), torch.zeros(3, 3).double())
    assert torch.equal(silent.record_scores(log_probs(3, 3)), torch.zeros(2).double())


def test_an_annotator_without_votes_is_the_pooled_one_after_fitting():
    labels = Crowd.simulate(torch.arange(300) % 3, 3, generator=generator(0), n_annotators=4)
    wider = Crowd(labels.items, labels.annotators, labels.votes, 3, n_annotators=5)
    for _ in range(4):
        wider.update(torch.nn.functional.one_hot(torch.arange(300) % 3, 3).double())
    assert torch.allclose(wider.channel.confusion[4], wider.channel.pooled)


@pytest.mark.parametrize("true", [1.0, 5.0, 20.0])
def test_strength_of_shrinkage_has_the_largest_marginal_likelihood(true):
    torch.manual_seed(0)
    mean = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]).double()
    matrices = torch.distributions.Dirichlet(mean * true).sample((100,))
    counts = torch.distributions.Multinomial(40, matrices).sample().double()
    strength = torch.tensor(4.0).double()
    for _ in range(12):
        strength, _ = learn_strength(counts, mean, strength)
    grid = torch.logspace(-1, 3, 4000).double()
    value = torch.stack([log_marginal(counts, mean, s).sum() + s.log() - s / 4 for s in grid])
    assert float(strength) == pytest.approx(float(grid[value.argmax()]), rel=0.01)
    assert true / 2 < float(strength) < 2 * true


def test_marginal_likelihood_of_counts_is_that_of_draws_one_after_another():
    mean, strength, counts = torch.tensor([0.7, 0.2, 0.1]).double(), torch.tensor(3.0).double(), [2, 0, 3]
    total, seen = 0.0, [0.0, 0.0, 0.0]
    for vote in [0, 0, 2, 2, 2]:
        total += math.log((3.0 * float(mean[vote]) + seen[vote]) / (3.0 + sum(seen)))
        seen[vote] += 1
    assert float(log_marginal(torch.tensor(counts).double(), mean, strength)) == pytest.approx(total)


def test_select_and_rows_keep_the_votes_of_their_items():
    labels = random_crowd(2, n=6, r=20)
    part = labels[[4, 1]]
    assert torch.allclose(part.log_evidence(torch.float64), labels.log_evidence(torch.float64)[[4, 1]])
    given_rows = labels.records()[1]
    chosen = part.records()[1]
    assert set(chosen.tolist()) == {int(r) for r in given_rows if labels.items[r] in (1, 4)}
    assert part.channel is labels.channel


@pytest.mark.parametrize("name", ["confusion", "difficulty"])
def test_relabel_moves_columns_and_rules_new_classes_out(name):
    labels = random_crowd(4, name, r=20)
    mapping = torch.tensor([2, 0, 3])
    moved = labels.relabel(mapping, 4)
    voted = torch.zeros(5, dtype=torch.bool)
    voted[labels.items[labels.votes >= 0]] = True
    table = moved.log_evidence(torch.float64)
    assert torch.allclose(table[:, mapping], labels.log_evidence(torch.float64))
    assert (table[voted, 1] == -torch.inf).all()
    assert (table[~voted] == 0).all()
    assert check(moved, log_probs(5, 4)).ok
    back = moved.relabel(torch.tensor([1, 3, 0, 2]), 4)
    assert torch.equal(back.log_evidence(torch.float64)[:, [0, 1, 2]], table[:, [2, 0, 3]])
    with pytest.raises(LabelError, match="cannot merge"):
        labels.relabel(torch.tensor([0, 0, 1]), 2)


def test_weight_counts_items_in_the_channel():
    labels = Crowd.simulate(torch.arange(60) % 3, 3, generator=generator(0))
    twice = torch.cat([torch.arange(60), torch.arange(30)])
    certain = torch.nn.functional.one_hot(torch.arange(60) % 3, 3).double()
    weighted = Crowd(
        labels.items, labels.annotators, labels.votes, 3, n_annotators=10, weight=1.0 + (torch.arange(60) < 30)
    )
    repeated = labels[twice].with_channel("confusion")
    weighted.update(certain)
    repeated.update(certain[twice])
    assert torch.allclose(weighted.channel.confusion, repeated.channel.confusion)


@pytest.mark.parametrize("frame_of", [dict, pandas.DataFrame, polars.DataFrame])
def test_wide_frame(frame_of):
    frame = frame_of({"ann": ["cat", "dog", None], "bob": ["dog", "", "cat"], "text": ["a", "b", "c"]})
    labels = Crowd.from_frame(frame, ["ann", "bob"])
    assert labels.class_names == ("cat", "dog")
    assert labels.annotator_names == ("ann", "bob")
    assert labels.items.tolist() == [0, 0, 1, 2]
    assert labels.annotators.tolist() == [0, 1, 0, 1]
    assert labels.votes.tolist() == [0, 1, 1, 0]
    assert len(labels) == 3
    with pytest.raises(LabelError, match='"dog"'):
        Crowd.from_frame(frame, ["ann"], classes=["cat", "dag"])


def test_long_frame():
    frame = pandas.DataFrame(
        {"item": ["x", "y", "x", "z"], "annotator": [7, 7, 12, 12], "vote": ["cat", "dog", np.nan, "cat"]}
    )
    labels = Crowd.from_long(frame, items=["z", "y", "x"])
    assert labels.items.tolist() == [2, 1, 2, 0]
    assert labels.annotator_names == ("7", "12")
    assert labels.votes.tolist() == [0, 1, -1, 0]
    assert labels.item_names == ("z", "y", "x")
    assert Crowd.from_long(frame).items.tolist() == [0, 1, 0, 2]
    with pytest.raises(LabelError, match='1 votes are about unknown items: "z" in row 3'):
        Crowd.from_long(frame, items=["x", "y"])
    with pytest.raises(LabelError, match='"x" stands twice'):
        Crowd.from_long(frame, items=["x", "y", "x"])
    with pytest.raises(LabelError, match=r'"annotator" is empty in 1 rows, first row 1'):
        Crowd.from_long({**frame.to_dict("list"), "annotator": [7, None, 12, 12]})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": torch.tensor([0, 5])}, "item 5 in vote 1 is outside 0..1"),
        ({"items": torch.tensor([0, -1])}, "item -1 in vote 1"),
        ({"items": torch.tensor([0.0, 1.0])}, "items must be whole numbers"),
        ({"annotators": torch.tensor([0, 9])}, "annotator 9 in vote 1 is outside -1..1"),
        ({"votes": torch.tensor([0, 3])}, "vote values are outside 0..1"),
        ({"votes": torch.tensor([0])}, "2 items, 2 annotators, 1 votes"),
        ({"channel": "oracle"}, 'no channel "oracle"'),
        ({"channel": Confusion(3, 2)}, "the channel was made for n_sources=3"),
        ({"history": torch.ones(2, 2)}, r"history has shape \(2, 2\)"),
        ({"history": -torch.ones(2, 2, 2)}, "must be finite and not negative"),
        ({"annotator_names": ["ann"]}, "1 annotator names for 2 annotators"),
        ({"channel": Confusion(2, 2), "history": torch.ones(2, 2, 2)}, "give the history to the channel"),
    ],
)
def test_bad_input_is_refused(change, message):
    given = {"items": torch.tensor([0, 1]), "annotators": torch.tensor([0, 1]), "votes": torch.tensor([0, 1])}
    given |= {"n_classes": 2, "n_items": 2, "n_annotators": 2} | change
    with pytest.raises(LabelError, match=message):
        Crowd(**given)


def test_simulated_votes_have_the_given_confusions():
    k, n = 3, 30_000
    truth = torch.randint(k, (n,), generator=generator(1))
    confusion = torch.rand(4, k, k, generator=generator(2), dtype=torch.float64)
    confusion /= confusion.sum(dim=2, keepdim=True)
    labels = Crowd.simulate(truth, k, generator=generator(3), n_annotators=4, votes_per_item=2, confusion=confusion)
    assert len(torch.unique(labels.items * 4 + labels.annotators)) == 2 * n
    counts = torch.zeros(4, k, k).double()
    counts.index_put_((labels.annotators, truth[labels.items], labels.votes), torch.ones(()).double(), accumulate=True)
    assert torch.allclose(counts / counts.sum(dim=2, keepdim=True), confusion, atol=0.02)
    with pytest.raises(LabelError, match="ask each at most once"):
        Crowd.simulate(truth, k, generator=generator(0), n_annotators=2, votes_per_item=3)


def test_a_matrix_leans_on_the_pooled_one_made_as_careless_as_its_source():
    counts = torch.tensor([[[6, 2, 0], [1, 5, 0], [0, 0, 4]], [[1, 2, 1], [2, 1, 3], [1, 3, 2]]]).double()
    channel = Confusion(2, 3, strength=1e4)  # so strong that the prior is all there is
    channel.learn_prior({"counts": counts})
    pooled = torch.full((3, 3), 0.2).double().fill_diagonal_(0.6)
    for source, wrong, expected in ((0, 3, 18 * 0.4), (1, 12, 16 * 0.4)):
        assert float(channel.carelessness[source]) == pytest.approx((wrong + 2) / (expected + 2))
    channel.mean = pooled
    for source, row in itertools.product(range(2), range(3)):
        rate = float(channel.carelessness[source])
        want = rate * pooled[row]
        want[row] = 1 - rate * 0.4
        assert torch.allclose(channel.means()[source, row], want)
        assert float(want.sum()) == pytest.approx(1.0)


def test_one_coin_errs_evenly():
    channel = OneCoin(2, 3)
    channel.update({"counts": torch.tensor([[[5, 1, 0], [0, 4, 2], [3, 0, 9]]] * 2).double()})
    for w, a, b in itertools.product(range(2), range(3), range(3)):
        right = (18 + 4 * 0.6) / (24 + 4)
        assert float(channel.confusion[w, a, b]) == pytest.approx(right if a == b else (1 - right) / 2)


def test_a_channel_goes_by_its_key_or_its_class_name():
    votes = (torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0]), torch.tensor([0, 0, 1]), 2)
    for name in ("one_coin", "OneCoin", OneCoin):
        assert type(Crowd(*votes, channel=name).channel) is OneCoin
    with pytest.raises(LabelError, match='no channel "TwoCoin"; there are one_coin'):
        Crowd(*votes, channel="TwoCoin")
