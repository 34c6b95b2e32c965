"""The first layer of bags and dropout, against torch's own."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from anygrain.data.bag_data import BagData
from anygrain.encoders.bags import BagEncoder, sparing
from anygrain.encoders.bags import standardised_linear as module
from anygrain.encoders.bags.dropout import Dropout
from anygrain.encoders.bags.standardised_linear import standardised_linear


@pytest.mark.parametrize("cached", [1, 20, 1 << 18])
def test_the_layer_is_that_of_standardised_numbers_with_its_gradients(cached, monkeypatch):
    monkeypatch.setattr(module, "CACHED", cached)
    generator = torch.Generator().manual_seed(0)
    features, mean, scale, weight, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((17, 5), 5, 5, (3, 5), 3)
    )
    asked = [features, weight, bias]
    for tensor in asked:
        tensor.requires_grad_()
    found = standardised_linear(features, mean, scale, weight, bias)
    wanted = functional.linear((features - mean) * scale, weight, bias)
    assert torch.allclose(found, wanted, atol=1e-12)
    out = torch.randn(17, 3, generator=generator, dtype=torch.float64)
    for a, b in zip(torch.autograd.grad(found, asked, out), torch.autograd.grad(wanted, asked, out), strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    assert standardised_linear(features[:0], mean, scale, weight, bias).shape == (0, 3)


def test_sixteen_bits_go_through_the_layer(monkeypatch):
    monkeypatch.setattr(module, "CACHED", 20)
    features, weight = torch.randn(30, 5), torch.randn(4, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = standardised_linear(features, torch.zeros(5), torch.ones(5), weight, torch.zeros(4))
    assert found.dtype == torch.bfloat16
    found.float().sum().backward()
    assert torch.allclose(weight.grad, features.sum(dim=0).expand(4, 5), atol=0.01)


def test_dropout_drops_its_share_and_keeps_the_mean():
    values = torch.ones(1001, 333, requires_grad=True)
    torch.manual_seed(0)
    for rate in (0.1, 0.25, 0.9):
        found = Dropout(rate)(values)
        kept = found != 0
        assert float(kept.float().mean()) == pytest.approx(1 - rate, abs=0.005)
        assert torch.allclose(found[kept], torch.tensor(1 / (1 - rate)), rtol=1e-4)
        assert abs(float((kept[1:] == kept[:-1]).float().mean()) - (rate**2 + (1 - rate) ** 2)) < 0.005
        assert torch.equal(torch.autograd.grad(found.sum(), values)[0] != 0, kept)
    torch.manual_seed(0)
    again = Dropout(0.1)(values)
    torch.manual_seed(0)
    assert torch.equal(again, Dropout(0.1)(values))
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0)(values) is values
    assert not Dropout(1.0)(values).any()


@pytest.mark.parametrize("name", ["transformer", "mamba", "re-embedding"])
def test_layers_that_are_computed_again_have_the_same_gradients(name, monkeypatch):
    bags = BagData.from_arrays([np.random.default_rng(m).standard_normal((30 + m, 4)) for m in range(3)])
    again = {"heads": 2, "kernel": 3, "regions": 2} if name == "re-embedding" else None
    encoder = BagEncoder("attention" if again else name, hidden=8, reembedding=again).learn(bags).train()
    arrays, found = encoder.inputs(bags)[torch.arange(3)], []
    for large in (1 << 22, 1):
        monkeypatch.setattr(sparing, "LARGE", large)
        torch.manual_seed(0)
        encoded = encoder.encode(arrays)
        found.append([encoded, *torch.autograd.grad(encoded.square().sum(), list(encoder.parameters()))])
    for kept, computed_again in zip(*found, strict=True):
        assert torch.allclose(kept, computed_again, atol=1e-5)
