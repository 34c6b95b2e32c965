"""What an encoder offers that is trained with the head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor

from anygrain.encoders.encoder import Encoder

#: rows ready for a network, by name of what they hold ("image", "tokens", "numbers", ...), first axis the rows
Arrays = dict[str, Tensor]


class Inputs(Protocol):
    """Rows of data ready for a network: a length, and the arrays of some rows on the CPU.

    Reading may happen when rows are asked for (pictures that lie in files), so that memory does not grow with them.
    Inputs whose rows differ much in size (bags) also have `costs`, (rows,): the share of each row in what may go
    through a network at once; see `parts_of`.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor) -> Arrays: ...


class InMemory:
    """Arrays of all rows that are held as they are.

    Args:
        **arrays: tensors with a row per row of data.
    """

    def __init__(self, **arrays: Tensor) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, rows: Tensor) -> Arrays:
        return {name: array[rows.to(array.device)] for name, array in self.arrays.items()}


class Augmentation:
    """How rows are changed in training so that their class stays: two strengths.

    `weak` moves a row a little; what the model says of it is its belief. `strong` changes it much: the belief about the
    weak view is the target there, which is how rows without labels teach (FixMatch, Sohn et al. 2020). Randomness comes
    from the generator, on the CPU. Both leave what they are given untouched, and keep the types of the arrays: the two
    views of a batch go through the network side by side.
    """

    def weak(self, arrays: Arrays, generator: torch.Generator) -> Arrays:
        return arrays

    def strong(self, arrays: Arrays, generator: torch.Generator) -> Arrays:
        raise NotImplementedError


@dataclass(frozen=True)
class Training:
    """How an encoder likes to be trained where the user does not say.

    Attributes:
        learning_rate: highest rate of AdamW, reached after a short warm-up and brought down along a cosine.
        batch_size: rows at once.
        steps: steps of a whole training, which set the number of epochs.
        weight_decay: of AdamW.
    """

    learning_rate: float = 1e-3
    batch_size: int = 64
    steps: int = 2000
    weight_decay: float = 0.01


class TrainableEncoder(Encoder):
    """Rows of data to features (N, D) by a network whose parameters are trained with the head.

    A concrete encoder gives

    - `learn(data, seed)`: vocabularies, means, image sizes, from data without labels; then `build()`s its network with
      initial weights drawn from the seed (`with seeded(seed): self.build()`);
    - `build()`: the network for what has been learnt (an encoder that is loaded is built from its `config()` alone);
    - `inputs(data) -> Inputs`: rows made ready, nothing random;
    - `encode(arrays) -> (B, D)`: features of a batch, with gradient, on the device of the parameters;
    - `augmentation() -> Augmentation | None`: the default changes in training, and `training`, its defaults.

    Normalisation uses no statistics of the batch (group or layer normalisation): a set larger than a batch is trained
    in parts, and the sum of the parts must be the whole.
    """

    training_defaults = Training()
    #: whether it comes with weights that say something of rows before it is trained here
    has_pretrained = False

    def build(self) -> None:
        raise NotImplementedError

    def inputs(self, data: Any) -> Inputs:
        raise NotImplementedError

    def encode(self, arrays: Arrays) -> Tensor:
        raise NotImplementedError

    def augmentation(self) -> Augmentation | None:
        """What is done to rows in training unless the user says otherwise; None for nothing."""
        return None

    def learning_rates(self, rate: float) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser, each with its rate; one group by default."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "lr": rate}]

    def shapes_from(self, tensors: dict[str, Tensor]) -> None:
        self.build()

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(self, data: Any) -> Tensor:
        return in_batches(self.encode, self.inputs(data), self.training_defaults.batch_size * 4, self)


def in_batches(
    compute: Callable[[Arrays], Tensor], rows: Inputs, size: int, network: torch.nn.Module, on: Tensor | None = None
) -> Tensor:
    """What `compute` gives for all rows, or those in `on` (R,), size at a time, in evaluation mode, on the CPU.

    What has one entry per row is written into its place at once, so that nothing is held twice; of bags there may be
    one per instance.
    """
    chosen = torch.arange(len(rows)) if on is None else on.cpu()
    device = next(chain(network.parameters(), network.buffers())).device
    was_training = network.training
    network.eval()
    found: Tensor | None = None
    ragged: list[Tensor] = []
    done = 0
    try:
        with torch.no_grad():
            for part in parts_of(rows, chosen, size):
                here = compute(to_device(rows[part], device)).cpu()
                here = here if here.dtype == torch.float64 else here.float()
                if len(here) != len(part) or ragged:
                    ragged.append(here)
                    continue
                if found is None:
                    found = torch.empty(len(chosen), *here.shape[1:], dtype=here.dtype)
                found[done : done + len(part)] = here
                done += len(part)
    finally:
        network.train(was_training)
    if not ragged:
        assert found is not None
        return found
    return torch.cat(ragged if found is None else [found[:done], *ragged])


def parts_of(rows: Inputs, chosen: Tensor, size: int) -> list[Tensor]:
    """Chosen rows (R,), in order, in parts of at most `size` that can go through a network at once.

    Where rows have costs, those of a part come to at most 1, or it is a single row: a row is never cut.
    """
    costs: Tensor | None = getattr(rows, "costs", None)
    if costs is None or len(chosen) == 0:
        return list(chosen.split(size))
    sizes, spent = [0], 0.0
    for cost in costs[chosen].tolist():
        spent += cost
        if sizes[-1] and (spent > 1 or sizes[-1] == size):
            sizes.append(0)
            spent = cost
        sizes[-1] += 1
    return list(chosen.split(sizes))


def to_device(arrays: Arrays, device: torch.device) -> Arrays:
    """The same arrays on a device."""
    return {name: array.to(device, non_blocking=True) for name, array in arrays.items()}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws of torch's global generator come from a seed inside the block; its state is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
