"""Robust losses: formulas by loops in float64, limits, and what corrections are right about."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels import Exact, LabelError
from anygrain.learn import Learner, cross_entropy
from anygrain.robust import (
    BackwardCorrection,
    Bootstrapping,
    CrossEntropy,
    Focal,
    ForwardCorrection,
    GeneralizedCrossEntropy,
    LabelSmoothing,
    LogitAdjustment,
    SymmetricCrossEntropy,
    estimate_transition,
)
from anygrain.robust.class_balanced import effective_weights
from anygrain.robust.transition import _rows_of_sums, _sums_of_sure

CASES = settings(max_examples=30, deadline=None)


def batch(seed, n=6, k=4):
    """Log-probabilities and posteriors, some of these a single class."""
    generator = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(n, k, generator=generator, dtype=torch.float64).log_softmax(dim=1)
    posterior = torch.rand(n, k, generator=generator, dtype=torch.float64)
    posterior = posterior / posterior.sum(dim=1, keepdim=True)
    posterior[: n // 2] = torch.eye(k, dtype=torch.float64)[torch.randint(k, (n // 2,), generator=generator)]
    return log_probs, posterior


def looped(formula, log_probs, posterior):
    """A formula (p, q) -> number, row by row, of plain lists."""
    rows = zip(log_probs.exp().tolist(), posterior.tolist(), strict=True)
    return torch.tensor([formula(p, q) for p, q in rows], dtype=torch.float64)


def matrix(k, noise, seed=0):
    drawn = torch.rand(k, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (1 - noise) * torch.eye(k, dtype=torch.float64) + noise * drawn / drawn.sum(dim=1, keepdim=True)


T4 = matrix(4, 0.4)
PRIOR = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
UNMIXED = torch.linalg.inv(T4).tolist()


def soft_bootstrap(p, q):
    return -sum((0.95 * b + 0.05 * a) * math.log(a) for a, b in zip(p, q, strict=True))


def hard_bootstrap(p, q):
    return -0.8 * sum(b * math.log(a) for a, b in zip(p, q, strict=True)) - 0.2 * math.log(max(p))


def adjusted(p, q):
    total = sum(a * c**1.5 for a, c in zip(p, PRIOR.tolist(), strict=True))
    return -sum(b * math.log(a * c**1.5 / total) for a, b, c in zip(p, q, PRIOR.tolist(), strict=True))


FORMULAS = {
    "smoothing": (
        LabelSmoothing(0.2),
        lambda p, q: -sum((0.8 * b + 0.05) * math.log(a) for a, b in zip(p, q, strict=True)),
    ),
    "gce": (GeneralizedCrossEntropy(0.6), lambda p, q: sum(b * (1 - a**0.6) / 0.6 for a, b in zip(p, q, strict=True))),
    "soft": (Bootstrapping(hard=False), soft_bootstrap),
    "hard": (Bootstrapping(), hard_bootstrap),
    "focal": (Focal(1.5), lambda p, q: -sum(b * (1 - a) ** 1.5 * math.log(a) for a, b in zip(p, q, strict=True))),
    "symmetric": (
        SymmetricCrossEntropy(0.3, 2.0, -4.0),
        lambda p, q: (
            -0.3 * sum(b * math.log(a) for a, b in zip(p, q, strict=True))
            - 2 * sum(a * max(math.log(b) if b else -math.inf, -4.0) for a, b in zip(p, q, strict=True))
        ),
    ),
    "adjusted": (LogitAdjustment(1.5, PRIOR), adjusted),
    "forward": (
        ForwardCorrection(T4),
        lambda p, q: -sum(q[j] * math.log(sum(p[k] * T4[k, j].item() for k in range(4))) for j in range(4)),
    ),
    "backward": (
        BackwardCorrection(T4),
        lambda p, q: -sum(q[j] * UNMIXED[j][k] * math.log(p[k]) for j in range(4) for k in range(4)),
    ),
    "plain": (CrossEntropy(), lambda p, q: -sum(b * math.log(a) for a, b in zip(p, q, strict=True))),
}


@pytest.mark.parametrize("name", FORMULAS)
@given(seed=st.integers(0, 10_000))
@CASES
def test_each_loss_is_its_formula(name, seed):
    loss, formula = FORMULAS[name]
    log_probs, posterior = batch(seed)
    torch.testing.assert_close(loss(log_probs, posterior), looped(formula, log_probs, posterior), rtol=1e-9, atol=1e-9)


NEUTRAL = [
    LabelSmoothing(0.0),
    GeneralizedCrossEntropy(1e-7),
    Bootstrapping(keep=1.0),
    Bootstrapping(hard=False, keep=1.0),
    Focal(0.0),
    SymmetricCrossEntropy(1.0, 0.0),
    LogitAdjustment(0.0, PRIOR),
    LogitAdjustment(1.0, torch.full((4,), 0.25)),
    ForwardCorrection(torch.eye(4)),
    BackwardCorrection(torch.eye(4)),
]


@pytest.mark.parametrize("loss", NEUTRAL, ids=lambda loss: type(loss).__name__)
def test_each_loss_has_cross_entropy_as_its_limit(loss):
    log_probs, posterior = batch(3)
    log_probs = log_probs.requires_grad_(True)
    (slope,) = torch.autograd.grad(loss(log_probs, posterior).sum(), log_probs)
    (expected,) = torch.autograd.grad(cross_entropy(log_probs, posterior).sum(), log_probs)
    # of a loss in p the gradient is compared where p may move: on the simplex
    if isinstance(loss, LogitAdjustment):
        slope, expected = (g - log_probs.exp() * g.sum(dim=1, keepdim=True) for g in (slope, expected))
    torch.testing.assert_close(slope, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss(log_probs, posterior), cross_entropy(log_probs, posterior), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_are_right(name):
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    _, posterior = batch(2, n=5)
    loss = FORMULAS[name][0]
    if isinstance(loss, Bootstrapping):  # the belief is held still, so the gradient is that of fixed targets
        keep = 0.8 if loss.hard else 0.95
        belief = logits.detach().softmax(dim=1)
        belief = torch.eye(4, dtype=torch.float64)[belief.argmax(dim=1)] if loss.hard else belief
        (slope,) = torch.autograd.grad(loss(logits.log_softmax(dim=1), posterior).sum(), logits)
        target = keep * posterior + (1 - keep) * belief
        torch.testing.assert_close(slope, logits.detach().softmax(dim=1) - target)
        return
    assert torch.autograd.gradcheck(lambda z: loss(z.log_softmax(dim=1), posterior), logits)


def test_the_absolute_error_is_the_other_end_of_gce_and_its_loss_is_bounded():
    log_probs, posterior = batch(4)
    expected = 1 - (posterior * log_probs.exp()).sum(dim=1)
    torch.testing.assert_close(GeneralizedCrossEntropy(1.0)(log_probs, posterior), expected)
    impossible = torch.tensor([[0.0, -torch.inf]])
    assert GeneralizedCrossEntropy(0.5)(impossible, torch.tensor([[0.0, 1.0]])).item() == pytest.approx(2.0)


def test_symmetric_losses_tolerate_uniform_noise():
    """Summed over all labels the absolute error does not depend on p, so noise only scales its risk."""
    log_probs, _ = batch(5)
    for loss in (GeneralizedCrossEntropy(1.0), SymmetricCrossEntropy(0.0, 1.0)):
        total = sum(loss(log_probs, torch.eye(4, dtype=torch.float64)[j].expand(6, 4)) for j in range(4))
        torch.testing.assert_close(total, total[:1].expand(6))


def test_backward_correction_is_on_average_the_clean_loss():
    log_probs, _ = batch(6)
    loss = BackwardCorrection(T4)
    each = torch.stack([loss(log_probs, torch.eye(4, dtype=torch.float64)[j].expand(6, 4)) for j in range(4)], dim=1)
    torch.testing.assert_close(each @ T4.T, -log_probs)


def test_backward_correction_by_a_singular_estimate_is_cross_entropy(monkeypatch):
    """An estimate by which two classes are labelled alike: no inverse, one warning, and no error."""
    estimate = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 0, 1]])
    monkeypatch.setattr("anygrain.robust.transition._sums_of_sure", lambda *_: estimate)
    truth = torch.arange(400) % 3
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0)) + 6 * torch.eye(3)[truth]
    loss = BackwardCorrection()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        model = Learner(loss=loss, seed=0, epochs=3).fit(x.numpy(), Exact(truth, 3))
    assert sum("cannot be inverted" in str(w.message) for w in said) == 1
    log_probs, posterior = batch(3, k=3)
    torch.testing.assert_close(loss(log_probs, posterior), cross_entropy(log_probs, posterior))
    plain = Learner(loss=CrossEntropy(), seed=0, epochs=3).fit(x.numpy(), Exact(truth, 3))
    np.testing.assert_allclose(model.predict_proba(x.numpy()), plain.predict_proba(x.numpy()), atol=1e-5)


def test_forward_correction_is_smallest_at_the_truth():
    truth, _ = batch(7)
    given = truth.exp() @ T4
    logits = torch.zeros(6, 4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure():
        optimizer.zero_grad()
        value = ForwardCorrection(T4)(logits.log_softmax(dim=1), given).sum()
        value.backward()
        return value

    optimizer.step(closure)
    torch.testing.assert_close(logits.log_softmax(dim=1), truth, atol=1e-4, rtol=1e-4)


def test_logit_adjustment_makes_the_balanced_model_the_best():
    """Where p is the posterior at equal priors, the adjusted loss is the cross-entropy of the skewed one."""
    density = torch.rand(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    balanced = density / density.sum(dim=1, keepdim=True)
    skewed = density * PRIOR / (density * PRIOR).sum(dim=1, keepdim=True)
    loss = LogitAdjustment(1.0, PRIOR)
    torch.testing.assert_close(loss(balanced.log(), skewed), cross_entropy(skewed.log(), skewed))


def test_errors_of_a_weak_model_are_not_counted_as_those_of_labels():
    """A model that is right on two rows in three, and knows it; 15 % of the labels are wrong."""
    g = torch.Generator().manual_seed(0)
    z = 1.5 * torch.randn(6000, 3, generator=g, dtype=torch.float64)
    truth = torch.multinomial(z.softmax(dim=1), 1, generator=g)[:, 0]
    noise = torch.tensor([[0.85, 0.1, 0.05], [0.05, 0.85, 0.1], [0.1, 0.05, 0.85]], dtype=torch.float64)
    given = torch.multinomial(noise[truth], 1, generator=g)[:, 0]
    said = torch.nn.functional.one_hot(given, 3).double()
    found = estimate_transition(z.log_softmax(dim=1), said)
    counted = _rows_of_sums(_sums_of_sure(z.log_softmax(dim=1), said, 0.5))
    assert float((found - noise).abs().max()) < 0.06
    assert float((counted - noise).abs().max()) > 0.1
    # a posterior says the same as labels that are drawn from it
    soft = estimate_transition(z.log_softmax(dim=1), noise[truth])
    assert float((soft - noise).abs().max()) < 0.06


def test_a_transition_matrix_is_found_among_the_surest_rows():
    sure = torch.eye(3, dtype=torch.float64).repeat_interleave(torch.tensor([4, 2, 6]), dim=0) * 0.9 + 0.03
    unsure = (
        torch.tensor([[0.4, 0.3, 0.3], [0.3, 0.4, 0.3], [0.3, 0.3, 0.4]])
        .double()
        .repeat_interleave(torch.tensor([4, 2, 6]), dim=0)
    )
    said = torch.nn.functional.one_hot(torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 0, 0]), 3).double()
    other = torch.full((12, 3), 1 / 3, dtype=torch.float64)
    found = _rows_of_sums(_sums_of_sure(torch.cat([unsure, sure]).log(), torch.cat([other, said]), 0.5))
    expected = torch.tensor([[0.75, 0.25, 0], [0, 0.5, 0.5], [1 / 3, 0, 2 / 3]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    never = _rows_of_sums(_sums_of_sure(torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.3, 0.7]]), 0.5))
    torch.testing.assert_close(never, torch.tensor([[0.3, 0.7], [0.0, 1.0]]).double())


@given(counts=st.lists(st.integers(1, 5000), min_size=2, max_size=6), beta=st.sampled_from([0.5, 0.9, 0.999, 0.99999]))
@CASES
def test_effective_numbers(counts, beta):
    n = torch.tensor(counts, dtype=torch.float64)
    weight = effective_weights(n, beta)
    expected = torch.tensor([(1 - beta) / (1 - beta**c) for c in counts], dtype=torch.float64)
    torch.testing.assert_close(weight / weight[0], expected / expected[0], rtol=1e-6, atol=0)
    assert float((n * weight).sum()) == pytest.approx(sum(counts))
    torch.testing.assert_close(effective_weights(n, 0.0), torch.ones_like(n))


def test_weights_tend_to_one_over_the_count():
    n = torch.tensor([1000.0, 10.0, 1.0], dtype=torch.float64)
    weight = effective_weights(n, 1 - 1e-9)
    torch.testing.assert_close(weight * n, (weight * n)[:1].expand(3), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LabelSmoothing(1.0), r"amount is 1.0; expected a number in \[0, 1\)"),
        (lambda: GeneralizedCrossEntropy(0.0), "q is 0.0; expected a number above 0"),
        (lambda: GeneralizedCrossEntropy(1.5), "1 - q is -0.5"),
        (lambda: Bootstrapping(keep=1.2), "keep is 1.2"),
        (lambda: Focal(-1.0), "gamma is -1.0"),
        (lambda: SymmetricCrossEntropy(floor=0.0), "-floor is"),
        (lambda: LogitAdjustment(prior=torch.tensor([0.5, 0.6])), "prior must hold probabilities that sum to 1"),
        (lambda: ForwardCorrection(torch.ones(2, 2)), "transition must hold probabilities that sum to 1 in every row"),
        (lambda: ForwardCorrection(torch.full((2, 3), 1 / 3)), r"transition has shape \(2, 3\)"),
        (lambda: BackwardCorrection(torch.full((2, 2), 0.5)), "transition cannot be inverted"),
    ],
)
def test_settings_outside_their_range_are_refused_in_one_line(make, message):
    with pytest.raises(LabelError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
