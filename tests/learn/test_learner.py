"""The Learner: evidence helps, seeds repeat, models come back from disk as they were."""

import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

import anygrain.learn
from anygrain.labels import Bags, Coarse, Counts, Exact, LabelError, Noisy, Taxonomy
from anygrain.learn import Learner, RecipeState

DIGITS, CLASSES = load_digits(return_X_y=True)
PARITY = torch.stack([torch.arange(10) % 2 == i for i in (0, 1)]).double()


def digits(seed, train=700, per_class=2):
    """Train rows, test rows, exact labels of a few per class (-1 elsewhere)."""
    order = np.random.default_rng(seed).permutation(len(DIGITS))
    rows, test = order[:train], order[train:]
    exact = np.full(train, -1)
    for k in range(10):
        exact[np.flatnonzero(CLASSES[rows] == k)[:per_class]] = k
    return rows, test, exact


@pytest.fixture(scope="module")
def fitted():
    rows, test, exact = digits(0)
    labels = Exact(torch.tensor(exact), 10) & Coarse(torch.tensor(CLASSES[rows] % 2), PARITY)
    return Learner().fit(DIGITS[rows], labels), rows, test, labels


@pytest.mark.parametrize("seed", [1, 2])
def test_more_evidence_helps(seed):
    rows, test, exact = digits(seed)
    few = exact >= 0
    alone = Learner().fit(DIGITS[rows][few], exact[few]).score(DIGITS[test], CLASSES[test])
    labels = Exact(torch.tensor(exact), 10)
    unlabelled = Learner().fit(DIGITS[rows], labels).score(DIGITS[test], CLASSES[test])
    parity = labels & Coarse(torch.tensor(CLASSES[rows] % 2), PARITY)
    coarse = Learner().fit(DIGITS[rows], parity).score(DIGITS[test], CLASSES[test])
    assert unlabelled > alone + 0.05
    assert coarse > alone + 0.05


def test_with_every_label_it_is_as_good_as_a_regression():
    rows, test, _ = digits(0)
    ours = Learner().fit(DIGITS[rows], CLASSES[rows]).score(DIGITS[test], CLASSES[test])
    theirs = LogisticRegression(max_iter=2000).fit(DIGITS[rows] / 16, CLASSES[rows])
    assert ours > theirs.score(DIGITS[test] / 16, CLASSES[test]) - 0.01


def test_it_says_what_won(fitted):
    learner, rows, _, labels = fitted
    assert learner.chosen_["chosen"] == "evidence"
    assert "held out" in learner.chosen_["why"]
    assert {h["track"] for h in learner.history_} == {"held out", "head", "graph", "final"}
    assert learner.held_out_log_probs_.shape == (len(rows), 10)
    assert np.allclose(np.exp(learner.held_out_log_probs_).sum(axis=1), 1, atol=1e-5)
    held_out = labels.infer(torch.tensor(learner.held_out_log_probs_))[0].mean()
    assert learner.log_evidence_heldout_ == pytest.approx(float(held_out), abs=1e-5)


def test_misleading_extra_rows_leave_exact_only():
    """Classes in 3 of 30 directions, so that neighbours mean little: what the exact labels give is not lost."""
    generator = np.random.default_rng(0)
    X = generator.standard_normal((600, 30))
    y = (X[:, :3].argmax(axis=1)).astype(int)
    few = np.full(400, -1)
    few[:60] = y[:60]
    with_noise = Learner().fit(X[:400], few)
    alone = Learner().fit(X[:60], y[:60]).score(X[400:], y[400:])
    assert with_noise.score(X[400:], y[400:]) > alone - 0.03


def test_the_same_seed_gives_the_same_model(fitted):
    learner, rows, test, labels = fitted
    again = clone(learner).fit(DIGITS[rows], labels)
    assert np.array_equal(again.predict_proba(DIGITS[test]), learner.predict_proba(DIGITS[test]))
    other = clone(learner).set_params(seed=1).fit(DIGITS[rows], labels)
    assert not np.array_equal(other.predict_proba(DIGITS[test]), learner.predict_proba(DIGITS[test]))


def test_an_interrupted_fit_goes_on_to_the_same_result(fitted):
    learner, rows, test, labels = fitted
    kept = {}

    class Stop(Exception):
        pass

    def stop_in_the_middle(done, total, info):
        assert 0 < done <= total
        if info["step"] == "graph 2":
            raise Stop

    state = RecipeState()
    with pytest.raises(Stop):
        clone(learner).fit(DIGITS[rows], labels, callback=stop_in_the_middle, state=state)
    kept = {name: tensor.clone() for name, tensor in state.tensors().items()}
    restored = RecipeState.from_tensors(kept, json.loads(json.dumps(state.history)))
    seen = []
    resumed = clone(learner).fit(DIGITS[rows], labels, state=restored, callback=lambda *a: seen.append(a[2]["step"]))
    assert seen[0] == "graph 3"
    assert np.array_equal(resumed.predict_proba(DIGITS[test]), learner.predict_proba(DIGITS[test]))


def test_save_and_load_give_the_same_predictions(fitted, tmp_path):
    learner, _, test, _ = fitted
    learner.save(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    again = anygrain.learn.load(tmp_path / "model")
    assert np.array_equal(again.predict_proba(DIGITS[test]), learner.predict_proba(DIGITS[test]))
    assert np.array_equal(again.predict(DIGITS[test]), learner.predict(DIGITS[test]))
    learner.save(tmp_path / "model")  # replaces its own kind
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_folder_with_a_pickle_is_refused(fitted, tmp_path):
    fitted[0].save(tmp_path / "model")
    (tmp_path / "model" / "head.pkl").write_bytes(b"")
    with pytest.raises(LabelError, match=r"head.pkl. anygrain never opens pickles"):
        Learner.load(tmp_path / "model")
    with pytest.raises(LabelError, match="no part of a model"):
        fitted[0].save(tmp_path / "model")
    with pytest.raises(LabelError, match=r"has no config.json"):
        Learner.load(tmp_path / "nothing")


def test_names_texts_and_levels(tmp_path):
    taxonomy = Taxonomy.from_dict({"animal": {"cat": {}, "dog": {}}, "vehicle": {"car": {}, "train": {}}})
    said = {
        "cat": "the cat purrs and drinks milk",
        "dog": "a dog barks at the post man",
        "car": "my car needs new tyres",
        "train": "the train leaves from platform two",
    }
    texts = [f"{text} today {i}" for i in range(12) for text in said.values()]
    names = np.array(list(said) * 12, dtype=object)
    names[8:24] = None
    learner = Learner(taxonomy=taxonomy).fit(texts, names)
    assert learner.classes_.tolist() == ["car", "cat", "dog", "train"]
    new = ["does the dog bark", "which platform for the train"]
    assert learner.predict(new).tolist() == ["dog", "train"]
    learner = Learner(taxonomy=taxonomy).fit(
        texts,
        Exact(torch.tensor([taxonomy.classes.index(n) for n in list(said) * 12]), 4, class_names=taxonomy.classes),
    )
    assert learner.predict(new, level=1).tolist() == ["animal", "vehicle"]
    assert set(learner.predict(new, level="auto", confidence=0.5)) <= set(taxonomy.names)
    assert learner.predict(["", *new], unknown=0.9).tolist() == ["unknown", "dog", "train"]
    learner.save(tmp_path / "m")
    again = Learner.load(tmp_path / "m")
    assert np.array_equal(again.predict_proba(new), learner.predict_proba(new))
    assert again.taxonomy_ == taxonomy
    assert again.predict(new).tolist() == ["dog", "train"]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_mixed_data_frames(make, tmp_path):
    generator = np.random.default_rng(0)
    n = 120
    y = generator.integers(0, 2, n)
    columns = {
        "size": [None if i % 17 == 0 else float(v) for i, v in enumerate(y + generator.standard_normal(n))],
        "colour": [["red", "green"][v] if g < 0.8 else "blue" for v, g in zip(y, generator.random(n), strict=True)],
        "note": [f"ticket number {i} is about {['billing', 'network'][v]}" for i, v in enumerate(y)],
    }
    frame = make(columns)
    learner = Learner().fit(frame, y)
    assert learner.score(frame, y) > 0.95
    learner.save(tmp_path / "m")
    assert np.array_equal(Learner.load(tmp_path / "m").predict_proba(frame), learner.predict_proba(frame))
    with pytest.raises(LabelError, match="no column 'note'"):
        learner.predict(make({k: v for k, v in columns.items() if k != "note"}))


def test_bad_columns_are_named():
    frame = pd.DataFrame({"a": [1.0, np.nan, 2.0], "b": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match=r'NaN or infinity in "a" \(1 rows\)'):
        Learner().fit(frame, [0, 1, 0])
    with pytest.raises(LabelError, match="X has 3 rows and y 2"):
        Learner().fit(np.eye(3), [0, 1])
    with pytest.raises(LabelError, match="X has 3 rows and the labels 2"):
        Learner().fit(np.eye(3), Exact(torch.tensor([0, 1]), 2))
    with pytest.raises(LabelError, match="needs a taxonomy"):
        Learner().fit(np.eye(4), [0, 1, 0, 1]).predict(np.eye(4), level="top")


def test_posterior_joins_features_and_evidence(fitted):
    learner, rows, _, labels = fitted
    X = DIGITS[rows][:50]
    found = learner.posterior(X, labels[torch.arange(50)])
    probs = learner.predict_proba(X)
    parity = CLASSES[rows][:50] % 2
    allowed = (np.arange(10) % 2)[None] == parity[:, None]
    expected = probs * allowed / (probs * allowed).sum(axis=1, keepdims=True)
    unknown = labels.parts[0].labels[:50].numpy() < 0
    assert np.abs(found - expected)[unknown].max() < 1e-5
    assert (found[~unknown].max(axis=1) > 1 - 1e-6).all()


def test_half_of_the_labels_wrong_and_resumed():
    """Noisy labels: their channel is learnt with the head, and comes back with the state of a fit."""
    rows, test, _ = digits(3, train=1000)
    generator = np.random.default_rng(0)
    y = CLASSES[rows]
    said = np.where(generator.random(len(y)) < 0.5, (y + generator.integers(1, 10, len(y))) % 10, y)

    def labels():
        return Noisy(torch.tensor(said), 10)

    trusting = Learner().fit(DIGITS[rows], said).score(DIGITS[test], CLASSES[test])
    learner = Learner().fit(DIGITS[rows], labels())
    assert learner.score(DIGITS[test], CLASSES[test]) > trusting + 0.02
    assert (learner.posterior_.argmax(axis=1) == y).mean() > 0.8
    tensors = learner.recipe_state_.tensors()
    seen = []
    state = RecipeState.from_tensors(tensors, learner.recipe_state_.history)
    again = Learner().fit(DIGITS[rows], labels(), state=state, callback=lambda *a: seen.append(a))
    assert seen == []
    assert np.array_equal(again.predict_proba(DIGITS[test]), learner.predict_proba(DIGITS[test]))
    assert np.allclose(again.posterior_, learner.posterior_, atol=1e-6)


def test_counts_of_bags():
    """Only class counts of bags of six: nearly as good as every label."""
    rows, test, _ = digits(4, train=900)
    y = torch.tensor(CLASSES[rows])
    bags = Bags.from_ids(torch.arange(900) // 6)
    counts = torch.zeros(150, 10, dtype=torch.long).index_put_(
        (torch.arange(900) // 6, y), torch.ones(900, dtype=torch.long), accumulate=True
    )
    learner = Learner(rounds=2).fit(DIGITS[rows], Counts(bags, counts))
    assert learner.score(DIGITS[test], CLASSES[test]) > 0.9
    assert learner.log_evidence_heldout_ < 0


def test_the_sure_level_of_a_row_does_not_depend_on_its_batch(tmp_path):
    generator = np.random.default_rng(0)
    y = generator.integers(4, size=400)
    x = np.eye(4)[y] + generator.normal(size=(400, 4))
    taxonomy = Taxonomy.from_dict({"low": ["a", "b"], "high": ["c", "d"]})
    learner = Learner(seed=0, taxonomy=taxonomy).fit(x[:300], np.array(list("abcd"))[y[:300]])
    together = learner.predict(x[300:], level="auto", confidence=0.8)
    alone = np.concatenate([learner.predict(row[None], level="auto", confidence=0.8) for row in x[300:]])
    assert np.array_equal(together, alone)
    truth = np.array(list("abcd"))[y[300:]]
    right = np.mean([a in (t, "unknown", *taxonomy.parents(t)) for a, t in zip(together, truth, strict=True)])
    assert abs(right - 0.8) < 0.12
    learner.save(tmp_path / "model")
    again = Learner.load(tmp_path / "model").predict(x[300:], level="auto", confidence=0.8)
    assert np.array_equal(together, again)
