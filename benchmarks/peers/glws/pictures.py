"""Digits and CIFAR-10 pictures of $ANYGRAIN_DATA, and how they are changed in training: the same for both sides."""

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from anygrain.encoders.augment_images import ImageAugmentation
from anygrain.encoders.images import as_fractions


@dataclass(frozen=True)
class Pictures:
    """Some training and test pictures.

    Attributes:
        name: "digits" or "cifar10".
        train, test: uint8 (N, channels, height, width).
        classes, test_classes: (N,), in 0..9.
        positive: the classes that are positive where there are two, as in the configurations of GLWS.
        target: the class that bags are asked for in multiple-instance learning, as there.
        augmentation: the changes in training.
        mean, deviation: (channels,), of the training pictures as fractions.
    """

    name: str
    train: Tensor
    classes: Tensor
    test: Tensor
    test_classes: Tensor
    positive: tuple[int, ...]
    target: int
    augmentation: ImageAugmentation
    mean: Tensor
    deviation: Tensor

    @property
    def channels(self) -> int:
        return self.train.shape[1]

    def scaled(self, pictures: Tensor) -> Tensor:
        """Float32 of mean 0 and deviation 1 in every channel of the training pictures."""
        return (as_fractions(pictures) - self.mean[:, None, None]) / self.deviation[:, None, None]

    def weak(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Uint8 (B, channels, height, width), shifted a little, colour pictures flipped half of the time."""
        return self.augmentation.weak({"image": pictures}, generator)["image"]

    def strong(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """Fractions (B, channels, height, width) of pictures also turned, sheared, recoloured, with a hole."""
        return self.augmentation.strong({"image": pictures}, generator)["image"]


def load(name: str, *, train: int, test: int, shrink: int = 1) -> Pictures:
    """Pictures drawn by a fixed seed: the same rows in every run.

    Args:
        name: "digits" or "cifar10".
        train, test: how many.
        shrink: factor by which sides are made smaller.

    Raises:
        ValueError: ANYGRAIN_DATA is not set, or a name of no data set.
    """
    if "ANYGRAIN_DATA" not in os.environ:
        raise ValueError("ANYGRAIN_DATA is not set; expected the folder with digits_domains and cifar10_human")
    folder = Path(os.environ["ANYGRAIN_DATA"])
    generator = np.random.default_rng(0)
    positive: tuple[int, ...]
    if name == "digits":
        table = np.load(folder / "digits_domains" / "mnist_test.npz")
        chosen = generator.permutation(len(table["y"]))[: train + test]
        pictures, classes = table["X"][chosen][:, None], table["y"][chosen]
        positive, target = (0, 1, 2, 3, 4), 9
    elif name == "cifar10":
        source = folder / "cifar10_human"
        parts = [
            _cifar(source / f"{part}.parquet", count, generator) for part, count in (("train", train), ("test", test))
        ]
        pictures, classes = (np.concatenate([part[i] for part in parts]) for i in range(2))
        positive, target = (0, 1, 8, 9), 3
    else:
        raise ValueError(f"{name!r} is no data set; expected digits or cifar10")
    shown, truth = torch.from_numpy(pictures), torch.from_numpy(classes.astype(np.int64))
    if shrink > 1:
        shown = avg_pool2d(shown.float(), shrink).round().to(torch.uint8)
    fractions = as_fractions(shown[:train])
    mean, deviation = fractions.mean(dim=(0, 2, 3)), fractions.std(dim=(0, 2, 3))
    augmentation = ImageAugmentation(flip=shown.shape[1] == 3, fill=mean.tolist())
    return Pictures(
        name,
        shown[:train],
        truth[:train],
        shown[train:],
        truth[train:],
        positive,
        target,
        augmentation,
        mean,
        deviation,
    )


def _cifar(path: Path, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(path, columns=["image", "label"])
    shown = table.take(generator.permutation(len(table))[:count])
    pictures = [np.asarray(Image.open(io.BytesIO(cell.as_py())).convert("RGB")) for cell in shown["image"]]
    return np.stack(pictures).transpose(0, 3, 1, 2), shown["label"].to_numpy()
