"""How many classes: right where they are plain, within bounds everywhere, and below every coarse class."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.discover.class_number import NumberFound, agreement, class_number, eigengap, shared_out, top
from anygrain.discover.evidence import Evidence
from anygrain.discover.task import read_task
from anygrain.labels import Coarse, Exact


def blobs(k, per_class=60, dim=10, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(k).repeat(per_class)
    return (5 * rng.normal(size=(k, dim))[y] + rng.normal(size=(len(y), dim))).astype(np.float32), y


def found(x, labels, n_classes=None, seed=0):
    task, _ = read_task(x, labels, n_classes, encoder=None, train=False, seed=seed, device=torch.device("cpu"))
    per_node, interval = class_number(task)
    return per_node.tolist(), interval


@pytest.mark.parametrize("k", [3, 8, 20])
def test_plain_classes_are_counted(k):
    x, _ = blobs(k)
    (number,), (low, high) = found(x, None)
    assert abs(number - k) <= max(1, 0.15 * k)
    assert low <= k <= high


def test_known_classes_and_bounds_are_kept():
    x, y = blobs(6)
    labels = Exact(torch.from_numpy(np.where((y < 4) & (np.arange(len(y)) % 5 == 0), y, -1)), 4)
    (number,), (low, high) = found(x, labels)
    assert number in (5, 6, 7)
    (number,), (low, high) = found(x, labels, (7, 9))
    assert 7 <= low <= number <= high <= 9


def test_every_coarse_class_has_its_number_and_one_without_structure_stays_whole():
    x, y = blobs(6, per_class=80)
    whole = np.random.default_rng(1).normal(size=(80, 10)).astype(np.float32) - 30
    node = np.concatenate([np.where(y < 4, 0, 1), np.full(80, 2)])
    labels = Coarse(torch.from_numpy(node), torch.eye(3))
    numbers, (low, high) = found(np.concatenate([x, whole]), labels)
    assert numbers == [4, 2, 1]
    assert low <= 7 <= high
    assert sum(found(np.concatenate([x, whole]), labels, 12)[0]) == 12


def test_readers_of_a_curve():
    assert top([2, 4, 8], np.array([0.0, 1.0, 0.5])) == pytest.approx(4)
    assert top([2, 4, 8], np.array([0.0, 1.0, 0.95])) == pytest.approx(np.sqrt(32))
    x, _ = blobs(5)
    assert eigengap(torch.from_numpy(x), 2, 9, 0) == 5
    assert eigengap(torch.from_numpy(x), 7, 7, 0) == 7


def test_told_rows_are_asked_where_there_are_enough():
    y = torch.tensor([0, 0, 1, 1, 2, 2, -1])
    right, wrong = torch.tensor([0, 0, 1, 1, 2, 2, 2]), torch.tensor([0, 1, 0, 1, 0, 1, 0])
    curve = agreement(Evidence.read(Exact(y, 3), 7, split=False), [wrong, right])
    assert curve[1] == pytest.approx(1)
    assert curve[0] < 0.2
    assert agreement(Evidence.read(Exact(y.clamp(max=1), 3), 7, split=False), [right]) is None


def test_interval_by_how_far_the_readers_differ():
    low, high = NumberFound(20, {"a": 10.0, "b": 40.0}).interval()
    assert low * high == pytest.approx(400)
    assert low < 10
    assert NumberFound(20, {"a": 20.0, "b": 20.0}).interval() == pytest.approx(
        (20 * np.exp(-0.328), 20 * np.exp(0.328))
    )
    assert NumberFound(1, {"one Gaussian": 1.0}).interval() == (1, 1)


PART = st.tuples(st.integers(1, 30), st.integers(1, 5), st.integers(5, 60))  # wished, floor, held


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
