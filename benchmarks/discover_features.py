"""Features of the sets on which the methods that find classes are measured, made once and kept.

    ANYGRAIN_DATA=... python benchmarks/discover_features.py --cache FOLDER [--encoder MINILM] [--data clinc150,...]

Texts are read by a sentence encoder (a folder of all-MiniLM-L6-v2, or its name; needs anygrain[text]), drawings by
128 principal components of histograms of strokes, photographs of groceries by 100 of histograms of colours and
gradients, those of CIFAR-10 by 100 of 16 x 16 pixels, newsgroups by 200 singular vectors of their words. Nothing is
learnt from test rows. Cells and bins of the pictures are those by which a logistic regression with all labels does
best (digits 98.5, omniglot 78.2, groceries 46.8), before any classes were looked for.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"

Arrays = dict[str, np.ndarray]


def folder(name: str) -> Path:
    root = os.environ.get("ANYGRAIN_DATA")
    if not root:
        sys.exit("ANYGRAIN_DATA is not set: the folder with clinc150, banking77, trec_questions, digits_domains, ...")
    return Path(root) / name


def codes(*parts: Iterable[Any]) -> tuple[np.ndarray, ...]:
    """Classes as numbers, in the order of their names."""
    parts = tuple(list(part) for part in parts)
    place = {name: k for k, name in enumerate(sorted({name for part in parts for name in part}))}
    return tuple(np.array([place[name] for name in part]) for part in parts)


def above(fine: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """The coarse class of every fine one."""
    found = np.zeros(int(fine.max()) + 1, dtype=int)
    found[fine] = coarse
    return found


def components(x: np.ndarray, x_test: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.decomposition import PCA

    pca = PCA(number, random_state=0).fit(x)
    return pca.transform(x).astype(np.float32), pca.transform(x_test).astype(np.float32)


def of_length_1(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-9)


def gradients(x: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of drawings (N, H, W), of which some are for test; rows of length 1."""
    drawn = strokes(x, 6)
    found = components(drawn[~test], drawn[test], 128)
    return of_length_1(found[0]), of_length_1(found[1])


def strokes(images: np.ndarray, cell: int, bins: int = 8) -> np.ndarray:
    """Roots of histograms of gradients (N, F) of pictures (N, H, W), by direction and place; neighbours share softly.

    A gradient counts for the two bins next to its direction, which has a sign, and for the cells around it, by
    triangles: what is drawn a little elsewhere is little different.
    """
    x = images.astype(np.float32) / 255
    dy, dx = np.gradient(x, axis=(1, 2))
    size, angle = np.hypot(dx, dy), (np.arctan2(dy, dx) % (2 * np.pi)) / (2 * np.pi) * bins
    low, share = np.floor(angle).astype(int) % bins, angle - np.floor(angle)
    at = [np.arange((cell - 1) / 2, length, cell)[:, None] - np.arange(length) for length in x.shape[1:]]
    tall, wide = (np.maximum(0, 1 - np.abs(one) / cell).astype(np.float32) for one in at)
    found = []
    for b in range(bins):
        of_bin = size * ((low == b) * (1 - share) + ((low + 1) % bins == b) * share)
        found.append(np.sqrt(tall @ of_bin @ wide.T))
    return np.stack(found, axis=-1).reshape(len(x), -1)


#: file of texts, and its columns of fine and coarse classes
TEXTS = {
    "clinc150": ("clinc150.parquet", "fine", "coarse"),
    "banking77": ("banking77.parquet", "label", None),
    "trec_questions": ("trec.parquet", "fine", "coarse"),
}


def sentences(name: str) -> tuple[Any, Any]:
    """Data frames of training and test rows, in the order of their features; column "text"."""
    file, fine, _ = TEXTS[name]
    table = pq.read_table(folder(name) / file).to_pandas()
    table = table[table[fine] != "oos"]
    return table[table.split == "train"], table[table.split == "test"]


def texts(name: str, cache: Path, encoder: str) -> Arrays:
    from anygrain.encoders import Pretrained

    _, fine, coarse = TEXTS[name]
    train, test = sentences(name)
    y, y_test = codes(train[fine], test[fine])
    x = Pretrained(encoder, cache=str(cache))([*train.text, *test.text]).numpy()
    found = {"x": x[: len(train)], "x_test": x[len(train) :], "y": y, "y_test": y_test}
    if coarse is not None:
        found["parents"] = above(y, codes(train[coarse])[0])
    return found


def newsgroups(name: str, cache: Path, encoder: str) -> Arrays:
    from scipy.sparse import csr_matrix
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.preprocessing import normalize

    with np.load(folder(name) / "newsgroups20_bow.npz", allow_pickle=True) as held:
        ones = np.ones(len(held["X_indices"]), np.float32)
        words = csr_matrix((ones, held["X_indices"], held["X_indptr"]), shape=tuple(held["X_shape"]))
        y, parents = held["fine"].astype(int), held["fine_to_coarse"].astype(int)
    rows = np.random.default_rng(0).permutation(np.flatnonzero(y >= 0))
    test, train = rows[:5000], rows[5000:]
    counted = TfidfTransformer(sublinear_tf=True).fit(words[train])
    svd = TruncatedSVD(200, random_state=0).fit(counted.transform(words[train]))
    x, x_test = (normalize(svd.transform(counted.transform(words[part]))) for part in (train, test))
    return {
        "x": x.astype(np.float32),
        "x_test": x_test.astype(np.float32),
        "y": y[train],
        "y_test": y[test],
        "parents": parents,
    }


def omniglot(name: str, cache: Path, encoder: str) -> Arrays:
    with np.load(folder(name) / "omniglot_small.npz", allow_pickle=True) as held:
        drawn, y, coarse, test = held["X"], held["fine"].astype(int), held["coarse"], held["drawer"] > 15
    x, x_test = gradients(drawn, test)
    return {"x": x, "x_test": x_test, "y": y[~test], "y_test": y[test], "parents": above(y, coarse)}


def digits(name: str, cache: Path, encoder: str) -> Arrays:
    with np.load(folder(name) / "mnist_test.npz") as held:
        drawn, y = held["X"], held["y"].astype(int)
    test = np.random.default_rng(0).permutation(len(y)) >= len(y) // 2
    x, x_test = gradients(drawn, test)
    return {"x": x, "x_test": x_test, "y": y[~test], "y_test": y[test], "parents": np.arange(10) // 2}


def pictures(encoded: Iterable[bytes], mode: str, side: int | None = None) -> np.ndarray:
    from PIL import Image

    seen = (Image.open(io.BytesIO(one)).convert(mode) for one in encoded)
    return np.stack([np.asarray(one if side is None else one.resize((side, side))) for one in seen])


def grocery(name: str, cache: Path, encoder: str) -> Arrays:
    table = pq.read_table(folder(name) / "grocery_store.parquet").to_pandas()
    test = (table.split == "test").to_numpy()
    hue = pictures(table.image, "HSV").astype(int)
    place = (hue[..., 0] // 8) * 16 + (hue[..., 1] // 64) * 4 + hue[..., 2] // 64
    share = np.stack([np.bincount(one.ravel(), minlength=512) for one in place]) / place[0].size
    seen = np.concatenate([0.3 * of_length_1(strokes(pictures(table.image, "L"), 24)), np.sqrt(share)], axis=1)
    x, x_test = components(seen[~test], seen[test], 100)
    (y,), (coarse,) = codes(table.fine), codes(table.coarse)
    return {"x": x, "x_test": x_test, "y": y[~test], "y_test": y[test], "parents": above(y, coarse)}


def cifar(name: str, cache: Path, encoder: str) -> Arrays:
    root, columns = folder(name), ["image", "label", "coarse"]
    train = pq.read_table(root / "train.parquet", columns=columns).slice(0, 10000).to_pandas()
    test = pq.read_table(root / "test.parquet", columns=columns[:2]).slice(0, 4000).to_pandas()
    seen = [pictures(part.image, "RGB", 16).reshape(len(part), -1) / 255 for part in (train, test)]
    x, x_test = components(seen[0], seen[1], 100)
    y, y_test = train.label.to_numpy().astype(int), test.label.to_numpy().astype(int)
    return {"x": x, "x_test": x_test, "y": y, "y_test": y_test, "parents": above(y, codes(train.coarse)[0])}


LOADERS: dict[str, Callable[[str, Path, str], Arrays]] = {
    "digits_domains": digits,
    "omniglot_small": omniglot,
    "grocery_store": grocery,
    "cifar10_human": cifar,
    "trec_questions": texts,
    "newsgroups20_bow": newsgroups,
    "banking77": texts,
    "clinc150": texts,
}


def features(name: str, cache: Path, encoder: str = ENCODER) -> Arrays:
    """x, y, x_test, y_test, and parents (K,), the coarse class of every class, where there are some."""
    kept = cache / f"{name}.npz"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(kept, **LOADERS[name](name, cache, encoder))  # type: ignore[arg-type]
    with np.load(kept) as held:
        return dict(held)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder where features are kept")
    parser.add_argument("--encoder", default=ENCODER, help="sentence encoder")
    parser.add_argument("--data", default=",".join(LOADERS), help="data sets, separated by commas")
    args = parser.parse_args()
    for name in args.data.split(","):
        print(name, {key: value.shape for key, value in features(name, args.cache, args.encoder).items()}, flush=True)


if __name__ == "__main__":
    main()
