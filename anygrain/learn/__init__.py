"""How a model is fitted: the Learner, its heads, losses, terms, weightings, procedures, and the default recipe.

`Learner(seed=0).fit(X, labels)` is all that is needed. Give it a `loss`, `terms` or a `weighting` to shape the last fit
of the head, and a `Procedure` to replace the recipe.
"""

from typing import TYPE_CHECKING

from anygrain._lazy import on_first_use

if TYPE_CHECKING:
    from anygrain.learn.confidence_terms import ConfidenceDifference, PositiveConfidence, SimilarityConfidence
    from anygrain.learn.head import Cosine, Head, Linear, Perceptron, Prototype, Quadratic
    from anygrain.learn.learner import Learner, load
    from anygrain.learn.loggers import JsonLines, MLflow, TensorBoard
    from anygrain.learn.loss import cross_entropy
    from anygrain.learn.procedure import Procedure
    from anygrain.learn.real_head import Gaussian, GaussianMLP
    from anygrain.learn.recipe import RecipeState, Settings
    from anygrain.learn.step import Step
    from anygrain.learn.term import Term
    from anygrain.learn.weighting import Weighting

__all__ = [
    "ConfidenceDifference",
    "Cosine",
    "Gaussian",
    "GaussianMLP",
    "Head",
    "JsonLines",
    "Learner",
    "Linear",
    "MLflow",
    "Perceptron",
    "PositiveConfidence",
    "Procedure",
    "Prototype",
    "Quadratic",
    "RecipeState",
    "Settings",
    "SimilarityConfidence",
    "Step",
    "TensorBoard",
    "Term",
    "Weighting",
    "cross_entropy",
    "load",
]

_FILES = {
    "ConfidenceDifference": "confidence_terms",
    "PositiveConfidence": "confidence_terms",
    "SimilarityConfidence": "confidence_terms",
    "Cosine": "head",
    "Gaussian": "real_head",
    "GaussianMLP": "real_head",
    "Head": "head",
    "JsonLines": "loggers",
    "Learner": "learner",
    "Linear": "head",
    "MLflow": "loggers",
    "Perceptron": "head",
    "Procedure": "procedure",
    "Prototype": "head",
    "Quadratic": "head",
    "RecipeState": "recipe",
    "Settings": "recipe",
    "Step": "step",
    "TensorBoard": "loggers",
    "Term": "term",
    "Weighting": "weighting",
    "cross_entropy": "loss",
    "load": "learner",
}

__getattr__ = on_first_use(__name__, _FILES)
