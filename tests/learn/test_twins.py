"""Networks beside the one that stays: the temperature of few labels, a class prior that was not given, channels."""

import copy
import math

import numpy as np
import pytest
import torch

from anygrain.encoders.choose import ENCODERS
from anygrain.labels import AnyOf, Bags, Crowd, Exact, LabelError, Positive, Ratings, Tags, aggregate
from anygrain.learn import Learner, RecipeState, number, trained
from anygrain.learn.calibration import confidence_temperature, likely_right
from anygrain.learn.started_channels import with_started_channels
from anygrain.learn.twins import AROUND, EVERY, FACTORS, hidden_rows, temperature_by, wants_twins
from tests.learn.test_end_to_end import Killed, Shaken, Small

RNG = np.random.default_rng(0)
CENTRES = 1.2 * RNG.normal(size=(3, 4))
Y = torch.arange(400) % 3
X = (CENTRES[Y] + RNG.normal(size=(400, 4))).astype(np.float32)
EXACT_LABELS = torch.where(torch.arange(400) < 12, Y, -1)


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setitem(ENCODERS, "small", Small)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def training(labels, told=None, held=None):
    """What twins ask of a training."""

    class Training:
        untold = torch.zeros(labels.n_instances, dtype=torch.bool) if told is None else ~told
        held = None

    found = Training()
    found.labels, found.held = labels, held
    found.told = torch.zeros(len(labels), dtype=torch.bool)
    found.told[labels.rows[~found.untold]] = True
    return found


def test_of_every_class_a_third_is_hidden_and_some_stay():
    labels = torch.tensor([0] * 9 + [1] * 4 + [2] * 2 + [3] + [-1] * 30)
    whole = training(Exact(labels, 4), labels >= 0)
    hidden = torch.stack([hidden_rows(whole, twin, seed=0) for twin in range(EVERY)])
    for k, wanted in enumerate([[3, 3, 3], [2, 1, 1], [1, 1, 0], [0, 0, 0]]):
        assert hidden[:, labels == k].sum(dim=1).tolist() == wanted
    assert not hidden[:, labels < 0].any()
    assert (hidden.sum(dim=0) <= 1).all()  # by another twin each
    assert torch.equal(hidden_rows(whole, 0, seed=0), hidden[0])


def test_rows_that_labels_join_are_hidden_together():
    told = torch.arange(90) < 60
    sets = Bags.from_ids(torch.where(told, torch.arange(90) // 3, -1))
    whole = training(AnyOf(sets, torch.ones(20), 1, 3), told)
    hidden = hidden_rows(whole, 0, seed=3)
    assert set(hidden[:60].reshape(20, 3).sum(dim=1).tolist()) == {0, 3}
    assert int(hidden.sum()) == 21  # every third of 20 sets
    assert not hidden[60:].any()


def test_who_gets_twins():
    few = training(Exact(EXACT_LABELS, 3), EXACT_LABELS >= 0)
    assert wants_twins(few)
    assert not wants_twins(training(Exact(EXACT_LABELS, 3), EXACT_LABELS >= 0, held=object()))
    assert not wants_twins(training(Exact(Y, 3), torch.ones(400, dtype=torch.bool)))  # too many rows
    single = training(Exact(torch.tensor([0, 1, 2]), 3), torch.ones(3, dtype=torch.bool))
    assert not wants_twins(single)  # nothing to agree on, nothing to hide


def test_the_temperature_is_that_of_the_agreement_where_nothing_was_hidden():
    logits = 6 * torch.randn(500, 4, generator=gen())
    other = logits.clone()
    other[:150] = other[:150].roll(1, dims=1)
    untold, nobody = torch.ones(500, dtype=torch.bool), torch.zeros(500, dtype=torch.bool)
    labels = Exact(torch.full((500,), -1), 4)
    found, agreement = temperature_by(logits, [(logits, nobody), (other, nobody)], labels, untold)
    assert agreement == pytest.approx(0.85, abs=0.01)
    assert found == pytest.approx(confidence_temperature(logits, agreement))
    assert float((found * logits).softmax(dim=1).max(dim=1).values.mean()) == pytest.approx(agreement, abs=1e-4)
    sure, _ = temperature_by(0.1 * logits, [(logits, nobody)], labels, untold)
    assert sure == 1.0  # agreement never makes a network surer


def test_agreement_by_chance_is_no_sign_of_being_right():
    even = torch.full((3,), 1 / 3)
    constant = torch.zeros(90, dtype=torch.long)
    assert likely_right(constant, constant, even) == pytest.approx(1 / 3)  # both name one class for everything
    assert likely_right(constant, constant, torch.tensor([0.9, 0.05, 0.05])) == pytest.approx(0.9)
    named = torch.arange(90) % 3
    other = torch.where(torch.arange(90) % 10 < 8, named, (named + 1) % 3)
    assert likely_right(named, other, even) == pytest.approx(0.8)  # balanced: the plain agreement
    assert likely_right(named, (named + 1) % 3, even) == pytest.approx(1 / 3)


def test_hidden_evidence_moves_the_temperature_as_the_formula_says():
    logits = 3 * torch.randn(60, 3, generator=gen(1)).double()
    truth = torch.multinomial((0.2 * logits).softmax(dim=1), 1, generator=gen(2))[:, 0]
    labels, hidden = Exact(truth, 3), torch.arange(60) % 3 == 0
    found, agreement = temperature_by(logits, [(logits, hidden)], labels, torch.zeros(60, dtype=torch.bool))
    assert agreement is None

    def score(factor):
        said = (factor * logits).log_softmax(dim=1)[hidden].gather(1, truth[hidden][:, None]).sum()
        return float(said) - math.log(factor) ** 2 / (2 * 0.5**2)

    assert found == max(FACTORS, key=score)
    assert found < 1
    untold = torch.arange(60) % 3 == 1
    near, _ = temperature_by(logits, [(logits, hidden)], labels, untold)
    guess = min(confidence_temperature(logits[untold], 1.0), 1.0)

    def nearer(factor):
        said = (factor * guess * logits).log_softmax(dim=1)[hidden].gather(1, truth[hidden][:, None]).sum()
        return float(said) - math.log(factor) ** 2 / (2 * AROUND**2)

    assert near == pytest.approx(guess * max(FACTORS, key=nearer))


@pytest.mark.parametrize("at", [4, 9, 15, 20])
def test_few_labels_are_calibrated_and_a_killed_fit_goes_on_to_the_same_result(at):
    def learner():
        return Learner(encoder=Small(width=16, drop=0.2), augmentation=Shaken(), epochs=6, cross_fit=True)

    kept, state = {}, RecipeState()

    def callback(done, total, facts):
        assert total == 5 * 6
        kept["tensors"], kept["history"] = copy.deepcopy(state.tensors()), list(state.history)
        if done == at:
            raise Killed

    whole = learner().fit(X, Exact(EXACT_LABELS, 3))
    steps = [h["step"] for h in whole.history_]
    assert steps[6] == "twin 1 epoch 1"
    assert steps[18] == "temperature"
    assert steps[19] == "part 1 epoch 1"
    assert whole.temperature_ == whole.history_[18]["temperature"] != 1
    with pytest.raises(Killed):
        learner().fit(X, Exact(EXACT_LABELS, 3), callback=callback, state=state)
    resumed = learner().fit(X, Exact(EXACT_LABELS, 3), state=RecipeState.from_tensors(kept["tensors"], kept["history"]))
    np.testing.assert_array_equal(whole.predict_proba(X), resumed.predict_proba(X))
    np.testing.assert_array_equal(whole.held_out_log_probs_, resumed.held_out_log_probs_)
    assert [h["step"] for h in resumed.history_] == steps


def test_networks_beside_leave_the_one_that_stays_as_it_is():
    few = Learner(encoder=Small(drop=0.2), augmentation=Shaken(), epochs=4).fit(X, Exact(EXACT_LABELS, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anygrain.learn.trained.wants_twins", lambda whole: False)
        alone = Learner(encoder=Small(drop=0.2), augmentation=Shaken(), epochs=4).fit(X, Exact(EXACT_LABELS, 3))
    np.testing.assert_array_equal(few.transform(X), alone.transform(X))
    assert torch.equal(few.head_.weight, alone.head_.weight)
    assert alone.temperature_ == 1
    sure = few.predict_proba(X).max(axis=1).mean()
    right = (few.predict(X) == Y.numpy()).mean()
    assert abs(sure - right) < 0.12
    assert few.posterior_[0].max() == pytest.approx(1)


def test_tags_of_few_rows_are_calibrated_too():
    on = torch.stack([Y == 0, Y == 1], dim=1).long()
    table = torch.where(torch.arange(400)[:, None] < 30, on, -1)
    model = Learner(encoder=Small(), augmentation=Shaken(), epochs=30).fit(X, Tags(table))
    assert "temperature" in [h["step"] for h in model.history_]
    logits = model.transform(X) @ model.head_.weight.detach().numpy().T + model.head_.bias.detach().numpy()
    sure = [1 / (1 + np.exp(-np.abs(v))).mean() for v in (logits, np.log(1 / model.predict_proba(X) - 1))]
    right = model.score(X, on)
    assert abs(sure[1] - right) < abs(sure[0] - right)


# -- the class prior --------------------------------------------------------------------------------------------------


def positives(n=900, prior=0.4, labelled=150, seed=0):
    """Two clouds; some of the rows of the one are labelled."""
    random = np.random.default_rng(seed)
    true = random.random(n) < prior
    x = random.normal(size=(n, 4)) + 1.6 * np.where(true, 1.0, -1.0)[:, None]
    x[:, 0] *= np.where(random.random(n) < 0.5, 1, -1)
    known = np.zeros(n, dtype=int)
    known[np.nonzero(true)[0][:labelled]] = 1
    return x.astype(np.float32), torch.tensor(known), true


def test_a_class_prior_that_is_not_given_is_estimated_and_the_network_trained_with_it():
    x, known, true = positives()
    model = Learner(encoder=Small(width=16)).fit(x, Positive(known))
    estimate, low, high = model.class_prior_estimate_
    assert low <= true.mean() <= high
    assert abs(estimate - true.mean()) < 0.08
    assert model.labels_.prior == pytest.approx(estimate)
    given = Learner(encoder=Small(width=16)).fit(x, Positive(known, prior=estimate))
    np.testing.assert_allclose(model.predict_proba(x), given.predict_proba(x), atol=1e-6)
    assert (model.predict(x) == true).mean() > 0.9


def test_the_prior_of_a_killed_fit_is_the_same(tmp_path):
    x, known, _ = positives(n=300, labelled=60)

    def learner():
        return Learner(encoder=Small(drop=0.2), epochs=3)

    whole = learner().fit(x, Positive(known))
    for at in (2, 7, 13):
        kept, state = {}, RecipeState()

        def callback(done, total, facts, at=at, kept=kept, state=state):
            assert total == 5 * 3
            kept["tensors"], kept["history"] = copy.deepcopy(state.tensors()), list(state.history)
            if done == at:
                raise Killed

        with pytest.raises(Killed):
            learner().fit(x, Positive(known), callback=callback, state=state)
        resumed = learner().fit(x, Positive(known), state=RecipeState.from_tensors(kept["tensors"], kept["history"]))
        assert resumed.class_prior_estimate_ == whole.class_prior_estimate_
        np.testing.assert_array_equal(resumed.predict_proba(x), whole.predict_proba(x))
        assert resumed.history_ == whole.history_


def test_a_prior_of_too_few_labelled_rows_is_refused():
    x, known, _ = positives(n=200, labelled=5)
    with pytest.raises(LabelError, match="only 5 rows are labelled positive") as caught:
        Learner(encoder=Small()).fit(x, Positive(known))
    assert "\n" not in str(caught.value)


# -- channels of parts ------------------------------------------------------------------------------------------------


def test_parts_of_a_cross_fit_start_with_channels_that_have_not_seen_the_other_rows(monkeypatch):
    """Votes of the held-out rows do not reach what is said of them, not even through the annotators."""
    started = {}

    real = trained.cross_fitted

    def watched(train, encoder, rows, labels, told, epochs, seed, *, part_of, **how):
        def of(inside):
            part = part_of(inside)
            started[len(started)] = (inside, part.channels[0].confusion.clone())
            return part

        return real(train, encoder, rows, labels, told, epochs, seed, part_of=of, **how)

    monkeypatch.setattr(trained, "cross_fitted", watched)
    votes = Crowd.simulate(Y, 3, generator=gen(), n_annotators=4, votes_per_item=2)
    Learner(encoder=Small(), epochs=3, cross_fit=True).fit(X, votes)
    assert len(started) == 2
    for inside, confusion in started.values():
        alone = with_started_channels(votes[inside]).channels[0].confusion
        torch.testing.assert_close(confusion, alone)


def test_annotators_of_numbers_start_in_parts_with_the_rows_of_the_part(monkeypatch):
    items, who = torch.arange(400).repeat(2), torch.arange(2).repeat_interleave(400)
    value = torch.tensor(X[:, 0]).repeat(2) + torch.where(who == 0, 2.0, -2.0)
    ratings = Ratings(items, who, value, n_items=400)
    found = []
    real = number.cross_fitted

    def watched(*given, part_of, **how):
        def of(inside):
            part = part_of(inside)
            found.append((inside, copy.deepcopy(part.channels[0].state_dict())))
            return part

        return real(*given, part_of=of, **how)

    monkeypatch.setattr(number, "cross_fitted", watched)
    Learner(encoder=Small(), epochs=2, cross_fit=True).fit(X, ratings)
    assert len(found) == 2
    for inside, channel in found:
        alone = ratings[inside].with_own_channels()
        aggregate(alone)
        for key, tensor in alone.channels[0].state_dict().items():
            torch.testing.assert_close(channel[key], tensor, equal_nan=True)
