"""The part of Lightning Fabric's interface that the loop uses, in plain torch for one device."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Fabric(Protocol):
    """What the loop asks of a fabric: a `lightning.Fabric` that was launched, or `OneDevice`."""

    @property
    def global_rank(self) -> int: ...

    @property
    def world_size(self) -> int: ...

    def setup(self, module: nn.Module, *optimizers: torch.optim.Optimizer) -> Any: ...

    def backward(self, tensor: Tensor) -> None: ...


class OneDevice:
    """Everything where it is already: no processes, no precision plug-in, no import of Lightning."""

    global_rank = 0
    world_size = 1

    def setup(self, module: nn.Module, *optimizers: torch.optim.Optimizer) -> Any:
        return (module, *optimizers)

    def backward(self, tensor: Tensor) -> None:
        tensor.backward()
