"""How images are changed in training so that their class stays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from anygrain.encoders.images import as_fractions
from anygrain.encoders.trainable import Arrays, Augmentation

#: what the pixels of a strong view go through, each in some of the views
COLOURS = ("brightness", "contrast", "saturation", "sharpness", "depth")
PLACES = ("turn", "shear_x", "shear_y", "shift_x", "shift_y", "scale")


class ImageAugmentation(Augmentation):
    """Small shifts and mirror images; strongly also turned, sheared, recoloured, and with a hole.

    Both views keep the type of the pixels, so that they can stand in one batch. Every view of a batch is computed at
    once, with its own draws.

    Args:
        flip: whether the mirror image has the same class: true of most photographs, not of letters and digits.
        shift: farthest shift of a weak view, as a share of the side.
        edge: what comes in at the edge of a weak view: "mirror" the image, as suits photographs, or the colour "fill".
        changes: changes of a strong view, drawn from the five of colour and the six of place without repetition.
        strength: 0..1, how far a change may go; at 1 turns up to 30 degrees, shears and shifts of .3, and contrast,
            brightness, saturation and sharpness between .3 and 1.7 times what they were.
        hole: largest side of the square that a strong view loses, as a share of the side.
        fill: (C,) colour of the hole, and of what comes in where a strong view moves; black when not given.

    Source: Cubuk et al., RandAugment, 2020; DeVries and Taylor, Cutout, 2017.
    """

    def __init__(
        self,
        flip: bool = False,
        shift: float = 0.125,
        edge: Literal["mirror", "fill"] = "mirror",
        changes: int = 2,
        strength: float = 1.0,
        hole: float = 0.5,
        fill: Sequence[float] = (),
    ) -> None:
        self.flip, self.shift, self.edge, self.changes = flip, shift, edge, changes
        self.strength, self.hole, self.fill = strength, hole, tuple(fill)

    def weak(self, arrays: Arrays, generator: torch.Generator) -> Arrays:
        return {**arrays, "image": self._moved(arrays["image"], generator)}

    def strong(self, arrays: Arrays, generator: torch.Generator) -> Arrays:
        image = as_fractions(self._moved(arrays["image"], generator))
        n = len(image)
        names = [*PLACES, *(c for c in COLOURS if c != "saturation" or image.shape[1] == 3)]
        changes = min(self.changes, len(names))
        order = torch.rand(n, len(names), generator=generator).argsort(dim=1)
        taken = order < changes
        # -1..1, and 0 where the change is not taken
        amount = self.strength * taken * (2 * torch.rand(n, len(names), generator=generator) - 1)
        how = {name: amount[:, at].to(image.device) for at, name in enumerate(names)}
        image = _recoloured(self._placed(image, how), how)
        return {**arrays, "image": _in_type_of(arrays["image"], self._cut(image, generator))}

    def _moved(self, image: Tensor, generator: torch.Generator) -> Tensor:
        n, _, height, width = image.shape
        far = (int(self.shift * height), int(self.shift * width))
        down = torch.randint(-far[0], far[0] + 1, (n, 1), generator=generator)
        right = torch.randint(-far[1], far[1] + 1, (n, 1), generator=generator)
        rows, columns = torch.arange(height) + down, torch.arange(width) + right
        if self.flip:
            turned = torch.rand(n, 1, generator=generator) < 0.5
            columns = torch.where(turned, columns.flip(1), columns)
        rows, columns = rows.to(image.device), columns.to(image.device)
        every = torch.arange(n, device=image.device)[:, None, None]
        down, across = _mirrored(rows, height)[:, :, None], _mirrored(columns, width)[:, None, :]
        moved = image.permute(0, 2, 3, 1)[every, down, across].permute(0, 3, 1, 2)
        if self.edge == "mirror":
            return moved
        inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[:, None, None]
        fill = self._fill(image) if image.is_floating_point() else (255 * self._fill(image.float())).round()
        return torch.where(inside, moved, fill.to(image.dtype))

    def _placed(self, image: Tensor, how: dict[str, Tensor]) -> Tensor:
        """Turned, sheared, shifted and scaled, in one resampling."""
        angle = how["turn"] * math.radians(30)
        scale = torch.exp(0.3 * how["scale"])
        cos, sin = angle.cos() / scale, angle.sin() / scale
        x, y = 0.3 * how["shear_x"], 0.3 * how["shear_y"]
        # place in the view -> place in the image: rotation times shear, in coordinates from -1 to 1
        top = torch.stack([cos - sin * y, cos * x - sin, 0.6 * how["shift_x"]], dim=1)
        bottom = torch.stack([sin + cos * y, sin * x + cos, 0.6 * how["shift_y"]], dim=1)
        grid = torch.nn.functional.affine_grid(
            torch.stack([top, bottom], dim=1), list(image.shape), align_corners=False
        )
        fill = self._fill(image)
        moved = torch.nn.functional.grid_sample(image - fill, grid, padding_mode="zeros", align_corners=False)
        return (moved + fill).clamp(0, 1)

    def _cut(self, image: Tensor, generator: torch.Generator) -> Tensor:
        n, _, height, width = image.shape
        drawn = torch.rand(n, 3, 1, generator=generator).to(image.device)
        half = drawn[:, 0] * self.hole / 2
        down, across = _places(height, image), _places(width, image)
        inside = ((down - drawn[:, 1]).abs() < half)[:, :, None] & ((across - drawn[:, 2]).abs() < half)[:, None, :]
        return torch.where(inside[:, None], self._fill(image), image)

    def _fill(self, image: Tensor) -> Tensor:
        colour = self.fill if self.fill else (0.0,) * image.shape[1]
        return torch.tensor(colour, dtype=image.dtype, device=image.device)[:, None, None]


def _in_type_of(given: Tensor, fractions: Tensor) -> Tensor:
    """Pixels in 0..1 in the type of those that were given."""
    return (255 * fractions).round().to(torch.uint8) if given.dtype == torch.uint8 else fractions


def _mirrored(index: Tensor, n: int) -> Tensor:
    """Places beyond the ends 0..n-1, mirrored at the ends."""
    if n == 1:
        return torch.zeros_like(index)
    folded = index.abs() % (2 * (n - 1))
    return torch.minimum(folded, 2 * (n - 1) - folded)


def _places(n: int, like: Tensor) -> Tensor:
    return (torch.arange(n, dtype=like.dtype, device=like.device) + 0.5) / n


def _recoloured(image: Tensor, how: dict[str, Tensor]) -> Tensor:
    """Brightness, contrast, saturation, sharpness, all (B,) in -1..1, and coarser steps of grey; 0 changes nothing."""

    def factor(name: str) -> Tensor:
        return (1 + 0.7 * how[name])[:, None, None, None]

    image = (image * factor("brightness")).clamp(0, 1)
    middle = image.mean(dim=(1, 2, 3), keepdim=True)
    image = (middle + (image - middle) * factor("contrast")).clamp(0, 1)
    if "saturation" in how:
        weights = torch.tensor([0.299, 0.587, 0.114], dtype=image.dtype, device=image.device)[:, None, None]
        grey = (image * weights).sum(dim=1, keepdim=True)
        image = (grey + (image - grey) * factor("saturation")).clamp(0, 1)
    smooth = torch.nn.functional.avg_pool2d(image, 3, stride=1, padding=1, count_include_pad=False)
    image = (smooth + (image - smooth) * factor("sharpness")).clamp(0, 1)
    bits = 8 - 4 * how["depth"].abs()[:, None, None, None]
    levels = 2 ** bits.round() - 1
    return torch.where(bits < 7.5, (image * levels).round() / levels, image)
