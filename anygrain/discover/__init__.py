"""Hidden classes: finer classes inside coarse ones, and new classes beside known ones.

`Discover()` chooses a method for the data; `methods` lists them, what each is for and which labels it needs.
"""

from typing import TYPE_CHECKING

from anygrain._lazy import on_first_use

if TYPE_CHECKING:
    from anygrain.discover.acol import ACOL
    from anygrain.discover.active import ActiveDiscovery
    from anygrain.discover.adapted import Adapted
    from anygrain.discover.all_in_one import AllInOne
    from anygrain.discover.class_relation import ClassRelationDistillation
    from anygrain.discover.coding_rate import MLC
    from anygrain.discover.consensus import Consensus
    from anygrain.discover.constrained_k_means import ConstrainedKMeans
    from anygrain.discover.constrained_mixture import ConstrainedMixture
    from anygrain.discover.discover import Discover
    from anygrain.discover.discoverer import Discoverer
    from anygrain.discover.gaussian_mixture import GaussianMixture
    from anygrain.discover.gedi import GEDI
    from anygrain.discover.gpc import GPC
    from anygrain.discover.hdbscan import HDBSCAN
    from anygrain.discover.label_expansion import LabelExpansion
    from anygrain.discover.naming import describe
    from anygrain.discover.revision import Revision
    from anygrain.discover.self_distillation import SelfDistillation
    from anygrain.discover.semi_supervised_k_means import SemiSupervisedKMeans
    from anygrain.discover.spectral_clustering import SpectralClustering
    from anygrain.discover.sub_prototype_memory import SubPrototypeMemory
    from anygrain.discover.ward import Ward

__all__ = [
    "ACOL",
    "GEDI",
    "GPC",
    "HDBSCAN",
    "MLC",
    "ActiveDiscovery",
    "Adapted",
    "AllInOne",
    "ClassRelationDistillation",
    "Consensus",
    "ConstrainedKMeans",
    "ConstrainedMixture",
    "Discover",
    "Discoverer",
    "GaussianMixture",
    "LabelExpansion",
    "Revision",
    "SelfDistillation",
    "SemiSupervisedKMeans",
    "SpectralClustering",
    "SubPrototypeMemory",
    "Ward",
    "describe",
]

_FILES = {
    "ACOL": "acol",
    "ActiveDiscovery": "active",
    "Adapted": "adapted",
    "AllInOne": "all_in_one",
    "ClassRelationDistillation": "class_relation",
    "Consensus": "consensus",
    "ConstrainedKMeans": "constrained_k_means",
    "ConstrainedMixture": "constrained_mixture",
    "Discover": "discover",
    "Discoverer": "discoverer",
    "GEDI": "gedi",
    "GPC": "gpc",
    "GaussianMixture": "gaussian_mixture",
    "HDBSCAN": "hdbscan",
    "MLC": "coding_rate",
    "Revision": "revision",
    "LabelExpansion": "label_expansion",
    "SelfDistillation": "self_distillation",
    "SemiSupervisedKMeans": "semi_supervised_k_means",
    "SpectralClustering": "spectral_clustering",
    "SubPrototypeMemory": "sub_prototype_memory",
    "Ward": "ward",
    "describe": "naming",
}

__getattr__ = on_first_use(__name__, _FILES)
