"""A Parquet file with a row per bag: instances in list columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from anygrain.data.bag_data import check_coords
from anygrain.data.error import InputError, did_you_mean, quoted


class TableOfBags:
    """Bags in the rows of a Parquet file; see `BagData.from_parquet`. The row group read last is kept."""

    def __init__(self, path: Path, features: Sequence[str], coords: str, id: str) -> None:
        self.path, self.features, self.coords = path, list(features), coords
        try:
            self.file = pq.ParquetFile(path, memory_map=True)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(
                f"{path}: not a Parquet file, or truncated ({str(error).splitlines()[0]}). Write it again"
            ) from error
        known = self.file.schema_arrow.names
        for column in [*self.features, *([coords] if coords else []), *([id] if id else [])]:
            if column not in known:
                raise InputError(f"{path}: no column {quoted(column)}.{did_you_mean(column, known)}")
        self.has_coords = bool(coords)
        self.names: Sequence[str] = [str(v) for v in self.file.read([id])[id].to_pylist()] if id else []
        self._check_types()
        self._kept: tuple[int, pa.Table | None] = (-1, None)
        sizes: list[np.ndarray] = []
        dims: set[int] = set()
        for group in range(self.file.num_row_groups):
            lengths, dim = self._shapes(self._group(group), sum(len(part) for part in sizes))
            sizes.append(lengths)
            dims.update(dim)
        self.sizes = torch.from_numpy(np.concatenate(sizes).astype(np.int64)) if sizes else torch.zeros(0).long()
        if len(self.sizes) == 0:
            raise InputError(f"{path} has no row. Expected one per bag")
        if len(dims) > 1:
            raise InputError(f"{path}: {quoted(features[0])} has instances of {min(dims)} and of {max(dims)} features")
        self.feature_dim = dims.pop() if len(features) == 1 else len(features)
        self.names = self.names or [str(row) for row in range(len(self.sizes))]
        if len(set(self.names)) < len(self.names):
            raise InputError(f"{path}: {quoted(id)} names two bags alike. Expected a name for each")
        starts = [self.file.metadata.row_group(g).num_rows for g in range(self.file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(starts)])

    def _check_types(self) -> None:
        def nested(kind: pa.DataType, depth: int) -> bool:
            for _ in range(depth):
                if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
                    return False
                kind = kind.value_type
            return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))

        schema, depth = self.file.schema_arrow, 2 if len(self.features) == 1 else 1
        wanted = "lists of lists of numbers" if depth == 2 else "lists of numbers"
        for column, deep, what in [
            *((c, depth, wanted) for c in self.features),
            *([(self.coords, 2, "lists of pairs of numbers")] if self.coords else []),
        ]:
            kind = schema.field(column).type
            if not nested(kind, deep):
                raise InputError(f"{self.path}: {quoted(column)} holds {kind}. Expected {what}, a cell per bag")

    def _group(self, group: int) -> pa.Table:
        number, table = self._kept
        if number != group or table is None:
            columns = [*self.features, *([self.coords] if self.coords else [])]
            try:
                table = self.file.read_row_group(group, columns=columns)
            except (OSError, pa.ArrowInvalid) as error:
                raise InputError(f"{self.path}: row group {group} cannot be read, truncated. Write it again") from error
            self._kept = (group, table)
        return table

    def _shapes(self, table: pa.Table, before: int) -> tuple[np.ndarray, set[int]]:
        """Instances of every bag of a row group, and how many features they have (of one nested column)."""

        def lengths(column: str) -> np.ndarray:
            found = pc.fill_null(pc.list_value_length(table[column]), 0).to_numpy()
            if (found == 0).any():
                raise InputError(
                    f"{self.path}: the bag of row {before + int((found == 0).argmax())} has no instance in "
                    f"{quoted(column)}. Expected one or more: leave the bag out"
                )
            return np.asarray(found)

        first = lengths(self.features[0])
        for column in [*self.features[1:], *([self.coords] if self.coords else [])]:
            other = lengths(column)
            if (other != first).any():
                row = int((other != first).argmax())
                raise InputError(
                    f"{self.path}: the bag of row {before + row} has {first[row]} instances in "
                    f"{quoted(self.features[0])} and {other[row]} in {quoted(column)}. Expected as many"
                )
        if len(self.features) > 1:
            return first, set()
        inner = pc.list_value_length(pc.list_flatten(table[self.features[0]])).unique().to_pylist()
        return first, {0 if d is None else int(d) for d in inner}

    def read(self, bag: int) -> tuple[np.ndarray, np.ndarray | None]:
        group = int(np.searchsorted(self._starts, bag, side="right")) - 1
        table = self._group(group).slice(bag - int(self._starts[group]), 1)

        def nested(column: str, width: int) -> np.ndarray:
            flat = pc.list_flatten(pc.list_flatten(table[column])).to_numpy()
            return np.asarray(flat, dtype=np.float32).reshape(-1, width)

        if len(self.features) == 1:
            features = nested(self.features[0], self.feature_dim)
        else:
            columns = [pc.list_flatten(table[column]).to_numpy() for column in self.features]
            features = np.stack(columns, axis=1).astype(np.float32)
        if not self.coords:
            return features, None
        pairs = pc.list_value_length(pc.list_flatten(table[self.coords])).unique().to_pylist()
        check_coords(f"{self.path}, bag {self.names[bag]}", (len(features), int(pairs[0] or 0)), len(features))
        return features, nested(self.coords, 2)
