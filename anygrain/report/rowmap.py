"""A map of the rows: similar rows lie near each other, groups of classes differ in colour and mark."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from anygrain.report.svg import SHAPES, Drawing, shortened

# of the palette of Okabe and Ito, told apart by colour-blind readers; the page lightens them on dark ground
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#5B5B5B")
MARKERS = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D", "cross": "x", "ring": "$\\bigcirc$"}
MANY = 2000
MOST_NAMES = 60


def row_map(features: Any, posterior: Any, *, limit: int = MANY, seed: int = 0) -> np.ndarray:
    r"""Places (N, 2) of rows on a map; NaN for rows beyond `limit`, which are left out at random.

    Features are projected on the span of the class means :math:`m_k = \sum_i q_{ik} x_i / \sum_i q_{ik}`, at most 20
    directions, largest first (where classes are few, on the largest singular directions as well); then neighbours are
    kept near each other by t-SNE.

    Args:
        features: array or sparse matrix, shape (N, D).
        posterior: q, shape (N, K).
        limit: largest number of rows that are placed.
        seed: of the choice of rows and of the projection.

    Source: van der Maaten and Hinton, Visualizing Data using t-SNE, 2008.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.manifold import TSNE

    q = np.asarray(posterior, dtype=np.float64)
    mass = q.sum(axis=0)
    means = np.asarray(features.T @ q).T / np.maximum(mass, 1e-12)[:, None]
    centre = (mass @ means) / max(mass.sum(), 1e-12)
    _, size, directions = np.linalg.svd(np.sqrt(mass)[:, None] * (means - centre), full_matrices=False)
    directions = directions[: min(20, int((size > 1e-9 * size.max(initial=1e-300)).sum()))]
    chosen = np.arange(len(q))
    if len(chosen) > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(len(q), limit, replace=False))
    some = features[chosen]
    scores = _unit(np.asarray(some @ directions.T, dtype=np.float64) - centre @ directions.T)
    more = min(8 - scores.shape[1], some.shape[1] - 1, len(chosen) - 1)
    if more > 0:  # few classes span few directions
        with np.errstate(invalid="ignore", divide="ignore"):  # shares of a variance that may be 0
            found = TruncatedSVD(more, random_state=seed).fit_transform(some)
        scores = np.concatenate([scores, 0.5 * _unit(found - found.mean(axis=0))], axis=1)
    places = np.full((len(q), 2), np.nan)
    spread = np.ptp(scores, axis=0).max(initial=0.0) > 1e-9  # t-SNE fails where all rows are the same
    if scores.shape[1] >= 2 and len(chosen) > 10 and spread:
        near = min(30.0, (len(chosen) - 1) / 3)
        fitted = TSNE(perplexity=near, init="pca", max_iter=500, random_state=seed).fit_transform(scores)
        places[chosen] = fitted
    elif len(chosen):
        places[chosen] = np.pad(scores[:, :2], ((0, 0), (0, max(0, 2 - scores.shape[1]))))
    return places


def _unit(scores: np.ndarray) -> np.ndarray:
    """Scores (n, d) with rows of mean square 1."""
    size = float(np.sqrt((scores**2).sum(axis=1).mean())) if scores.size else 0.0
    return scores / size if size > 0 else scores


class MapDisplay:
    """Rows as points.

    Args:
        places: shape (n, 2).
        groups: name of the group of every row, shape (n,): its class, or the parent of its class.
        classes: class of every row, shape (n,), to be named in the middle of its rows; optional.
        flagged: bool, shape (n,): rows to ring, such as those whose labels are in doubt.
    """

    def __init__(self, places: Any, groups: Any, *, classes: Any = None, flagged: Any = None) -> None:
        self.places = np.asarray(places, dtype=np.float64).reshape(-1, 2)
        self.groups = np.asarray(groups).astype(str)
        self.classes = None if classes is None else np.asarray(classes).astype(str)
        self.flagged = np.zeros(len(self.places), bool) if flagged is None else np.asarray(flagged, dtype=bool)
        names, count = np.unique(self.groups, return_counts=True)
        order = np.argsort(-count, kind="stable")
        self.names: list[str] = names[order][: len(COLOURS)].tolist()
        self.others: list[str] = names[order][len(COLOURS) :].tolist()

    def plot(self, ax: Any = None) -> Self:
        """Draw on matplotlib axes (new ones without `ax`); sets `ax_` and `figure_`."""
        from anygrain.report.axes import new_axes

        ax = new_axes(ax)
        rest = np.isin(self.groups, self.others)
        if rest.any():
            ax.scatter(*self.places[rest].T, s=6, color="0.7", label="other")
        for at, name in enumerate(self.names):
            kept = self.groups == name
            marker = MARKERS[SHAPES[at % len(SHAPES)]]
            ax.scatter(*self.places[kept].T, s=10, color=COLOURS[at], marker=marker, label=name)
        ax.scatter(*self.places[self.flagged].T, s=60, facecolors="none", edgecolors="black", label="label in doubt")
        ax.set(xticks=[], yticks=[])
        ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def to_svg(self, width: float = 720, height: float = 470, legend: float = 190.0) -> str:
        """The same as SVG for a page; `legend` is the room that names take."""
        low, high = (
            (self.places.min(axis=0), self.places.max(axis=0)) if len(self.places) else (np.zeros(2), np.ones(2))
        )
        drawing = Drawing(width, height, x=(low[0], high[0]), y=(low[1], high[1]), margins=(40, 10, legend + 40, 26))
        rest = np.isin(self.groups, self.others)
        if rest.any():
            drawing.marks(self.places[rest], "c-other", size=1.8)
        for at, name in enumerate(self.names):
            kept = self.groups == name
            drawing.marks(self.places[kept], f"c{at}", shape=SHAPES[at % len(SHAPES)], size=2.2)
        if self.flagged.any():
            drawing.marks(self.places[self.flagged], "flag", shape="ring", size=5.5)
        self._name_classes(drawing)
        entries = [(f"c{at}", SHAPES[at % len(SHAPES)], name) for at, name in enumerate(self.names)]
        if rest.any():
            entries.append(("c-other", "circle", f"{len(self.others)} more"))
        if self.flagged.any():
            entries.append(("flag", "ring", "label in doubt"))
        for at, (css, shape, name) in enumerate(entries):
            y = 24.0 + 24 * at
            drawing.mark(width - legend, y, css, shape=shape, size=4.5)
            cut = shortened(name, int((legend - 14) / 7.3))
            drawing.text(width - legend + 14, y + 4, cut, css="name", tip=name if cut != name else "")
        return drawing.svg("Map of the rows")

    def _name_classes(self, drawing: Drawing) -> None:
        """Names below the rows of each class, largest first, where they hit no other name."""
        if self.classes is None:
            return
        names, inverse, count = np.unique(self.classes, return_inverse=True, return_counts=True)
        taken: list[tuple[float, float, float]] = []
        for at in np.argsort(-count, kind="stable")[:MOST_NAMES]:
            x, y = np.median(self.places[inverse == at, 0]), np.quantile(self.places[inverse == at, 1], 0.1)
            name = shortened(str(names[at]), 28)
            here = (drawing.x(float(x)), drawing.y(float(y)) + 13, 3.3 * len(name) + 4)
            if all(abs(here[0] - x) > here[2] + wide or abs(here[1] - y) > 13 for x, y, wide in taken):
                taken.append(here)
                drawing.text(here[0], here[1] + 4, name, anchor="middle", css="place")
