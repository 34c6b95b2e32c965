"""GEDI: values of its terms at their limits, its sampler against quadrature, its gradient on a grid."""

import math

import pytest
import torch

from anygrain.discover.gedi import GEDI, EnergyNetwork, even_use, invariance
from anygrain.discover.langevin import Replay, langevin
from anygrain.discover.network import CosineHead
from anygrain.labels import Exact

G = torch.Generator().manual_seed(0)


def test_values_at_the_limits() -> None:
    c = 4
    one = (torch.eye(c).repeat(3, 1) + 1e-12).log().double()
    assert float(invariance(one, one) + even_use(one)) == pytest.approx(-math.log(c), abs=1e-6)
    even = torch.full((8, c), -math.log(c), dtype=torch.float64)
    assert float(invariance(even, even) + even_use(even)) == pytest.approx(-2 * math.log(c), abs=1e-9)
    same = (torch.eye(c)[[0]].repeat(12, 1) + 1e-30).log().double()
    assert float(invariance(same, same) + even_use(same)) < -20


def test_invariance_by_hand() -> None:
    p, q = (torch.randn(5, 3, generator=G, dtype=torch.float64).log_softmax(dim=1) for _ in range(2))
    total = sum(float(q[i, y].exp() * p[i, y] + p[i, y].exp() * q[i, y]) for i in range(5) for y in range(3))
    assert float(invariance(p, q)) == pytest.approx(total / 10, abs=1e-9)


def test_energy_is_that_of_the_scores() -> None:
    network = EnergyNetwork(CosineHead(torch.randn(3, 4, generator=G)))
    x = torch.randn(6, 4, generator=G)
    arrays = {"features": x}
    assert torch.allclose(network.energy(arrays), -network.logits(arrays).exp().sum(dim=1).log(), atol=1e-5)
    assert torch.allclose(network.scores(x), network.logits(arrays))


def test_chains_come_to_the_density() -> None:
    def energy(x: torch.Tensor) -> torch.Tensor:
        return (-torch.stack([-((x[:, 0] - 1) ** 2), math.log(2) - (x[:, 0] + 1) ** 2 / 0.5]).logsumexp(dim=0)) * 1.0

    a = 0.02
    x = langevin(energy, 2 * torch.randn(20_000, 1, generator=G), 600, a, math.sqrt(a), G)
    grid = torch.linspace(-4, 4, 41)
    middle = (grid[1:] + grid[:-1]) / 2
    density = (-energy(middle[:, None])).exp()
    density = density / density.sum()
    found = torch.histogram(x[:, 0], grid).hist / len(x)
    assert float((found - density).abs().sum() / 2) < 0.05


def test_gradient_of_the_likelihood_on_a_grid() -> None:
    grid = torch.linspace(-2, 2, 60, dtype=torch.float64)[:, None]
    data = torch.tensor([0, 7, 7, 33, 50])
    weight = torch.randn(3, 1, generator=G, dtype=torch.float64)
    shift = torch.randn(3, generator=G, dtype=torch.float64)

    def energy(w: torch.Tensor) -> torch.Tensor:
        return -(torch.tanh(grid @ w.T) + shift).logsumexp(dim=1)

    def likelihood(w: torch.Tensor) -> torch.Tensor:
        return (-energy(w)).log_softmax(dim=0)[data].mean()

    w = weight.clone().requires_grad_()
    p = (-energy(w)).softmax(dim=0).detach()
    contrast = -energy(w)[data].mean() + (p * energy(w)).sum()  # data against samples, held fixed
    (slope,) = torch.autograd.grad(contrast, w)
    step = 1e-6
    for k in range(3):
        ahead, back = weight.clone(), weight.clone()
        ahead[k], back[k] = ahead[k] + step, back[k] - step
        by_steps = float(likelihood(ahead) - likelihood(back)) / (2 * step)
        assert float(slope[k]) == pytest.approx(by_steps, abs=1e-7)


def test_chains_stay_in_the_box_and_go_on() -> None:
    chains = Replay(torch.tensor([0.0, -1]), torch.tensor([1.0, 2]), 50, 0.0, G)
    place, rows = chains.draw(20)
    assert torch.equal(rows, chains.rows[place])
    chains.put(place, rows + 10)
    assert torch.equal(chains.rows[place], torch.tensor([[1.0, 2]]).expand(20, -1))


def test_strange_rows_have_high_energy() -> None:
    label = torch.arange(3).repeat_interleave(80)
    x = torch.randn(240, 4, generator=G) * 0.2 + 2 * torch.eye(4)[label]
    told = torch.where((label == 0) | (label == 1), label, -1)
    told[torch.arange(240) % 2 == 0] = -1
    found = GEDI(hidden=(32, 16), epochs=15, steps=5, batch_size=120, bootstrap=0).fit(x, Exact(told, 2), 3)
    labels = torch.from_numpy(found.labels_)
    assert bool((labels[told >= 0] == told[told >= 0]).all())
    assert float((labels == label).float().mean()) > 0.9
    assert found.outlier_scores_.shape == (240,)
    far = found.outlier_scores((4 * torch.rand(200, 4, generator=G) - 1).numpy())
    larger = torch.from_numpy(far)[:, None] > torch.from_numpy(found.outlier_scores_)
    assert float(larger.float().mean()) > 0.75
    assert torch.allclose(torch.from_numpy(found.outlier_scores(x.numpy())), torch.from_numpy(found.outlier_scores_))


def test_without_a_start_or_a_density() -> None:
    label = torch.arange(2).repeat_interleave(80)
    x = torch.randn(160, 4, generator=G) * 0.2 + 2 * torch.eye(4)[label]
    found = GEDI(start=None, generative=0, hidden=(32, 16), epochs=40, batch_size=80, bootstrap=0).fit(x, None, 2)
    labels = torch.from_numpy(found.labels_)
    assert float((labels == label).float().mean()) in (0.0, 1.0)
    assert found.chain_gap_ == 0
