"""Small image networks that are trained with the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from anygrain.encoders.augment_images import ImageAugmentation
from anygrain.encoders.images import (
    LONGEST,
    ArrayImages,
    ReadImages,
    as_fractions,
    head_of,
    is_image,
    moments,
    refuse_unreadable,
    rows_of,
    sample_of,
    unreadable_in,
)
from anygrain.encoders.trainable import Arrays, Inputs, TrainableEncoder, Training, seeded
from anygrain.labels import LabelError

Unreadable = Literal["stop", "blank"]
REMEDY = 'Repair or drop these rows, or choose unreadable="blank" to see them as images of one colour'


class ImageEncoder(TrainableEncoder):
    r"""Images through a network: what all image encoders share.

    Data are arrays (N, H, W), (N, H, W, C) or (N, C, H, W) of uint8 or of fractions, or lists of Pillow images, of
    paths, of encoded bytes or of ``{"bytes": ..., "path": ...}``. Files and bytes are decoded when a batch asks for
    them. Every image is stretched to one size, and its channels are standardised: :math:`(x_c - m_c) / s_c`.

    Args:
        size: side, or height and width, that images are brought to; the median of those seen when not given, scaled
            down where the longer side is above 96.
        unreadable: "stop" refuses images that cannot be read before training starts; "blank" sees them as images of
            the mean colour, and lists their rows in `unreadable_`.
        channels: 1 or 3, or what arrays have; learnt when not given: 3 where any image has colour.

    Attributes:
        unreadable_: rows of the last data that could not be read.
    """

    mean: Tensor
    deviation: Tensor
    edge: Tensor
    network: nn.Module

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        unreadable: Unreadable = "stop",
        channels: int | None = None,
    ) -> None:
        super().__init__()
        if unreadable not in get_args(Unreadable):
            raise LabelError(f'unreadable is "{unreadable}"; expected "stop" or "blank"')
        self.size = None if size is None else _size(size)
        self.unreadable: Unreadable = unreadable
        self.channels = channels
        self.unreadable_: list[int] = []
        self.register_buffer("mean", torch.zeros(channels or 0))
        self.register_buffer("deviation", torch.ones(channels or 0))
        self.register_buffer("edge", torch.zeros(channels or 0))

    def config(self) -> dict[str, Any]:
        size = None if self.size is None else list(self.size)
        return {"size": size, "unreadable": self.unreadable, "channels": self.channels}

    def learn(self, data: Any, seed: int = 0) -> ImageEncoder:
        images, rows = self._looked_at(data, seed)
        self.mean, deviation, self.edge = moments(images, rows)
        self.deviation = torch.where(deviation > 1 / 255, deviation, 1.0)
        with seeded(seed):
            self.build()
        return self

    def _looked_at(self, data: Any, seed: int) -> tuple[Inputs, Tensor]:
        """A sample of the data, and the rows of it that can be read; sets channels and size."""
        rows = self._rows(data)
        chosen = sample_of(len(rows), seed)
        if not isinstance(rows, list):
            sample = ArrayImages(rows, self.channels)
            self.channels = sample.array.shape[1]
            self.size = self.size or _at_most(sample.size)
            return ArrayImages(rows, self.channels, self.size), chosen
        heads: dict[int, tuple[int, int, int]] = {}
        for row in chosen.tolist():
            try:
                heads[row] = head_of(rows[row])
            except LabelError:
                raise
            except Exception:  # whatever is wrong with a file: `inputs` says so of all of them
                continue
        if not heads:
            refuse_unreadable(rows, unreadable_in(rows), REMEDY)
        shape = torch.tensor(list(heads.values()))
        self.channels = self.channels or int(shape[:, 2].max())
        height, width = shape[:, :2].median(dim=0).values.tolist()
        self.size = self.size or _at_most((height, width))
        found = self._read([rows[row] for row in heads], self.channels, self.size, "blank")
        if len(found.unreadable) == len(found):
            refuse_unreadable(rows, unreadable_in(rows), REMEDY)
        return found, torch.tensor([at for at in range(len(found)) if at not in found.unreadable])

    def inputs(self, data: Any) -> Inputs:
        if self.channels is None or self.size is None:
            raise LabelError(f"{type(self).__name__} has not seen any image; call learn first")
        rows = self._rows(data)
        if not isinstance(rows, list):
            self.unreadable_ = []
            return ArrayImages(rows, self.channels, self.size)
        read = self._read(rows, self.channels, self.size, self.unreadable)
        self.unreadable_ = sorted(read.unreadable)
        return read

    def _rows(self, data: Any) -> Any:
        if not is_image(data):
            raise LabelError(
                f"{type(self).__name__} was given {type(data).__name__}; expected images: an array (N, H, W), "
                "(N, H, W, C) or (N, C, H, W), or a list of paths, bytes or Pillow images"
            )
        return rows_of(data)

    def _blank(self, channels: int) -> Tensor:
        colour = self.mean.cpu() if len(self.mean) == channels else torch.full((channels,), 0.5)
        return (255 * colour).round().clamp(0, 255).to(torch.uint8)

    def _read(self, rows: list[Any], channels: int, size: tuple[int, int], unreadable: Unreadable) -> ReadImages:
        """All rows, each decoded once.

        Raises:
            LabelError: images that cannot be read, unless they may be blank.
        """
        read = ReadImages(rows, channels, size, self._blank(channels)).read_all()
        if unreadable == "stop":
            refuse_unreadable(rows, read.unreadable, REMEDY)
        return read

    def standardised(self, arrays: Arrays) -> Tensor:
        """Images (B, C, H, W) as the network takes them."""
        image = as_fractions(arrays["image"])
        scaled = (image - self.mean[:, None, None]) / self.deviation[:, None, None]
        return scaled.contiguous(memory_format=torch.channels_last)

    def encode(self, arrays: Arrays) -> Tensor:
        out: Tensor = self.network(self.standardised(arrays))
        return out

    def augmentation(self) -> ImageAugmentation:
        """Shifts, and for colour mirror images; strongly also turns, colours and holes in the colour of the edges."""
        photographs = self.channels == 3
        return ImageAugmentation(
            flip=photographs, edge="mirror" if photographs else "fill", fill=self.edge.cpu().tolist()
        )


class Convolutional(ImageEncoder):
    """A plain convolutional network: per width a convolution of 3 x 3, half the side, norm, rectifier; then the mean.

    Larger images are first taken in strides, so that the grid has at most some 48 places a side. Group normalisation
    throughout, and features of mean 0 and mean square 1.

    Args:
        widths: channels of every stage; the last is the number of features.
        size, unreadable, channels: see `ImageEncoder`.
    """

    training_defaults = Training(learning_rate=2e-3, batch_size=64, steps=1000, weight_decay=0.01)

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 128, 256),
        size: int | Sequence[int] | None = None,
        unreadable: Unreadable = "stop",
        channels: int | None = None,
    ) -> None:
        super().__init__(size, unreadable, channels)
        self.widths = _widths(widths)

    @property
    def feature_dim(self) -> int:  # type: ignore[override]
        return self.widths[-1]

    def config(self) -> dict[str, Any]:
        return {"widths": list(self.widths), **super().config()}

    def build(self) -> None:
        assert self.channels is not None
        assert self.size is not None
        layers: list[nn.Module] = []
        before, stride = self.channels, _stride(self.size)
        for at, width in enumerate(self.widths):
            layers.append(_convolution(before, width, 1 if at else stride))
            if at < len(self.widths) - 1:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))  # before the norm, which then has a quarter to do
            layers += [group_norm(width), nn.ReLU(inplace=True)]
            before = width
        self.network = _finished([*layers, *_pooled(before)])


class Residual(ImageEncoder):
    """A small residual network: per width some blocks of two convolutions around which the input is carried.

    The first stage keeps the side, every other halves it. Group normalisation before each convolution (He et al.,
    Identity Mappings in Deep Residual Networks, 2016); the last convolution of a block starts at 0, so that a block
    starts as the identity. Features have mean 0 and mean square 1.

    Args:
        widths: channels of every stage; the last is the number of features.
        depth: blocks per stage.
        size, unreadable, channels: see `ImageEncoder`.
    """

    training_defaults = Training(learning_rate=2e-3, batch_size=64, steps=1000, weight_decay=0.01)

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 128),
        depth: int = 2,
        size: int | Sequence[int] | None = None,
        unreadable: Unreadable = "stop",
        channels: int | None = None,
    ) -> None:
        super().__init__(size, unreadable, channels)
        if depth < 1:
            raise LabelError(f"depth is {depth}; expected at least 1 block per stage")
        self.widths, self.depth = _widths(widths), depth

    @property
    def feature_dim(self) -> int:  # type: ignore[override]
        return self.widths[-1]

    def config(self) -> dict[str, Any]:
        return {"widths": list(self.widths), "depth": self.depth, **super().config()}

    def build(self) -> None:
        assert self.channels is not None
        assert self.size is not None
        layers: list[nn.Module] = [_convolution(self.channels, self.widths[0], _stride(self.size))]
        before = self.widths[0]
        for at, width in enumerate(self.widths):
            for block in range(self.depth):
                layers.append(Block(before, width, 2 if at and not block else 1))
                before = width
        self.network = _finished([*layers, group_norm(before), nn.ReLU(inplace=True), *_pooled(before)])


class Block(nn.Module):
    """x + f(x), f two convolutions, each after normalisation and rectifier; a 1 x 1 convolution where shapes change."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = group_norm(before), group_norm(width)
        self.enter, self.leave = _convolution(before, width, stride), _convolution(width, width, 1)
        self.carry = None if before == width and stride == 1 else nn.Conv2d(before, width, 1, stride, bias=False)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor) -> Tensor:
        ready = torch.relu(self.first(x))
        carried: Tensor = x if self.carry is None else self.carry(ready)
        added: Tensor = self.leave(torch.relu(self.second(self.enter(ready))))
        return carried + added


def _convolution(before: int, width: int, stride: int) -> nn.Conv2d:
    side = 3 if stride < 3 else 2 * (stride // 2) + 3
    convolution = nn.Conv2d(before, width, side, stride, padding=side // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return convolution


def group_norm(width: int) -> nn.GroupNorm:
    """Normalisation of an image over its places and an eighth of its channels, where they can be shared out so."""
    return nn.GroupNorm(next(g for g in (8, 4, 2, 1) if width % g == 0), width)


def _pooled(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(width, elementwise_affine=False)]


def _finished(layers: list[nn.Module]) -> nn.Module:
    network: nn.Module = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _stride(size: tuple[int, int]) -> int:
    """Stride of the first convolution, so that the longer side has at most some 48 places."""
    return 1 if max(size) <= 48 else 2 if max(size) <= 96 else 4


def _widths(widths: Sequence[int]) -> tuple[int, ...]:
    if not widths or any(int(w) != w or w < 1 for w in widths):
        raise LabelError(f"widths is {list(widths)}; expected at least one number of channels")
    return tuple(int(w) for w in widths)


def _size(size: int | Sequence[int]) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else tuple(int(s) for s in size)
    if len(sides) != 2 or min(sides) < 4:
        raise LabelError(f"size is {size}; expected a side, or height and width, of at least 4")
    return sides


def _at_most(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, LONGEST / max(size))
    return max(4, round(size[0] * scale)), max(4, round(size[1] * scale))
