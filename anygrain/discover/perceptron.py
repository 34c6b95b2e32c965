"""Layers that learn an own space for rows of fixed features."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from anygrain.encoders.trainable import seeded


class Scaled(nn.Module):
    """Features (B, D) about 0, of mean square 1; one scale for all dimensions.

    Args:
        features: (N, D) of which middle and scale are learnt.
    """

    middle: Tensor
    scale: Tensor

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.register_buffer("middle", features.mean(dim=0))
        self.register_buffer("scale", features.std(dim=0, correction=0).square().mean().sqrt().clamp(min=1e-12))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.middle) / self.scale


def perceptron(widths: list[int], seed: int) -> nn.Sequential:
    """Linear layers between widths, a ReLU after each but the last."""
    layers: list[nn.Module] = []
    with seeded(seed):
        for wide, narrow in itertools.pairwise(widths):
            layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def body_of(features: Tensor, widths: list[int], seed: int) -> nn.Sequential:
    """Scaled features (B, D) through a perceptron of these widths after D; ReLU at the end of all but the last."""
    return nn.Sequential(Scaled(features), perceptron([features.shape[1], *widths], seed))
