"""The methods by name."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anygrain.discover.discoverer import Discoverer


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        file: module of the class, within anygrain.discover.
        name: of the class.
        good_for: what it is for and which labels it needs, in a line.
    """

    file: str
    name: str
    good_for: str

    def load(self) -> type[Discoverer]:
        found: type[Discoverer] = getattr(import_module(f"anygrain.discover.{self.file}"), self.name)
        return found


#: short name -> method; for `Discover(method=...)` and the program
METHODS: dict[str, Method] = {
    "mixture": Method(
        "constrained_mixture", "ConstrainedMixture", "the cheap default: Gaussians of one shape; any labels, or none"
    ),
    "ss-kmeans": Method(
        "semi_supervised_k_means", "SemiSupervisedKMeans", "k-means in which told rows stay; any labels, or none"
    ),
}


def method(name: str) -> type[Discoverer]:
    """The class of a method.

    Raises:
        ValueError: a name that is not in the table.
    """
    if name not in METHODS:
        raise ValueError(f'there is no method "{name}"; expected one of {", ".join(METHODS)}, or "auto"')
    return METHODS[name].load()
