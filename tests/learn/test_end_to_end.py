"""An encoder trained with its head: what a step is, what is held out, and going on after an interruption."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from anygrain.encoders.choose import ENCODERS
from anygrain.encoders.trainable import Augmentation, InMemory, TrainableEncoder, Training, seeded
from anygrain.labels import (
    AggregateValue,
    AnyOf,
    Bags,
    Between,
    Candidates,
    Censored,
    Counts,
    Crowd,
    Exact,
    LabelError,
    Pairs,
    Positive,
    Ratings,
    Sampled,
    Tags,
    Value,
)
from anygrain.labels.identifiability import IdentifiabilityWarning
from anygrain.learn import Learner, RecipeState, Term, load
from anygrain.learn.end_to_end import EvidenceTargets, certainly, doubts, hold_out, told_apart
from anygrain.learn.fabric import OneDevice
from anygrain.learn.head import Linear
from anygrain.learn.loop import ClassLoop, Network, Pace, side_by_side
from anygrain.learn.loss import cross_entropy
from anygrain.learn.real_end_to_end import RealLoop
from anygrain.learn.real_head import Gaussian
from anygrain.learn.tag_recipe import TagHead


class Small(TrainableEncoder):
    """Numbers through one hidden layer; half of its outputs are dropped where asked."""

    training_defaults = Training(learning_rate=0.02, batch_size=32, steps=120)

    def __init__(self, width=8, dim=4, drop=0.0):
        super().__init__()
        self.width, self.dim, self.drop = width, dim, drop

    @property
    def feature_dim(self):
        return self.width

    def config(self):
        return {"width": self.width, "dim": self.dim, "drop": self.drop}

    def build(self):
        self.layers = nn.Sequential(nn.Linear(self.dim, self.width), nn.Tanh(), nn.Dropout(self.drop))

    def learn(self, data, seed=0):
        with seeded(seed):
            self.build()
        return self

    def inputs(self, data):
        return InMemory(numbers=torch.as_tensor(np.asarray(data), dtype=torch.float32))

    def encode(self, arrays):
        return self.layers(arrays["numbers"])


class Shaken(Augmentation):
    """A little noise, or much."""

    def __init__(self, size=0.3):
        self.size = size

    def weak(self, arrays, generator):
        return self._moved(arrays, 0.1 * self.size, generator)

    def strong(self, arrays, generator):
        return self._moved(arrays, self.size, generator)

    def _moved(self, arrays, size, generator):
        noise = torch.randn(arrays["numbers"].shape, generator=generator)
        return {"numbers": arrays["numbers"] + size * noise}


@pytest.fixture(autouse=True)
def _known(monkeypatch):
    monkeypatch.setitem(ENCODERS, "small", Small)


RNG = np.random.default_rng(0)
CENTRES = 2.0 * RNG.normal(size=(3, 4))
Y = torch.arange(300) % 3
X = (CENTRES[Y] + RNG.normal(size=(300, 4))).astype(np.float32)


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def network(seed=0):
    encoder = Small().learn(X, seed)
    head = Linear(8, 3)
    with seeded(seed + 1), torch.no_grad():
        head.weight.normal_()
    return Network(head, encoder)


def loop_of(labels, batch_size, network_, accumulate=1, fabric=None, targets=None):
    pace = Pace(epochs=1, batch_size=batch_size, learning_rate=0.05, accumulate=accumulate)
    return ClassLoop(
        Learner(),
        network_,
        network_.encoder.inputs(X),
        labels,
        EvidenceTargets(labels, labels, batch_size) if targets is None else targets,
        pace,
        loss=cross_entropy,
        terms=[],
        weighting=None,
        seed=0,
        fabric=OneDevice() if fabric is None else fabric,
    )


class Listening(OneDevice):
    """Remembers the gradient of every step."""

    def __init__(self):
        super().__init__()
        self.gradients = []

    def clip_gradients(self, module, optimizer, *, max_norm):
        self.gradients.append(torch.cat([p.grad.flatten().clone() for p in module.parameters()]))


def gradient_of_likelihood(network_, labels, divide):
    network_ = copy.deepcopy(network_)
    log_probs, _ = network_(network_.encoder.inputs(X)[labels.rows])
    (-labels.log_likelihood(log_probs).sum() / divide).backward()
    return torch.cat([p.grad.flatten() for p in network_.parameters()])


def bag_of_all():
    return Bags(torch.arange(300), torch.tensor([0, 300]), 300)


@pytest.mark.parametrize("size", [300, 32, 7])
def test_a_set_larger_than_a_batch_has_the_gradient_of_the_whole(size):
    counts = torch.bincount(Y, minlength=3)[None] + torch.tensor([[20, -10, -10]])
    labels = Counts(bag_of_all(), counts)
    made, fabric = network(), Listening()
    wanted = gradient_of_likelihood(made, labels, 300)
    loop_of(labels, size, made, fabric=fabric).epoch(0)
    assert len(fabric.gradients) == 1
    torch.testing.assert_close(fabric.gradients[0], wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("kind", ["exact", "candidates", "pairs", "any of"])
def test_a_step_is_the_gradient_of_the_likelihood(kind):
    pairs = torch.arange(300).reshape(-1, 2)
    labels = {
        "exact": lambda: Exact(torch.where(torch.arange(300) % 5 == 0, Y, -1), 3),
        "candidates": lambda: Candidates.simulate(Y, 3, generator=gen()),
        "pairs": lambda: Pairs(pairs[:, 0], pairs[:, 1], torch.arange(150) % 2, 300, 3),
        "any of": lambda: AnyOf(Bags.from_ids(torch.arange(300) // 10), torch.arange(30) % 2, 1, 3),
    }[kind]()
    made, fabric = network(), Listening()
    loop_of(labels, 1000, made, fabric=fabric).epoch(0)
    torch.testing.assert_close(
        fabric.gradients[0], gradient_of_likelihood(network(), labels, 300), rtol=1e-4, atol=1e-6
    )


def test_accumulated_batches_are_one_large_batch():
    labels = Exact(Y, 3)
    large, small = network(), network()
    loop_of(labels, 60, large).epoch(0)
    loop_of(labels, 15, small, accumulate=4).epoch(0)
    for a, b in zip(large.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_components_that_are_cut_get_the_posterior_of_the_whole():
    chain = torch.stack([torch.arange(99), torch.arange(1, 100)], dim=1)
    labels = Pairs(chain[:, 0], chain[:, 1], (Y[chain[:, 0]] == Y[chain[:, 1]]).long(), 300, 3)
    labels = labels & Exact(torch.where(torch.arange(300) == 0, Y, -1), 3)
    targets = EvidenceTargets(labels, labels, 16)
    assert targets.cut.sum() == 100
    log_probs = torch.randn(300, 3, generator=gen()).log_softmax(dim=1)
    targets.e_step(log_probs)
    whole = labels.posterior(log_probs)
    for batch in labels.batches(16, gen()):
        torch.testing.assert_close(targets.of(batch, log_probs[batch.instances]), whole[batch.instances])


def test_what_is_held_out_is_whole_and_never_trained_on():
    bags = Bags.from_ids(torch.arange(300) // 10)
    labels = Counts(bags, torch.stack([torch.bincount(Y[b * 10 : b * 10 + 10], minlength=3) for b in range(30)]))
    told = torch.ones(300, dtype=torch.bool)
    held = hold_out(labels, told, gen())
    assert held.sum() == 30
    assert set(held.reshape(30, 10).sum(dim=1).tolist()) == {0, 10}
    assert not hold_out(labels[:90], told[:90], gen()).any()  # too few
    assert not hold_out(Counts(bag_of_all(), torch.tensor([[100, 100, 100]])), told, gen()).any()  # one group

    class Seen(Term):
        def forward(self, step):
            self.instances.update(step.instances.tolist())
            return step.log_probs.sum() * 0

        def on_fit_start(self, learner):
            self.instances = set()

    term = Seen()
    fitted = Learner(encoder=Small(), terms=[term]).fit(X, Exact(Y, 3))
    assert term.instances == set(np.nonzero(~fitted.held_out_)[0].tolist())
    assert fitted.held_out_.sum() == 30


def test_doubt_is_what_the_evidence_leaves_open():
    labels = Exact(torch.tensor([0, -1, -1, -1]), 3) & AnyOf(
        Bags(torch.tensor([1]), torch.tensor([0, 1]), 4), [1], 1, 3
    )
    found = doubts(labels & Candidates(torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1]])))
    torch.testing.assert_close(
        found, torch.tensor([0, 0, np.log(2) / np.log(3), 1], dtype=torch.float32), atol=1e-6, rtol=0
    )


def test_it_learns_from_many_kinds_at_once():
    few = torch.where(torch.arange(300) < 12, Y, -1)
    bags = Bags.from_ids(torch.arange(300) // 10)
    counts = Counts(bags, torch.stack([torch.bincount(Y[b * 10 : b * 10 + 10], minlength=3) for b in range(30)]))
    fitted = Learner(encoder=Small()).fit(X, Exact(few, 3) & counts)
    alone = Learner(encoder=Small()).fit(X, Exact(few, 3))
    assert fitted.score(X, Y.numpy()) > max(0.85, alone.score(X, Y.numpy()) - 0.02)
    assert fitted.chosen_["why"].startswith("end to end")


def test_answers_about_pairs_move_classes_that_start_alike():
    truth = (Y == 0).long()
    order = torch.randperm(300, generator=gen())
    i, j = order[0::2], order[1::2]
    labels = Pairs(i, j, truth[i] == truth[j], 300, 2)
    with pytest.warns(IdentifiabilityWarning):
        fitted = Learner(encoder=Small(), seed=1).fit(X, labels)
    same = float((torch.as_tensor(fitted.predict(X)) == truth).double().mean())
    assert max(same, 1 - same) > 0.9


def test_classes_that_nothing_tells_apart_stay_equally_likely():
    candidates = torch.zeros(300, 3, dtype=torch.bool)
    candidates[Y == 0, 0] = True
    candidates[Y > 0, 1:] = True
    with pytest.warns(IdentifiabilityWarning):
        fitted = Learner(encoder=Small(), seed=1).fit(X, Candidates(candidates))
    probs = fitted.predict_proba(X)
    np.testing.assert_allclose(probs[:, 1], probs[:, 2], atol=1e-4)


@pytest.mark.parametrize("error", [0.0, 0.2])
def test_another_pool_of_the_same_groups_says_the_same_of_every_row(error):
    generator = torch.Generator().manual_seed(0)
    theta = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], dtype=torch.float64)
    labels = Sampled(torch.arange(60) // 50, theta, error=error)
    moved, shift = labels.resampled(torch.tensor([1, 5]))
    built = Sampled(torch.arange(100) // 50, theta, error=error)
    torch.testing.assert_close(moved.pooled_prior, built.pooled_prior)
    torch.testing.assert_close(moved.log_evidence(torch.float64)[:55], built.log_evidence(torch.float64)[[*range(55)]])
    torch.testing.assert_close(shift, built.pooled_prior.log() - labels.pooled_prior.log())
    if not error:  # given its group a row's class does not depend on how often other rows were drawn
        log_probs = torch.randn(60, 3, generator=generator, dtype=torch.float64).log_softmax(dim=1)
        there = moved.posterior((log_probs + shift).log_softmax(dim=1))
        torch.testing.assert_close(there, labels.posterior(log_probs), atol=1e-12, rtol=0)


def test_a_small_group_of_sampled_rows_comes_as_often_as_the_large_one():
    rng = np.random.default_rng(1)
    truth = np.arange(660) % 2
    x = (3 * truth[:, None] + rng.normal(size=(660, 4))).astype(np.float32)
    labelled = torch.zeros(660, dtype=torch.long)
    labelled[torch.from_numpy(np.flatnonzero(truth == 1)[:60])] = 1
    prior = float((truth[labelled.numpy() == 0] == 1).mean())
    seen = torch.zeros(660)

    class Watch(Term):
        def forward(self, step):
            seen.index_add_(0, step.instances, torch.ones(len(step.instances)))
            return step.log_probs.sum() * 0

    labels = Positive(labelled, prior=prior, scenario="case-control")
    learner = Learner(encoder=Small(), terms=[Watch()], epochs=4, device="cpu").fit(x, labels)
    times = seen / 4
    assert set(times[labelled == 1].tolist()) <= {0.0, 10.0}  # those that are held out, and the others
    assert set(times[labelled == 0].tolist()) <= {0.0, 1.0}
    assert abs(learner.predict_proba(x)[:, 1].mean() - (60 + prior * 600) / 660) < 0.08
    assert (learner.predict(x) == truth).mean() > 0.9


def test_classes_start_apart_as_far_as_evidence_tells_them_apart():
    exact = told_apart(Exact(torch.arange(30) % 3, 3))
    centred = torch.eye(3, dtype=torch.float64) - 1 / 3
    torch.testing.assert_close(exact, centred / (2 / 3) ** 0.5, atol=1e-6, rtol=0)
    groups = torch.tensor([[True, True, False, False], [False, False, True, True]])
    coarse = told_apart(Candidates(groups[torch.arange(20) % 2]))
    torch.testing.assert_close(coarse[0], coarse[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(coarse[0], -coarse[2], atol=1e-6, rtol=0)
    assert float(coarse[0] @ coarse[0]) == pytest.approx(1)
    fine = torch.cat([groups[torch.arange(200) % 2], torch.eye(4, dtype=torch.bool)])
    nearly = told_apart(Candidates(fine))
    within, between = (float((nearly[0] - nearly[k]).norm()) for k in (1, 2))
    assert 0 < within < 0.25 * between


def test_classes_start_even_where_labels_state_their_shares():
    labelled = torch.arange(len(Y)) % 3 == 0

    def spread(labels):
        return float(np.ptp(Learner(encoder=Small(), epochs=0).fit(X, labels).predict_proba(X)[:, 1]))

    assert spread(Positive(labelled, prior=0.5, scenario="case-control")) < 1e-6
    assert spread(Exact((Y > 0).long(), 2)) > 1e-3


def test_channels_of_annotators_are_learnt_on_the_way():
    votes = Crowd.simulate(
        Y, 3, generator=gen(), n_annotators=6, votes_per_item=3, accuracy=torch.tensor([0.95, 0.9, 0.9, 0.9, 0.4, 0.4])
    )
    fitted = Learner(encoder=Small()).fit(X, votes)
    (channel,) = fitted.labels_.channels
    correct = channel.accuracy()
    assert correct[:4].min() > correct[4:].max()
    assert fitted.score(X, Y.numpy()) > 0.85


def test_rows_without_evidence_teach_by_their_strong_view():
    few = Exact(torch.where(torch.arange(300) < 9, Y, -1), 3)
    silent = Learner(encoder=Small(), augmentation=None).fit(X, few)
    taught = Learner(encoder=Small(), augmentation=Shaken(1.0)).fit(X, few)
    assert not np.allclose(silent.predict_proba(X), taught.predict_proba(X))
    assert taught.score(X, Y.numpy()) >= silent.score(X, Y.numpy()) - 0.02


def test_the_seed_decides_and_saved_models_predict_the_same(tmp_path):
    def fit(seed):
        return Learner(encoder=Small(drop=0.3), augmentation=Shaken(), seed=seed, epochs=3).fit(X, Exact(Y, 3))

    first, again, other = fit(0), fit(0), fit(1)
    np.testing.assert_array_equal(first.predict_proba(X), again.predict_proba(X))
    assert not np.allclose(first.predict_proba(X), other.predict_proba(X))
    first.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict_proba(X), first.predict_proba(X))


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 4, 5])
def test_a_killed_training_goes_on_to_the_same_result(at):
    votes = Crowd.simulate(Y, 3, generator=gen(), n_annotators=4, votes_per_item=2)
    kept = {}

    def learner():
        return Learner(encoder=Small(drop=0.3), augmentation=Shaken(), epochs=6)

    whole = learner().fit(X, votes)

    def callback(done, total, facts):
        state = kept["state"]
        kept["tensors"], kept["history"] = copy.deepcopy(state.tensors()), list(state.history)
        if done == at:
            raise Killed

    kept["state"] = RecipeState()
    with pytest.raises(Killed):
        learner().fit(X, votes, callback=callback, state=kept["state"])
    resumed = learner().fit(X, votes, state=RecipeState.from_tensors(kept["tensors"], kept["history"]))
    np.testing.assert_array_equal(whole.predict_proba(X), resumed.predict_proba(X))
    assert [h["objective"] for h in whole.history_] == [h["objective"] for h in resumed.history_]


# -- numbers ----------------------------------------------------------------------------------------------------------

TARGET = torch.as_tensor(10 + 3 * np.sin(X[:, 0]) + X[:, 1] + 0.2 * RNG.normal(size=300))


def real_loop(labels, batch_size, fabric, seed=0):
    encoder, head = Small().learn(X, seed), Gaussian(8)
    head.standardise(10.0, 3.0)
    with seeded(seed + 1), torch.no_grad():
        head.weight.normal_(0.0, 0.3)
    made = Network(head, encoder)
    pace = Pace(epochs=1, batch_size=batch_size, learning_rate=0.05)
    rows = encoder.inputs(X)
    loop = RealLoop(Learner(), made, rows, labels, pace, seed=0, fabric=fabric, augmentation=None)
    return loop


@pytest.mark.parametrize(
    ("kind", "size"), [("mean of all", 300), ("mean of all", 32), ("means of tens", 300), ("censored", 300)]
)
def test_a_step_on_numbers_is_the_gradient_of_the_likelihood(kind, size):
    labels = {
        "mean of all": lambda: AggregateValue(bag_of_all(), torch.tensor([12.0])),
        "means of tens": lambda: AggregateValue(Bags.from_ids(torch.arange(300) // 10), 9 + torch.arange(30) / 10.0),
        "censored": lambda: Censored(TARGET - 1, torch.full((300,), torch.inf, dtype=torch.float64)),
    }[kind]()
    fabric = Listening()
    loop = real_loop(labels, size, fabric)
    made = copy.deepcopy(loop.network)
    loop.epoch(0)
    (mean, variance), _ = made(loop.rows[labels.rows])
    (-labels.log_likelihood(mean, variance).sum() / 300).backward()
    wanted = torch.cat([p.grad.flatten() for p in made.parameters()])
    torch.testing.assert_close(fabric.gradients[0], wanted, rtol=1e-3, atol=1e-7)


def test_numbers_are_learnt_end_to_end_and_calibrated():
    fitted = Learner(encoder=Small(width=24), epochs=60).fit(X, Value(TARGET))
    frozen = Learner(head="gaussian").fit(X, Value(TARGET))
    assert fitted.score(X, TARGET) > frozen.score(X, TARGET)  # the sine is no line
    inside = fitted.predict_interval(X, 0.8)
    covered = ((inside[:, 0] <= TARGET.numpy()) & (TARGET.numpy() <= inside[:, 1])).mean()
    assert 0.7 < covered < 0.92


def test_a_killed_training_on_ratings_goes_on_to_the_same_result():
    ratings = Ratings.simulate(TARGET, generator=gen(), n_annotators=4, ratings_per_item=2)
    first, state, kept = Learner(encoder=Small(drop=0.3), epochs=4), RecipeState(), {}

    def callback(done, total, facts):
        kept["tensors"], kept["history"] = copy.deepcopy(state.tensors()), list(state.history)
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        first.fit(X, ratings, callback=callback, state=state)
    resumed = Learner(encoder=Small(drop=0.3), epochs=4).fit(
        X, ratings, state=RecipeState.from_tensors(kept["tensors"], kept["history"])
    )
    whole = Learner(encoder=Small(drop=0.3), epochs=4).fit(X, ratings)
    np.testing.assert_array_equal(whole.predict(X), resumed.predict(X))
    np.testing.assert_array_equal(whole.labels_.channel.bias, resumed.labels_.channel.bias)


# -- tags -------------------------------------------------------------------------------------------------------------


def test_tags_are_learnt_end_to_end_with_what_is_said_of_several(tmp_path):
    on = torch.stack([torch.as_tensor(X[:, 0] * X[:, 1] > 0), torch.as_tensor(X[:, 2] > 0), Y == 0], dim=1).long()
    known = torch.rand(300, 3, generator=gen()) < 0.4
    tags = Tags(torch.where(known, on, -1))
    labels = tags & Between(
        tags.bags_of_rows(), on.sum(dim=1), on.sum(dim=1), 1, 2, rows=torch.arange(300).repeat_interleave(on.shape[1])
    )
    fitted = Learner(encoder=Small(width=24), epochs=80, augmentation=Shaken(0.1), cross_fit=True).fit(X, labels)
    assert fitted.score(X, on) > 0.9
    assert fitted.score(X, on) > Learner().fit(X, labels).score(X, on)  # the first tag is no line
    assert fitted.held_out_log_probs_.shape == (900, 2)
    fitted.save(tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").predict_proba(X), fitted.predict_proba(X))


def test_a_step_on_tags_is_the_gradient_of_the_likelihood():
    on = torch.stack([Y == 0, Y == 1], dim=1).long()
    labels = Tags(on) & Between(
        Tags(on).bags_of_rows(),
        on.sum(dim=1),
        on.sum(dim=1),
        1,
        2,
        rows=torch.arange(300).repeat_interleave(on.shape[1]),
    )
    encoder, head, fabric = Small().learn(X, 0), TagHead(8, 2), Listening()
    with seeded(1), torch.no_grad():
        head.weight.normal_()
    made = Network(head, encoder)
    before = copy.deepcopy(made)
    pace, tag = Pace(epochs=1, batch_size=1000, learning_rate=0.05), torch.arange(600) % 2
    targets = EvidenceTargets(labels, labels, 1000)
    options = {"loss": cross_entropy, "terms": [], "weighting": None, "seed": 0, "fabric": fabric, "tag_of": tag}
    ClassLoop(Learner(), made, encoder.inputs(X), labels, targets, pace, **options).epoch(0)
    log_probs, _ = before(before.encoder.inputs(X)[torch.arange(300)])
    (-labels.log_likelihood(log_probs.reshape(600, 2)).sum() / 600).backward()
    wanted = torch.cat([p.grad.flatten() for p in before.parameters()])
    torch.testing.assert_close(fabric.gradients[0], wanted, rtol=1e-3, atol=1e-6)


# -- batches, refusals, processes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [3, 5, 8])
def test_cross_fitted_rows_are_predicted_by_networks_that_did_not_see_them(at):
    votes = Crowd.simulate(Y, 3, generator=gen(), n_annotators=4, votes_per_item=2)

    def learner():
        return Learner(encoder=Small(drop=0.3), epochs=3, cross_fit=True)

    kept, state = {}, RecipeState()

    def callback(done, total, facts):
        assert total == 9
        kept["tensors"], kept["history"] = copy.deepcopy(state.tensors()), list(state.history)
        if done == at:
            raise Killed

    whole = learner().fit(X, votes)
    plain = Learner(encoder=Small(drop=0.3), epochs=3).fit(X, votes)
    np.testing.assert_array_equal(whole.predict_proba(X), plain.predict_proba(X))  # the model itself is the same
    assert whole.held_out_.all()
    assert [h["step"] for h in whole.history_][2:4] == ["epoch 3", "part 1 epoch 1"]
    with pytest.raises(Killed):
        learner().fit(X, votes, callback=callback, state=state)
    resumed = learner().fit(X, votes, state=RecipeState.from_tensors(kept["tensors"], kept["history"]))
    np.testing.assert_array_equal(whole.held_out_log_probs_, resumed.held_out_log_probs_)


def test_every_part_of_a_cross_fit_has_its_share_of_few_labels():
    few = torch.full((300,), -1)
    few[:3] = torch.arange(3)
    for seed in (2, 3):  # where a split by chance has all three in one half
        fitted = Learner(encoder=Small(), epochs=1, seed=seed, cross_fit=True).fit(X, Exact(few, 3))
        assert fitted.held_out_.all()
    few[1:] = -1
    assert not Learner(encoder=Small(), epochs=1, cross_fit=True).fit(X, Exact(few, 3)).held_out_.any()


def test_random_labels_are_not_remembered_by_cross_fitted_predictions():
    random = torch.randint(3, (300,), generator=gen())
    fitted = Learner(encoder=Small(width=64), epochs=80, cross_fit=True).fit(X, Exact(random, 3))
    held = fitted.held_out_log_probs_.argmax(axis=1)
    assert (held == random.numpy()).mean() < 0.43
    one_group = Learner(encoder=Small(), epochs=2, cross_fit=True).fit(X, Counts(bag_of_all(), [[100, 100, 100]]))
    assert not one_group.held_out_.any()


def test_terms_keep_together_what_they_speak_of():
    class Couples(Term):
        def __init__(self):
            super().__init__()
            self.cut = 0

        def bags(self):
            return Bags(torch.randperm(300, generator=gen(3)), torch.arange(0, 301, 2), 300)

        def forward(self, step):
            partner = torch.empty(300, dtype=torch.long)
            members = self.bags().members.reshape(-1, 2)
            partner[members[:, 0]], partner[members[:, 1]] = members[:, 1], members[:, 0]
            self.cut += int((~torch.isin(partner[step.instances], step.instances)).sum())
            return step.log_probs.sum() * 0

    term = Couples()
    Learner(encoder=Small(), terms=[term], epochs=2).fit(X, Exact(Y, 3))
    Learner(terms=[term], epochs=2, rounds=1, batch_size=20).fit(X, Exact(Y, 3))
    assert term.cut == 0


def test_what_is_refused():
    with pytest.raises(LabelError, match="no row has any evidence"):
        Learner(encoder=Small()).fit(X, Exact(torch.full((300,), -1), 3))
    with pytest.raises(LabelError, match='precision is "8"; expected one of'):
        Learner(encoder=Small(), precision="8").fit(X, Exact(Y, 3))
    with (
        pytest.raises(LabelError, match='device "cuda" cannot be used here')
        if not torch.cuda.is_available()
        else (pytest.raises(LabelError, match="device"))
    ):
        Learner(encoder=Small(), device="cuda" if not torch.cuda.is_available() else "nowhere").fit(X, Exact(Y, 3))
    with pytest.raises(LabelError, match="augmentation is 3"):
        Learner(encoder=Small(), augmentation=3).fit(X, Exact(Y, 3))


def test_mixed_precision_is_near_full_precision():
    pytest.importorskip("lightning")
    full = Learner(encoder=Small(), epochs=4).fit(X, Exact(Y, 3))
    mixed = Learner(encoder=Small(), epochs=4, precision="bf16-mixed").fit(X, Exact(Y, 3))
    difference = np.abs(full.predict_proba(X) - mixed.predict_proba(X))
    assert 0 < difference.mean() < 0.05


def test_two_processes_train_one_network():
    lightning = pytest.importorskip("lightning")
    fabric = lightning.Fabric(accelerator="cpu", devices=2, strategy="ddp_fork")
    fabric.launch(_on_each)


def _on_each(fabric):
    learner = Learner(encoder=Small(), epochs=4, fabric=fabric, augmentation=Shaken()).fit(X, Exact(Y, 3))
    both = fabric.all_gather(torch.from_numpy(learner.predict_proba(X)))
    torch.testing.assert_close(both[0], both[1])
    assert (learner.predict(X) == Y.numpy()).mean() > 0.7


def test_views_of_other_types_are_not_joined():
    weak, strong = {"image": torch.full((1, 2), 200, dtype=torch.uint8)}, {"image": torch.ones(1, 2)}
    with pytest.raises(LabelError, match="is uint8 in the weak view and float32 in the strong one"):
        side_by_side([weak, strong])
    assert side_by_side([weak, weak])["image"].tolist() == [[200, 200], [200, 200]]


def test_certain_evidence_needs_no_network():
    y = torch.tensor([0, 2, 1, 1])
    assert torch.equal(certainly(Exact(y, 3)), torch.nn.functional.one_hot(y, 3).float())
    assert certainly(Exact(torch.tensor([0, -1]), 3)) is None
    assert certainly(Candidates(torch.tensor([[True, False, False], [True, True, False]]))) is None
    one = Candidates(torch.eye(3)[y].bool())
    assert torch.equal(certainly(one), one.posterior(torch.randn(4, 3).log_softmax(dim=1)))
