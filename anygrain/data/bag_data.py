"""Ragged bags of instances, each bag a row of data: in memory, or read from files when asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from anygrain.data.error import InputError, quoted
from anygrain.labels.bags import Bags

INSTANCES = 1 << 16  # read at once where all are gone through
CACHED = 1 << 18  # numbers that are made float32 and looked at while they are near the processor


class BagSource(Protocol):
    """Where the instances of bags lie.

    Attributes:
        names: (M,), of the bags.
        sizes: (M,), instances of every bag.
        feature_dim: numbers of every instance.
        has_coords: whether instances have places.
    """

    names: Sequence[str]
    sizes: Tensor
    feature_dim: int
    has_coords: bool

    def read(self, bag: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Features (n, d) and places (n, 2) of one bag, in any number type; may be memory-mapped."""
        ...


class ArraysOfBags:
    """Bags in memory: instances bag after bag.

    Args:
        features: (N, d).
        offsets: (M + 1,), bag m is `features[offsets[m]:offsets[m + 1]]`.
        coords: (N, 2) or None.
        names: (M,).
    """

    def __init__(
        self, features: np.ndarray, offsets: np.ndarray, coords: np.ndarray | None, names: Sequence[str]
    ) -> None:
        self.features, self.offsets, self.coords = features, offsets, coords
        self.names = names
        self.sizes = torch.from_numpy(np.diff(offsets).astype(np.int64))
        self.feature_dim = int(features.shape[1])
        self.has_coords = coords is not None

    def read(self, bag: int) -> tuple[np.ndarray, np.ndarray | None]:
        part = slice(self.offsets[bag], self.offsets[bag + 1])
        return self.features[part], None if self.coords is None else self.coords[part]

    def together(self, bags: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Features (E, d) and places (E, 2) of some bags, one bag after another."""
        first, sizes = self.offsets[bags], self.offsets[bags + 1] - self.offsets[bags]
        rows = np.arange(sizes.sum()) + np.repeat(first - (sizes.cumsum() - sizes), sizes)
        return self.features[rows], None if self.coords is None else self.coords[rows]


class BagData:
    """M bags, ragged: every bag has its own number of instances, all of d numbers, in an order that is kept.

    It is what `Learner.fit` takes as X where a row is a whole bag (`Exact` labels of M rows, an encoder that
    aggregates), and gives `bags` and `features` where a row is an instance (`AnyOf(data.bags, ...)`). Made by
    `from_arrays`, `from_ids`, `from_folder` or `from_parquet`. An index array, a mask or a slice gives some of the
    bags, unread, so that scikit-learn's splitters work; a number gives the features (n, d) of that bag.

    Args:
        source: where instances lie.
        rows: which of its bags, in which order; all when not given.

    Attributes:
        names: (M,), of the bags: file stems, ids, or their numbers.
        sizes: (M,) instances of every bag.
        feature_dim: d.
        has_coords: whether instances have places.
    """

    def __init__(self, source: BagSource, rows: np.ndarray | None = None) -> None:
        self.source = source
        self.rows = np.arange(len(source.names)) if rows is None else rows
        self.feature_dim, self.has_coords = source.feature_dim, source.has_coords
        self.sizes = source.sizes[torch.from_numpy(self.rows)]

    @classmethod
    def from_arrays(
        cls,
        bags: Sequence[Any],
        coords: Sequence[Any] | None = None,
        names: Sequence[object] | None = None,
    ) -> BagData:
        """Bags in memory.

        Args:
            bags: M arrays (n_m, d).
            coords: M arrays (n_m, 2), places of the instances.
            names: (M,), of the bags; their numbers when not given.

        Raises:
            InputError: no bags, an empty bag, another number of columns, places that do not fit, names that do not.
        """
        named = _names(len(bags), names)
        arrays = [np.asarray(bag) for bag in bags]
        for name, array in zip(named, arrays, strict=True):
            check_shape(f"bag {name}", array.shape, arrays[0].shape, f"bag {named[0]}")
        offsets = np.concatenate([[0], np.cumsum([len(array) for array in arrays])])
        places = None
        if coords is not None:
            if len(coords) != len(bags):
                raise InputError(f"{len(bags)} bags and coordinates of {len(coords)}; expected one array per bag")
            found = [np.asarray(c) for c in coords]
            for name, array, where in zip(named, arrays, found, strict=True):
                check_coords(f"bag {name}", where.shape, len(array))
            places = np.concatenate(found)
        return cls(ArraysOfBags(np.concatenate(arrays), offsets, places, named))

    @classmethod
    def from_ids(cls, features: Any, ids: Any, coords: Any = None) -> BagData:
        """Bags of the rows of one table, by the bag id of every row.

        Args:
            features: (N, d).
            ids: (N,), numbers or names; the bags come in the order of the sorted ids, so that 0..M-1 are the bags' own
                numbers. -1 and None are rows of no bag.
            coords: (N, 2) or None.

        Raises:
            InputError: shapes that do not fit, no row in a bag.
        """
        features, ids = np.asarray(features), np.asarray(ids)
        if features.ndim != 2 or ids.shape != features.shape[:1]:
            raise InputError(
                f"features have shape {features.shape} and bag ids {ids.shape}; expected (N, d) and (N,), an id per row"
            )
        if coords is not None:
            coords = np.asarray(coords)
            check_coords("the table", coords.shape, len(features))
        inside = ids != -1 if ids.dtype.kind in "iuf" else np.array([v is not None for v in ids.tolist()])
        if not inside.any():
            raise InputError("no row lies in a bag; expected bag ids other than -1")
        kept = np.flatnonzero(inside)
        names, bag = np.unique(ids[kept].astype(str) if ids.dtype == object else ids[kept], return_inverse=True)
        order = kept[np.argsort(bag, kind="stable")]
        offsets = np.concatenate([[0], np.cumsum(np.bincount(bag))])
        named = [str(name) for name in names.tolist()]
        return cls(ArraysOfBags(features[order], offsets, None if coords is None else coords[order], named))

    @classmethod
    def from_folder(cls, folder: str | Path, names: Sequence[object] | None = None) -> BagData:
        """One file per bag, as slides are kept: NPZ, NPY, HDF5 or Zarr with `features` (n, d) and `coords` (n, 2).

        Only sizes are read now. Features are memory-mapped (NPY, NPZ that is not compressed) or read bag by bag, in
        float32 whatever they are kept in. The bag is named after its file, without the ending.

        Args:
            folder: of the files.
            names: which bags, in which order; all files, sorted, when not given.

        Raises:
            InputError: no such folder or bag; a file that is truncated, holds no features or no instance, whose
                coordinates do not match, or whose features have another size than the first's. The file is named.
        """
        from anygrain.data.bag_files import FilesOfBags

        return cls(FilesOfBags(Path(folder), None if names is None else [str(name) for name in names]))

    @classmethod
    def from_parquet(cls, path: str | Path, features: str | Sequence[str], coords: str = "", id: str = "") -> BagData:
        """A Parquet file with a row per bag and instances in list columns.

        Args:
            path: the file, read in row groups.
            features: one column of lists of lists, (n, d) per cell; or several columns of lists of numbers, one per
                feature.
            coords: column of lists of pairs; none when empty.
            id: column of the bags' names; their numbers when empty.

        Raises:
            InputError: a column that is missing or holds something else, an empty bag, lists whose lengths do not fit.
        """
        from anygrain.data.bag_table import TableOfBags

        columns = [features] if isinstance(features, str) else list(features)
        return cls(TableOfBags(Path(path), columns, coords, id))

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        places = ", with coordinates" if self.has_coords else ""
        return f"BagData({len(self)} bags, {self.n_instances} instances of {self.feature_dim} features{places})"

    @property
    def shape(self) -> tuple[int]:
        """(M,)."""
        return (len(self),)

    @property
    def names(self) -> list[str]:
        return [self.source.names[row] for row in self.rows.tolist()]

    @property
    def n_instances(self) -> int:
        """N, of all bags."""
        return int(self.sizes.sum())

    @property
    def bags(self) -> Bags:
        """Which instances are in which bag; they are numbered bag after bag, as in `features`."""
        offsets = torch.cat([self.sizes.new_zeros(1), self.sizes.cumsum(0)])
        return Bags(torch.arange(self.n_instances), offsets, self.n_instances)

    @property
    def features(self) -> np.ndarray:
        """All instances (N, d) in memory, float32, bag after bag."""
        return self.read(torch.arange(len(self)))["features"].numpy()

    @property
    def coords(self) -> np.ndarray | None:
        """Places of all instances (N, 2), bag after bag, or None."""
        if not self.has_coords:
            return None
        return np.concatenate([self.coords_of(bag) for bag in range(len(self))])

    def coords_of(self, bag: int) -> np.ndarray:
        """Places (n, 2) of the instances of one bag.

        Raises:
            InputError: there are none.
        """
        places = self.source.read(int(self.rows[bag]))[1]
        if places is None:
            raise InputError("these bags have no coordinates")
        return np.asarray(places, dtype=np.float32)

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, tuple):  # `data[rows, ...]`, as scikit-learn takes rows
            rows = rows[0]
        if isinstance(rows, int | np.integer):
            return self._features(int(rows))
        chosen = rows.numpy() if isinstance(rows, Tensor) else rows
        return BagData(self.source, self.rows[chosen if isinstance(chosen, slice) else np.asarray(chosen)])

    def _features(self, bag: int) -> np.ndarray:
        return self.read(torch.tensor([bag]))["features"].numpy()

    def read(self, rows: Tensor) -> dict[str, Tensor]:
        """Instances of the given bags, bag after bag.

        Args:
            rows: (B,) numbers of bags.

        Returns:
            "features" float32 (E, d), "sizes" int64 (B,) and, where there are places, "coords" float32 (E, 2).

        Raises:
            InputError: a feature that is not finite; a file that cannot be read any more.
        """
        sizes, bags = self.sizes[rows], self.rows[rows.numpy()]
        # NumPy asks for large pages: new memory costs half
        features = torch.from_numpy(np.empty((int(sizes.sum()), self.feature_dim), dtype=np.float32))
        coords = torch.empty(len(features), 2) if self.has_coords else None
        if isinstance(self.source, ArraysOfBags):
            parts: Iterator[tuple[np.ndarray, np.ndarray | None]] = iter([self.source.together(bags)])
        else:
            parts = (self.source.read(bag) for bag in bags.tolist())
        at, total = 0, 0.0
        for given, places in parts:
            end = at + len(given)
            total += copied(given, features[at:end])
            if coords is not None:
                coords.numpy()[at:end] = places
            at = end
        if not math.isfinite(total):  # that of finite numbers may be infinite
            self._require_finite(features, rows, sizes)
        found = {"features": features, "sizes": sizes}
        return found if coords is None else {**found, "coords": coords}

    def _require_finite(self, features: Tensor, rows: Tensor, sizes: Tensor) -> None:
        """Raises InputError where instances (E, d) of bags (B,) hold NaN or infinity."""
        for bag, part in zip(rows.tolist(), features.split(sizes.tolist()), strict=True):
            wrong = ~part.isfinite().all(dim=1)
            if bool(wrong.any()):
                raise InputError(
                    f"bag {quoted(self.names[bag])}: instance {int(wrong.long().argmax())} holds NaN or infinity (of "
                    f"{int(wrong.sum())} such instances). Expected finite features"
                )

    def instances(self, at_once: int = INSTANCES) -> Iterator[dict[str, Tensor]]:
        """All bags in order, whole bags of about `at_once` instances at a time, as `read` gives them."""
        chunk = (self.sizes.cumsum(0) - 1) // at_once
        for number in chunk.unique().tolist():
            yield self.read((chunk == number).nonzero()[:, 0])


def copied(given: np.ndarray, into: Tensor) -> float:
    """Numbers (n, d) written into a float32 tensor; their sum, which is not finite where one of them is not."""
    # torch reads half precision several times as fast as NumPy
    torchs = given.dtype in (np.float16, np.float32, np.float64) and given.dtype.isnative
    quick = torchs and given.flags.aligned and given.flags.writeable
    source = torch.from_numpy(given) if quick else None
    step = max(1, CACHED // max(given.shape[1], 1))
    total = 0.0
    for at in range(0, len(into), step):
        part = into[at : at + step]
        if source is None:
            part.numpy()[:] = given[at : at + step]
        else:
            part.copy_(source[at : at + step])
        total += float(part.sum())
    return total


def _names(many: int, names: Sequence[object] | None) -> list[str]:
    if many == 0:
        raise InputError("there are no bags; expected one or more")
    if names is None:
        return [str(bag) for bag in range(many)]
    if len(names) != many or len({str(name) for name in names}) < many:
        raise InputError(f"{many} bags and {len({str(n) for n in names})} different names; expected a name for each")
    return [str(name) for name in names]


def check_shape(what: str, shape: tuple[int, ...], first: tuple[int, ...], first_name: str) -> None:
    """Raises InputError unless instances have the shape (n, d) with n of 1 or more and d as in the first bag."""
    if len(shape) > 0 and shape[0] == 0:
        raise InputError(f"{what} has no instance. Expected one or more: leave the bag out")
    if len(shape) != 2:
        raise InputError(f"{what}: features have shape {shape}. Expected (n, d): instances and their numbers")
    if len(first) == 2 and shape[1] != first[1]:
        raise InputError(
            f"{what} has {shape[1]} features, {first_name} has {first[1]}. Expected the same encoder for all bags"
        )


def check_coords(what: str, shape: tuple[int, ...], n: int) -> None:
    """Raises InputError unless coordinates have the shape (n, 2)."""
    if shape != (n, 2):
        raise InputError(f"{what}: coordinates have shape {shape}. Expected ({n}, 2), a place for each instance")
