"""The part of Lightning Fabric's interface that the loop uses, in plain torch for one device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from anygrain.labels import LabelError

PRECISIONS = ("32", "bf16-mixed", "16-mixed")


class Fabric(Protocol):
    """What the loop asks of a fabric: a `lightning.Fabric` that was launched, or `OneDevice`."""

    @property
    def global_rank(self) -> int: ...

    @property
    def world_size(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def setup(self, module: nn.Module, *optimizers: torch.optim.Optimizer) -> Any: ...

    def backward(self, tensor: Tensor) -> None: ...

    def clip_gradients(self, module: Any, optimizer: Any, *, max_norm: float) -> Any: ...

    def no_backward_sync(self, module: Any, enabled: bool = True) -> AbstractContextManager[Any]: ...


class OneDevice:
    """Everything where it is already: no processes, no precision plug-in, no import of Lightning."""

    global_rank = 0
    world_size = 1

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def setup(self, module: nn.Module, *optimizers: torch.optim.Optimizer) -> Any:
        return (module, *optimizers)

    def backward(self, tensor: Tensor) -> None:
        tensor.backward()

    def clip_gradients(self, module: nn.Module, optimizer: Any, *, max_norm: float) -> Tensor:
        """As torch's `clip_grad_norm_`, without a walk through the module in every step."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not gradients:
            return torch.zeros(())
        norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def no_backward_sync(self, module: nn.Module, enabled: bool = True) -> AbstractContextManager[None]:
        return nullcontext()


def device_of(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU if there is one.

    Raises:
        LabelError: a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise LabelError(
            f'device "{name}" cannot be used here: {str(error).splitlines()[0]}. Expected "auto" or "cpu"'
        ) from error
    return torch.device(name)


def precision_state(fabric: Fabric) -> dict[str, Tensor]:
    """What a fabric keeps for its precision, such as the scale of gradients of 16 bits; nothing in full precision."""
    plugin = getattr(getattr(fabric, "strategy", None), "precision", None)
    return {} if plugin is None else {key: torch.as_tensor(value) for key, value in plugin.state_dict().items()}


def load_precision_state(fabric: Fabric, state: dict[str, Tensor]) -> None:
    """Go on from what `precision_state` gave; a fabric of another precision than then keeps its own."""
    if state and precision_state(fabric).keys() == state.keys():
        strategy: Any = getattr(fabric, "strategy")  # noqa: B009 - no part of the protocol
        strategy.precision.load_state_dict({key: value.item() for key, value in state.items()})


def fabric_for(device: torch.device, precision: str) -> Fabric:
    """A fabric of one device: plain torch for full precision, Lightning's for the others in `PRECISIONS`.

    Raises:
        LabelError: another precision without Lightning, or one that it does not know.
    """
    if precision == "32":
        return OneDevice(device)
    try:
        import lightning.fabric as lightning
    except ImportError as error:
        raise LabelError(f'precision "{precision}" needs Lightning: pip install "anygrain[train]"') from error
    try:
        one: Any = 1 if device.index is None else [device.index]
        options: dict[str, Any] = {"accelerator": device.type, "devices": one, "precision": precision}
        fabric: Any = lightning.Fabric(**options)
    except ValueError as error:
        raise LabelError(f'precision "{precision}" cannot be used: {str(error).splitlines()[0]}') from error
    fabric.launch()
    found: Fabric = fabric
    return found
