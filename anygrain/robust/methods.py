"""Methods by name: what each puts into which slot of a Learner, and what it accepts."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from anygrain.labels import LabelError

#: what a method goes with
CLASSES, TAGS, NUMBERS = "classes", "tags", "a number"
FIXED, TRAINED = "fixed features", "a trained encoder"


@dataclass(frozen=True)
class Method:
    """A named way to fill the slots of a Learner.

    Attributes:
        name: as in `Learner(**method(name))` and ``[learn] method``.
        says: one line.
        make: keyword arguments of a Learner, from the method's own options.
        spaces: what the labels may speak of: "classes", "tags", "a number".
        encoders: "fixed features", "a trained encoder", or both.
        source: paper.
    """

    name: str
    says: str
    make: Callable[..., dict[str, Any]]
    spaces: tuple[str, ...] = (CLASSES,)
    encoders: tuple[str, ...] = (FIXED, TRAINED)
    source: str = ""

    def check(self, space: str, *, trained: bool) -> None:
        """Raises LabelError where the labels or the encoder are not what the method is for."""
        if space not in self.spaces:
            raise LabelError(
                f'method "{self.name}" is for labels of {" or ".join(self.spaces)}; these speak of {space}'
            )
        encoder = TRAINED if trained else FIXED
        if encoder not in self.encoders:
            raise LabelError(f'method "{self.name}" is for {" or ".join(self.encoders)}; this is {encoder}')


def _nothing() -> dict[str, Any]:
    return {}


_ALL: list[Method] = [
    Method("default", "the recipe as it is, with cross-entropy", _nothing, (CLASSES, TAGS, NUMBERS)),
]


def methods() -> Mapping[str, Method]:
    """All methods by name."""
    return {found.name: found for found in _ALL}


def find(name: str) -> Method:
    """The method of a name.

    Raises:
        LabelError: a name that is not known, with the nearest one.
    """
    known = methods()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f'Did you mean "{close[0]}"?' if close else "Expected one of " + ", ".join(known)
        raise LabelError(f'method "{name}" is not known. {hint}')
    return known[name]


def method(name: str, **options: Any) -> dict[str, Any]:
    """Arguments of a `Learner` that put a method into its slots: ``Learner(**method("gce", q=0.5))``.

    Raises:
        LabelError: a name or an option that is not known.
    """
    found = find(name)
    try:
        return found.make(**options)
    except TypeError as error:
        raise LabelError(f'method "{name}": {error}') from error
