"""Relatives of self-training: limits in which they are the same as something simpler, and what they refuse."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.semi_supervised import LabelSpreading
from sklearn.svm import LinearSVC

from anygrain.encoders import Text
from anygrain.labels import Exact, LabelError
from anygrain.learn import Learner, load
from anygrain.learn.graph import neighbour_graph
from anygrain.robust import CoTraining, Curriculum, Fixed, Handling, LabelPropagation, SelfTraining, TransductiveSVM
from anygrain.robust.co_training import features_of
from anygrain.robust.label_propagation import Propagation, propagated
from anygrain.robust.self_training import self_train, together
from anygrain.robust.transductive_svm import squared_hinge, symmetric_hinge
from anygrain.robust.tri_training import TriTraining

X, Y = load_iris(return_X_y=True)
X = (X - X.mean(axis=0)) / X.std(axis=0)
FEW = np.where(np.isin(np.arange(150) % 50, [0, 17, 33]), Y, -1)
ALL = [0, 1, 2, 3]
SHORT = {"rounds": 3, "calibrate": False}


def fitted(procedure, x=X, y=FEW, **how):
    return Learner(procedure=procedure, **how).fit(x, y)


def same(one, other, atol=1e-4):
    return np.allclose(one.head_.weight.detach(), other.head_.weight.detach(), atol=atol)


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "procedure",
    [
        CoTraining(threshold=Fixed(2.0), **SHORT),
        TriTraining(Fixed(2.0), **SHORT),
        LabelPropagation(threshold=Fixed(2.0)),
    ],
)
def test_what_accepts_nothing_is_the_supervised_head(procedure):
    assert same(fitted(procedure), fitted(SelfTraining(Fixed(2.0), calibrate=False)))


@pytest.mark.parametrize("handling", [Handling(), Handling(weigh=True, soft=True, align=True)])
@pytest.mark.parametrize("relative", [CoTraining([ALL, ALL], **SHORT), TriTraining(sample=False, **SHORT)])
def test_learners_that_are_alike_are_self_training(relative, handling):
    relative.handling = handling
    alone = SelfTraining(handling=handling, **SHORT)
    models = [fitted(procedure) for procedure in (relative, alone)]
    assert same(*models)
    assert torch.equal(relative.outcome_.accepted, alone.outcome_.accepted)
    torch.testing.assert_close(relative.outcome_.target, alone.outcome_.target, atol=1e-4, rtol=0)
    torch.testing.assert_close(relative.outcome_.weight, alone.outcome_.weight, atol=1e-4, rtol=0)


def test_nothing_flows_where_alpha_is_zero():
    nothing = LabelPropagation(alpha=0.0)
    assert same(fitted(nothing), fitted(SelfTraining(Fixed(2.0), calibrate=False)))
    assert float(nothing.outcome_.weight[torch.tensor(FEW < 0)].max()) < 1e-6


def test_without_weight_the_margins_are_those_of_support_vector_machines():
    ours = fitted(TransductiveSVM(weight=0.0, steps=300), penalty=0.02)
    told = FEW >= 0
    z = ours.encoder_(X).numpy()[told] / float(ours.feature_scale_)
    # the loss is a mean of rows, that of scikit-learn a sum
    svm = LinearSVC(C=1 / (0.02 * told.sum()), intercept_scaling=100, tol=1e-9, max_iter=500000).fit(z, FEW[told])
    assert np.allclose(ours.head_.weight.detach().numpy(), svm.coef_, atol=5e-3)
    # rows without labels do not matter then
    moved = X.copy()
    moved[~told] = X[~told][::-1]
    assert same(ours, fitted(TransductiveSVM(weight=0.0, steps=300), moved, penalty=0.02), atol=2e-3)


# -- by hand -----------------------------------------------------------------------------------------------------------


def test_each_view_learns_what_the_other_says():
    """Two models with opinions of their own: targets cross over, what stays is the mean."""
    labels = Exact(torch.tensor([0, -1, -1]), 2)
    votes = torch.tensor([[[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]], [[0.9, 0.1], [0.3, 0.7], [0.1, 0.9]]]).double()
    heard = [[], []]

    def fit(view):
        def run(rows, target, weight):
            heard[view].append((rows.tolist(), target.tolist()))
            return votes[view], None

        return run

    how = {"rounds": 1, "handling": Handling(), "seed": 0, "dtype": torch.float64}
    found = self_train(labels, [fit(0), fit(1)], Fixed(0.65), **how, teach=CoTraining().teach)
    # the second is sure of both rows, so the first learns both; the first is sure of row 1 alone
    assert heard[0][-1] == ([0, 1, 2], [[1, 0], [0, 1], [0, 1]])
    assert heard[1][-1] == ([0, 1], [[1, 0], [1, 0]])
    assert torch.allclose(found.target, torch.tensor([[1, 0], [0.5, 0.5], [0, 1]]).double())
    assert torch.allclose(found.weight, torch.tensor([1, 1, 0.5]).double())
    assert torch.allclose(found.probs, together(votes))


def test_two_of_three_teach_the_third():
    votes = torch.tensor([[[0.9, 0.1]], [[0.6, 0.4]], [[0.3, 0.7]]])
    taught, agree = TriTraining().teach(votes)
    assert agree[:, 0].tolist() == [False, False, True]
    assert torch.allclose(taught[2, 0], torch.tensor([0.75, 0.25]))


def test_samples_join_rows_and_leave_others_alone():
    procedure = TriTraining()
    learner = Learner(seed=1)
    found = procedure.learners(learner, torch.randn(150, 4), Exact(torch.tensor(FEW), 3))
    share = torch.stack([votes.share for votes in found])
    assert torch.equal(share[:, FEW < 0], torch.ones(3, 141))
    assert len(share[:, FEW >= 0].unique()) == 27


def test_propagation_is_the_limit_of_its_iteration():
    graph = neighbour_graph(torch.tensor(X), 5).spread
    start = torch.zeros(150, 3, dtype=torch.float64)
    start[FEW >= 0] = torch.eye(3, dtype=torch.float64)[FEW[FEW >= 0]]
    for alpha in (0.0, 0.5, 0.99):
        step = start.clone()
        for _ in range(3000):
            step = alpha * (graph @ step) + (1 - alpha) * start
        found = propagated(graph, start, alpha)
        assert float((found - step).abs().max() / step.max()) < 1e-6


def test_propagation_agrees_with_another_program():
    theirs = LabelSpreading(kernel="rbf", gamma=5, alpha=0.9, max_iter=2000, tol=1e-9).fit(X, FEW)
    start = torch.zeros(150, 3, dtype=torch.float64)
    start[FEW >= 0] = torch.eye(3, dtype=torch.float64)[FEW[FEW >= 0]]
    ours = propagated(torch.tensor(theirs._build_graph()), start, 0.9)
    ours = ours / ours.sum(dim=1, keepdim=True)
    assert np.allclose(ours, theirs.label_distributions_, atol=1e-5)


def test_rows_that_nothing_reaches_are_not_learnt_from():
    far = np.concatenate([X, X[:20] + 1000])
    procedure = LabelPropagation()
    fitted(procedure, far, np.concatenate([FEW, np.full(20, -1)]))
    assert not bool(procedure.outcome_.accepted[150:].any())
    assert bool(procedure.outcome_.accepted[:150].any())
    probs, _ = Propagation(torch.tensor(far), 5, 0.99)(
        torch.tensor([0]), torch.eye(3, dtype=torch.float64)[:1], torch.ones(1, dtype=torch.float64)
    )
    assert torch.allclose(probs[150:], torch.full((20, 3), 1 / 3, dtype=torch.float64))


def test_hinges_by_loops():
    scores = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.rand(6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(dim=1)
    for i in range(6):
        expected = 0.0
        for k in range(3):
            on, off = (max(0.0, 1 - side * float(scores[i, k])) ** 2 for side in (1, -1))
            expected += float(target[i, k]) * on + (1 - float(target[i, k])) * off
        assert float(squared_hinge(scores, target)[i]) == pytest.approx(expected, abs=1e-12)
        high, second, _ = sorted(scores[i].tolist(), reverse=True)
        assert float(symmetric_hinge(scores)[i]) == pytest.approx(max(0.0, 1 - (high - second) / 2) ** 2, abs=1e-12)
    h = torch.tensor([-2.0, -0.3, 0.6])
    assert torch.allclose(symmetric_hinge(torch.stack([-h, h], dim=1)), (1 - h.abs()).clamp(min=0) ** 2)


# -- use ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "procedure",
    [
        CoTraining(rounds=4, calibrate=False),
        TriTraining(rounds=4, calibrate=False),
        LabelPropagation(),
        TransductiveSVM(),
    ],
)
def test_a_learner_gains_from_rows_without_labels(procedure, tmp_path):
    x, y = load_digits(n_class=6, return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(x))[:500]
    x, y = x[chosen] / 16, y[chosen]
    few = np.full(500, -1)
    for c in range(6):
        few[np.flatnonzero(y == c)[:2]] = c
    alone = TransductiveSVM(0.0) if isinstance(procedure, TransductiveSVM) else SelfTraining(Fixed(2.0))
    model = fitted(procedure, x, few)
    assert model.score(x, y) > fitted(alone, x, few).score(x, y) + 0.02
    model.save(tmp_path / "model")
    assert np.allclose(load(tmp_path / "model").predict_proba(x[:5]), model.predict_proba(x[:5]), atol=1e-6)


def test_views_by_name():
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    procedure = CoTraining("a+b|c+3", **SHORT)
    fitted(procedure, frame)
    assert [view.tolist() for view in procedure.views_] == [[0, 1], [2, 3]]
    mixed = frame[["a", "b"]].assign(
        kind=np.array(["u", "v", "w"])[Y], said=[f"flower {i} of {i % 7}" for i in range(150)]
    )
    procedure = CoTraining([["a", "kind"], ["said"]], threshold=Curriculum(0.3), **SHORT)
    model = fitted(procedure, mixed)
    origin = model.encoder_.feature_columns()
    assert len(origin) == model.encoder_.feature_dim
    assert {origin[i] for i in procedure.views_[0].tolist()} == {("a",), ("kind",)}
    assert {origin[i] for i in procedure.views_[1].tolist()} == {("said",)}


def test_halves_are_all_features():
    procedure = CoTraining(**SHORT)
    fitted(procedure, seed=4)
    assert sorted(torch.cat(procedure.views_).tolist()) == ALL
    assert features_of([1, "2"], [0, 1, 2], [(0,), (1,), (2,)]).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: CoTraining([[0]]), "expected two groups of columns"),
        (lambda: fitted(CoTraining([[0], [9]])), 'no column "9"; expected one of 0, 1, 2, 3'),
        (lambda: fitted(CoTraining(), X[:, :1]), "needs two views, and there is one feature"),
        (lambda: fitted(CoTraining([[0], [1]]), [f"word {i}" for i in range(150)], encoder=Text()), "have none"),
        (lambda: LabelPropagation(alpha=1.0), r"alpha is 1.0; expected a number in \[0, 1\)"),
        (lambda: LabelPropagation(neighbours=0), "neighbours is 0; expected a number of at least 1"),
        (lambda: TransductiveSVM(weight=-1), "weight is -1; expected a number of at least 0"),
        (lambda: fitted(TransductiveSVM(), loss=lambda log_probs, posterior: None), "has an objective of its own"),
    ],
)
def test_refusals_are_one_line(use, message):
    with pytest.raises(LabelError, match=message) as caught:
        use()
    assert "\n" not in str(caught.value)
