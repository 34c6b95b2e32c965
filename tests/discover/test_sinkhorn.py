"""Sinkhorn's scaling: sums, limits, gradient."""

import torch

from anygrain.discover.sinkhorn import sinkhorn

G = torch.Generator().manual_seed(0)


def test_rows_and_columns_have_their_sums() -> None:
    q = sinkhorn(3 * torch.randn(12, 4, generator=G, dtype=torch.float64), 300).exp()
    assert torch.allclose(q.sum(dim=1), torch.ones(12).double(), atol=1e-9)
    assert torch.allclose(q.sum(dim=0), torch.full((4,), 3.0).double(), atol=1e-3)


def test_it_is_a_scaling_of_rows_and_columns() -> None:
    logits = torch.randn(6, 6, generator=G, dtype=torch.float64)  # not symmetric
    off = sinkhorn(logits, 500) - logits
    assert torch.allclose(off - off[:1] - off[:, :1] + off[0, 0], torch.zeros(6, 6).double(), atol=1e-9)


def test_uniform_stays_uniform_and_large_logits_do_not_overflow() -> None:
    assert torch.allclose(sinkhorn(torch.full((8, 4), 7.0), 3).exp(), torch.full((8, 4), 0.25))
    far = 1e4 * torch.eye(5)
    assert torch.allclose(sinkhorn(far, 5).exp(), torch.eye(5), atol=1e-6)


def test_what_is_impossible_stays_so() -> None:
    logits = torch.zeros(4, 4)
    logits[0, 1:] = -torch.inf
    q = sinkhorn(logits, 2000).exp()
    assert bool((q[0, 1:] == 0).all())
    assert torch.allclose(q.sum(dim=0), torch.ones(4), atol=1e-2)


def test_it_ends_within_the_tolerance() -> None:
    logits = torch.randn(30, 5, generator=G, dtype=torch.float64)
    assert bool(((sinkhorn(logits, 1000, tolerance=1e-4).exp().sum(dim=0) / 6 - 1).abs() < 2e-4).all())


def test_gradient() -> None:
    logits = torch.randn(5, 5, generator=G, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sinkhorn(x, 20), logits)
