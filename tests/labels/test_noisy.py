"""Noisy labels through a transition matrix, and candidate sets with inclusion rates."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels.aggregate import aggregate
from anygrain.labels.candidates import Candidates
from anygrain.labels.channels.inclusion_rates import InclusionRates
from anygrain.labels.channels.transition import Transition
from anygrain.labels.check import check
from anygrain.labels.error import LabelError
from anygrain.labels.exact import Exact
from anygrain.labels.noisy import Noisy


def generator(seed):
    return torch.Generator().manual_seed(seed)


def random_transition(seed, k):
    return torch.rand(k, k, generator=generator(seed), dtype=torch.float64).softmax(dim=1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 5))
def test_noisy_equals_enumeration_alone_with_others_and_relabelled(seed, k):
    matrix = random_transition(seed, k)
    classes = torch.randint(-1, k, (6,), generator=generator(seed))
    labels = Noisy(classes, k, matrix)
    evidence = labels.log_evidence(torch.float64)
    for i, j in itertools.product(range(6), range(k)):
        want = 0.0 if classes[i] < 0 else math.log(float(matrix[j, classes[i]]))
        assert abs(float(evidence[i, j]) - want) < 1e-9
    log_probs = torch.randn(6, k, generator=generator(seed), dtype=torch.float64).log_softmax(dim=1)
    assert check(labels, log_probs).ok
    assert check(labels & Exact(classes.flip(0), k, error=0.2), log_probs).ok
    mapping = torch.randperm(k + 1, generator=generator(seed))[:k]
    wide = torch.randn(6, k + 1, generator=generator(seed), dtype=torch.float64).log_softmax(dim=1)
    moved = labels.relabel(mapping, k + 1)
    assert check(moved, wide).ok
    assert torch.equal(moved.log_evidence(torch.float64)[:, mapping], evidence)


def test_the_identity_matrix_is_exact():
    classes = torch.tensor([0, 2, -1, 1])
    assert torch.equal(Noisy(classes, 3, torch.eye(3)).log_evidence(), Exact(classes, 3).log_evidence())


def test_the_prior_has_diagonal_seven_tenths_and_ten_labels():
    labels = Noisy(torch.tensor([0, 1, 1]), 2)
    assert torch.allclose(labels.channel.transition, torch.tensor([[0.7, 0.3], [0.3, 0.7]]).double())
    labels.update(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    want = torch.tensor([[8 / 12, 4 / 12], [3 / 11, 8 / 11]]).double()
    assert torch.allclose(labels.channel.transition, want, atol=1e-12)


def test_a_given_matrix_is_never_changed():
    matrix = random_transition(0, 3)
    labels = Noisy(torch.tensor([0, 1, 2]), 3, matrix)
    labels.update(torch.eye(3))
    assert torch.allclose(labels.channel.transition, matrix, atol=1e-12)


def test_the_hard_step_counts_by_the_argmax_of_the_model_from_100_labels_per_class():
    k, n = 3, 3000
    y = torch.randint(k, (n,), generator=generator(1))
    matrix = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5]]).double()
    labels = Noisy.simulate(y, k, generator=generator(2), transition=matrix)
    model = torch.nn.functional.one_hot(y, k).double().mul(2.0).log_softmax(dim=1)  # right, but unsure
    posterior = labels.posterior(model)
    labels.update(posterior)
    soft = float((labels.channel.transition - matrix).abs().max())
    labels.update(posterior, model)
    hard = float((labels.channel.transition - matrix).abs().max())
    assert hard < 0.04 < 0.1 < soft


def test_few_labels_take_the_soft_step():
    labels = [Noisy(torch.tensor([0, 1, 1, 0]), 2) for _ in range(2)]
    q = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]])
    labels[0].update(q)
    labels[1].update(q, q.log())
    assert torch.equal(labels[0].channel.transition, labels[1].channel.transition)


def test_em_with_other_evidence_recovers_the_matrix():
    k, n = 3, 20_000
    y = torch.randint(k, (n,), generator=generator(3))
    matrix = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.6, 0.3], [0.0, 0.3, 0.7]]).double()
    labels = [Noisy.simulate(y, k, generator=generator(s), transition=matrix) for s in range(4, 8)]
    result = aggregate(labels[0] & labels[1] & labels[2] & labels[3])
    for part in labels:
        assert float((part.channel.transition - matrix).abs().max()) < 0.03
    path = result.log_likelihood
    assert float(path.diff().min()) > -1e-9 * float(path.abs().max())


def test_shards_add_up_and_weights_count():
    labels = Noisy(torch.tensor([0, 1, -1, 1, 0]), 2)
    q = torch.rand(5, 2, generator=generator(9), dtype=torch.float64).softmax(dim=1)
    whole = labels.channel.statistics(labels.channel_records, q)["counts"]
    shards = [labels[rows] for rows in (torch.arange(2), torch.arange(2, 5))]
    found = [p.channel.statistics(p.channel_records, s)["counts"] for p, s in zip(shards, (q[:2], q[2:]), strict=True)]
    assert torch.allclose(whole, found[0] + found[1], atol=1e-12)
    weighted = Noisy(torch.tensor([0, 1]), 2, weight=torch.tensor([2.0, 0.0]))
    weighted.update(q[:2])
    assert torch.allclose(weighted.channel.counts[:, 1], torch.zeros(2).double())
    assert torch.allclose(weighted.channel.counts[:, 0], 2 * q[0])


def test_simulated_noise_has_its_rate_and_keeps_missing():
    y = torch.randint(4, (20_000,), generator=generator(10))
    y[:10] = -1
    labels = Noisy.simulate(y, 4, generator=generator(11), error=0.3, known=True)
    assert bool((labels.labels[:10] == -1).all())
    assert abs(float((labels.labels[10:] != y[10:]).double().mean()) - 0.3) < 0.02
    assert torch.allclose(torch.diagonal(labels.channel.transition), torch.full((4,), 0.7).double())


def test_from_frame_reads_names():
    labels = Noisy.from_frame({"said": ["cat", "", "dog"]}, "said")
    assert labels.class_names == ("cat", "dog")
    assert labels.labels.tolist() == [0, -1, 1]


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.ones(2, 3), r"shape .2, 3.; expected .2, 2."),
        (torch.tensor([[0.5, 0.4], [0.5, 0.5]]), "row 0 of the transition matrix sums to 0.9; expected 1"),
        (torch.tensor([[0.9, 0.3], [0.1, 0.7]]), "transpose it"),
        (torch.tensor([[1.5, -0.5], [0.5, 0.5]]), "row 0 of the transition matrix holds a negative"),
    ],
)
def test_bad_matrices_are_refused(matrix, message):
    with pytest.raises(LabelError, match=message):
        Noisy(torch.tensor([0]), 2, matrix)


def test_other_bad_input_is_refused():
    with pytest.raises(LabelError, match=r"outside 0\.\.1"):
        Noisy(torch.tensor([2]), 2)
    with pytest.raises(LabelError, match="either a transition matrix or a channel"):
        Noisy(torch.tensor([0]), 2, torch.eye(2), channel=Transition(2))
    with pytest.raises(LabelError, match="the channel was made for 3 classes"):
        Noisy(torch.tensor([0]), 2, channel=Transition(3))
    with pytest.raises(LabelError, match="cannot merge"):
        Noisy(torch.tensor([0]), 2).relabel(torch.tensor([0, 0]), 1)


# -- candidate sets with inclusion rates ------------------------------------------------------------------------------


def random_sets(seed, n, k):
    sets = torch.rand(n, k, generator=generator(seed)) < 0.5
    return sets | torch.nn.functional.one_hot(torch.randint(k, (n,), generator=generator(seed)), k).bool()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 4), error=st.sampled_from([0.0, 0.2]))
def test_candidates_with_rates_equal_the_product_over_classes(seed, k, error):
    sets = random_sets(seed, 6, k)
    labels = Candidates(sets, rates=True, error=error)
    for step in range(2):
        labels.update(torch.rand(6, k, generator=generator(seed + step), dtype=torch.float64).softmax(dim=1))
    rates, pooled = labels.channel.rates, float(labels.channel.pooled)
    evidence = labels.log_evidence(torch.float64)
    for i, j in itertools.product(range(6), range(k)):
        said, drawn = float(sets[i, j]), 1.0
        for other in range(k):
            drawn *= pooled if sets[i, other] else 1 - pooled
            if other != j:
                said *= float(rates[j, other]) if sets[i, other] else 1 - float(rates[j, other])
        want = 1.0 if bool(sets[i].all()) else (1 - error) * said + error * drawn
        assert abs(math.exp(float(evidence[i, j])) - want) < 1e-9
    log_probs = torch.randn(6, k, generator=generator(seed), dtype=torch.float64).log_softmax(dim=1)
    assert check(labels, log_probs).ok
    mapping = torch.randperm(k + 1, generator=generator(seed))[:k]
    said = ~sets.all(dim=1)
    moved = labels.relabel(mapping, k + 1).log_evidence(torch.float64)
    assert torch.equal(moved[said][:, mapping], evidence[said])


def test_equal_rates_say_only_that_the_truth_is_inside():
    sets = random_sets(1, 20, 4)
    log_probs = torch.randn(20, 4, generator=generator(1), dtype=torch.float64).log_softmax(dim=1)
    with_rates, plain = Candidates(sets, rates=True), Candidates(sets)
    assert torch.allclose(with_rates.posterior(log_probs), plain.posterior(log_probs), atol=1e-12)


def test_rates_are_recovered_and_tell_classes_apart():
    k, n = 4, 20_000
    rates = torch.tensor([[1, 0.8, 0.1, 0.1], [0.3, 1, 0.1, 0.6], [0.1, 0.1, 1, 0.9], [0.5, 0.2, 0.2, 1]]).double()
    y = torch.randint(k, (n,), generator=generator(2))
    sets = torch.rand(n, k, generator=generator(3), dtype=torch.float64) < rates[y]
    labels = Candidates(sets, rates=True)
    start = labels.posterior(torch.zeros(n, k).double().log_softmax(dim=1))
    result = aggregate(labels & Noisy.simulate(y, k, generator=generator(4), error=0.3, known=True))
    assert float((labels.channel.rates - rates).abs().max()) < 0.04
    right = float((result.posterior.argmax(dim=1) == y).double().mean())
    assert right > float((start.argmax(dim=1) == y).double().mean()) + 0.1
    assert float(result.log_likelihood.diff().min()) > -1e-6
    with pytest.raises(LabelError, match="the rates were made for 3 classes"):
        Candidates(sets, rates=InclusionRates(3))
