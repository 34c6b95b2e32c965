"""Instance kinds: enumeration, limits, contradictions, selections."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels import (
    Candidates,
    Coarse,
    Complementary,
    Exact,
    InstanceLabels,
    Interval,
    LabelError,
    Soft,
    Taxonomy,
    check,
)

K, N = 4, 5
MEMBERSHIP = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]], dtype=torch.float64)


def log_probs_of(seed: int, n: int = N, k: int = K) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.log_softmax(3 * torch.randn(n, k, dtype=torch.float64, generator=generator), dim=1)


def kind_of(name: str, seed: int, error: float = 0.0) -> InstanceLabels:
    g = torch.Generator().manual_seed(seed)
    index = torch.randint(-1, K, (N,), generator=g)
    if name == "Exact":
        return Exact(index, K, error=error)
    if name == "Coarse":
        return Coarse(torch.randint(-1, 3, (N,), generator=g), MEMBERSHIP, error=error)
    if name == "Candidates":
        sets = torch.rand(N, K, generator=g) < 0.5
        return Candidates(sets | ~sets.any(1, keepdim=True), error=error)
    if name == "Complementary":
        return Complementary(index, K, error=error)
    if name == "Interval":
        low = torch.randint(0, K, (N,), generator=g)
        return Interval(low, torch.maximum(low, index), K, error=error)
    return Soft(torch.rand(N, K, dtype=torch.float64, generator=g) + 0.01, kind="evidence")


KINDS = ["Exact", "Coarse", "Candidates", "Complementary", "Interval", "Soft"]


def said_by_hand(labels: InstanceLabels, name: str, error: float) -> torch.Tensor:
    """P(o_i | y_i = k) from the definition, in plain loops."""
    table = torch.ones(N, K, dtype=torch.float64)
    for i in range(N):
        for k in range(K):
            if name == "Exact":
                value = None if labels.labels[i] < 0 else float(k == labels.labels[i])
            elif name == "Coarse":
                value = None if labels.nodes[i] < 0 else float(MEMBERSHIP[labels.nodes[i], k])
            elif name == "Candidates":
                value = None if labels.candidates[i].all() else float(labels.candidates[i, k])
            elif name == "Complementary":
                value = None if not labels.excluded[i].any() else float(not labels.excluded[i, k])
            elif name == "Interval":
                full = labels.low[i] == 0 and labels.high[i] == K - 1
                value = None if full else float(labels.low[i] <= k <= labels.high[i])
            else:
                table[i, k] = labels.probs[i, k]
                continue
            table[i, k] = 1.0 if value is None else (1 - error) * value + error / K
    return table


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), error=st.sampled_from([0.0, 0.1, 0.6]))
def test_evidence_is_the_definition(name, seed, error):
    labels = kind_of(name, seed, error)
    log_probs = log_probs_of(seed)
    by_hand = said_by_hand(labels, name, error)
    torch.testing.assert_close(labels.log_evidence(torch.float64).exp(), by_hand, rtol=0, atol=1e-12)
    value, posterior = labels.infer(log_probs)
    joint = by_hand * log_probs.exp()
    torch.testing.assert_close(value, joint.sum(1).log(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(posterior, joint / joint.sum(1, keepdim=True), rtol=0, atol=1e-9)
    assert check(labels, log_probs).ok


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_products_equal_enumeration(first, second):
    for seed in range(4):
        both = kind_of(first, seed, 0.2) & kind_of(second, seed + 50, 0.1)
        found = check(both, log_probs_of(seed))
        assert found.ok, str(found)


@pytest.mark.parametrize("name", KINDS)
def test_columns_asked_for_and_the_rest(name):
    labels = kind_of(name, 3, 0.2)
    full = labels.log_evidence(torch.float64)
    some = labels.log_evidence(torch.float64, classes=torch.tensor([2, 0]))
    torch.testing.assert_close(some[:, :2], full[:, [2, 0]])
    torch.testing.assert_close(some[:, 2].exp(), full[:, [1, 3]].exp().mean(1))


@pytest.mark.parametrize("name", ["Exact", "Coarse", "Candidates", "Complementary", "Soft"])
def test_relabel_moves_the_posterior(name):
    labels, log_probs = kind_of(name, 8), log_probs_of(8)
    mapping = torch.tensor([2, 0, 3, 1])
    moved = labels.relabel(mapping, K).posterior(log_probs[:, torch.argsort(mapping)])
    torch.testing.assert_close(moved[:, mapping], labels.posterior(log_probs))


def test_merging_exact_labels_is_exact_and_candidates_refuse():
    merged = Exact(torch.tensor([0, 1, 2, -1]), 3).relabel(torch.tensor([0, 0, 1]), 2)
    assert merged.labels.tolist() == [0, 0, 1, -1]
    with pytest.raises(LabelError, match="cannot merge"):
        Candidates(torch.ones(2, 3, dtype=torch.bool)).relabel(torch.tensor([0, 0, 1]), 2)


def test_five_agreeing_votes_multiply():
    vote = Exact(torch.tensor([1]), 2, error=0.4)  # right with probability .8
    labels = vote & vote & vote & vote & vote
    posterior = labels.posterior(torch.full((1, 2), 0.5).log())
    assert posterior[0, 1].item() == pytest.approx(0.8**5 / (0.8**5 + 0.2**5), abs=1e-6)


def test_contradiction_is_finite_without_gradient_and_listed():
    labels = Exact(torch.tensor([0, 1, 2]), 3) & Coarse(
        torch.tensor([1, 0, -1]), torch.tensor([[1.0, 1, 0], [0, 0, 1]])
    )
    z = torch.zeros(3, 3, requires_grad=True)
    value = labels.log_likelihood(torch.log_softmax(z, 1))
    assert value[0].item() == -1e4
    assert torch.isfinite(value).all()
    value.sum().backward()
    assert z.grad[0].abs().max() == 0
    assert z.grad[1].abs().max() > 0
    assert labels.contradictions(torch.log_softmax(z, 1)).tolist() == [True, False, False]
    torch.testing.assert_close(labels.posterior(torch.log_softmax(z.detach(), 1))[0], torch.full((3,), 1 / 3))


def test_all_candidates_and_missing_say_nothing():
    log_probs = log_probs_of(1, 3)
    for labels in (
        Candidates(torch.ones(3, K, dtype=torch.bool), error=0.3),
        Exact(torch.full((3,), -1), K, error=0.3),
        Complementary(torch.full((3,), -1), K),
        Interval(torch.full((3,), -1), torch.full((3,), -1), K),
    ):
        value, posterior = labels.infer(log_probs)
        torch.testing.assert_close(value, torch.zeros_like(value), atol=1e-12, rtol=0)
        torch.testing.assert_close(posterior, log_probs.exp())


def test_soft_target_is_cut_by_hard_evidence():
    target = Soft(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]), kind="target")
    hard = Candidates(torch.tensor([[False, True, True], [True, True, True]]))
    log_probs = torch.log_softmax(torch.randn(2, 3), 1)
    torch.testing.assert_close((target & hard).posterior(log_probs)[0], torch.tensor([0.0, 0.6, 0.4]))
    value, posterior = target.infer(log_probs)
    torch.testing.assert_close(posterior, target.probs)
    torch.testing.assert_close(value, (target.probs * log_probs).sum(1))


def test_teacher_is_divided_by_its_prior():
    prior = torch.tensor([0.7, 0.2, 0.1])
    posterior = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    labels = Soft(posterior, kind="posterior", prior=prior)
    uniform = torch.full((2, 3), 1 / 3).log()
    torch.testing.assert_close(labels.posterior(uniform)[0], torch.full((3,), 1 / 3))
    with pytest.warns(UserWarning, match="prior"):
        Soft(posterior, kind="posterior")


def test_a_node_with_two_parents_is_half_of_each():
    taxonomy = Taxonomy.from_edges([("a", "P"), ("b", "P"), ("b", "Q"), ("c", "Q")])
    labels = Coarse(torch.tensor([taxonomy.index("P", 1)]), taxonomy)
    order = [taxonomy.classes.index(c) for c in "abc"]
    torch.testing.assert_close(
        labels.posterior(torch.full((1, 3), 1 / 3).log())[0, order], torch.tensor([2 / 3, 1 / 3, 0.0])
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Exact(torch.tensor([0, 3, 9]), 3), "outside 0..2"),
        (lambda: Exact(torch.tensor([0.5]), 3), "whole numbers"),
        (lambda: Exact(torch.tensor([0]), 3, error=1.0), "below 1"),
        (lambda: Candidates(torch.zeros(2, 3, dtype=torch.bool)), "row 0, 1 has no candidate"),
        (lambda: Complementary(torch.ones(1, 3, dtype=torch.bool)), "rules out every class"),
        (lambda: Interval(torch.tensor([2]), torch.tensor([1]), 3), "low end above"),
        (lambda: Soft(torch.tensor([[0.5, 0.3]]), kind="target"), "sums to 0.8"),
        (lambda: Soft(torch.tensor([[0.5, float("nan")]]), kind="target"), "NaN"),
        (lambda: Exact(torch.tensor([0]), 3, weight=torch.ones(2)), "weight has shape"),
        (lambda: Exact(torch.tensor([0, 1]), 3, rows=torch.tensor([0])), "rows has shape"),
        (lambda: Exact(torch.tensor([0]), 3) & Exact(torch.tensor([0]), 4), "n_classes"),
        (lambda: Exact(torch.tensor([0]), 3) & Exact(torch.tensor([0, 1]), 3), "n_instances"),
        (lambda: Exact.from_frame({"a": ["x"]}, "a") & Exact.from_frame({"a": ["y"]}, "a"), "class lists"),
        (lambda: Exact.from_frame({"label": ["x"]}, "lable"), 'Did you mean "label"'),
        (lambda: Exact.from_frame({"a": ["modern"]}, "a", classes=["modem"]), 'did you mean "modem"'),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(LabelError, match=message):
        make()


def test_frames_of_strings():
    frame = {"a": ["cat", None, "dog", float("nan"), " cat "], "b": ["cat|dog", "", "dog", "bird", "cat"]}
    assert Exact.from_frame(frame, "a").labels.tolist() == [0, -1, 1, -1, 0]
    assert Exact.from_frame(frame, "a").class_names == ("cat", "dog")
    sets = Candidates.from_frame(frame, "b", classes=["bird", "cat", "dog"])
    assert sets.candidates.int().tolist() == [[0, 1, 1], [1, 1, 1], [0, 0, 1], [1, 0, 0], [0, 1, 0]]
    ends = {"low": [1, None, 3], "high": [2, 2, None]}
    labels = Interval.from_frame(ends, ["low", "high"])
    assert labels.class_names == ("1", "2", "3")
    assert (labels.low.tolist(), labels.high.tolist()) == ([0, 0, 2], [1, 1, 2])


def test_coarse_names_of_mixed_depth():
    taxonomy = Taxonomy.from_paths(["animal/cat", "animal/dog", "plant/oak"])
    labels = Coarse.from_frame({"x": ["animal", "oak", ""]}, "x", taxonomy=taxonomy)
    posterior = labels.posterior(torch.full((3, 3), 1 / 3).log())
    at = {c: taxonomy.classes.index(c) for c in taxonomy.classes}
    assert posterior[0, at["oak"]] == 0
    assert posterior[1, at["oak"]] == 1
    torch.testing.assert_close(posterior[2], torch.full((3,), 1 / 3))


def test_a_kind_of_ones_own_needs_one_method():
    class Parity(InstanceLabels):
        def __init__(self, even):
            super().__init__(K, per_instance={"even": even})

        def log_evidence(self, dtype=torch.float32):
            even_class = torch.arange(K) % 2 == 0
            return (self.even[:, None] == even_class).to(dtype).log()

    labels = Parity(torch.tensor([True, False, True]))
    assert check(labels, log_probs_of(2, 3)).ok
    assert check(labels & Exact(torch.tensor([0, 1, -1]), K), log_probs_of(2, 3)).ok
    assert labels[[2, 0]].even.tolist() == [True, True]
    assert labels.log_evidence(torch.float64, classes=torch.tensor([0])).shape == (3, 2)
