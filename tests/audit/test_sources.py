"""Annotators and rules against what they were drawn from, and against counting by hand."""

import numpy as np
import pytest
import torch

from anygrain.audit import judge_annotators, judge_rules
from anygrain.audit.by_others import beliefs_by_others, known_without
from anygrain.labels import Crowd, Exact, LabelError, Rules, aggregate


@pytest.fixture(scope="module")
def crowd():
    """Four good annotators, one who votes at random, one who always says 2, one who says the opposite, one silent."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(3, (400,), generator=generator)
    good = 0.8 * torch.eye(3) + 0.2 / 3
    even, always = torch.full((3, 3), 1 / 3), torch.tensor([[0.0, 0.0, 1.0]] * 3)
    against = (1 - torch.eye(3)) / 2
    confusion = torch.stack([good, good, good, good, even, always, against]).double()
    votes = Crowd.simulate(
        truth, 3, generator=generator, n_annotators=7, votes_per_item=4, confusion=confusion, class_names=list("abc")
    )
    full = Crowd(votes.items, votes.annotators, votes.votes, 3, n_annotators=8, class_names=list("abc"))
    return truth, aggregate(full)


def test_annotators_are_found_out(crowd):
    truth, fitted = crowd
    found = judge_annotators(fitted.labels)
    columns = found.columns()
    assert (found.prob_spammer[[0, 1, 2, 3, 6]] < 0.05).all()
    assert (found.prob_spammer[[4, 5]] > 0.9).all()
    assert found.votes[7] == 0
    assert np.isnan(found.agreement[7])
    assert columns["overuses"][7] == ""
    voted = found.votes > 0
    right = np.zeros(8)
    own = fitted.labels
    np.add.at(right, own.annotators.numpy(), (own.votes == truth[own.items]).double().numpy())
    share = right[voted] / found.votes[voted]
    assert ((found.accuracy_low[voted] <= share + 0.01) & (share <= found.accuracy_high[voted] + 0.01)).all()
    assert columns["overuses"][5] == "c"
    assert columns["overuse"][5] == pytest.approx(2 / 3, abs=0.07)
    assert np.abs(found.overuse.sum(axis=1)).max() < 1e-9
    # votes of one who always says the opposite tell something, those of spammers nothing
    assert (found.nats[[4, 5]] < 0.05).all()
    assert found.nats[6] > 0.15
    assert (found.nats[:4] > 0.35).all()
    assert (found.agreement[:4] > 0.6).all()
    assert found.agreement[6] < 0.2
    assert found.cleanlab()["annotator_quality"] is found.accuracy
    assert len(found.frame()) == 8


def test_information_is_that_of_the_joint_table(crowd):
    _, fitted = crowd
    found = judge_annotators(fitted.labels)
    shares = known_without(fitted.labels, None)
    prior = fitted.labels.posterior(shares).mean(dim=0).numpy()
    np.testing.assert_allclose(shares[0].exp().numpy(), prior, atol=0.01)
    joint = prior[:, None] * found.confusion[0]
    total = sum(
        joint[y, v] * np.log(joint[y, v] / (joint[y].sum() * joint[:, v].sum())) for y in range(3) for v in range(3)
    )
    assert found.nats[0] == pytest.approx(total, abs=1e-9)


def test_what_others_say_leaves_out_all_votes_of_the_source():
    # annotator 0 votes twice on item 0; without both, the one vote of annotator 1 decides
    crowd = Crowd(
        torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 0]), 2, channel="one_coin"
    )
    even = torch.full((2, 2), 0.5, dtype=torch.float64).log()
    alone = Crowd(torch.tensor([0]), torch.tensor([1]), torch.tensor([1]), 2, 1, channel=crowd.channel)
    (rows, belief), *rest = beliefs_by_others(crowd, even)
    assert not rest
    by_row = dict(zip(rows.tolist(), belief, strict=True))
    for row in (0, 1):
        np.testing.assert_allclose(by_row[row], alone.posterior(even[:1])[0].numpy(), atol=1e-9)
    np.testing.assert_allclose(by_row[3], [0.5, 0.5], atol=1e-9)


def test_rules_by_hand():
    # rule 2 abstains always
    votes = torch.tensor([[0, 0, -1], [0, 1, -1], [1, -1, -1], [-1, -1, -1], [-1, 1, -1]])
    labels = Rules(votes, 2, rule_names=["r", "s", "t"], class_names=["no", "yes"])
    posterior = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.5, 0.5], [0.3, 0.7]]).double()
    found = judge_rules(labels, posterior, exact=[0, 1, -1, 1, -1])
    columns = found.columns()
    assert columns["polarity"].tolist() == ["no, yes", "no, yes", ""]
    assert columns["coverage"].tolist() == [0.6, 0.6, 0.0]
    assert columns["overlaps"].tolist() == [0.4, 0.4, 0.0]
    assert columns["conflicts"].tolist() == [0.2, 0.2, 0.0]
    assert columns["correct"].tolist() == [1, 2, 0]
    assert columns["incorrect"].tolist() == [1, 0, 0]
    np.testing.assert_allclose(found.accuracy, [(0.9 + 0.4 + 0.8) / 3, (0.9 + 0.6 + 0.7) / 3, np.nan])
    assert (found.accuracy_low[:2] < found.accuracy[:2]).all()
    assert (found.accuracy[:2] < found.accuracy_high[:2]).all()
    np.testing.assert_allclose(found.empirical_accuracy, [0.5, 1.0, np.nan])
    assert list(found.snorkel())[1:] == [
        "j", "Polarity", "Coverage", "Overlaps", "Conflicts", "Correct", "Incorrect", "Emp. Acc.", "Learned Weight"
    ]  # fmt: skip
    with pytest.raises(LabelError, match="expected \\(5, 2\\)"):
        judge_rules(labels, posterior[:3])
    with pytest.raises(LabelError, match="first: row 1"):
        judge_rules(labels, posterior * torch.tensor([[1.0], [2.0], [1.0], [1.0], [1.0]]))


def test_rules_know_how_good_they_are():
    generator = torch.Generator().manual_seed(1)
    truth = torch.randint(2, (3000,), generator=generator)
    shown = torch.where(torch.rand(3000, 5, generator=generator) < torch.tensor([0.95, 0.9, 0.8, 0.7, 0.85]), 0, 1)
    votes = torch.where(torch.rand(3000, 5, generator=generator) < 0.5, (truth[:, None] + shown) % 2, -1)
    known = torch.where(torch.arange(3000) < 600, truth, -1)
    fitted = aggregate(Rules(votes, 2, given_x=False) & Exact(known, 2))
    part = next(p for p in fitted.labels.parts if isinstance(p, Rules))
    found = judge_rules(part, fitted.posterior, known)
    true = ((votes == truth[:, None]) & (votes >= 0)).sum(dim=0) / (votes >= 0).sum(dim=0)
    np.testing.assert_allclose(found.accuracy, true, atol=0.04)
    assert np.argsort(found.weight).tolist() == [3, 2, 4, 1, 0]
    # equal shares of two classes: the weight is the log odds of a right vote
    np.testing.assert_allclose(found.weight[0], np.log(0.95 / 0.05), atol=0.6)
