"""Sub-pseudo labels: cells partition rows, reductions meet at their limits, names of classes do not matter."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from anygrain.labels import Exact, LabelError, Noisy, Soft
from anygrain.learn import Learner
from anygrain.robust.sub_pseudo_labels import REST, SubPseudoLabels, clean_and_weak, sub_pseudo_labels

GENERATOR = torch.Generator().manual_seed(0)
WEAK = torch.randint(4, (300,), generator=GENERATOR)
GUESS = torch.where(torch.rand(300, generator=GENERATOR) < 0.5, WEAK, torch.randint(4, (300,), generator=GENERATOR))


def cells(found):
    """Sets of rows by sub-label."""
    return {frozenset((found.labels == s).nonzero()[:, 0].tolist()) for s in range(len(found.table))}


def test_the_grid_is_all_pairs_that_occur():
    found = sub_pseudo_labels(WEAK, GUESS, 4)
    for i in range(300):
        assert found.table[found.labels[i]].tolist() == [int(WEAK[i]), int(GUESS[i])]
    assert torch.equal(found.counts, torch.bincount(found.labels))
    assert int(found.counts.sum()) == 300
    assert found.coverage() == 1.0


def test_agreement_has_two_labels_per_class():
    found = sub_pseudo_labels(WEAK, GUESS, 4, reduce="agreement")
    assert len(found.table) == 8
    for i in range(300):
        expected = [int(WEAK[i]), int(WEAK[i]) if WEAK[i] == GUESS[i] else REST]
        assert found.table[found.labels[i]].tolist() == expected
    assert found.coverage() == pytest.approx(float((WEAK == GUESS).float().mean()))


def test_density_is_between_the_two():
    grid, agreement = sub_pseudo_labels(WEAK, GUESS, 4), sub_pseudo_labels(WEAK, GUESS, 4, reduce="agreement")
    assert torch.equal(sub_pseudo_labels(WEAK, GUESS, 4, reduce="density", pairs=12).labels, grid.labels)
    assert torch.equal(sub_pseudo_labels(WEAK, GUESS, 4, reduce="density", pairs=0).labels, agreement.labels)
    five = sub_pseudo_labels(WEAK, GUESS, 4, reduce="density", pairs=5)
    pairs = five.table[(five.table[:, 1] != REST) & (five.table[:, 0] != five.table[:, 1])]
    matrix = torch.zeros(4, 4, dtype=torch.long).index_put((WEAK, GUESS), torch.ones(300, dtype=torch.long), True)
    off = sorted((int(matrix[a, b]) for a in range(4) for b in range(4) if a != b), reverse=True)
    assert sorted((int(matrix[a, b]) for a, b in pairs.tolist()), reverse=True) == off[:5]


def test_perfect_agreement_or_one_class_gives_the_weak_labels():
    for how in ("grid", "agreement", "density"):
        assert torch.equal(sub_pseudo_labels(WEAK, WEAK, 4, reduce=how).labels, WEAK)
        zero = torch.zeros(5, dtype=torch.long)
        assert torch.equal(sub_pseudo_labels(zero, zero, 1, reduce=how).labels, zero)


def test_the_numbering_of_classes_does_not_matter_and_pairs_may_be_joined():
    order = torch.tensor([3, 1, 0, 2])
    for how in ("grid", "agreement"):
        here, there = (sub_pseudo_labels(w, g, 4, reduce=how) for w, g in ((WEAK, GUESS), (order[WEAK], order[GUESS])))
        assert cells(here) == cells(there)
    found = sub_pseudo_labels(WEAK, GUESS, 4, symmetric=True)
    swapped = sub_pseudo_labels(GUESS, WEAK, 4, symmetric=True)
    assert torch.equal(found.labels, swapped.labels)
    assert len(found.table) == 10


def test_many_classes_need_no_table_of_all_pairs():
    weak = torch.arange(1000) * 999_983 % 1_000_000
    found = sub_pseudo_labels(weak, weak.flip(0), 1_000_000)
    assert len(found.table) == 1000


X, Y = load_digits(return_X_y=True)
X = X / 16


def test_clean_and_weak_rows_are_told_apart():
    clean = torch.tensor([0, -1, -1, 2])
    noisy = torch.tensor([1, 1, -1, 2])
    exact, weak = clean_and_weak(Exact(clean, 3) & Noisy(noisy, 3), torch.float64)
    assert exact.tolist() == [0, -1, -1, 2]
    assert weak.tolist() == [-1, 1, -1, -1]


@pytest.mark.parametrize("options", [{}, {"reduce": "grid", "distill": 0.5}, {"rounds": 2, "balance": 0.5}])
def test_the_procedure_learns_from_few_clean_and_many_weak_rows(options):
    generator = np.random.default_rng(0)
    clean = np.full(900, -1)
    clean[:100] = Y[:100]
    wrong = generator.random(900) < 0.3
    weak = np.where(wrong, (Y[:900] + 1) % 10, Y[:900])
    weak[:100] = -1
    procedure = SubPseudoLabels(epochs=8, **options)
    labels = Exact(torch.tensor(clean), 10) & Noisy(torch.tensor(weak), 10)
    model = Learner(head="mlp", procedure=procedure).fit(X[:900], labels)
    assert model.score(X[900:], Y[900:]) > 0.8
    assert torch.equal(procedure.weak_rows_, torch.arange(100, 900))
    assert torch.equal(procedure.sub_labels_.table[procedure.sub_labels_.labels, 0], torch.tensor(weak[100:]))


def test_a_teacher_of_ones_own_that_agrees_makes_the_weak_labels_the_classes():
    clean = torch.tensor(np.where(np.arange(200) < 50, Y[:200], -1))
    weak = torch.tensor((Y[:200] + np.arange(200) % 2) % 10)
    procedure = SubPseudoLabels("grid", teacher=torch.eye(10)[weak], epochs=1)
    Learner(head="mlp", procedure=procedure).fit(X[:200], Exact(clean, 10) & Noisy(weak, 10))
    assert torch.equal(procedure.sub_labels_.labels, weak[50:])


def test_refusals_are_one_line():
    with pytest.raises(LabelError, match="expected rows with exact labels and others with weak ones"):
        Learner(head="mlp", procedure=SubPseudoLabels()).fit(X[:50], Y[:50])
    soft = Soft(torch.eye(10)[Y[:50]] * 0.8 + 0.02)
    both = soft & Exact(torch.tensor(np.where(np.arange(50) < 20, Y[:50], -1)), 10)
    with pytest.raises(LabelError, match='head="mlp"'):
        Learner(procedure=SubPseudoLabels()).fit(X[:50], both)
    with pytest.raises(LabelError, match="probabilities have shape"):
        Learner(head="mlp", procedure=SubPseudoLabels(teacher=torch.eye(10))).fit(X[:50], both)
    with pytest.raises(LabelError, match='reduce is "none"'):
        SubPseudoLabels("none")
    with pytest.raises(LabelError, match="outside 0"):
        sub_pseudo_labels(WEAK, GUESS, 3)
