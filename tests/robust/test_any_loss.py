"""AnyLoss: exact measures for hard decisions, closed forms, gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from anygrain.labels import LabelError
from anygrain.robust import AnyLoss
from anygrain.robust.any_loss import MEASURES, amplify, f_beta, soft_counts

CASES = settings(max_examples=40, deadline=None)


def binary(p):
    """Log-probabilities (B, 2) of the probability of class 1."""
    return torch.stack([1 - p, p], dim=1).log()


def one_hot(y, k=2):
    return torch.eye(k, dtype=torch.float64)[y]


SKLEARN = {
    "accuracy": metrics.accuracy_score,
    "f1": lambda t, p: metrics.f1_score(t, p, zero_division=0),
    "balanced_accuracy": lambda t, p: (
        (metrics.recall_score(t, p, zero_division=0) + metrics.recall_score(1 - t, 1 - p, zero_division=0)) / 2
    ),
    "geometric_mean": lambda t, p: math.sqrt(
        metrics.recall_score(t, p, zero_division=0) * metrics.recall_score(1 - t, 1 - p, zero_division=0)
    ),
    "mcc": metrics.matthews_corrcoef,
    "jaccard": lambda t, p: metrics.jaccard_score(t, p, zero_division=0),
    "precision": lambda t, p: metrics.precision_score(t, p, zero_division=0),
    "recall": lambda t, p: metrics.recall_score(t, p, zero_division=0),
    "specificity": lambda t, p: metrics.recall_score(1 - t, 1 - p, zero_division=0),
}


@pytest.mark.parametrize("name", MEASURES)
@given(data=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=4, max_size=20))
@CASES
def test_sure_decisions_give_the_exact_measure(name, data):
    truth, said = (np.array([pair[i] for pair in data], dtype=int) for i in (0, 1))
    if len(set(truth)) < 2 or (name in ("mcc", "precision") and len(set(said)) < 2):
        return
    loss = AnyLoss(name)
    value = float(loss.value(binary(torch.tensor(said, dtype=torch.float64)), one_hot(torch.tensor(truth))))
    assert 1 - value == pytest.approx(SKLEARN[name](truth, said), abs=1e-5)


def test_f_beta_is_that_of_scikit_learn():
    truth, said = np.array([1, 1, 1, 0, 0, 0, 0]), np.array([1, 0, 1, 1, 0, 0, 0])
    for beta in (0.5, 2.0):
        value = AnyLoss("f_beta", beta=beta).value(
            binary(torch.tensor(said, dtype=torch.float64)), one_hot(torch.tensor(truth))
        )
        assert 1 - float(value) == pytest.approx(metrics.fbeta_score(truth, said, beta=beta), abs=1e-9)


@given(seed=st.integers(0, 1000))
@CASES
def test_closed_forms_from_sums(seed):
    """With S = sum of decisions, P = sum of targets, n and TP alone."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(12, generator=generator, dtype=torch.float64)
    y = torch.rand(12, generator=generator, dtype=torch.float64)  # soft
    decision = amplify(p, 73.0)
    counts = soft_counts(decision[:, None], y[:, None])
    assert float(sum(counts)) == pytest.approx(12)
    s, pos, n, tp = float(decision.sum()), float(y.sum()), 12, float((y * decision).sum())
    tn = n - pos - s + tp
    expected = {
        "accuracy": (n - pos - s + 2 * tp) / n,
        "f1": 2 * tp / (pos + s),
        "geometric_mean": math.sqrt(tp * tn / (pos * (n - pos))),
        "balanced_accuracy": (n * (tp + pos) - pos * (s + pos)) / (2 * pos * (n - pos)),
    }
    posterior = torch.stack([1 - y, y], dim=1)
    for name, value in expected.items():
        assert 1 - float(AnyLoss(name).value(binary(p), posterior)) == pytest.approx(value, abs=1e-8)
    beta = 2.0
    f2 = (1 + beta**2) * tp / (beta**2 * pos + s)
    assert 1 - float(AnyLoss("f_beta", beta=beta).value(binary(p), posterior)) == pytest.approx(f2, abs=1e-8)


def test_the_slope_of_f_beta_in_a_decision():
    generator = torch.Generator().manual_seed(0)
    decision = torch.rand(9, 1, generator=generator, dtype=torch.float64, requires_grad=True)
    y = (torch.rand(9, 1, generator=generator) < 0.4).double()
    (slope,) = torch.autograd.grad(f_beta(2.0)(*soft_counts(decision, y)).sum(), decision)
    s, pos, tp = decision.sum(), y.sum(), (y * decision).sum()
    torch.testing.assert_close(slope, 5 * (y * (4 * pos + s) - tp) / (4 * pos + s) ** 2)


@pytest.mark.parametrize("name", [*MEASURES, "f_beta"])
@pytest.mark.parametrize("k", [2, 4])
@pytest.mark.parametrize("average", ["macro", "micro"])
def test_gradients_are_right(name, k, average):
    generator = torch.Generator().manual_seed(k)
    logits = 0.3 * torch.randn(8, k, generator=generator, dtype=torch.float64)
    posterior = torch.rand(8, k, generator=generator, dtype=torch.float64).softmax(dim=1)
    loss = AnyLoss(name, average=average, sharpness=8.0)
    assert torch.autograd.gradcheck(
        lambda z: loss(z.log_softmax(dim=1), posterior), logits.requires_grad_(True), eps=1e-7, atol=1e-5
    )


def test_labels_exchanged_turn_a_measure_into_its_twin():
    p = torch.rand(20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = one_hot((torch.rand(20, generator=torch.Generator().manual_seed(2)) < 0.4).long())
    for name, twin in (("recall", "specificity"), ("balanced_accuracy", "balanced_accuracy"), ("mcc", "mcc")):
        other = AnyLoss(twin).value(binary(p).flip(1), y.flip(1))
        torch.testing.assert_close(AnyLoss(name).value(binary(p), y), other)
    other = AnyLoss("precision", positive=0).value(binary(p), y)
    torch.testing.assert_close(AnyLoss("precision").value(binary(p).flip(1), y.flip(1)), other)


def test_without_sharpness_every_decision_is_open():
    p = torch.rand(7, dtype=torch.float64)
    torch.testing.assert_close(amplify(p, 1e-9), torch.full_like(p, 0.5))
    assert float(amplify(torch.tensor(0.5), 73.0)) == 0.5


@given(seed=st.integers(0, 1000), average=st.sampled_from(["macro", "micro"]))
@CASES
def test_several_classes_decide_for_the_likeliest(seed, average):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(3, (30,), generator=generator)
    sure = torch.nn.functional.one_hot(torch.randint(3, (30,), generator=generator), 3).double()
    value = AnyLoss("f1", average=average).value((0.999 * sure + 0.0005).log(), one_hot(truth, 3))
    expected = metrics.f1_score(truth, sure.argmax(dim=1), average=average, labels=truth.unique().tolist())
    if len(truth.unique()) == 3:
        assert 1 - float(value) == pytest.approx(expected, abs=1e-6)


def test_batches_without_a_positive_are_finite_and_have_a_slope():
    logits = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    for name in MEASURES:
        value = AnyLoss(name)(logits.log_softmax(dim=1), one_hot(torch.zeros(6, dtype=torch.long))).mean()
        (slope,) = torch.autograd.grad(value, logits)
        assert torch.isfinite(value)
        assert torch.isfinite(slope).all()


def test_a_measure_of_ones_own_and_the_rise():
    loss = AnyLoss(lambda tn, fp, fn, tp: -(fp + 10 * fn), start=10.0, rise=4)
    assert loss.now == 10.0
    for epoch, expected in ((0, 10.0), (2, 41.5), (4, 73.0), (9, 73.0)):
        loss.on_epoch_start(epoch)
        assert loss.now == pytest.approx(expected)
    value = loss.value(binary(torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)), one_hot(torch.tensor([1, 0, 1])))
    assert float(value) == pytest.approx(1 + 11)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AnyLoss("balanced_acuracy"), 'Did you mean "balanced_accuracy"'),
        (lambda: AnyLoss(average="weighted"), 'expected "macro" or "micro"'),
        (lambda: AnyLoss(sharpness=0.0), "sharpness is 0.0"),
        (lambda: AnyLoss(positive=2), "positive is 2; expected 0 or 1"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(LabelError, match=message):
        make()
