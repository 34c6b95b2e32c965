"""ConR: the double loop, when it is silent, and which way it pushes; density weights."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels import LabelError, Value
from anygrain.learn import Learner
from anygrain.robust import ConR, contrastive_regularizer, density_weights


def looped(features, y, said, weights, window, tau, slope, push, offset=False):
    """The formula, anchor by anchor."""
    n = len(y)
    unit = [[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in features.tolist()]
    total = 0.0
    for j in range(n):
        near = [i for i in range(n) if i != j and abs(y[i] - y[j]) <= window]
        wrong = [i for i in range(n) if i != j and abs(y[i] - y[j]) > window and abs(said[i] - said[j]) <= window]
        if not near or not wrong:
            continue
        like = [sum(a * b for a, b in zip(unit[i], unit[j], strict=True)) / tau for i in range(n)]
        below = sum(math.exp(like[i]) for i in near)
        for i in wrong:
            d = abs(float(y[i] - y[j]))
            pushed = math.exp(slope * d) if push == "exponential" else slope * d
            below += float(weights[j]) * pushed * math.exp(like[i])
        below += (n - len(near)) if offset else 0
        total += float(weights[j]) * -sum(like[i] - math.log(below) for i in near) / len(near)
    return total / n


@given(seed=st.integers(0, 10_000), push=st.sampled_from(["exponential", "linear"]), offset=st.booleans())
@settings(max_examples=40, deadline=None)
def test_it_is_the_double_loop(seed, push, offset):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    y = 4 * torch.rand(9, generator=generator, dtype=torch.float64)
    said = 2 * torch.rand(9, generator=generator, dtype=torch.float64)
    weights = 0.5 + torch.rand(9, generator=generator, dtype=torch.float64)
    how = {"window": 1.0, "temperature": 0.5, "slope": 0.2, "push": push, "offset": offset}
    found = contrastive_regularizer(features, y, said, weights, **how)
    expected = looped(features, y, said, weights, 1.0, 0.5, 0.2, push, offset)
    assert float(found) == pytest.approx(expected, abs=1e-9)
    longer = contrastive_regularizer(7 * features, y, said, weights, **how)
    assert float(longer) == pytest.approx(float(found), abs=1e-9)


def test_it_is_silent_where_predictions_are_right_or_all_targets_are_near():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(12, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.rand(12, generator=generator, dtype=torch.float64)
    said = torch.rand(12, generator=generator, dtype=torch.float64)
    for targets, predictions, window in ((y, y, 0.1), (y, said, 1.0)):
        value = contrastive_regularizer(features, targets, predictions, window=window)
        (slope,) = torch.autograd.grad(value, features)
        assert float(value.detach()) == 0
        assert not slope.any()
    assert float(contrastive_regularizer(features, y, said, window=0.3)) > 0


def test_it_pushes_apart_what_is_wrongly_near_and_not_the_predictions():
    features = torch.tensor([[1.0, 0.1], [1.0, 0.2], [1.0, -0.1]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0.0, 0.0, 5.0])
    said = torch.zeros(3, requires_grad=True)
    value = contrastive_regularizer(features, y, said, window=1.0, temperature=0.5)
    (slope,) = torch.autograd.grad(value, features, retain_graph=True)
    assert torch.autograd.grad(value, said, allow_unused=True) == (None,)
    moved = torch.nn.functional.normalize(features - 0.05 * slope, dim=1).detach()
    before = torch.nn.functional.normalize(features, dim=1).detach()
    assert float(moved[0] @ moved[2]) < float(before[0] @ before[2])
    assert float(moved[0] @ moved[1]) > float(before[0] @ before[1])


def test_density_weights_are_even_for_even_numbers_and_high_for_rare_ones():
    even = torch.linspace(0, 1, 1000, dtype=torch.float64)
    torch.testing.assert_close(density_weights(even, bins=10, width=1e-9), torch.ones(1000, dtype=torch.float64))
    skewed = torch.cat([torch.zeros(90), torch.ones(10)]).double()
    weight = density_weights(skewed, bins=10, width=1e-9)
    assert float(weight[-1] / weight[0]) == pytest.approx(9.0)
    root = density_weights(skewed, bins=10, width=1e-9, power=0.5)
    assert float(root[-1] / root[0]) == pytest.approx(3.0)
    assert float(weight.mean()) == pytest.approx(1.0)
    missing = torch.tensor([0.0, 1.0, torch.nan])
    assert float(density_weights(missing)[2]) == 1.0


def test_the_term_shapes_a_trained_encoder_and_no_other():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(240, 3, generator=generator)
    y = x[:, 0] ** 3 + 0.1 * torch.randn(240, generator=generator)
    values = Value(y)
    import pandas as pd

    frame = pd.DataFrame(x.numpy(), columns=list("abc"))
    how = {"encoder": "columns", "epochs": 3, "seed": 0}
    term = ConR(strength=5.0, window=0.1)
    with_term = Learner(terms=[term], **how).fit(frame, values)
    plain = Learner(**how).fit(frame, values)
    assert term.range == pytest.approx(float(y.max() - y.min()))
    assert len(term.weights) == 240
    assert abs(with_term.predict(frame) - plain.predict(frame)).max() > 1e-3
    assert with_term.history_[0]["objective"] > plain.history_[0]["objective"]  # the term is above 0
    with pytest.raises(LabelError, match="terms= of a number shape an encoder that is trained"):
        Learner(terms=[ConR()]).fit(x.numpy(), values)
    with pytest.raises(LabelError, match="ConR is for labels of a number; these speak of classes"):
        Learner(terms=[ConR()]).fit(x.numpy(), (y > 0).long().numpy())
