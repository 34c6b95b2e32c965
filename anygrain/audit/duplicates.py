"""Rows that stand twice in the data, exactly or nearly, and whose labels disagree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from anygrain.data.bag_data import BagData

#: share of the median distance of a row to its nearest neighbour below which two rows are nearly the same
NEAR = 0.15
NEIGHBOURS = 10
#: words of 64 bits held at a time while rows are compared to the byte
CHUNK = 2**20
#: of a class: two rows may be of one class where both think it this possible, compared with their likeliest
POSSIBLE = 0.5


@dataclass(frozen=True)
class Duplicates:
    """Pairs of rows that are the same or nearly so, the first the smaller, (P,) each.

    Attributes:
        first, second: data rows.
        exact: bool, whether their content is the same to the byte.
        distance: in feature space; 0 for exact pairs.
        conflict: bool, whether no class is possible by the labels of both.
        group: of every data row, (N,): rows of the same content, or joined by near pairs.
    """

    first: np.ndarray
    second: np.ndarray
    exact: np.ndarray
    distance: np.ndarray
    conflict: np.ndarray
    group: np.ndarray


def find_duplicates(data: Any, features: np.ndarray | None = None, evidence: np.ndarray | None = None) -> Duplicates:
    """Pairs of rows with the same content, and of near neighbours in feature space.

    A group of n rows of the same content gives n - 1 pairs, each row with the one before it. Near are rows among each
    other's `NEIGHBOURS` nearest whose distance is at most `NEAR` times the median distance to a nearest neighbour.

    Args:
        data: (N, ...) array or sparse matrix, data frame, texts, bags, or objects that turn into arrays.
        features: (N, D), where near duplicates are looked for; None: not at all.
        evidence: what the labels of each row say without its features, (N, K) as a posterior under equal priors, or
            (N, L, K) where a row has L instances, any of which may conflict; None: nothing conflicts.
    """
    content = content_of(data)
    _, group = np.unique(content, return_inverse=True)
    order = np.argsort(group, kind="stable")
    same = group[order][1:] == group[order][:-1]
    first, second = order[:-1][same], order[1:][same]
    distance = np.zeros(len(first))
    exact = np.ones(len(first), dtype=bool)
    if features is not None and len(features) > 1:
        near_first, near_second, apart = _near_pairs(np.asarray(features, dtype=np.float32))
        new = group[near_first] != group[near_second]
        first = np.concatenate([first, near_first[new]])
        second = np.concatenate([second, near_second[new]])
        distance = np.concatenate([distance, apart[new]])
        exact = np.concatenate([exact, np.zeros(int(new.sum()), dtype=bool)])
        group = _joined(group, first, second)
    place = np.lexsort((second, first))
    first, second, distance, exact = first[place], second[place], distance[place], exact[place]
    conflict = np.zeros(len(first), dtype=bool)
    if evidence is not None and len(first):
        scaled = evidence / evidence.max(axis=-1, keepdims=True)
        apart = np.minimum(scaled[first], scaled[second]).max(axis=-1) < POSSIBLE
        conflict = apart if apart.ndim == 1 else apart.any(axis=1)
    return Duplicates(first, second, exact, distance, conflict, group)


def content_of(data: Any) -> np.ndarray:
    """A key of the content of every row, (N,): the same for rows that are the same to the byte."""
    if hasattr(data, "tocsr"):
        return _of_sparse(data.tocsr())
    if hasattr(data, "columns"):
        import narwhals as nw

        columns = nw.from_native(data, eager_only=True).iter_columns()
        return _of_table(np.stack([_codes(column) for column in columns], axis=1))
    if not isinstance(data, BagData) and hasattr(data, "shape") and np.asarray(data).dtype.kind != "O":
        return _of_table(np.asarray(data))
    digests = [blake2b(_bytes(item, at), digest_size=16).digest() for at, item in enumerate(data)]
    return np.array(digests, dtype="S16")


def _of_table(table: np.ndarray) -> np.ndarray:
    """A key of 128 bits for the bytes of every row of (N, ...), (N,): sums of mixed words, each by its place."""
    n = len(table)
    rows = np.ascontiguousarray(table.reshape(n, math.prod(table.shape[1:])))
    width = rows.shape[1] * rows.itemsize
    words = -(-width // 8)
    by_place = np.random.default_rng(0).integers(0, 2**63, (words, 2), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    out = np.zeros((n, 2), dtype=np.uint64)
    step = max(CHUNK // max(words, 1), 1)
    for start in range(0, n if width else 0, step):
        part = rows[start : start + step].view(np.uint8)
        padded = np.pad(part, ((0, 0), (0, 8 * words - width))) if width % 8 else part
        out[start : start + step] = _mixed(padded.view(np.uint64)) @ by_place
    return out.view(np.dtype((np.void, 16)))[:, 0]


def _of_sparse(given: Any) -> np.ndarray:
    """Two sums of 64 bits over the entries of every row, of numbers that place and value are mixed to, (N,)."""
    rows = given.copy()
    rows.sum_duplicates()
    bits = rows.data.astype(np.float64).view(np.uint64)
    ends = rows.indptr
    sums = np.zeros((2, len(ends) - 1), dtype=np.uint64)
    for out, start in zip(sums, (1, 2), strict=True):
        mixed = _mixed(bits ^ _mixed(rows.indices.astype(np.uint64) + np.uint64(start << 32)))
        out[:] = np.diff(np.concatenate([np.zeros(1, dtype=np.uint64), mixed.cumsum(dtype=np.uint64)])[ends])
    return _of_table(sums.T)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Numbers of 64 bits, each turned into another that looks drawn at random (the finaliser of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))


def _codes(column: Any) -> np.ndarray:
    """A number of 64 bits for every cell of a column, (N,), the same for cells that are the same."""
    cells = column.to_numpy()
    if cells.dtype.kind in "iufb" and cells.itemsize <= 8 and not bool(column.is_null().any()):
        return np.unique(cells.astype(np.float64) if cells.dtype.kind == "f" else cells, return_inverse=True)[1]
    known: dict[str, int] = {}
    return np.array([known.setdefault(repr(cell), len(known)) for cell in column.to_list()], dtype=np.int64)


def _bytes(item: Any, at: int) -> bytes:
    """Content of a text, an image (a file, its bytes, or both), or an array; an empty cell is like no other."""
    if isinstance(item, dict):
        item = item["bytes"] or (item["path"] and Path(item["path"]))
    if item is None:
        return f"row {at} is empty".encode()
    if isinstance(item, Path):
        return item.read_bytes()
    if isinstance(item, str):
        return item.encode()
    return item if isinstance(item, bytes) else np.asarray(item).tobytes()


def _near_pairs(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows (P,) and (P,) that are near, the first the smaller, each pair once, and their distance (P,)."""
    from sklearn.neighbors import NearestNeighbors

    k = min(NEIGHBOURS, len(features) - 1)
    distance, other = NearestNeighbors(n_neighbors=k + 1).fit(features).kneighbors(features)
    row = np.repeat(np.arange(len(features)), k + 1)
    flat, apart = other.reshape(-1), distance.reshape(-1)
    away = np.where(other == np.arange(len(features))[:, None], np.inf, distance).min(axis=1)
    typical = np.median(away[away > 0]) if bool((away > 0).any()) else 0.0
    close = (apart <= NEAR * typical) & (flat != row)
    low, high = np.minimum(row, flat)[close], np.maximum(row, flat)[close]
    _, once = np.unique(low * len(features) + high, return_index=True)
    return low[once], high[once], apart[close][once]


def _joined(group: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Groups (N,), joined along pairs of rows."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = int(group.max()) + 1
    edges = coo_matrix((np.ones(len(first)), (group[first], group[second])), shape=(n, n))
    return np.asarray(connected_components(edges, directed=False)[1][group])
