"""Names of classes: terms are those that tell a class from its siblings, and no two classes share a name."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pytest

from anygrain.discover import describe
from anygrain.discover.naming import _distinctive, _members, text_terms
from anygrain.labels import LabelError

TEXTS = [
    *["please pay back my lost luggage"] * 6,
    *["please say where my lost luggage is"] * 4,
    *["please book a flight to Oslo"] * 8,
    *["please book a flight to Rome"] * 2,
    *["please stop the bank transfer"] * 10,
]
LABELS = np.repeat([0, 1, 2], 10)


def found(labels=LABELS, node=(0, 0, 1), known=(False, False, False), nodes=("travel", "banking"), names=None):
    k = len(node)
    return SimpleNamespace(
        labels_=np.asarray(labels),
        n_classes_=k,
        node_=np.asarray(node),
        node_names_=nodes,
        known_=np.asarray(known),
        class_names_=tuple(names or (f"new {c}" for c in range(k))),
        exemplars_=[np.flatnonzero(np.asarray(labels) == c)[:5] for c in range(k)],
    )


def test_a_class_is_named_by_what_its_siblings_lack():
    first, second, third = describe(found(), TEXTS)
    assert first.name.split(", ")[0] == "lost luggage"
    assert "flight" in second.name or "book" in second.name
    assert "transfer" in third.name or "bank" in third.name
    for suggestion in (first, second, third):
        assert "please" not in suggestion.terms  # all have it
        assert suggestion.description.startswith("10 rows: ")
        words = [word for term in suggestion.terms for word in term.split()]
        assert len(words) == len(set(words))  # every word once
    assert '"lost luggage" in 100 %, elsewhere 0 %' in first.description


def test_the_score_is_the_log_odds_ratio_in_standard_errors():
    """By hand: term 0 in 3 of 4 rows of class 0 and in 1 of 6 rows of its sibling; 2 more rows lie elsewhere."""
    labels = np.array([0] * 4 + [1] * 6 + [2] * 2)
    there = np.zeros((12, 2))
    there[[0, 1, 2, 4], 0] = 1
    there[[10, 11], 1] = 1
    from scipy.sparse import csr_matrix

    terms = _distinctive(csr_matrix(there), ["w", "v"], labels, np.array([0, 0, 1]), quote='"')
    p = 4.5 / 13
    a, b = 10 * p, 10 * (1 - p)
    ratio = np.log((3 + a) / (1 + b)) - np.log((1 + a) / (5 + b))
    z = ratio / np.sqrt(1 / (3 + a) + 1 / (1 + b) + 1 / (1 + a) + 1 / (5 + b))
    assert z < 1.645  # too few rows to tell
    assert terms[0] == terms[1] == []
    # class 2 has no sibling: it is compared with all others, and its term is in no other class
    p = 2.5 / 13
    a, b = 10 * p, 10 * (1 - p)
    ratio = np.log((2 + a) / b) - np.log(a / (10 + b))
    z = ratio / np.sqrt(1 / (2 + a) + 1 / b + 1 / a + 1 / (10 + b))
    assert (len(terms[2]) == 1) == (z > 1.645)
    # ten times the rows tell ten times as surely
    many = np.repeat(there, 10, axis=0)
    terms = _distinctive(csr_matrix(many), ["w", "v"], np.repeat(labels, 10), np.array([0, 0, 1]), quote="")
    p = 40.5 / 121
    a, b = 10 * p, 10 * (1 - p)
    ratio = np.log((30 + a) / (10 + b)) - np.log((10 + a) / (50 + b))
    z = ratio / np.sqrt(1 / (30 + a) + 1 / (10 + b) + 1 / (10 + a) + 1 / (50 + b))
    share = np.array([30 / 40, 10 / 60])
    share = share / share.sum()
    rarity = 1 + (share * np.log(share)).sum() / np.log(3)
    assert terms[0][0].name == "w"
    assert terms[0][0].score == pytest.approx(z * rarity, rel=1e-12)


def test_names_are_unlike_each_other_and_known_classes_keep_theirs():
    texts = [text for text in TEXTS for _ in range(2)]
    labels = np.repeat([0, 1, 2, 3, 4, 5], 10)  # every class twice, so that siblings say the same
    said = describe(found(labels, node=(0, 1, 0, 1, 0, 1), known=(True, *[False] * 5), names=["a", *"bcdef"]), texts)
    names = [suggestion.name for suggestion in said]
    assert names[0] == "a"
    assert len(set(names)) == 6
    assert said[0].terms


def test_columns_of_a_data_frame_tell_classes_apart():
    rng = np.random.default_rng(0)
    columns = {
        "length": rng.normal(size=30) + np.repeat([5.0, 0, 0], 10),
        "width": rng.normal(size=30),
        "colour": ["red"] * 10 + ["blue"] * 20,
        "empty": [None] * 30,
    }
    columns["length"][0] = np.nan
    for frame in (pd.DataFrame(columns), pl.DataFrame(columns, strict=False)):
        first, second, _ = describe(found(node=(0, 0, 0), nodes=()), frame)
        assert set(first.terms) == {"high length", "colour = red"}
        assert "length" in first.description
        assert "elsewhere" in first.description
        assert set(second.terms) <= {"low length", "colour = blue"}
    said = describe(found(), pd.DataFrame({"text": TEXTS}))
    assert said[0].terms == describe(found(), TEXTS)[0].terms


def test_arrays_are_named_after_the_row_that_shows_the_class():
    said = describe(found(), np.zeros((30, 4)), ids=[f"r{i}" for i in range(30)])
    assert [suggestion.name for suggestion in said] == ["like r0", "like r10", "like r20"]
    assert said[1].description == "rows like r10, r11, r12"
    empty = describe(found(node=(0, 0, 1, 1), known=(False,) * 4), np.zeros((30, 4)))
    assert (empty[3].name, empty[3].description) == ("new 3", "no row")


def test_odd_texts():
    assert text_terms(["", "!!", None], np.zeros(3, int), np.array([0])) == [[]]
    alone = text_terms(["red wine", "red beer", "red"], np.zeros(3, int), np.array([0]))
    assert alone[0][0].name == "red"  # nothing to compare with: what is frequent
    with pytest.raises(LabelError, match="2 rows are given to name classes of 30 rows by"):
        describe(found(), ["a", "b"])
    assert _members(np.array([1, 0, 1]), 2).toarray().tolist() == [[0, 1, 0], [1, 0, 1]]
