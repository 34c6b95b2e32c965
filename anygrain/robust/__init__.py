"""Doubtful labels: losses, terms, weightings and procedures for noise, missing labels and long tails.

Wrong labels: a robust `Loss` (`GeneralizedCrossEntropy`, `ForwardCorrection`, ...) or a `Procedure` with its own loop.
Skewed classes: `LogitAdjustment`, `ClassBalanced`, `AnyLoss`; skewed numbers: `ConR`. Missing marks: `NonNegativePU`,
`PUMLC`, `COMIC`. `method("gce")` gives the arguments of a `Learner` by a method's name; `methods()` lists them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anygrain.robust.any_loss import AnyLoss
    from anygrain.robust.bootstrapping import Bootstrapping
    from anygrain.robust.class_balanced import ClassBalanced
    from anygrain.robust.comic import COMIC
    from anygrain.robust.con_r import ConR, contrastive_regularizer, density_weights
    from anygrain.robust.cross_entropy import CrossEntropy
    from anygrain.robust.focal import Focal
    from anygrain.robust.generalized_cross_entropy import GeneralizedCrossEntropy
    from anygrain.robust.label_smoothing import LabelSmoothing
    from anygrain.robust.logit_adjustment import LogitAdjustment
    from anygrain.robust.methods import Method, method, methods
    from anygrain.robust.mixup import Mixup
    from anygrain.robust.non_negative_pu import NonNegativePU
    from anygrain.robust.pu_mlc import PUMLC
    from anygrain.robust.symmetric_cross_entropy import SymmetricCrossEntropy
    from anygrain.robust.transition import BackwardCorrection, ForwardCorrection, estimate_transition

__all__ = [
    "COMIC",
    "PUMLC",
    "AnyLoss",
    "BackwardCorrection",
    "Bootstrapping",
    "ClassBalanced",
    "ConR",
    "CrossEntropy",
    "Focal",
    "ForwardCorrection",
    "GeneralizedCrossEntropy",
    "LabelSmoothing",
    "LogitAdjustment",
    "Method",
    "Mixup",
    "NonNegativePU",
    "SymmetricCrossEntropy",
    "contrastive_regularizer",
    "density_weights",
    "estimate_transition",
    "method",
    "methods",
]

_FILES = {
    "AnyLoss": "any_loss",
    "BackwardCorrection": "transition",
    "Bootstrapping": "bootstrapping",
    "COMIC": "comic",
    "ClassBalanced": "class_balanced",
    "ConR": "con_r",
    "CrossEntropy": "cross_entropy",
    "Focal": "focal",
    "ForwardCorrection": "transition",
    "GeneralizedCrossEntropy": "generalized_cross_entropy",
    "LabelSmoothing": "label_smoothing",
    "LogitAdjustment": "logit_adjustment",
    "Method": "methods",
    "Mixup": "mixup",
    "NonNegativePU": "non_negative_pu",
    "PUMLC": "pu_mlc",
    "SymmetricCrossEntropy": "symmetric_cross_entropy",
    "contrastive_regularizer": "con_r",
    "density_weights": "con_r",
    "estimate_transition": "transition",
    "method": "methods",
    "methods": "methods",
}


def __getattr__(name: str) -> Any:
    """Names are imported when first used: scikit-learn's import costs a second."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
