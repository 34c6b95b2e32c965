"""Parts of the recipe against their definitions."""

import math

import pytest
import torch

from anygrain.labels import All, Candidates, Coarse, Exact, Noisy
from anygrain.learn import Learner
from anygrain.learn.calibration import confidence_temperature, evidence_score, fit_temperature, observed
from anygrain.learn.evidence import Evidence
from anygrain.learn.head import Linear
from anygrain.learn.recipe import Recipe, ambiguity, shared_information, split_groups, without_exact

N, K = 60, 6
PARENTS = (torch.arange(2)[:, None] == torch.arange(K) // 3).double()


@pytest.fixture
def truth():
    return torch.arange(N) % K


@pytest.fixture
def features(truth):
    generator = torch.Generator().manual_seed(0)
    centre = 2 * torch.randn(K, 8, generator=generator)
    return centre[truth] + torch.randn(N, 8, generator=generator)


def few_exact(truth):
    return Exact(torch.where(torch.arange(N) < 2 * K, truth, -1), K)


def recipe(features, labels, **how):
    return Recipe(features, labels, lambda: Linear(features.shape[1], K), **how)


def test_few_or_dense_evidence(features, truth):
    exact = few_exact(truth)
    coarse = Coarse(truth // 3, PARENTS)
    assert recipe(features, exact).few
    assert recipe(features, exact & coarse).few
    assert int(recipe(features, exact & coarse).anchors.sum()) == 2 * K
    assert not recipe(features, Exact(truth, K)).few
    generator = torch.Generator().manual_seed(0)
    candidates = torch.rand(N, K, generator=generator) < 0.4
    candidates[torch.arange(N), truth] = True
    assert not recipe(features, Candidates(candidates) & exact).few


def test_ambiguity_of_classes_that_nothing_tells_apart():
    coarse = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]] * 2, dtype=torch.float64)
    assert torch.allclose(ambiguity(coarse), torch.zeros(4, dtype=torch.float64))
    sure = torch.eye(4, dtype=torch.float64)
    assert torch.allclose(ambiguity(sure), torch.ones(4, dtype=torch.float64))
    one = torch.cat([coarse, torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)])
    assert float(ambiguity(one)[0]) == pytest.approx(1 / 3)  # |2 - 1| over 2 + 1


def test_folds_keep_groups_whole_and_are_even():
    groups = torch.arange(100) // 7
    fold = split_groups(groups, 4, torch.Generator().manual_seed(0))
    assert torch.equal(
        torch.stack([fold[groups == g].unique().numel() * torch.ones(1) for g in range(15)]).max(), torch.tensor(1.0)
    )
    assert int(torch.bincount(fold).max()) <= 25 + 7
    joined = split_groups(torch.zeros(100, dtype=torch.long), 2, torch.Generator().manual_seed(0))
    assert torch.bincount(joined).tolist() == [50, 50]


def test_evidence_is_that_of_the_labels(truth):
    labels = few_exact(truth) & Coarse(truth // 3, PARENTS)
    log_probs = torch.randn(N, K, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).log_softmax(dim=1)
    view = Evidence(labels, torch.float64).view
    value, posterior = labels.infer(log_probs)
    assert torch.allclose(view.infer(log_probs)[0], value, atol=1e-12)
    assert torch.allclose(view.posterior(log_probs), posterior, atol=1e-12)
    against = Exact(truth, K) & Exact((truth + 1) % K, K)
    for mine, theirs in zip(
        Evidence(against, torch.float64).view.infer(log_probs), against.infer(log_probs), strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-12)


def test_exact_labels_are_taken_back_and_nothing_else(truth):
    labels = few_exact(truth) & Coarse(truth // 3, PARENTS)
    out = torch.arange(N) < 3
    uniform = torch.full((N, K), -math.log(K), dtype=torch.float64)
    posterior = without_exact(labels, out).posterior(uniform)
    assert torch.allclose(posterior[:3], PARENTS[truth[:3] // 3] / 3)
    assert torch.allclose(posterior[3:], labels.posterior(uniform)[3:])
    assert isinstance(labels, All)
    assert int((labels.parts[0].labels >= 0).sum()) == 2 * K


def test_balance_meets_its_target(features, truth):
    one = recipe(features, few_exact(truth))
    log_probs = torch.randn(N, K, generator=torch.Generator().manual_seed(2)).mul(0.3).log_softmax(dim=1)
    one.shrink = 0.0  # equal counts are the target
    mean = one.evidence.posterior(one.balanced(one.evidence, log_probs, steps=60)).mean(dim=0)
    assert float((mean - 1 / K).abs().max()) < 1e-3
    one.shrink = 1.0  # the counts as they are
    assert torch.allclose(
        one.evidence.posterior(one.balanced(one.evidence, log_probs, steps=60)).mean(dim=0),
        one.evidence.posterior(log_probs).mean(dim=0),
        atol=2e-2,
    )


def test_temperature_is_found_again():
    """Labels drawn from softmax(2.5 L) are likeliest at 2.5."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20000, 4, generator=generator)
    drawn = torch.multinomial((2.5 * logits).softmax(dim=1), 1, generator=generator)[:, 0]
    everything = torch.ones(len(drawn), dtype=torch.bool)
    assert fit_temperature(Exact(drawn, 4), logits, everything, default=1.0) == pytest.approx(2.5, rel=0.05)
    nothing = Exact(torch.full_like(drawn, -1), 4)
    assert fit_temperature(nothing, logits, everything, default=7.0) == 7.0
    wanted = float((3 * logits).softmax(dim=1).max(dim=1).values.mean())
    assert confidence_temperature(logits, wanted) == pytest.approx(3.0, rel=1e-3)


def test_score_counts_whole_observations(truth):
    labels = few_exact(truth)
    log_probs = torch.full((N, K), -math.log(K))
    some = torch.arange(N) < 6
    assert observed(labels, some).tolist() == some.tolist()
    assert evidence_score(labels, log_probs, some) == pytest.approx(-math.log(K))
    assert evidence_score(labels, log_probs, torch.ones(N).bool()) == pytest.approx(-math.log(K) * 2 * K / N)


def test_shared_information_at_its_ends():
    assert shared_information(torch.eye(8)) == pytest.approx(1, abs=1e-5)
    assert shared_information(torch.full((8, 4), 0.25)) == pytest.approx(0, abs=1e-5)
    assert shared_information(torch.tensor([[1.0, 0], [1.0, 0]])) == pytest.approx(0, abs=1e-5)


def test_labels_of_weight_zero_do_not_teach():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    generator = torch.Generator().manual_seed(0)
    truth = torch.from_numpy(y)
    wrong = torch.rand(len(y), generator=generator) < 0.4
    said = torch.where(wrong, (truth + 1) % 10, truth)
    plain = Learner(seed=0).fit(x[:1200], Exact(said[:1200], 10)).score(x[1200:], y[1200:])
    labels = Exact(said[:1200], 10, weight=(~wrong[:1200]).float())
    weighted = Learner(seed=0).fit(x[:1200], labels).score(x[1200:], y[1200:])
    clean = Learner(seed=0).fit(x[:1200][~wrong[:1200]], Exact(truth[:1200][~wrong[:1200]], 10))
    assert weighted > plain + 0.03
    assert abs(weighted - clean.score(x[1200:], y[1200:])) < 0.02


def test_noisy_labels_of_features_that_tell_nothing_leave_a_model_unsure():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(600, 100, generator=generator)
    truth = torch.randint(5, (600,), generator=generator)
    learner = Learner(seed=0).fit(features.numpy(), Noisy.simulate(truth, 5, generator=generator, error=0.4))
    fresh = torch.randn(400, 100, generator=generator)
    # rows that teach each other make it as sure as .6 where .2 is right
    assert learner.predict_proba(fresh.numpy()).max(axis=1).mean() < 0.4
