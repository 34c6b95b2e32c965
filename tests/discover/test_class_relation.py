"""Class-relation distillation: limits, identities, and that known classes stay known."""

import pytest
import torch

from anygrain.discover.class_relation import (
    ClassRelationDistillation,
    JointHeads,
    relation_loss,
    relation_weight,
    targets,
)
from anygrain.labels import Exact

G = torch.Generator().manual_seed(0)
T = 4.0


def test_weights_have_mean_one_and_rank_by_known_mass() -> None:
    joint = 10 * torch.randn(20, 7, generator=G, dtype=torch.float64)
    weight = relation_weight(joint, 3, T)
    mass = (joint / T).softmax(dim=1)[:, :3].sum(dim=1)
    assert float(weight.mean()) == pytest.approx(1)
    assert torch.allclose(weight / mass, (weight / mass)[0].expand(20))


def test_at_the_teacher_the_loss_is_its_weighted_entropy_and_rests() -> None:
    joint = 10 * torch.randn(9, 7, generator=G, dtype=torch.float64)
    teacher = joint[:, :3].clone()
    relation = (teacher / T).softmax(dim=1)
    entropy = -(relation * relation.log()).sum(dim=1)
    weight = relation_weight(joint, 3, T)
    assert float(relation_loss(teacher, joint, T)) == pytest.approx(float(T**2 * (weight * entropy).mean()), abs=1e-9)
    student = joint[:, :3].clone().requires_grad_()
    loss = T**2 * (weight * -(relation * (student / T).log_softmax(dim=1)).sum(dim=1)).mean()
    loss.backward()
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-12


def test_gradient_through_the_weight() -> None:
    joint = torch.randn(4, 5, generator=G, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 2, generator=G, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: relation_loss(teacher, x, T), joint)


def test_a_weight_with_gradient_draws_the_surest_rows_to_known_classes() -> None:
    teacher = torch.tensor([[9.0, 0, 0], [1.0, 0, 0]], dtype=torch.float64)  # sure of the first row
    joint = torch.cat([teacher, torch.zeros(2, 2, dtype=torch.float64)], dim=1)
    slopes = {}
    for gradient in (True, False):
        student = joint.clone().requires_grad_()
        relation_loss(teacher, student, T, gradient).backward()
        assert student.grad is not None
        slopes[gradient] = student.grad
    assert float(slopes[False].abs().max()) < 1e-12  # at the teacher it rests
    new = slopes[True][:, 3:]
    assert bool((new[0] > 1e-3).all())  # down go the logits of new classes of the surer row,
    assert bool((new[1] < -1e-3).all())  # up those of the other


def test_targets() -> None:
    logits = 10 * torch.randn(2, 30, 5, generator=G).clamp(-1, 1)
    told = torch.arange(30) < 6
    table = torch.zeros(30, 5)
    table[:6] = -1e4
    table[torch.arange(6), torch.arange(6) % 3] = 0
    found = targets(logits, told, table, 3)
    assert torch.allclose(found.sum(dim=2), torch.ones(2, 30), atol=1e-5)
    assert torch.allclose(found[:, torch.arange(6), torch.arange(6) % 3], torch.ones(2, 6))
    assert float(found[:, 6:, :3].abs().max()) == 0  # rows without a class are of new ones
    everywhere = targets(logits, told, table, 0)[:, 6:]
    assert float(everywhere[..., :3].max()) > 0
    even = targets(torch.zeros(1, 12, 4), torch.zeros(12).bool(), torch.zeros(12, 4), 0)
    assert torch.allclose(even, torch.full((1, 12, 4), 0.25))


def test_the_chosen_head_is_read() -> None:
    joint = JointHeads(None, 4, 3, 2, (5,)).eval()
    x = torch.randn(6, 4, generator=G)
    joint.choose(1)
    assert torch.equal(joint(x), joint.all(x)[1])
    assert not torch.equal(joint.all(x)[0], joint.all(x)[1])


def test_new_classes_are_found_and_known_ones_stay() -> None:
    label = torch.arange(4).repeat_interleave(60)
    x = torch.randn(240, 8, generator=G) * 0.3 + 3 * torch.eye(8)[label]
    told = torch.where(label < 2, label, -1)
    found = ClassRelationDistillation(only_new=True, epochs=15, batch_size=120, bootstrap=0, seed=1).fit(
        x, Exact(told, 2), 4
    )
    labels = torch.from_numpy(found.labels_)
    assert bool((labels[label < 2] == label[label < 2]).all())
    assert sorted({tuple(labels[label == c].unique().tolist()) for c in (2, 3)}) == [(2,), (3,)]
    assert (found.predict(x.numpy()) == found.labels_).mean() > 0.95
    assert found.teacher_ is not None
    alone = ClassRelationDistillation(relation=0, epochs=2, bootstrap=0).fit(x, None, 4)
    assert alone.teacher_ is None
    assert all("relation" not in step for step in alone.history_)
