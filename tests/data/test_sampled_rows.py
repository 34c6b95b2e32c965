"""Labels of how rows were sampled, read from tables."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from anygrain.data.config import parse_config, with_paths
from anygrain.data.dataset import Dataset, read_dataset
from anygrain.data.error import InputError
from anygrain.labels import Positive, Sampled, TwoUnlabeled

ROWS = "id,x,label,batch\na,1,spam,B\nb,2,,A\nc,3,,\nd,4,,A\n"


def dataset(folder: Path, label: dict[str, Any], classes: tuple[str, ...] = ("ham", "spam")) -> Dataset:
    (folder / "rows.csv").write_text(ROWS)
    (folder / "gold.csv").write_text("id,label\nd,spam\n")
    raw = {
        "classes": list(classes),
        "data": {"source": "rows.csv", "id": "id", "columns": ["x"]},
        "labels": [label],
    }
    config = with_paths(parse_config(raw), folder)
    assert parse_config(tomllib.loads(config.to_toml())).labels == config.labels  # can be run again
    return read_dataset(config)


def same(found: Any, wanted: Any) -> None:
    assert type(found) is type(wanted)
    log_probs = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    for one, two in zip(found.infer(log_probs), wanted.infer(log_probs), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.log_prior_shift, wanted.log_prior_shift)


def test_positive(tmp_path: Path) -> None:
    label = {"kind": "Positive", "column": "label", "target": "spam", "prior": 0.4, "scenario": "case-control"}
    found = dataset(tmp_path, label)
    same(found.evidence[0].labels, Positive(torch.tensor([1, 0, 0, 0]), prior=0.4, scenario="case-control"))
    assert found.evidence[0].n_labels == 1
    elsewhere = dataset(tmp_path, {**label, "source": "gold.csv"})
    same(elsewhere.evidence[0].labels, Positive(torch.tensor([0, 0, 0, 1]), prior=0.4, scenario="case-control"))
    unknown = dataset(tmp_path, {"kind": "Positive", "column": "label", "target": "spam"}).evidence[0].labels
    assert isinstance(unknown, Positive)
    assert unknown.prior is None


@pytest.mark.parametrize(("target", "priors"), [("spam", [0.1, 0.8]), ("ham", [0.9, 0.2])])
def test_two_unlabelled_sets(tmp_path: Path, target: str, priors: list[float]) -> None:
    given = {"A": 0.1, "B": 0.8}
    found = dataset(tmp_path, {"kind": "TwoUnlabeled", "column": "batch", "target": target, "priors": given})
    same(found.evidence[0].labels, TwoUnlabeled(torch.tensor([1, 0, -1, 0]), priors))


def test_sets_of_known_shares(tmp_path: Path) -> None:
    shares = {"A": {"ham": 1.0}, "B": {"ham": 0.2, "spam": 0.8}}
    prior = {"ham": 0.7, "spam": 0.3}
    found = dataset(tmp_path, {"kind": "Sampled", "column": "batch", "shares": shares, "prior": prior})
    wanted = Sampled(torch.tensor([1, 0, -1, 0]), [[1.0, 0.0], [0.2, 0.8]], prior=[0.7, 0.3])
    same(found.evidence[0].labels, wanted)


POSITIVE = {"kind": "Positive", "column": "label", "target": "spam"}
TWO = {"kind": "TwoUnlabeled", "column": "batch", "priors": {"A": 0.1, "B": 0.8}}


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({**POSITIVE, "target": "ham"}, '"spam" is not the target'),
        ({**POSITIVE, "prior": 0.1}, "1 of 4 rows are labelled positive, a share of 0.25, above the class prior 0.1"),
        ({**POSITIVE, "prior": 1.5}, "prior is 1.5"),
        ({**POSITIVE, "scenario": "both"}, "scenario"),
        ({**POSITIVE, "target": "eggs"}, "is not the target"),
        ({**TWO, "priors": {"A": 0.5, "B": 0.5}}, "identifies nothing"),
        ({**TWO, "priors": {"A": 0.5}}, "priors names 1 sets"),
        ({**TWO, "priors": {"A": 0.5, "C": 0.6}}, '"B" is not among the sets'),
        ({**TWO, "priors": {"A": 0.5, "B": 1.6}}, "outside 0..1"),
        ({**TWO, "target": "eggs"}, "eggs"),
        ({"kind": "Sampled", "column": "batch", "shares": {"A": {"ham": 0.5}, "B": {"spam": 1.0}}}, "do not sum to 1"),
        ({"kind": "Sampled", "column": "batch", "shares": {"A": {"eggs": 1.0}, "B": {"spam": 1.0}}}, "eggs"),
    ],
)
def test_bad_input_is_refused_in_one_line(tmp_path: Path, label: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        dataset(tmp_path, label)
    assert "\n" not in str(caught.value)
