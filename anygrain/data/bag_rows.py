"""The bags of a table whose rows are bags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from anygrain.data.bag_data import BagData
from anygrain.data.bag_files import COORDS, FEATURES
from anygrain.data.error import InputError, counted, did_you_mean, quoted, some
from anygrain.data.table import Table


def bag_rows(instances: str, table: Table, ids: np.ndarray) -> BagData:
    """Bags of the rows of a table, in their order; only sizes are read.

    Args:
        instances: a folder with a file per row, named by its id; a Parquet file with a column of the same ids and the
            columns "features" and, if there are places, "coords"; or a column of lists in the table itself, which is
            then a Parquet file.
        table: the data source.
        ids: row ids (N,).

    Raises:
        InputError: none of the three; a row without a bag; a file that cannot be read.
    """
    if instances in table.columns:  # a folder of that name beside the configuration has come as an absolute path
        return _of_source(instances, table)
    path = Path(instances)
    if path.is_dir():
        return BagData.from_folder(path, ids.tolist())
    if not path.is_file():
        raise InputError(
            f"data.instances is {quoted(instances)}: no folder, no file, and no column of {table.name}."
            + (
                did_you_mean(instances, table.columns)
                or " Expected a folder with a file per row, such as features/7.h5"
            )
        )
    return _of_parquet(path, table, ids)


def _of_source(column: str, table: Table) -> BagData:
    if table.path is None or table.path.suffix != ".parquet":
        raise InputError(f"{table.name}: {quoted(column)} is a column; lists of instances are read from Parquet alone")
    return BagData.from_parquet(table.path, column, COORDS if COORDS in table.columns else "")


def _of_parquet(path: Path, table: Table, ids: np.ndarray) -> BagData:
    if path.suffix != ".parquet":
        raise InputError(f"{path}: bags of several rows in one file are read from Parquet alone")
    names = pq.read_schema(path).names
    shared = [name for name in names if name in table.columns and name not in (FEATURES, COORDS)]
    with_ids = [name for name in shared if set(ids.tolist()) & set(table.strings(name).tolist())]
    if not with_ids:
        raise InputError(f"{path}: no column with the row ids of {table.name}. It holds {some(map(quoted, names))}")
    bags = BagData.from_parquet(path, FEATURES, COORDS if COORDS in names else "", with_ids[0])
    place = {name: at for at, name in enumerate(bags.names)}
    missing = [row for row in ids.tolist() if row not in place]
    if missing:
        raise InputError(f"{path}: no bag for {counted(len(missing), 'row')} of {table.name}: {some(missing)}")
    found: BagData = bags[np.array([place[row] for row in ids.tolist()])]
    return found
