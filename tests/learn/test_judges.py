"""Heads that halves of the rules taught say how sure a classifier may be."""

import math

import torch

from anygrain.labels import Exact, Noisy, Rules
from anygrain.learn import Learner
from anygrain.learn.calibration import evidence_score, fit_temperature
from anygrain.learn.given_x import SourceTarget, as_judged, target_from_sources
from anygrain.learn.judges import with_judges


def rules_of(n: int, seed: int, right: float, n_rules: int = 12, **how) -> tuple[torch.Tensor, torch.Tensor, Rules]:
    """Features, truth and rules that fire at random, on their own or the other class."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(2, (n,), generator=generator)
    features = torch.randn(n, 6, generator=generator) + 1.5 * (2 * truth[:, None] - 1) * torch.eye(6)[0]
    fires = torch.rand(n, n_rules, generator=generator) < 0.3
    says = torch.where(torch.rand(n, n_rules, generator=generator) < right, truth[:, None], 1 - truth[:, None])
    return features / features.square().mean().sqrt(), truth, Rules(torch.where(fires, says, -1), 2, **how)


def test_heads_of_good_rules_agree_and_those_of_bad_ones_do_not():
    agreed = []
    for right in (0.9, 0.52):
        features, _, rules = rules_of(400, 0, right)
        found = with_judges(target_from_sources(rules), rules, features, 0)
        judged = next(p for p in found.parts if isinstance(p, SourceTarget)).judged
        torch.testing.assert_close(judged.sum(dim=1), torch.ones(400))
        agreed.append(float(judged.max(dim=1).values.mean()))
    assert agreed[0] > 0.95 > 0.85 > agreed[1]


def test_the_temperature_is_that_at_which_the_judges_are_likeliest():
    logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]])
    target = SourceTarget(torch.tensor([[0.6, 0.4]] * 2 + [[0.4, 0.6]] * 2), torch.full((2,), 0.5))
    everyone = torch.ones(4, dtype=torch.bool)
    judged = target.with_judged(torch.tensor([[0.95, 0.05]] * 2 + [[0.05, 0.95]] * 2))
    for labels, share in ((target, 0.6), (judged, 0.95)):
        # log_softmax of t L has the share where 2 t is its log odds
        exact = math.log(share / (1 - share)) / 2
        found = fit_temperature(labels, logits, everyone, default=1.0)
        best = evidence_score(labels, (exact * logits).log_softmax(1), everyone)
        assert best >= evidence_score(labels, (found * logits).log_softmax(1), everyone) - 1e-9
        assert abs(math.log(max(found, 0.5) / max(exact, 0.5))) < 0.15
    torch.testing.assert_close(judged.posterior(logits), target.posterior(logits))
    assert as_judged(target) is target
    torch.testing.assert_close(judged[torch.tensor([2, 0])].judged, judged.judged[[2, 0]])
    torch.testing.assert_close(judged.relabel(torch.tensor([1, 0]), 3).judged[:, :2], judged.judged.flip(1))


def test_only_rules_are_judged_and_four_of_them_or_more():
    features, truth, rules = rules_of(60, 1, 0.9)
    few = rules.of_rules(torch.tensor([0, 1, 2]))
    assert with_judges(target_from_sources(few), few, features, 0).parts[0].judged.isnan().all()
    exact = Exact(truth, 2)
    assert with_judges(exact, exact, features, 0) is exact
    apart = Rules(torch.full((60, 6), -1), 2)
    assert with_judges(target_from_sources(apart), apart, features, 0).parts[0].judged.isnan().all()
    joined = rules & Noisy(truth, 2)
    judged = with_judges(target_from_sources(joined), joined, features, 0)
    assert [type(p) for p in judged.parts] == [SourceTarget, Noisy]
    again = with_judges(target_from_sources(joined), joined, features, 0)
    torch.testing.assert_close(judged.parts[0].judged, again.parts[0].judged)


def test_a_learner_is_as_sure_as_its_rules_are_good():
    said = []
    for right in (0.95, 0.6):
        features, truth, rules = rules_of(600, 2, right)
        learner = Learner(seed=0).fit(features.numpy(), rules)
        probs = torch.as_tensor(learner.held_out_log_probs_).exp()
        accuracy = float((probs.argmax(1) == truth).float().mean())
        said.append(float(probs.max(1).values.mean()) - accuracy)
    assert abs(said[0]) < 0.1
    assert abs(said[1]) < 0.15


def test_rules_that_depend_on_each_other_do_not_tell_the_class_shares():
    from anygrain.labels import aggregate

    generator = torch.Generator().manual_seed(3)
    truth = torch.arange(900) % 3
    # many wide copies of one bad rule for class 0, one narrow good rule for each other class
    wide = torch.rand(900, generator=generator) < 0.7
    votes = torch.full((900, 6), -1)
    votes[wide, :4] = 0
    for k in (1, 2):
        votes[(truth == k) & (torch.rand(900, generator=generator) < 0.5), 3 + k] = k
    found = aggregate(Rules(votes, 3))
    assert found.channels[0].share_hold > 10
    torch.testing.assert_close(found.prior, torch.full((3,), 1 / 3, dtype=torch.float64), atol=0.02, rtol=0)
    known = Exact(torch.where(torch.arange(900) < 300, torch.tensor(1), -1), 3)
    assert float(aggregate(Rules(votes, 3) & known).prior[1]) > 0.9


def test_some_rules_are_those_rules():
    _, _, rules = rules_of(50, 4, 0.8, dependencies=[[0, 1], [1, 5]])
    part = rules.of_rules(torch.tensor([1, 3, 5]))
    dense = torch.full((50, 12), -1)
    dense[rules.record_instances, rules.rules] = rules.votes
    same = Rules(dense[:, [1, 3, 5]], 2, dependencies=[[0, 2]])
    torch.testing.assert_close(part.log_evidence(), same.log_evidence())
    assert part.channel.pairs.tolist() == same.channel.pairs.tolist()
