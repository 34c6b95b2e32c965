"""Temperatures where the labelled rows are no sample of all rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.labels import Exact
from anygrain.learn import Learner
from anygrain.learn.calibration import place_in, unlike_all


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30))
def test_places_of_all_rows_have_mean_one_half(seed: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.randint(5, (n,), generator=generator).double()  # with ties
    share = torch.rand(n, generator=generator, dtype=torch.double) + 0.1
    place = place_in(confidence, torch.arange(n), share)
    assert float(share @ place / share.sum()) == pytest.approx(0.5, abs=1e-12)
    below = [(share[confidence < c].sum() + share[confidence == c].sum() / 2) / share.sum() for c in confidence]
    torch.testing.assert_close(place, torch.stack(below))


def test_rows_at_random_are_like_all_and_hard_ones_are_not() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.full((100,), 0.01, dtype=torch.double)
    at_random = torch.stack([torch.rand(100, generator=generator).double() for _ in range(400)])
    found = [unlike_all(place, weight) for place in at_random]
    assert np.mean([v > 0 for v in found]) < 0.08  # two standard errors
    assert max(found) < 0.8
    z = (0.2 - 0.5) / math.sqrt(0.01 / 12)
    assert unlike_all(torch.full((100,), 0.2, dtype=torch.double), weight) == pytest.approx(1 - 4 / z**2)


def blobs(seed: int, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of four overlapping classes, the classes, and the log-probabilities of who knows the centres."""
    generator = torch.Generator().manual_seed(seed)
    centre = 1.6 * torch.eye(4, 6)
    y = torch.randint(4, (n,), generator=generator)
    x = centre[y] + 0.8 * torch.randn(n, 6, generator=generator)
    return x, y, (-torch.cdist(x, centre).square() / (2 * 0.64)).log_softmax(dim=1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_models_of_hard_rows_are_not_too_timid(seed: int) -> None:
    x, y, truth = blobs(seed, 900)
    top = truth.exp().topk(2, dim=1).values
    labelled = torch.zeros(900, dtype=torch.bool)
    labelled[(top[:, 0] - top[:, 1]).argsort()[:60]] = True
    labelled[:12] = True
    learner = Learner(seed=seed).fit(x.numpy(), Exact(torch.where(labelled, y, -1), 4))
    new, right, _ = blobs(seed + 100, 2000)
    probs = torch.from_numpy(learner.predict_proba(new.numpy()))
    accuracy, confidence = float((probs.argmax(dim=1) == right).double().mean()), float(probs.amax(dim=1).mean())
    held = learner.chosen_["held_out_accuracy"]
    assert learner.chosen_["unlike_other_rows"] > 0.5
    assert held < accuracy - 0.1  # what is held out is harder than what is not
    assert abs(confidence - accuracy) < (accuracy - held) / 2


def test_models_of_rows_at_random_keep_their_temperature() -> None:
    x, y, _ = blobs(3, 900)
    learner = Learner(seed=0).fit(x.numpy(), Exact(torch.where(torch.arange(900) < 80, y, -1), 4))
    assert "unlike_other_rows" not in learner.chosen_
