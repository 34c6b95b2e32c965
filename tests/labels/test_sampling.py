"""Labels of how rows were sampled, against the sampling itself on a world of few x."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels import (
    All,
    Coarse,
    Exact,
    LabelError,
    Pairs,
    PairsUnlabeled,
    Positive,
    Sampled,
    TwoUnlabeled,
    aggregate,
    check,
    identifiability,
)

X = 5  # values of x


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(seed, *shape):
    """Random distributions over the last axis."""
    return torch.softmax(torch.randn(*shape, dtype=torch.float64, generator=gen(seed)), dim=-1)


class World:
    """p(x | y) over X values of x, and the model that knows the pooled rows."""

    def __init__(self, seed, k):
        self.given_y = drawn(seed, k, X)

    def density(self, prior):
        """p(x) of rows whose classes have this prior, (X,)."""
        return prior @ self.given_y

    def model(self, prior):
        """log p(y | x) of rows whose classes have this prior, (X, K)."""
        return (prior[:, None] * self.given_y / self.density(prior)).T.log()


def log_probs_of(seed=0, n=6, k=3):
    return torch.log_softmax(torch.randn(n, k, dtype=torch.float64, generator=gen(seed)), dim=1)


# -- the formulas are those of the sampling ---------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(2, 4), sizes=st.lists(st.integers(1, 9), min_size=2, max_size=4))
def test_the_group_of_a_row_has_the_probability_that_sampling_gives_it(seed, k, sizes):
    world, theta, n = World(seed, k), drawn(seed + 1, len(sizes), k), torch.tensor(sizes).double()
    of_groups = n / n.sum()
    pooled = of_groups @ theta
    in_group = of_groups[:, None] * torch.stack([world.density(t) for t in theta])  # P(g, x)
    group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    population = drawn(seed + 2, k)
    labels = Sampled(group, theta, prior=population)
    torch.testing.assert_close(labels.pooled_prior, pooled)
    for g in range(len(sizes)):
        row = int((group == g).nonzero()[0, 0])
        one = labels[[row] * X]
        value, posterior = one.infer(world.model(pooled))
        torch.testing.assert_close(value.exp(), in_group[g] / in_group.sum(dim=0), rtol=1e-9, atol=0)
        torch.testing.assert_close(posterior, world.model(theta[g]).exp(), rtol=0, atol=1e-9)
    moved = torch.log_softmax(world.model(pooled) + labels.log_prior_shift, dim=1)
    torch.testing.assert_close(moved, world.model(population), rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    prior=st.floats(0.3, 0.95),
    labelled=st.integers(1, 10),
    scenario=st.sampled_from(["single", "case-control"]),
)
def test_positive_is_the_sampling_of_both_scenarios(seed, prior, labelled, scenario):
    world, total = World(seed, 2), 40
    population = torch.tensor([1 - prior, prior], dtype=torch.float64)
    positive, everyone = world.given_y[1], world.density(population)
    if scenario == "single":  # a row of the population, then labelled with probability c if it is positive
        share = labelled / (total * prior)
        with_label = prior * share * positive
        without = everyone - with_label
        pooled = population
    else:  # drawn from the positives, or from the population
        with_label, without = labelled / total * positive, (1 - labelled / total) * everyone
        pooled = torch.tensor([(total - labelled) / total * (1 - prior), 0], dtype=torch.float64)
        pooled[1] = 1 - pooled[0]
    said = torch.arange(total) < labelled
    labels = Positive(said, prior=prior, scenario=scenario)
    torch.testing.assert_close(labels.pooled_prior, pooled)
    for row, joint in ((0, with_label), (total - 1, without)):
        value, posterior = labels[[row] * X].infer(world.model(pooled))
        torch.testing.assert_close(value.exp(), joint / (with_label + without), rtol=1e-9, atol=1e-12)
        truth = [0.0, 1.0] if row == 0 else None
        if truth is not None:
            torch.testing.assert_close(posterior, torch.tensor([truth] * X, dtype=torch.float64))
    moved = torch.log_softmax(world.model(pooled) + labels.log_prior_shift, dim=1)
    torch.testing.assert_close(moved, world.model(population), rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(2, 4),
    n_same=st.integers(0, 6),
    n_different=st.integers(0, 6),
    n_free=st.integers(0, 9),
    error=st.sampled_from([0.0, 0.3]),
)
def test_pairs_have_the_density_that_sampling_gives_them(seed, k, n_same, n_different, n_free, error):
    n_same = max(n_same, 1 - n_different)
    world, prior = World(seed, k), drawn(seed + 1, k)
    # all pairs of the population with the answer that they get: P(y, y', answer "same")
    both = prior[:, None] * prior
    said_same = both * ((1 - error) * torch.eye(k, dtype=torch.float64) + error / 2)
    of_classes = {1: said_same / said_same.sum(), 0: (both - said_same) / (1 - said_same.sum())}
    n = 2 * (n_same + n_different) + n_free
    pooled = n_free * prior + n_same * of_classes[1].sum(0) * 2 + n_different * of_classes[0].sum(0) * 2
    pooled = pooled / n
    pairs = torch.arange(2 * (n_same + n_different)).reshape(-1, 2)
    same = torch.arange(len(pairs)) < n_same
    labels = PairsUnlabeled(pairs, same, n, prior, error=error)
    torch.testing.assert_close(labels.pooled_prior, pooled)
    model, base = world.model(pooled), world.density(pooled)
    for answer, first in ((1, 0), (0, n_same)):
        if not bool((same == bool(answer)).any()):
            continue
        density = torch.einsum("ab,ax,bz->xz", of_classes[answer], world.given_y, world.given_y)
        want = (density / (base[:, None] * base)).log()
        kept = labels[[2 * first, 2 * first + 1]]
        for x in range(X):
            for z in range(X):
                found, posterior = kept.infer(model[[x, z]])
                torch.testing.assert_close(found, want[x, z][None], rtol=1e-9, atol=1e-9)
                of_first = of_classes[answer] * world.given_y[:, x, None] * world.given_y[:, z]
                of_first = of_first.sum(dim=1) / of_first.sum()
                torch.testing.assert_close(posterior[0], of_first, rtol=0, atol=1e-9)
    if n_free:
        value, posterior = labels[[n - 1] * X].infer(model)
        torch.testing.assert_close(value, (world.density(prior) / base).log(), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(posterior, world.model(prior).exp(), rtol=0, atol=1e-9)
    moved = torch.log_softmax(model + labels.log_prior_shift, dim=1)
    torch.testing.assert_close(moved, world.model(prior), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("error", [0.0, 0.2])
def test_pairs_and_rows_equal_enumeration_beside_other_kinds(error):
    truth = torch.randint(3, (6,), generator=gen(1))
    labels = PairsUnlabeled([[0, 1], [4, 2]], [1, 0], 6, [0.2, 0.3, 0.5], error=error)
    group = Sampled(torch.tensor([0, 1, 1, 0, 0, -1]), [[0.2, 0.3, 0.5], [0.6, 0.2, 0.2]], error=0.1)
    for other in (
        None,
        Exact(truth, 3, error=0.3),
        Coarse(torch.tensor([0, -1, 1, -1, -1, 0]), torch.tensor([[1.0, 1, 0], [0, 0, 1]]), error=0.1),
        group,
        Pairs([2, 5], [3, 4], [1, 0], 6, 3, error=0.1),
    ):
        both = labels if other is None else labels & other
        found = check(both, log_probs_of(3))
        assert found.ok, str(found)
        assert both.exact


# -- limits -----------------------------------------------------------------------------------------------------------


def test_where_all_positives_are_labelled_the_rest_is_negative():
    truth = torch.tensor([1, 0, 1, 0, 0])
    labels = Positive(truth == 1, prior=0.4)
    assert labels.c == 1
    torch.testing.assert_close(
        labels.log_evidence(torch.float64), Exact(truth, 2).log_evidence(torch.float64), rtol=0, atol=0
    )


def test_where_few_positives_are_labelled_the_rest_says_nothing():
    labels = Positive(torch.arange(10**5) < 1, prior=0.5)
    evidence = labels.log_evidence(torch.float64)[1:]
    assert float(evidence.abs().max()) < 3e-5


def test_groups_of_one_class_are_exact_labels():
    truth = torch.tensor([2, 0, 1, 1, -1])
    labels, log_probs = Sampled(truth, torch.eye(3)), log_probs_of(n=5)
    value, posterior = labels.infer(log_probs)
    want, exact = Exact(truth, 3).infer(log_probs)
    torch.testing.assert_close(posterior, exact)
    torch.testing.assert_close(value, want)
    two = TwoUnlabeled(torch.tensor([1, 0, 0]), [0.0, 1.0])
    torch.testing.assert_close(two.log_evidence(), Exact(torch.tensor([1, 0, 0]), 2).log_evidence())


def test_two_unlabelled_sets_are_two_groups():
    group = torch.tensor([0, 0, 1, -1, 1, 1])
    labels, log_probs = TwoUnlabeled(group, [0.2, 0.7], prior=0.4), log_probs_of(k=2)
    both = Sampled(group, [[0.8, 0.2], [0.3, 0.7]], prior=[0.6, 0.4])
    torch.testing.assert_close(labels.posterior(log_probs), both.posterior(log_probs))
    torch.testing.assert_close(labels.log_prior_shift, both.log_prior_shift)
    torch.testing.assert_close(labels.pooled_prior, torch.tensor([1 - 2.5 / 5, 2.5 / 5], dtype=torch.float64))


def test_case_control_with_unlabelled_positives_only_is_two_unlabelled_sets():
    said, log_probs = torch.tensor([1, 1, 0, 0, 0, -1]), log_probs_of(k=2)
    labels = Positive(said, prior=0.3, scenario="case-control")
    sets = TwoUnlabeled(torch.where(said < 0, -1, 1 - said), [1.0, 0.3], prior=0.3)
    torch.testing.assert_close(labels.posterior(log_probs), sets.posterior(log_probs))
    torch.testing.assert_close(labels.log_likelihood(log_probs), sets.log_likelihood(log_probs))
    torch.testing.assert_close(labels.log_prior_shift, sets.log_prior_shift)


def test_random_pairs_all_answered_are_pairs():
    """Then the pool is the population, and only constants differ."""
    prior = torch.tensor([0.5, 0.5], dtype=torch.float64)
    pairs, same = torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7]]), torch.tensor([1, 1, 0, 0])
    labels, log_probs = PairsUnlabeled(pairs, same, 10, prior), log_probs_of(n=10, k=2)
    plain = Pairs(pairs[:, 0], pairs[:, 1], same, 10, 2)
    torch.testing.assert_close(labels.log_prior_shift, torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(labels.posterior(log_probs), plain.posterior(log_probs))
    torch.testing.assert_close(
        labels.log_likelihood(log_probs)[:4], plain.log_likelihood(log_probs) - torch.tensor(0.5).double().log()
    )


def test_simulated_labels_find_their_class_shares_again():
    truth = (torch.rand(40_000, generator=gen(3)) < 0.3).long()
    labels = Positive.simulate(truth, 2, generator=gen(4), share=0.2, scenario="case-control")
    assert labels.c == pytest.approx(0.2, abs=0.01)
    assert bool((truth[labels.group == 0] == 1).all())
    assert labels.prior == pytest.approx(0.3 * 0.8 / (1 - 0.3 * 0.2), abs=0.01)
    sets = TwoUnlabeled.simulate(truth, generator=gen(5), priors=(0.1, 0.6))
    shares = [float(truth[sets.group == g].double().mean()) for g in (0, 1)]
    wanted = [
        0.1 / 0.7 * 0.3 / (0.1 / 0.7 * 0.3 + 0.9 / 1.3 * 0.7),
        0.6 / 0.7 * 0.3 / (0.6 / 0.7 * 0.3 + 0.4 / 1.3 * 0.7),
    ]
    assert shares == pytest.approx(wanted, abs=0.01)
    pairs = PairsUnlabeled.simulate(truth, 2, generator=gen(6), n_pairs=10_000)
    assert float((pairs.pooled_prior[1] - 0.3).abs()) < 0.01
    # the labels' own probability of each group is its frequency
    for made in (labels, sets):
        rate = made.log_evidence(torch.float64).exp()
        for k in (0, 1):
            mine = made.group[truth == k]
            counted = torch.bincount(mine, minlength=2).double() / len(mine)
            stated = torch.stack([rate[made.group == g][0, k] for g in (0, 1)])
            torch.testing.assert_close(counted, stated, atol=0.01, rtol=0)


def test_what_the_sampling_identifies():
    pairs = [[0, 1], [2, 3]]
    assert identifiability(PairsUnlabeled(pairs, [1, 1], 6, [0.3, 0.7])) == []
    assert "permute" in identifiability(PairsUnlabeled(pairs, [1, 1], 6, [0.5, 0.5]))[0]
    assert identifiability(PairsUnlabeled(pairs, [1, 0], 6, [0.2, 0.4, 0.4]))  # two of one size
    assert identifiability(TwoUnlabeled(torch.tensor([0, 1, 1]), [0.2, 0.7])) == []
    assert identifiability(Positive(torch.tensor([1, 0, 0]), prior=0.5)) == []
    (message,) = identifiability(Positive(torch.tensor([1, 0, 0]), 3, prior=0.5))
    assert "nothing tells classes 0, 2 apart" in message


# -- what belongs to the labels, not to a batch -----------------------------------------------------------------------


def test_a_selection_keeps_the_sampling_of_the_whole():
    labels = Positive(torch.arange(100) < 10, prior=0.5)
    evidence = labels.log_evidence()
    for part in (labels[[0, 50]], labels[torch.arange(100) >= 10]):
        assert part.c == labels.c == 0.2
        assert part.log_evidence()[-1].tolist() == evidence[50].tolist()
    for batch in labels.batches(7, gen()):
        few = labels.select(batch)
        torch.testing.assert_close(few.log_evidence(), evidence[batch.instances])
    pairs = PairsUnlabeled([[0, 1]], [1], 10, [0.3, 0.7])
    log_probs = log_probs_of(n=10, k=2)
    torch.testing.assert_close(pairs[[5, 1, 0]].posterior(log_probs[[5, 1, 0]]), pairs.posterior(log_probs)[[5, 1, 0]])
    assert isinstance(pairs[[5]], PairsUnlabeled)
    assert pairs[[5]].pooled_prior is not None


def test_classes_beside_the_target_may_merge():
    labels = Positive(torch.tensor([1, 0, 0, -1]), 4, prior=0.5, target=2, scenario="case-control")
    merged = labels.relabel(torch.tensor([0, 0, 1, 0]), 2)
    torch.testing.assert_close(merged.log_evidence(), labels.log_evidence()[:, [0, 2]])
    torch.testing.assert_close(merged.log_prior_shift, labels.log_prior_shift[[0, 2]])
    assert labels.pooled_prior is None
    assert merged.pooled_prior is not None
    with pytest.raises(LabelError, match="cannot merge its target"):
        labels.relabel(torch.tensor([0, 1, 1, 0]), 2)


def test_a_joint_shift_is_that_of_the_part_that_states_one():
    one = Positive(torch.tensor([1, 0, 0]), prior=0.5, scenario="case-control")
    both = Exact(torch.tensor([-1, 0, -1]), 2) & one
    torch.testing.assert_close(both.log_prior_shift, one.log_prior_shift)
    torch.testing.assert_close(both.pooled_prior, one.pooled_prior)
    assert Exact(torch.tensor([0]), 2).log_prior_shift.tolist() == [0.0, 0.0]
    with pytest.raises(LabelError, match="shift the class prior differently"):
        _ = All(one, Positive(torch.tensor([1, 0, 0]), prior=0.2, scenario="case-control")).log_prior_shift


def test_an_unknown_prior_is_asked_for():
    labels = Positive(torch.tensor([1, 0, 0, 0]))
    assert labels.c is None
    for use in (labels.log_evidence, lambda: labels.posterior(log_probs_of(n=4, k=2)), lambda: aggregate(labels)):
        with pytest.raises(LabelError, match="no class prior yet; give prior="):
            use()
    known = labels.with_prior(0.5)
    torch.testing.assert_close(
        known.log_evidence(), Positive(torch.tensor([1, 0, 0, 0]), prior=0.5).log_evidence(), rtol=0, atol=0
    )
    assert labels.prior is None  # as it was


def test_an_error_keeps_the_sizes_of_the_groups():
    for labels in (
        Positive(torch.arange(20) < 4, prior=0.4, error=0.3),
        Sampled(torch.arange(20) % 3, drawn(0, 3, 2), error=0.3),
    ):
        rate = torch.stack(
            [labels.log_evidence(torch.float64)[labels.group == g][0].exp() for g in labels.group.unique()]
        )
        torch.testing.assert_close(rate.sum(dim=0), torch.ones(2, dtype=torch.float64))
        share = torch.bincount(labels.group).double() / 20
        torch.testing.assert_close(rate @ labels.pooled_prior, share)


# -- tables and bad input ---------------------------------------------------------------------------------------------


def test_labels_are_read_from_columns():
    frame = {"label": ["spam", "", None, "spam", "nan"], "batch": ["B", "A", "", "A", "A"]}
    labels = Positive.from_frame(frame, "label", target="spam", classes=["spam", "ham"], prior=0.5)
    assert (labels.group == 0).tolist() == [True, False, False, True, False]
    assert labels.target_class == 0
    assert labels.class_names == ("spam", "ham")
    sets = TwoUnlabeled.from_frame(frame, "batch", priors={"A": 0.1, "B": 0.8}, classes=["ham", "spam"])
    assert sets.group.tolist() == [1, 0, -1, 0, 0]
    groups = Sampled.from_frame(frame, "batch", shares={"A": {"ham": 0.9, "spam": 0.1}, "B": {"spam": 1.0}})
    assert groups.class_names == ("ham", "spam")
    assert groups.log_evidence()[0].tolist()[0] == -torch.inf
    with pytest.raises(LabelError, match='"ham"'):
        Positive.from_frame({"label": ["ham", ""]}, "label", target="spam", classes=["spam", "ham"])
    with pytest.raises(LabelError, match="not among the classes"):
        Positive.from_frame(frame, "label", target="eggs", classes=["spam", "ham"])
    with pytest.raises(LabelError, match='"C"'):
        TwoUnlabeled.from_frame({"batch": ["A", "C"]}, "batch", priors={"A": 0.1, "B": 0.8}, classes="ab")


SOME = torch.tensor([1, 0, 0, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Positive(SOME, prior=1.2), "class prior is 1.2; expected a probability above 0 and below 1"),
        (lambda: Positive(SOME, prior=0.0), "above 0 and below 1"),
        (lambda: Positive(SOME, prior=float("nan")), "class prior is nan"),
        (
            lambda: Positive(SOME, prior=0.2),
            "1 of 4 rows are labelled positive, a share of 0.25, above the class prior",
        ),
        (lambda: Positive(SOME * 0), "no row is labelled"),
        (lambda: Positive(SOME * 0 + 1), "every row is labelled"),
        (lambda: Positive(SOME + 5), "outside"),
        (lambda: Positive(SOME, target=2), "target is class 2"),
        (lambda: Positive(SOME, scenario="both"), 'scenario is "both"'),
        (lambda: TwoUnlabeled(SOME, [0.4, 0.4]), "identifies nothing"),
        (lambda: TwoUnlabeled(SOME, [0.4, 1.4]), "set 1 has a class prior outside 0..1"),
        (lambda: TwoUnlabeled(SOME, [0.4]), "expected 2"),
        (lambda: TwoUnlabeled(SOME * 0, [0.4, 0.5]), "group 1 has no row"),
        (lambda: TwoUnlabeled(SOME, [0.4, 0.5], prior=1.0), "above 0 and below 1"),
        (lambda: TwoUnlabeled(SOME + 1, [0.4, 0.5]), "outside 0..1"),
        (lambda: Sampled(SOME, [[0.5, 0.4], [0.2, 0.8]]), "group 0 has class shares that do not sum to 1"),
        (lambda: Sampled(SOME, [[0.5, 0.5], [0.5, 0.5]]), "tells no classes apart"),
        (lambda: Sampled(SOME, [[0.5, 0.5], [0.2, 0.8]], prior=[0.5, 0.2, 0.3]), r"expected .2,."),
        (lambda: Sampled(SOME, [[0.5, 0.5], [0.2, 0.8]], prior=[0.5, 0.2]), "sums to 0.7"),
        (lambda: PairsUnlabeled([[0, 9]], [1], 4, 0.3), "outside 0..3"),
        (lambda: PairsUnlabeled([[0, 1], [1, 2]], [1, 1], 4, 0.3), "row 1 stands in two pairs"),
        (lambda: PairsUnlabeled([[0, 1]], [-1], 4, 0.3), "pair 0 has no answer"),
        (lambda: PairsUnlabeled([[0, 1, 2]], [1], 4, 0.3), "expected .P, 2."),
        (lambda: PairsUnlabeled(torch.empty(0, 2), [], 4, 0.3), "no pair"),
        (lambda: PairsUnlabeled([[0, 1]], [1], 4, 1.3), "above 0 and below 1"),
        (lambda: PairsUnlabeled([[0, 1]], [1], 4, [0.2, 0.2]), "sums to 0.4"),
    ],
)
def test_bad_input_is_refused_in_one_line(make, message):
    with pytest.raises(LabelError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_labels_can_be_copied():
    for labels in (Positive(SOME, prior=0.5), PairsUnlabeled([[0, 1]], [1], 4, 0.3)):
        log_probs = log_probs_of(n=4, k=2)
        torch.testing.assert_close(copy.deepcopy(labels).posterior(log_probs), labels.posterior(log_probs))
