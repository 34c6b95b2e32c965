"""Candidates with prototypes and contrast against loops; features of instances from labels of sets."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from anygrain.bags import (
    INS,
    BagData,
    SetContrast,
    candidate_classes,
    moved_prototypes,
    pretrain_on_sets,
    weakly_supervised_contrast,
)
from anygrain.encoders.bags import BagEncoder, InstanceEncoder
from anygrain.labels import AnyOf, Bags, Candidates, Exact, LabelError
from anygrain.learn import Learner, Step
from anygrain.learn.learner import load


def unit(n, d=3, seed=0):
    return nn.functional.normalize(
        torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1
    )


def test_contrast_is_the_double_loop():
    query, pool = unit(4), torch.cat([unit(4), unit(5, seed=1)])
    classes, pool_classes = torch.tensor([0, 1, 0, 2]), torch.tensor([0, 1, 0, 2, 0, 1, 1, 0, 1])
    total = 0.0
    for i in range(4):
        others = [j for j in range(9) if j != i]
        below = sum(math.exp(float(query[i] @ pool[j]) / 0.2) for j in others)
        same = [j for j in others if pool_classes[j] == classes[i]]
        of = [-math.log(math.exp(float(query[i] @ pool[j]) / 0.2) / below) for j in same]
        total += sum(of) / max(len(of), 1)
    found = weakly_supervised_contrast(query, pool, classes, pool_classes, 0.2)
    assert float(found) == pytest.approx(total / 4, abs=1e-10)


def test_prototypes_move_vector_by_vector():
    start, vectors, classes = unit(2, seed=2), unit(7, seed=3), torch.tensor([0, 1, 1, 0, 1, 1, 1])
    expected = start.clone()
    for vector, c in zip(vectors, classes.tolist(), strict=True):
        expected[c] = 0.9 * expected[c] + 0.1 * vector
    torch.testing.assert_close(moved_prototypes(start, vectors, classes), nn.functional.normalize(expected, dim=1))


def test_candidates_are_what_evidence_leaves_possible():
    bags = Bags.from_ids(torch.tensor([0, 0, 1, 1, 2]))
    found = candidate_classes(AnyOf(bags, torch.tensor([1, 0, 1]), 1, 2))
    assert found.tolist() == [[True, True]] * 2 + [[True, False]] * 2 + [[False, True]]
    table = torch.tensor([[True, False, True], [True, True, True]])
    assert candidate_classes(Candidates(table)).tolist() == table.tolist()


def task(seed=0, n_bags=60, size=8):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n_bags * size, 5)), np.zeros(n_bags * size, dtype=int)
    for b in range(1, n_bags, 2):
        chosen = b * size + rng.choice(size, 2, replace=False)
        x[chosen, 0] += 4
        y[chosen] = 1
    labels = AnyOf(Bags.from_ids(torch.arange(n_bags * size) // size), torch.arange(n_bags) % 2, 1, 2)
    return x, y, labels


def test_ins_finds_the_instances():
    from sklearn.metrics import roc_auc_score

    x, y, labels = task()
    procedure = INS(epochs=15, batch_size=64, width=16)
    model = Learner(head="mlp", procedure=procedure, seed=0).fit(x, labels)
    assert roc_auc_score(y, model.predict_proba(x)[:, 1]) > 0.95
    assert procedure.pseudo_[y == 1, 1].mean() > 0.5 > 0.2 > procedure.pseudo_[y == 0, 1].mean()
    negative = torch.repeat_interleave(torch.arange(60) % 2 == 0, 8)
    assert (procedure.pseudo_[negative, 1] == 0).all()


def test_ins_refuses_in_one_line():
    x, _, labels = task(n_bags=6)
    for bad in (
        lambda: Learner(procedure=INS(epochs=1)).fit(x, labels),
        lambda: Learner(head="mlp", procedure=INS(epochs=1), terms=[SetContrast()]).fit(x, labels),
        lambda: Learner(head="mlp", procedure=INS(epochs=1)).fit(x, np.arange(len(x)) % 2),
        lambda: INS(warm_up=1.0),
    ):
        with pytest.raises(LabelError) as caught:
            bad()
        assert "\n" not in str(caught.value)


def sets(seed=0, m=80, a=5):
    """Instances of four kinds; a set is told which of two coarse classes most of its instances are."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 4, size=(m, a))
    x = rng.normal(size=(m, a, 6)) + 3 * np.eye(6)[kinds]
    return BagData.from_arrays(list(x)), (np.mean(kinds // 2, axis=1) > 0.5).astype(int), kinds


@pytest.mark.parametrize("contrast", [0.0, 0.5])
def test_set_labels_teach_an_encoder_of_instances(tmp_path, contrast):
    data, w, kinds = sets()
    encoder = pretrain_on_sets(data, Exact(w, 2), hidden=16, contrast=contrast, epochs=10, batch_size=16)
    assert isinstance(encoder, InstanceEncoder)
    few = np.arange(0, 400, 10)
    model = Learner(encoder=encoder, head="prototype", seed=0).fit(data.features[few], kinds.reshape(-1)[few])
    assert np.mean(model.predict(data.features) == kinds.reshape(-1)) > 0.6
    model.save(tmp_path / "m")
    np.testing.assert_allclose(
        load(tmp_path / "m").predict_proba(data.features), model.predict_proba(data.features), atol=1e-6
    )


def test_the_instance_encoder_is_the_layer_of_the_bag_encoder():
    data, w, _ = sets(m=20)
    encoder = Learner(encoder=BagEncoder("mean", hidden=8), seed=0, epochs=1).fit(data, Exact(w, 2)).encoder_.eval()
    rows = data.read(torch.arange(20))
    torch.testing.assert_close(InstanceEncoder.of(encoder)(data.features), encoder.seen(rows).detach())


def test_set_contrast_needs_two_of_a_label():
    term = SetContrast(temperature=0.5)
    term.projection = nn.Identity()
    features = unit(3).float()
    apart = Step(torch.zeros(3, 3), features, torch.eye(3), torch.arange(3), 0)
    assert float(term(apart)) == 0
    alike = Step(torch.zeros(3, 3), features, torch.eye(3)[[0, 0, 1]], torch.arange(3), 0)
    said = [0, 0, 1]
    expected = weakly_supervised_contrast(features, features, torch.tensor(said), torch.tensor(said), 0.5)
    assert float(term(alike)) == pytest.approx(float(expected))


def test_encoders_that_cannot_show_instances_are_refused():
    for bad in (
        lambda: InstanceEncoder.of(BagEncoder("mean")),
        lambda: InstanceEncoder(5, 4)(np.zeros((3, 4))),
        lambda: SetContrast(temperature=0.0),
    ):
        with pytest.raises(LabelError):
            bad()
