"""Digits and CIFAR-10 pictures of $ANYGRAIN_DATA, and how they are changed in training: the same for both sides."""

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Pictures:
    """Some training and test pictures.

    Attributes:
        name: "digits" or "cifar10".
        train, test: uint8 (N, channels, height, width).
        classes, test_classes: (N,), in 0..9.
        positive: the classes that are positive where there are two, as in the configurations of GLWS.
        target: the class that bags are asked for in multiple-instance learning, as there.
        mean, deviation: of grey values in 0..1.
        flips: whether a mirrored picture is of the same class.
    """

    name: str
    train: Tensor
    classes: Tensor
    test: Tensor
    test_classes: Tensor
    positive: tuple[int, ...]
    target: int
    mean: float
    deviation: float
    flips: bool

    @property
    def channels(self) -> int:
        return self.train.shape[1]

    def scaled(self, pictures: Tensor) -> Tensor:
        """uint8 to float32 of about unit variance."""
        return (pictures.float() / 255 - self.mean) / self.deviation


def load(name: str, *, train: int, test: int) -> Pictures:
    """Pictures drawn by a fixed seed: the same rows in every run.

    Raises:
        ValueError: ANYGRAIN_DATA is not set, or a name of no data set.
    """
    if "ANYGRAIN_DATA" not in os.environ:
        raise ValueError("ANYGRAIN_DATA is not set; expected the folder with digits_domains and cifar10_human")
    folder = Path(os.environ["ANYGRAIN_DATA"])
    generator = np.random.default_rng(0)
    if name == "digits":
        table = np.load(folder / "digits_domains" / "mnist_test.npz")
        chosen = generator.permutation(len(table["y"]))[: train + test]
        pictures, classes = table["X"][chosen][:, None], table["y"][chosen]
        style = {"positive": (0, 1, 2, 3, 4), "target": 9, "mean": 0.1307, "deviation": 0.3081, "flips": False}
    elif name == "cifar10":
        parts = [_cifar(folder / "cifar10_human" / f"{part}.parquet", count, generator) for part, count in
                 (("train", train), ("test", test))]  # fmt: skip
        pictures, classes = (np.concatenate([part[i] for part in parts]) for i in range(2))
        style = {"positive": (0, 1, 8, 9), "target": 3, "mean": 0.4734, "deviation": 0.2516, "flips": True}
    else:
        raise ValueError(f"{name!r} is no data set; expected digits or cifar10")
    shown, truth = torch.from_numpy(pictures), torch.from_numpy(classes.astype(np.int64))
    return Pictures(name, shown[:train], truth[:train], shown[train:], truth[train:], **style)


def _cifar(path: Path, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(path, columns=["image", "label"])
    chosen = np.sort(generator.permutation(len(table))[:count])
    chosen = chosen[generator.permutation(count)]
    shown = table.take(chosen)
    pictures = [np.asarray(Image.open(io.BytesIO(cell.as_py())).convert("RGB")) for cell in shown["image"]]
    return np.stack(pictures).transpose(0, 3, 1, 2), shown["label"].to_numpy()


def weak_view(pictures: Tensor, flips: bool, generator: torch.Generator) -> Tensor:
    """Shifted by up to an eighth of the width, borders mirrored, and flipped half of the time where flips are harmless.

    Args:
        pictures: float (B, channels, height, width).
        flips: whether to flip.
        generator: on the CPU.
    """
    count, _, height, width = pictures.shape
    reach = width // 8 if flips else 2
    padded = F.pad(pictures, (reach,) * 4, mode="reflect")
    down, right = (torch.randint(0, 2 * reach + 1, (count, 1), generator=generator) for _ in range(2))
    rows, columns = down + torch.arange(height), right + torch.arange(width)
    if flips:
        turned = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(turned, columns.flip(1), columns)
    return padded[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def strong_view(pictures: Tensor, flips: bool, generator: torch.Generator) -> Tensor:
    """A weak view, turned and stretched a little, of other contrast and brightness, with a square cut out.

    Args:
        pictures: float (B, channels, height, width).
        flips: whether to flip.
        generator: on the CPU.
    """
    seen = weak_view(pictures, flips, generator)
    count, _, height, width = seen.shape
    angle, shear, *stretch = ((torch.rand(4, count, generator=generator) * 2 - 1) * torch.tensor(
        [0.35, 0.2, 0.15, 0.15])[:, None]).unbind()  # fmt: skip
    cos, sin = angle.cos(), angle.sin()
    still = torch.zeros(count)
    turn = torch.stack([
        torch.stack([cos * (1 + stretch[0]), -sin + shear, still], 1),
        torch.stack([sin, cos * (1 + stretch[1]), still], 1),
    ], 1)  # fmt: skip
    grid = F.affine_grid(turn, list(seen.shape), align_corners=False)
    seen = F.grid_sample(seen, grid, padding_mode="border", align_corners=False)
    contrast, brightness = (torch.rand(2, count, 1, 1, 1, generator=generator) * 2 - 1).unbind()
    seen = seen * (1 + 0.4 * contrast) + 0.3 * brightness
    side = width * 3 // 8
    top, left = (torch.randint(0, height - side // 2, (count, 1), generator=generator) for _ in range(2))
    across, along = torch.arange(height)[None], torch.arange(width)[None]
    inside = ((across >= top) & (across < top + side))[:, :, None] & ((along >= left) & (along < left + side))[:, None]
    return seen.masked_fill(inside[:, None], 0.0)
