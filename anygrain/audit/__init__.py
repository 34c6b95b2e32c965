"""Audit of labels: which are wrong, where classes overlap, what stands twice or apart, and what a label is worth.

`suspects(log_probs, labels)` judges every record from anybody's probabilities; `audit(model, data, labels)` finds
probabilities of its own where none are given, and everything else that this room knows. `knn_shapley` and
`label_influence` value single labels, `find_duplicates` and `find_outliers` look at the data, `class_overlap` at the classes.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anygrain.audit.suspicion import suspects

__all__ = [
    "suspects",
]

_FILES = {
    "suspects": "suspicion",
}


def __getattr__(name: str) -> Any:
    """Names are imported when first used: scikit-learn's import costs a second."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)
