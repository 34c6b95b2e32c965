"""How many classes in every form, what the data may be, and how classes are called."""

import numpy as np
import pandas as pd
import pytest
import torch

from anygrain.discover import ConstrainedMixture
from anygrain.discover.evidence import Evidence
from anygrain.discover.task import MOST, check_finite, chosen_encoder, read_number
from anygrain.labels import Coarse, Exact, LabelError

COARSE = Coarse(torch.tensor([0] * 6 + [1] * 4), torch.eye(2), class_names=["low", "high"])
KNOWN = COARSE & Exact(torch.tensor([0, 1, *[-1] * 8]), 2)


def number(n_classes, labels=COARSE, n=10):
    evidence = Evidence.read(labels, n, split=isinstance(n_classes, dict))
    least, most, per_node = read_number(n_classes, evidence, n)
    return least, most, None if per_node is None else per_node.tolist()


def test_forms_of_a_number():
    assert number({"low": 3, "high": 2}) == (5, 5, [3, 2])
    assert number({1: 2, 0: 3}) == (5, 5, [3, 2])
    assert number({0: np.int64(3), "high": 2}) == (5, 5, [3, 2])
    assert number(5) == (5, 5, None)
    assert number(5, labels=None) == (5, 5, [5])
    assert number((3, 7)) == (3, 7, None)
    assert number((1, 99)) == (2, 10, None)  # a class per coarse one, none without a row
    assert number(None) == (2, 5, None)
    assert number(None, labels=None, n=100_000)[:2] == (2, MOST)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"low": 1, "high": 1}, '"low" has 2 known classes and n_classes asks for 1; expected at least'),
        ({"low": 2, "high": 5}, '"high" has 4 rows, too few for 5 classes'),
        ({"low": 2, "high": 0}, "asks for 0 classes in coarse class 'high'"),
        ({0: 2, 5: 2}, "coarse class 5, which the labels do not have; they have 0 to 1"),
        (1, "at most 1, but 3 classes are known already; it counts these too, so expected 3 or more"),
        (11, "asks for 11 classes, the data has 10 rows"),
    ],
)
def test_numbers_that_cannot_be(asked, says):
    with pytest.raises(LabelError, match=says):
        number(asked, KNOWN)


def test_texts_and_words_for_classes():
    rng = np.random.default_rng(0)
    words = [["refund", "invoice", "payment"], ["login", "password", "account"], ["parcel", "courier", "address"]]
    y = rng.integers(3, size=90)
    texts = [" ".join(rng.choice(words[k], size=4)) for k in y]
    labels = [["money", "access"][k] if k < 2 and i % 2 else None for i, k in enumerate(y)]
    found = ConstrainedMixture(bootstrap=0).fit(texts, labels, 3)
    assert found.class_names_ == ("access", "money", "new 1")
    assert found.taxonomy_.names == ("access", "money", "new 1")
    assert (found.labels_ == np.array([1, 0, 2])[y]).mean() > 0.95
    assert found.predict(["invoice payment refund", "courier parcel"]).tolist() == [1, 2]


def test_data_frames_and_columns_of_classes():
    rng = np.random.default_rng(0)
    y = np.arange(80) % 4
    frame = pd.DataFrame({"size": 10 * (y % 2) + rng.normal(size=80), "kind": np.where(y < 2, "cat", "dog")})
    told = pd.Series(np.where(np.arange(80) % 3 == 0, np.array(["p", "q", "", ""])[y], ""))
    found = ConstrainedMixture(bootstrap=0).fit(frame, told, 4)
    assert found.class_names_[:2] == ("p", "q")
    assert found.predict(frame).shape == (80,)
    by_node = ConstrainedMixture(bootstrap=0).fit(frame, frame["kind"], {"cat": 2, "dog": 2})
    assert by_node.class_names_ == ("cat / 1", "cat / 2", "dog / 1", "dog / 2")


def test_the_columns_of_an_embedding_keep_their_proportions():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 6)) * [30, 1, 1, 1, 1, 0.1]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    encoded = chosen_encoder(unit).learn(unit)(unit).numpy()
    np.testing.assert_allclose(
        encoded.std(axis=0) / encoded.std(axis=0)[0], unit.std(axis=0) / unit.std(axis=0)[0], rtol=1e-4
    )
    table = chosen_encoder(x).learn(x)(x).numpy()
    np.testing.assert_allclose(table.std(axis=0), 1, rtol=1e-5)


def test_a_new_class_is_not_called_like_a_known_one():
    x = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    labels = Exact(torch.tensor([0] * 5 + [-1] * 25), 1, class_names=["new 1"])
    assert ConstrainedMixture(bootstrap=0).fit(x, labels, 2).class_names_ == ("new 1", "new 1'")


def test_half_known_half_coarse_missing():
    rng = np.random.default_rng(0)
    y = np.arange(120) % 4
    x = (8 * np.eye(4)[y] + rng.normal(size=(120, 4))).astype(np.float32)
    node = torch.from_numpy(np.where(np.arange(120) // 4 % 2, y // 2, -1))  # half of the rows of every class
    found = ConstrainedMixture(bootstrap=0).fit(x, Coarse(node, torch.eye(2)), {0: 2, 1: 2})
    assert (found.node_[found.labels_] == y // 2).mean() > 0.95


def test_rows_that_lie_apart_in_memory_or_may_not_be_written_are_looked_at_as_well():
    x = np.ones((6, 4), dtype=np.float32)
    x[3, 2] = np.inf
    x.flags.writeable = False
    for rows in (np.asfortranarray(x), x[:, ::-1], x):
        with pytest.raises(LabelError, match="row 3"):
            check_finite(rows)
    check_finite(x[:3])
