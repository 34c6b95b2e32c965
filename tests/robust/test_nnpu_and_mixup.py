"""The risk of positive and unlabelled rows, and mixed rows."""

import pytest
import torch

from anygrain.labels import LabelError, Positive
from anygrain.learn import Learner, cross_entropy
from anygrain.learn.loss import terms_alone
from anygrain.learn.step import Step, View
from anygrain.robust import GeneralizedCrossEntropy, Mixup, NonNegativePU, method
from anygrain.robust.mixup import mixable, mixed_inputs, partner_of
from anygrain.robust.non_negative_pu import pu_risk


def binary(p):
    return torch.stack([1 - p, p], dim=1).log()


@pytest.mark.parametrize("surrogate", ["sigmoid", "log"])
def test_the_risk_by_its_parts(surrogate):
    p = torch.tensor([0.9, 0.6, 0.3, 0.2, 0.8], dtype=torch.float64)
    labelled = torch.tensor([1, 1, 0, 0, 0]).bool()

    def loss(value, positive):
        right = value if positive else 1 - value
        return float(1 - right) if surrogate == "sigmoid" else -float(torch.log(right))

    prior = 0.4
    plus = prior * (loss(p[0], True) + loss(p[1], True)) / 2
    minus = sum(loss(v, False) for v in p[2:]) / 3 - prior * (loss(p[0], False) + loss(p[1], False)) / 2
    found = pu_risk(binary(p), labelled, ~labelled, prior, surrogate=surrogate)
    assert minus > 0
    assert float(found) == pytest.approx(plus + minus)


def test_the_unbiased_risk_is_the_supervised_one_in_expectation():
    """Over all rows, with labels drawn from p(y | x), positives weighing as the population has them."""
    p = torch.tensor([0.9, 0.5, 0.2, 0.6], dtype=torch.float64)
    truth = torch.tensor([1, 1, 0, 0]).bool()
    prior = 0.5
    supervised = (torch.where(truth, 1 - p, p)).mean()
    everyone = torch.ones(4, dtype=torch.bool)
    found = pu_risk(binary(p), truth, everyone, prior, non_negative=False)
    torch.testing.assert_close(found, supervised)


def test_below_zero_the_gradient_turns_round_and_the_value_stays():
    logits = torch.tensor([3.0, 3.0, -3.0, -3.0], dtype=torch.float64, requires_grad=True)
    labelled = torch.tensor([1, 1, 0, 0]).bool()
    risk = pu_risk(binary(logits.sigmoid()), labelled, ~labelled, 0.7)
    p = logits.detach().sigmoid()
    assert float(risk.detach()) == pytest.approx(float(0.7 * (1 - p[0])))
    (slope,) = torch.autograd.grad(risk, logits)
    inner = pu_risk(binary(logits.sigmoid()), labelled, ~labelled, 0.7, non_negative=False)
    plus = 0.7 * (1 - logits.sigmoid()[:2]).mean()
    (of_minus,) = torch.autograd.grad(inner - plus, logits)
    torch.testing.assert_close(slope, -of_minus)


def test_several_classes_are_the_target_against_the_rest():
    log_probs = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(dim=1)
    labelled = torch.tensor([1, 1, 0, 0, 0, 0]).bool()
    found = pu_risk(log_probs, labelled, ~labelled, 0.3, target=2)
    torch.testing.assert_close(found, pu_risk(binary(log_probs[:, 2].exp()), labelled, ~labelled, 0.3))


@pytest.mark.parametrize("scenario", ["single", "case-control"])
def test_a_learner_of_positive_and_unlabelled_rows(scenario):
    generator = torch.Generator().manual_seed(0)
    y = (torch.rand(800, generator=generator) < 0.4).long()
    x = torch.randn(800, 2, generator=generator) + 2.0 * y[:, None]
    labelled = (y == 1) & (torch.rand(800, generator=generator) < 0.4)
    labels = Positive(labelled, prior=0.4, scenario=scenario)
    learner = Learner(**method("nnpu"), seed=0, epochs=20).fit(x.numpy(), labels)
    term = learner.terms[0]
    assert (term.prior, term.target) == (0.4, 1)
    assert int(term.unlabelled.sum()) == (800 if scenario == "single" else 800 - int(labelled.sum()))
    if scenario == "single":
        assert (learner.predict(x.numpy()) == y.numpy()).mean() > 0.9
    with pytest.raises(LabelError, match="NonNegativePU is for Positive labels"):
        Learner(terms=[NonNegativePU()]).fit(x.numpy(), y.numpy())


def test_pooled_positives_do_not_move_the_population():
    """With case-control rows the mean prediction on the population is its prior, as with the labels' own likelihood."""
    generator = torch.Generator().manual_seed(0)

    def rows(y):
        return torch.randn(len(y), 2, generator=generator) + torch.tensor([2.0, 0.0]) * y[:, None]

    y = torch.cat([torch.ones(600), (torch.rand(1500, generator=generator) < 0.3).float()])
    labels = Positive(torch.arange(2100) < 600, prior=0.3, scenario="case-control")
    learner = Learner(**method("nnpu", surrogate="log"), epochs=40).fit(rows(y).numpy(), labels)
    new = (torch.rand(3000, generator=generator) < 0.3).float()
    found = learner.predict_proba(rows(new).numpy())[:, 1]
    assert found.mean() == pytest.approx(0.3, abs=0.03)


def test_rows_that_come_more_often_than_they_are_do_not_move_the_risk():
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.randn(8, 2, generator=generator, dtype=torch.float64).log_softmax(dim=1)
    term, shift = NonNegativePU(), torch.tensor([-0.4, 0.9], dtype=torch.float64)
    term.labelled, term.unlabelled = torch.arange(8) < 3, torch.arange(8) >= 3
    term.prior, term.target, term.log_prior_shift = 0.3, 1, torch.tensor([0.2, -0.5])

    def risk(said, shift):
        return term(Step(said, torch.zeros(8, 1), said.exp(), torch.arange(8), 0, None, shift))

    torch.testing.assert_close(risk((log_probs + shift).log_softmax(dim=1), shift), risk(log_probs, None))


# -- mixup ------------------------------------------------------------------------------------------------------------


def test_inputs_are_averaged_in_their_own_type():
    arrays = {"image": torch.tensor([[0], [100]], dtype=torch.uint8), "x": torch.tensor([[1.0], [3.0]])}
    assert mixable(arrays)
    found = mixed_inputs(arrays, torch.tensor([1, 0]), 0.75)
    assert found["image"].flatten().tolist() == [25, 75]
    assert found["image"].dtype == torch.uint8
    assert found["x"].flatten().tolist() == [1.5, 2.5]
    assert not mixable({"words": torch.tensor([[3, 4]])})


def test_partners_have_the_same_tag():
    place, tag = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, 1, 0, 1, 1])
    partner = torch.tensor([1, 2, 0])
    assert partner_of(place, tag, partner).tolist() == [2, 3, -1, 4, 1]
    assert partner_of(torch.tensor([1, 0]), torch.zeros(2, dtype=torch.long), torch.tensor([1, 0])).tolist() == [1, 0]


def linear_step(seed=0, n=6, whole=True):
    """A step of a linear network; with words for inputs, where these are not to be mixed."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    features = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    posterior = torch.rand(n, 3, generator=generator, dtype=torch.float64).softmax(dim=1)

    def head(given):
        return (given @ weight).log_softmax(dim=1)

    arrays = {"x": features} if whole else {"words": torch.arange(n)}
    view = View(arrays, torch.arange(n), lambda a: (head(a["x"]), a["x"]), head, lambda out, place, _: out[place])
    return Step(head(features), features, posterior, torch.arange(n), 0, view), head


class Told:
    """What a learner tells a term."""

    def __init__(self, n, loss):
        self.loss, self.space_ = loss, "classes"
        self.labels_ = type(
            "Labels", (), {"instance_weight": lambda _: torch.ones(n), "rows": torch.arange(n), "n_instances": n}
        )()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("loss", [None, GeneralizedCrossEntropy()])
def test_a_mixed_step_is_its_formula(whole, loss):
    step, head = linear_step(whole=whole)
    term = Mixup(0.4)
    term.on_fit_start(Told(6, loss if loss is not None else terms_alone))
    torch.manual_seed(3)
    found = term(step)
    torch.manual_seed(3)
    share = float(torch.distributions.Beta(0.4, 0.4).sample())
    partner = torch.randperm(6)
    total = 0.0
    for i, j in enumerate(partner.tolist()):
        x = share * step.features[i] + (1 - share) * step.features[j]
        q = share * step.posterior[i] + (1 - share) * step.posterior[j]
        total += float((loss or cross_entropy)(head(x[None]), q[None]).detach())
    assert float(found.detach()) == pytest.approx(total / 6, abs=1e-6)
