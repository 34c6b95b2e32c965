"""Texts as words: each by its place in a vocabulary, and by the hashes of its letter groups."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.encoders.trainable import Arrays
from anygrain.labels import LabelError

#: places in every vocabulary: nothing, the start of a text, a word that is hidden, a word that is not in it
PADDING, START, HIDDEN, UNKNOWN, FIRST_WORD = range(5)

# signs that stand alone: punctuation and symbols, and the letters of scripts that put no space between words
_ALONE = (
    "!-/:-@\\[-`{-~\u00a1-\u00bf\u00d7\u00f7\u2010-\u2bff\u3000-\u303f\ufe10-\ufe1f\ufe30-\ufe4f\U0001f000-\U0001faff"
    "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORDS = re.compile(f"[{_ALONE}]|[^\\s{_ALONE}]+")


def is_missing(value: Any) -> bool:
    """Whether a value stands for nothing, whatever the library writes there."""
    return value is None or str(value) in ("nan", "<NA>")


def texts_in(data: Any) -> list[str | None]:
    """Texts of a list, series or array, None where missing.

    Raises:
        LabelError: other data, a row that is no text.
    """
    if isinstance(data, str) or hasattr(data, "columns") or getattr(data, "ndim", 1) != 1:
        shape = f" of shape {tuple(data.shape)}" if hasattr(data, "shape") else ""
        raise LabelError(f"X is {type(data).__name__}{shape}; expected a list of texts")
    odd = next(((i, v) for i, v in enumerate(data) if not isinstance(v, str) and not is_missing(v)), None)
    if odd is not None:
        raise LabelError(f"row {odd[0]} is {odd[1]!r}; expected a text")
    return [str(v) if isinstance(v, str) else None for v in data]


def words_of(text: str | None, longest: int | None = None) -> list[str]:
    """The first words of a text, in lower case, punctuation apart; none where it is missing."""
    found = _WORDS.finditer(unicodedata.normalize("NFKC", text or "").casefold())
    return [match.group() for match in islice(found, longest)]


def letter_groups(word: str, buckets: int, most: int) -> list[int]:
    """Hashes, from 1 on, of the groups of three and four letters of a word with its ends marked."""
    marked = f"<{word}>"
    groups = [marked[i : i + n] for n in (3, 4) for i in range(max(1, len(marked) - n + 1))]
    return [1 + zlib.crc32(g.encode("utf-8", "surrogatepass")) % buckets for g in dict.fromkeys(groups)][:most]


class Words:
    """Words of rows of text, as a network reads them: `Inputs`.

    `rows[...]` gives "words" (B, L), places in the vocabulary, a row starting with START and ending in PADDING, and
    "letters" (B, L, G), hashes of the letter groups of each word, 0 where there are none.

    Args:
        texts: a text per row, None where missing.
        vocabulary: words known by name.
        longest: words of a text that are read, the first ones.
        buckets: number of hashes.
        groups: most letter groups of a word.
    """

    def __init__(
        self, texts: Iterable[str | None], vocabulary: Sequence[str], longest: int, buckets: int, groups: int = 24
    ) -> None:
        place = {word: at for at, word in enumerate(vocabulary, start=FIRST_WORD)}
        said = [words_of(text, longest) for text in texts]
        types: dict[str, int] = {}
        numbered = [[types.setdefault(word, len(types) + 2) for word in row] for row in said]
        length = 1 + max((len(row) for row in numbered), default=0)
        self.types = torch.zeros(len(numbered), length, dtype=torch.int32)
        self.types[:, 0] = 1
        filled = torch.arange(length - 1) < torch.tensor([len(row) for row in numbered])[:, None]
        flat = np.fromiter((t for row in numbered for t in row), dtype=np.int32)
        self.types[:, 1:][filled] = torch.from_numpy(flat)
        self.places = torch.tensor([PADDING, START, *(place.get(word, UNKNOWN) for word in types)], dtype=torch.int32)
        self.letters = torch.zeros(len(types) + 2, groups, dtype=torch.int32)
        for word, at in types.items():
            found = letter_groups(word, buckets, groups)
            self.letters[at, : len(found)] = torch.tensor(found, dtype=torch.int32)

    def __len__(self) -> int:
        return len(self.types)

    def __getitem__(self, rows: Tensor) -> Arrays:
        types = self.types[rows].long()
        return {"words": self.places[types], "letters": self.letters[types]}


def frequent_words(texts: Iterable[str | None], most: int, longest: int) -> list[str]:
    """Words that occur in two texts or more, the most frequent ones first, at most so many."""
    counts = Counter(word for text in texts for word in dict.fromkeys(words_of(text, longest)))
    often = [(word, n) for word, n in counts.items() if n > 1]
    return [word for word, _ in sorted(often, key=lambda entry: (-entry[1], entry[0]))[:most]]
