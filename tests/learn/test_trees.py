"""Extremely randomised trees as a head."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesClassifier

from anygrain.labels import Candidates, Noisy
from anygrain.learn import Learner
from anygrain.learn.trees import Trees


class Few(Trees):
    trees = 20


def data(seed=0, n=120, k=3):
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(k, (n,), generator=generator)
    features = torch.randn(n, 4, generator=generator)
    features[:, :k] += 2 * torch.nn.functional.one_hot(classes, k)
    return features, classes


def test_reads_its_trees_as_scikit_learn_does():
    features, classes = data()
    head = Few(4, 3)
    assert head.learn(features, torch.nn.functional.one_hot(classes, 3).float())
    grown = ExtraTreesClassifier(20, random_state=0).fit(features.numpy(), classes.numpy())
    new, _ = data(1)
    np.testing.assert_allclose(head.mean_shares(new).numpy(), grown.predict_proba(new.numpy()), atol=1e-6)


def test_shares_are_weights_of_copies():
    features, _ = data(n=60)
    posterior = torch.softmax(2 * torch.randn(60, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    weight = torch.rand(60, generator=torch.Generator().manual_seed(2))
    head = Few(4, 3)
    head.learn(features, posterior, weight)
    row, label = (posterior > 1e-3).nonzero(as_tuple=True)
    grown = ExtraTreesClassifier(20, random_state=0).fit(
        features.numpy()[row], label.numpy(), sample_weight=(posterior[row, label] * weight[row]).numpy()
    )
    np.testing.assert_allclose(head.mean_shares(features).numpy(), grown.predict_proba(features.numpy()), atol=1e-5)


def test_logits_are_finite_where_all_trees_agree():
    features, classes = data(n=30)
    head = Few(4, 3)
    head.learn(features, torch.nn.functional.one_hot(classes, 3).float())
    chances = head.logits(features).exp()
    torch.testing.assert_close(chances.sum(dim=1), torch.ones(30))
    # pure leaves: all of 20 trees, and a third of one
    assert float(chances.max()) == pytest.approx((20 + 1 / 3) / 21, rel=1e-5)


def test_joined_trees_are_averaged():
    features, classes = data()
    heads = [Few(4, 3) for _ in range(3)]
    for seed, head in enumerate(heads):
        head.seed = seed
        head.learn(features, torch.nn.functional.one_hot(classes, 3).float())
    new, _ = data(1)
    expected = torch.stack([head.mean_shares(new) for head in heads]).mean(dim=0)
    heads[0].join(heads[1])
    heads[0].join(heads[2])
    torch.testing.assert_close(heads[0].mean_shares(new), expected)


def test_a_class_that_does_not_occur():
    features, classes = data(k=2)
    head = Few(4, 3)
    head.learn(features, torch.nn.functional.one_hot(classes, 3).float())
    np.testing.assert_allclose(head.logits(features).exp()[:, 2], 1 / 3 / 21, rtol=1e-5)


def test_saved_and_loaded(tmp_path):
    features, classes = data()
    model = Learner(head=Few, neighbours=0).fit(features.numpy(), classes.numpy())
    again = Few(4, 3)
    again.load_state_dict(model.head_.state_dict())
    assert torch.equal(again.logits(features), model.head_.logits(features))
    whole = Learner(head="trees").fit(features.numpy()[:40], classes.numpy()[:40])
    whole.save(tmp_path / "model")
    found = Learner.load(tmp_path / "model").predict_proba(features.numpy())
    assert (found == whole.predict_proba(features.numpy())).all()


def test_learns_from_weak_labels():
    features, classes = data(n=300)
    generator = torch.Generator().manual_seed(0)
    candidates = torch.rand(300, 3, generator=generator) < 0.4
    candidates[torch.arange(300), classes] = True
    model = Learner(head=Few, neighbours=0, rounds=2).fit(features.numpy(), Candidates(candidates))
    new, truth = data(1)
    assert (model.predict(new.numpy()) == truth.numpy()).mean() > 0.75
    noisy = Noisy.simulate(classes, 3, generator=generator, transition=0.7 * torch.eye(3) + 0.1)
    model = Learner(head=Few, neighbours=0, rounds=2).fit(features.numpy(), noisy)
    assert (model.predict(new.numpy()) == truth.numpy()).mean() > 0.7
