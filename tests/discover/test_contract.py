"""What every method keeps, whatever it does: known classes, coarse ones, numbers, pairs, seeds, memory, bad input."""

import inspect
import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.utils._python_dispatch import TorchDispatchMode

from anygrain.discover import Discover
from anygrain.discover.methods import METHODS, method
from anygrain.labels import Coarse, Exact, LabelError, Pairs
from anygrain.metrics import hungarian_accuracy

NAMES = [name for name in METHODS if name != "auto"]
PER_CLASS = 30
APART = 6.0
SHORT = 3  # epochs where it does not matter how good the classes are


def blobs(n_classes=6, dim=8, seed=0, apart=APART):
    """Rows of classes far apart: (N, D), (N,); the places are fixed, the rows are drawn by the seed."""
    place = apart * np.random.default_rng(7).normal(size=(n_classes, dim))
    y = np.arange(n_classes).repeat(PER_CLASS)
    return (place[y] + np.random.default_rng(seed).normal(size=(len(y), dim))).astype(np.float32), y


X, Y = blobs()
NODE = np.array([0, 0, 0, 1, 1, 2])  # of every class
COARSE = Coarse(torch.from_numpy(NODE[Y]), torch.eye(3), class_names=["cats", "dogs", "owls"])
TOLD = np.where((Y < 4) & (np.arange(len(Y)) % 3 == 0), Y, -1)
PARTLY = Exact(torch.from_numpy(TOLD), 4, class_names=["a", "b", "c", "d"])


#: settings with which a method learns classes that are far apart in few rows, and is quick
LIGHT = {
    "acol": {"epochs": 200},
    "all-in-one": {"steps": 300},
    "coding-rate": {"start_epochs": 20, "epochs": 20, "hidden": 64},
    "gedi": {"start_epochs": 20, "epochs": 20, "steps": 3, "hidden": (64,)},
    "gpc": {"epochs": 20},
    "sub-prototypes": {"epochs": 20, "per_item": 8, "kept": 2},
}


def one(name, epochs=None, **settings):
    """The method with light settings, two starts, and so many epochs and steps where it has settings for that."""
    of = method(name)
    has = inspect.signature(of.__init__).parameters
    light = {key: 40 for key in has if key.endswith("epochs")} | ({"starts": 2} if "starts" in has else {})
    light |= LIGHT.get(name, {})
    if epochs is not None:
        light |= {key: epochs for key in light if key.endswith("epochs") or key == "steps"}
    return of(**{"bootstrap": 0, "device": "cpu", **light, **settings})


@pytest.fixture(scope="module", params=NAMES)
def partly(request):
    return request.param, one(request.param).fit(X, PARTLY, 6)


@pytest.fixture(scope="module", params=NAMES)
def coarse(request):
    return request.param, one(request.param).fit(X, COARSE, {"cats": 3, "dogs": 2, "owls": 1})


def test_known_classes_keep_index_name_and_their_rows(partly):
    _, found = partly
    assert found.n_classes_ == 6
    assert found.class_names_[:4] == ("a", "b", "c", "d")
    assert found.class_names_[4:] == ("new 1", "new 2")
    assert found.known_.tolist() == [True] * 4 + [False] * 2
    assert (found.labels_ == TOLD)[TOLD >= 0].all()
    assert found.nearest_known_[:4].tolist() == [0, 1, 2, 3]
    assert set(found.nearest_known_[4:].tolist()) <= {0, 1, 2, 3}


def test_classes_far_apart_are_found(partly):
    name, found = partly
    assert (found.labels_[Y < 4] == Y[Y < 4]).mean() > 0.9, name
    assert hungarian_accuracy(found.labels_, Y).all > (0.75 if name == "hdbscan" else 0.9)


def test_shapes_and_ranges(partly):
    _, found = partly
    assert found.labels_.shape == (len(X),)
    assert found.labels_.min() >= 0
    assert found.labels_.max() < found.n_classes_
    assert found.log_probs_.shape == (len(X), 6)
    np.testing.assert_allclose(np.exp(found.log_probs_).sum(axis=1), 1, atol=1e-4)
    assert len(found.exemplars_) == 6
    assert all((found.labels_[rows] == k).all() for k, rows in enumerate(found.exemplars_))
    assert found.why_
    assert np.isnan(found.stability_).all()


def test_new_rows_are_read_by_the_same_classes(partly):
    _, found = partly
    assert (found.predict(X) == found.labels_).mean() > 0.9
    fresh, truth = blobs(seed=5)
    proba = found.predict_proba(fresh)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-4)
    assert (found.predict(fresh)[truth < 4] == truth[truth < 4]).mean() > 0.85


def test_rows_stay_below_their_coarse_class(coarse):
    name, found = coarse
    assert found.n_classes_ == 6
    assert np.bincount(found.node_, minlength=3).tolist() == [3, 2, 1]
    assert (found.node_[found.labels_] == NODE[Y]).all()
    assert found.class_names_ == ("cats / 1", "cats / 2", "cats / 3", "dogs / 1", "dogs / 2", "owls")
    assert found.taxonomy_.level_names == ("class", "coarse")
    assert hungarian_accuracy(found.labels_, Y).all > (0.75 if name == "hdbscan" else 0.9)


@pytest.mark.parametrize("name", NAMES)
def test_known_classes_below_coarse_ones_and_numbers_by_index(name):
    labels = Coarse(torch.from_numpy(NODE[Y]), torch.eye(3)) & Exact(torch.from_numpy(np.where(Y < 3, TOLD, -1)), 3)
    found = one(name).fit(X, labels, {0: 3, 1: 2, 2: 1})
    assert found.node_.tolist() == [0, 0, 0, 1, 1, 2]
    assert (found.node_[found.labels_] == NODE[Y]).all()
    assert (found.labels_[Y < 3] == Y[Y < 3]).mean() > 0.85


@pytest.mark.parametrize("name", NAMES)
def test_a_range_or_nothing_is_a_number_that_is_found(name):
    found = one(name, SHORT).fit(X, PARTLY, (5, 8))
    low, high = found.n_classes_interval_
    assert 5 <= low <= found.n_classes_ <= high <= 8
    free = one(name, SHORT).fit(X)
    assert free.n_classes_ >= 2
    assert free.n_classes_interval_[0] <= free.n_classes_ <= free.n_classes_interval_[1]


@pytest.mark.parametrize("name", NAMES)
def test_pairs_hold(name):
    i = torch.tensor([0, 1, 40, 40, 0, 2])
    j = torch.tensor([1, 2, 41, 100, 70, 3])
    same = torch.tensor([1, 1, 1, 0, 0, 0])
    found = one(name, SHORT).fit(X, Pairs(i, j, same, len(X), 6), 6)
    assert ((found.labels_[i] == found.labels_[j]) == same.bool().numpy()).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_repeats_and_a_clone_is_the_same(name):
    first = one(name, SHORT, seed=3)
    again = clone(first)
    assert again.get_params() == first.get_params()
    a, b = first.fit(X, PARTLY, 6), again.fit(X, PARTLY, 6)
    np.testing.assert_array_equal(a.labels_, b.labels_)
    np.testing.assert_allclose(a.predict_log_proba(X[:20]), b.predict_log_proba(X[:20]), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_what_init_was_given(name):
    of = method(name)
    given = {key: object() for key in of._get_param_names()}
    assert of(**given).get_params(deep=False) == given


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that is made."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, torch.Tensor) and one.layout == torch.strided:
                self.numbers = max(self.numbers, one.numel())
        return made


@pytest.mark.parametrize("name", ["mixture", "ss-kmeans", "constrained-kmeans", "gmm", "spectral"])
def test_no_tensor_of_rows_by_rows(name):
    n = 9000
    y = np.arange(n) % 4
    x = (6 * np.eye(4)[y] + np.random.default_rng(0).normal(size=(n, 4))).astype(np.float32)
    with Largest() as seen:
        one(name).fit(x, None, 4)
    assert seen.numbers <= 2**25 < n * n / 2


@pytest.mark.parametrize("name", ["ward", "hdbscan"])
def test_no_array_of_rows_by_rows(name):
    n = 2000
    y = np.arange(n) % 4
    x = (6 * np.eye(4)[y] + np.random.default_rng(0).normal(size=(n, 4))).astype(np.float32)
    tracemalloc.start()
    one(name).fit(x, None, 4)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < n * n * 4 / 2  # half of a float32 table of all pairs


BAD = {
    "more classes than rows": (X[:5], None, 9, "9 classes, the data has 5 rows"),
    "range without the known": (X, PARTLY, (2, 3), "at most 3, but 4 classes are known"),
    "range turned round": (X, PARTLY, (8, 5), "expected the lower number first"),
    "coarse with one row": (
        X,
        Coarse(torch.tensor([0] + [1] * (len(X) - 1)), torch.eye(2)),
        {0: 2, 1: 2},
        'coarse class "0" has 1 row, too few for 2 classes',
    ),
    "coarse that is not there": (X, COARSE, {"cats": 2, "dogs": 2, "bats": 1}, "'bats'"),
    "coarse without a number": (X, COARSE, {"cats": 2, "dogs": 2}, '"owls"'),
    "identical": (np.ones((20, 3), np.float32), None, 2, "all 20 rows are identical"),
    "contradictory links": (
        X,
        Pairs(torch.tensor([0, 1, 0]), torch.tensor([1, 2, 2]), torch.tensor([1, 1, 0]), len(X), 6),
        6,
        "rows 0 and 2 are of two classes",
    ),
    "links against labels": (
        X,
        PARTLY & Pairs(torch.tensor([0]), torch.tensor([30]), torch.tensor([1]), len(X), 4),
        6,
        'rows 0 and 30 .* "a" and "b"',
    ),
    "labels of other rows": (X[:10], PARTLY, 6, f"{len(X)} instances, the data has 10 rows"),
    "not finite": (np.where(np.arange(len(X))[:, None] == 4, np.nan, X), None, 2, "row 4"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_named_in_one_line(name, case):
    x, labels, number, says = BAD[case]
    with pytest.raises(LabelError, match=says) as caught:
        one(name, SHORT).fit(x, labels, number)
    assert "\n" not in str(caught.value)


def test_the_front_class_hands_everything_through():
    front = Discover("mixture", bootstrap=0, settings={"starts": 1}).fit(X, PARTLY, 6)
    own = method("mixture")(bootstrap=0, starts=1).fit(X, PARTLY, 6)
    np.testing.assert_array_equal(front.labels_, own.labels_)
    np.testing.assert_array_equal(front.predict(X), own.predict(X))
    np.testing.assert_allclose(front.predict_proba(X), np.exp(front.predict_log_proba(X)))
    assert front.taxonomy_.names == own.taxonomy_.names
    assert front.log_likelihood_ == own.log_likelihood_
    assert clone(front).get_params() == front.get_params()


def test_the_front_class_refuses_what_is_not_there():
    with pytest.raises(ValueError, match='no method "magic"; expected one of auto'):
        Discover("magic").fit(X)
    with pytest.raises(ValueError, match="no setting 'epochs'; it has"):
        Discover("ward", settings={"epochs": 3}).fit(X)
    with pytest.raises(AttributeError, match="fitted ones are there after fit"):
        _ = Discover().labels_
