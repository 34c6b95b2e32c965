"""Masked hard instances: what is masked is counted, the teacher is the average, no masks is the model alone."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from anygrain.bags.hard_instances import MaskedHardInstances, masked_instances, mhim
from anygrain.data.bag_data import BagData
from anygrain.encoders.bags import BagEncoder
from anygrain.encoders.bags.recycle import Recycle
from anygrain.labels import Exact, LabelError
from anygrain.learn import Learner, Term
from anygrain.learn.learner import load


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 20, 57, 200])
@pytest.mark.parametrize(
    ("random", "low", "high", "part"), [(0.5, 0, 0.01, 0.5), (0.7, 0.2, 0.02, 1.0), (0, 0, 0.3, 1)]
)
def test_counts_are_those_of_the_formulas(n, random, low, high, part):
    sizes = torch.tensor([n, 3, n])
    score = torch.rand(2 * n + 3, generator=generator(n))
    of_bag = slice(n + 3, None)

    def masked(**how):
        return masked_instances(score, sizes, generator(), **how)[of_bag]

    assert int(masked(random=random).sum()) == math.floor(random * n)
    lowest = masked(low=low)
    assert int(lowest.sum()) == math.floor(low * n)
    if lowest.any():
        assert score[of_bag][lowest].max() <= score[of_bag][~lowest].min()
    if high:
        highest = masked(high=high, part=part)
        count = int(highest.sum())
        assert count in {min(f(high * n), n - 1) for f in (math.floor, math.ceil)}
        top = score[of_bag].topk(min(math.ceil(count / part), n)).indices
        assert set(highest.nonzero()[:, 0].tolist()) <= set(top.tolist())
    union = masked(random=random, low=low, high=high, part=part)
    assert int(union.sum()) < n  # one stays
    assert int(union.sum()) >= min(n - 1, math.floor(max(random, low) * n))


@pytest.mark.parametrize(("n", "high", "part"), [(10, 0.03, 1.0), (10, 0.03, 0.5), (35, 0.08, 0.5)])
def test_small_bags_lose_their_highest_as_often_as_the_share_says(n, high, part):
    m = 4000
    sizes = torch.full((m,), n)
    score = torch.arange(m * n).double() % n
    masked = masked_instances(score, sizes, generator(), high=high, part=part).view(m, n).double()
    assert float(masked.sum(1).mean()) == pytest.approx(high * n, abs=0.03)
    reach = math.ceil(math.ceil(high * n) / part)
    assert (masked[:, : n - reach] == 0).all()
    if math.ceil(high * n) == 1:  # each of those that may go goes as often
        np.testing.assert_allclose(masked[:, n - reach :].mean(0), high * n / reach, atol=0.03)


def test_recycled_tokens_are_cross_attention_and_keep_bags_apart():
    torch.manual_seed(0)
    module = Recycle(8, tokens=3, heads=2, keep=0.9).double()
    hidden = torch.randn(9, 8, dtype=torch.float64)
    sizes = torch.tensor([4, 2, 3])
    masked = torch.tensor([1, 1, 0, 1, 0, 0, 0, 1, 0]).bool()
    coords = torch.arange(18, dtype=torch.float64).view(9, 2)
    before = module.queries.clone()
    mixed, after, places = module(hidden, sizes, coords, masked)
    assert after.tolist() == [1 + 3, 2, 2 + 3]
    torch.testing.assert_close(mixed[0], hidden[2])
    torch.testing.assert_close(mixed[4:6], hidden[4:6])
    torch.testing.assert_close(places[1], coords[[0, 1, 3]].mean(0))
    seen = module.norm(hidden[[0, 1, 3]])
    query = module.ask(module.norm(before)).view(3, 2, 4).transpose(0, 1)
    key, value = (layer(seen).view(3, 2, 4).transpose(0, 1) for layer in (module.show, module.tell))
    expected = nn.functional.scaled_dot_product_attention(query, key, value).transpose(0, 1).reshape(3, 8)
    torch.testing.assert_close(mixed[1:4], module.out(expected))
    assert module.queries.grad is None
    torch.testing.assert_close(module.queries, 0.9 * before + 0.1 * mixed_mean(module, hidden, before, masked))
    mixed.sum().backward()
    assert module.ask.weight.grad.abs().sum() > 0


def test_tokens_of_all_instances_stand_beside_them_when_the_model_answers():
    torch.manual_seed(0)
    encoder = BagEncoder("attention", hidden=8, recycle=2, recycle_all=True, feature_count=5)
    encoder.build()
    encoder.eval()
    arrays = {"features": torch.randn(7, 5), "sizes": torch.tensor([3, 4]), "coords": torch.rand(7, 2)}
    found = encoder.pool(arrays)
    hidden = encoder.seen(arrays)
    for bag, part in enumerate((slice(0, 3), slice(3, 7))):
        n = part.stop - part.start
        tokens = encoder.recycle.tokens(hidden[part], torch.tensor([n]))[0]
        alone = encoder.aggregator(torch.cat([hidden[part], tokens]), torch.tensor([n + 2]))
        torch.testing.assert_close(found.bag[bag], alone.bag[0])
        torch.testing.assert_close(found.attention[part], alone.attention[:n] / alone.attention[:n].sum())
    torch.testing.assert_close(found.instances, hidden)
    again = BagEncoder(**encoder.config())
    assert again.recycle_all


def mixed_mean(module, hidden, queries, masked):
    now = module.queries.clone()
    module.queries.copy_(queries)
    found = module.tokens(hidden[masked], torch.tensor([3, 1])).mean(0).detach()
    module.queries.copy_(now)
    return found


@pytest.fixture(scope="module")
def bags():
    rng = np.random.default_rng(0)
    arrays, y = [], []
    for m in range(120):
        features = rng.normal(size=(rng.integers(4, 12), 6)).astype(np.float32)
        if m % 2:
            features[: rng.integers(1, 4), 0] += 4
        arrays.append(rng.permutation(features))
        y.append(m % 2)
    return BagData.from_arrays(arrays), np.array(y)


@pytest.mark.parametrize("version", [1, 2])
def test_it_learns_bags_and_the_teacher_follows(bags, version):
    data, y = bags
    given = mhim(version, random=0.1, warm_up=2, momentum=0.9, encoder={"hidden": 16})
    model = Learner(**given, seed=0, epochs=20, batch_size=16, learning_rate=0.01).fit(data, Exact(y, 2))
    assert np.mean(model.predict(data) == y) > 0.85
    term = given["terms"][0]
    student, teacher = term.student[0], term.teacher
    apart = [float((a - b).norm() / b.norm()) for a, b in zip(teacher.parameters(), student.parameters(), strict=True)]
    assert 0 < np.median(apart) < 0.5  # moved with the student, behind it
    assert all(p.grad is None for p in teacher.parameters())


def test_a_teacher_is_the_moving_average(bags):
    data, y = bags
    term = MaskedHardInstances(momentum=0.75)
    learner = Learner(encoder=BagEncoder("attention", hidden=8), seed=0, epochs=1, batch_size=16)
    learner.fit(data, Exact(y, 2))
    term.on_fit_start(learner)
    weights = learner.encoder_.enter.weight
    expected = weights.detach().clone()
    for step in range(5):
        with torch.no_grad():
            weights.add_(0.1 * (step + 1))
        term.after_step(None)
        expected = 0.75 * expected + 0.25 * weights.detach()
    torch.testing.assert_close(term.teacher.enter.weight, expected)


def test_scores_of_one_instance_are_the_classifier(bags):
    data, y = bags
    learner = Learner(encoder=BagEncoder("attention", hidden=8), seed=0, epochs=1, batch_size=16).fit(data, Exact(y, 2))
    term = MaskedHardInstances("class", random=0.0, high=0.5, part=1.0, warm_up=0, teacher=learner)
    term.on_fit_start(learner)
    one = {"features": torch.randn(1, 6), "sizes": torch.tensor([1])}
    assert len(term.masks(one, generator())["features"]) == 1
    bag = learner.encoder_.eval().pool(one).bag  # the attention of one instance is 1
    expected = (bag @ learner.head_.weight.T).softmax(1).max()
    assert float(term.scores(one)) == pytest.approx(float(expected), abs=1e-6)


def test_version_2_takes_the_highest_away_and_masks_some_of_the_rest(bags):
    data, y = bags
    learner = Learner(encoder=BagEncoder("attention", hidden=8), seed=0, epochs=1, batch_size=16).fit(data, Exact(y, 2))
    term = MaskedHardInstances("class", random=0.5, high=0.2, part=1.0, target=1, teacher=learner)
    term.on_fit_start(learner)
    arrays = {"features": torch.randn(30, 6), "sizes": torch.tensor([10, 20]), "coords": torch.arange(60).view(30, 2)}
    score = term.scores(arrays)
    left = term.masks(arrays, generator())
    gone = torch.cat([score[:10].topk(2).indices, 10 + score[10:].topk(4).indices])
    stays = torch.tensor([i for i in range(30) if i not in gone.tolist()])
    assert left["sizes"].tolist() == [8, 16]
    torch.testing.assert_close(left["features"], arrays["features"][stays])
    torch.testing.assert_close(left["coords"], arrays["coords"][stays])
    assert left["masked"][:8].sum() == 4
    assert left["masked"][8:].sum() == 8


def test_a_trained_teacher_is_taken_over_and_gives_its_first_layer(bags, tmp_path):
    data, y = bags
    how = {"seed": 0, "epochs": 2, "batch_size": 16}
    teacher = Learner(encoder=BagEncoder("attention", hidden=8), **how).fit(data, Exact(y, 2))
    given = mhim(2, teacher=teacher, momentum=0.9, encoder={"hidden": 8})
    term = given["terms"][0]
    assert term.warm_up == 0
    other = Learner(encoder=BagEncoder("attention", hidden=8, recycle=5), **{**how, "seed": 1}).fit(data, Exact(y, 2))
    term.on_fit_start(other)
    arrays = data.read(torch.arange(5))
    torch.testing.assert_close(term.teacher.eval().pool(arrays).bag, teacher.encoder_.eval().pool(arrays).bag)
    torch.testing.assert_close(other.encoder_.enter.weight, teacher.encoder_.enter.weight)
    assert not torch.equal(other.encoder_.aggregator.value.weight, teacher.encoder_.aggregator.value.weight)
    model = Learner(**given, **how).fit(data, Exact(y, 2))
    model.save(tmp_path / "m")
    np.testing.assert_allclose(load(tmp_path / "m").predict_proba(data), model.predict_proba(data), atol=1e-6)
    for bad in (Learner(encoder=BagEncoder("attention", hidden=4), **how).fit(data, Exact(y, 2)), Learner()):
        with pytest.raises(LabelError, match="teacher does not fit"):
            Learner(**mhim(1, teacher=bad, encoder={"hidden": 8}), **how).fit(data, Exact(y, 2))


class Nothing(Term):
    def forward(self, step):
        return step.features.sum() * 0


def test_nothing_masked_and_no_consistency_is_the_base_model(bags):
    data, y = bags
    encoder = BagEncoder("attention", hidden=8, dropout=0.0)
    plain = Learner(encoder=encoder, augmentation=None, terms=[Nothing()], seed=0, epochs=3, batch_size=16)
    off = mhim(1, random=0.0, high=0.0, alpha=0.0, warm_up=0, encoder={"hidden": 8, "dropout": 0.0})
    first, second = (m.fit(data, Exact(y, 2)) for m in (plain, Learner(**off, seed=0, epochs=3, batch_size=16)))
    np.testing.assert_allclose(first.predict_proba(data), second.predict_proba(data), atol=1e-5)


def test_high_masks_fade():
    term = MaskedHardInstances(high=0.1, warm_up=2, decays_over=8)
    shares = []
    for epoch in (2, 6, 10, 30):
        term.on_epoch_start(epoch)
        shares.append(term.share_of_high())
    np.testing.assert_allclose(shares, [0.1, 0.05, 0, 0], atol=1e-12)


def test_bad_input_is_one_line(bags):
    data, y = bags
    for bad in (
        lambda: MaskedHardInstances("best"),
        lambda: MaskedHardInstances(random=1.0),
        lambda: MaskedHardInstances(part=0.0),
        lambda: mhim(3),
        lambda: Learner(**mhim(1, "deep_sets"), epochs=1).fit(data, Exact(y, 2)),
        lambda: Learner(terms=[MaskedHardInstances()], epochs=1).fit(np.eye(4), np.array([0, 1, 0, 1])),
    ):
        with pytest.raises(LabelError) as caught:
            bad()
        assert "\n" not in str(caught.value)
