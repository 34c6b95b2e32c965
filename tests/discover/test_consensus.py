"""A head from the best of several starts."""

import numpy as np
import pytest
import torch

from anygrain.discover import SelfDistillation
from anygrain.discover.best_start import CHANCE, PROBE, BestStart
from anygrain.discover.self_distillation import class_mass, size_variance
from anygrain.encoders import Transformer
from anygrain.labels import Coarse, Exact
from tests.discover.test_network import blobs, task_of


def partly(classes=8, known=6, n=320):
    x, y = blobs(n, classes, dim=10, seed=2)
    return x, y, torch.where((y < known) & (torch.arange(n) // classes % 3 == 0), y, -1)


def test_the_start_whose_classes_say_most_of_the_rows_is_chosen():
    x, y, told = partly()
    starts = ("mixture", "ss-kmeans", "ward")
    model = BestStart(starts=starts, epochs=4, bootstrap=0).fit(x.numpy(), Exact(told, 6), 8)
    for name in starts:
        probe = SelfDistillation(start=name, epochs=PROBE, bootstrap=0).fit(x.numpy(), Exact(told, 6), 8)
        entropy = model.information_[name] + probe.history_[-1]["distillation"]
        assert 0.9 * np.log(8) < entropy <= np.log(8) + 1e-6
    close = [name for name in starts if model.information_[name] >= max(model.information_.values()) - CHANCE]
    assert model.start_ == close[0]
    assert model.start_ in model.why_
    alone = SelfDistillation(start=model.start_, epochs=4, bootstrap=0).fit(x.numpy(), Exact(told, 6), 8)
    assert np.array_equal(model.log_probs_, alone.log_probs_)
    assert (model.labels_[y < 6] == y[y < 6].numpy()).mean() > 0.95


def test_with_one_start_it_is_self_distillation():
    x, _, told = partly()
    model = BestStart(epochs=2, starts=["ss-kmeans"], bootstrap=0).fit(x.numpy(), Exact(told, 6), 8)
    alone = SelfDistillation(start="ss-kmeans", epochs=2, bootstrap=0).fit(x.numpy(), Exact(told, 6), 8)
    assert np.array_equal(model.log_probs_, alone.log_probs_)


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


def test_classes_are_looked_for_again_from_the_start_that_was_chosen(monkeypatch):
    x, _, told = partly()
    asked = []
    find = SelfDistillation._find
    monkeypatch.setattr(SelfDistillation, "_find", lambda self, task: asked.append(self.start) or find(self, task))
    model = BestStart(starts=["mixture", "ss-kmeans"], epochs=2, bootstrap=3).fit(x.numpy(), Exact(told, 6), 8)
    assert asked == [model.start_] * 3
    assert model.stability_[:6].min() > 0.75


def test_an_encoder_is_trained_from_the_chosen_start():
    words = ["card lost stolen", "loan rate interest", "transfer abroad fee"]
    texts = [f"please help {words[n % 3].split()[n % 2]} {words[n % 3]} number {n // 3}" for n in range(60)]
    truth = np.arange(60) % 3
    given = torch.from_numpy(np.where((truth < 2) & (np.arange(60) % 2 == 0), truth, -1))
    model = BestStart(
        starts=["ward", "ss-kmeans"],
        epochs=3,
        encoder=Transformer(dim=16, layers=1, heads=2),
        bootstrap=0,
    ).fit(texts, Exact(given, 2), 3)
    assert model.model_.encoder is not None
    assert model.predict(texts).shape == (60,)
    assert (model.labels_[truth < 2] == truth[truth < 2]).mean() > 0.9
