"""Suspects: every kind of record judged by its formula, in the order of the records, whatever the form of the input."""

import itertools
import math

import numpy as np
import pytest
import torch

from anygrain.audit import suspects
from anygrain.audit.errors import error_share
from anygrain.audit.of_sets import doubtful
from anygrain.labels import (
    AnyOf,
    Bags,
    Candidates,
    Censored,
    Coarse,
    Complementary,
    Counts,
    Crowd,
    Exact,
    LabelError,
    Noisy,
    Pairs,
    Proportions,
    Rules,
    Sampled,
    Soft,
    Tags,
    Value,
    aggregate,
)

F = torch.float64
N, K = 60, 4
COLUMNS = ["record", "given", "proposed", "prob_wrong", "nats_lost"]


def model(n=N, k=K, seed=0, sure=2.0):
    g = torch.Generator().manual_seed(seed)
    truth = torch.randint(k, (n,), generator=g)
    z = torch.randn(n, k, generator=g, dtype=F)
    z[torch.arange(n), truth] += sure
    return truth, z.log_softmax(dim=1), g


def every_kind():
    truth, _, g = model()
    names = ["a", "b", "c", "d"]
    level = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]])
    nested = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0]])
    votes = torch.randint(-1, K, (N, 3), generator=g)
    return {
        "exact": Exact(truth, K, class_names=names),
        "noisy": Noisy.simulate(truth, K, generator=g),
        "known noise": Noisy.simulate(truth, K, generator=g, known=True),
        "soft": Soft(torch.rand(N, K, generator=g).softmax(dim=1)),
        "teacher": Soft(torch.rand(N, K, generator=g) + 0.01, kind="evidence"),
        "coarse": Coarse(truth // 2, level),
        "nodes": Coarse(torch.where(truth == 0, 2, truth // 2), nested),
        "candidates": Candidates.simulate(truth, K, generator=g),
        "complementary": Complementary.simulate(truth, K, generator=g),
        "crowd": Crowd.simulate(truth, K, generator=g),
        "rules": Rules(votes, K),
        "any of": AnyOf.simulate(truth, K, generator=g, target=[0, 1]),
        "pairs": Pairs.simulate(truth, K, generator=g),
        "counts": Counts.simulate(truth, K, generator=g),
        "shares": Proportions.simulate(truth, K, generator=g),
        "noisy shares": Proportions.simulate(truth, K, generator=g, noise=20.0),
    }


@pytest.mark.parametrize("kind", every_kind())
def test_every_kind_has_one_row_per_record_with_probabilities(kind):
    labels = every_kind()[kind]
    found = suspects(model()[1], labels)
    assert list(found.columns) == COLUMNS
    assert found["record"].tolist() == list(range(labels.n_records))
    assert len(labels.record_scores(model()[1])) == len(found)
    wrong, nats = found["prob_wrong"].to_numpy(), found["nats_lost"].to_numpy()
    assert np.isfinite(nats).all()
    assert nats.min() >= 0
    assert wrong.min() >= 0
    assert wrong.max() <= 1


def test_parts_come_one_after_another_and_speak_for_each_other():
    truth, log_p, g = model(n=400, sure=1.0)
    wrong = torch.rand(400, generator=g) < 0.2
    given = torch.where(wrong, (truth + 1) % K, truth)
    exact, crowd = Exact(given, K), Crowd.simulate(truth, K, generator=g, votes_per_item=5, accuracy=0.9)
    joined = suspects(log_p, exact & crowd)
    assert len(joined) == 400 + 2000
    alone, beside = suspects(log_p, exact)["prob_wrong"].to_numpy(), joined["prob_wrong"].to_numpy()[:400]
    loss = [-np.log(np.where(wrong, p, 1 - p).clip(1e-9)).mean() for p in (alone, beside)]
    assert loss[1] < loss[0] / 2
    none = suspects(None, exact & crowd)["prob_wrong"].to_numpy()[:400]
    assert none[wrong].mean() > 0.9 > 0.1 > none[~wrong].mean()


def test_a_vector_an_array_a_tensor_and_exact_labels_are_the_same():
    truth, log_p, _ = model()
    expected = suspects(log_p, Exact(truth, K))
    for log_probs, labels in (
        (log_p.numpy(), truth.numpy()),
        (log_p.numpy(), truth),
        (log_p, truth.tolist()),
        (log_p, truth.double().numpy()),
        (log_p, truth.numpy()[:, None]),
    ):
        assert np.allclose(suspects(log_probs, labels)["prob_wrong"], expected["prob_wrong"], atol=1e-12)
    names = np.array(["north", "east", "south", "west"], dtype=object)
    named = suspects(log_p[:, [1, 0, 2, 3]], np.array(["b", "a", "c", "d"], dtype=object)[truth.numpy()])
    assert set(named["given"]) == set("abcd")
    assert np.allclose(named["prob_wrong"], expected["prob_wrong"], atol=1e-6)
    texts = suspects(log_p, Exact(truth, K, class_names=names))
    assert texts["given"].tolist() == names[truth.numpy()].tolist()


def test_missing_records_are_never_wrong():
    truth, log_p, _ = model()
    truth[::3] = -1
    found = suspects(log_p, truth)
    assert (found["prob_wrong"].to_numpy()[::3] == 0).all()
    assert (found["nats_lost"].to_numpy()[::3] == 0).all()
    assert (found["given"].to_numpy()[::3] == -1).all()
    with_nan = np.where(truth.numpy() < 0, np.nan, truth.numpy())
    assert np.array_equal(suspects(log_p, with_nan)["prob_wrong"], found["prob_wrong"])
    kept = truth >= 0
    without = suspects(log_p[kept], truth[kept])
    assert np.allclose(found["prob_wrong"].to_numpy()[kept], without["prob_wrong"], atol=1e-12)


def test_signs_are_classes_where_they_are_all_there_is():
    _, log_p, _ = model(k=2)
    y = np.where(log_p[:, 1].exp().numpy() > 0.5, 1, -1)
    assert (suspects(log_p, y)["prob_wrong"] < 0.5).all()
    assert set(suspects(log_p, y)["given"]) == {0, 1}


def test_records_of_several_classes_by_enumeration():
    truth, log_p, g = model()
    sets = torch.rand(N, K, generator=g) < 0.4
    sets[torch.arange(N), (truth + (torch.arange(N) % 7 == 0)) % K] = True
    labels = Candidates(sets)
    found = suspects(log_p, labels)
    p, prior = log_p.exp().numpy(), log_p.exp().mean(dim=0).numpy()
    said = sets.numpy()
    told = ~said.all(axis=1)
    true, chance = (p * said).sum(axis=1), said @ prior
    _, e = error_share(torch.from_numpy(true[told]).log(), torch.from_numpy(chance[told]).log())
    for i in range(N):
        if not told[i]:
            assert found["prob_wrong"][i] == 0
            continue
        posterior = p[i] * ((1 - e) * said[i] + e * chance[i])
        posterior /= posterior.sum()
        assert found["prob_wrong"][i] == pytest.approx(posterior[~said[i]].sum(), abs=1e-9)
        assert found["nats_lost"][i] == pytest.approx(max(math.log((1 - true[i]) / true[i]), 0), abs=1e-9)
        assert int(found["proposed"][i]) == posterior.argmax()


def test_a_level_of_a_taxonomy_is_judged_like_its_classes():
    truth, log_p, g = model(n=500)
    nodes = torch.where(torch.rand(500, generator=g) < 0.1, 1 - truth // 2, truth // 2)
    level = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])
    coarse = suspects(log_p, Coarse(nodes, level))
    exact = suspects((log_p.exp() @ level.T.double()).log(), Exact(nodes, 2))
    assert np.allclose(coarse["prob_wrong"], exact["prob_wrong"], atol=1e-9)
    assert coarse["proposed"].tolist() == exact["proposed"].tolist()


def test_answers_about_bags_by_enumeration():
    _, log_p, _ = model(n=12, k=3)
    bags = Bags.from_ids(torch.arange(12) // 3)
    present = torch.tensor([1, 0, 1, -1])
    found = suspects(log_p, AnyOf(bags, present, 0, 3))
    p = doubtful(log_p).exp().numpy()
    scores = []
    for m in range(4):
        some = 0.0
        for classes in itertools.product(range(3), repeat=3):
            if 0 in classes:
                some += math.prod(p[3 * m + i, c] for i, c in enumerate(classes))
        scores.append(some if present[m] == 1 else 1 - some)
    _, e = error_share(torch.tensor(scores[:3], dtype=F).log(), torch.full((3,), 0.5, dtype=F).log())
    for m in range(3):
        wrong = e * 0.5 * (1 - scores[m]) / (e * 0.5 + (1 - e) * scores[m])
        assert found["prob_wrong"][m] == pytest.approx(wrong, abs=1e-9)
        assert found["nats_lost"][m] == pytest.approx(max(math.log((1 - scores[m]) / scores[m]), 0), abs=1e-9)
    assert found["prob_wrong"][3] == 0
    assert found["given"].tolist() == ["some 0", "no 0", "some 0", ""]


def test_wrong_answers_about_bags_and_pairs_stand_out():
    truth, log_p, g = model(n=600, sure=4.0)
    for labels, answers in (
        (AnyOf.simulate(truth, K, generator=g, bag_size=4), "present"),
        (Pairs.simulate(truth, K, generator=g), "same"),
    ):
        told = getattr(labels, answers)
        bad = torch.rand(len(told), generator=g) < 0.15
        setattr(labels, answers, torch.where(bad & (told >= 0), 1 - told, told))
        found = suspects(log_p, labels)["prob_wrong"].to_numpy()
        assert found[bad].mean() > 0.5
        assert found[~bad].mean() < 0.2


def test_votes_are_judged_by_what_all_of_them_say():
    truth, log_p, g = model(n=300)
    labels = Crowd.simulate(truth, K, generator=g, votes_per_item=5)
    before = labels.channel.state_dict()["log_table"].clone() if "log_table" in labels.channel.state_dict() else None
    found = suspects(None, labels)
    posterior = aggregate(labels.with_own_channels()).posterior.double()
    right = posterior[labels.items, labels.votes]
    assert np.allclose(found["prob_wrong"], 1 - right, atol=1e-6)
    assert found["proposed"].tolist() == posterior.argmax(dim=1)[labels.items].tolist()
    if before is not None:
        assert torch.equal(labels.channel.state_dict()["log_table"], before)  # the user's channel stays as it is
    wrong = (labels.votes != truth[labels.items]).numpy()
    with_x = suspects(log_p, labels)["prob_wrong"].to_numpy()
    loss = [-np.log(np.where(wrong, p, 1 - p).clip(1e-9)).mean() for p in (found["prob_wrong"].to_numpy(), with_x)]
    assert loss[1] < loss[0]


def test_tags_have_errors_of_their_own():
    g = torch.Generator().manual_seed(0)
    truth = (torch.rand(800, 3, generator=g) < 0.4).long()
    rate = torch.tensor([0.0, 0.1, 0.25])
    bad = torch.rand(800, 3, generator=g) < rate
    z = 3.0 * (2 * truth - 1) + torch.randn(800, 3, generator=g)
    flat = z.reshape(-1).double()
    log_p = torch.nn.functional.logsigmoid(torch.stack([-flat, flat], dim=1))
    found = suspects(log_p, Tags(torch.where(bad, 1 - truth, truth)))["prob_wrong"].to_numpy().reshape(800, 3)
    assert np.abs(found.mean(axis=0) - bad.double().mean(dim=0).numpy()).max() < 0.03


def test_numbers_far_from_their_prediction_are_suspect():
    g = torch.Generator().manual_seed(0)
    mean = 3 * torch.randn(300, generator=g, dtype=F)
    value = mean + 0.5 * torch.randn(300, generator=g, dtype=F)
    bad = torch.rand(300, generator=g) < 0.1
    value = torch.where(bad, 3 * torch.randn(300, generator=g, dtype=F), value)
    value[5] = float("nan")
    found = suspects((mean.numpy(), np.full(300, 0.25)), Value(value))
    wrong = found["prob_wrong"].to_numpy()
    bad[5] = False
    assert wrong[5] == 0
    assert wrong.mean() == pytest.approx(float(bad.double().mean()), abs=0.04)
    residual = (value - mean) / 0.5
    assert wrong[(residual.abs() > 5).numpy()].min() > 0.9
    assert wrong[(residual.abs() < 1).numpy()].max() < 0.05
    assert np.allclose(found["nats_lost"], residual.nan_to_num().square() / 2)
    censored = Censored(value.nan_to_num(), torch.full((300,), torch.inf, dtype=F))
    assert (suspects((mean, torch.full((300,), 0.25)), censored)["prob_wrong"] >= 0).all()


def test_how_rows_were_sampled_is_never_wrong():
    truth, log_p, g = model(k=2)
    labels = Sampled.simulate(truth, 2, generator=g)
    assert (suspects(log_p, labels)["prob_wrong"] == 0).all()


def test_probabilities_by_data_row_serve_all_instances_of_the_row():
    _, log_p, g = model(n=20)
    rows = torch.arange(40) // 2
    labels = Exact(torch.randint(K, (40,), generator=g), K, rows=rows)
    by_row, by_instance = suspects(log_p, labels), suspects(log_p[rows], labels)
    assert np.allclose(by_row["prob_wrong"], by_instance["prob_wrong"], atol=1e-12)


@pytest.mark.parametrize(
    ("log_probs", "labels", "message"),
    [
        (lambda p: p.exp(), lambda y: y, "these are probabilities; pass their logarithm"),
        (lambda p: p - 0.1, lambda y: y, r"60 rows of log_probs do not sum to 1 \(first: row 0, to 0.905\)"),
        (lambda p: p * torch.where(torch.arange(N) == 3, torch.nan, 1.0)[:, None], lambda y: y, "row 3 holds NaN"),
        (lambda p: p[:5], lambda y: y, r"log_probs have shape \(5, 4\); expected \(60, 4\)"),
        (lambda p: p, lambda y: y.numpy() + 7, None),
        (
            lambda p: p,
            lambda y: np.array(["a", "b"] * 30, dtype=object),
            "the labels have 2 classes, the probabilities 4",
        ),
        (lambda p: p, lambda y: Value(y.double()), "of a number: give"),
    ],
)
def test_bad_input_is_named(log_probs, labels, message):
    truth, p, _ = model()
    if message is None:  # four other values are the classes, in order
        assert set(suspects(log_probs(p), labels(truth))["given"]) == {0, 1, 2, 3}
        return
    with pytest.raises(LabelError, match=message):
        suspects(log_probs(p), labels(truth))


def test_a_table_where_pandas_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    truth, log_p, _ = model()
    found = suspects(log_p, truth)
    assert found.column_names == COLUMNS
    assert len(found) == N


def test_a_model_that_says_nothing_of_the_labels_speaks_against_none():
    """Predictions of rows held out of a constant model lean away from each row's own label."""
    given = torch.arange(24) % 2
    for away in (1e-3, 0.02, 0.2):
        p = torch.full((24, 2), 0.5 + away, dtype=F)
        p[torch.arange(24), given] = 0.5 - away
        assert (suspects(p.log(), given)["prob_wrong"] < 0.05).all()
    tags = Tags(torch.stack([given, torch.zeros(24, dtype=torch.long)], dim=1))
    p = torch.full((24, 2), 0.5, dtype=F)
    assert (suspects(p.log().repeat_interleave(2, dim=0), tags)["prob_wrong"] < 0.05).all()


def test_rules_that_see_x_are_not_confirmed_by_a_model_of_them():
    """Three rules fire together on half of the rows and are wrong alike; the model has learnt just that."""
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=600)
    wrong = rng.random(600) < 0.3
    said = np.where(wrong, 1 - truth, truth)
    votes = np.where(rng.random((600, 3)) < 0.5, said[:, None], -1)
    sure = np.full((600, 2), np.log(0.02))
    sure[np.arange(600), said] = np.log(0.98)
    given = {see: suspects(sure, Rules(torch.from_numpy(votes), 2, given_x=see)).prob_wrong.mean() for see in (0, 1)}
    alone = suspects(None, Rules(torch.from_numpy(votes), 2)).prob_wrong.mean()
    assert given[0] < given[1] < alone + 1e-9
