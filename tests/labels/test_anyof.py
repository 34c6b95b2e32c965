"""AnyOf: enumeration, targets, merging, errors and simulation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels import Bags, Exact, LabelError, check
from anygrain.labels.anyof import AnyOf

K = 3


def log_probs_of(seed: int, n: int, k: int = K) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(3 * torch.randn(n, k, dtype=torch.float64, generator=generator), dim=1)


BAGS = Bags(torch.tensor([4, 0, 1, 2, 3, 5]), torch.tensor([0, 3, 4, 6]), 7)


@settings(max_examples=40, deadline=None)
@given(
    present=st.lists(st.sampled_from([1, 0, -1]), min_size=3, max_size=3),
    target=st.sampled_from([0, [1, 2], {2}, "per bag", "table"]),
    error=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 100),
    hard=st.booleans(),
)
def test_equals_enumeration(present, target, error, seed, hard):
    if target == "per bag":
        target = torch.tensor([0, 2, 1])
    elif target == "table":
        target = torch.tensor([[True, False, False], [True, True, False], [False, True, True]])
    labels = AnyOf(BAGS, torch.tensor(present), target, K, error=error)
    joined = labels & Exact(torch.tensor([0, -1, 1, -1, -1, 2, -1]), K) if hard else labels
    result = check(joined, log_probs_of(seed, 7))
    assert result.ok, str(result)


def test_sets_of_the_same_members_with_other_targets_are_exact():
    bags = Bags(torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([0, 3, 6]), 3)
    labels = AnyOf(bags, torch.tensor([1, 1]), torch.tensor([0, 1]), K)
    result = check(labels, log_probs_of(1, 3))
    assert labels.exact
    assert result.ok, str(result)


def test_a_bag_of_one_is_an_exact_label():
    bags = Bags.from_ids(torch.arange(4))
    log_probs = log_probs_of(2, 4)
    labels = AnyOf(bags, torch.ones(4), torch.tensor([0, 1, 2, 0]), K)
    assert torch.allclose(labels.posterior(log_probs), Exact(torch.tensor([0, 1, 2, 0]), K).posterior(log_probs))


def test_many_classes_and_members_keep_small_probabilities():
    n, k = 10_000, 50
    log_probs = torch.full((n, k), -700.0, dtype=torch.float64)
    log_probs[:, 1] = 0.0
    labels = AnyOf(Bags.from_ids(torch.zeros(n).long()), torch.tensor([1]), 0, k)
    value, posterior = labels.infer(log_probs)
    assert float(value) == pytest.approx(-700 + torch.tensor(float(n)).log().item(), rel=1e-9)
    assert torch.allclose(posterior[:, 0], torch.full((n,), 1 / n, dtype=torch.float64), rtol=1e-6)


def test_contradiction_is_constant_and_without_gradient():
    labels = AnyOf(Bags.from_ids(torch.tensor([0, 0, 1])), torch.tensor([1, 0]), 0, K) & Exact(
        torch.tensor([1, 2, 0]), K
    )
    log_probs = log_probs_of(3, 3).requires_grad_()
    value = labels.log_likelihood(log_probs)
    assert value.tolist() == [-1e4, -1e4]
    assert labels.contradictions(log_probs).all()
    (slope,) = torch.autograd.grad(value.sum(), log_probs)
    assert (slope == 0).all()


def test_relabel_merges_targets_and_refuses_to_mix_them():
    labels = AnyOf(BAGS, torch.tensor([1, 0, 1]), [1, 2], K)
    merged = labels.relabel(torch.tensor([0, 1, 1]), 2)
    fine = log_probs_of(4, 7)
    coarse = torch.stack([fine[:, 0], fine[:, 1:].logsumexp(1)], dim=1)
    assert torch.allclose(merged.log_likelihood(coarse), labels.log_likelihood(fine))
    moved = AnyOf(BAGS, torch.tensor([1, 0, 1]), torch.tensor([0, 1, 2]), K).relabel(torch.tensor([2, 0, 1]), K)
    assert moved.target.tolist() == [2, 0, 1]
    with pytest.raises(LabelError, match="merged with other classes"):
        labels.relabel(torch.tensor([0, 0, 1]), 2)


def test_simulated_answers_are_true_and_errors_are_as_frequent_as_said():
    generator = torch.Generator().manual_seed(5)
    classes = torch.randint(0, K, (20_000,), generator=generator)
    true = AnyOf.simulate(classes, K, generator=generator, target=1, bag_size=3)
    hit = torch.zeros(len(true.sets)).index_add(0, true.sets.index, (classes[true.sets.members] == 1).float()) > 0
    assert torch.equal(true.present == 1, hit)
    noisy = AnyOf.simulate(classes, K, generator=generator, target=1, bags=true.sets, error=0.3)
    wrong = float((noisy.present != true.present).float().mean())
    assert wrong == pytest.approx(0.15, abs=0.015)


def test_from_frame_reads_yes_and_no():
    frame = {"ill": ["yes", "No", ""]}
    labels = AnyOf.from_frame(frame, "ill", bags=BAGS, target="b", classes=["a", "b", "c"])
    assert labels.present.tolist() == [1, 0, -1]
    assert labels.target.tolist() == [1, 1, 1]
    with pytest.raises(LabelError, match=r'"ill" holds "maybe" \(row 1\)'):
        AnyOf.from_frame({"ill": ["1", "maybe", "0"]}, "ill", bags=BAGS, target="b", classes=["a", "b"])


@pytest.mark.parametrize(
    ("present", "target", "message"),
    [
        ([1, 0], 0, "expected (3,)"),
        ([1, 0, 2], 0, "bag 2 has an answer"),
        ([1, 0, 1], 3, "target outside 0..2"),
        ([1, 0, 1], [0, 3], "expected classes of 0..2"),
        ([1, 0, 1], [], "expected classes of 0..2"),
        ([1, 0, 1], torch.tensor([0, 1]), "one class per bag"),
    ],
)
def test_bad_input_is_named(present, target, message):
    with pytest.raises(LabelError) as caught:
        AnyOf(BAGS, torch.tensor(present), target, K)
    assert message in str(caught.value)


def test_select_and_batches_follow():
    generator = torch.Generator().manual_seed(6)
    classes = torch.randint(0, K, (60,), generator=generator)
    labels = AnyOf.simulate(classes, K, generator=generator, bag_size=4)
    log_probs = log_probs_of(7, 60)
    whole = labels.posterior(log_probs)
    for batch in labels.batches(10, generator):
        part = labels.select(batch).posterior(log_probs[batch.instances])
        assert torch.allclose(part, whole[batch.instances], atol=1e-12)
