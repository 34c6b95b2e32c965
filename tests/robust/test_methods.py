"""Methods by name: they fill slots, go with the kinds of label that they say, and refuse the rest in one line."""

import warnings

import numpy as np
import pytest
import torch

from anygrain.encoders.trainable import InMemory, TrainableEncoder, Training, seeded
from anygrain.labels import Bags, Candidates, Counts, Crowd, Exact, LabelError, Noisy, Positive, Proportions, Soft, Tags
from anygrain.learn import Learner
from anygrain.learn.loss import AdaptiveLoss
from anygrain.robust import ForwardCorrection, LogitAdjustment, all_methods, method
from anygrain.robust.methods import FIXED, find, read_method

GENERATOR = torch.Generator().manual_seed(0)
N, K = 240, 3
Y = torch.arange(N) % K
X = torch.randn(N, 4, generator=GENERATOR) + 3.5 * torch.eye(K, 4)[Y]
SIMPLE = [m for m in all_methods() if find(m).slot in ("loss", "weighting", "terms") and "classes" in find(m).spaces]
SIMPLE = [m for m in SIMPLE if not find(m).kind]
BAGS = Bags.from_ids(torch.arange(N) // 4)


def noisy_labels():
    wrong = torch.rand(N, generator=torch.Generator().manual_seed(1)) < 0.2
    return torch.where(wrong, (Y + 1) % K, Y)


def counts():
    return torch.nn.functional.one_hot(Y, K).reshape(-1, 4, K).sum(dim=1)


KINDS = {
    "exact": lambda: Exact(noisy_labels(), K),
    "few": lambda: Exact(torch.where(torch.arange(N) % 5 == 0, Y, -1), K),
    "soft": lambda: Soft(0.8 * torch.eye(K)[Y] + 0.2 / K),
    "candidates": lambda: Candidates(torch.eye(K)[Y].bool() | (torch.rand(N, K, generator=GENERATOR) < 0.3)),
    "noisy": lambda: Noisy(noisy_labels(), K),
    "counts": lambda: Counts(BAGS, counts()) & Exact(torch.where(torch.arange(N) % 10 == 0, Y, -1), K),
    "proportions": lambda: Proportions(BAGS, counts() / 4) & Exact(torch.where(torch.arange(N) % 10 == 0, Y, -1), K),
}


class Small(TrainableEncoder):
    """One hidden layer on four numbers."""

    training_defaults = Training(learning_rate=0.02, batch_size=64, steps=60)

    def __init__(self, width=8):
        super().__init__()
        self.feature_dim = width

    def config(self):
        return {"width": self.feature_dim}

    def learn(self, data, seed=0):
        with seeded(seed):
            self.layer = torch.nn.Linear(4, self.feature_dim)
        return self

    def inputs(self, data):
        return InMemory(numbers=torch.as_tensor(np.asarray(data), dtype=torch.float32))

    def encode(self, arrays):
        return torch.tanh(self.layer(arrays["numbers"]))


@pytest.mark.parametrize("name", [m for m in SIMPLE if FIXED in find(m).encoders])
@pytest.mark.parametrize("kind", KINDS)
def test_every_method_learns_from_every_kind_on_fixed_features(name, kind):
    model = Learner(**method(name), seed=0, epochs=6, rounds=2).fit(X.numpy(), KINDS[kind]())
    assert np.isfinite(model.predict_proba(X.numpy())).all()
    assert model.score(X.numpy(), Y.numpy()) > 0.85


@pytest.mark.parametrize("name", SIMPLE)
@pytest.mark.parametrize("kind", ["exact", "candidates", "counts"])
def test_every_method_learns_with_a_trained_encoder(name, kind):
    model = Learner(Small(), **method(name), seed=0, learning_rate=0.02, epochs=12).fit(X.numpy(), KINDS[kind]())
    assert np.isfinite(model.predict_proba(X.numpy())).all()
    assert model.score(X.numpy(), Y.numpy()) > 0.8


@pytest.mark.parametrize("name", [m for m in all_methods() if "tags" in find(m).spaces and m != "default"])
@pytest.mark.parametrize("encoder", [None, Small()])
def test_methods_of_tags_learn_tags(name, encoder):
    truth = torch.stack([Y == 0, Y == 1, Y == 2], dim=1).long()
    hidden = torch.where(torch.rand(N, 3, generator=torch.Generator().manual_seed(2)) < 0.3, -1, truth)
    how = {} if encoder is None else {"learning_rate": 0.02}
    model = Learner(encoder, **method(name), seed=0, epochs=15, **how).fit(X.numpy(), Tags(hidden))
    proba = model.predict_proba(X.numpy())
    assert np.isfinite(proba).all()
    assert (proba.argmax(axis=1) == Y.numpy()).mean() > 0.85


def test_estimates_of_a_fit():
    wrong = torch.rand(3000, generator=torch.Generator().manual_seed(1)) < 0.3
    y = torch.arange(3000) % K
    x = torch.randn(3000, 4, generator=torch.Generator().manual_seed(2)) + 3.5 * torch.eye(K, 4)[y]
    given = torch.where(wrong, (y + 1) % K, y)
    expected = 0.7 * torch.eye(K) + 0.3 * torch.eye(K)[(torch.arange(K) + 1) % K]
    for encoder, how in ((None, {}), (Small(), {"learning_rate": 0.02, "epochs": 9})):
        loss = ForwardCorrection()
        Learner(encoder, loss=loss, seed=0, **how).fit(x.numpy(), Exact(given, K))
        assert float((loss.transition - expected).abs().max()) < 0.05
    skewed = torch.cat([torch.zeros(90), torch.ones(30)]).long()
    loss = LogitAdjustment()
    Learner(loss=loss, epochs=1).fit(X[:120].numpy(), Exact(skewed, 2))
    torch.testing.assert_close(loss.log_prior.exp().float(), torch.tensor([0.75, 0.25]), atol=0.02, rtol=0)


def test_what_a_loss_has_learnt_is_kept_with_a_fit_that_goes_on():
    """The second half of a training, from the state of the first, is as the whole."""
    from anygrain.learn import RecipeState

    labels = Exact(noisy_labels(), K)
    how = {"seed": 0, "learning_rate": 0.02, "epochs": 8}
    whole = Learner(Small(), loss=ForwardCorrection(warm_up=2), **how).fit(X.numpy(), labels)

    class Enough(Exception):
        pass

    state = RecipeState()

    def stop(done, total, facts):
        if done == 4:
            raise Enough

    with pytest.raises(Enough):
        Learner(Small(), loss=ForwardCorrection(warm_up=2), **how).fit(X.numpy(), labels, callback=stop, state=state)
    again = Learner(Small(), loss=ForwardCorrection(warm_up=2), **how).fit(
        X.numpy(), labels, state=RecipeState.from_tensors(state.tensors(), state.history)
    )
    np.testing.assert_allclose(again.predict_proba(X.numpy()), whole.predict_proba(X.numpy()), atol=1e-6)


def test_robust_losses_withstand_what_cross_entropy_learns_by_heart():
    """A network large enough to learn wrong labels by heart, without anything held out to stop it."""

    generator = torch.Generator().manual_seed(5)
    x = torch.randn(90, 4, generator=generator) + 1.5 * torch.eye(K, 4)[Y[:90]]
    wrong = torch.rand(90, generator=generator) < 0.4
    given = torch.where(wrong, torch.randint(K, (90,), generator=generator), Y[:90])
    fresh = torch.randn(3000, 4, generator=generator) + 1.5 * torch.eye(K, 4)[torch.arange(3000) % K]
    truth = np.arange(3000) % K

    def accuracy(name):
        model = Learner(Small(256), **method(name), seed=0, learning_rate=0.1, epochs=60).fit(
            x.numpy(), Exact(given, K)
        )
        return model.score(fresh.numpy(), truth)

    assert accuracy("gce") > accuracy("default") + 0.03


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: method("gcce"), 'method "gcce" is not known. Did you mean "gce"'),
        (lambda: method("gce", r=0.5), 'method "gce" has no option "r"'),
        (lambda: method("default", q=0.5), 'method "default" has no option "q"; it has none'),
        (lambda: method("gce", q=2.0), "1 - q is -1"),
        (lambda: read_method("gce:q"), 'option "q" has no value'),
        (lambda: find("comic").check("classes", trained=True), 'method "comic" is for labels of tags; these labels'),
        (lambda: find("con_r").check("a number", trained=False), "is for labels of a number, a trained encoder; here"),
        (
            lambda: find("nnpu").check("classes", trained=False, kinds=("Exact", "Positive")),
            "is for Positive labels alone; here they are Exact, Positive",
        ),
    ],
)
def test_what_does_not_go_is_refused_in_one_line(use, message):
    with pytest.raises(LabelError, match=message) as caught:
        use()
    assert "\n" not in str(caught.value)


def test_options_in_words():
    found, options = read_method("any_loss:measure=f1:start=20:average=micro")
    assert found.name == "any_loss"
    assert options == {"measure": "f1", "start": 20, "average": "micro"}
    assert read_method("bootstrapping:hard=false")[1] == {"hard": False}


def test_each_method_says_what_it_is_and_accepts():
    for found in all_methods().values():
        assert found.says
        assert found.says[0].islower() or found.says[0].isupper()
        assert found.accepts
        made = found.arguments()
        assert set(made) <= {"loss", "terms", "weighting", "procedure"}


def test_crowds_and_positive_rows_go_with_losses():
    votes = torch.stack([noisy_labels(), torch.where(torch.arange(N) % 2 == 0, Y, -1)], dim=1)
    items, sources = (votes >= 0).nonzero().T
    crowd = Crowd(items, sources, votes[items, sources], K, n_items=N)
    assert Learner(**method("gce"), epochs=5, rounds=2).fit(X.numpy(), crowd).score(X.numpy(), Y.numpy()) > 0.85
    positive = Positive((Y == 1) & (torch.arange(N) % 6 == 1), prior=1 / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Learner(**method("focal"), epochs=5, rounds=2).fit(X.numpy(), positive)
    assert np.isfinite(model.predict_proba(X.numpy())).all()
    assert isinstance(LogitAdjustment(), AdaptiveLoss)


@pytest.mark.parametrize("name", ["gce", "class_balanced", "mixup"])
def test_what_is_held_out_is_of_the_method_and_does_not_see_the_row(name):
    """A label that is changed does not move the held-out scores of its own row, but for the common temperature."""
    given = noisy_labels()
    changed = given.clone()
    changed[0] = (given[0] + 1) % K

    def held(labels, **how):
        model = Learner(**how, cross_fit=True, seed=0, epochs=4, rounds=2).fit(X.numpy(), Exact(labels, K))
        assert model.held_out_.all()
        return torch.as_tensor(model.held_out_log_probs_)

    one, other = held(given, **method(name)), held(changed, **method(name))
    scores = torch.stack([one[0] - one[0].mean(), other[0] - other[0].mean()])
    torch.testing.assert_close(scores[0] / scores[0].norm(), scores[1] / scores[1].norm(), atol=1e-4, rtol=0)
    assert not torch.allclose(one, held(given), atol=1e-3)
