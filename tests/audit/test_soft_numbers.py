"""Soft numbers from ratings."""

import math

import pytest
import torch

from anygrain.audit.of_ratings import METHODS, soft_numbers
from anygrain.labels import LabelError, Ratings


def ratings_of(n=300, per=5, w=12, seed=0, wild=0.0):
    g = torch.Generator().manual_seed(seed)
    truth = 3 * torch.randn(n, generator=g, dtype=torch.float64)
    bias = torch.randn(w, generator=g, dtype=torch.float64)
    spread = torch.linspace(0.3, 1.5, w, dtype=torch.float64)
    items = torch.arange(n).repeat_interleave(per)
    who = torch.rand(n, w, generator=g).topk(per, dim=1).indices.reshape(-1)
    values = truth[items] + bias[who] + spread[who] * torch.randn(len(who), generator=g, dtype=torch.float64)
    out = torch.rand(len(who), generator=g) < wild
    values = torch.where(out, values + 20, values)
    return truth, Ratings(items, who, values, n, n_annotators=w)


def test_means_and_medians_by_hand():
    labels = Ratings(torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1.0, 2, 6, 4, 8]), 3)
    mixed, found = soft_numbers(labels, ["mean", "median"])
    within = (4 + 1 + 9 + 4 + 4) / 3  # squares about the means 3 and 6, with 5 - 2 degrees of freedom
    assert found["mean"].mean[:2].tolist() == [3.0, 6.0]
    assert found["median"].mean[:2].tolist() == [2.0, 6.0]
    assert found["mean"].sd[:2].tolist() == pytest.approx([math.sqrt(within / 3), math.sqrt(within / 2)])
    assert float(found["median"].sd[0]) == pytest.approx(math.sqrt(within / 3 * math.pi / 2))
    want = math.sqrt((within / 3 + within / 3 * math.pi / 2) / 2 + 0.25)
    assert (float(mixed.mean[0]), float(mixed.sd[0])) == pytest.approx((2.5, want))
    assert all(part[2].isnan() for pair in (mixed, *found.values()) for part in pair)  # nobody rated item 2


def test_a_mixture_of_one_method_is_the_method():
    _, labels = ratings_of(40)
    for name in METHODS:
        mixed, found = soft_numbers(labels, [name])
        torch.testing.assert_close(mixed.mean, found[name].mean)
        torch.testing.assert_close(mixed.sd, found[name].sd)


def test_biases_and_precisions_help_and_wild_ratings_hurt_the_robust_centre_least():
    truth, labels = ratings_of()
    found = soft_numbers(labels)[1]
    error = {name: float((pair.mean - truth).square().mean().sqrt()) for name, pair in found.items()}
    assert error["precision"] < 0.8 * error["mean"]
    truth, labels = ratings_of(wild=0.08, seed=1)
    found = soft_numbers(labels)[1]
    error = {name: float((pair.mean - truth).abs().mean()) for name, pair in found.items()}
    assert error["robust"] < 0.5 * error["mean"]


def test_bad_requests_are_refused():
    _, labels = ratings_of(10)
    with pytest.raises(LabelError, match="not known"):
        soft_numbers(labels, ["mode"])
    with pytest.raises(LabelError, match="is empty"):
        soft_numbers(labels, [])
    silent = Ratings(torch.tensor([0]), torch.tensor([0]), torch.tensor([math.nan]), 2)
    with pytest.raises(LabelError, match="no ratings"):
        soft_numbers(silent)
