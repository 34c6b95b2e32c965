"""What the Learner makes of the data and labels that people have, and what it says where it cannot."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.datasets import load_iris
from sklearn.model_selection import GroupKFold, KFold, cross_val_score

from anygrain.encoders import Table
from anygrain.labels import Bags, Coarse, Crowd, Exact, LabelError, Proportions, Rules, Taxonomy
from anygrain.learn import Learner, Term
from anygrain.learn.reading import read_classes

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])
TEXTS, SAID = ["a good day", "one bad night"] * 10, ["day", "night"] * 10


@pytest.fixture(scope="module")
def model():
    return Learner(rounds=1).fit(X, NAMES[Y])


@pytest.fixture(scope="module")
def of_texts():
    return Learner(rounds=1).fit([None, *TEXTS], ["day", *SAID])


def test_missing_values_of_every_library():
    for dtype, missing in ((object, np.nan), (object, None), (object, pd.NA), (object, ""), ("string", pd.NA)):
        y = pd.Series(NAMES[Y], dtype=dtype)
        y[::7] = missing
        classes, codes = read_classes(y)
        assert classes.tolist() == NAMES.tolist()
        assert np.array_equal(codes, np.where(np.arange(150) % 7, Y, -1)), missing
    with pytest.raises(ValueError, match="every value is missing"):
        Learner().fit(X, np.full(150, -1))


def test_score_reads_classes_as_fit_did(model):
    right = model.predict(X) == NAMES[Y]
    y = np.where(np.arange(150) % 3 == 0, None, NAMES[Y]).astype(object)
    assert model.score(X, y) == pytest.approx(right[np.arange(150) % 3 != 0].mean())
    with pytest.raises(ValueError, match='y holds 0; the classes are "setosa"'):
        model.score(X, Y)
    with pytest.raises(ValueError, match="every value is missing"):
        model.score(X, [None] * 150)
    with pytest.raises(LabelError, match="X has 150 rows and y 10"):
        model.score(X, NAMES[Y][:10])
    signs = np.where(Y > 0, 1, -1)
    of_signs = Learner(rounds=1).fit(X, signs)
    assert of_signs.score(X[:50], signs[:50]) == (of_signs.predict(X[:50]) == -1).mean()  # here -1 is a class
    digits = Learner(rounds=1).fit(X, Exact(torch.tensor(Y), 3, class_names=["0", "1", "2"]))
    assert digits.score(X, Y) == digits.score(X, Y.astype(str)) > 0.9


def test_posterior_of_a_vector(model):
    y = np.where(np.arange(150) < 100, None, NAMES[Y]).astype(object)
    found = model.posterior(X, y)
    assert np.allclose(found[:100], model.predict_proba(X)[:100], atol=1e-6)
    assert np.array_equal(found[100:], np.tile([0.0, 0.0, 1.0], (50, 1)))
    with pytest.raises(LabelError, match="X has 10 rows and the labels 150"):
        model.posterior(X[:10], Exact(torch.tensor(Y), 3))
    with pytest.raises(LabelError, match="y holds 'rose'; the classes are"):
        model.posterior(X, ["rose", *y[1:]])


def test_data_of_another_sort_is_named(model, of_texts):
    with pytest.raises(LabelError, match="X holds texts; expected a table of numbers"):
        model.predict(["a text"])
    with pytest.raises(LabelError, match=r"X is list; expected a list of texts"):
        of_texts.predict([[1.0, 2.0]])
    with pytest.raises(LabelError, match="X is empty; expected a list of texts"):
        of_texts.predict([])
    with pytest.raises(LabelError, match="single text"):
        of_texts.predict("a good day")
    assert of_texts.predict(["a good day", None])[0] == "day"
    mixed = Learner(rounds=1).fit(pd.DataFrame({"kind": SAID, "number": range(20)}), SAID)
    with pytest.raises(LabelError, match=r"X is ndarray of shape \(20, 2\); expected a data frame"):
        mixed.predict(np.zeros((20, 2)))
    with pytest.raises(LabelError, match="join them with &"):
        Learner().fit(X, [Exact(torch.tensor(Y), 3)])
    broken = X.copy()
    broken[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinity in column 2 \(1 rows\)"):
        model.predict(broken)


def test_sparse_and_dense_rows_are_the_same(model):
    of_sparse = Learner(rounds=1).fit(sp.csr_matrix(X), Y)
    assert np.allclose(of_sparse.predict_proba(X), of_sparse.predict_proba(sp.csr_matrix(X)))
    assert np.allclose(model.predict_proba(X), model.predict_proba(sp.coo_matrix(X)))
    chosen = Learner(encoder=Table(), rounds=1).fit(sp.csr_matrix(X), NAMES[Y])
    assert np.array_equal(chosen.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": None}, "seed is None"),
        ({"folds": 0}, "folds is 0; expected 1 or more"),
        ({"rounds": -1}, "rounds is -1"),
        ({"penalty": -1.0}, "penalty is -1.0"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"device": "gpu"}, 'device "gpu" cannot be used'),
        ({"encoder": "texts"}, 'Did you mean "text"'),
        ({"taxonomy": "tax.csv"}, "Taxonomy.from_csv"),
        ({"terms": Term()}, r"such as \[MyTerm"),
    ],
)
def test_settings_outside_their_range(settings, message):
    with pytest.raises(LabelError, match=message):
        Learner(**settings).fit(X, Y)


def test_a_taxonomy_in_another_order_of_classes(model, tmp_path):
    taxonomy = Taxonomy.from_dict({"late": ["virginica", "versicolor", "other"], "early": ["setosa"]})
    learner = Learner(rounds=1, taxonomy=taxonomy).fit(X, NAMES[Y])
    expected = np.where(model.predict(X) == "setosa", "early", "late")
    assert np.array_equal(learner.predict(X, level=1), expected)
    assert np.array_equal(learner.predict(X, level="auto", confidence=0.0), model.predict(X))
    learner.save(tmp_path / "m")
    assert np.array_equal(Learner.load(tmp_path / "m").predict(X, level=1), expected)
    with pytest.raises(LabelError, match='the taxonomy has no class "setosa"'):
        Learner(taxonomy=Taxonomy.from_dict({"a": ["b", "c", "d"]})).fit(X, NAMES[Y])
    with pytest.raises(LabelError, match="the taxonomy has 4 classes, the labels 3"):
        Learner(taxonomy=taxonomy).fit(X, Exact(torch.tensor(Y), 3))
    with pytest.raises(LabelError, match="unknown is 90; expected a probability"):
        model.predict(X, unknown=90)


def test_where_no_root_is_sure_the_answer_is_unknown():
    taxonomy = Taxonomy.from_dict({"late": ["virginica", "versicolor"], "early": ["setosa"]})
    noise = np.random.default_rng(0).standard_normal((60, 2))
    learner = Learner(rounds=1, taxonomy=taxonomy, head="linear").fit(noise, NAMES[np.arange(60) % 3])
    found = learner.predict(noise, level="auto", confidence=0.999)
    node, _ = taxonomy.deepest(learner._for_taxonomy(learner.log_probs(noise)), 0.999)
    assert np.array_equal(found == "unknown", node.numpy() < 0)
    assert (found == "unknown").any()


def test_channels_of_the_user_stay_and_those_of_the_fit_are_kept():
    generator = torch.Generator().manual_seed(0)
    truth = torch.tensor(Y)
    skill = torch.tensor([0.95, 0.9, 0.3, 0.3])
    crowd = Crowd.simulate(truth, 3, generator=generator, n_annotators=4, votes_per_item=3, accuracy=skill)
    rules = Rules.simulate(truth, 3, generator=generator, n_rules=6)
    for labels in (crowd, rules):
        before = {k: v.clone() for k, v in labels.channel.state_dict().items()}
        first, second = (Learner(rounds=1).fit(X, labels) for _ in range(2))
        assert all(torch.equal(v, before[k]) for k, v in labels.channel.state_dict().items())
        assert np.array_equal(first.predict_proba(X), second.predict_proba(X))
    learner = Learner(rounds=1).fit(X, crowd)
    accuracy = learner.labels_.channels[0].accuracy()
    assert float(accuracy[:2].min()) > float(accuracy[2:].max()) + 0.2
    as_fit = learner.labels_.posterior(learner.log_probs(X)).numpy()
    assert np.array_equal(learner.posterior(X, crowd), as_fit)


def test_the_error_of_the_fit_holds_in_its_posterior():
    wrong = torch.arange(150) % 15 == 0
    given = torch.where(wrong, (torch.tensor(Y) + 1) % 3, torch.tensor(Y))
    labels = Exact(given, 3) & Coarse((torch.tensor(Y) > 0).long(), torch.tensor([[1.0, 0, 0], [0, 1, 1]]))
    learner = Learner(rounds=1).fit(X, labels)
    assert learner.error_ > 0
    assert not learner.labels_.contradictions(learner.log_probs(X)).any()
    assert np.array_equal(learner.posterior(X, labels), learner.posterior(X, learner.labels_))


def test_half_a_model_is_refused(model, tmp_path):
    folder = tmp_path / "m"
    model.save(folder)
    assert Learner.load(folder).get_params()["batch_size"] == model.batch_size
    for name in ("model.safetensors", "config.json"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(LabelError, match="holds a damaged model"):
            Learner.load(folder)
        (folder / name).write_bytes(whole)
    (folder / "config.json").write_text('{"project": "anygrain", "format": 1}')
    with pytest.raises(LabelError, match="damaged model: 'head'"):
        Learner.load(folder)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(LabelError, match="is a file: choose a folder"):
        model.save(tmp_path / "file")


def test_cross_validation_of_labels():
    folds = KFold(3, shuffle=True, random_state=0)
    found = cross_val_score(Learner(rounds=1), X, Exact(torch.tensor(Y), 3), cv=folds)
    for score, (train, test) in zip(found, folds.split(X), strict=True):
        learner = Learner(rounds=1).fit(X[train], Y[train])
        truth = learner.log_probs(X[test])[torch.arange(len(test)), torch.tensor(Y[test])]
        assert score == pytest.approx(float(truth.mean()), abs=1e-5)
    bags = Bags.from_ids(torch.randperm(150, generator=torch.Generator().manual_seed(0)) // 5)
    shares = Proportions.simulate(torch.tensor(Y), 3, generator=torch.Generator().manual_seed(0), bags=bags)
    scores = cross_val_score(Learner(rounds=1), X, shares, groups=shares.groups().numpy(), cv=GroupKFold(2))
    assert np.isfinite(scores).all()
