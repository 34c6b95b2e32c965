"""Images in whatever form they come, made ready for a network: arrays, Pillow images, files, encoded bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.encoders.trainable import Arrays, Inputs
from anygrain.labels import LabelError

#: endings of files that are taken for images
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2")
#: bytes of decoded images that are kept, so that small data are decoded once; the rest is decoded when asked for
KEPT = 2**30
#: images that are read at once where all are gone through
CHUNK = 256
#: most images that means, sizes and channels are learnt from
SAMPLE = 2000
#: longest side of an image where no size is asked for
LONGEST = 96


def is_image(data: Any) -> bool:
    """Whether data are images.

    Arrays (N, H, W), (N, H, W, C) and (N, C, H, W) are; and lists, series and one-dimensional arrays of Pillow images,
    arrays, encoded bytes, paths, ``{"bytes": ..., "path": ...}``, or strings that all end as image files do. Some of a
    list may be missing.
    """
    if hasattr(data, "columns") or hasattr(data, "tocsr") or isinstance(data, str | bytes | dict):
        return False
    if hasattr(data, "ndim") and data.ndim != 1:
        return data.ndim in (3, 4)
    if not isinstance(data, list | tuple) and not hasattr(data, "ndim"):
        return hasattr(data, "__array__") and is_image(np.asarray(data))
    if getattr(getattr(data, "dtype", None), "kind", "O") in "biufc":
        return False
    present = (item for item in data if not _missing(item))
    first = next(present, None)
    return first is not None and _is_one(first) and all(map(_is_one, present))


def _is_one(item: Any) -> bool:
    if isinstance(item, str):
        return item.lower().endswith(SUFFIXES)
    if isinstance(item, dict):
        return "bytes" in item or "path" in item
    return isinstance(item, bytes | Path) or _is_pillow(item) or (isinstance(item, np.ndarray) and item.ndim in (2, 3))


def _is_pillow(item: Any) -> bool:
    return hasattr(item, "getbands") and hasattr(item, "convert")


def _missing(item: Any) -> bool:
    if isinstance(item, dict):
        return not item.get("bytes") and not item.get("path")
    if isinstance(item, str):
        return item in ("", "nan", "<NA>")
    return item is None or type(item).__name__ == "NAType" or (isinstance(item, float) and item != item)


def rows_of(data: Any) -> np.ndarray | list[Any]:
    """Images as a numpy array of 3 or 4 axes, or as a list of single images.

    Raises:
        LabelError: pixels outside 0..255, or for fractions outside 0..1; NaN.
    """
    if isinstance(data, Tensor):
        data = (data.float() if data.dtype == torch.bfloat16 else data).detach().cpu().numpy()
    if isinstance(data, np.ndarray) and data.ndim > 1:
        return _checked(data)
    return list(data.tolist() if isinstance(data, np.ndarray) and data.dtype.kind in "UT" else data)


def _checked(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise LabelError(f"images have the type {array.dtype}; expected uint8, or fractions from 0 to 1")
    if not array.size:
        raise LabelError(f"images have the shape {array.shape}; expected at least one row and one pixel")
    if array.dtype in (np.uint8, np.bool_):
        return array
    parts = [array[at : at + CHUNK] for at in range(0, len(array), CHUNK)]
    odd = next((at for at, part in enumerate(parts) if not np.isfinite(part).all()), None)
    if odd is not None:
        inside = np.isfinite(parts[odd].reshape(len(parts[odd]), -1)).all(axis=1)
        raise LabelError(f"image {odd * CHUNK + int(inside.argmin())} has NaN or infinite pixels; fill or drop it")
    low, high = min(float(part.min()) for part in parts), max(float(part.max()) for part in parts)
    most = 1.0 if array.dtype.kind == "f" else 255.0
    if low < 0 or high > most:
        hint = f": divide by {high:g}" if low >= 0 else ""
        raise LabelError(
            f"pixels go from {low:g} to {high:g}; expected fractions from 0 to 1, or whole numbers from 0 to 255{hint}"
        )
    return array


class ArrayImages:
    """Images of an array, cast and resized when rows are asked for: {"image": (B, C, H, W)}, uint8 or float32.

    Args:
        array: (N, H, W), (N, H, W, C) or (N, C, H, W); of the second and the last axis the shorter one is the channels.
        channels: what the channels must be; those of the array when not given.
        size: height and width; those of the array when not given.

    Raises:
        LabelError: another number of channels.
    """

    def __init__(self, array: np.ndarray, channels: int | None = None, size: tuple[int, int] | None = None) -> None:
        if array.ndim == 3:
            array = array[..., None]
        last = array.shape[3] == channels if channels in (array.shape[1], array.shape[3]) else None
        if last is None or array.shape[1] == array.shape[3]:
            last = array.shape[3] <= array.shape[1]
        self.array = array.transpose(0, 3, 1, 2) if last else array
        if channels is not None and self.array.shape[1] != channels:
            raise LabelError(
                f"images of shape {array.shape[1:]} have {self.array.shape[1]} channels; the model is for {channels}"
            )
        self.size = size or (self.array.shape[2], self.array.shape[3])

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: Tensor) -> Arrays:
        picked = self.array[rows.cpu().numpy()]
        if picked.dtype.kind == "f":
            image = torch.from_numpy(picked.astype(np.float32))
        else:
            image = torch.from_numpy(picked.astype(np.uint8) * np.uint8(255 if picked.dtype == np.bool_ else 1))
        return {"image": resized(image, self.size)}


class ReadImages:
    """Images that are decoded when rows are asked for, by several threads: {"image": (B, C, H, W)}, uint8.

    What was decoded is kept up to `KEPT` bytes, so that memory does not grow with the rows.

    Args:
        items: paths, encoded bytes, dicts of both, Pillow images or arrays.
        channels: 1 for grey, 3 for colour.
        size: height and width to which an image is brought as a whole.
        blank: (C,) uint8, colour of an image that cannot be read.
    """

    def __init__(self, items: Sequence[Any], channels: int, size: tuple[int, int], blank: Tensor) -> None:
        pillow()
        self.items, self.channels, self.size, self.blank = items, channels, size, blank
        kept = min(len(items), KEPT // (channels * size[0] * size[1]))
        self._kept = torch.empty((kept, channels, *size), dtype=torch.uint8)
        self._has = torch.zeros(len(items), dtype=torch.bool)
        self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        #: why a row could not be read, by row
        self.unreadable: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, rows: Tensor) -> Arrays:
        rows = rows.cpu()
        out = torch.empty((len(rows), self.channels, *self.size), dtype=torch.uint8)
        has = self._has[rows]
        out[has] = self._kept[rows[has]]
        new = rows[~has]
        if len(new):
            read = torch.stack(list(self._pool.map(self._one, new.tolist())))
            out[~has] = read
            fits = new < len(self._kept)
            self._kept[new[fits]] = read[fits]
            self._has[new[fits]] = True
        return {"image": out}

    def _one(self, row: int) -> Tensor:
        try:
            return torch.from_numpy(decoded(self.items[row], self.channels, self.size)).permute(2, 0, 1)
        except Exception as error:  # whatever a decoder raises on a broken file
            self.unreadable[row] = reason(error)
            return self.blank[:, None, None].expand(-1, *self.size)

    def read_all(self) -> ReadImages:
        """Decode every image once, so that `unreadable` is complete."""
        for rows in torch.arange(len(self)).split(CHUNK):
            self[rows]
        return self


def unreadable_in(items: Sequence[Any]) -> dict[int, str]:
    """Why images cannot be read, by row; every one is decoded once, as small as its format allows."""
    return ReadImages(items, 1, (8, 8), torch.zeros(1, dtype=torch.uint8)).read_all().unreadable


def refuse_unreadable(items: Sequence[Any], unreadable: dict[int, str], remedy: str) -> None:
    """Raise where an image could not be read.

    Raises:
        LabelError: naming how many, and the first three.
    """
    if unreadable:
        first = sorted(unreadable)[:3]
        shown = "; ".join(f"{called(items[row], row)}: {unreadable[row]}" for row in first)
        more = f"; and {len(unreadable) - 3} more" if len(unreadable) > 3 else ""
        raise LabelError(f"{len(unreadable)} of {len(items)} images cannot be read ({shown}{more}). {remedy}")


def called(item: Any, row: int) -> str:
    """What an image is called in messages: its file, or its row."""
    path = item.get("path") if isinstance(item, dict) else item
    return f"row {row}, {path}" if isinstance(path, str | Path) and str(path) else f"row {row}"


def reason(error: Exception) -> str:
    """Why an image could not be read, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "may not be read"
    if type(error).__name__ == "UnidentifiedImageError":
        return "no image that Pillow knows"
    return str(error).splitlines()[0][:80] if str(error) else type(error).__name__


def pillow() -> Any:
    """The module PIL.Image.

    Raises:
        LabelError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise LabelError('images in files need Pillow: pip install "anygrain[vision]"') from error
    return Image


def opened(item: Any) -> Any:
    """A Pillow image of one item; its pixels may not be read yet.

    Raises:
        ValueError, OSError: not an image.
    """
    image_module = pillow()
    if _missing(item):
        raise ValueError("empty")
    if isinstance(item, dict):
        item = item.get("bytes") or item["path"]
    if isinstance(item, bytes):
        return image_module.open(io.BytesIO(item))
    if isinstance(item, str | Path):
        return image_module.open(item)
    if isinstance(item, np.ndarray):
        pixels = _checked(item[None])[0]
        pixels = (
            pixels * 255 if pixels.dtype == np.bool_ else np.rint(pixels * (255 if pixels.dtype.kind == "f" else 1))
        )
        return image_module.fromarray((pixels[..., 0] if pixels.shape[2:] == (1,) else pixels).astype(np.uint8))
    return item


def head_of(item: Any) -> tuple[int, int, int]:
    """Height, width and channels (1 or 3) of one image, from its head alone.

    Raises:
        ValueError, OSError: not an image.
    """
    image = opened(item)
    grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
    turned = image.getexif().get(0x0112, 1) >= 5  # on its side
    width, height = reversed(image.size) if turned else image.size
    return height, width, 1 if grey else 3


def decoded(item: Any, channels: int, size: tuple[int, int]) -> np.ndarray:
    """Pixels (H, W, C) uint8 of one image: upright, on white where it is transparent, stretched to a size.

    Raises:
        ValueError, OSError: not an image, or half of one.
    """
    from PIL import ImageOps

    image_module = pillow()
    height, width = size
    image = opened(item)
    if hasattr(image, "draft"):
        image.draft(None, (max(size), max(size)))  # a JPEG is decoded smaller
    image = ImageOps.exif_transpose(image)
    mode = "L" if channels == 1 else "RGB"
    if image.mode == "F" or image.mode.startswith("I"):  # more than 8 bits
        values = np.asarray(image, dtype=np.float64)
        most = 65535.0 if image.mode.startswith("I") else max(1.0, float(values.max()))
        image = image_module.fromarray(np.rint(255 * (values / most).clip(0, 1)).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = image_module.alpha_composite(image_module.new("RGBA", image.size, "white"), image)
    image = image.convert(mode)
    if image.size != (width, height):
        image = image.resize((width, height), image_module.Resampling.BILINEAR, reducing_gap=3.0)
    pixels = np.array(image, dtype=np.uint8)
    return pixels[..., None] if channels == 1 else pixels


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, C, H, W) stretched to a size, in the type they have."""
    if tuple(image.shape[2:]) == tuple(size):
        return image
    scaled = torch.nn.functional.interpolate(
        image.float(), size=tuple(size), mode="bilinear", antialias=True, align_corners=False
    )
    return scaled.round().clamp(0, 255).to(torch.uint8) if image.dtype == torch.uint8 else scaled.clamp(0, 1)


def as_fractions(image: Tensor) -> Tensor:
    """Pixels as float in 0..1."""
    return image.float() / 255 if image.dtype == torch.uint8 else image.float()


def sample_of(n: int, seed: int) -> Tensor:
    """At most `SAMPLE` of n rows, in order."""
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return drawn[:SAMPLE].sort().values


def moments(images: Inputs, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and standard deviation of every channel, and the median of its pixels at the edge, each (C,).

    Of some rows, in one pass, a few images at a time.
    """
    total, square, count, edges = torch.zeros(1), torch.zeros(1), 0, []
    for part in rows.split(CHUNK):
        image = as_fractions(images[part]["image"]).double()
        total = total + image.sum(dim=(0, 2, 3))
        square = square + image.square().sum(dim=(0, 2, 3))
        count += image.numel() // image.shape[1]
        border = [image[:, :, 0], image[:, :, -1], image[:, :, :, 0], image[:, :, :, -1]]
        edges.append(torch.cat(border, dim=2).transpose(0, 1).flatten(1))
    mean = total / count
    deviation = (square / count - mean.square()).clamp(min=0).sqrt()
    return mean.float(), deviation.float(), torch.cat(edges, dim=1).median(dim=1).values.float()
