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
    "auto": Method("automatic", "Automatic", "chooses by the data and says why"),
    "mixture": Method(
        "constrained_mixture", "ConstrainedMixture", "the cheap default: Gaussians of one shape; any labels, or none"
    ),
    "ss-kmeans": Method(
        "semi_supervised_k_means", "SemiSupervisedKMeans", "k-means in which told rows stay; any labels, or none"
    ),
    "constrained-kmeans": Method(
        "constrained_k_means", "ConstrainedKMeans", "k-means that never breaks a pair; pairs, and any other labels"
    ),
    "gmm": Method(
        "gaussian_mixture", "GaussianMixture", "Gaussians of a shape and number that BIC chooses; any labels"
    ),
    "ward": Method("ward", "Ward", "merging on a graph of neighbours; no start to be unlucky with, unlike sizes"),
    "spectral": Method(
        "spectral_clustering", "SpectralClustering", "parts of a graph of neighbours; any shape, told rows stay"
    ),
    "consensus": Method("consensus", "Consensus", "classes on which several methods agree; any labels, or none"),
    "hdbscan": Method("hdbscan", "HDBSCAN", "dense places that stay apart; finds the number and says what is noise"),
    "gpc": Method(
        "gpc", "GPC", "Gaussians that split and merge; finds the number; any labels, best with some known classes"
    ),
    "acol": Method("acol", "ACOL", "a classifier of coarse classes whose outputs divide them; coarse labels"),
    "class-relation": Method(
        "class_relation",
        "ClassRelationDistillation",
        "new classes beside known ones that a teacher keeps; some known classes labelled",
    ),
    "gedi": Method(
        "gedi", "GEDI", "clusters that are a density too and say which rows are unlike all others; any labels, or none"
    ),
    "coding-rate": Method("coding_rate", "MLC", "classes as subspaces at right angles; any labels, or none"),
    "self-distillation": Method(
        "self_distillation",
        "SelfDistillation",
        "a cosine head that refines what another method found; best with some known classes labelled",
    ),
    "adapted": Method(
        "adapted",
        "Adapted",
        "features or an encoder that learn what is told and found, then another method; any labels, or none",
    ),
    "sub-prototypes": Method(
        "sub_prototype_memory",
        "SubPrototypeMemory",
        "unlabelled rows that look unlike the labelled ones, with new classes; some known classes labelled",
    ),
    "label-expansion": Method(
        "label_expansion", "LabelExpansion", "a stream seen once, whose labels get finer; coarse and fine labels"
    ),
    "all-in-one": Method(
        "all_in_one",
        "AllInOne",
        "known classes and their rejection in one softmax, for rows that look unlike; some known classes labelled",
    ),
}


def method(name: str) -> type[Discoverer]:
    """The class of a method.

    Raises:
        ValueError: a name that is not in the table.
    """
    if name not in METHODS:
        raise ValueError(f'there is no method "{name}"; expected one of {", ".join(METHODS)}')
    return METHODS[name].load()
