"""SBCL: clusters and loss against loops, limits, and that it trains."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from anygrain.encoders import Convolutional
from anygrain.labels import LabelError
from anygrain.learn import Learner, RecipeState
from anygrain.robust.subclass_balancing import (
    BASE,
    SubclassBalancing,
    SubclassContrast,
    balanced_clusters,
    class_temperatures,
    numbers_of_subclasses,
    stable_assignment,
    subclass_balancing_loss,
    subclasses,
)


def unit_rows(n, d=5, seed=0):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=1)


def test_numbers_of_subclasses():
    assert numbers_of_subclasses(torch.tensor([100, 35, 12, 4, 0]), 10).tolist() == [10, 3, 1, 1, 1]
    assert numbers_of_subclasses(torch.tensor([100, 35, 25]), 10).tolist() == [4, 1, 1]


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 25), m=st.integers(1, 5), capacity=st.integers(1, 6), seed=st.integers(0, 99))
def test_assignment_is_that_of_the_greedy_loop_over_all_pairs(n, m, capacity, seed):
    likeness = torch.rand(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected, room = [-1] * n, [capacity] * m
    for _, i, c in sorted(((float(likeness[i, c]), i, c) for i in range(n) for c in range(m)), reverse=True):
        if expected[i] < 0 and room[c]:
            expected[i] = c
            room[c] -= 1
    assert stable_assignment(likeness, capacity).tolist() == expected


@pytest.mark.parametrize(("n", "m"), [(20, 3), (21, 3), (7, 7), (30, 1)])
def test_clusters_differ_by_one_row_at_most(n, m):
    found = balanced_clusters(unit_rows(n), m, torch.Generator().manual_seed(1))
    size = torch.bincount(found, minlength=m)
    assert int(size.sum()) == n
    assert int(size.max() - size.min()) <= 1


def test_clusters_find_groups_of_equal_size():
    centre = torch.eye(3, dtype=torch.float64)
    x = torch.nn.functional.normalize(centre.repeat(10, 1) + 0.1 * unit_rows(30, 3), dim=1)
    found = balanced_clusters(x, 3, torch.Generator().manual_seed(0))
    assert all(len(set(found[g::3].tolist())) == 1 for g in range(3))


def test_subclasses_stay_inside_their_class():
    classes = torch.tensor([0] * 40 + [1] * 12 + [-1] * 3 + [2] * 25)
    found, number = subclasses(unit_rows(80), classes, 3, least=10, seed=0)
    assert number.tolist() == [3, 1, 2]
    assert bool((found[classes < 0] == -1).all())
    owner = {}
    for s, c in zip(found.tolist(), classes.tolist(), strict=True):
        assert owner.setdefault(s, c) == c
    assert len(owner) == 7


def loss_by_loops(u, subclass, classes, instance, tau, between, beta):
    """The formulas, one view at a time."""
    v, total = len(u), 0.0
    for i in range(v):
        others = [a for a in range(v) if a != i]
        ps = [p for p in others if subclass[p] == subclass[i]]
        dot = [float(u[i] @ u[a]) for a in range(v)]
        first = 0.0
        for p in ps:
            first -= (tau / BASE) / len(ps) * (dot[p] / tau - math.log(sum(math.exp(dot[a] / tau) for a in others)))
        t = float(between[classes[i]])
        d = [a for a in others if subclass[a] != subclass[i] or instance[a] == instance[i]]
        pc = [p for p in d if classes[p] == classes[i]]
        second = 0.0
        for p in pc:
            second -= 1 / len(pc) * (dot[p] / t - math.log(sum(math.exp(dot[a] / t) for a in d)))
        total += first + beta * second
    return total / v


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_is_that_of_the_loops_and_does_not_depend_on_the_order(seed):
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(3, (8,), generator=generator)
    subclass = 2 * classes + torch.randint(2, (8,), generator=generator)
    views = [torch.cat([t, t]) for t in (subclass, classes, torch.arange(8))]
    u, between = unit_rows(16, seed=seed), torch.tensor([0.08, 0.1, 0.15], dtype=torch.float64)
    expected = loss_by_loops(u, *[t.tolist() for t in views], 0.1, between, 0.25)
    assert float(subclass_balancing_loss(u, *views, between=between)) == pytest.approx(expected, rel=1e-9)
    order = torch.randperm(16, generator=generator)
    moved = subclass_balancing_loss(u[order], *[t[order] for t in views], between=between)
    assert float(moved) == pytest.approx(expected, rel=1e-9)


def test_one_subclass_per_class_is_the_supervised_contrast():
    classes, u = torch.arange(6).repeat(2) % 3, unit_rows(12)
    instance = torch.arange(6).repeat(2)
    found = subclass_balancing_loss(u, classes, classes, instance, weight=0.0)
    total = 0.0
    for i in range(12):
        mates = [j for j in range(12) if j != i and classes[j] == classes[i]]
        share = sum(math.exp(float(u[i] @ u[a]) / 0.1) for a in range(12) if a != i)
        total -= sum(float(u[i] @ u[p]) / 0.1 - math.log(share) for p in mates) / len(mates)
    assert float(found) == pytest.approx(0.1 / BASE * total / 12, rel=1e-9)
    # the second part is then the contrast with the own second view among other classes
    second = float(subclass_balancing_loss(u, classes, classes, instance, weight=1.0)) - float(found)
    total = 0.0
    for i in range(12):
        twin = (i + 6) % 12
        among = [a for a in range(12) if classes[a] != classes[i] or a == twin]
        total -= float(u[i] @ u[twin]) / 0.1 - math.log(sum(math.exp(float(u[i] @ u[a]) / 0.1) for a in among))
    assert second == pytest.approx(total / 12, rel=1e-9)


def test_parts_without_positives_are_zero_and_have_a_gradient():
    u = unit_rows(3).requires_grad_()
    found = subclass_balancing_loss(u, torch.arange(3), torch.arange(3), torch.arange(3))
    assert float(found.detach()) == 0.0
    all_one = subclass_balancing_loss(u, torch.zeros(3), torch.zeros(3, dtype=torch.long), torch.arange(3))
    (slope,) = torch.autograd.grad(all_one, u)
    assert bool(slope.isfinite().all())


def test_temperatures_follow_density_and_single_subclasses_keep_the_base():
    x = torch.cat([unit_rows(40) * 0.1 + 1, unit_rows(40, seed=1), unit_rows(40, seed=2) * 0.5 + 1, unit_rows(6)])
    classes = torch.tensor([0] * 40 + [1] * 40 + [2] * 40 + [3] * 6)
    found = class_temperatures(x, classes, torch.tensor([4, 4, 4, 1]))
    assert float(found[3]) == 0.1
    assert float(found[0]) < float(found[2]) < float(found[1])
    phi = []
    for c in range(4):
        z = x[classes == c]
        phi.append(float((z - z.mean(dim=0)).norm(dim=1).mean()) / math.log(len(z) + 10))
    low, high = np.quantile(phi, [0.2, 0.8])
    phi = np.clip(phi, low, high)
    assert np.allclose(found[:3], 0.1 * phi[:3] / phi.mean())


X, Y = load_digits(return_X_y=True)
X = X / 16


def test_the_procedure_learns_skewed_digits_and_says_its_subclasses():
    rows = np.concatenate([np.flatnonzero(y == Y)[:n] for y, n in enumerate([90, 60, 40, 25, 15, 10, 10, 10, 10, 10])])
    procedure = SubclassContrast(epochs=12, warm_up=4, every=4)
    model = Learner(head="mlp", procedure=procedure).fit(X[rows], Y[rows])
    test = np.setdiff1d(np.arange(len(X)), rows)
    assert model.score(X[test], Y[test]) > 0.8
    found = procedure.subclass_.numpy()
    assert len(np.unique(found)) == 9 + 6 + 4 + 2 + 6
    assert np.unique(np.stack([found, Y[rows]]), axis=1).shape[1] == len(np.unique(found))
    again = Learner(head="mlp", procedure=SubclassContrast(epochs=12, warm_up=4, every=4)).fit(X[rows], Y[rows])
    assert np.array_equal(again.predict_proba(X[:5]), model.predict_proba(X[:5]))


def test_the_term_moves_a_trained_encoder_and_its_subclasses_appear():
    images = (X[:200].reshape(-1, 8, 8) * 255).astype(np.uint8)
    term = SubclassBalancing(0.5, warm_up=1, every=1, least=5, width=16)
    model = Learner(encoder=Convolutional(widths=(8, 8)), terms=[term], epochs=4, batch_size=64).fit(images, Y[:200])
    assert np.isfinite(model.predict_proba(images)).all()
    assert term.parts.of is not None
    assert len(term.parts.of.unique()) > 10
    assert float(term.projection.inner.weight.detach().std()) > 0


def test_a_killed_training_with_the_term_goes_on_to_the_same_result():
    images = (X[:150].reshape(-1, 8, 8) * 255).astype(np.uint8)
    state, kept = RecipeState(), {}

    def learner():
        term = SubclassBalancing(0.5, warm_up=1, every=2, least=5, width=16)
        return Learner(encoder=Convolutional(widths=(8, 8)), terms=[term], epochs=5, batch_size=64)

    def callback(done, total, facts):
        if done == 3:  # clustered in the second epoch, and again in the fourth
            kept["tensors"], kept["history"] = copy.deepcopy(state.tensors()), list(state.history)
            raise KeyboardInterrupt

    whole = learner().fit(images, Y[:150]).predict_proba(images)
    with pytest.raises(KeyboardInterrupt):
        learner().fit(images, Y[:150], callback=callback, state=state)
    again = learner().fit(images, Y[:150], state=RecipeState.from_tensors(kept["tensors"], kept["history"]))
    np.testing.assert_array_equal(whole, again.predict_proba(images))


def test_refusals_are_one_line():
    with pytest.raises(LabelError, match="fixed features do not move"):
        Learner(terms=[SubclassBalancing()], epochs=1).fit(X[:50], Y[:50])
    with pytest.raises(LabelError, match='head="mlp"'):
        Learner(procedure=SubclassContrast()).fit(X[:50], Y[:50])
    with pytest.raises(LabelError, match="clusters of"):
        balanced_clusters(unit_rows(3), 5, torch.Generator())
    with pytest.raises(LabelError, match="temperature is 0"):
        SubclassContrast(temperature=0.0)
