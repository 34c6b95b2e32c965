"""Learning from sets: the label is on the whole, the answer is wanted for the parts, or for the whole.

Ragged bags: `BagData`. A class of the bag, or of its instances: `Learner`, with `AnyOf`, `Proportions`, ... or `Exact`
on the bags. Training strategies: `mhim` around any attention, `INS` for instances of bags with and without a class,
`pretrain_on_sets` where few instances are told as well, `InstanceClustering` for CLAM. Mean responses:
`AggregateRegressor`, `AggregateClassifier`, the term `WithinBag`, and `private_means`.
"""

from typing import TYPE_CHECKING

from anygrain._lazy import on_first_use

if TYPE_CHECKING:
    from anygrain.bags.aggregate_losses import aggregate_loss, bag_means, within_bag_spread
    from anygrain.bags.aggregate_models import AggregateClassifier, AggregateRegressor
    from anygrain.bags.candidate_contrast import candidate_classes, moved_prototypes, weakly_supervised_contrast
    from anygrain.bags.facile import SetContrast, pretrain_on_sets
    from anygrain.bags.hard_instances import MaskedHardInstances, masked_instances, mhim
    from anygrain.bags.ins import INS
    from anygrain.bags.instance_clustering import InstanceClustering
    from anygrain.bags.privacy import private_means
    from anygrain.bags.within_bag import WithinBag
    from anygrain.data.bag_data import BagData

__all__ = [
    "INS",
    "AggregateClassifier",
    "AggregateRegressor",
    "BagData",
    "InstanceClustering",
    "MaskedHardInstances",
    "SetContrast",
    "WithinBag",
    "aggregate_loss",
    "bag_means",
    "candidate_classes",
    "masked_instances",
    "mhim",
    "moved_prototypes",
    "pretrain_on_sets",
    "private_means",
    "weakly_supervised_contrast",
    "within_bag_spread",
]

_FILES = {
    "INS": "anygrain.bags.ins",
    "AggregateClassifier": "anygrain.bags.aggregate_models",
    "AggregateRegressor": "anygrain.bags.aggregate_models",
    "BagData": "anygrain.data.bag_data",
    "InstanceClustering": "anygrain.bags.instance_clustering",
    "MaskedHardInstances": "anygrain.bags.hard_instances",
    "SetContrast": "anygrain.bags.facile",
    "WithinBag": "anygrain.bags.within_bag",
    "aggregate_loss": "anygrain.bags.aggregate_losses",
    "bag_means": "anygrain.bags.aggregate_losses",
    "candidate_classes": "anygrain.bags.candidate_contrast",
    "masked_instances": "anygrain.bags.hard_instances",
    "mhim": "anygrain.bags.hard_instances",
    "moved_prototypes": "anygrain.bags.candidate_contrast",
    "pretrain_on_sets": "anygrain.bags.facile",
    "private_means": "anygrain.bags.privacy",
    "weakly_supervised_contrast": "anygrain.bags.candidate_contrast",
    "within_bag_spread": "anygrain.bags.aggregate_losses",
}

__getattr__ = on_first_use(__name__, _FILES)
