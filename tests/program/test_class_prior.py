"""What is said of a class prior that was estimated."""

from __future__ import annotations

from pathlib import Path

import pytest

from anygrain.data.config import parse_config, with_paths
from anygrain.data.dataset import read_dataset
from anygrain.labels.class_prior import PriorEstimate
from anygrain.program.of_classes import adopt_prior, prior_notes


@pytest.mark.parametrize(("high", "wide"), [(0.54, False), (0.56, True)])
def test_a_wide_interval_is_said(tmp_path: Path, high: float, wide: bool) -> None:
    (tmp_path / "rows.csv").write_text("id,x,label\na,1,spam\nb,2,\nc,3,\nd,4,\n")
    config = {
        "classes": ["spam", "ham"],
        "data": {"source": "rows.csv", "id": "id", "columns": ["x"]},
        "labels": [{"kind": "Positive", "column": "label", "target": "spam", "name": "seen"}],
    }
    dataset = read_dataset(with_paths(parse_config(config), tmp_path))
    estimate = PriorEstimate(0.4, 0.2, high)
    adopt_prior(dataset, estimate)
    first, *more = prior_notes(dataset, estimate)
    assert first == f"the class prior was not given: estimated 0.4, 95 % interval 0.2 to {high:g}"
    assert bool(more) == wide
    if wide:
        assert more[0].endswith('if the share of "spam" is known, give it: --set labels.seen.prior=...')
