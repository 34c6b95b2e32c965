"""Columns of images: paths relative to the table, or encoded bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from anygrain.data.error import InputError, counted, quoted
from anygrain.data.table import Table

#: how the bytes of images begin: JPEG, PNG, GIF, BMP, TIFF, WebP
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\x00", b"MM\x00*", b"RIFF")


def image_cells(table: Table, column: str) -> list[Any]:
    """Images of every row (N,), unread: paths, bytes, ``{"bytes": ..., "path": ...}``, or None where a cell is empty.

    Raises:
        InputError: a column of something else.
    """
    kind = table.arrow.schema.field(table.require(column)).type
    folder = Path() if table.path is None else table.path.parent
    if is_bytes(kind):
        return [cell or None for cell in table.cells(column)]
    if is_bytes_and_path(kind):
        return [_absolute(cell, folder) for cell in table.cells(column)]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        return [folder / name if name else None for name in table.strings(column).tolist()]
    raise InputError(
        f"{table.name}: {quoted(column)} holds {kind}. Expected paths of images, relative to the table, or their bytes"
    )


def check_images(table: Table, column: str, ids: np.ndarray, unreadable: str) -> list[str]:
    """Decode every image once, small; a sentence about those that cannot be read.

    Args:
        table, column: where the images are.
        ids: row ids (N,), for messages.
        unreadable: "stop", or "blank" to see them as images of one colour.

    Raises:
        InputError: Pillow is missing; images that cannot be read, with the first of them, unless they may be blank.
    """
    from anygrain.encoders.images import unreadable_in
    from anygrain.labels import LabelError

    cells = image_cells(table, column)
    try:
        bad = unreadable_in(cells)
    except LabelError as error:
        raise InputError(str(error)) from error
    if not bad:
        return []
    first = [f"row {ids[row]}, {_name(cells[row])}{bad[row]}" for row in sorted(bad)[:3]]
    more = f"; and {len(bad) - 3} more" if len(bad) > 3 else ""
    said = f"{len(bad)} of {counted(len(cells), 'image')} of {quoted(column)} cannot be read ({'; '.join(first)}{more})"
    if len(bad) == len(cells):
        raise InputError(f"{table.name}: {said}. Expected paths relative to the folder of the table, or bytes")
    if unreadable == "stop":
        raise InputError(
            f"{table.name}: {said}. Repair or remove these rows, or see them as images of one colour: --set "
            'data.unreadable="blank"'
        )
    return [f"{said}: seen as images of one colour, so that their labels count and they teach nothing of images."]


def _name(cell: Any) -> str:
    """The path of an image and a colon, if it has one."""
    path = cell["path"] if isinstance(cell, dict) else cell
    return f"{path}: " if isinstance(path, str | Path) else ""


def is_bytes(kind: pa.DataType) -> bool:
    """Whether cells are bytes."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def is_bytes_and_path(kind: pa.DataType) -> bool:
    """Whether cells are objects of bytes and a path, as some libraries write images."""
    return bool(pa.types.is_struct(kind)) and {"bytes", "path"} <= {field.name for field in kind}


def _absolute(cell: dict[str, Any] | None, folder: Path) -> dict[str, Any] | None:
    if not cell or not (cell["bytes"] or cell["path"]):
        return None
    return {"bytes": cell["bytes"], "path": None if cell["bytes"] else str(folder / cell["path"])}


def thumbnail(item: Any, side: int = 64) -> str | None:
    """A small JPEG of an image, as the address of an HTML picture; None where it cannot be read."""
    import base64
    import io

    from anygrain.encoders.images import decoded, head_of, pillow

    try:
        height, width, channels = head_of(item)
        scale = min(1.0, side / max(height, width))
        pixels = decoded(item, channels, (max(1, round(height * scale)), max(1, round(width * scale))))
    except Exception:  # whatever a decoder raises on a broken file
        return None
    file = io.BytesIO()
    pillow().fromarray(pixels[..., 0] if channels == 1 else pixels).save(file, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
