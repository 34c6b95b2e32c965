"""Duplicates, outliers and overlapping classes on data whose answer is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from anygrain.audit import class_overlap, duplicates, find_duplicates, find_outliers
from anygrain.audit.duplicates import content_of
from anygrain.audit.outliers import outlier_probability


def pairs(found):
    return {(int(a), int(b), bool(e)) for a, b, e in zip(found.first, found.second, found.exact, strict=True)}


@pytest.mark.parametrize("form", ["array", "sparse", "frame", "texts", "pictures"])
def test_rows_of_the_same_content_are_found_in_every_form(form):
    table = np.arange(24.0).reshape(8, 3)
    table[5] = table[1]
    table[6] = table[1]
    data = {
        "array": table,
        "sparse": csr_matrix(table),
        "frame": pd.DataFrame({"a": table[:, 0], "b": table[:, 1].astype(str), "c": table[:, 2]}),
        "texts": [str(row) for row in table],
        "pictures": [row.reshape(1, 3, 1) for row in table],
    }[form]
    found = find_duplicates(data)
    assert pairs(found) == {(1, 5, True), (5, 6, True)}
    assert len(np.unique(found.group)) == 6
    assert found.group[1] == found.group[5] == found.group[6]
    assert len(content_of(data)) == 8


def same(data):
    """For every two rows whether their content is the same, (N, N)."""
    key = content_of(data)
    return key[:, None] == key[None]


@given(seed=st.integers(0, 10_000), width=st.sampled_from([1, 3, 8, 11]), kind=st.sampled_from(["u1", "i2", "f8"]))
@settings(max_examples=40, deadline=None)
def test_content_is_the_same_exactly_where_bytes_are(seed, width, kind):
    """Numbers of few values, so that rows differ by a bit, a sign or the order of columns alone; parts of a table."""
    table = (np.random.default_rng(seed).integers(0, 3, (30, width)) - (kind != "u1")).astype(kind)
    table = np.concatenate([table, table[:, ::-1], table[:5]])
    expected = np.array([[a.tobytes() == b.tobytes() for b in table] for a in table])
    assert (same(table) == expected).all()
    assert (same(table[..., None]) == expected).all()
    assert (same(csr_matrix(table)) == expected).all()
    assert (same(pd.DataFrame({f"c{j}": column for j, column in enumerate(table.T)})) == expected).all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "CHUNK", 7)
        assert (same(table) == expected).all()


def test_missing_cells_are_content_too():
    frame = pd.DataFrame({"a": [1.0, np.nan, 1.0, np.nan, 0.0], "b": ["x", "x", None, "x", "x"]})
    assert same(frame).sum() == 5 + 2
    assert same(frame)[1, 3]
    assert same(np.zeros((3, 0))).all()


def test_near_rows_are_found_once_and_groups_join_along_them():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5))
    x[10] = x[3] + 1e-3
    x[11] = x[3] - 1e-3
    x[20] = x[4]
    found = find_duplicates(x, x)
    assert (4, 20, True) in pairs(found)
    assert {(3, 10, False), (3, 11, False)} <= pairs(found)
    assert len(pairs(found)) == len(found.first)
    assert found.group[3] == found.group[10] == found.group[11] != found.group[4]
    assert (found.first < found.second).all()


def test_labels_conflict_where_no_class_is_possible_to_both():
    x = np.array([[0.0], [0.0], [1.0], [1.0], [2.0], [2.0]])
    sure_a, sure_b, either = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.0]
    evidence = np.array([sure_a, sure_b, sure_a, either, sure_b, sure_b])
    assert find_duplicates(x, evidence=evidence).conflict.tolist() == [True, False, False]
    tags = np.stack([evidence, np.tile([1.0, 0.0, 0.0], (6, 1))], axis=1)  # one of two instances is enough
    assert find_duplicates(x, evidence=tags).conflict.tolist() == [True, False, False]
    assert not find_duplicates(x).conflict.any()


def test_far_rows_are_outliers_and_the_rest_of_a_cloud_is_not():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(500, 4)), [[30.0] * 4, [-25.0] * 4]])
    found = find_outliers(x)
    assert set(np.argsort(found.distance)[-2:]) == {500, 501}
    assert found.probability[500:].min() > 0.99
    assert (found.probability[:500] > 0.5).mean() < 0.03
    assert found.quantile.max() == pytest.approx(501 / 502)
    order = np.argsort(found.distance)
    assert (np.diff(found.probability[order]) >= 0).all()


def test_distances_of_a_normal_middle_hold_few_outliers():
    rng = np.random.default_rng(0)
    assert (outlier_probability(np.exp(rng.normal(size=5000))) > 0.5).mean() < 0.005
    mixed = np.exp(np.concatenate([rng.normal(size=4750), 5 + 0.1 * rng.normal(size=250)]))
    assert outlier_probability(mixed)[4750:].mean() > 0.95
    assert (outlier_probability(np.ones(10)) == 0).all()
    assert find_outliers(np.zeros((2, 3))).probability.tolist() == [0, 0]


def test_overlap_is_a_half_for_one_class_under_two_names_and_nothing_for_clear_ones():
    p = torch.tensor([[0.5, 0.5, 0.0]] * 30 + [[0.0, 0.0, 1.0]] * 20, dtype=torch.float64)
    found = class_overlap(p.log(), np.array([[0.9, 0.1, 0.0], [0.3, 0.7, 0.0], [0.0, 0.0, 1.0]]))
    assert (found.first[0], found.second[0]) == (0, 1)
    assert found.overlap.tolist() == pytest.approx([0.5, 0.0, 0.0])
    assert found.confused[0] == pytest.approx(15.0)  # half of 30 rows
    assert found.noise[0] == pytest.approx(0.2)
    assert len(class_overlap(p.log(), most=2).first) == 2
