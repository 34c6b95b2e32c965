"""Sets that share instances: forests, loops, closures and merges equal enumeration."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels import All, AnyOf, Bags, Counts, Exact, LabelError, Pairs, SetLabels, check
from anygrain.labels.all_equal import AllEqual, two_edge_connected
from anygrain.labels.event_lattice import EventSets
from anygrain.labels.sets import Events


class AtLeastOne(SetLabels):
    """A kind as a user writes it: only log_factor; some member is of class 0."""

    def __init__(self, bags, n_classes):
        super().__init__(n_classes, bags)

    def log_factor(self, log_p):
        rest = torch.logsumexp(log_p[:, 1:], dim=1)
        none = torch.zeros(len(self.sets), dtype=log_p.dtype).index_add(0, self.sets.index, rest)
        return torch.log1p(-none.exp())


def log_probs_of(seed, n, k):
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(2 * torch.randn(n, k, dtype=torch.float64, generator=generator), dim=1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 3))
def test_random_pairs_with_loops(seed, k):
    g = torch.Generator().manual_seed(seed)
    n, m = 6, int(torch.randint(1, 9, (1,), generator=g))
    i = torch.randint(n, (m,), generator=g)
    j = (i + torch.randint(1, n, (m,), generator=g)) % n
    truth = torch.randint(k, (n,), generator=g)
    pairs = Pairs(i, j, truth[i] == truth[j], n, k)
    found = check(pairs & Exact(torch.where(torch.arange(n) < 1, truth, -1), k), log_probs_of(seed, n, k))
    assert found.ok, str(found)
    assert found.impossible == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.2]))
def test_random_bags_and_pairs(seed, error):
    g = torch.Generator().manual_seed(seed)
    n, k = 7, 2
    sizes = torch.randint(1, 4, (3,), generator=g)
    members = torch.cat([torch.randperm(n, generator=g)[:s] for s in sizes.tolist()])
    bags = Bags(members, torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]), n)
    pairs = Pairs([0, 2], [1, 5], [1, 0], n, k, error=error)
    found = check(AtLeastOne(bags, k) & pairs, log_probs_of(seed, n, k))
    assert found.ok, str(found)


def test_a_long_chain_of_pairs_is_exact():
    n = 12
    labels = Pairs(torch.arange(n - 1), torch.arange(1, n), torch.tensor([1, 0] * 5 + [1]), n, 2, error=0.1)
    assert labels.exact
    assert check(labels, log_probs_of(3, n, 2)).ok


def test_same_pairs_on_a_large_cycle_are_closed():
    n, k = 40, 10  # far beyond enumeration
    i = torch.arange(n)
    labels = Pairs(i, (i + 1) % n, torch.ones(n, dtype=torch.bool), n, k)
    log_probs = log_probs_of(5, n, k)
    assert labels.exact
    joint = log_probs.sum(0)
    torch.testing.assert_close(labels.posterior(log_probs), torch.softmax(joint, 0).expand(n, k))
    torch.testing.assert_close(labels.log_likelihood(log_probs).sum(), torch.logsumexp(joint, 0))
    assert labels.record_scores(log_probs).abs().max() == 0  # any one pair follows from the others


def test_bridges_between_closed_groups_keep_their_scores():
    ring = [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3), (2, 3)]
    i, j = (torch.tensor(x) for x in zip(*ring, strict=True))
    labels = Pairs(i, j, torch.ones(7, dtype=torch.bool), 6, 3)
    log_probs = log_probs_of(1, 6, 3)
    left, right = (torch.log_softmax(log_probs[part].sum(0), 0) for part in (slice(0, 3), slice(3, 6)))
    scores = labels.record_scores(log_probs)
    torch.testing.assert_close(scores[6], torch.logsumexp(left + right, 0))
    assert scores[:6].abs().max() == 0
    assert check(labels, log_probs).ok


def test_different_inside_a_closed_group_is_impossible_and_silent():
    n, k = 30, 8
    i = torch.arange(n)
    ring = Pairs(i, (i + 1) % n, torch.ones(n, dtype=torch.bool), n, k)
    against = Pairs([0], [15], [0], n, k)
    log_probs = log_probs_of(2, n, k)
    both = ring & against
    assert both.contradictions(log_probs).tolist() == [False] * n + [True]
    torch.testing.assert_close(both.posterior(log_probs), ring.posterior(log_probs))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_two_edge_connected_equals_removal_of_every_edge(seed):
    g = torch.Generator().manual_seed(seed)
    n, m = 7, int(torch.randint(0, 11, (1,), generator=g))
    left = torch.randint(n, (m,), generator=g)
    right = (left + torch.randint(1, n, (m,), generator=g)) % n

    def reach(edges):
        group = list(range(n))
        for _ in range(n):
            for a, b in edges:
                low = min(group[a], group[b])
                group[a] = group[b] = low
        return group

    edges = list(zip(left.tolist(), right.tolist(), strict=True))
    views = [reach(edges[:e] + edges[e + 1 :]) for e in range(m)] + [reach(edges)]
    found = two_edge_connected(n, left, right)
    for a, b in itertools.combinations(range(n), 2):
        assert (found[a] == found[b]).item() == all(view[a] == view[b] for view in views)


def event_sets(bags, k, said):
    """said: (set, classes, low, high)."""
    target = torch.zeros(len(said), k, dtype=torch.bool)
    for at, (_, classes, _, _) in enumerate(said):
        target[at, classes] = True
    column = [torch.tensor([s[c] for s in said]) for c in (0, 2, 3)]
    own = torch.arange(len(bags))
    return EventSets(k, bags, Events(column[0], target, column[1], column[2]), own, own, own[column[0]])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_event_lattice_equals_enumeration(seed):
    g = torch.Generator().manual_seed(seed)
    k, sizes = 3, torch.tensor([4, 2, 5])
    bags = Bags(torch.randperm(11, generator=g), torch.tensor([0, 4, 6, 11]), 11)
    truth = torch.randint(k, (11,), generator=g)
    said = []
    for s in range(3):
        inside = truth[bags.members[bags.offsets[s] : bags.offsets[s + 1]]]
        for _ in range(int(torch.randint(1, 4, (1,), generator=g))):
            classes = (torch.rand(k, generator=g) < 0.5).nonzero()[:, 0].tolist() or [0]
            count = int(sum((inside == c).sum() for c in classes))
            slack = torch.randint(0, 3, (2,), generator=g).tolist()
            high = int(sizes[s]) if slack[1] == 2 else count + slack[1]
            said.append((s, classes, count - slack[0], high))
    labels = event_sets(bags, k, said)
    log_probs = log_probs_of(seed, 11, k)
    found = check(labels, log_probs)
    assert found.ok, str(found)
    assert found.impossible == 0


def test_a_set_that_a_selection_cuts_is_named():
    bags = Bags.from_ids(torch.tensor([0, 0, 1, 1, -1]))
    labels = AtLeastOne(bags, 2) & Exact(torch.zeros(5, dtype=torch.long), 2)
    with pytest.raises(LabelError, match="bag 1 of AtLeastOne"):
        labels[[0, 1, 2]]
    kept = labels[[3, 2, 4]]
    assert isinstance(kept, All)
    assert kept.n_instances == 3
    assert kept.set_parts[0].sets.members.tolist() == [1, 0]


def test_groups_follow_rows_and_sets():
    bags = Bags.from_ids(torch.tensor([0, 0, 1, 1, -1, -1]))
    labels = AtLeastOne(bags, 2)
    assert labels.groups().tolist() == [0, 0, 1, 1, 2, 3]
    shared = SetLabels.__new__(AtLeastOne)
    SetLabels.__init__(shared, 2, bags, rows=torch.tensor([0, 1, 1, 2, 3, 3]))
    assert len(shared) == 4
    assert shared.groups().tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("world", [1, 3])
def test_batches_give_every_observation_once(world):
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(-1, 6, (60,), generator=g)
    ids = torch.unique(ids, return_inverse=True)[1] - 1
    pairs = Pairs([0, 1, 2, 3], [10, 11, 12, 13], [1, 0, 1, 0], 60, 3)
    labels = AtLeastOne(Bags.from_ids(ids), 3) & pairs & Exact(torch.zeros(60, dtype=torch.long), 3)
    epochs = [list(labels.batches(8, torch.Generator().manual_seed(4), r, world)) for r in range(world)]
    assert len({len(e) for e in epochs}) == 1
    batches = [b for e in epochs for b in e]
    seen = torch.cat([b.observations for b in batches])
    assert sorted(seen.tolist()) == list(range(labels.n_observations))
    weight = torch.zeros(60).index_add(
        0, torch.cat([b.instances for b in batches]), torch.cat([b.weight for b in batches])
    )
    torch.testing.assert_close(weight, torch.ones(60))
    log_probs = log_probs_of(0, 60, 3)
    for b in batches:
        labels.select(b).infer(log_probs[b.instances])


def test_batches_of_whole_components_add_up_to_the_likelihood():
    pairs = Pairs([0, 1, 5], [1, 2, 6], [1, 1, 0], 9, 3)
    labels = pairs & Exact(torch.tensor([0, -1, 1, 2, 2, 2, -1, 0, 1]), 3, error=0.2)
    log_probs = log_probs_of(0, 9, 3)
    value, posterior = labels.infer(log_probs)
    total = 0.0
    for batch in labels.batches(4, torch.Generator().manual_seed(1)):
        few_value, few = labels.select(batch).infer(log_probs[batch.instances])
        torch.testing.assert_close(few, posterior[batch.instances])
        total += float(few_value.sum())
    assert total == pytest.approx(float(value.sum()), rel=1e-12)


def test_large_loops_are_damped_and_say_so():
    n, k = 9, 4
    i, j = (torch.tensor(x) for x in zip(*itertools.combinations(range(n), 2), strict=True))
    truth = torch.arange(n) % k
    labels = Pairs(i, j, truth[i] == truth[j], n, k, error=0.3)
    assert not labels.exact
    found = check(labels, log_probs_of(0, n, k))
    assert found.posterior < 0.2
    assert not found.ok


def test_all_equal_equals_enumeration():
    labels = AllEqual(3, Bags.from_ids(torch.tensor([0, 0, 0, 1, 1])))
    assert check(labels, log_probs_of(0, 5, 3)).ok


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
def test_counts_and_any_of_on_the_same_bags_are_merged(seed):
    g = torch.Generator().manual_seed(seed)
    n, k = 11, 3  # a bag of 11 is too large to enumerate: without merging these would be loops
    bags = Bags.from_ids(torch.zeros(n, dtype=torch.long))
    truth = torch.randint(k, (n,), generator=g)
    counts = torch.nn.functional.one_hot(truth, k).sum(0)[None]
    known = torch.where(torch.arange(k) == 0, counts, -1)
    either = AnyOf(bags, counts[:, 1:].sum(1) > 0, [1, 2], k)
    labels = Counts(bags, known) & AnyOf(bags, counts[:, 1] > 0, 1, k) & either
    assert labels.exact
    found = check(labels, log_probs_of(seed, n, k))
    assert found.ok, str(found)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.1]))
def test_random_trees_of_bags_and_pairs(seed, error):
    """Every new set shares one instance with what is there, so there is no loop, whatever the shape."""
    g = torch.Generator().manual_seed(seed)
    k, n, sets, pairs = 2, 1, [], []
    while n < 12:
        hub, new = int(torch.randint(n, (1,), generator=g)), int(torch.randint(1, 4, (1,), generator=g))
        if torch.rand((), generator=g) < 0.5:
            sets.append([hub, *range(n, n + new)])
        else:
            pairs += [(hub, n)]
            new = 1
        n += new
    truth = torch.randint(k, (n,), generator=g)
    labels = Exact(torch.where(torch.arange(n) < 1, truth, -1), k)
    if pairs:
        i, j = (torch.tensor(x) for x in zip(*pairs, strict=True))
        labels = labels & Pairs(i, j, truth[i] == truth[j], n, k, error=error)
    if sets:
        sizes = torch.tensor([len(s) for s in sets])
        bags = Bags(torch.tensor(list(itertools.chain(*sets))), torch.cat([sizes.new_zeros(1), sizes.cumsum(0)]), n)
        labels = labels & Counts(bags, torch.stack([torch.bincount(truth[s], minlength=k) for s in sets]), error=error)
    assert labels.exact
    found = check(labels, log_probs_of(seed, n, k))
    assert found.ok, str(found)


def test_trees_on_a_large_loop_hear_it_and_are_heard():
    # weak answers round a ring of 12: the loop itself counts for .2 ** 12, what hangs on it must be exact
    ring, k = torch.arange(12), 2
    i = torch.cat([ring, torch.tensor([0, 12, 12, 6])])
    j = torch.cat([(ring + 1) % 12, torch.tensor([12, 13, 14, 15])])
    labels = Pairs(i, j, torch.tensor([1, 0] * 8), 17, k, error=0.8) & Exact(
        torch.tensor([-1] * 13 + [0, -1, 1, -1]), k
    )
    labels = labels & AtLeastOne(Bags(torch.tensor([3, 16]), torch.tensor([0, 2]), 17), k)
    assert not labels.exact
    found = check(labels, log_probs_of(4, 17, k), tolerance=1e-6)
    assert found.ok, str(found)


def test_depth_costs_no_sweeps():
    """Tracks of 100: messages go along them once, not in a sweep over everything for each step."""
    n = 5000
    i = torch.arange(n - 1)
    i = i[i % 100 != 99]
    deep = All(Pairs(i, i + 1, torch.ones(len(i)), n, 3, error=0.1))
    log_probs = log_probs_of(0, n, 3)
    assert len(deep.factors._plan.rounds) <= 100  # half of 99 pairs and 100 instances, from both ends
    assert deep.exact
    last = deep.posterior(log_probs)[98:100]  # the end of a chain, by the forward pass
    belief = log_probs[0]
    for t in range(1, 100):
        ahead = torch.logaddexp(belief + math.log(0.9), torch.logsumexp(belief, 0) + math.log(0.05))
        belief = torch.log_softmax(log_probs[t] + ahead, 0)
    torch.testing.assert_close(last[1].log(), belief)


def test_a_contradiction_far_away_leaves_the_rest_of_a_tree_alone():
    k, n = 3, 9
    i = torch.arange(n - 1)
    chain = Pairs(i, i + 1, torch.ones(n - 1), n, k)
    ends = Exact(torch.tensor([0] + [-1] * (n - 2) + [1]), k)
    both = chain & ends
    log_probs = log_probs_of(0, n, k)
    value, posterior = both.infer(log_probs)
    broken = both.contradictions(log_probs)[: n - 1]
    assert 1 <= int(broken.sum()) <= 2
    assert bool(torch.isfinite(value).all())
    torch.testing.assert_close(posterior[0], torch.tensor([1.0, 0, 0], dtype=torch.float64))
    torch.testing.assert_close(posterior[-1], torch.tensor([0, 1.0, 0], dtype=torch.float64))
    kept = (~broken).nonzero()[:, 0]
    rest = Pairs(i[kept], i[kept] + 1, torch.ones(len(kept)), n, k) & ends
    torch.testing.assert_close(posterior, rest.posterior(log_probs))
