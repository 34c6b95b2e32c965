"""The settings of the GLWS benchmark: what is said of pictures is true of them, and said to both sides alike."""

import math

import pytest
import torch

from anygrain.encoders.augment_images import ImageAugmentation
from anygrain.learn import Term
from benchmarks.peers.glws.__main__ import Kept, Result, scores, settings_table
from benchmarks.peers.glws.mixtures import ALL, mixtures
from benchmarks.peers.glws.ours import labels_of
from benchmarks.peers.glws.pictures import Pictures
from benchmarks.peers.glws.settings import SETTINGS


@pytest.fixture(scope="module")
def pictures():
    g = torch.Generator().manual_seed(0)
    shown = torch.randint(0, 256, (700, 1, 14, 14), generator=g, dtype=torch.uint8)
    classes = torch.randint(0, 10, (700,), generator=g)
    one = torch.ones(1)
    return Pictures("digits", shown[:600], classes[:600], shown[600:], classes[600:], (0, 1, 2, 3, 4), 9,
                    ImageAugmentation(), one / 2, one / 3)  # fmt: skip


def one_hot(truth, k):
    return torch.nn.functional.one_hot(truth, k).double().clamp(1e-9, 1 - 1e-9).log().log_softmax(dim=1)


@pytest.mark.parametrize("name", [name for name in SETTINGS if "confidence" not in name])
def test_what_is_said_is_likelier_of_the_truth_than_of_other_classes(pictures, name):
    evidence = SETTINGS[name](pictures, torch.Generator().manual_seed(0))
    labels, terms = labels_of(evidence)
    assert not terms
    assert len(labels) == len(evidence.rows) == len(evidence.truth)
    right = float(labels.log_likelihood(one_hot(evidence.truth, evidence.n_classes)).sum())
    other = evidence.truth[torch.randperm(len(evidence.truth), generator=torch.Generator().manual_seed(1))]
    assert right > float(labels.log_likelihood(one_hot(other, evidence.n_classes)).sum())


def test_sets_and_unlabelled_rows_are_as_described(pictures):
    def of(name):
        return SETTINGS[name](pictures, torch.Generator().manual_seed(0))

    partial = of("partial").given["candidates"]
    assert bool(partial[torch.arange(600), pictures.classes].all())
    assert float(partial.double().mean()) == pytest.approx(0.1 + 0.9 * 0.5, abs=0.03)
    assert float((of("noisy").given["labels"] != pictures.classes).double().mean()) == pytest.approx(0.45, abs=0.06)
    assert int((of("few labels").given["labels"] >= 0).sum()) == 100
    mixed = of("partial + noisy + unlabelled").given
    assert len(mixed["known"]) == 60
    assert int((~mixed["candidates"].all(dim=1)).sum()) <= 60
    holds = mixed["candidates"][mixed["known"], pictures.classes[mixed["known"]]]
    assert float(holds.double().mean()) == pytest.approx(0.8, abs=0.15)
    positive = of("positive-unlabelled")
    labelled = positive.given["labelled"]
    assert bool((positive.truth[labelled] == 1).all())
    assert float(positive.truth[~labelled].double().mean()) == pytest.approx(positive.given["prior"], abs=1e-6)
    two = of("unlabelled-unlabelled")
    shares = [float(two.truth[two.given["which"] == side].double().mean()) for side in (0, 1)]
    assert shares == pytest.approx([0.8, 0.2], abs=0.01)
    assert len(two.rows.unique()) == len(two.rows)
    pairs = of("pair comparison")
    assert bool((pairs.truth[pairs.given["first"]] >= pairs.truth[pairs.given["second"]]).all())
    drawn = of("similar-dissimilar-unlabelled")
    assert float(drawn.truth.double().mean()) == pytest.approx(0.7, abs=0.01)


def test_confidences_are_read_as_terms_or_weighted_targets(pictures, monkeypatch):
    truth = torch.isin(pictures.classes, torch.tensor(pictures.positive)).float()
    confidence = 0.1 + 0.8 * truth
    monkeypatch.setattr("benchmarks.peers.glws.settings._confidence", lambda *_: confidence)
    for name in ("similarity confidence", "confidence difference"):
        evidence = SETTINGS[name](pictures, torch.Generator().manual_seed(0))
        labels, terms = labels_of(evidence)
        assert [isinstance(term, Term) for term in terms] == [True]
        assert len(labels) == 600
    similar = SETTINGS["similarity confidence"](pictures, torch.Generator().manual_seed(0)).given["similar"]
    assert sorted({round(float(s), 3) for s in similar}) == [0.18, 0.82]
    evidence = SETTINGS["positive confidence"](pictures, torch.Generator().manual_seed(0))
    assert bool((evidence.truth == 1).all())
    labels, _ = labels_of(evidence)
    assert labels.weight.tolist() == pytest.approx([1 / 0.9] * len(evidence.rows))


def test_mixtures_hold_of_the_truth(pictures):
    parts = mixtures(pictures, torch.Generator().manual_seed(0))
    assert list(parts)[-1] == ALL
    truth = one_hot(pictures.classes, 10)
    for labels in parts.values():
        assert not bool(labels.contradictions(truth).any())
        assert len(labels) == 600


def test_scores_and_kept_results(tmp_path):
    probs = torch.tensor([[0.9, 0.1], [0.2, 0.8], [float("nan"), 1.0], [0.3, 0.7]])
    truth = torch.tensor([1, 0, 0, 0])
    swapped = scores(probs, truth, swaps=True)
    assert scores(probs, truth)["accuracy"] == pytest.approx(0.25)
    assert swapped["accuracy"] == pytest.approx(1.0)
    assert math.isfinite(swapped["log_loss"])
    kept = Kept(tmp_path / "kept.jsonl")
    for side, calibration in (("ours", 0.01), ("GLWS", 0.03)):
        kept.add(Result("digits", "partial", side, 0, 0.9, calibration, 0.3, 1.0))
    again = Kept(tmp_path / "kept.jsonl").results
    assert again == kept.results
    found = {result.side: [result] for result in again.values()}
    text = "\n".join(settings_table({"partial": found}))
    assert "Of 1 settings: accuracy not below GLWS in 1, calibration error at most half in 1." in text
