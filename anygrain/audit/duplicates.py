"""Rows that stand twice in the data, exactly or nearly, and whose labels disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

#: share of the median distance of a row to its nearest neighbour below which two rows are nearly the same
NEAR = 0.15
NEIGHBOURS = 10
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
        data: (N, ...) array or sparse matrix, data frame, texts, or objects that turn into arrays.
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
    """A digest of the content of every row, (N,)."""
    if hasattr(data, "tocsr"):
        rows = data.tocsr()
        rows.sum_duplicates()
        ends = rows.indptr
        parts: Sequence[bytes] = [rows.indices[a:b].tobytes() + rows.data[a:b].tobytes() for a, b in pairwise(ends)]
    elif hasattr(data, "columns"):
        import narwhals as nw

        parts = [repr(row).encode() for row in nw.from_native(data, eager_only=True).iter_rows()]
    elif hasattr(data, "shape") and np.asarray(data).dtype.kind != "O":
        table = np.ascontiguousarray(np.asarray(data))
        parts = [row.tobytes() for row in table.reshape(len(table), -1)]
    else:
        parts = [_bytes(item, at) for at, item in enumerate(data)]
    return np.array([blake2b(p, digest_size=16).digest() for p in parts], dtype="S16")


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
