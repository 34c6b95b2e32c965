"""K-means: steps that never spread rows more, starts that are far apart, told rows that stay."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import anygrain.discover.k_means as file
from anygrain.discover.evidence import LogEvidence
from anygrain.discover.k_means import k_means, plus_plus, settle, squared_distances


def test_distances():
    x, c = torch.randn(7, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    np.testing.assert_allclose(squared_distances(x, c), torch.cdist(x, c) ** 2, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31))
def test_every_step_spreads_less_and_it_ends_at_the_means(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(60, 2, generator=generator, dtype=torch.float64)
    centre = x[:4]
    spread = []
    for steps in range(1, 6):
        moved, label = k_means(x, centre, None, steps)
        spread.append(float((x - moved[label]).square().sum()))
    assert (np.diff(spread) <= 1e-9).all()
    moved, label = k_means(x, centre, None)
    for k in label.unique().tolist():
        np.testing.assert_allclose(moved[k], x[label == k].mean(dim=0))
    np.testing.assert_array_equal(label, torch.cdist(x, moved).argmin(dim=1))


def test_parts_of_rows_change_nothing(monkeypatch):
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table = torch.zeros(50, 3)
    table[:5] = torch.tensor([-torch.inf, 0, -torch.inf])
    whole = settle(x, x[:3], LogEvidence(table))
    monkeypatch.setattr(file, "AT_ONCE", 7)
    parts = settle(x, x[:3], LogEvidence(table))
    np.testing.assert_allclose(parts[0], whole[0])
    np.testing.assert_allclose(parts[2], whole[2])
    assert (k_means(x, x[:3], LogEvidence(table))[1][:5] == 1).all()


def test_starts_are_rows_one_in_every_far_group():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(200) % 8
    x = 100 * torch.eye(8)[y] + torch.randn(200, 8, generator=generator)
    chosen = plus_plus(x, x[:1], 7, generator)  # one group has a centre already
    groups = torch.cdist(chosen, 100 * torch.eye(8)).argmin(dim=1)
    assert sorted(groups.tolist()) == [1, 2, 3, 4, 5, 6, 7]
    assert plus_plus(x, x[:1], 0, generator).shape == (0, 8)
    same = plus_plus(torch.ones(5, 2), torch.ones(1, 2), 3, generator)
    assert same.tolist() == [[1, 1]] * 3
