"""A loss, a term, a weighting and a procedure of one's own, each in ten lines."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris

from anygrain.labels import Exact
from anygrain.learn import Learner, Procedure, Term, Weighting

X, Y = load_iris(return_X_y=True)


def test_loss_of_ones_own():
    """The square distance of probabilities (Brier, 1950)."""

    def brier(log_probs, posterior):
        return (log_probs.exp() - posterior).square().sum(dim=-1)

    learner = Learner(loss=brier, epochs=40).fit(X, Y)
    log_probs = learner.head_(torch.tensor(learner.transform(X))).detach()
    value = float(brier(log_probs, torch.tensor(learner.posterior_)).mean() + 0.005 * learner.head_.penalty().detach())
    course = [h["objective"] for h in learner.history_ if h["track"] == "loop"]
    assert len(course) == 40
    assert course[-1] < course[0]
    assert course[-1] == pytest.approx(value, rel=0.05)
    assert learner.score(X, Y) > 0.9


def test_term_of_ones_own():
    class Confident(Term):
        """Entropy of the predictions: a penalty on doubt."""

        def on_fit_start(self, learner):
            self.steps = 0

        def forward(self, step):
            return -(step.log_probs.exp() * step.log_probs).sum(dim=-1).mean()

        def after_step(self, step):
            self.steps += 1

    def entropy(learner):  # at temperature one: the temperature undoes what confidence alone gains
        log_probs = learner.head_(torch.tensor(learner.transform(X))).detach()
        return float(-(log_probs.exp() * log_probs).sum(dim=1).mean())

    term = Confident()
    assert entropy(Learner(terms=[term]).fit(X, Y)) < entropy(Learner(weighting=Half(), epochs=30).fit(X, Y))
    assert term.steps == 30


class Half(Weighting):
    """A weight of one half for all: changes nothing, since weights are normalised."""

    def __call__(self, step):
        return torch.full_like(step.log_probs[:, 0], 0.5)


def test_weighting_of_ones_own():
    class Only(Weighting):
        """Only instances of some classes count."""

        def __call__(self, step):
            return (step.posterior.argmax(dim=-1) < 2).float()

    found = Learner(weighting=Only(), epochs=80).fit(X, Y).predict(X)
    assert (found[Y == 2] == 2).mean() < 1
    assert (found[Y < 2] == Y[Y < 2]).all()
    assert Learner(weighting=Half()).fit(X, Y).score(X, Y) > 0.95


def test_procedure_of_ones_own():
    class PlainGradient(Procedure):
        """The gradient of the evidence's likelihood, for any label; composes with losses, terms and weightings."""

        def run(self, learner, features, labels):
            optimizer = torch.optim.Adam(learner.head_.parameters(), lr=0.05)
            for epoch in range(100):
                optimizer.zero_grad()
                learner.objective(learner.step(features, labels, epoch=epoch)).backward()
                optimizer.step()
                learner.history_.append({"evidence": learner.evaluate(features, labels)})

    few = np.where(np.arange(len(Y)) % 10 == 0, Y, -1)
    learner = Learner(procedure=PlainGradient()).fit(X, Exact(torch.tensor(few), 3))
    evidence = [h["evidence"] for h in learner.history_]
    assert evidence[-1] > evidence[0]
    assert learner.score(X, Y) > 0.8
    assert "PlainGradient" in learner.chosen_["why"]


@pytest.mark.parametrize("head", ["linear", "cosine", "prototype", "quadratic", "mlp"])
def test_every_head_learns(head):
    assert Learner(head=head).fit(X, Y).score(X, Y) > (0.8 if head == "cosine" else 0.9)  # iris differs in length
