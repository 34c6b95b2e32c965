"""One file per bag: the features of a slide's patches, in the layout that slide tools write."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anygrain.data.bag_data import check_coords, check_shape
from anygrain.data.error import InputError, counted, did_you_mean, quoted, some

ENDINGS = (".npz", ".npy", ".h5", ".hdf5", ".zarr")
FEATURES, COORDS = "features", "coords"


class FilesOfBags:
    """Bags in the files of a folder; see `BagData.from_folder`."""

    def __init__(self, folder: Path, names: Sequence[str] | None) -> None:
        self.paths = _paths(folder, names)
        self.names: Sequence[str] = [path.stem for path in self.paths]
        shapes: list[tuple[int, ...]] = []
        places = []
        for path in self.paths:
            shape, where = shapes_of(path)
            check_shape(str(path), shape, shapes[0] if shapes else (), str(self.paths[0]))
            if where is not None:
                check_coords(str(path), where, shape[0])
            shapes.append(shape)
            places.append(where is not None)
        if any(places) and not all(places):
            without = [path.name for path, has in zip(self.paths, places, strict=True) if not has]
            raise InputError(
                f"{folder}: {some(without)} of {counted(len(places), 'bag')} have no {quoted(COORDS)}, the others do. "
                "Expected coordinates for all or for none"
            )
        self.sizes = torch.tensor([shape[0] for shape in shapes])
        self.feature_dim, self.has_coords = shapes[0][1], all(places)

    def read(self, bag: int) -> tuple[np.ndarray, np.ndarray | None]:
        path = self.paths[bag]
        features, coords = arrays_of(path)
        expected = (int(self.sizes[bag]), self.feature_dim)
        if features.shape != expected:
            raise InputError(f"{path} changed since it was first read: features {features.shape}. Expected {expected}")
        return features, coords


def _paths(folder: Path, names: Sequence[str] | None) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder. Expected one with a file per bag ({', '.join(ENDINGS)})")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    if not found:
        pickled = [path.name for path in folder.iterdir() if path.suffix in (".pt", ".pth", ".pkl")]
        why = f"; {some(pickled)} may run code when read, so they are not" if pickled else ""
        raise InputError(f"{folder}: no file of a bag{why}. Expected one per bag: {', '.join(ENDINGS)}")
    by_name: dict[str, Path] = {}
    for path in found:
        if path.stem in by_name:
            raise InputError(f"{folder}: {by_name[path.stem].name} and {path.name} are the same bag. Keep one of them")
        by_name[path.stem] = path
    if names is None:
        return found
    missing = [name for name in names if name not in by_name]
    if missing:
        raise InputError(
            f"{folder}: no file for {counted(len(missing), 'bag')}: {some(missing)}."
            + (did_you_mean(missing[0], list(by_name)) or f" Expected {missing[0]}.h5, .npz, .npy or .zarr")
        )
    return [by_name[name] for name in names]


def shapes_of(path: Path) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Shapes of features and coordinates in the file of a bag, from its header alone where it has one.

    Raises:
        InputError: a file that is truncated or of another layout.
    """
    features, coords = arrays_of(path, lazily=True)
    for name, array in ((FEATURES, features), (COORDS, coords)):
        if array is not None and array.dtype.kind not in "fiub":
            raise InputError(f"{path}: {quoted(name)} holds {array.dtype}. Expected numbers")
    return tuple(features.shape), None if coords is None else tuple(coords.shape)


def arrays_of(path: Path, lazily: bool = False) -> tuple[Any, Any | None]:
    """Features (n, d) and coordinates (n, 2) or None in the file of a bag; lazily: something that has their shapes."""
    ending = path.suffix.lower()
    try:
        if ending == ".npy":
            return np.load(path, mmap_mode="c", allow_pickle=False), None
        if ending == ".npz":
            return _of_npz(path, lazily)
        if ending == ".zarr":
            return _of_zarr(path, lazily)
        return _of_hdf5(path, lazily)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, RuntimeError) as error:
        raise InputError(
            f"{path}: cannot be read, truncated or of another format ({str(error).splitlines()[0]}). "
            "Write this file again or remove it"
        ) from error


def _pick(path: Path, names: Sequence[str]) -> None:
    if FEATURES not in names:
        raise InputError(f"{path}: holds {some(sorted(names)) or 'nothing'}. Expected {quoted(FEATURES)} (n, d)")


def _of_npz(path: Path, lazily: bool) -> tuple[Any, Any | None]:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        _pick(path, list(members))
        given = [_of_member(path, archive, members[name], lazily) for name in (FEATURES, COORDS) if name in members]
    return given[0], given[1] if len(given) > 1 else None


def _of_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, lazily: bool) -> Any:
    """One array of an NPZ: memory-mapped where it is stored as it is, else unpacked, or only its shape."""
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(member)
        if dtype.hasobject:
            raise InputError(f"{path}: {info.filename} holds Python objects, which are not read. Expected numbers")
        if info.compress_type != zipfile.ZIP_STORED:
            if lazily:
                return _Shape(shape, dtype)
            member.seek(0)
            return np.lib.format.read_array(member, allow_pickle=False)
        inside = member.tell()
    with path.open("rb") as file:  # the local header of a member has a length of its own
        file.seek(info.header_offset + 26)
        lengths = file.read(4)
    start = info.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    return np.memmap(path, dtype, mode="c", offset=start + inside, shape=shape, order="F" if fortran else "C")


class _Shape:
    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype


def _squeezed(array: Any) -> Any:
    """Some tools write (1, n, d)."""
    return array[0] if len(array.shape) == 3 and array.shape[0] == 1 else array


def _of_hdf5(path: Path, lazily: bool) -> tuple[Any, Any | None]:
    try:
        import h5py
    except ImportError as error:
        raise InputError(f'{path}: HDF5 needs h5py: pip install "anygrain[bags]"') from error
    with h5py.File(path, "r") as file:
        _pick(path, list(file))
        arrays = [file[name] for name in (FEATURES, COORDS) if name in file]
        if lazily:
            given = [_Shape(a.shape[1:] if a.ndim == 3 and a.shape[0] == 1 else a.shape, a.dtype) for a in arrays]
        else:
            given = [_squeezed(a[...]) for a in arrays]
    return given[0], given[1] if len(given) > 1 else None


def _of_zarr(path: Path, lazily: bool) -> tuple[Any, Any | None]:
    try:
        import zarr
    except ImportError as error:
        raise InputError(f'{path}: Zarr needs zarr: pip install "anygrain[bags]"') from error
    group: Any = zarr.open_group(str(path), mode="r")
    _pick(path, list(group))
    given: list[Any] = []
    for name in (FEATURES, COORDS):
        if name not in group:
            continue
        array = group[name]
        if array.nchunks_initialized < array.nchunks:  # Zarr would fill in what is missing without a word
            raise InputError(
                f"{path}: truncated: {name} has {array.nchunks_initialized} of {array.nchunks} chunks. "
                "Write this file again or remove it"
            )
        given.append(array if lazily else _squeezed(array[...]))
    if lazily:
        given = [_Shape(a.shape[1:] if a.ndim == 3 and a.shape[0] == 1 else a.shape, a.dtype) for a in given]
    return given[0], given[1] if len(given) > 1 else None
