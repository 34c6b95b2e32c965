"""Rules that depend on each other in pairs: enumeration, copies, what is learnt, and that learning only rises."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels import Exact, LabelError, LabellingFunction, RuleForest, Rules, aggregate, check
from anygrain.labels.channels.rule_forest import _joined, _rooted


def generator(seed):
    return torch.Generator().manual_seed(seed)


def votes_of(seed, n=4000, r=8, k=3, coverage=0.6, copies=0):
    """True classes, and votes of independent rules; the first is right half of the time and stands there again."""
    g = generator(seed)
    y = torch.randint(k, (n,), generator=g)
    accuracy = 0.5 + 0.35 * torch.rand(r, generator=g)
    accuracy[0] = 0.5
    wrong = (y[:, None] + torch.randint(1, k, (n, r), generator=g)) % k
    votes = torch.where(torch.rand(n, r, generator=g) < accuracy, y[:, None], wrong)
    votes = torch.where(torch.rand(n, r, generator=g) < coverage, votes, -1)
    return y, torch.cat([votes, *[votes[:, :1]] * copies], dim=1)


def right(result, y):
    return float((result.posterior.argmax(dim=1) == y).double().mean())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 3), n=st.integers(1, 6))
def test_evidence_is_the_product_over_the_forest(seed, k, n):
    votes = torch.randint(-1, k, (n, 5), generator=generator(seed))
    labels = Rules(votes, k, dependencies=[(0, 1), (1, 2), (4, 3)])
    for step in range(2):
        labels.update(torch.rand(n, k, generator=generator(seed + step), dtype=torch.float64).softmax(dim=1))
    channel, evidence = labels.channel, labels.log_evidence(torch.float64)
    parent = channel.parent.tolist()
    assert parent == [-1, 0, 1, -1, 3]
    torch.testing.assert_close(
        channel.log_given[channel.dependent].exp().sum(dim=2), torch.ones(3, k + 1, k).double(), atol=1e-9, rtol=0
    )
    said = torch.where(votes < 0, k, votes)
    for i, j in itertools.product(range(n), range(k)):
        total = 0.0
        for rule in range(5):
            own = int(said[i, rule])
            weight = float(channel.vote_weight[rule]) if own < k else float(channel.independence)
            if parent[rule] < 0:
                total += weight * float(channel.table[rule, j, own].log())
            else:
                total += weight * float(channel.log_given[rule, int(said[i, parent[rule]]), own, j])
        assert float(evidence[i, j]) == pytest.approx(total, abs=1e-9)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(2, 3))
def test_dependent_rules_and_other_labels_equal_enumeration(seed, k):
    votes = torch.randint(-1, k, (5, 4), generator=generator(seed))
    labels = Rules(votes, k, dependencies=[(0, 1), (2, 3)])
    labels.update(torch.rand(5, k, generator=generator(seed), dtype=torch.float64).softmax(dim=1))
    log_probs = torch.randn(5, k, generator=generator(seed), dtype=torch.float64).log_softmax(dim=1)
    assert check(labels, log_probs).ok
    assert check(labels & Exact(torch.randint(-1, k, (5,), generator=generator(seed)), k, error=0.1), log_probs).ok


@pytest.mark.parametrize("coverage", [0.6, 1.0])
def test_a_copied_rule_does_not_win(coverage):
    y, votes = votes_of(1, coverage=coverage)
    _, copied = votes_of(1, coverage=coverage, copies=5)
    alone = right(aggregate(Rules(votes, 3)), y)
    assert right(aggregate(Rules(copied, 3, dependencies="none")), y) < alone - 0.2
    labels = Rules(copied, 3, dependencies="learn")
    held = aggregate(labels)
    assert right(held, y) == pytest.approx(alone, abs=0.01)
    copies = {0, *range(8, 13)}
    assert len(labels.channel.pairs) == 5
    assert set(labels.channel.pairs.reshape(-1).tolist()) == copies
    change = (held.posterior - aggregate(Rules(votes, 3)).posterior).abs().max()
    assert float(change) < 0.05  # copies say nothing at all


def test_partial_copies_are_found_and_joint_tables_are_those_of_the_data():
    y, votes = votes_of(2, n=12_000, r=7)
    copied = torch.where(torch.rand(len(y), generator=generator(5)) < 0.6, votes[:, 1], votes[:, 4])
    votes[:, 4] = copied
    labels = Rules(votes, 3, dependencies="learn")
    found = aggregate(labels)
    channel = labels.channel
    assert [sorted(p) for p in channel.pairs.tolist()] == [[1, 4]]
    parent, child = channel.pairs[0].tolist()
    said = torch.where(votes < 0, 3, votes)
    joint = torch.zeros(4, 4, 3, dtype=torch.float64)
    joint.index_put_((said[:, parent], said[:, child], y), torch.ones(()).double(), accumulate=True)
    truth = joint / joint.sum(dim=1, keepdim=True)
    assert float((channel.log_given[child].exp() - truth).abs().max()) < 0.1
    assert right(found, y) >= right(aggregate(Rules(votes, 3, dependencies="none")), y)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), dependencies=st.sampled_from(["learn", "none", "pairs"]), k=st.integers(2, 4))
def test_the_objective_never_falls(seed, dependencies, k):
    _, votes = votes_of(seed, n=300, r=6, k=k, copies=2)
    pairs = [(0, 6), (6, 7), (1, 2)] if dependencies == "pairs" else dependencies
    path = aggregate(Rules(votes, k, dependencies=pairs), tolerance=-1.0, iterations=20).log_likelihood
    assert float(path.diff().min()) > -1e-9 * float(path.abs().max())


def test_update_is_better_than_any_other_table():
    _, votes = votes_of(3, n=400, r=4)
    labels = Rules(votes, 3, dependencies=[(0, 1), (1, 2)])
    channel = labels.channel
    q = torch.rand(400, 3, generator=generator(1), dtype=torch.float64).softmax(dim=1)
    seen = channel.statistics(labels.channel_records, q)
    channel.learn_prior(seen)
    channel.update(seen)

    def objective():
        return float((q * labels.log_evidence(torch.float64)).sum() + channel.log_prior())

    best, table = objective(), channel.log_given.clone()
    for seed in range(10):
        noise = 0.1 * torch.randn(table.shape, generator=generator(seed), dtype=torch.float64)
        channel.log_given = torch.log_softmax(table + noise, dim=2)
        assert objective() < best


def test_shards_add_up_and_states_travel():
    _, votes = votes_of(4, n=500, r=5, copies=1)
    labels = Rules(votes, 3, dependencies="learn")
    q = torch.rand(500, 3, generator=generator(5), dtype=torch.float64).softmax(dim=1)
    for _ in range(5):
        parts = [labels[torch.arange(0, 200)], labels[torch.arange(200, 500)]]
        whole = labels.channel.statistics(labels.channel_records, q)
        shards = [p.channel.statistics(p.channel_records, s) for p, s in zip(parts, (q[:200], q[200:]), strict=True)]
        for name, value in whole.items():
            torch.testing.assert_close(value, shards[0][name] + shards[1][name], atol=1e-3, rtol=1e-6)
        labels.channel.fit(whole)
    other = RuleForest(6, 3)
    other.load_state_dict(labels.channel.state_dict())
    again = Rules(votes, 3, channel=other)
    torch.testing.assert_close(again.log_evidence(), labels.log_evidence())


def test_forests_are_rooted_at_the_largest():
    edges = torch.tensor([[0, 1], [1, 2], [0, 2], [3, 4]])
    assert _joined(edges, 5).tolist() == [True, True, False, True]
    size = torch.tensor([1.0, 5.0, 2.0, 1.0, 3.0])
    assert _rooted(edges[[0, 1, 3]], size).tolist() == [1, -1, 1, 4, -1]


def test_independent_rules_stay_the_plain_model():
    _, votes = votes_of(6)
    plain, learnt = aggregate(Rules(votes, 3, dependencies="none")), aggregate(Rules(votes, 3, dependencies="learn"))
    torch.testing.assert_close(plain.posterior, learnt.posterior, atol=1e-6, rtol=0)
    assert len(learnt.channels[0].pairs) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rules([[0, 1]], 2, dependencies="maybe"), "expected discount, learn, none, or pairs"),
        (lambda: Rules([[0, 1]], 2, dependencies=[(0, 5)]), r"outside 0\.\.1"),
        (lambda: Rules([[0, 1, 1]], 2, dependencies=[(0, 1), (1, 2), (2, 0)]), "rules 2 and 0 are joined"),
        (lambda: Rules([[0, 1]], 2, dependencies=[(1, 1)]), "rules 1 and 1"),
        (lambda: RuleForest(5000, 10), "say which depend"),
        (lambda: Rules([[0, 1]], 2, dependencies="learn", channel=LabellingFunction(2, 2)), "leave one of them out"),
    ],
)
def test_bad_dependencies_are_named(make, message):
    with pytest.raises(LabelError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
