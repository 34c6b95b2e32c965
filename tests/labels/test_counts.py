"""Counts: enumeration, limits, merging, errors and simulation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels import Bags, Exact, LabelError, check
from anygrain.labels.counts import Counts, count_classes

K = 3
BAGS = Bags(torch.tensor([4, 0, 1, 2, 3, 5]), torch.tensor([0, 3, 4, 6]), 7)


def log_probs_of(seed: int, n: int, k: int = K) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(3 * torch.randn(n, k, dtype=torch.float64, generator=generator), dim=1)


@settings(max_examples=50, deadline=None)
@given(
    k=st.sampled_from([2, 3]),
    error=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 1000),
    known=st.sampled_from([1.0, 0.6]),
    hard=st.booleans(),
)
def test_equals_enumeration(k, error, seed, known, hard):
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(0, k, (7,), generator=generator)
    labels = Counts.simulate(classes, k, generator=generator, bags=BAGS, known=known, error=error)
    if hard:  # also against the truth of some members: contradictions
        labels = labels & Exact(torch.tensor([0, -1, 1, -1, -1, 1, -1]), k)
    result = check(labels, log_probs_of(seed, 7, k))
    assert result.ok, str(result)


def test_overlapping_counts_on_the_same_members_are_exact():
    bags = Bags(torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([0, 3, 6]), 3)
    labels = Counts(bags, torch.tensor([[1, -1, -1], [-1, 2, -1]]))
    together = Counts(Bags.from_ids(torch.zeros(3).long()), torch.tensor([[1, 2, -1]]))
    log_probs = log_probs_of(1, 3)
    assert labels.exact
    assert torch.allclose(labels.posterior(log_probs), together.posterior(log_probs), atol=1e-12)
    result = check(labels, log_probs)
    assert result.ok, str(result)


def test_chains_of_bags_are_exact():
    bags = Bags(torch.tensor([0, 1, 2, 2, 3, 4]), torch.tensor([0, 3, 6]), 5)
    labels = Counts(bags, torch.tensor([[1, 1, 1], [2, -1, -1]]))
    result = check(labels, log_probs_of(2, 5))
    assert result.ok, str(result)


def test_bags_of_one_are_exact_labels():
    classes = torch.tensor([0, 1, 2, 1])
    counts = torch.nn.functional.one_hot(classes, K)
    labels = Counts(Bags.from_ids(torch.arange(4)), counts)
    log_probs = log_probs_of(3, 4)
    assert torch.allclose(labels.posterior(log_probs), Exact(classes, K).posterior(log_probs))
    assert torch.allclose(labels.log_likelihood(log_probs), Exact(classes, K).log_likelihood(log_probs))


def test_nothing_known_says_nothing():
    log_probs = log_probs_of(4, 7)
    value, posterior = Counts(BAGS, torch.full((3, K), -1), error=0.2).infer(log_probs)
    assert (value.abs() < 1e-15).all()
    assert torch.allclose(posterior, log_probs.exp())


def test_posteriors_have_the_observed_counts_in_large_bags():
    generator = torch.Generator().manual_seed(5)
    classes = torch.randint(0, K, (3000,), generator=generator)
    labels = Counts.simulate(classes, K, generator=generator, bag_size=100)
    assert labels.exact
    posterior = labels.posterior(log_probs_of(6, 3000))
    total = torch.zeros(30, K, dtype=torch.float64).index_add(0, labels.sets.index, posterior[labels.sets.members])
    assert torch.allclose(total, labels.counts.double(), atol=1e-8)


def test_beyond_the_lattice_is_named_and_still_matches():
    generator = torch.Generator().manual_seed(7)
    classes = torch.randint(0, 8, (400,), generator=generator)
    labels = Counts.simulate(classes, 8, generator=generator, bag_size=200)
    assert not labels.exact
    value, posterior = labels.infer(log_probs_of(8, 400, 8))
    assert torch.isfinite(value).all()
    total = torch.zeros(2, 8, dtype=torch.float64).index_add(0, labels.sets.index, posterior[labels.sets.members])
    assert torch.allclose(total, labels.counts.double(), atol=1e-6)


def test_contradiction_is_constant_and_without_gradient():
    labels = Counts(Bags.from_ids(torch.zeros(2).long()), torch.tensor([[2, 0, 0]])) & Exact(torch.tensor([1, -1]), K)
    log_probs = log_probs_of(9, 2).requires_grad_()
    value, posterior = labels.infer(log_probs)
    assert value.tolist() == [-1e4]
    assert posterior[0].tolist() == [0, 1, 0]
    assert torch.allclose(posterior[1], log_probs[1].exp())
    (slope,) = torch.autograd.grad(labels.log_likelihood(log_probs).sum(), log_probs)
    assert (slope == 0).all()


def test_merged_counts_add_up():
    labels = Counts(BAGS, torch.tensor([[1, 1, 1], [0, 1, 0], [2, -1, -1]]))
    merged = labels.relabel(torch.tensor([1, 0, 0]), 3)
    assert merged.counts.tolist() == [[2, 1, 0], [1, 0, 0], [-1, 2, -1]]
    with pytest.raises(LabelError, match="bag 2 would merge a known count with an unknown one"):
        labels.relabel(torch.tensor([0, 0, 1]), 2)


def test_simulation_draws_wrong_counts_evenly():
    generator = torch.Generator().manual_seed(10)
    classes = torch.zeros(6000, dtype=torch.long)
    labels = Counts.simulate(classes, 3, generator=generator, bag_size=2, error=0.6)
    # six possible counts of two members in three classes; the true one also when there is no error
    distinct, number = labels.counts.unique(dim=0, return_counts=True)
    share = number / number.sum()
    assert len(distinct) == 6
    true = (distinct == torch.tensor([2, 0, 0])).all(dim=1)
    assert float(share[true]) == pytest.approx(0.4 + 0.1, abs=0.03)
    assert torch.allclose(share[~true], torch.tensor(0.1), atol=0.03)


def test_counted_classes():
    found = count_classes(torch.tensor([[0, 1, 1, 2, 0, 0]]), BAGS, K)
    assert found.tolist() == [[[1, 2, 0], [0, 0, 1], [2, 0, 0]]]


def test_from_frame_reads_one_column_per_class():
    labels = Counts.from_frame({"a": [1, 1, 0], "b": ["2", "", "2"], "c": [0, None, 0]}, ["a", "b", "c"], bags=BAGS)
    assert labels.counts.tolist() == [[1, 2, 0], [1, -1, -1], [0, 2, 0]]
    assert labels.class_names == ("a", "b", "c")
    with pytest.raises(LabelError, match=r'"b" holds "two" \(row 0\)'):
        Counts.from_frame({"b": ["two"]}, ["b"], bags=BAGS)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([[1, 1, 1], [0, 1, 0]], "expected (3, K)"),
        ([[1, 1, 1], [0, 1, 0], [3, -1, -1]], "bag 2 has known counts above its number of members"),
        ([[1, 1, 1], [0, 0, 0], [1, 1, 0]], "bag 1 has counts that do not sum to its number of members"),
        ([[1, 1, 1], [0, 1, 0], [-2, 1, 0]], "bag 2 has a negative count"),
        ([[1.0, 1, 1], [0, 1, 0], [0.5, 1, 0.5]], "bag 2 has a count that is no whole number"),
    ],
)
def test_bad_input_is_named(counts, message):
    with pytest.raises(LabelError) as caught:
        Counts(BAGS, torch.tensor(counts))
    assert message in str(caught.value)
