"""Every procedure that is registered learns from every kind of label, and refuses what it does not compose with."""

import numpy as np
import pytest
import torch

from anygrain.encoders import Convolutional
from anygrain.labels import Bags, Candidates, Counts, Crowd, Exact, LabelError, Noisy, Soft
from anygrain.learn import Learner, Term
from anygrain.learn.started_channels import with_started_channels
from anygrain.robust import all_methods, method
from anygrain.robust.methods import find

N, K = 180, 3
Y = torch.arange(N) % K
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(0)) + 3.5 * torch.eye(K, 4)[Y]
PROCEDURES = [name for name in all_methods() if find(name).slot == "procedure"]
TWO_KINDS = ("spl", "fopro")  # exact labels of few rows beside others
SHORT = {"epochs": 8, "batch_size": 32}


def some(share):
    """Classes of a share of the rows, -1 elsewhere."""
    return torch.where(torch.arange(N) % round(1 / share) < 1, Y, -1)


def sets():
    drawn = torch.rand(N, K, generator=torch.Generator().manual_seed(1)) < 0.3
    return Candidates(torch.eye(K)[Y].bool() | drawn)


KINDS = {
    "exact": lambda: Exact(Y, K),
    "few": lambda: Exact(some(0.25), K),
    "soft": lambda: Soft(0.8 * torch.eye(K)[Y] + 0.2 / K),
    "candidates": sets,
    "noisy": lambda: Noisy(torch.where(torch.arange(N) % 7 == 0, (Y + 1) % K, Y), K),
    "exact and candidates": lambda: Exact(some(0.25), K) & sets(),
}


@pytest.mark.parametrize("name", PROCEDURES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_procedure_learns_from_every_kind(name, kind):
    if name in TWO_KINDS and kind != "exact and candidates":
        pytest.skip("speaks of exact labels beside others")
    labels = KINDS[kind]()
    options = {"rounds": 2, "steps": 15} if name == "self_training" else {}
    model = Learner(head="mlp", **method(name, **options), **SHORT).fit(X.numpy(), labels)
    probs = model.predict_proba(X.numpy())
    assert np.isfinite(probs).all()
    assert np.allclose(probs.sum(axis=1), 1, atol=1e-5)
    assert model.score(X.numpy(), Y.numpy()) > 0.85
    assert model.history_


@pytest.mark.parametrize("name", ["self_training", "co_teaching"])
def test_channels_were_fitted_to_the_features_before(name):
    """A label alone does not say how often it is wrong, and few votes say little of an annotator; features do."""
    random = torch.Generator().manual_seed(3)
    votes = torch.where(
        torch.rand(N, 3, generator=random) < 0.6, torch.randint(0, K, (N, 3), generator=random), Y[:, None]
    )
    items, annotators = torch.arange(N).repeat_interleave(2), torch.arange(2).repeat(N)
    labels = Crowd(items, annotators, votes[:, :2].reshape(-1), K, N) & Noisy(votes[:, 2], K)
    model = Learner(**method(name), **SHORT).fit(X.numpy(), labels)
    guess = torch.stack([torch.bincount(3 * Y + votes[:, a], minlength=K * K) for a in range(3)]).reshape(-1, K)
    true = (guess / guess.sum(dim=1, keepdim=True)).reshape(3, K, K)
    crowd, noisy = model.labels_.channels
    votes_alone, unfitted = with_started_channels(labels).channels
    assert (crowd.confusion - true[:2]).abs().mean() < 0.7 * (votes_alone.confusion - true[:2]).abs().mean()
    assert (noisy.transition - true[2]).abs().mean() < 0.7 * (unfitted.transition - true[2]).abs().mean()


def test_sets_are_learnt_from_as_a_whole():
    table = torch.tensor([[2, 1, 0], [0, 2, 1], [1, 0, 2]])
    y = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 0]).repeat(20)
    x = torch.randn(N, 4, generator=torch.Generator().manual_seed(0)) + 3.5 * torch.eye(K, 4)[y]
    few = torch.where(torch.arange(N) % 9 == 0, y, -1)
    few[3], few[6] = 1, 2
    labels = Counts(Bags.from_ids(torch.arange(N) // 3), table.repeat(20, 1)) & Exact(few, K)
    for name in ("self_training", "co_teaching"):
        model = Learner(head="mlp", **method(name), epochs=15, batch_size=32).fit(x.numpy(), labels)
        assert model.score(x.numpy(), y.numpy()) > 0.85


@pytest.mark.parametrize("name", PROCEDURES)
def test_refusals_are_one_line(name):
    with pytest.raises(LabelError, match="does not compose with terms") as caught:
        Learner(head="mlp", terms=[Term()], **method(name)).fit(X.numpy(), Exact(Y, K))
    assert "\n" not in str(caught.value)
    images = np.zeros((N, 8, 8), dtype=np.uint8)
    with pytest.raises(LabelError, match="fits a head on frozen features") as caught:
        Learner(encoder=Convolutional(widths=(2,)), **method(name)).fit(images, Exact(Y, K))
    assert "\n" not in str(caught.value)
