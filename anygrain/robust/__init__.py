"""Doubtful labels: losses, terms, weightings and procedures for noise, missing labels and long tails.

Wrong labels: a robust `Loss` (`GeneralizedCrossEntropy`, `ForwardCorrection`, ...) or a `Procedure` with its own loop.
Skewed classes: `LogitAdjustment`, `ClassBalanced`, `AnyLoss`; skewed numbers: `ConR`. Missing marks: `NonNegativePU`,
`PUMLC`, `COMIC`. `method("gce")` gives the arguments of a `Learner` by a method's name; `methods()` lists them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anygrain.robust.methods import Method, method, methods

__all__ = [
    "Method",
    "method",
    "methods",
]

_FILES = {
    "Method": "methods",
    "method": "methods",
    "methods": "methods",
}


def __getattr__(name: str) -> Any:
    """Names are imported when first used: scikit-learn's import costs a second."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
