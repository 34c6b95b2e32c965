"""What every kind of label owes: the contract, sentence by sentence, for a table of kinds."""

import copy
import itertools
import pickle
import time

import pytest
import torch

from anygrain.labels import (
    Aggregate,
    All,
    AnyOf,
    AtLeast,
    AtMost,
    Automaton,
    Bags,
    Between,
    Candidates,
    Coarse,
    Compare,
    Complementary,
    Counts,
    Exact,
    InstanceLabels,
    Interval,
    LabelError,
    Labels,
    Majority,
    Noisy,
    Pairs,
    Positive,
    Proportions,
    Rules,
    Sampled,
    SetLabel,
    SetLabels,
    Soft,
    Tables,
    check,
)
from anygrain.labels.base import Batch
from anygrain.labels.channels import CHANNELS
from anygrain.labels.crowd import Crowd

N, K = 6, 3
#: a state moves on by the number of its class
CYCLE = (torch.arange(3)[:, None] + torch.arange(K)) % 3
MEMBERSHIP = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]])


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def truth_of(seed=0, n=N, k=K):
    return torch.randint(k, (n,), generator=gen(seed))


def log_probs_of(seed=0, n=N, k=K, zeros=()):
    logits = 1.5 * torch.randn(n, k, dtype=torch.float64, generator=gen(seed))
    for row, column in zeros:
        logits[row, column] = -torch.inf
    return torch.log_softmax(logits, dim=1)


def bags_of(first, n=N):
    """One bag of the first (or last) half of the instances, and one of a single instance."""
    half = torch.arange(n // 2) + (0 if first else n - n // 2)
    return Bags(half, torch.tensor([0, n // 2 - 1, n // 2]), n)


def crowd(channel):
    def make(seed, first=True, **how):
        labels = Crowd.simulate(truth_of(seed), K, generator=gen(seed), n_annotators=4, channel=channel, **how)
        labels.update(torch.nn.functional.one_hot(truth_of(seed), K).double())
        return labels

    return make


def rules(seed, first=True, **how):
    votes = torch.where(torch.rand(N, 4, generator=gen(seed)) < 0.6, truth_of(seed)[:, None], -1)
    return Rules(votes, K, **how)


def coarse(seed, first=True, **how):
    return Coarse.simulate(truth_of(seed), K, generator=gen(seed), taxonomy=MEMBERSHIP, **how)


def noisy(seed, first=True, **how):
    return Noisy.simulate(
        truth_of(seed), K, generator=gen(seed), transition=0.7 * torch.eye(K) + 0.1 * torch.ones(K, K), **how
    )


def soft_posterior(seed, first=True, **how):
    return Soft(torch.softmax(torch.randn(N, K, generator=gen(seed)), 1), "posterior", torch.ones(K) / K, **how)


def pairs(seed, first=True, **how):
    y, low = truth_of(seed), 0 if first else N // 2
    i, j = torch.tensor([low, low + 1]), torch.tensor([low + 1, low + 2])
    return Pairs(i, j, y[i] == y[j], N, K, **how)


def compare(seed, first=True, **how):
    y, low = truth_of(seed), 0 if first else N // 2
    pairs_ = torch.tensor([[low, low + 1], [low + 1, low + 2]])
    code = torch.where(y[pairs_[:, 0]] > y[pairs_[:, 1]], 0, torch.where(y[pairs_[:, 0]] == y[pairs_[:, 1]], 2, 3))
    return Compare(pairs_, code, K, N, **how)


def counts(seed, first=True, **how):
    return Counts.simulate(truth_of(seed), K, generator=gen(seed), bags=bags_of(first), known=0.8, **how)


def any_of(seed, first=True, **how):
    return AnyOf.simulate(truth_of(seed), K, generator=gen(seed), bags=bags_of(first), target=[0, 2], **how)


def in_bags(kind, **fixed):
    def make(seed, first=True, **how):
        return kind.simulate(truth_of(seed), K, generator=gen(seed), bags=bags_of(first), **fixed, **how)

    return make


def proportions(seed, first=True, **how):
    bags = bags_of(first)
    hits = torch.nn.functional.one_hot(truth_of(seed), K).double()[bags.members]
    total = torch.zeros(len(bags), K, dtype=torch.float64).index_add(0, bags.index, hits)
    return Proportions(bags, total / bags.sizes[:, None], **how)


def positive(seed, first=True, **how):
    return Positive.simulate(truth_of(seed), K, generator=gen(seed), target=int(truth_of(seed)[0]), **how)


def simulated(kind, **fixed):
    return lambda seed, first=True, **how: kind.simulate(truth_of(seed), K, generator=gen(seed), **fixed, **how)


INSTANCE = {
    "Exact": simulated(Exact, share=0.7),
    "Exact, error": simulated(Exact, share=0.7, error=0.2),
    "Soft": simulated(Soft),
    "Soft posterior": soft_posterior,
    "Coarse": coarse,
    "Candidates": simulated(Candidates),
    "Complementary": simulated(Complementary),
    "Interval": simulated(Interval, width=1),
    "Noisy": noisy,
    "Rules": rules,
    "Positive": positive,
    "Positive, error": lambda seed, first=True, **how: positive(seed, error=0.2, scenario="case-control", **how),
    "Sampled": simulated(Sampled),
    **{f"Crowd, {name}": crowd(name) for name in CHANNELS},
}
SETS = {
    "Pairs": pairs,
    "Pairs, error": lambda seed, first=True, **how: pairs(seed, first, error=0.2, **how),
    "Compare": compare,
    "Compare, error": lambda seed, first=True, **how: compare(seed, first, error=0.2, **how),
    "Counts": counts,
    "Counts, error": lambda seed, first=True, **how: counts(seed, first, error=0.2, **how),
    "AnyOf": any_of,
    "AnyOf, error": lambda seed, first=True, **how: any_of(seed, first, error=0.2, **how),
    "AtLeast": in_bags(AtLeast, target=[0, 2]),
    "AtLeast, error": in_bags(AtLeast, target=1, error=0.2),
    "AtMost": in_bags(AtMost, target=[0, 2]),
    "Between": in_bags(Between, target=[0, 2]),
    "Between, error": in_bags(Between, target=1, error=0.2),
    "Aggregate": in_bags(Aggregate, per_class=torch.tensor([0.5, 0.0, 2.0])),
    "Aggregate, error": in_bags(Aggregate, how="mean", error=0.2),
    "Aggregate, noise": in_bags(Aggregate, noise=0.5, error=0.1),
    "Majority": in_bags(Majority),
    "Majority, error": in_bags(Majority, error=0.2),
    "SetLabel, majority": in_bags(SetLabel, taxonomy=MEMBERSHIP),
    "SetLabel, distinct": in_bags(SetLabel, rule="distinct", error=0.2),
    "SetLabel, highest": in_bags(SetLabel, rule="highest"),
    "SetLabel, automaton": in_bags(SetLabel, rule=Tables(CYCLE, 0, {1})),
    "Automaton": in_bags(Automaton, transition=torch.softmax(torch.randn(3, K, 3, generator=gen(1)), 2)),
    "Automaton, error": in_bags(Automaton, transition=CYCLE, final=[{0, 1}, {2}], error=0.2),
    "Proportions": proportions,
    "Proportions, noise": lambda seed, first=True, **how: proportions(seed, first, noise=8.0, **how),
}
KINDS = {**INSTANCE, **SETS}
of_every_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS.keys())


def every_observation(labels, log_probs):
    """A batch of everything: the instances in another order."""
    order = torch.randperm(labels.n_instances, generator=gen(3))
    return Batch(order, torch.arange(labels.n_observations), torch.ones(labels.n_instances)), log_probs[order]


# -- likelihood and posterior -----------------------------------------------------------------------------------------


@of_every_kind
def test_every_kind_equals_enumeration(make):
    for seed in range(4):
        found = check(make(seed), log_probs_of(seed))
        assert found.ok, str(found)
        assert found.impossible == 0


@pytest.mark.parametrize(("one", "two"), [*itertools.combinations_with_replacement(KINDS, 2)])
def test_every_pair_of_kinds_with_disjoint_sets_equals_enumeration(one, two):
    labels = KINDS[one](5, first=True) & KINDS[two](5, first=False)
    assert labels.exact
    found = check(labels, log_probs_of(7))
    assert found.ok, str(found)
    assert found.impossible == 0


@of_every_kind
def test_posterior_is_softmax_plus_gradient(make):
    labels, logits = make(1), log_probs_of(2).requires_grad_(True)
    value = labels.log_likelihood(torch.log_softmax(logits, dim=1))
    (slope,) = torch.autograd.grad(value.sum(), logits)
    torch.testing.assert_close(
        labels.posterior(logits.detach()), torch.softmax(logits.detach(), 1) + slope, atol=1e-9, rtol=0
    )
    infer_value, posterior = labels.infer(logits.detach())
    torch.testing.assert_close(infer_value, value.detach())
    assert not infer_value.requires_grad
    assert not posterior.requires_grad
    torch.testing.assert_close(posterior.sum(1), torch.ones(N, dtype=torch.float64))


@of_every_kind
def test_the_gradient_is_that_of_finite_differences(make):
    labels, logits = make(1), log_probs_of(2)
    wanted = labels.posterior(logits) - logits.exp()
    step = 1e-5
    for row, column in ((0, 0), (2, 1), (4, 2)):
        moved = logits.clone()
        moved[row, column] += step
        up = labels.log_likelihood(torch.log_softmax(moved, 1)).sum()
        moved[row, column] -= 2 * step
        down = labels.log_likelihood(torch.log_softmax(moved, 1)).sum()
        assert float((up - down) / (2 * step)) == pytest.approx(float(wanted[row, column]), abs=1e-7)


def test_a_kind_that_gives_its_likelihood_alone_gets_the_rest():
    class Quiz(Labels):
        """One observation: instances 0 and 1 are not both of class 0."""

        n_observations = 1

        def log_likelihood(self, log_probs):
            return torch.log1p(-(log_probs[0, 0] + log_probs[1, 0]).exp())[None]

        def record_scores(self, log_probs):
            return self.log_likelihood(log_probs)

        def _take(self, instances, sets):
            return self

    labels = Quiz(2, 3)
    assert check(labels, log_probs_of(0, 3, 2)).ok
    with torch.no_grad():  # the fallback differentiates all the same
        assert float(labels.posterior(log_probs_of(0, 3, 2))[0, 0]) < float(log_probs_of(0, 3, 2).exp()[0, 0])


def test_five_agreeing_votes_multiply():
    votes = [Exact(torch.tensor([0]), 2, error=0.4) for _ in range(5)]  # right with probability .8
    posterior = All(*votes).posterior(torch.full((1, 2), 0.5, dtype=torch.float64).log())
    assert float(posterior[0, 0]) == pytest.approx(0.8**5 / (0.8**5 + 0.2**5), abs=1e-12)


@of_every_kind
def test_precision_follows_the_log_probs(make):
    labels, log_probs = make(3), log_probs_of(3)
    value, posterior = labels.infer(log_probs)
    low_value, low = labels.infer(log_probs.float())
    assert (value.dtype, posterior.dtype) == (torch.float64, torch.float64)
    assert (low_value.dtype, low.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(low.double(), posterior, atol=2e-6, rtol=0)
    torch.testing.assert_close(low_value.double(), value, atol=1e-5, rtol=1e-5)
    assert labels.log_likelihood(log_probs.float()).dtype == torch.float32
    assert labels.record_scores(log_probs.float()).dtype == torch.float32


# -- hard zeros and contradictions ------------------------------------------------------------------------------------


@of_every_kind
def test_hard_zeros_are_accepted(make):
    y = truth_of(4)
    zeros = [(r, c) for r in range(N) for c in range(K) if c == (int(y[r]) + 1) % K]
    found = check(make(4), log_probs_of(4, zeros=zeros))
    assert found.ok, str(found)
    certain = torch.full((N, K), -torch.inf, dtype=torch.float64).scatter_(1, y[:, None], 0.0)
    found = check(make(4), certain)
    assert found.ok, str(found)


@of_every_kind
def test_contradictions_are_finite_and_have_no_gradient(make):
    labels = make(4)
    wrong = torch.full((N, K), -torch.inf, dtype=torch.float64).scatter_(1, ((truth_of(4) + 1) % K)[:, None], 0.0)
    wrong.requires_grad_(True)
    value = labels.log_likelihood(wrong)
    (slope,) = torch.autograd.grad(value.sum(), wrong)
    assert bool(torch.isfinite(value).all())
    assert bool(torch.isfinite(slope).all())
    impossible = labels.contradictions(wrong.detach())
    torch.testing.assert_close(value[impossible], torch.full_like(value[impossible], -1e4))
    if isinstance(labels, InstanceLabels):
        assert bool((slope[impossible] == 0).all())
        torch.testing.assert_close(labels.posterior(wrong.detach()), wrong.detach().exp())
    assert bool(torch.isfinite(labels.record_scores(wrong.detach())).all())
    assert check(labels, wrong.detach()).ok


def test_evidence_against_itself_is_dropped_and_impossible_sets_are_silent():
    log_probs = log_probs_of(0)
    both = Exact(torch.tensor([0, 1, -1, 2, -1, -1]), K) & Exact(torch.tensor([1, 1, -1, -1, -1, -1]), K)
    value, posterior = both.infer(log_probs)
    assert both.contradictions(log_probs).tolist() == [True] + [False] * 5
    assert float(value[0]) == -1e4
    torch.testing.assert_close(posterior[0], log_probs[0].exp())
    bags = Bags.from_ids(torch.tensor([0, 0, 1, 1, -1, -1]))
    labels = AnyOf(bags, [0, 1], 2, K) & Exact(torch.tensor([2, 1, -1, 0, -1, 1]), K)
    value, posterior = labels.infer(log_probs)
    assert labels.contradictions(log_probs).tolist() == [True, False, False, False]
    torch.testing.assert_close(posterior[:2], torch.eye(K, dtype=torch.float64)[[2, 1]])
    torch.testing.assert_close(posterior[2], torch.eye(K, dtype=torch.float64)[2])  # the bag that is possible speaks


def test_a_member_whose_evidence_contradicts_itself_is_listed_with_its_set():
    log_probs = log_probs_of(0)
    against = Exact(torch.tensor([0, -1, -1, -1, -1, -1]), K) & Exact(torch.tensor([1, -1, -1, -1, -1, -1]), K)
    labels = against & Pairs([0, 2], [1, 3], [1, 1], N, K)
    assert labels.contradictions(log_probs).tolist() == [True, False, False, False]
    pair_alone = Pairs([0, 2], [1, 3], [1, 1], N, K)
    torch.testing.assert_close(labels.posterior(log_probs), pair_alone.posterior(log_probs))  # the evidence is dropped
    assert check(labels, log_probs).ok


def test_a_large_set_may_be_unlikelier_than_a_contradiction():
    n = 2000
    log_probs = torch.tensor([[0.0, -69.0]], dtype=torch.float64).log_softmax(1).expand(n, 2)
    labels = Counts(Bags.from_ids(torch.zeros(n, dtype=torch.long)), torch.tensor([[1000, 1000]]))
    logits = log_probs.clone().requires_grad_(True)
    value = labels.log_likelihood(torch.log_softmax(logits, 1))
    assert float(value.detach()) < -6e4
    assert not bool(labels.contradictions(log_probs).any())
    (slope,) = torch.autograd.grad(value.sum(), logits)
    torch.testing.assert_close(log_probs.exp() + slope, torch.full((n, 2), 0.5, dtype=torch.float64))


# -- observations, records, weights -----------------------------------------------------------------------------------


def test_observations_are_sets_in_order_then_free_instances():
    one = AnyOf(Bags.from_ids(torch.tensor([-1, -1, 0, 0, -1, -1])), [1], 1, K)
    two = Pairs([0], [3], [1], N, K)
    labels = one & Exact(truth_of(), K, error=0.3) & two
    log_probs = log_probs_of()
    assert labels.n_observations == 2 + 3  # instances 1, 4 and 5 lie in no set
    tilted = Exact(truth_of(), K, error=0.3).infer(log_probs)[0]
    torch.testing.assert_close(labels.log_likelihood(log_probs)[2:], tilted[[1, 4, 5]])


def test_records_stand_in_the_order_of_the_parts():
    votes = Crowd([4, 0, 2, 0], [0, 1, 0, 0], [1, 0, -1, 2], K, n_items=N)
    labels = votes & Pairs([0, 2], [1, 3], [1, -1], N, K) & Exact(torch.tensor([0, -1, 1, -1, -1, 2]), K)
    part, row = labels.records()
    assert part.tolist() == [0] * 4 + [1] * 2 + [2] * 6
    assert row.tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4, 5]
    scores = labels.record_scores(log_probs_of())
    missing = [2, 5, 7, 9, 10]
    assert scores.shape == (12,)
    assert scores[missing].tolist() == [0.0] * 5
    assert bool((scores[[r for r in range(12) if r not in missing]] < 0).all())


@of_every_kind
def test_scores_are_all_less_all_but_one(make):
    """Leave each row of the constructor out by selecting: for kinds of one record per instance or set."""
    labels, log_probs = make(6), log_probs_of(6)
    other = Exact.simulate(truth_of(6), K, generator=gen(1), share=0.5, error=0.3)
    if isinstance(labels, InstanceLabels) and labels.record_instances is not None:
        pytest.skip("several records per instance: the check by enumeration covers them")
    together = labels & other
    scores = together.record_scores(log_probs)
    whole = float(together.log_likelihood(log_probs).sum())
    for r in range(labels.n_records):
        if isinstance(labels, SetLabels):
            kept = torch.tensor([s for s in range(labels.n_records) if s != r], dtype=torch.long)
            rest = labels._take(torch.arange(N), kept) & other
            without = float(rest.log_likelihood(log_probs).sum())
        else:
            only = torch.tensor([r])
            own = (labels._take(only, only[:0]) & other._take(only, only[:0])).log_likelihood(log_probs[only])
            without = whole - float(own) + float(other._take(only, only[:0]).log_likelihood(log_probs[only]))
        assert float(scores[r]) == pytest.approx(whole - without, abs=1e-9)


@of_every_kind
def test_weights_never_change_a_posterior(make):
    labels, log_probs = make(2), log_probs_of(2)
    weighted = copy.copy(labels)
    weighted.weight = torch.arange(labels.n_observations) + 0.5
    torch.testing.assert_close(weighted.posterior(log_probs), labels.posterior(log_probs), atol=0, rtol=0)
    torch.testing.assert_close(weighted.record_scores(log_probs), labels.record_scores(log_probs), atol=0, rtol=0)
    torch.testing.assert_close(weighted.log_likelihood(log_probs), labels.log_likelihood(log_probs), atol=0, rtol=0)
    assert weighted.instance_weight().shape == (N,)
    together = weighted & Exact(torch.full((N,), -1), K)
    assert together.weight.shape == (together.n_observations,)
    assert together[[*range(N)][::-1]].weight.shape == (together.n_observations,)


@of_every_kind
def test_a_weight_has_one_number_per_observation(make):
    with pytest.raises(LabelError, match="weight"):
        make(0, weight=torch.ones(N + 5))
    with pytest.raises(LabelError, match="weight"):
        make(0, weight=torch.full((make(0).n_observations,), -1.0))


# -- rows -------------------------------------------------------------------------------------------------------------


def test_several_instances_of_one_row_and_rows_without():
    rows = torch.tensor([0, 0, 2, 2, 2, 3])
    labels = Exact(truth_of(), K, rows=rows, n_rows=6) & Pairs([0], [3], [1], N, K, rows=rows, n_rows=6)
    assert len(labels) == 6
    assert labels.groups().tolist() == [0, 1, 0, 2, 3, 4]
    few = labels[[5, 2, 0]]
    assert len(few) == 3
    assert few.rows.tolist() == [1, 1, 1, 2, 2]
    assert few.parts[0].labels.tolist() == truth_of()[[2, 3, 4, 0, 1]].tolist()
    assert few.parts[1].sets.members.tolist() == [3, 1]
    assert [p.n_rows for p in few.parts] == [3, 3]
    again = few[[2, 1]]
    assert again.rows.tolist() == [0, 0, 1, 1, 1]
    with pytest.raises(LabelError, match="pair 0 of Pairs"):
        labels[[0, 1, 3]]
    with pytest.raises(LabelError, match="n_rows"):
        Exact(truth_of(), K, rows=rows, n_rows=3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (0, "list of rows"),
        ([7], "row 7 is not one of the 6"),
        ([0, -7], "row -7 is not one of the 6"),
        (torch.tensor([True, False]), "mask of 2 rows"),
    ],
)
def test_rows_that_are_not_there_are_named(rows, message):
    with pytest.raises(LabelError, match=message):
        Exact(truth_of(), K)[rows]


def test_a_member_cannot_be_selected_twice():
    labels = Exact(truth_of(), K) & Pairs([0], [1], [1], N, K)
    assert labels[[4, 4, 5]].n_instances == 3
    with pytest.raises(LabelError, match="twice"):
        labels[[0, 1, 0]]


@of_every_kind
def test_rows_can_be_selected_as_scikit_learn_does(make):
    labels, log_probs = make(2), log_probs_of(2)
    value, posterior = labels.infer(log_probs)
    reverse = torch.arange(N - 1, -1, -1)
    for rows in (reverse, reverse.numpy(), reverse.tolist(), -1 - torch.arange(N)):
        turned = labels[rows]
        assert len(turned) == N
        torch.testing.assert_close(turned.posterior(log_probs[reverse]), posterior[reverse])
        torch.testing.assert_close(turned.log_likelihood(log_probs[reverse]).sum(), value.sum())
    part = labels[: N // 2]  # the sets are within the first half
    torch.testing.assert_close(part.posterior(log_probs[: N // 2]), posterior[: N // 2])
    mask = torch.arange(N) < N // 2
    torch.testing.assert_close(labels[mask].posterior(log_probs[: N // 2]), posterior[: N // 2])


@of_every_kind
def test_no_rows_are_labels_too(make):
    nothing, none = make(0)[[]], torch.zeros(0, K)
    value, posterior = nothing.infer(none)
    assert len(nothing) == 0
    assert value.shape == (0,)
    assert posterior.shape == (0, K)
    assert nothing.record_scores(none).shape == (0,)
    assert nothing.groups().shape == (0,)
    assert list(nothing.batches(4, gen())) == []
    assert nothing.log_likelihood(none).shape == (0,)


def test_labels_without_a_set():
    none = torch.empty(0, dtype=torch.long)
    no_bags = Bags(none, torch.zeros(1, dtype=torch.long), N)
    log_probs = log_probs_of()
    for labels in (
        Pairs(none, none, none, N, K),
        Counts(no_bags, torch.empty(0, K)),
        AnyOf(no_bags, none, 0, K),
        Proportions(no_bags, torch.empty(0, K)),
    ):
        torch.testing.assert_close(labels.posterior(log_probs), log_probs.exp())
        both = labels & Exact(truth_of(), K)
        torch.testing.assert_close(both.log_likelihood(log_probs), Exact(truth_of(), K).log_likelihood(log_probs))
        assert labels.record_scores(log_probs).shape == (0,)
        assert labels.groups().tolist() == list(range(N))


# -- batches ----------------------------------------------------------------------------------------------------------


@of_every_kind
@pytest.mark.parametrize("world", [1, 2, 3])
def test_an_epoch_holds_every_observation_once(make, world):
    labels = make(1) & Exact.simulate(truth_of(1), K, generator=gen(), share=0.5, error=0.1)
    ranks = [list(labels.batches(2, gen(5), rank, world)) for rank in range(world)]
    assert len({len(r) for r in ranks}) == 1
    batches = [b for r in ranks for b in r]
    seen = torch.cat([b.observations for b in batches])
    assert sorted(seen.tolist()) == list(range(labels.n_observations))
    weight = torch.zeros(N)
    for b in batches:
        assert b.weight.shape == b.instances.shape
        weight.index_add_(0, b.instances, b.weight)
        few = labels.select(b)
        assert few.n_instances == len(b.instances)
        few.infer(log_probs_of()[b.instances])
    torch.testing.assert_close(weight, torch.ones(N))


@of_every_kind
def test_a_batch_is_re_indexed(make):
    labels, log_probs = make(2), log_probs_of(2)
    batch, turned = every_observation(labels, log_probs)
    few = labels.select(batch)
    torch.testing.assert_close(few.posterior(turned), labels.posterior(log_probs)[batch.instances])
    _, row = few.records()
    scores = few.record_scores(turned)
    torch.testing.assert_close(scores, labels.record_scores(log_probs)[row])
    assert [a is b for a, b in zip(few.channels, labels.channels, strict=True)] == [True] * len(labels.channels)


def test_batches_of_small_components_add_up():
    ids = torch.arange(60) // 3
    truth = truth_of(0, 60)
    labels = Counts.simulate(truth, K, generator=gen(), bags=Bags.from_ids(ids)) & Exact.simulate(
        truth, K, generator=gen(), share=0.3, error=0.2
    )
    log_probs = log_probs_of(0, 60)
    value, posterior = labels.infer(log_probs)
    total, seen = 0.0, 0
    for batch in labels.batches(10, gen(2)):
        assert len(batch.instances) <= 12
        few_value, few = labels.select(batch).infer(log_probs[batch.instances])
        torch.testing.assert_close(few, posterior[batch.instances])
        total, seen = total + float(few_value.sum()), seen + len(batch.instances)
    assert seen == 60
    assert total == pytest.approx(float(value.sum()), rel=1e-12)


def test_batches_are_drawn_from_the_generator():
    labels = Exact(truth_of(0, 50), K)
    first, again, other = ([b.instances.tolist() for b in labels.batches(8, gen(s))] for s in (1, 1, 2))
    assert first == again
    assert first != other
    with pytest.raises(LabelError, match="size of a batch"):
        list(labels.batches(0, gen()))


def test_select_costs_what_the_batch_holds():
    def seconds(n):
        truth = torch.arange(n) % 10
        pairs_ = Pairs(torch.arange(0, n, 4), torch.arange(1, n, 4), torch.zeros(n // 4), n, 10)
        votes = Crowd(torch.arange(n), torch.arange(n) % 7, truth, 10)
        labels = Exact(truth, 10) & pairs_ & votes
        stream = labels.batches(256, gen())
        next(stream)
        spent = []
        for _ in range(15):
            begun = time.process_time()
            labels.select(next(stream))
            spent.append(time.process_time() - begun)
        return sorted(spent)[7]

    small, large = seconds(4_000), seconds(400_000)
    assert large < 5 * small + 2e-3


# -- classes ----------------------------------------------------------------------------------------------------------


@of_every_kind
def test_an_injective_map_moves_columns(make):
    labels, log_probs = make(3), log_probs_of(3)
    ordered = isinstance(labels, Interval | Compare) or getattr(labels, "rule", "") == "highest"
    if not ordered:  # classes may change places
        permutation = torch.tensor([2, 0, 1])
        turned = labels.relabel(permutation, K).posterior(log_probs[:, permutation.argsort()])
        torch.testing.assert_close(turned[:, permutation], labels.posterior(log_probs))
    mapping = torch.tensor([1, 2, 3]) if ordered else torch.tensor([3, 0, 2])
    wide = torch.full((N, 4), -torch.inf, dtype=torch.float64)
    wide[:, mapping] = log_probs
    moved = labels.relabel(mapping, 4)
    assert moved.n_classes == 4
    if not getattr(labels, "error", 0.0):  # an error draws from all classes, of which there are now more
        torch.testing.assert_close(moved.posterior(wide)[:, mapping], labels.posterior(log_probs))
    found = check(moved, log_probs_of(3, k=4))
    assert found.ok, str(found)
    with pytest.raises(LabelError):
        labels.relabel(torch.tensor([0, 1]), 4)
    with pytest.raises(LabelError):
        labels.relabel(torch.tensor([0, 1, 9]), 4)


@of_every_kind
def test_merging_is_exact_or_refused(make):
    labels, log_probs = make(3), log_probs_of(3)
    mapping = torch.tensor([0, 1, 1])
    try:
        merged = labels.relabel(mapping, 2)
    except LabelError:
        return
    coarse_probs = torch.stack([log_probs[:, 0], torch.logsumexp(log_probs[:, 1:], 1)], dim=1)
    found = check(merged, coarse_probs)
    assert found.ok, str(found)
    # no more is said than before: merging and then looking agrees with looking and then merging, or is less sharp
    assert bool((merged.log_likelihood(coarse_probs) >= labels.log_likelihood(log_probs) - 1e-9).all())


@of_every_kind
def test_labels_move_to_a_device_and_keep_their_meaning(make):
    labels, log_probs = make(3), log_probs_of(3)
    moved = labels.to("cpu")
    assert moved is not labels
    torch.testing.assert_close(moved.posterior(log_probs), labels.posterior(log_probs))


def test_one_class_says_nothing():
    log_probs = torch.zeros(4, 1, dtype=torch.float64)
    bags = Bags.from_ids(torch.tensor([0, 0, 1, 1]))
    zero = torch.zeros(4, dtype=torch.long)
    for labels in (
        Exact(zero, 1),
        Exact(zero, 1, error=0.5),
        Coarse(zero, torch.ones(1, 1)),
        Candidates(torch.ones(4, 1, dtype=torch.bool)),
        Interval(zero, zero, 1),
        Soft(torch.ones(4, 1), kind="evidence"),
        Noisy(zero, 1),
        Crowd(zero, zero, zero, 1, n_items=4),
        Pairs([0], [1], [1], 4, 1),
        Counts(bags, torch.tensor([[2], [2]])),
        AnyOf(bags, [1, 1], 0, 1),
        Proportions(bags, torch.ones(2, 1)),
    ):
        value, posterior = labels.infer(log_probs)
        torch.testing.assert_close(posterior, torch.ones(4, 1, dtype=torch.float64))
        torch.testing.assert_close(value, torch.zeros_like(value), atol=1e-9, rtol=0)
    assert bool(Pairs([0], [1], [0], 4, 1).contradictions(log_probs).all())


@pytest.mark.parametrize("make", INSTANCE.values(), ids=INSTANCE.keys())
def test_asked_for_classes_and_the_rest(make):
    labels, asked = make(1), torch.tensor([2, 0])
    full, few = labels.log_evidence(torch.float64), labels.log_evidence(torch.float64, classes=asked)
    torch.testing.assert_close(few[:, :2], full[:, asked])
    torch.testing.assert_close(few[:, 2].exp(), full[:, [1]].exp().mean(1))


def test_many_classes_need_no_table():
    n, k = 100_000, 10_000  # a full table would hold 10**9 numbers
    labels = Exact(torch.arange(n) % k, k, error=0.1)
    few = labels.log_evidence(torch.float32, classes=torch.arange(5))
    assert few.shape == (n, 6)
    small = Exact(torch.arange(20) % 10, 10, error=0.1)
    torch.testing.assert_close(
        small.log_evidence(torch.float64, classes=torch.tensor([3]))[:, 1].exp(),
        small.log_evidence(torch.float64).exp()[:, [c for c in range(10) if c != 3]].mean(1),
    )


def test_parts_share_one_class_list():
    with pytest.raises(LabelError, match="class lists"):
        Exact(truth_of(), K, class_names="abc") & Pairs([0], [1], [1], N, K, class_names="abd")
    with pytest.raises(LabelError, match="another order"):
        Exact(truth_of(), K, class_names="abc") & Exact(truth_of(), K, class_names="acb")
    both = Exact(truth_of(), K) & Pairs([0], [1], [1], N, K, class_names="abc")
    assert both.class_names == ("a", "b", "c")
    assert (both & Exact(truth_of(), K)).parts[2].n_classes == K
    with pytest.raises(LabelError, match="different data rows"):
        Exact(truth_of(), K) & Exact(truth_of(), K, rows=torch.arange(N).flip(0))


def test_sets_have_no_evidence_of_one_instance():
    for make in SETS.values():
        with pytest.raises(LabelError, match="no evidence of a single instance"):
            make(0).log_evidence()
    with pytest.raises(LabelError, match="no evidence of a single instance"):
        (Exact(truth_of(), K) & pairs(0)).log_evidence()


# -- bags -------------------------------------------------------------------------------------------------------------


def test_nested_and_overlapping_bags():
    bags = Bags(torch.tensor([0, 1, 2, 3, 1, 2, 2, 4]), torch.tensor([0, 4, 6, 8]), N)
    truth = truth_of(2)
    labels = Counts.simulate(truth, K, generator=gen(), bags=bags) & AnyOf.simulate(
        truth, K, generator=gen(), bags=bags, target=1
    )
    found = check(labels, log_probs_of(2))
    assert found.ok, str(found)
    assert labels.groups().tolist() == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bags(torch.tensor([0, 1]), torch.tensor([0, 0, 2])), "bag 0 has no member"),
        (lambda: Bags(torch.tensor([0, 0]), torch.tensor([0, 2])), "bag 0 names instance 0 twice"),
        (lambda: Bags(torch.tensor([0, 9]), torch.tensor([0, 2]), 5), "names instance 9"),
        (lambda: Bags(torch.tensor([0, 1]), torch.tensor([0, 3])), "run from 0 to 2"),
        (lambda: Bags.from_ids(torch.tensor([0, 2])), "bag 1 has no member"),
        (lambda: Bags.from_ids(torch.tensor([0, -2])), "below -1"),
        (lambda: Counts(Bags.from_ids([0, 0]), torch.tensor([[3, -1]])), "above its number of members"),
        (lambda: Counts(Bags.from_ids([0, 0]), torch.tensor([[1, 0]])), "do not sum"),
        (lambda: AnyOf(Bags.from_ids([0, 0]), [2], 0, 2), "not 1 "),
        (lambda: Pairs([0], [0], [1], 2, 2), "with itself"),
        (lambda: Pairs([0], [5], [1], 2, 2), "outside 0..1"),
    ],
)
def test_bad_sets_are_named(make, message):
    with pytest.raises(LabelError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Exact(torch.zeros(2, 3, dtype=torch.long), K), "expected one number per row"),
        (lambda: Candidates(torch.tensor([[0.5, 0.2]])), "other than 0 and 1"),
        (lambda: Candidates(torch.ones(3)), "expected .N, K."),
        (lambda: Complementary(torch.tensor([[1, -1, 0]])), "other than 0 and 1"),
        (lambda: Pairs([0.7], [1.0], [1], 3, 2), "0.7 is not"),
        (lambda: Pairs([0], [1], [0.5], 3, 2), "0.5 is not"),
        (lambda: AnyOf(Bags.from_ids([0, 0]), [0.5], 0, 2), "0.5 is not"),
        (lambda: Bags.from_ids([0.0, 1.0, float("nan")]), "nan is not"),
        (lambda: Exact(truth_of(), K) & 3, "int is neither"),
        (lambda: Exact(truth_of(), K).infer(log_probs_of(n=5)), r"shape .5, 3.; expected .6, 3."),
        (lambda: pairs(0).infer(log_probs_of(k=4)), r"shape .6, 4.; expected .6, 3."),
    ],
)
def test_bad_input_is_refused_in_one_line(make, message):
    with pytest.raises(LabelError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@of_every_kind
def test_labels_can_be_copied_and_pickled(make):
    labels, log_probs = make(0), log_probs_of()
    posterior = labels.posterior(log_probs)
    for other in (copy.deepcopy(labels), pickle.loads(pickle.dumps(labels))):
        torch.testing.assert_close(other.posterior(log_probs), posterior)


@pytest.mark.parametrize("error", [0.0, 0.3])
def test_all_answers_together_have_probability_one(error):
    log_probs = log_probs_of(1)
    bags = Bags.from_ids(torch.tensor([0, 0, 0, 0, -1, -1]))
    said = [
        [Exact(torch.tensor([c] * N), K, error=error)[[0]] for c in range(K)],
        [Pairs([0], [1], [a], N, K, error=error) for a in (0, 1)],
        [AnyOf(bags, [a], [0, 2], K, error=error) for a in (0, 1)],
        [
            Counts(bags, torch.tensor([[a, b, 4 - a - b]]), error=error)
            for a, b in itertools.product(range(5), range(5))
            if a + b <= 4
        ],
        [Counts(bags, torch.tensor([[a, -1, -1]]), error=error) for a in range(5)],
    ]
    for kinds in said:
        total = sum(float(o.log_likelihood(log_probs[: o.n_instances])[0].exp()) for o in kinds)
        assert total == pytest.approx(1.0, abs=1e-12)


# -- how much it costs ------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:belief propagation")
def test_joined_pairs_cost_a_few_passes():
    """Trees, tracks and loops over 10 000 instances; sweeps over everything took minutes."""
    n, k = 10_000, 5
    truth = truth_of(0, n, k)
    log_probs = torch.log_softmax(log_probs_of(0, n, k) + 1.5 * torch.nn.functional.one_hot(truth, k), dim=1)
    later = torch.arange(1, n)
    tree = (torch.rand(n - 1, generator=gen()) * later).long()
    track = torch.arange(n - 1)
    track = track[track % 100 != 99]
    loose = torch.randint(n, (n,), generator=gen())
    for i, j in ((tree, later), (track, track + 1), (loose, (loose + 7) % n)):
        labels = All(Pairs(i, j, truth[i] == truth[j], n, k, error=0.1))
        begun = time.process_time()
        _, posterior = labels.infer(log_probs)
        assert time.process_time() - begun < 15
        before, after = ((p.argmax(1) == truth).double().mean() for p in (log_probs, posterior))
        assert float(after - before) > 0.01
