"""What every encoder offers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """Rows of data to features (N, D). What it learns without labels stands in buffers, so that it is saved whole.

    An encoder gives `learn(data, seed)`, `forward(data) -> (N, D)` and, if it has settings beyond its tensors,
    `config()`, from which `type(encoder)(**config)` builds it again.
    """

    feature_dim: int

    def learn(self, data: Any, seed: int = 0) -> Encoder:
        """Learn means, scales, vocabularies from data without labels. Nothing by default."""
        return self

    def config(self) -> dict[str, Any]:
        """Constructor arguments, as JSON can hold them."""
        return {}

    def shapes_from(self, tensors: dict[str, Tensor]) -> None:
        """Give buffers the shapes of saved ones, so that they can be loaded."""
        for name, tensor in tensors.items():
            module: nn.Module = self
            *path, last = name.split(".")
            for part in path:
                module = module.get_submodule(part)
            module._buffers[last] = torch.empty_like(tensor)
