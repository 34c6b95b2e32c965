"""FoPro: decisions by hand, prototypes of unit length, limits, and that it cleans."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from anygrain.labels import Exact, LabelError, Noisy
from anygrain.learn import Learner
from anygrain.robust.few_shot_prototypes import (
    DROP,
    KEEP,
    RELABEL,
    TRUSTED,
    FewShotPrototypes,
    clean,
    densities,
    foreign_rows,
    prototype_distance,
    updated,
)

X, Y = load_digits(return_X_y=True)
X = X / 16


def unit_rows(n, d=6, seed=0):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=1)


def test_decisions_by_hand():
    belief = torch.tensor(
        [[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.5, 0.4, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8], [0.9, 0.05, 0.05]]
    )
    given, trusted = torch.tensor([0, 1, 1, 2, 0, -1]), torch.tensor([0, 0, 0, 0, 1, 0]).bool()
    found = clean(belief, given, trusted, 0.6)
    assert found.decision.tolist() == [KEEP, RELABEL, KEEP, DROP, TRUSTED, DROP]
    assert found.label.tolist() == [0, 0, 1, -1, 0, -1]
    assert torch.allclose(found.score, torch.tensor([0.9, 0.05, 0.4, 0.1, 0.1, 0.0]))
    also = torch.tensor([0, 1, 0, 1, 0, 1]).bool()
    assert clean(belief, given, trusted, 0.6, also=also).decision.tolist() == [KEEP, RELABEL, KEEP, KEEP, TRUSTED, DROP]
    table = found.table()
    assert table[1] == {
        "row": 1,
        "given": 1,
        "label": 0,
        "decision": "relabel",
        "score": table[1]["score"],
        "highest": table[1]["highest"],
    }


def test_prototypes_keep_unit_length_and_momentum_one_leaves_them():
    c, z = unit_rows(3), unit_rows(7, seed=1)
    y = torch.tensor([0, 0, 1, 0, 1, 0, 0])
    moved = updated(c, z, y, 0.9)
    assert torch.allclose(moved.norm(dim=1), torch.ones(3, dtype=torch.float64))
    assert torch.equal(moved[2], c[2])
    by_hand = 0.9 * c[1] + 0.1 * (z[2] + z[4]) / 2
    assert torch.allclose(moved[1], by_hand / by_hand.norm())
    assert torch.allclose(updated(c, z, y, 1.0), c)
    order = torch.randperm(7)
    assert torch.allclose(updated(c, z[order], y[order], 0.9), moved)


def test_densities_and_distance_by_loops():
    c, z, y = unit_rows(4), unit_rows(9, seed=1), torch.tensor([0, 0, 1, 1, 1, 2, 2, 0, 1])
    found = densities(z, y, c, torch.full((4,), 0.3, dtype=torch.float64))
    for k in range(3):
        rows = [i for i in range(9) if y[i] == k]
        expected = sum(float((z[i] - c[k]).norm()) for i in rows) / (len(rows) * np.log(len(rows) + 10))
        assert float(found[k]) == pytest.approx(expected)
    assert float(found[3]) == 0.3
    distance = prototype_distance(z, y, c)
    for i in range(9):
        own = int(y[i])
        expected = 0.5 * abs(float(z[i] @ c[own]) - 1)
        expected += 0.5 * sum(abs(float(z[i] @ c[k]) - float(c[own] @ c[k])) for k in range(4) if k != own)
        assert float(distance[i]) == pytest.approx(expected)
    assert torch.allclose(prototype_distance(c, torch.arange(4), c), torch.zeros(4, dtype=torch.float64), atol=1e-12)


def noisy(share, n=700, seed=0):
    """Four trusted rows per class, and the rest with a share of wrong labels."""
    generator = np.random.default_rng(seed)
    exact = np.full(n, -1)
    for c in range(10):
        exact[np.flatnonzero(Y[:n] == c)[:4]] = c
    wrong = (generator.random(n) < share) & (exact < 0)
    weak = np.where(wrong, (Y[:n] + generator.integers(1, 10, n)) % 10, Y[:n])
    weak[exact >= 0] = -1
    return Exact(torch.tensor(exact), 10) & Noisy(torch.tensor(weak), 10), wrong, exact >= 0


def test_many_wrong_labels_are_found_and_replaced():
    labels, _, trusted = noisy(0.4, n=500)
    procedure = FewShotPrototypes(epochs=12)
    model = Learner(head="mlp", procedure=procedure).fit(X[:500], labels)
    found = procedure.decisions_
    kept = (found.label >= 0).numpy() & ~trusted
    purity = (found.label.numpy()[kept] == Y[:500][kept]).mean()
    assert purity > 0.6 + 0.2
    assert torch.equal(found.label[trusted], torch.tensor(Y[:500][trusted]))
    assert set(found.decision[trusted].tolist()) == {TRUSTED}
    assert model.score(X[500:], Y[500:]) > 0.8
    assert torch.allclose(procedure.prototypes_.norm(dim=1), torch.ones(10), atol=1e-5)


def test_right_labels_are_left_alone():
    labels, _, trusted = noisy(0.0)
    procedure = FewShotPrototypes(epochs=12, relation=False)
    procedure.finds_temperature = True  # one run is enough here
    Learner(head="mlp", procedure=procedure).fit(X[:700], labels)
    same = (procedure.decisions_.label.numpy() == Y[:700])[~trusted]
    assert same.mean() >= 0.95


def test_alpha_one_cleans_by_the_head_alone():
    labels, _, trusted = noisy(0.3, n=300)
    procedure = FewShotPrototypes(epochs=6, alpha=1.0, relation=False, density=True, mixup=0)
    model = Learner(head="mlp", procedure=procedure).fit(X[:300], labels)
    belief = model.head_(torch.tensor(model.transform(X[:300]))).detach().exp().max(dim=1).values
    rest = torch.tensor(~trusted)
    assert torch.allclose(procedure.decisions_.highest[rest], belief[rest], atol=1e-4)


def test_refusals_are_one_line():
    few = Exact(torch.tensor(np.where(Y[:50] == 3, 3, -1)), 10) & Noisy(torch.tensor(Y[:50]), 10)
    with pytest.raises(LabelError, match="class 0 has no trusted row"):
        Learner(procedure=FewShotPrototypes()).fit(X[:50], few)
    with pytest.raises(LabelError, match="alpha is 2"):
        FewShotPrototypes(alpha=2)
    with pytest.raises(LabelError, match="momenta"):
        FewShotPrototypes(momentum=2)


def test_foreign_rows_by_hand():
    error = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 4096.0, 300.0, 200.0], dtype=torch.float64)
    agreed = torch.tensor([1, 1, 1, 1, 1, 0, 0, 0]).bool()  # logs are 0..4 times log 2; median 2, deviations 2 1 0 1 2
    border = 4.0 * 2 ** (1.4826 * 4)  # 244
    assert foreign_rows(error, agreed, 4.0).tolist() == [e > border for e in error.tolist()]
    assert border == pytest.approx(244, abs=1)
    assert not foreign_rows(error, torch.zeros(8, dtype=torch.bool), 0.1).any()
    # the scale of errors does not matter
    assert torch.equal(foreign_rows(1e-3 * error, agreed, 4.0), foreign_rows(error, agreed, 4.0))


def test_rows_of_no_class_are_dropped():
    """Blurred digits, some with their pixels in random order."""
    labels, _, trusted = noisy(0.3)
    padded = np.pad(X[:700].reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    blurred = np.mean([padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)], axis=0).reshape(-1, 64)
    x = np.where(trusted[:, None], X[:700], blurred)
    junk = (np.arange(700) % 6 == 5) & ~trusted
    x[junk] = np.random.default_rng(0).permuted(x[junk], axis=1)
    procedure = FewShotPrototypes(epochs=20, relation=False, mixup=0, contrast=0)
    procedure.finds_temperature = True  # one run is enough here
    Learner(head="mlp", procedure=procedure).fit(x, labels)
    gone = (procedure.decisions_.decision == DROP).numpy()
    assert gone[junk].mean() > 0.7
    assert gone[~junk].mean() < 0.06


def test_a_head_without_a_hidden_layer_learns_a_projection_of_the_features():
    labels, *_ = noisy(0.3)
    procedure = FewShotPrototypes(epochs=10, contrast=0, density=True, learning_rate=0.01)
    model = Learner(procedure=procedure).fit(X[:700], labels)
    assert model.score(X[700:], Y[700:]) > 0.75
    assert torch.allclose(procedure.prototypes_.norm(dim=1), torch.ones(10), atol=1e-5)
