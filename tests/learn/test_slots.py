"""A loss, a term, a weighting and a procedure of one's own, each in ten lines."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris

from anygrain.labels import AnyOf, Bags, Crowd, Exact
from anygrain.learn import Learner, Procedure, Term, Weighting
from anygrain.learn.cross_fit import split_in_parts

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
    evidence = [h["evidence"] for h in learner.history_ if "evidence" in h]
    assert evidence[-1] > evidence[0]
    assert learner.score(X, Y) > 0.8
    assert "PlainGradient" in learner.chosen_["why"]


RUNS = []


class Seen(Procedure):
    """Learns nothing, and remembers the labels that it was given."""

    def run(self, learner, features, labels):
        RUNS.append(labels)


def test_every_half_of_a_cross_fit_has_its_share_of_few_labels():
    few = torch.full((len(Y),), -1)
    few[[0, 60, 61, 140]] = torch.tensor([0, 1, 1, 2])
    for seed in range(5):
        RUNS.clear()
        learner = Learner(procedure=Seen(), cross_fit=True, seed=seed).fit(X, Exact(few, 3))
        assert [int((labels.labels >= 0).sum()) for labels in RUNS] == [4, 2, 2]
        assert learner.held_out_.all()


def test_halves_of_a_cross_fit_start_with_annotators_who_have_not_seen_the_other_rows():
    votes = Crowd.simulate(
        torch.as_tensor(Y), 3, generator=torch.Generator().manual_seed(0), n_annotators=3, votes_per_item=2
    )
    half = split_in_parts(votes.groups(), torch.ones(len(Y), dtype=torch.bool), 0) != 0
    other = torch.where(half[votes.items], votes.votes, (votes.votes + 1) % 3)
    RUNS.clear()
    for cast in (votes.votes, other):
        labels = Crowd(votes.items, votes.annotators, cast, 3, len(Y), n_annotators=3)
        Learner(procedure=Seen(), cross_fit=True, seed=0).fit(X, labels)
    whole, first, second, whole_other, first_other, second_other = (labels.channels[0].confusion for labels in RUNS)
    torch.testing.assert_close(first, first_other)
    assert not torch.allclose(whole, whole_other, atol=0.02)
    assert not torch.allclose(second, second_other, atol=0.02)


def test_a_bag_of_most_rows_is_not_cut_by_a_cross_fit():
    bags = Bags.from_ids(torch.cat([torch.zeros(100, dtype=torch.long), 1 + torch.arange(50) // 10]))
    labels = AnyOf(bags, torch.tensor([1, 0, 1, 0, 1, 1]), 2, 3) & Exact(torch.where(torch.arange(150) < 20, 0, -1), 3)
    learner = Learner(loss=lambda p, q: -(q * p).sum(dim=-1), cross_fit=True, rounds=1, epochs=2).fit(X, labels)
    assert np.isfinite(learner.predict_proba(X)).all()


@pytest.mark.parametrize("head", ["linear", "cosine", "prototype", "quadratic", "mlp"])
def test_every_head_learns(head):
    assert Learner(head=head).fit(X, Y).score(X, Y) > (0.8 if head == "cosine" else 0.9)  # iris differs in length
