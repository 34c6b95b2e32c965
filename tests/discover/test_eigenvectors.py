"""Leading eigenvectors: those of the dense matrix, each as often as it occurs."""

import numpy as np
import torch

from anygrain.discover.eigenvectors import leading
from anygrain.learn.graph import neighbour_graph


def test_those_of_the_dense_matrix():
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(700, 3)).astype(np.float32))
    spread = neighbour_graph(x, 8).spread
    values, vectors = leading(spread, 12, 0)
    dense = spread.to_dense().double()
    expected = torch.linalg.eigvalsh(dense).flip(0)[:12]
    np.testing.assert_allclose(values, expected, atol=1e-4)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(12), atol=1e-4)
    np.testing.assert_allclose(dense @ vectors.double(), vectors.double() * values, atol=5e-2)


def test_an_eigenvalue_that_occurs_twenty_times():
    y = np.arange(800) % 20
    x = 50 * np.random.default_rng(0).normal(size=(20, 5))[y] + np.random.default_rng(1).normal(size=(800, 5))
    values, vectors = leading(neighbour_graph(torch.from_numpy(x.astype(np.float32)), 8).spread, 25, 0)
    assert (values > 1 - 1e-4).sum() == 20
    rows = torch.nn.functional.normalize(vectors[:, :20], dim=1)
    same = (rows @ rows.T).abs() > 0.5
    np.testing.assert_array_equal(same, y[:, None] == y)
