"""Agreement against published examples, scikit-learn, the definitions, and itself."""

import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from anygrain.audit import agreement, cohen_kappa, fleiss_kappa, krippendorff_alpha
from anygrain.labels import Crowd, LabelError

M = np.nan
# Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011, example C: four observers, twelve units
FOUR = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, M, M, M],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, M, 3],
        [M, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, M],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, M],
    ]
).T
# Fleiss and others: fourteen raters, ten subjects, five categories; counts
FLEISS = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)
# Fleiss 1971: six raters, thirty patients, five diagnoses; counts
DIAGNOSES = np.array(
    [
        [0, 0, 0, 6, 0], [0, 3, 0, 0, 3], [0, 1, 4, 0, 1], [0, 0, 0, 0, 6], [0, 3, 0, 3, 0], [2, 0, 4, 0, 0],
        [0, 0, 4, 0, 2], [2, 0, 3, 1, 0], [2, 0, 0, 4, 0], [0, 0, 0, 0, 6], [1, 0, 0, 5, 0], [1, 1, 0, 4, 0],
        [0, 3, 3, 0, 0], [1, 0, 0, 5, 0], [0, 2, 0, 3, 1], [0, 0, 5, 0, 1], [3, 0, 0, 1, 2], [5, 1, 0, 0, 0],
        [0, 2, 0, 4, 0], [1, 0, 2, 0, 3], [0, 0, 0, 0, 6], [0, 1, 0, 5, 0], [0, 2, 0, 1, 3], [2, 0, 0, 4, 0],
        [1, 0, 0, 4, 1], [0, 5, 0, 1, 0], [4, 0, 0, 0, 2], [0, 2, 0, 4, 0], [1, 0, 5, 0, 0], [0, 0, 0, 0, 6],
    ]
)  # fmt: skip


def rated(counts):
    return np.stack([np.repeat(np.arange(counts.shape[1]), row) for row in counts])


@pytest.mark.parametrize(("level", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorff_of_four_observers(level, value):
    found = krippendorff_alpha(FOUR, level)
    assert found.value == pytest.approx(value, abs=5e-4)
    assert (found.items, found.votes) == (11, 40)
    assert found.low < found.value < found.high


def test_fleiss_of_published_tables():
    assert fleiss_kappa(rated(FLEISS)).value == pytest.approx(0.210, abs=5e-4)
    assert fleiss_kappa(rated(DIAGNOSES)).value == pytest.approx(0.430, abs=5e-4)


def test_alpha_by_its_definition():
    table = np.random.default_rng(0).integers(0, 4, (9, 3)).astype(float)
    table[0, 0] = table[3, 1] = M
    for level in ("nominal", "ordinal", "interval"):
        total = np.array([(table == v).sum() for v in range(4)])

        def delta(c, v, level=level, total=total):
            if level == "nominal":
                return float(c != v)
            if level == "interval":
                return float((c - v) ** 2)
            low, high = min(c, v), max(c, v)
            return float((total[low : high + 1].sum() - (total[c] + total[v]) / 2) ** 2)

        met = expected = 0.0
        for row in table:
            given = row[~np.isnan(row)].astype(int)
            for a in range(len(given)):
                met += sum(delta(given[a], given[b]) / (len(given) - 1) for b in range(len(given)) if a != b)
        every = table[~np.isnan(table)].astype(int)
        for a in range(len(every)):
            expected += sum(delta(every[a], every[b]) for b in range(len(every)) if a != b) / (len(every) - 1)
        assert krippendorff_alpha(table, level).value == pytest.approx(1 - met / expected, abs=1e-12)


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_cohen_is_that_of_scikit_learn(weights):
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, 60)
    table = np.where(rng.random((60, 3)) < 0.6, truth[:, None], rng.integers(0, 4, (60, 3)))
    table[::7, 1] = -1
    found = cohen_kappa(table, weights)
    assert len(found) == 3
    for row in found.itertuples():
        both = (table[:, row.first] >= 0) & (table[:, row.second] >= 0)
        theirs = cohen_kappa_score(
            table[both, row.first], table[both, row.second], weights=None if weights == "none" else weights
        )
        assert row.kappa == pytest.approx(theirs, abs=1e-12)
        assert row.items == both.sum()
        assert row.low < row.kappa < row.high


def test_cohen_in_parts_is_that_of_the_whole(monkeypatch):
    """Pairs and draws a few at a time: the same numbers, and no table of all pairs."""
    rng = np.random.default_rng(2)
    table = rng.integers(-1, 4, (50, 6))
    whole = cohen_kappa(table, draws=40)
    assert len(whole) == 15
    for chunk in (1, 40 * 16 * 4, 40 * 16 // 3):
        monkeypatch.setattr(agreement, "CHUNK", chunk)
        part = cohen_kappa(table, draws=40)
        assert part[["first", "second", "items", "kappa"]].equals(whole[["first", "second", "items", "kappa"]])
        assert (part.low < part.kappa).all()
        assert (part.kappa < part.high).all()


def test_cohen_holds_no_table_of_all_pairs(monkeypatch):
    """300 annotators in a ring, each pair with one item in common and 120 classes: 35 MB of tables."""
    monkeypatch.setattr(agreement, "CHUNK", 2**16)
    annotators = torch.cat([torch.arange(300), (torch.arange(300) + 1) % 300])
    ring = Crowd(torch.arange(300).repeat(2), annotators, torch.arange(600) % 120, 120, 300)
    tracemalloc.start()
    found = cohen_kappa(ring, draws=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 300
    assert peak < 8 * 300 * 120**2 / 4


def test_votes_and_tables_say_the_same():
    generator = torch.Generator().manual_seed(0)
    crowd = Crowd.simulate(torch.randint(3, (80,), generator=generator), 3, generator=generator, n_annotators=5)
    table = np.full((80, 5), -1)
    table[crowd.items.numpy(), crowd.annotators.numpy()] = crowd.votes.numpy()
    assert krippendorff_alpha(crowd, "ordinal") == krippendorff_alpha(table, "ordinal")
    assert fleiss_kappa(crowd) == fleiss_kappa(table)
    assert cohen_kappa(crowd).equals(cohen_kappa(table))
    worded = np.array(["", "a", "b", "c"], dtype=object)[table + 1]
    assert krippendorff_alpha(worded).value == krippendorff_alpha(table).value
    with pytest.raises(LabelError, match="needs a number for each of the 3 classes"):
        krippendorff_alpha(worded, "interval")


def test_limits():
    same = np.repeat(np.arange(10)[:, None] % 3, 4, axis=1)
    assert krippendorff_alpha(same).value == fleiss_kappa(same).value == 1.0
    assert cohen_kappa(same).kappa.eq(1.0).all()
    one_class = np.zeros((10, 2), dtype=int)
    assert np.isnan(krippendorff_alpha(one_class).value)
    assert np.isnan(cohen_kappa(one_class).kappa).all()
    one_annotator = np.arange(5)[:, None]
    assert np.isnan(krippendorff_alpha(one_annotator).value)
    assert krippendorff_alpha(one_annotator).items == 0
    assert len(cohen_kappa(one_annotator)) == 0
    for wrong in ({"level": "ratio"}, {"confidence": 1.5}):
        with pytest.raises(LabelError, match="expected"):
            krippendorff_alpha(same, **wrong)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    # two annotators who answer right with probability 0.8, else the other class: kappa = (0.68 - 0.5) / 0.5
    rng = np.random.default_rng(0)
    held = []
    for at in range(150):
        truth = rng.integers(0, 2, (100, 1))
        table = np.where(rng.random((100, 2)) < 0.8, truth, 1 - truth)
        for found in (krippendorff_alpha(table, seed=at, draws=300), fleiss_kappa(table, seed=at, draws=300)):
            held.append(found.low <= 0.36 <= found.high)
        pair = cohen_kappa(table, seed=at, draws=300).iloc[0]
        held.append(pair.low <= 0.36 <= pair.high)
    assert 0.9 < np.mean(held) < 0.985
