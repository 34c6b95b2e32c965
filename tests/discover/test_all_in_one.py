"""Known and unknown in one softmax, soft contrast, and what becomes of rejected rows."""

import math

import numpy as np
import pytest
import torch

from anygrain.discover import AllInOne
from anygrain.discover.acceptance import accepted, divided, joined
from anygrain.discover.all_in_one import (
    AllInOneNetwork,
    all_in_one_loss,
    decision_loss,
    either,
    log_all_in_one,
    pair_entropy,
    soft_contrast,
    squares,
    student_kernel,
    two_views,
)
from anygrain.discover.network import Views
from anygrain.discover.task import fixed_features
from anygrain.encoders import Transformer
from anygrain.labels import Coarse, Exact
from anygrain.metrics import hungarian_accuracy
from tests.discover.test_network import blobs, task_of

GENERATOR = torch.Generator().manual_seed(0)
OUT = torch.randn(7, 2, 5, generator=GENERATOR, dtype=torch.float64)
CLASS = torch.tensor([0, 4, 2, 2, 1, 3, 0])


def test_all_outputs_are_one_softmax():
    o = log_all_in_one(OUT).exp()
    assert torch.allclose(o.sum(dim=(1, 2)), torch.ones(7, dtype=torch.float64))
    higher = OUT.clone()
    higher[0, 1, 3] += 2  # accepting class 3 lowers what rejects any class
    assert (log_all_in_one(higher)[0, 0] < log_all_in_one(OUT)[0, 0]).all()


def test_the_loss_by_hand_and_with_the_highest_classes_alone():
    def by_hand(out, y, classes):
        o = {(r, c): float(out[r, c]) for r in range(2) for c in classes}
        total = sum(math.exp(v) for v in o.values())
        o = {key: math.exp(v) / total for key, v in o.items()}
        positive = -math.log(o[1, y])
        negative = max(-math.log(o[0, c]) for c in classes if c != y)
        apart = max(o[1, c] for c in classes) - max(o[0, c] for c in classes)
        return (positive + negative - 1.4 * math.log(1 / (1 + math.exp(-apart)))) / 3

    full = np.mean([by_hand(out, int(y), range(5)) for out, y in zip(OUT, CLASS, strict=True)])
    assert float(all_in_one_loss(OUT, CLASS, 1.4, 5)) == pytest.approx(full, abs=1e-9)
    assert float(all_in_one_loss(OUT, CLASS, 1.4, 20)) == pytest.approx(full, abs=1e-9)
    some = []
    for out, y in zip(OUT, CLASS.tolist(), strict=True):
        best = sorted((c for c in range(5) if c != y), key=lambda c: -float(out[1, c]))[:2]
        some.append(by_hand(out, y, [y, *best]))
    assert float(all_in_one_loss(OUT, CLASS, 1.4, 3)) == pytest.approx(np.mean(some), abs=1e-9)
    assert torch.isfinite(all_in_one_loss(OUT[:, :, :1], CLASS * 0, 1.4, 20))


def test_the_decision_and_the_entropy_of_pairs_by_hand():
    o = log_all_in_one(OUT).exp()
    new = torch.linspace(0, 1, 7, dtype=torch.float64)
    value = -(new * o[:, 0].sum(1).log() + (1 - new) * o[:, 1].sum(1).log()).mean()
    assert torch.allclose(decision_loss(OUT, new), value)
    assert float(pair_entropy(torch.zeros(3, 2, 4))) == pytest.approx(math.log(2))
    assert float(pair_entropy(torch.tensor([[[50.0], [-50.0]]]))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("nu", [1.0, 10.0, 100.0])
def test_similarities_are_below_one_and_fall(nu):
    d = torch.linspace(0, 50, 100, dtype=torch.float64)
    k = student_kernel(d, nu, 2.0)
    gamma = math.gamma((nu + 1) / 2) / (math.sqrt(nu * math.pi) * math.gamma(nu / 2)) if nu < 100 else None
    if gamma is not None:
        assert float(k[7]) == pytest.approx(2 * math.pi * gamma**2 * (1 + float(d[7]) / 2 / nu) ** -(nu + 1))
    assert 0 < float(k[-1]) < float(k[0]) <= 1
    assert (k.diff() < 0).all()


def test_similarities_of_two_views_by_a_double_loop():
    x = torch.randn(5, 3, generator=GENERATOR, dtype=torch.float64)
    p = either(student_kernel(two_views(squares(x), 10.0), 100.0, 2.0))
    apart = [[float((a - b).square().sum()) for b in x] for a in x]
    near = [min(apart[i][j] for j in range(5) if j != i) / 10 for i in range(5)]
    for i in range(10):
        for j in range(10):
            d = 0.0 if i == j else apart[i % 5][j % 5] + near[i % 5] * (i >= 5) + near[j % 5] * (j >= 5)
            k = float(student_kernel(torch.tensor(d, dtype=torch.float64), 100.0, 2.0))
            assert float(p[i, j]) == pytest.approx(2 * k - k * k, abs=1e-9)
    assert torch.allclose(p, p.T)
    assert 0 <= float(p.min()) <= float(p.max()) <= 1
    same = two_views(squares(x), 1e12)  # both views at one place
    assert torch.allclose(same[:5, 5:], same[:5, :5], atol=1e-9)
    assert torch.allclose(same[5:, 5:], same[:5, :5], atol=1e-9)


def test_soft_contrast_is_least_where_both_similarities_agree():
    q = torch.rand(20, generator=GENERATOR, dtype=torch.float64).clamp(0.05, 0.95).requires_grad_()
    p = q.detach()
    (-(p * q.log() + (1 - p) * (1 - q).log())).sum().backward()
    assert torch.allclose(q.grad, torch.zeros_like(q), atol=1e-9)
    x = torch.randn(12, 4, generator=GENERATOR)
    like = soft_contrast(x, x, x, sigma=1.0, input_nu=10.0)
    other = soft_contrast(x, x[torch.randperm(12, generator=GENERATOR)], x, sigma=1.0, input_nu=10.0)
    assert like < other


def test_unlike_rows_are_kept_apart_by_the_contrast():
    # with a wide kernel most pairs are taken to be alike, and one place for all rows has the lower loss
    x = torch.randn(24, 30, generator=GENERATOR, dtype=torch.float64)
    one_place = 0.1 * torch.randn(24, 8, generator=GENERATOR, dtype=torch.float64)
    apart = 5 * torch.randn(24, 8, generator=GENERATOR, dtype=torch.float64)
    assert soft_contrast(x, apart, apart) < 0.5 * soft_contrast(x, one_place, one_place)


def test_every_domain_is_normalised_by_itself_in_training():
    network = AllInOneNetwork(6, 3, 16, None).train()
    x = torch.nn.functional.normalize(torch.randn(40, 6, generator=GENERATOR), dim=1)
    moved = 0.3 * x + torch.linspace(-1, 1, 6)
    together = network.project(torch.cat([x, moved]))
    assert torch.allclose(network.project(x), network.project(moved), atol=1e-2)
    assert not torch.allclose(together[:40], together[40:], atol=1e-1)


def test_the_classifier_sees_the_space_of_the_contrast():
    network = AllInOneNetwork(6, 3, 16, None).eval()
    x = torch.randn(5, 6, generator=GENERATOR)
    z = network.project(x)
    known, none = network.scores(x)
    log_o = log_all_in_one(network.pairs(z))
    assert torch.allclose(known, log_o[:, 1])
    assert torch.allclose(none, log_o[:, 0].max(dim=1).values)
    z.retain_grad()
    network.pairs(z)[:, 1].sum().backward()
    assert bool((z.grad != 0).any())


def test_rows_of_the_source_are_little_changed(monkeypatch):
    x, y = blobs(90, 3)
    told = torch.where((y < 2) & (torch.arange(90) % 2 == 0), y, -1)
    look, of_source = Views.__call__, []

    def lost(self, rows, generator):
        weak, strong = look(self, rows, generator)
        if bool((told[rows] >= 0).all()):
            of_source.append(len(rows))
            strong = {"features": torch.full_like(strong["features"], torch.nan)}
        return weak, strong

    monkeypatch.setattr(Views, "__call__", lost)
    found = AllInOne(device="cpu", bootstrap=0, steps=5).fit(x.numpy(), Exact(told, 2), 3)
    assert len(of_source) >= 5
    assert np.isfinite([moment["loss"] for moment in found.history_]).all()


def test_one_row_of_the_target_is_enough():
    x, y = blobs(60, 3)
    told = torch.where(torch.arange(60) == int((y == 2).nonzero()[0]), -1, y)
    kept = (y < 2) | (told < 0)
    found = AllInOne(device="cpu", bootstrap=0, steps=3, start=None).fit(x[kept], Exact(told[kept], 2), 3)
    assert np.isfinite(found.history_[-1]["loss"])


def test_a_new_class_wins_where_no_known_one_accepts():
    known, unknown = torch.tensor([[-1.0, -2.0], [-1.0, -2.0]]), torch.tensor([-1.5, -0.5])
    found = joined(known, unknown, torch.tensor([[0.0, 3.0], [-9.0, -8.0]]))
    assert found.argmax(dim=1).tolist() == [0, 3]
    assert torch.allclose(found.exp().sum(dim=1), torch.ones(2))
    assert torch.equal(joined(known, unknown, known[:, :0]), known.log_softmax(dim=1))


def test_acceptance_obeys_what_is_said():
    x, y = blobs(90, 3)
    told = torch.where((y < 2) & (torch.arange(90) % 5 == 0), y, -1)
    task = task_of(x, Coarse(y.clamp(max=1), torch.eye(2)) & Exact(told, 2), {0: 1, 1: 2})
    high, low = torch.zeros(90, 2), torch.full((90,), -5.0)
    assert torch.equal(accepted(task, high, low), y.clamp(max=1))  # of its coarse class, whatever the scores
    choice = accepted(task, high - 9, low)
    assert (choice[y == 0] == 0).all()  # no class is new there
    assert (choice[told == 1] == 1).all()
    assert (choice[(y > 0) & (told < 0)] == -1).all()
    assert (accepted(task_of(x, Exact(y, 3), 3), torch.zeros(90, 3), low + 9) == y).all()


def test_rejected_rows_are_divided_and_accepted_ones_stay():
    x, y = blobs(120, 4)
    task = task_of(x, Exact(torch.where(torch.arange(120) % 12 == 0, 0, -1), 1), 4)
    choice = torch.where(y == 0, 0, -1)
    task = task_of(x, Exact(torch.where((torch.arange(120) % 8 == 0) & (y == 0), 0, -1), 1), 4)
    centre = divided(task, x, choice).centre
    assert torch.allclose(centre[0], x[y == 0].mean(0), atol=1e-4)
    means = torch.stack([x[y == k].mean(0) for k in range(1, 4)])
    assert float(torch.cdist(means, centre[1:]).min(dim=1).values.max()) < 0.1


def test_the_test_rule_of_the_network_and_no_threshold():
    x, y = blobs(160, 4)
    told = torch.where((y < 2) & (torch.arange(160) % 3 == 0), y, -1)
    found = AllInOne(device="cpu", bootstrap=0, steps=150).fit(x, Exact(told, 2), 4)
    assert isinstance(found.model_, AllInOneNetwork)
    known, none = found.model_.scores(found.model_.embed({"features": fixed_features(found.encoder_, x)}))
    assert ((found.predict(x) >= 2) == (none >= known.max(dim=1).values).numpy()).all()
    assert (found.unknown_ == (y >= 2).numpy()).mean() > 0.95
    assert hungarian_accuracy(found.labels_, y, 2).new > 0.95
    published = AllInOne(device="cpu", bootstrap=0, steps=150, start=None, through=True).fit(x, Exact(told, 2), 4)
    assert "start" not in published.history_[-1]
    assert (published.labels_[told >= 0] == told[told >= 0].numpy()).all()


def test_an_encoder_is_trained_with_the_classes():
    words = ["cat purr", "dog bark", "owl hoot"]
    texts = [f"please help {words[n % 3].split()[n % 2]} {words[n % 3]} number {n // 3}" for n in range(60)]
    truth = np.arange(60) % 3
    told = torch.from_numpy(np.where((truth < 2) & (np.arange(60) % 2 == 0), truth, -1))
    encoder = Transformer(dim=16, layers=1, heads=2)
    found = AllInOne(start="ss-kmeans", encoder=encoder, steps=20, batch_size=20, bootstrap=0, device="cpu")
    found.fit(texts, Exact(told, 2), 3)
    assert found.predict(texts).shape == (60,)
    assert (found.labels_[told >= 0] == truth[told >= 0]).all()
    before = Transformer(dim=16, layers=1, heads=2)
    before.learn(texts, seed=0)
    after = found.model_.encoder.parameters()
    assert any(not torch.equal(a, b) for a, b in zip(after, before.parameters(), strict=True))
