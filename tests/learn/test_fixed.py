"""Heads of one's own are calibrated by rows that they have not seen, and say what they say of these."""

import numpy as np
import pytest
import torch

from anygrain.labels import Bags, Exact, Proportions
from anygrain.learn import Learner
from anygrain.learn.calibration import fit_temperature
from anygrain.learn.cross_fit import held_part
from anygrain.robust import CoTeaching, ForwardCorrection

N, K = 600, 3
TRUTH = torch.arange(2 * N) % K
X = torch.randn(2 * N, 40, generator=torch.Generator().manual_seed(0)) + 1.2 * torch.eye(K, 40)[TRUTH]
ERROR = torch.rand(2 * N, generator=torch.Generator().manual_seed(1)) < 0.3
GIVEN = torch.where(ERROR, (TRUTH + 1) % K, TRUTH)  # of new rows as well


def confidence_and_accuracy(model, labels):
    probs = model.predict_proba(X[N:].numpy())
    return probs.max(axis=1).mean(), (probs.argmax(axis=1) == labels[N:].numpy()).mean()


@pytest.mark.parametrize("cross_fit", [False, True])
@pytest.mark.parametrize(
    "how", [{"procedure": CoTeaching(0.0), "head": "mlp"}, {"loss": ForwardCorrection(torch.eye(3))}]
)
def test_probabilities_say_how_often_a_label_will_be_as_predicted(how, cross_fit):
    model = Learner(**how, seed=0, cross_fit=cross_fit).fit(X[:N].numpy(), Exact(GIVEN[:N], K))
    confidence, accuracy = confidence_and_accuracy(model, GIVEN)
    assert confidence == pytest.approx(accuracy, abs=0.08)
    apart = torch.as_tensor(model.held_out_)
    assert apart.float().mean() == pytest.approx(0.2 if "procedure" in how and not cross_fit else 1.0, abs=0.01)
    said = torch.as_tensor(model.held_out_log_probs_)[apart]
    assert float(said.exp().amax(dim=1).mean()) == pytest.approx(confidence, abs=0.08)
    if not cross_fit and "procedure" in how:
        own = model.head_(torch.tensor(model.transform(X[N:].numpy()))).detach().exp().amax(dim=1).mean()
        assert own > confidence + 0.1  # by heart


def test_with_the_matrix_of_errors_probabilities_are_about_the_truth():
    matrix = 0.7 * torch.eye(K) + 0.3 * torch.eye(K).roll(1, dims=1)
    model = Learner(loss=ForwardCorrection(matrix), seed=0).fit(X[:N].numpy(), Exact(GIVEN[:N], K))
    confidence, accuracy = confidence_and_accuracy(model, TRUTH)
    assert confidence == pytest.approx(accuracy, abs=0.1)


def test_a_fifth_of_every_class_is_held_and_sets_stay_whole():
    y = torch.tensor([0] * 50 + [1] * 10 + [2] * 3 + [-1] * 20)
    told = y >= 0
    held = held_part(Exact(y, K), told, 0)
    assert [int((held & (y == c)).sum()) for c in (0, 1, 2, -1)] == [10, 2, 1, 0]
    bags = Bags.from_ids(torch.arange(60) // 4)
    sets = held_part(
        Proportions(bags, torch.tensor([[0.5, 0.25, 0.25]]).repeat(15, 1)), torch.ones(60, dtype=torch.bool), 0
    )
    assert sorted(set(sets.reshape(15, 4).sum(dim=1).tolist())) == [0, 4]
    assert int(sets.sum()) == 12
    assert held_part(Exact(torch.tensor([0, 1, -1]), K), torch.tensor([1, 1, 0]).bool(), 0) is None


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_logits_that_are_far_too_sure_are_flattened(scale):
    """Labels drawn from softmax(z): the temperature undoes a factor on z."""
    z = torch.randn(4000, K, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    drawn = torch.multinomial(z.softmax(dim=1), 1, generator=torch.Generator().manual_seed(3))[:, 0]
    everyone = torch.ones(4000, dtype=torch.bool)
    found = fit_temperature(Exact(drawn, K), scale * z, everyone, default=1.0, by_heart=True)
    assert found == pytest.approx(1 / scale, rel=0.1)


def test_a_fit_ends_with_its_temperature():
    model = Learner(procedure=CoTeaching(epochs=3), seed=0).fit(X[:N].numpy(), Exact(GIVEN[:N], K))
    assert model.history_[-1]["temperature"] == model.temperature_
    assert model.history_[-1]["held_out_evidence"] == pytest.approx(model.log_evidence_heldout_, abs=1e-5)
    again = Learner(procedure=CoTeaching(epochs=3), seed=0).fit(X[:N].numpy(), Exact(GIVEN[:N], K))
    assert np.array_equal(model.predict_proba(X.numpy()), again.predict_proba(X.numpy()))
