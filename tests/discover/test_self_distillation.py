"""A cosine head that learns from its own answers."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from anygrain.discover import SelfDistillation, SemiSupervisedKMeans
from anygrain.discover import self_distillation as module
from anygrain.discover.network import ClassNetwork, CosineHead
from anygrain.discover.self_distillation import (
    EPOCHS,
    MOST_OFFSET,
    TAUGHT,
    class_mass,
    new_class_offset,
    size_variance,
)
from anygrain.discover.start import class_sums, found_by, given_said
from anygrain.encoders import Transformer
from anygrain.labels import Coarse, Exact
from tests.discover.test_network import blobs, task_of


def test_before_training_the_head_is_the_nearest_mean_direction_of_the_start():
    x, y = blobs(90, 3)
    task = task_of(x, Exact(torch.where(torch.arange(90) % 9 == 0, y, -1).clamp(max=1), 2), 3)
    start = given_said(found_by(SemiSupervisedKMeans(), task), task)
    network = SelfDistillation().network(task, start)
    directions = torch.stack([sum(start[i, k] * x[i] / x[i].norm() for i in range(90)) for k in range(3)])
    by_hand = normalize(x, dim=1).double() @ normalize(directions, dim=1).double().T / 0.1
    assert torch.allclose(network({"features": x}).double(), by_hand.log_softmax(1), atol=1e-4)
    never = SelfDistillation(epochs=0, start=SemiSupervisedKMeans(), bootstrap=0)
    found = never._find(task).model
    assert torch.equal(found({"features": x}), network({"features": x}))


def test_sums_of_classes_in_parts_are_those_of_all():
    x, _ = blobs()
    share = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(class_sums(x, share), share.T @ x, atol=1e-5)


def test_with_every_row_told_and_alpha_1_it_is_a_supervised_cosine_head():
    x, y = blobs(90, 3)
    task = task_of(x, Exact(y, 3), 3)
    start = torch.eye(3)[y]
    found, _ = SelfDistillation(supervised=1.0, balance=0.0, epochs=20, rate=3e-3).distilled(task, start)
    head = ClassNetwork(CosineHead(class_sums(normalize(x, dim=1), start)))
    before, after = (-net({"features": x})[torch.arange(90), y].mean() for net in (head, found))
    assert after < before < 1
    assert (found({"features": x}).argmax(1) == y).all()


def test_new_classes_are_raised_until_they_hold_their_share_of_all_rows_and_never_lowered():
    x, y = blobs(90, 3)
    told = torch.where(torch.arange(90) % 4 == 0, y, -1)
    told[told == 2] = -1  # the class that is new
    task = task_of(x, Exact(told, 2), 3)
    network = ClassNetwork(CosineHead(torch.randn(3, x.shape[1], generator=torch.Generator().manual_seed(0)), 1.0))
    free = told < 0

    def share(offset: float) -> float:
        logits = network.logits({"features": x}).detach() + torch.tensor([0.0, 0.0, offset])
        return logits.softmax(dim=1)[free, 2].sum().item() / 90

    wanted = (share(0) + share(MOST_OFFSET)) / 2
    assert share(new_class_offset(network, task, wanted)) == pytest.approx(wanted, abs=1e-5)
    assert new_class_offset(network, task, share(-1)) == pytest.approx(0, abs=1e-6)
    assert new_class_offset(network, task, 1.0) == pytest.approx(MOST_OFFSET)
    assert new_class_offset(network, task_of(x, None, 3), 0.5) == 0  # no class is known
    fitted, _ = SelfDistillation(start=SemiSupervisedKMeans()).distilled(task, torch.eye(3)[y])
    assert (fitted.head.offset[:2] == 0).all()
    assert fitted.head.offset[2] >= 0


def test_balance_is_0_where_the_mean_answer_is_the_class_mass_and_pulls_towards_it():
    x, _ = blobs(90, 3)
    task = task_of(x, None, 3)
    start = torch.tensor([[0.6, 0.3, 0.1]]).expand(90, 3)
    generator = torch.Generator().manual_seed(0)
    start = torch.eye(3)[torch.multinomial(start, 1, generator=generator)[:, 0]]
    weak, strong = (SelfDistillation(balance=b, epochs=30, rate=3e-3).distilled(task, start)[0] for b in (0.0, 50.0))
    mass = class_mass(task, start)

    def apart(net):
        mean = net({"features": x}).exp().mean(dim=0)
        return (mean * (mean / mass).log()).sum().item()

    assert apart(strong) < 0.05
    assert apart(strong) < apart(weak)


def test_a_batch_that_happens_to_hold_few_rows_of_a_class_is_not_held_against_it():
    x, y = blobs(600, 60, dim=30)
    task = task_of(x, None, 60)
    head = SelfDistillation(epochs=1, batch_size=60, rate=1e-8)
    _, history = head.distilled(task, torch.eye(60)[y])
    by_chance = 59 / 2 / 60  # expected divergence of the shares of 60 rows from equal ones
    assert history[0]["balance"] < by_chance / 5


@pytest.mark.parametrize("epochs", [2, 8])
def test_where_classes_are_known_the_head_first_learns_what_the_start_says(monkeypatch, epochs):
    x, y = blobs(120, 4)
    taught = []
    monkeypatch.setattr(module, "teach", lambda net, views, wanted, pace, seed: taught.append((wanted, pace.epochs)))
    start, head = torch.eye(4)[y] * 0.8 + 0.05, SelfDistillation(epochs=epochs)
    partly = Exact(torch.where((y < 3) & (torch.arange(120) < 40), y, -1), 3)
    head.distilled(task_of(x, partly, 4), start)
    assert [(torch.equal(wanted, start), number) for wanted, number in taught] == [(True, min(TAUGHT, epochs))]
    head.distilled(task_of(x, Coarse(y // 2, torch.eye(2)), {0: 2, 1: 2}), start)
    head.distilled(task_of(x, None, 4), start)
    assert len(taught) == 1  # directions alone


def test_masses_are_shrunk_as_far_as_told_rows_are_equally_many():
    x, y = blobs(400, 4)
    start = torch.eye(4)[torch.arange(400) % 10 // 3]  # 120, 120, 120, 40
    raw = (start.sum(0) + 1) / 404
    alike = torch.where((y < 3) & (torch.arange(400) < 120), y, -1)
    alike[0] = -1  # 29, 30, 30
    almost = class_mass(task_of(x, Exact(alike, 3), 4), start)
    assert (almost - 0.25).abs().max() < 0.25 * (raw - 0.25).abs().max()
    unlike = torch.full((400,), -1)
    for k, many in enumerate((80, 10, 2)):
        unlike[(y == k).nonzero().flatten()[:many]] = k
    assert torch.allclose(class_mass(task_of(x, Exact(unlike, 3), 4), start), raw.float())
    quarter = 0.25 * raw.float() + 0.75 / 4
    assert torch.allclose(class_mass(task_of(x, None, 4), start), quarter)  # nobody can say
    equal = torch.where((y < 3) & (torch.arange(400) < 120), y, -1)
    assert torch.allclose(class_mass(task_of(x, Exact(equal, 3), 4), start), quarter)


@pytest.mark.parametrize("sizes", [(120, 120, 120), (240, 60, 60), (300, 55, 5)])
def test_sizes_of_coarse_classes_show_how_unlike_classes_are(sizes):
    x, _ = blobs(360, 6)
    coarse = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    half = torch.rand(360, generator=torch.Generator().manual_seed(0)) < 0.7
    start = torch.eye(6)[2 * coarse + half]
    task = task_of(x, Coarse(coarse, torch.eye(3)), {0: 2, 1: 2, 2: 2})
    differ = torch.tensor(sizes).double() / 120 - 1
    by_hand = float((2 * differ.square()).sum() / 2) * 2  # plus the standard error, (2 / 2)^.5 of it
    assert float(size_variance(task)) == pytest.approx(by_hand)
    raw = (start.double().sum(0) + 1) / 366
    weight = min(1.0, by_hand / float(raw.var() / raw.mean() ** 2))
    above = raw.view(3, 2).sum(1, keepdim=True) / 2
    expected = weight * raw + (1 - weight) * above.expand(3, 2).flatten()
    assert torch.allclose(class_mass(task, start), expected.float())
    assert (weight == 0) == (sizes[0] == sizes[1])


@pytest.mark.parametrize("coarse", [False, True])
def test_it_finds_classes_keeps_known_ones_and_is_deterministic(coarse):
    x, y = blobs(240, 4, dim=8, seed=1)
    if coarse:
        labels, number = Coarse(y // 2, torch.eye(2)), {0: 2, 1: 2}
    else:
        labels, number = Exact(torch.where((torch.arange(240) % 5 == 0) & (y < 2), y, -1), 2), 4
    models = [SelfDistillation(start=SemiSupervisedKMeans(), seed=3, bootstrap=0) for _ in range(2)]
    first, second = (model.fit(x.numpy(), labels, number) for model in models)
    assert np.array_equal(first.log_probs_, second.log_probs_)
    truth = y.numpy()
    if coarse:
        assert np.array_equal(first.node_[first.labels_], truth // 2)
        table = [np.bincount(first.labels_[truth == k], minlength=4).max() for k in range(4)]
        assert sum(table) > 0.95 * 240
    else:
        assert (first.labels_[truth < 2] == truth[truth < 2]).mean() > 0.95
        assert first.class_names_[:2] == ("0", "1")
    assert len(first.history_) == EPOCHS


def test_an_encoder_is_trained_with_the_head():
    words = ["card lost stolen", "loan rate interest", "transfer abroad fee"]
    texts = [f"please help {words[n % 3].split()[n % 2]} {words[n % 3]} number {n // 3}" for n in range(60)]
    truth = np.arange(60) % 3
    given = torch.from_numpy(np.where((truth < 2) & (np.arange(60) % 2 == 0), truth, -1))
    encoder = Transformer(dim=16, layers=1, heads=2)
    model = SelfDistillation(start=SemiSupervisedKMeans(), encoder=encoder, epochs=4, batch_size=20, bootstrap=0)
    model.fit(texts, Exact(given, 2), 3)
    assert model.predict(texts).shape == (60,)
    assert (model.labels_[truth < 2] == truth[truth < 2]).mean() > 0.9
    before = Transformer(dim=16, layers=1, heads=2)
    before.learn(texts, seed=0)
    moved = [not torch.equal(a, b) for a, b in zip(model.model_.encoder.parameters(), before.parameters(), strict=True)]
    assert any(moved)
