"""Hidden classes: finer classes inside coarse ones, and new classes beside known ones."""

from typing import TYPE_CHECKING

from anygrain._lazy import on_first_use

if TYPE_CHECKING:
    from anygrain.discover.discoverer import Discoverer
    from anygrain.discover.self_distillation import SelfDistillation
    from anygrain.discover.semi_supervised_k_means import SemiSupervisedKMeans

__all__ = ["Discoverer", "SelfDistillation", "SemiSupervisedKMeans"]

_FILES = {
    "Discoverer": "discoverer",
    "SelfDistillation": "self_distillation",
    "SemiSupervisedKMeans": "semi_supervised_k_means",
}

__getattr__ = on_first_use(__name__, _FILES)
