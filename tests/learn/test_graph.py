"""The neighbour graph against its definition."""

import pytest
import torch

from anygrain.learn.graph import nearest, neighbour_graph


def dense_graph(z, k):
    distance = torch.cdist(z, z)
    own = distance + torch.diag(torch.full((len(z),), torch.inf, dtype=z.dtype))
    order = own.argsort(dim=1)[:, :k]
    scale = own.gather(1, order)[:, -1]
    weight = torch.zeros(len(z), len(z), dtype=z.dtype)
    for i in range(len(z)):
        for j in order[i].tolist():
            weight[i, j] = torch.exp(-(distance[i, j] ** 2) / (scale[i] * scale[j]))
    return torch.maximum(weight, weight.T)


@pytest.mark.parametrize("chunk", [7, 1000])
def test_weights_are_those_of_the_definition(chunk):
    torch.manual_seed(0)
    z = torch.randn(30, 4, dtype=torch.float64)
    expected = dense_graph(z, 5)
    degree = expected.sum(dim=1)
    graph = neighbour_graph(z, 5, chunk=chunk)
    assert torch.allclose(graph.walk.to_dense(), expected / degree[:, None], atol=1e-9)
    assert torch.allclose(graph.spread.to_dense(), expected / (degree[:, None] * degree).sqrt(), atol=1e-9)


def test_known_pairs_become_edges():
    torch.manual_seed(0)
    z = torch.randn(30, 4, dtype=torch.float64)
    graph = neighbour_graph(z, 3, edges=torch.tensor([[0, 7], [3, 4]]), edge_weight=3.0)
    expected = dense_graph(z, 3)
    for i, j in ((0, 7), (3, 4)):
        expected[i, j] = expected[j, i] = 3.0
    assert torch.allclose(graph.walk.to_dense(), expected / expected.sum(dim=1, keepdim=True), atol=1e-9)


def test_fewer_rows_than_neighbours_and_equal_rows():
    graph = neighbour_graph(torch.zeros(4, 2), 10)
    assert torch.allclose(graph.walk.to_dense().sum(dim=1), torch.ones(4))
    square, index = nearest(torch.arange(5.0)[:, None], 1)
    assert torch.allclose(square, torch.ones(5, 1))
    assert index[0, 0] == 1
    assert index[4, 0] == 3
