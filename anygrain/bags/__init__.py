"""Learning from sets: the label is on the whole, the answer is wanted for the parts, or for the whole.

Ragged bags: `BagData`. A class of the bag, or of its instances: `Learner`, with `AnyOf`, `Proportions`, ... or `Exact`
on the bags. Mean responses: `AggregateRegressor`, `AggregateClassifier`, the term `WithinBag`, and `private_means`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anygrain.bags.aggregate_loss import aggregate_loss, bag_means, within_bag_spread
    from anygrain.bags.aggregate_models import AggregateClassifier, AggregateRegressor
    from anygrain.bags.instance_clustering import InstanceClustering
    from anygrain.bags.private_means import private_means
    from anygrain.bags.within_bag import WithinBag
    from anygrain.data.bag_data import BagData

__all__ = [
    "AggregateClassifier",
    "AggregateRegressor",
    "BagData",
    "InstanceClustering",
    "WithinBag",
    "aggregate_loss",
    "bag_means",
    "private_means",
    "within_bag_spread",
]

_FILES = {
    "AggregateClassifier": "anygrain.bags.aggregate_models",
    "AggregateRegressor": "anygrain.bags.aggregate_models",
    "BagData": "anygrain.data.bag_data",
    "InstanceClustering": "anygrain.bags.instance_clustering",
    "WithinBag": "anygrain.bags.within_bag",
    "aggregate_loss": "anygrain.bags.aggregate_loss",
    "bag_means": "anygrain.bags.aggregate_loss",
    "private_means": "anygrain.bags.private_means",
    "within_bag_spread": "anygrain.bags.aggregate_loss",
}


def __getattr__(name: str) -> Any:
    """Names are imported when first used: scikit-learn's import costs a second."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_FILES[name]), name)
