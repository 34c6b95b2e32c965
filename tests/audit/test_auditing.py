"""The audit as a whole: held-out probabilities, one table after another, files, and labels of every space."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from anygrain.audit import audit, suspects
from anygrain.labels import AnyOf, Bags, Crowd, Exact, LabelError, Tags, Value
from anygrain.learn import Learner


@pytest.fixture(scope="module")
def made():
    """Three clouds of 100 rows, some labels wrong, one row doubled with another label, one far away."""
    rng = np.random.default_rng(0)
    truth = np.arange(300) % 3
    x = 3 * np.eye(3)[truth] @ rng.normal(size=(3, 6)) + rng.normal(size=(300, 6))
    wrong = rng.random(300) < 0.1
    given = np.where(wrong, (truth + 1) % 3, truth)
    x[7] = x[4]
    given[4], given[7] = 1, 2
    wrong[[4, 7]] = given[[4, 7]] != truth[[4, 7]]
    x[50] += 60
    return x, truth, given, wrong


@pytest.fixture(scope="module")
def found(made):
    return audit(None, made[0], np.array(["ant", "bee", "cat"], dtype=object)[made[2]])


def test_wrong_labels_are_found_and_right_classes_proposed(made, found):
    _, truth, given, wrong = made
    p = found.prob_wrong
    assert p[wrong].mean() > 0.7
    assert p[~wrong].mean() < 0.1
    assert found.share_wrong == pytest.approx(wrong.mean(), abs=0.05)
    assert (found.posterior.argmax(axis=1) == truth).mean() > (given == truth).mean() + 0.05
    assert np.allclose(found.posterior.sum(axis=1), 1)
    assert np.allclose(found.class_prior, 1 / 3, atol=0.05)
    assert found.transition.shape == (3, 3)
    assert found.errors == {"Exact": pytest.approx(found.share_wrong)}
    assert found.held_out.all()
    assert found.influence[wrong].mean() < found.influence[~wrong].mean()
    assert found.shapley[wrong].mean() < found.shapley[~wrong].mean()


def test_rows_that_stand_twice_and_apart_are_named(found):
    d = found.duplicates
    assert [(a, b) for a, b, e in zip(d.first, d.second, d.exact, strict=True) if e] == [(4, 7)]
    assert d.conflict[d.exact].all()
    assert found.outliers.distance.argmax() == 50
    rows = found.rows()
    assert rows["conflict"][[4, 7]].all()
    assert rows["outlier"][50] > 0.9
    assert set(rows["class"]) == {"ant", "bee", "cat"}
    assert len(found.overlap.first) == 3


def test_the_frame_is_that_of_suspects(found):
    again = suspects(found.log_probs, found.labels)
    assert np.allclose(found.suspects["prob_wrong"], again["prob_wrong"], atol=1e-9)
    assert found.suspects["given"].tolist() == again["given"].tolist()
    records = found.records()
    assert (records["row"] == np.arange(300)).all()
    assert (records["looks_wrong"] == (found.prob_wrong > 0.5)).all()
    assert set(records["kind"]) == {"Exact"}


def test_files_hold_the_tables_and_on_request_the_names_of_cleanlab(found, tmp_path):
    files = found.to_parquet(tmp_path / "a")
    assert [f.name for f in files] == [
        "audit.parquet",
        "audit_rows.parquet",
        "audit_duplicates.parquet",
        "audit_overlap.parquet",
    ]
    assert np.allclose(pq.read_table(files[0])["prob_wrong"].to_numpy(), found.prob_wrong)
    assert pq.read_table(files[3])["first"].to_pylist()[0] in ("ant", "bee")
    other = pq.read_table(found.to_parquet(tmp_path / "b", names="cleanlab")[1])
    expected = {"is_label_issue", "label_quality", "given_label", "predicted_label", "sample_weight", "label_score"}
    expected |= {"is_outlier_issue", "outlier_score", "is_near_duplicate_issue", "near_duplicate_score"}
    assert set(other.column_names) == expected
    assert np.allclose(other["label_quality"].to_numpy(), 1 - found.prob_wrong)
    assert other["is_label_issue"].to_numpy(zero_copy_only=False).sum() == found.looks_wrong.sum()
    for name in ("label_quality", "outlier_score", "near_duplicate_score"):
        values = other[name].to_numpy()
        assert values.min() >= 0
        assert values.max() <= 1
    with pytest.raises(LabelError, match='names is "csv"; expected "anygrain" or "cleanlab"'):
        found.to_parquet(tmp_path / "c", names="csv")


def test_a_fitted_learner_and_probabilities_are_taken_as_they_are(made):
    x, _, given, _ = made
    labels = Exact(torch.from_numpy(given), 3)
    model = Learner(seed=0, folds=3).fit(x, labels)
    by_model = audit(model, x, labels, value=False)
    assert np.allclose(by_model.log_probs, model.held_out_log_probs_, atol=1e-5)
    assert np.array_equal(audit(model, x, value=False).prob_wrong, by_model.prob_wrong)
    by_hand = audit(model.held_out_log_probs_, x, given, value=False)
    assert np.allclose(by_hand.prob_wrong, by_model.prob_wrong, atol=1e-9)
    assert by_hand.influence is None
    unfitted = audit(Learner(seed=0, folds=3), x, labels, value=False)
    assert np.allclose(unfitted.prob_wrong, by_model.prob_wrong, atol=1e-6)
    with pytest.raises(LabelError, match="labels are missing"):
        audit(None, x)
    with pytest.raises(LabelError, match="the data have 100 rows and the labels 300"):
        audit(model.held_out_log_probs_, x[:100], given)


def test_votes_have_their_annotator_and_a_consensus(made):
    x, truth, _, _ = made
    g = torch.Generator().manual_seed(0)
    crowd = Crowd.simulate(torch.from_numpy(truth), 3, generator=g, n_annotators=6)
    got = audit(None, x, crowd, value=False)
    records = got.records()
    assert (records["row"] == crowd.items.numpy()).all()
    assert (records["source"] == crowd.annotators.numpy().astype(str)).all()
    wrong = (crowd.votes != torch.from_numpy(truth)[crowd.items]).numpy()
    assert records["prob_wrong"][wrong].mean() > 0.8 > 0.2 > records["prob_wrong"][~wrong].mean()
    names = got.cleanlab()
    assert (names["num_annotations"] == 3).all()
    assert (names["consensus_label"] == truth).mean() > 0.95
    share = [(crowd.votes[crowd.items == i] == int(names["consensus_label"][i])).double().mean() for i in range(20)]
    assert np.allclose(names["annotator_agreement"][:20], share)


def test_tags_bags_and_numbers_are_audited_too(made):
    x, truth = made[0][:150], made[1][:150]
    quick = Learner(seed=0, rounds=1, neighbours=0)
    table = torch.from_numpy(np.stack([truth == 0, truth > 0], axis=1).astype(int))
    table[5, 0] = 1 - table[5, 0]
    of_tags = audit(quick, x, Tags(table, tag_names=["first", "rest"]))
    assert len(of_tags.suspects) == 300
    assert of_tags.prob_wrong[10] > 0.9
    assert set(of_tags.records()["source"]) == {"first", "rest"}
    assert of_tags.overlap is None
    bags = Bags.from_ids(torch.arange(150) // 3)
    of_bags = audit(quick, x, AnyOf(bags, torch.ones(50), 0, 3) & Exact(torch.from_numpy(truth), 3), value=False)
    assert len(of_bags.suspects) == 200
    assert (of_bags.records()["row"][:50] == -1).all()
    value = x @ np.ones(6)
    value[9] += 100
    of_numbers = audit((x @ np.ones(6), np.ones(150)), x, Value(torch.from_numpy(value)))
    assert of_numbers.prob_wrong.argmax() == 9
    assert of_numbers.posterior is None
    assert set(of_numbers.rows()) >= {"prob_wrong", "outlier"}


def test_rows_say_how_many_votes_they_need(made):
    x, truth, _, _ = made
    generator = torch.Generator().manual_seed(0)
    votes = Crowd.simulate(torch.from_numpy(truth), 3, generator=generator, n_annotators=5, votes_per_item=2)
    log_probs = np.full((300, 3), np.log(0.05))
    log_probs[np.arange(300), truth] = np.log(0.9)
    rows = audit(log_probs, x, votes, value=False).rows()
    agree = (votes.votes.reshape(300, 2) == torch.from_numpy(truth)[:, None]).all(dim=1).numpy()
    assert (rows["votes_needed"] >= 0).all()
    assert rows["votes_needed"][agree].mean() < rows["votes_needed"][~agree].mean()
    assert "votes_needed" not in audit(log_probs, x, truth, value=False).rows()
