"""Self-training: limits, and that every kind of label starts it."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression

from anygrain.labels import Bags, Candidates, Counts, Exact, IdentifiabilityWarning, LabelError
from anygrain.learn import Learner
from anygrain.robust.self_training import (
    Handling,
    SelfTraining,
    SelfTrainingClassifier,
    aligned,
    guesses_given_truth,
    self_train,
)
from anygrain.robust.thresholds import Curriculum, Fixed, MarginBound, Threshold, TopPerClass

X, Y = load_iris(return_X_y=True)
X = (X - X.mean(axis=0)) / X.std(axis=0)
FEW = np.where(np.isin(np.arange(150) % 50, [0, 17, 33]), Y, -1)


class Oracle(Threshold):
    """Accepts everything."""

    def __call__(self, seen):
        return torch.ones(len(seen.votes), dtype=torch.bool)


def test_a_threshold_above_one_is_the_supervised_model():
    plain = LogisticRegression().fit(X[FEW >= 0], FEW[FEW >= 0])
    ours = SelfTrainingClassifier(LogisticRegression(), Fixed(1.5)).fit(X, FEW)
    assert np.allclose(ours.predict_proba(X), plain.predict_proba(X), atol=1e-9)
    assert not bool(ours.outcome_.accepted.any())


def test_sure_and_right_guesses_give_the_model_of_all_labels():
    """A model that knows the truth of rows that it is not told of."""

    def knows(rows, target, weight):
        model = LogisticRegression().fit(X[rows], target.argmax(dim=1), sample_weight=weight)
        return torch.nn.functional.one_hot(torch.tensor(Y), 3).double(), model

    how = {"rounds": 5, "handling": Handling(), "seed": 0, "dtype": torch.float64}
    found = self_train(Exact(torch.tensor(FEW), 3), knows, Fixed(0.95), **how)
    assert np.allclose(found.model.coef_, LogisticRegression().fit(X, Y).coef_, atol=1e-9)
    assert [h["accepted"] for h in found.history][:1] == [141]


def test_guesses_stay_or_are_made_anew():
    stay = SelfTrainingClassifier(LogisticRegression(), Fixed(0.7)).fit(X, FEW).outcome_
    accepted = [h["accepted"] for h in stay.history]
    assert accepted == sorted(accepted)
    anew = SelfTrainingClassifier(LogisticRegression(), Curriculum(0.25)).fit(X, FEW).outcome_
    assert [h["accepted"] for h in anew.history[:4]] == [36, 71, 106, 141]


@pytest.mark.parametrize("threshold", [Curriculum(0.2, "margin"), MarginBound(), TopPerClass(20)])
def test_a_learner_gains_from_rows_without_labels(threshold):
    x, y = load_digits(n_class=5, return_X_y=True)
    x, y = x[:500], y[:500]
    few = np.full(500, -1)
    for c in range(5):
        few[np.flatnonzero(y == c)[:2]] = c
    alone = Learner(procedure=SelfTraining(Fixed(2.0))).fit(x, few).score(x, y)
    model = Learner(procedure=SelfTraining(threshold, rounds=4, handling=Handling(align=True))).fit(x, few)
    assert model.score(x, y) > alone + 0.02
    assert sum(model.history_[-1]["by_class"]) > 0


def test_labels_that_are_not_classes_keep_their_evidence():
    sets = torch.zeros(150, 3, dtype=torch.bool)
    sets[torch.arange(150), torch.tensor(Y)] = True
    sets[torch.arange(150), torch.tensor((Y + 1 + np.arange(150) // 2 % 2) % 3)] = True
    sets[torch.arange(0, 150, 2)] = True  # every other row is told nothing
    bags = Bags.from_ids(torch.arange(150) // 5)
    counts = torch.stack([torch.bincount(torch.tensor(Y[5 * b : 5 * b + 5]), minlength=3) for b in range(30)])
    for labels in (Candidates(sets), Exact(torch.tensor(FEW), 3) & Counts(bags, counts)):
        model = Learner(procedure=SelfTraining(Fixed(0.9))).fit(X, labels)
        assert model.score(X, Y) > 0.85
    target = Learner(procedure=SelfTraining(Fixed(0.6)))
    target.fit(X, Candidates(sets))
    told = ~sets.all(dim=1)
    assert float(target.procedure.outcome_.target[told][~sets[told]].max()) < 1e-6


def test_the_same_seed_gives_the_same_model():
    one, two = (Learner(procedure=SelfTraining(MarginBound(), rounds=2), seed=3).fit(X, FEW) for _ in range(2))
    assert np.array_equal(one.predict_proba(X), two.predict_proba(X))


def test_handling_of_guesses_by_hand():
    votes = torch.tensor([[0.6, 0.4], [0.1, 0.9]], dtype=torch.float64)
    target, weight = Handling(weigh=True, weight=0.5, ramp=4, smoothing=0.2).of_round(votes, 2, None)
    assert torch.allclose(target, torch.tensor([[0.9, 0.1], [0.1, 0.9]]).double())
    assert torch.allclose(weight, torch.tensor([0.15, 0.225]).double())
    soft, _ = Handling(soft=True).of_round(votes, 1, None)
    assert torch.equal(soft, votes)
    noise = torch.tensor([[0.8, 0.2], [0.3, 0.7]], dtype=torch.float64)
    corrected, _ = Handling(correct=True).of_round(votes, 1, noise)
    assert torch.allclose(corrected[0], torch.tensor([0.6 * 0.8, 0.4 * 0.3]).double() / (0.48 + 0.12))
    assert torch.allclose(corrected[1], torch.tensor([0.1 * 0.2, 0.9 * 0.7]).double() / (0.02 + 0.63))


def test_corrected_targets_have_the_gradient_of_forward_correction():
    logits = torch.tensor([[0.3, -0.2, 0.5]], dtype=torch.float64, requires_grad=True)
    noise = torch.rand(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(dim=1)
    guess = int(logits.argmax())
    target, _ = Handling(correct=True).of_round(logits.softmax(dim=1).detach(), 1, noise)
    (ours,) = torch.autograd.grad(-(target * logits.log_softmax(dim=1)).sum(), logits)
    (forward,) = torch.autograd.grad(-(logits.softmax(dim=1) @ noise[:, guess]).log().sum(), logits)
    assert torch.allclose(ours, forward, atol=1e-12)


def test_aligned_votes_have_the_stated_mean():
    votes = torch.rand(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    votes = votes / votes.sum(dim=1, keepdim=True)
    share = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    found = aligned(votes, share)
    assert torch.allclose(found.mean(dim=0), share, atol=1e-9)
    assert torch.allclose(found.sum(dim=1), torch.ones(50, dtype=torch.float64))
    ratio = (found / votes).log()
    tilt = ratio - ratio[:, :1]  # one weight per class, the same for all rows
    assert torch.allclose(tilt, tilt[:1].expand_as(tilt), atol=1e-9)


def test_the_matrix_of_guesses_is_counted():
    truth = torch.eye(2, dtype=torch.float64).repeat(1000, 1)
    votes = truth.clone()
    votes[:400:2] = torch.tensor([0.0, 1.0], dtype=torch.float64)  # a fifth of class 0 is guessed as 1
    found = guesses_given_truth(votes, truth)
    assert torch.allclose(found, torch.tensor([[0.8, 0.2], [0.0, 1.0]]).double(), atol=2e-3)
    assert torch.allclose(found.sum(dim=1), torch.ones(2, dtype=torch.float64))


def test_refusals_are_one_line():
    with pytest.raises(LabelError, match="does not compose with weighting"):
        Learner(procedure=SelfTraining(), weighting=lambda step: None).fit(X, FEW)
    with pytest.raises(LabelError, match="no row has any evidence"), pytest.warns(IdentifiabilityWarning):
        Learner(procedure=SelfTraining()).fit(X, Exact(torch.full((150,), -1), 3))
    with pytest.raises(LabelError, match="smoothing is 1"):
        Handling(smoothing=1)
    with pytest.raises(LabelError, match="rows"):
        SelfTrainingClassifier(LogisticRegression()).fit(X, FEW[:10])
    with pytest.raises(LabelError, match='threshold "gut" is not known'):
        SelfTraining("gut")
