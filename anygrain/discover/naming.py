"""A suggested name and a description of every class, from its texts, its columns, or the rows that show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from anygrain.encoders.choose import is_text
from anygrain.labels import LabelError

WORD = r"(?u)\b[^\W\d_][^\W_]+(?:['’-][^\W_]+)*\b"
MOST_TERMS = 20_000  # of a vocabulary
PRIOR = 10.0  # rows that the share of a term in all rows counts for
SURE = 1.645  # standard errors above 0 from which on a term tells a class from its siblings
FAINT = 0.15  # of that score, below which it is left out
KEPT = 8  # terms of a class
IN_NAME = 2
WEAK = 0.35  # of the score of the first term, below which another does not stand in the name
OF_PHRASE = 0.5  # of the rows with a word, above which the phrase that holds it stands for it
WORDS = 4.0  # on average in the cells of a column, from which on it is text
APART, SURE_APART = 0.5, 2.58  # standard deviations, and errors, from which on a number tells a class from its siblings


@dataclass(frozen=True)
class Suggestion:
    """What a class may be called.

    Attributes:
        name: of a known class its own; of a new one the most distinctive terms, unlike every other name.
        terms: what tells the class from its siblings, the most telling first.
        description: a sentence with the shares of the terms, or the means of the columns.
    """

    name: str
    terms: tuple[str, ...]
    description: str


@dataclass(frozen=True)
class Term:
    """One term of a class: what it is called, how telling it is, how many rows have it, and the numbers in words."""

    name: str
    score: float
    rows: float
    said: str


def describe(found: Any, data: Any, *, ids: Sequence[Any] | np.ndarray | None = None) -> list[Suggestion]:
    r"""A name and a description of every class that a `Discover` found.

    A class is compared with its siblings, the other classes below its coarse class; with all others where it has none.
    Of a term w (a word, two words that follow each other once stop words are gone, a value of a column) that y of the n
    rows of the class have, and y' of the n' rows of its siblings, counts the log odds ratio, in standard errors,

    .. math:: z = \frac{\log\frac{y + a}{n - y + b} - \log\frac{y' + a}{n' - y' + b}}
        {\sqrt{\frac1{y + a} + \frac1{n - y + b} + \frac1{y' + a} + \frac1{n' - y' + b}}},
        \quad a = 10 p_w, \; b = 10 (1 - p_w)

    with p the share of the term in all rows, so that a term of few rows counts little. That is weighed by how few
    classes have the term, :math:`1 - H(c \mid w) / \log K` with every class as large as the others, so that words of
    everyday speech come last. Numbers count by the difference of means in standard errors. A word gives way to a phrase
    that holds it in most of its rows.

    Args:
        found: a fitted `Discover` or method.
        data: the rows: texts, or a data frame, whose string columns are texts where their cells have four words or
            more on average. Of anything else (arrays, pictures) a class is named after the row nearest to its mean.
        ids: what rows are called, (N,); their numbers when None.

    Raises:
        LabelError: data of other rows.

    Source: Monroe, Colaresi and Quinn, Fightin' Words, 2008; class-based TF-IDF: Grootendorst, BERTopic, 2022.
    """
    labels, k = np.asarray(found.labels_), int(found.n_classes_)
    node = np.asarray(found.node_)
    n = len(data) if hasattr(data, "__len__") else np.shape(data)[0]
    if n != len(labels):
        raise LabelError(f"{n} rows are given to name classes of {len(labels)} rows by; expected the rows of the fit")
    if is_text(data):
        terms = text_terms(data, labels, node)
    elif hasattr(data, "columns"):
        terms = frame_terms(data, labels, node)
    else:
        terms = [[] for _ in range(k)]
    called = np.arange(n) if ids is None else np.asarray(ids, dtype=object)
    return _suggested(found, terms, called)


def text_terms(texts: Sequence[Any], labels: np.ndarray, node: np.ndarray) -> list[list[Term]]:
    """The distinctive terms of every class, from texts.

    Args:
        texts: N texts; what is no string is empty.
        labels: (N,) class of every row.
        node: (K,) what every class lies below; classes of one node are siblings.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    read = CountVectorizer(
        token_pattern=WORD,
        stop_words="english",
        ngram_range=(1, 2),
        binary=True,
        min_df=2 if len(texts) > 50 else 1,
        max_features=MOST_TERMS,
        dtype=np.float64,
    )
    try:
        there = read.fit_transform([text if isinstance(text, str) else "" for text in texts])
    except ValueError:  # no word at all
        return [[] for _ in node]
    names = read.get_feature_names_out().tolist()
    return [_without_repeats(terms) for terms in _distinctive(there, names, labels, node, quote='"')]


def frame_terms(frame: Any, labels: np.ndarray, node: np.ndarray) -> list[list[Term]]:
    """The distinctive terms, values and numbers of every class, from a data frame; see `text_terms`."""
    import narwhals as nw
    from sklearn.preprocessing import OneHotEncoder

    columns = nw.from_native(frame, eager_only=True)
    texts: list[list[str]] = []
    found: list[list[Term]] = [[] for _ in node]
    values, number_names, category_names = [], [], []
    numbers: list[np.ndarray] = []
    for name in columns.columns:
        column = columns[name]
        if column.dtype.is_numeric():
            numbers.append(column.cast(nw.Float64).to_numpy().astype(np.float64))
            number_names.append(name)
        elif column.dtype in (nw.String, nw.Categorical, nw.Enum, nw.Boolean, nw.Object):
            cells = ["" if v is None or v != v else str(v) for v in column.to_list()]
            if column.dtype != nw.Boolean and np.mean([len(cell.split()) for cell in cells]) >= WORDS:
                texts.append(cells)
            else:
                values.append(cells)
                category_names.append(name)
    if texts:
        found = text_terms([" . ".join(row) for row in zip(*texts, strict=True)], labels, node)
    if values:
        read = OneHotEncoder(dtype=np.float64)
        there = csr_matrix(read.fit_transform(np.array(values, dtype=object).T))
        names = [
            f"{column} = {value}" if value else ""
            for column, of in zip(category_names, read.categories_, strict=True)
            for value in of.tolist()
        ]
        kept = np.array([bool(name) for name in names])
        more = _distinctive(there[:, kept], [name for name in names if name], labels, node, quote="")
        found = [a + b for a, b in zip(found, more, strict=True)]
    if numbers:
        more = _of_numbers(np.stack(numbers, axis=1), number_names, labels, node)
        found = [a + b for a, b in zip(found, more, strict=True)]
    return [sorted(terms, key=lambda term: -term.score) for terms in found] if values or numbers else found


def _distinctive(
    there: Any, names: Sequence[str], labels: np.ndarray, node: np.ndarray, *, quote: str
) -> list[list[Term]]:
    """Terms of every class that its siblings lack, the most telling first.

    Args:
        there: sparse (N, V), 1 where a row has a term.
    """
    k = len(node)
    own = _members(labels, k) @ there
    group, rest, n_own, n_other = _against(own, labels, node)
    everywhere = np.asarray(own.sum(axis=0)).ravel()
    share = (everywhere + 0.5) / (len(labels) + 1)
    weight = _rarity(own, n_own)
    out: list[list[Term]] = []
    for c in range(k):
        row = own[c]
        has, y = row.indices, row.data
        n, m = n_own[c], n_other[c]
        if m == 0:  # nothing to compare with: the most frequent
            order = has[np.lexsort((has, -y))]
            out.append([Term(names[t], row[0, t] / n, row[0, t], _said(names[t], row[0, t], n, quote)) for t in order])
            continue
        other = np.asarray(group[rest[c]][:, has].todense()).ravel() - y
        a, b = PRIOR * share[has], PRIOR * (1 - share[has])
        ratio = np.log((y + a) / (n - y + b)) - np.log((other + a) / (m - other + b))
        error = np.sqrt(1 / (y + a) + 1 / (n - y + b) + 1 / (other + a) + 1 / (m - other + b))
        z = ratio / error
        kept = np.flatnonzero((z > SURE) & (y >= min(2, n)))
        score = z * weight[has]
        kept = kept[np.argsort(-score[kept], kind="stable")]
        out.append(
            [
                Term(names[has[t]], float(score[t]), y[t], _said(names[has[t]], y[t], n, quote, float(other[t] / m)))
                for t in kept.tolist()
            ]
        )
    return out


def _rarity(own: Any, size: np.ndarray) -> np.ndarray:
    """How few classes have every term (V,), from 0 for all alike to 1 for one alone."""
    shares = csr_matrix(own.multiply(1 / np.maximum(size, 1)[:, None]))
    total = np.asarray(shares.sum(axis=0)).ravel()
    part = shares.data / total[shares.indices]
    entropy = np.bincount(shares.indices, weights=-part * np.log(part), minlength=shares.shape[1])
    return np.asarray(1 - entropy / np.log(max(len(size), 2)))


def _said(name: str, y: float, n: float, quote: str, elsewhere: float | None = None) -> str:
    more = "" if elsewhere is None else f", elsewhere {100 * elsewhere:.0f} %"
    return f"{quote}{name}{quote} in {100 * y / n:.0f} %{more}"


def _members(labels: np.ndarray, k: int) -> csr_matrix:
    """(K, N), 1 where a row is of a class."""
    n = len(labels)
    return csr_matrix((np.ones(n), (labels, np.arange(n))), shape=(k, n))


def _against(own: Any, labels: np.ndarray, node: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """Sums over what every class is compared with, itself included, and which of them: its node, or everything.

    Returns:
        sums (C + 1, V), which of them (K,), rows of the class (K,), rows of the others (K,).
    """
    k, c = len(node), int(node.max()) + 1
    size = np.bincount(labels, minlength=k).astype(np.float64)
    below = np.bincount(node, weights=size, minlength=c)
    in_node = csr_matrix((np.ones(k), (node, np.arange(k))), shape=(c, k))
    both = csr_matrix(np.concatenate([in_node.toarray(), np.ones((1, k))]))
    alone = below[node] == size
    which = np.where(alone, c, node)
    total = np.where(alone, size.sum(), below[node])
    return csr_matrix(both @ own), which, size, total - size


def _of_numbers(numbers: np.ndarray, names: Sequence[str], labels: np.ndarray, node: np.ndarray) -> list[list[Term]]:
    """Columns of numbers (N, D) that are high or low in a class; cells that are not finite do not count."""
    k = len(node)
    known = np.isfinite(numbers)
    cells = np.where(known, numbers, 0.0)
    members = _members(labels, k)
    count, total = np.asarray(members @ known.astype(np.float64)), np.asarray(members @ cells)
    groups, which, _, _ = _against(csr_matrix(count), labels, node)
    others_count = groups.toarray()[which] - count
    groups, which, _, _ = _against(csr_matrix(total), labels, node)
    others_total = groups.toarray()[which] - total
    seen = np.maximum(known.sum(axis=0), 1)
    centre = cells.sum(axis=0) / seen
    spread = np.sqrt((np.where(known, cells - centre, 0.0) ** 2).sum(axis=0) / seen)
    mean, other = total / np.maximum(count, 1), others_total / np.maximum(others_count, 1)
    apart = np.where(
        (count > 0) & (others_count > 0) & (spread > 0), (mean - other) / np.where(spread > 0, spread, 1), 0
    )
    z = apart * np.sqrt(count * others_count / np.maximum(count + others_count, 1))
    out: list[list[Term]] = []
    for c in range(k):
        kept = np.flatnonzero((np.abs(z[c]) > SURE_APART) & (np.abs(apart[c]) > APART))
        kept = kept[np.argsort(-np.abs(z[c, kept]), kind="stable")]
        out.append(
            [
                Term(
                    f"{'high' if z[c, t] > 0 else 'low'} {names[t]}",
                    float(abs(z[c, t])),
                    float(count[c, t]),
                    f"{names[t]} {mean[c, t]:.3g}, elsewhere {other[c, t]:.3g}",
                )
                for t in kept.tolist()
            ]
        )
    return out


def _without_repeats(terms: Sequence[Term]) -> list[Term]:
    """The first terms, each word once: a phrase stands for its words where it holds them in most of their rows."""
    found: list[Term] = []
    used: set[str] = set()
    for term in terms:
        stems = _stems(term.name)
        if used & set(stems):
            continue
        if len(stems) == 1:
            phrases = [
                other
                for other in terms
                if len(_stems(other.name)) == 2
                and stems[0] in _stems(other.name)
                and not used & set(_stems(other.name))
                and other.rows >= OF_PHRASE * term.rows
            ]
            term = phrases[0] if phrases else term
        found.append(term)
        used |= set(_stems(term.name))
        if len(found) == KEPT:
            break
    return found


def _stems(name: str) -> list[str]:
    """The words of a term without their plural."""
    return [w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w for w in name.split()]


def _suggested(found: Any, terms: Sequence[Sequence[Term]], ids: np.ndarray) -> list[Suggestion]:
    names, known = list(found.class_names_), np.asarray(found.known_)
    size = np.bincount(found.labels_, minlength=len(names))
    taken = {name for name, own in zip(names, known, strict=True) if own} | set(found.node_names_)
    out = []
    for c, name in enumerate(names):
        kept = [term for term in terms[c] if term.score >= FAINT * terms[c][0].score][:KEPT]
        near = [str(ids[row]) for row in found.exemplars_[c]]
        if not known[c] and size[c]:
            name = _free_name(kept, near, name, taken)
        taken.add(name)
        like = f"rows like {', '.join(near[:3])}" if near else "no row"
        rows = "1 row" if size[c] == 1 else f"{size[c]} rows"
        said = f"{rows}: {'; '.join(term.said for term in kept[:3])}" if kept else like
        out.append(Suggestion(name, tuple(term.name for term in kept), said))
    return out


def _free_name(terms: Sequence[Term], near: Sequence[str], name: str, taken: set[str]) -> str:
    """A name that no other class has: of one or two terms, of more, or that of its first row."""
    strong = sum(term.score >= WEAK * terms[0].score for term in terms[:IN_NAME])
    for many in range(max(strong, 1), len(terms) + 1):
        called = ", ".join(term.name for term in terms[:many])
        if called not in taken:
            return called
    called = f"like {near[0]}" if near and not terms else name
    count = 2
    free = called
    while free in taken:
        free, count = f"{called} {count}", count + 1
    return free
