"""Learning from how rows were sampled: recipe, class prior, and predictions for another population."""

import json

import numpy as np
import pytest
import torch

from anygrain.labels import Exact, LabelError, PairsUnlabeled, Positive, Sampled, TwoUnlabeled
from anygrain.labels.positive import prior_missing, with_any_prior
from anygrain.learn import Learner, load
from anygrain.learn.class_prior import with_class_prior
from anygrain.learn.evidence import Evidence
from anygrain.learn.head import Linear
from anygrain.learn.recipe import Recipe


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def clouds(seed, n=900, share=0.4, apart=1.6, d=6):
    """Rows of two classes around two centres, (n, d) and (n,)."""
    g = np.random.default_rng(seed)
    y = (g.random(n) < share).astype(int)
    x = g.standard_normal((n, d))
    x[:, 0] += apart * (2 * y - 1)
    return x, y


def accuracy(model, seed=99, share=0.4, **how):
    x, y = clouds(seed, share=share)
    return float((model.predict(x, **how) == y).mean())


@pytest.mark.parametrize("scenario", ["single", "case-control"])
def test_positive_and_unlabelled_rows_come_near_to_full_supervision(scenario):
    x, y = clouds(0)
    labels = Positive.simulate(torch.tensor(y), 2, generator=gen(), share=0.2, scenario=scenario)
    full = accuracy(Learner().fit(x, y))
    assert accuracy(Learner().fit(x, labels)) > full - 0.02
    naive = accuracy(Learner().fit(x, labels.group.numpy() == 0))
    assert naive < full - 0.1


def test_two_unlabelled_sets_come_near_to_full_supervision():
    x, y = clouds(1)
    labels = TwoUnlabeled.simulate(torch.tensor(y), generator=gen(1), priors=(0.2, 0.6))
    assert accuracy(Learner().fit(x, labels)) > accuracy(Learner().fit(x, y)) - 0.02


def test_similar_pairs_and_unlabelled_rows_find_the_classes_by_their_prior():
    x, y = clouds(2, n=1500, share=0.75)
    order = np.random.default_rng(2).permutation(1500)
    ends = order[:1000].reshape(-1, 2)
    ends = ends[y[ends[:, 0]] == y[ends[:, 1]]]
    free = order[1000:]
    kept = np.concatenate([ends.ravel(), free])  # similar pairs only, and unlabelled rows
    pairs = torch.arange(2 * len(ends)).reshape(-1, 2)
    labels = PairsUnlabeled(pairs, torch.ones(len(pairs)), len(kept), 0.75)
    model = Learner().fit(x[kept], labels)
    assert accuracy(model, share=0.75) > 0.9
    np.testing.assert_allclose(model.class_prior_, labels.pooled_prior.numpy())
    assert model.log_prior_shift_[1] < 0  # the frequent class is more frequent among similar pairs


def test_the_mean_posterior_is_the_stated_prior():
    x, y = clouds(3)
    labels = Positive.simulate(torch.tensor(y), 2, generator=gen(3), share=0.3, scenario="case-control")
    features = torch.tensor(x, dtype=torch.float32)
    recipe = Recipe(features, labels, lambda: Linear(6, 2))
    evidence = Evidence(labels)
    scores = torch.randn(len(y), 2, generator=gen(4)).log_softmax(1)
    mean = evidence.posterior(recipe.balanced(evidence, scores)).mean(dim=0)
    torch.testing.assert_close(mean.double(), labels.pooled_prior, atol=1e-4, rtol=0)
    found = recipe.run()
    torch.testing.assert_close(found.posterior.mean(dim=0).double(), labels.pooled_prior, atol=0.02, rtol=0)


def test_a_recipe_without_a_stated_prior_balances_nothing():
    x, y = clouds(4)
    labels = Exact(torch.tensor(y), 2, error=0.2)
    recipe = Recipe(torch.tensor(x, dtype=torch.float32), labels, lambda: Linear(6, 2))
    assert recipe.stated is None
    scores = torch.randn(len(y), 2, generator=gen(4)).log_softmax(1)
    assert recipe.balanced(Evidence(labels), scores) is scores


# -- predictions for another population -------------------------------------------------------------------------------


def case_control(seed=5):
    x, y = clouds(seed, n=2000, share=0.2)
    positive, _ = clouds(seed + 1, n=1500, share=1.0)
    rows = np.concatenate([positive, x])
    labels = Positive(torch.arange(3500) < 1500, prior=float(y.mean()), scenario="case-control")
    return rows, labels


def test_case_control_predictions_are_those_of_the_population():
    rows, labels = case_control()
    model = Learner().fit(rows, labels)
    assert accuracy(model, share=0.2) > accuracy(model, share=0.2, prior=None) + 0.005
    x, _ = clouds(7, n=4000, share=0.2)
    for prior, share in (("population", 0.2), (None, (1500 + 2000 * labels.prior) / 3500)):
        about, truth = clouds(8, n=4000, share=share)
        assert float(model.predict_proba(about, prior=prior)[:, 1].mean()) == pytest.approx(truth.mean(), abs=0.03)
    np.testing.assert_allclose(
        model.predict_log_proba(x, prior=float(labels.prior)), model.predict_log_proba(x), atol=1e-5
    )


def test_a_prior_shifts_the_odds_by_its_own():
    x, y = clouds(9)
    model = Learner().fit(x, np.where(y == 1, "ham", "eggs"))
    np.testing.assert_allclose(model.class_prior_, [1 - y.mean(), y.mean()], atol=0.01)
    plain = model.predict_log_proba(x)
    for prior in ({"ham": 0.9, "eggs": 0.1}, [0.1, 0.9], torch.tensor([0.1, 0.9]), 0.9):
        moved = model.predict_log_proba(x, prior=prior)
        odds = (moved[:, 1] - moved[:, 0]) - (plain[:, 1] - plain[:, 0])
        wanted = np.log(9) - np.log(model.class_prior_[1] / model.class_prior_[0])
        np.testing.assert_allclose(odds, wanted, atol=1e-4)
    for same in (None, "population", model.class_prior_):
        np.testing.assert_allclose(model.predict_log_proba(x, prior=same), plain, atol=1e-5)
    assert float((model.predict(x, prior={"ham": 0.99, "eggs": 0.01}) == "ham").mean()) > 0.5


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ("sample", 'prior is "sample"; expected "population"'),
        ([0.5, 0.2], "sums to 0.7"),
        ([0.0, 1.0], "above 0 and below 1"),
        ([0.2, 0.3, 0.5], r"expected .2,."),
        (1.5, "above 0 and below 1"),
        ({0: 0.5, 2: 0.5}, "names 2"),
        ({0: 0.5}, "lacks 1"),
    ],
)
def test_bad_priors_are_refused_in_one_line(prior, message):
    x, y = clouds(9, n=60)
    model = Learner().fit(x, y)
    with pytest.raises(LabelError, match=message) as caught:
        model.predict(x, prior=prior)
    assert "\n" not in str(caught.value)


def test_what_is_known_of_priors_is_kept(tmp_path):
    rows, labels = case_control()
    few = torch.arange(0, 3500, 4)
    told = Positive((few < 1500), scenario="case-control")
    model = Learner().fit(rows[few], told)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    x, _ = clouds(10)
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    np.testing.assert_array_equal(again.predict_proba(x, prior=[0.5, 0.5]), model.predict_proba(x, prior=[0.5, 0.5]))
    assert again.class_prior_estimate_ == model.class_prior_estimate_
    assert model.class_prior_estimate_.low <= labels.prior <= model.class_prior_estimate_.high
    assert json.loads((tmp_path / "model" / "config.json").read_text())["log_prior_shift"] == list(
        model.log_prior_shift_
    )


# -- a prior that is not given ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["single", "case-control"])
def test_a_missing_prior_is_estimated_also_among_other_kinds(scenario):
    x, y = clouds(11, n=1500)
    truth = torch.tensor(y)
    labels = Positive.simulate(truth, 2, generator=gen(11), share=0.3, scenario=scenario, known=False)
    wanted = float(truth.double().mean()) if scenario == "single" else float(truth[labels.group == 1].double().mean())
    few = torch.where(torch.rand(1500, generator=gen(12)) < 0.05, truth, -1)
    for given in (labels, Exact(few, 2) & labels):
        model = Learner().fit(x, given)
        found = model.class_prior_estimate_
        assert found.estimate == pytest.approx(wanted, abs=0.06)
        assert found.low <= wanted <= found.high
        part = model.labels_ if given is labels else model.labels_.parts[1]
        assert part.prior == found.estimate
        assert accuracy(model) > 0.9
    assert labels.prior is None
    assert Learner().fit(x, labels.with_prior(0.4)).class_prior_estimate_ is None


def test_a_fit_without_prior_is_the_same_again():
    x, y = clouds(12, n=400)
    labels = Positive.simulate(torch.tensor(y), 2, generator=gen(13), known=False)
    one, two = (Learner(seed=3).fit(x, labels).predict_proba(x) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_labels_without_missing_prior_stay_as_they_are():
    labels = Exact(torch.tensor([0, 1, 0]), 2) & Sampled(torch.tensor([0, 1, 1]), [[0.5, 0.5], [0.2, 0.8]])
    assert not prior_missing(labels)
    assert with_any_prior(labels) is labels
    assert with_class_prior(labels, torch.randn(3, 2)) == (labels, None)


def test_too_few_labelled_rows_are_said():
    x, _ = clouds(13, n=100)
    with pytest.raises(LabelError, match="only 5 rows are labelled positive; estimating the class prior takes 10"):
        Learner().fit(x, Positive(torch.arange(100) < 5))
