"""Decisions about found classes: read with their place when they are wrong, and fed back into the next fit."""

import csv

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.discover import ConstrainedMixture, Discover, Revision
from anygrain.discover.class_table import ClassLine
from anygrain.discover.task import read_number
from anygrain.labels import Coarse, Exact, LabelError
from anygrain.learn import Learner

CORNERS = np.array([[0, 0], [0, 9], [9, 0], [9, 9], [30, 0], [30, 9]], dtype=np.float64)
TRUTH = np.arange(180) % 6


def corners(seed=0):
    return CORNERS[TRUTH] + np.random.default_rng(seed).normal(size=(180, 2))


def found_below_two(**more):
    """Six corners, two left and right halves of which are coarse classes of four and two."""
    coarse = Coarse(torch.from_numpy((TRUTH >= 4).astype(np.int64)), torch.eye(2), class_names=["west", "east"])
    method = ConstrainedMixture(bootstrap=0, seed=0)
    return method.fit(corners(), coarse, {"west": 4, "east": 2}, **more), coarse


def of_class(found):
    """The true corner of every found class, and the class of every corner."""
    corner = [int(np.bincount(TRUTH[found.labels_ == k], minlength=6).argmax()) for k in range(found.n_classes_)]
    return corner, [corner.index(c) for c in range(6)]


def test_a_table_comes_back_as_it_was_written(tmp_path):
    found, _ = found_below_two()
    revision = Revision.of(found).accept(0, "first").merge(1, into=0).drop(2)
    revision.to_csv(tmp_path / "classes.csv")
    again = Revision.from_csv(tmp_path / "classes.csv", found)
    assert str(again.lines) == str(revision.lines)  # a stability that is not known is NaN
    assert again.kept == [0]
    assert again.open == [3, 4, 5]
    assert again.n_classes == {"west": 2, "east": 2}
    np.testing.assert_array_equal(again.probability, revision.probability)


def test_accepted_classes_are_known_in_the_next_fit_and_keep_their_rows():
    found, coarse = found_below_two()
    _, of = of_class(found)
    revision = Revision.of(found).accept(of[5], "north east").accept(of[0], "south west")
    again = ConstrainedMixture(bootstrap=0).fit(corners(), revision.evidence(coarse), revision.n_classes)
    assert set(again.class_names_[:2]) == {"north east", "south west"}
    assert again.known_.tolist() == [True, True, False, False, False, False]
    for name, corner in (("north east", 5), ("south west", 0)):
        k = again.class_names_.index(name)
        assert (again.labels_ == k).tolist() == (corner == TRUTH).tolist()
        assert again.node_names_[again.node_[k]] == ("east" if corner == 5 else "west")


def test_merged_classes_are_one_and_split_ones_are_divided_apart_from_the_others():
    coarse = Coarse(torch.from_numpy((TRUTH >= 4).astype(np.int64)), torch.eye(2), class_names=["west", "east"])
    found = ConstrainedMixture(bootstrap=0, seed=0).fit(corners(), coarse, {"west": 4, "east": 1})
    corner = [int(np.bincount(TRUTH[found.labels_ == k], minlength=6).argmax()) for k in range(5)]
    whole = int(found.labels_[TRUTH == 4][0])
    a, b = corner.index(0), corner.index(1)
    revision = Revision.of(found).merge(a, into=b).split(whole, 2)
    assert revision.n_classes == {"west": 3, revision.split_names[whole]: 2}
    again = ConstrainedMixture(bootstrap=0).fit(corners(), revision.evidence(coarse), revision.n_classes)
    assert len(set(again.labels_[TRUTH <= 1])) == 1  # merged
    assert len(set(again.labels_[TRUTH >= 4])) == 2  # split
    assert not set(again.labels_[TRUTH >= 4]) & set(again.labels_[TRUTH < 4])
    assert sorted(revision.parents_of(again)) == ["east"] * 2 + ["west"] * 3


def test_without_coarse_classes_a_split_stays_inside_and_a_total_is_asked_for_otherwise():
    found = ConstrainedMixture(bootstrap=0).fit(corners(), None, 6)
    _, of = of_class(found)
    assert Revision.of(found).drop(of[0]).n_classes == 5
    revision = Revision.of(found).split(of[3], 2)
    again = ConstrainedMixture(bootstrap=0).fit(corners(), revision.evidence(), revision.n_classes)
    assert len(set(again.labels_[TRUTH == 3])) == 2
    assert not set(again.labels_[TRUTH == 3]) & set(again.labels_[TRUTH != 3])
    assert revision.parents_of(again) == [""] * 7


def test_rows_of_labels_are_told_by_them_and_rows_of_accepted_classes_by_the_table():
    y = torch.full((180,), -1)
    y[:60] = torch.from_numpy(TRUTH[:60])
    y[y > 1] = -1
    labels = Exact(y, 2, class_names=["zero", "one"])
    found = Discover("mixture", bootstrap=0).fit(corners(), labels, 6)
    new = int(found.labels_[TRUTH == 4][0])
    revision = Revision.of(found).accept(new, "four")
    evidence = revision.evidence(labels)
    assert evidence.known_names == ("zero", "one", "four")
    sure = evidence.sure_known().numpy()
    assert (sure[y.numpy() >= 0] == y.numpy()[y.numpy() >= 0]).all()
    assert (sure[(TRUTH == 4)] == 2).all()
    assert (sure[(y.numpy() < 0) & (TRUTH != 4)] == -1).all()
    # the likelihood of an accepted row is that of a label which is wrong with a small probability
    row = int(np.flatnonzero(TRUTH == 4)[0])
    error = revision.labels.error
    expected = torch.tensor([error / 3, error / 3, 1 - error + error / 3]).log()
    assert torch.allclose(evidence.known[row], expected)
    # a class accepted once stays told in a later round, although the labels do not know it
    again = Discover("mixture", bootstrap=0).fit(corners(), evidence, revision.n_classes)
    third = Revision.of(again).evidence(labels)
    assert third.known_names == ("zero", "one", "four")
    assert (third.sure_known().numpy()[TRUTH == 4] == 2).all()


def test_a_learner_trains_on_what_was_accepted():
    found, _ = found_below_two()
    _, of = of_class(found)
    revision = Revision.of(found)
    for c in range(5):
        revision = revision.accept(of[c], f"corner {c}")
    revision = revision.drop(of[5])
    assert set(revision.taxonomy.nodes("coarse")) == {"west", "east"}
    model = Learner(taxonomy=revision.taxonomy, rounds=1).fit(corners(), revision.labels)
    new = corners(seed=1)
    named = model.predict(new)
    assert (named[TRUTH < 5] == np.array([f"corner {c}" for c in TRUTH[TRUTH < 5]])).mean() > 0.97


EDITS = [
    ({1: {"action": "merge 9"}}, "classes.csv line 3, column action: there is no class 9; expected an id from 0 to 5"),
    ({1: {"action": "merge 2"}, 2: {"action": "merge 1"}}, "line 3, column action: merging class 1 leads back"),
    ({1: {"action": "merge 2"}, 2: {"action": "drop"}}, 'class 2 has the action "drop"; merge into a class that stays'),
    (
        {0: {"action": "merge 5"}},
        'line 2, column action: class 0 lies in "west", class 5 in "east"; merge classes of one',
    ),
    ({1: {"action": "aceept"}}, 'line 3, column action: "aceept" is no action; expected nothing, accept, merge ID'),
    ({1: {"action": "split 1"}}, "line 3, column action: split 1 of 30 rows; expected 2 parts or more"),
    ({1: {"name": ""}}, "line 3, column name: class 1 has no name"),
    ({3: {"name": "west / 1"}}, 'line 5, column name: "west / 1" is the name of class 0 as well; expected another, or'),
    ({3: {"id": "2"}}, "line 5, column id: class 2 stands in line 4 already; expected one line per class"),
    ({3: {"id": "x"}}, 'line 5, column id: "x" is no whole number'),
    ({3: {"known": "maybe"}}, 'line 5, column known: "maybe"; expected yes or no'),
    ({3: {"size": "31"}}, "line 5, column size: class 3 has 31 rows there and 30 in the run"),
    ({0: {"known": "yes", "action": "drop"}}, "line 2, column action: class 0 was known before, and stays"),
    ({0: {"known": "yes", "name": "x"}}, 'class 0 was known before as "west / 1"; rename it in the labels'),
    ({k: {"action": "drop"} for k in range(6)}, "every class is dropped; expected one that stays"),
    ({4: None}, 'class 4 has no line; to give a class up, leave its line and write the action "drop"'),
]


@pytest.mark.parametrize(("edits", "message"), EDITS)
def test_what_cannot_be_is_refused_in_one_line_that_names_its_place(edits, message, tmp_path):
    found, _ = found_below_two()
    path = tmp_path / "classes.csv"
    Revision.of(found).to_csv(path)
    with open(path, newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    names = list(lines[0])
    kept = [{**line, **(edits.get(k) or {})} for k, line in enumerate(lines) if edits.get(k, ()) is not None]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(kept)
    with pytest.raises(LabelError, match=r".") as caught:
        Revision.from_csv(path, found)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_spreadsheets_may_change_separator_order_and_case(tmp_path):
    found, _ = found_below_two()
    path = tmp_path / "classes.csv"
    Revision.of(found).to_csv(path)
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    lines[1] = lines[1] + "Accept"
    lines[2] = lines[2] + "MERGE:1"
    text = "\n".join([head, *reversed(lines), ""]).replace(",", ";")
    path.write_text("\ufeff" + text, encoding="utf-8")
    revision = Revision.from_csv(path, found)
    assert [line.action for line in revision.lines] == ["", "accept", "merge 1", "", "", ""]
    assert revision.final.tolist() == [-1, 1, 1, -1, -1, -1]


def test_a_table_without_what_is_needed_or_of_labels_that_are_not_there_is_refused(tmp_path):
    found, coarse = found_below_two()
    path = tmp_path / "classes.csv"
    with pytest.raises(LabelError, match="there is no table of classes"):
        Revision.from_csv(path, found)
    path.write_text("id,name\n0,a\n", encoding="utf-8")
    with pytest.raises(LabelError, match=r'classes\.csv has no column "suggested"'):
        Revision.from_csv(path, found)
    with pytest.raises(LabelError, match='class 0 lies in "west", which the labels do not have'):
        Revision.of(found).evidence(None)
    revision = Revision.of(found).drop(4).drop(5)
    with pytest.raises(LabelError, match='every class of "east" is dropped'):
        revision.evidence(coarse)
    with pytest.raises(LabelError, match="0 classes are known or accepted"):
        _ = Revision.of(found).labels


ACTION = st.one_of(
    st.sampled_from(["", "", "accept", "drop"]),
    st.integers(0, 5).map(lambda k: f"merge {k}"),
    st.integers(2, 4).map(lambda n: f"split {n}"),
)


@given(actions=st.lists(ACTION, min_size=6, max_size=6), coarse=st.booleans(), missing=st.booleans())
@settings(max_examples=150, deadline=None)
def test_whatever_is_decided_leaves_every_row_a_class_and_accepted_rows_their_own(actions, coarse, missing):
    side = torch.from_numpy((TRUTH >= 4).astype(np.int64))
    labels = Coarse(side, torch.eye(2), class_names=["west", "east"]) if coarse else None
    parents = ["west"] * 4 + ["east"] * 2 if coarse else [""] * 6
    lines = tuple(ClassLine(k, f"c{k}", f"c{k}", "", parents[k], 30, action=actions[k]) for k in range(6))
    rows = np.where(missing & (np.arange(180) % 7 == 0), -1, TRUTH)  # some rows may be new
    try:
        revision = Revision(lines, rows, np.full(180, 0.97))
        evidence = revision.evidence(labels)
    except LabelError:
        return
    asked = revision.n_classes
    splits = sum(int(action.split()[1]) for action in actions if action.startswith("split"))
    _, most, per_node = read_number(asked, evidence, 180)
    total = len(revision.kept) + len(revision.open) + splits
    if isinstance(asked, dict):
        assert most == int(per_node.sum()) == total
        assert len(evidence.node_names) == len(per_node)
    assert (asked if isinstance(asked, int) else sum(asked.values())) == total
    new = (per_node if per_node is not None else torch.tensor([total])) - torch.bincount(
        evidence.node_of_known, minlength=1 if per_node is None else len(per_node)
    )
    node = torch.cat([evidence.node_of_known, torch.arange(len(new)).repeat_interleave(new)])
    table = evidence.log_table(node)
    if table is None:
        assert not revision.kept
        return
    assert table.shape == (180, total)
    assert not torch.isneginf(table).all(dim=1).any()
    place = {k: at for at, k in enumerate(revision.kept)}
    for k, final in enumerate(revision.final.tolist()):
        mine = torch.from_numpy(rows == k)
        if final >= 0:
            assert (table[mine].argmax(dim=1) == place[final]).all()
        elif actions[k].startswith("split"):
            inside = torch.isfinite(table[mine])
            assert (inside == inside[:1]).all()
            assert int(inside[0].sum()) == int(actions[k].split()[1])
