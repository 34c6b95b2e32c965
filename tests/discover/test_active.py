"""Asking while classes are found: names, their places, and what is asked."""

import numpy as np
import pytest
import torch

from anygrain.discover import ActiveDiscovery, SemiSupervisedKMeans
from anygrain.discover.active import class_map
from anygrain.labels import Coarse, Exact, LabelError
from anygrain.metrics import hungarian_accuracy
from tests.discover.test_network import blobs

X, Y = blobs(240, 6)
TOLD = torch.where((Y < 3) & (torch.arange(240) % 4 == 0), Y, -1)
NAMES = np.array(["a", "b", "c", "d", "e", "f"])


def fitted(**settings):
    labels = Exact(TOLD, 3, class_names=["a", "b", "c"])
    return ActiveDiscovery(method=SemiSupervisedKMeans(), device="cpu", **settings).fit(X, labels, 6)


def oracle(rows):
    return list(NAMES[Y.numpy()[rows]])


def test_every_new_class_is_asked_about_alike_and_no_row_twice():
    found = fitted()
    first = found.query(9)
    assert np.bincount(found.labels_[first], minlength=6).tolist() == [0, 0, 0, 3, 3, 3]
    found.tell(first, oracle(first))
    second = found.query(12)
    assert not set(first) & set(second)
    assert (TOLD[torch.from_numpy(second)] < 0).all()


def test_a_name_makes_a_class_known_and_it_keeps_its_index():
    found = fitted()
    of_f = int((Y == 5).nonzero()[0])
    found.tell([of_f], ["f"])
    assert found.class_names_ == ("a", "b", "c", "f", "new 1", "new 2")
    assert found.known_.tolist() == [True] * 4 + [False] * 2
    assert found.labels_[of_f] == 3
    of_d = int((Y == 3).nonzero()[0])
    found.tell([of_d], ["d"])
    assert found.class_names_ == ("a", "b", "c", "f", "d", "new 1")
    assert found.label_map_[:4].tolist() == [0, 1, 2, 3]
    assert (found.labels_[of_f], found.labels_[of_d]) == (3, 4)
    assert ((found.labels_ == TOLD.numpy()) | (TOLD.numpy() < 0)).all()


def test_an_oracle_that_names_everything_gives_all_names_their_classes():
    found = fitted().ask(oracle, rounds=2, n=6)
    assert set(found.class_names_) == set(NAMES)
    assert np.mean(np.array(found.class_names_)[found.labels_] == NAMES[Y.numpy()]) > 0.95
    assert found.rounds_[0]["coverage"] == 1
    assert found.rounds_[0]["uniformity"] == pytest.approx(np.log(3))
    assert len(found.asked_) == 12
    rest = found.query(4)  # no class is new any more
    assert len(rest) == 4


def test_a_name_beyond_the_number_adds_a_class():
    found = ActiveDiscovery(method=SemiSupervisedKMeans(), device="cpu").fit(X, Exact(TOLD, 3), 4)
    rows = [int((k == Y).nonzero()[0]) for k in (3, 4, 5)]
    found.tell(rows, ["d", "e", "f"])
    assert found.n_classes_ == 6
    assert found.labels_[rows].tolist() == [3, 4, 5]


def test_names_under_coarse_classes_stay_there():
    labels = Coarse(Y // 3, torch.eye(2), class_names=["low", "high"])
    found = ActiveDiscovery(method=SemiSupervisedKMeans(), device="cpu").fit(X, labels, {"low": 3, "high": 3})
    found.ask(oracle, rounds=1, n=12)
    name = dict(zip(found.class_names_, found.node_, strict=True))
    assert all(name[n] == i // 3 for i, n in enumerate(NAMES) if n in name)
    assert (found.node_[found.labels_] == (Y // 3).numpy()).all()
    assert hungarian_accuracy(found.labels_, Y).all > 0.95


def test_a_map_of_classes_is_the_permutation_of_them():
    order = torch.tensor([0, 1, 4, 2, 5, 3])
    assert torch.equal(class_map(Y, order[Y], 2, 6), order)
    assert torch.equal(class_map(Y, Y, 0, 6), torch.arange(6))


def test_by_default_a_network_finds_the_classes():
    found = ActiveDiscovery(device="cpu").fit(X, Exact(TOLD, 3), 6)
    assert not found.finds_number
    rows = found.query(6)
    found.tell(rows, oracle(rows))
    assert hungarian_accuracy(found.labels_, Y, 3).new > 0.9


@pytest.mark.parametrize(
    ("rows", "names", "says"),
    [
        ([1, 2], ["a"], "2 rows and 1 names"),
        ([240], ["a"], "row 240 was told, the data has rows 0 to 239"),
        ([5, 5], ["a", "b"], "row 5 was told twice"),
        ([int((TOLD == 0).nonzero()[0])], ["b"], 'told to be "b", and was "a" before'),
    ],
)
def test_what_cannot_be_told_is_named(rows, names, says):
    with pytest.raises(LabelError, match=says):
        fitted().tell(rows, names)
