"""How many classes: right where they are plain, within bounds everywhere, and below every coarse class."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from anygrain.discover.class_number import Belief, Part, Reading, class_number, levelled, shared_out, top
from anygrain.discover.evidence import Evidence
from anygrain.discover.known_share import known_share
from anygrain.discover.repeated import Curves, agreement, curves, silhouette
from anygrain.discover.task import read_task
from anygrain.labels import Coarse, Exact


def blobs(sizes, dim=10, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(len(sizes)).repeat(sizes)
    return (6 * rng.normal(size=(len(sizes), dim))[y] + rng.normal(size=(len(y), dim))).astype(np.float32), y


def found(x, labels, n_classes=None, seed=0):
    task, _ = read_task(x, labels, n_classes, encoder=None, train=False, seed=seed, device=torch.device("cpu"))
    per_node, interval = class_number(task)
    return per_node.tolist(), interval


@pytest.mark.parametrize("k", [3, 8, 20])
def test_plain_classes_are_counted(k):
    x, _ = blobs([60] * k)
    (number,), (low, high) = found(x, None)
    assert abs(number - k) <= 0.15 * k
    assert low <= k <= high
    assert high < 3 * k


def test_classes_of_unequal_size_are_counted():
    x, _ = blobs([30, 60, 120, 240, 30, 60])
    (number,), (low, high) = found(x, None)
    assert number in (5, 6, 7)
    assert low <= 6 <= high


def test_known_classes_and_bounds_are_kept():
    x, y = blobs([60] * 6)
    labels = Exact(torch.from_numpy(np.where((y < 4) & (np.arange(len(y)) % 5 == 0), y, -1)), 4)
    (number,), (low, high) = found(x, labels)
    assert number == 6
    assert 4 <= low <= 6 <= high <= 9
    (number,), (low, high) = found(x, labels, (7, 9))
    assert 7 <= low <= number <= high <= 9


def test_told_rows_find_many_new_classes_that_lie_in_few_rows():
    x, y = blobs([20] * 60, dim=12)
    told = (y < 30) & (np.arange(len(y)) % 3 == 0)
    (number,), (low, high) = found(x, Exact(torch.from_numpy(np.where(told, y, -1)), 30))
    assert abs(number - 60) <= 6
    assert low <= 60 <= high


def test_every_coarse_class_has_its_number_and_one_without_structure_stays_whole():
    x, y = blobs([80] * 6)
    whole = np.random.default_rng(1).normal(size=(80, 10)).astype(np.float32) - 30
    node = np.concatenate([np.where(y < 4, 0, 1), np.full(80, 2)])
    labels = Coarse(torch.from_numpy(node), torch.eye(3))
    numbers, (low, high) = found(np.concatenate([x, whole]), labels)
    assert numbers == [4, 2, 1]
    assert low <= 7 <= high
    assert sum(found(np.concatenate([x, whole]), labels, 12)[0]) == 12


def test_coarse_classes_of_few_rows_follow_the_others():
    parts = [Part(400, 1, 50, np.log(8), 0.5, []), Part(200, 1, 50, np.log(4), 0.5, []), Part(50, 1, 50, 2.0, 1.0, [])]
    read = levelled(parts)
    assert np.exp([one.log for one in read]) == pytest.approx([8, 4, 1])
    assert read[2].error == pytest.approx(read[0].error)
    alone = levelled([Part(400, 1, 50, np.log(8), 0.1, [])])
    assert alone[0].log == pytest.approx(np.log(8))
    noisy, sure = (levelled([Part(400, 1, 50, np.log(32), w, []), parts[1]])[0].log for w in (0.1, 1.0))
    assert noisy < sure == pytest.approx(np.log(32))


def test_the_top_of_the_curves():
    numbers = np.arange(2, 10)
    once = np.where(numbers == 5, 1.0, 0.0)
    log, repeated = top(Curves(numbers, np.ones(8), once, 2.0, []), below=True)
    assert repeated == 1
    assert np.exp(log) == pytest.approx(5, abs=0.01)
    weaker = top(Curves(numbers, np.ones(8), once / 2, 2.0, []), below=True)
    assert weaker == pytest.approx((log - 0.45, 0.5))
    assert top(Curves(numbers, np.ones(8), once / 10, 1.0, []), below=True) == (0, 1)  # one Gaussian
    assert top(Curves(numbers, np.ones(8), once / 10, 1.0, []), below=False)[1] == pytest.approx(0.1)


def test_plain_clusters_come_back_and_those_of_a_gaussian_do_not():
    x, _ = blobs([80] * 4)
    z = torch.from_numpy(x)[torch.randperm(320, generator=torch.Generator().manual_seed(0))]
    read = curves(z, [2, 4, 8], torch.Generator().manual_seed(0), 320)
    assert read.repeated[1] > 0.95
    assert read.silhouette.argmax() == 1
    assert read.above_gaussian > 1.5
    z = torch.randn(600, 6, generator=torch.Generator().manual_seed(0))
    read = curves(z, [2, 4, 8, 16], torch.Generator().manual_seed(0), 600)
    assert read.repeated.mean() < 0.2
    assert read.above_gaussian == pytest.approx(1, abs=0.2)


def test_silhouette_is_that_of_the_library():
    from sklearn.metrics import silhouette_score

    z = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    label = torch.arange(50) % 4
    label[0] = 5  # alone, and cluster 4 is empty
    expected = silhouette_score(z.numpy(), label.numpy())
    assert silhouette(torch.cdist(z, z), label, 6) == pytest.approx(expected, abs=1e-9)
    assert silhouette(torch.cdist(z, z), torch.zeros(50, dtype=torch.long), 3) == 0


def test_agreement_with_told_rows():
    y = torch.tensor([0, 0, 1, 1, 2, 2, -1])
    right, wrong = np.array([0, 0, 1, 1, 2, 2, 2]), np.array([0, 1, 0, 1, 0, 1, 0])
    told = Evidence.read(Exact(y, 3), 7, split=False).sure_known()
    assert agreement(told, [wrong, right]) == pytest.approx([-0.25, 1], abs=0.2)


@pytest.mark.parametrize(("known", "every"), [(10, 2), (15, 10), (5, 5)])
def test_the_share_of_known_classes(known, every):
    x, y = blobs([100] * 20)
    rng = np.random.default_rng(0)
    told = np.full(len(y), -1)
    for one in range(known):
        told[rng.permutation(np.flatnonzero(y == one))[: 100 // every]] = one
    read = known_share(torch.from_numpy(x), torch.from_numpy(told), torch.Generator().manual_seed(0))
    assert read.share == pytest.approx(known / 20, rel=0.15)
    assert abs(np.log(read.share * 20 / known)) < 3 * read.error + 0.02


def test_the_share_of_known_classes_does_not_fall_where_classes_mix():
    """Of half of the rows the class says nothing: they lie in the place of any class."""
    x, place = blobs([200] * 12, seed=3)
    rng = np.random.default_rng(0)
    y = np.where(rng.random(len(place)) < 0.5, rng.integers(12, size=len(place)), place)
    told = np.where((y < 6) & (rng.random(len(y)) < 0.3), y, -1)
    read = known_share(torch.from_numpy(x), torch.from_numpy(told), torch.Generator().manual_seed(0))
    assert read.share == pytest.approx(0.5, rel=0.25)


def test_no_share_where_no_class_has_two_told_rows():
    x, y = blobs([50] * 4)
    told = np.full(len(y), -1)
    told[[0, 50, 100]] = [0, 1, 2]
    assert known_share(torch.from_numpy(x), torch.from_numpy(told), torch.Generator().manual_seed(0)) is None


def test_readings_are_taken_together_and_cut_off():
    free = Belief.of([Reading(np.log(10), 0.3), Reading(np.log(40), 0.3)], 1, 10**9)
    assert free.quantile(0.5) == pytest.approx(20)
    half = norm.ppf(0.95) * 0.3 / np.sqrt(2)
    assert free.quantile(0.95) == pytest.approx(20 * np.exp(half))
    assert Belief.of([Reading(0.0, 0.1), Reading(1.0, 1e9)], 1, 9).mean == pytest.approx(0)
    cut = Belief.of([Reading(np.log(10), 0.3)], 10, 1000)
    assert cut.quantile(0.0) == 10 < cut.quantile(0.5) < cut.quantile(0.99) < 30
    assert Belief.of([Reading(np.log(10), 0.01)], 50, 60).quantile(0.5) == 50
    assert Belief.of([Reading(np.log(1000), 0.01)], 50, 60).quantile(0.5) == 60
    assert Belief.of([Reading(0.0, 0.5)], 7, 7).quantile(0.3) == 7


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(1, 5), st.integers(5, 60)), min_size=1, max_size=6), st.data()
)
def test_shares_sum_to_the_total_within_bounds(parts, data):
    wished, floor, held = (torch.tensor(column) for column in zip(*parts, strict=True))
    wished = wished.maximum(floor)
    total = data.draw(st.integers(int(floor.sum()), int(held.sum())))
    got = shared_out(wished, floor, held, total)
    assert int(got.sum()) == total
    assert (got >= floor).all()
    assert (got <= held).all()
    if int(wished.sum()) == total and bool((wished <= held).all()):
        assert (got - wished).abs().max() <= 1
