"""Coding rates: identities and limits; memberships; classes of landmarks."""

import pytest
import torch
from torch.nn.functional import normalize, one_hot

from anygrain.discover.coding_rate import (
    MLC,
    coding_rate,
    member_coding_rate,
    membership,
    numerical_rank,
    spectral_space,
)
from anygrain.labels import Coarse, Exact

G = torch.Generator().manual_seed(0)
EPS = 0.3


def features(n: int, d: int) -> torch.Tensor:
    return normalize(torch.randn(n, d, generator=G, dtype=torch.float64), dim=1)


def test_by_rows_or_by_columns() -> None:
    z = features(9, 4)
    n, d = z.shape
    by_rows = torch.logdet(torch.eye(n) + d / (n * EPS) * z @ z.T)
    assert float(coding_rate(z, EPS)) == pytest.approx(float(by_rows), abs=1e-9)


def test_even_membership_reduces_nothing() -> None:
    z = features(12, 5)
    gamma = torch.full((12, 12), 1 / 12, dtype=torch.float64)
    assert float(member_coding_rate(z, gamma, EPS)) == pytest.approx(float(coding_rate(z, EPS)), abs=1e-9)


def test_membership_by_classes_gives_the_supervised_rate() -> None:
    z, label = features(12, 5), torch.arange(12) % 3
    label[0] = 1
    share = one_hot(label).double()
    gamma = share / share.sum(dim=0) @ share.T
    expected = sum(float(share[:, k].sum()) / 12 * float(coding_rate(z[label == k], EPS)) for k in range(3))
    assert float(member_coding_rate(z, gamma, EPS)) == pytest.approx(expected, abs=1e-9)


def test_columns_are_the_memberships() -> None:
    z, gamma = features(7, 3), torch.rand(7, 7, generator=G).double()
    total = 0.0
    for j in range(7):
        second = sum(gamma[i, j] * torch.outer(z[i], z[i]) for i in range(7))
        total += float(torch.logdet(torch.eye(3) + 3 / EPS * second)) / 7
    assert float(member_coding_rate(z, gamma, EPS)) == pytest.approx(total, abs=1e-9)


def test_memberships_are_doubly_stochastic_and_keep_rows_apart() -> None:
    c = features(20, 6)
    gamma = membership(c, 0.1, steps=500)
    assert torch.allclose(gamma.sum(dim=0), torch.ones(20).double(), atol=1e-4)
    assert torch.allclose(gamma.sum(dim=1), torch.ones(20).double(), atol=1e-4)
    dense, sparse = (-(g * g.log()).sum() for g in (membership(c, 1.0), gamma))
    assert float(dense) > float(sparse)
    apart = torch.zeros(20, 20).bool()
    apart[:10, 10:] = apart[10:, :10] = True
    assert float(membership(c, 0.1, apart)[apart].max()) < 1e-30


def test_gradient() -> None:
    c = torch.randn(5, 3, generator=G, dtype=torch.float64, requires_grad=True)

    def loss(x: torch.Tensor) -> torch.Tensor:
        z = normalize(x, dim=1)
        return member_coding_rate(z, membership(z, 0.5), EPS) - coding_rate(z, EPS)

    assert torch.autograd.gradcheck(loss, c)


def test_numerical_rank() -> None:
    assert numerical_rank(torch.diag(torch.tensor([10.0, 10, 1, 1]))) == 2
    assert numerical_rank(torch.eye(6)) == 6


def test_blocks_are_told_apart_by_eigenvectors() -> None:
    label = torch.arange(9) // 3
    gamma = (label[:, None] == label).double() / 3
    space = spectral_space(gamma, 3)
    assert torch.allclose(space @ space.T, 3 * gamma, atol=1e-9)


def blobs() -> tuple[torch.Tensor, torch.Tensor]:
    label = torch.arange(4).repeat_interleave(40)
    return torch.randn(160, 8, generator=G) * 0.3 + 3 * torch.eye(8)[label], label


def test_classes_are_found_and_known_ones_stay() -> None:
    x, label = blobs()
    told = torch.where((label < 2) & (torch.arange(160) % 3 == 0), label, -1)
    found = MLC(dimensions=8, epochs=3, start_epochs=3, bootstrap=0).fit(x, Exact(told, 2), 4)
    labels = torch.from_numpy(found.labels_)
    assert bool((labels[label < 2] == label[label < 2]).all())
    assert len(set(labels[label == 2].tolist())) == 1
    assert (found.predict(x.numpy()) == found.labels_).mean() > 0.95
    assert 1 <= found.rank_ <= 8


def test_coarse_classes_are_divided() -> None:
    x, label = blobs()
    found = MLC(dimensions=8, epochs=2, start_epochs=2, bootstrap=0).fit(
        x, Coarse(label // 2, torch.eye(2)), {0: 2, 1: 2}
    )
    assert (found.node_[found.labels_] == (label // 2).numpy()).all()
