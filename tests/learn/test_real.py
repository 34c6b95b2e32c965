"""Models of a number: what they find, that they say how sure they are, and that weak evidence helps."""

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold, cross_val_score

from anygrain.labels import AggregateValue, Bags, Censored, Exact, LabelError, Ratings, Value
from anygrain.learn import Gaussian, GaussianMLP, Learner, RecipeState, load
from anygrain.learn.number import half_width
from anygrain.learn.real import Choice, RealRecipe, best_spread
from anygrain.learn.real_head import REAL_HEADS
from anygrain.metrics import interval_coverage, log_density, rmse

FIT, NEW = slice(0, 300), slice(300, None)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(seed=0, n=900, noise=0.5, spread=0.0):
    """A line with noise, whose spread may grow with the first column."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, 4))
    sd = noise * np.exp(spread * x[:, 0])
    return x, 20 + x @ [1.0, -2.0, 0.5, 0.0] + sd * draw.normal(size=n), sd


X, Y, SD = problem()
PLAIN = {"head": "gaussian", "seed": 0}


@pytest.fixture(scope="module")
def by_values():
    return Learner(**PLAIN).fit(X[FIT], Value(torch.from_numpy(Y[FIT]), name="length"))


def few(n):
    return np.where(np.arange(len(Y)) < n, Y, np.nan)


# -- heads -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Gaussian, GaussianMLP])
def test_heads_start_at_the_numbers_own_location_and_scale(kind):
    head = kind(4)
    head.standardise(20.0, 3.0)
    mean, variance = head(torch.zeros(5, 4))
    assert torch.allclose(mean, torch.full((5,), 20.0, dtype=torch.float64))
    assert torch.allclose(variance, torch.full((5,), 9.0, dtype=torch.float64))


def test_the_variance_is_the_exponential_of_a_bounded_line():
    head = Gaussian(2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 2.0], [0.5, 0.0]]))
        head.bias.fill_(0.1)
        head.level.fill_(-1.0)
    head.standardise(10.0, 2.0)
    head.spread.fill_(3.0)
    mean, variance = head(torch.tensor([[1.0, -1.0], [-1e6, 0.0]]))
    assert float(mean[0]) == pytest.approx(10 + 2 * (0.1 + 1 - 2), abs=1e-6)
    assert float(variance[0]) == pytest.approx(4 * 9 * np.exp(-1 + 4 * np.tanh(0.5 / 4)), rel=1e-6)
    assert float(variance[1]) == pytest.approx(4 * 9 * np.exp(-5), rel=1e-6)  # a row unlike all others
    assert float(head.penalty(10.0)) == pytest.approx(5 + 10 * 0.25)


# -- the fit -----------------------------------------------------------------------------------------------------------


def test_values_alone_are_regression(by_values):
    """With noise of one size the likelihood is least squares."""
    line = LinearRegression().fit(X[FIT], Y[FIT])
    assert np.abs(by_values.predict(X[NEW]) - line.predict(X[NEW])).mean() < 0.05
    assert by_values.score(X[NEW], Y[NEW]) > 0.94
    assert by_values.space_ == "real"
    assert by_values.name_ == "length"
    assert not hasattr(by_values, "classes_")


def test_a_network_is_taken_where_the_line_is_wrong():
    x = np.random.default_rng(0).normal(size=(600, 2))
    y = np.sin(2 * x[:, 0]) + 0.1 * np.random.default_rng(1).normal(size=600)
    model = Learner(seed=0).fit(x[:400], Value(torch.from_numpy(y[:400])))
    assert model.chosen_["head"] == "gaussian-mlp"
    assert rmse(model.predict(x[400:]), y[400:]) < 0.25


def test_the_line_is_kept_where_it_is_right():
    line = Learner(seed=0).fit(X[:100], Value(torch.from_numpy(Y[:100])))
    assert line.chosen_["head"] == "gaussian"


def test_spread_that_depends_on_the_row_is_found():
    x, y, sd = problem(seed=3, spread=0.8)
    model = Learner(**PLAIN).fit(x[:600], Value(torch.from_numpy(y[:600])))
    found = model.predict_distribution(x[600:]).sd
    assert np.corrcoef(np.log(found), np.log(sd[600:]))[0, 1] > 0.97
    assert log_density(*model.predict_distribution(x[600:]), y[600:]) > log_density(
        model.predict(x[600:]), np.full(300, found.mean()), y[600:]
    )


@pytest.mark.parametrize("noise", ["normal", "heavy"])
def test_intervals_hold_what_they_promise(noise):
    draw = np.random.default_rng(5)
    x = draw.normal(size=(3000, 3))
    error = draw.normal(size=3000) if noise == "normal" else draw.standard_t(2, size=3000)
    y = x.sum(axis=1) + error
    model = Learner(**PLAIN).fit(x[:800], Value(torch.from_numpy(y[:800])))
    for coverage in (0.5, 0.9):
        assert interval_coverage(model.predict_interval(x[800:], coverage), y[800:]) == pytest.approx(
            coverage, abs=0.04
        )


def test_the_factor_on_standard_deviations_is_the_likeliest(by_values):
    labels = Value(torch.from_numpy(Y[FIT]))
    mean, variance = torch.from_numpy(by_values.held_out_mean_), torch.from_numpy(by_values.held_out_variance_)
    assert best_spread(labels, type(by_values.posterior_)(mean, variance)) == pytest.approx(1, abs=0.01)
    wanted = float(((labels.values - mean).square() / (4 * variance)).mean().sqrt())
    assert best_spread(labels, type(by_values.posterior_)(mean, 4 * variance)) == pytest.approx(wanted, abs=2e-3)


def test_held_out_predictions_did_not_see_the_row():
    """Change one value: the held-out prediction of its row hardly moves, and that of the fitted head does."""
    x, y, _ = problem(n=40)
    other = y.copy()
    other[7] += 100
    found = []
    for values in (y, other):
        recipe = RealRecipe(torch.from_numpy(x).float(), Value(torch.from_numpy(values)), head="gaussian", seed=0)
        recipe.location, recipe.scale = 20.0, 3.0
        found.append(float(recipe.held_out(recipe.labels, Choice("gaussian", 0.01, 10.0))[0].mean[7]))
    assert found[0] == pytest.approx(found[1], abs=1e-9)


def test_half_width_is_split_conformal():
    residuals = np.arange(1, 100) / 10  # 99 of them
    assert half_width(residuals, 0.9) == 9.0
    assert half_width(residuals, 0.995) == pytest.approx(2.807, abs=1e-3)  # more than 99 residuals can tell
    assert half_width(residuals[:0], 0.95) == pytest.approx(1.95996, abs=1e-5)


# -- weak labels -------------------------------------------------------------------------------------------------------


def test_ranges_are_better_than_their_middles():
    y = torch.from_numpy(Y[:600])
    labels = Censored.simulate(y, generator=generator(), cuts=[18.5, 20.0, 21.5])
    model = Learner(**PLAIN).fit(X[:600], labels)
    middle = LinearRegression().fit(X[:600], labels.rough().numpy())
    assert rmse(model.predict(X[600:]), Y[600:]) < 0.6
    assert rmse(model.predict(X[600:]), Y[600:]) < 0.8 * rmse(middle.predict(X[600:]), Y[600:])
    assert len(model.residuals_) == 0


def test_means_over_bags_are_better_than_their_copies():
    y = torch.from_numpy(Y[:600])
    labels = AggregateValue.simulate(y, generator=generator(), bag_size=5)
    model = Learner(**PLAIN).fit(X[:600], labels)
    copied = LinearRegression().fit(X[:600], labels.rough().numpy())
    assert rmse(model.predict(X[600:]), Y[600:]) < 0.6
    assert rmse(model.predict(X[600:]), Y[600:]) < 0.5 * rmse(copied.predict(X[600:]), Y[600:])
    mean, sd = model.predict_distribution(X[600:])
    assert sd.mean() == pytest.approx(0.5, abs=0.15)
    bag = labels.sets.members[:5]
    assert np.isclose(model.posterior_.mean[bag].mean(), float(labels.values[0]))
    assert len(mean) == 300


def test_annotators_are_learnt_with_the_model():
    y = torch.from_numpy(Y[:300])
    bias, noise = torch.tensor([2.0, -2.0, 0.0, 0.0]).double(), torch.tensor([0.2, 0.2, 4.0, 4.0]).double()
    labels = Ratings.simulate(y, generator=generator(), n_annotators=4, ratings_per_item=2, bias=bias, noise=noise)
    before = labels.channel.bias.clone()
    model = Learner(**PLAIN).fit(X[:300], labels)
    assert torch.equal(labels.channel.bias, before)  # the user's channel stays as it was
    channel = model.labels_.channels[0]
    assert torch.allclose(channel.bias[:2] - channel.bias[:2].mean(), bias[:2], atol=0.3)
    assert float(channel.variance[:2].max()) < 0.3 < float(channel.variance[2:].min())
    plain = LinearRegression().fit(X[:300], labels.rough().numpy())
    assert rmse(model.predict(X[600:]), Y[600:]) < 0.8 * rmse(plain.predict(X[600:]), Y[600:]) + 0.1
    assert rmse(model.posterior_.mean, Y[:300]) < 0.7 * rmse(labels.rough(), Y[:300])


def test_weak_labels_help_where_values_are_few():
    y = torch.from_numpy(Y[:200])
    values = Value(torch.from_numpy(few(20)[:200]))
    alone = rmse(Learner(**PLAIN).fit(X[:200], values).predict(X[600:]), Y[600:])
    for weak in (
        Censored.simulate(y, generator=generator()),
        AggregateValue.simulate(y, generator=generator(), bag_size=10),
        Ratings.simulate(y, generator=generator(), bias=0.5),
    ):
        model = Learner(**PLAIN).fit(X[:200], values & weak)
        assert model.chosen_["chosen"] == "evidence"
        assert rmse(model.predict(X[600:]), Y[600:]) < alone


def test_labels_that_lie_lose_to_the_values():
    """Means of bags that belong to other bags: the head of the values alone is taken."""
    y = torch.from_numpy(Y[:600])
    bags = AggregateValue.simulate(y, generator=generator(), bag_size=5)
    lies = AggregateValue(bags.sets, bags.values.roll(1) + 5 * torch.randn(len(bags.values), generator=generator()))
    values = Value(torch.from_numpy(few(100)[:600]))
    model = Learner(**PLAIN).fit(X[:600], values & lies)
    assert model.chosen_["chosen"] == "exact only"
    alone = Learner(**PLAIN).fit(X[:600], values)
    assert rmse(model.predict(X[600:]), Y[600:]) < rmse(alone.predict(X[600:]), Y[600:]) + 0.05


def test_rows_without_labels_change_nothing_but_the_encoder():
    features = torch.from_numpy(X).float()
    whole = RealRecipe(features, Value(torch.from_numpy(few(100))), head="gaussian").run()
    part = RealRecipe(features[:100], Value(torch.from_numpy(Y[:100])), head="gaussian").run()
    for found, wanted in zip(whole.head(features), part.head(features), strict=True):
        assert torch.allclose(found, wanted, rtol=1e-4)


def test_bags_that_all_hang_together_are_fitted_without_folds():
    n = 60
    members = torch.stack([torch.arange(n - 1), torch.arange(1, n)], dim=1).reshape(-1)
    y = torch.from_numpy(Y[:n])
    chain = AggregateValue(Bags(members, torch.arange(0, 2 * n - 1, 2), n), (y[:-1] + y[1:]) / 2, noise=0.1)
    model = Learner(**PLAIN).fit(X[:n], chain)
    assert not model.held_out_.any()
    assert model.score(X[NEW], Y[NEW]) > 0.8


def test_instances_in_another_order_than_rows_are_kept_apart():
    order = torch.from_numpy(np.random.default_rng(0).permutation(300))
    shuffled = Value(torch.from_numpy(Y[:300])[order], rows=order, n_rows=300)
    model = Learner(**PLAIN).fit(X[FIT], shuffled)
    assert model.score(X[NEW], Y[NEW]) > 0.94
    assert np.corrcoef(model.held_out_mean_, Y[order])[0, 1] > 0.95


# -- using -------------------------------------------------------------------------------------------------------------


def test_posterior_joins_prediction_and_labels(by_values):
    mean, sd = by_values.predict_distribution(X[NEW])
    labels = Value(torch.from_numpy(Y[NEW]), noise=0.3)
    found = by_values.posterior(X[NEW], labels)
    wanted = (mean / sd**2 + Y[NEW] / 0.09) / (1 / sd**2 + 1 / 0.09)
    assert np.allclose(found.mean, wanted)
    assert np.allclose(found.variance, 1 / (1 / sd**2 + 1 / 0.09))
    holes = np.where(np.arange(600) < 3, np.nan, Y[NEW])
    assert np.allclose(by_values.posterior(X[NEW], holes).mean, np.where(np.isnan(holes), mean, Y[NEW]))
    assert by_values.score(X[NEW], labels) == pytest.approx(log_density(mean, np.sqrt(sd**2 + 0.09), Y[NEW]), abs=1e-6)


def test_a_saved_model_predicts_the_same(by_values, tmp_path):
    by_values.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert np.array_equal(again.predict(X), by_values.predict(X))
    assert np.array_equal(again.predict_interval(X, 0.8), by_values.predict_interval(X, 0.8))
    assert (again.space_, again.name_, again.chosen_) == ("real", "length", by_values.chosen_)


def test_scikit_learn_sees_a_regressor(by_values):
    assert is_regressor(by_values)
    assert not is_classifier(by_values)
    assert is_classifier(clone(by_values))
    scores = cross_val_score(Learner(**PLAIN), X[FIT], Value(torch.from_numpy(Y[FIT])), cv=KFold(2))
    assert (scores > -1.2).all()


def test_one_learner_can_go_from_numbers_to_classes_and_back():
    model = Learner(rounds=0, **PLAIN)
    few_rows, numbers = X[:40], Value(torch.from_numpy(Y[:40]))
    model.fit(few_rows, numbers)
    model.set_params(head="linear").fit(few_rows, (Y[:40] > 20).astype(int))
    assert model.space_ == "classes"
    assert not hasattr(model, "residuals_")
    assert is_classifier(model)
    model.set_params(head="gaussian").fit(few_rows, numbers)
    assert not hasattr(model, "classes_")


def test_a_stopped_fit_goes_on_to_the_same_result():
    rows = slice(0, 40)
    labels = Value(torch.from_numpy(few(20)[rows])) & Ratings.simulate(
        torch.from_numpy(Y[rows]), generator=generator(), bias=1.0
    )
    done = []
    whole = Learner(**PLAIN).fit(
        X[rows], labels, callback=lambda at, total, facts: done.append((at, total, facts["step"]))
    )
    assert [at for at, _, _ in done] == list(range(1, done[0][1] + 1))

    class Stop(Exception):
        pass

    state = RecipeState()

    def stop(at, total, facts):
        if at == 6:
            raise Stop

    with pytest.raises(Stop):
        Learner(**PLAIN).fit(X[rows], labels, callback=stop, state=state)
    kept = RecipeState.from_tensors(state.tensors(), state.history)
    again = Learner(**PLAIN).fit(X[rows], labels, state=kept)
    assert np.array_equal(again.predict(X), whole.predict(X))
    assert [h["step"] for h in again.history_] == [h["step"] for h in whole.history_]


VALUES = Value(torch.from_numpy(Y[:50]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: Learner().fit(X[:49], VALUES), "X has 49 rows and the labels 50"),
        (lambda m: Learner(head="cosine").fit(X[:50], VALUES), 'head "cosine" is not for numbers'),
        (lambda m: Learner(loss=lambda p, q: p.sum(1)).fit(X[:50], VALUES), "loss= is for labels of classes"),
        (lambda m: Learner().fit(X[:50], Value(torch.full((50,), torch.nan))), "every label is missing"),
        (lambda m: m.predict_proba(X), "has no classes"),
        (lambda m: m.predict(X, unknown=0.5), "has no classes"),
        (lambda m: m.predict_interval(X, 90), "coverage is 90"),
        (lambda m: m.posterior(X, VALUES), "X has 900 rows and the labels 50"),
        (lambda m: m.posterior(X[:50], Exact(torch.zeros(50, dtype=torch.long), 2)), "speak of classes"),
        (
            lambda m: Learner(rounds=0).fit(X, (Y > 20).astype(int)).predict_interval(X),
            "model is of classes",
        ),
        (
            lambda m: Learner(rounds=0).fit(X, (Y > 20).astype(int)).posterior(X[:50], VALUES),
            "model is of classes",
        ),
    ],
)
def test_bad_input_is_said_in_one_line(by_values, make, message):
    with pytest.raises(LabelError, match=message) as error:
        make(by_values)
    assert "\n" not in str(error.value)


def test_names_are_no_numbers(by_values):
    with pytest.raises(ValueError, match='y holds "long"'):
        by_values.score(X[:2], ["long", "short"])


def test_every_head_is_offered_by_name():
    assert {type(k(2)).__name__ for k in REAL_HEADS.values()} == {"Gaussian", "GaussianMLP"}
