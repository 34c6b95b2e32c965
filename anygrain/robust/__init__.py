"""Doubtful labels: losses, terms, weightings and procedures for noise, missing labels and long tails.

Wrong labels: a robust `Loss` (`GeneralizedCrossEntropy`, `ForwardCorrection`, ...) or a `Procedure` with its own loop.
Few labels: `SelfTraining`, `LabelPropagation` and relatives; few exact ones beside many weak: `SubPseudoLabels`,
`FewShotPrototypes`.
Skewed classes: `LogitAdjustment`, `ClassBalanced`, `AnyLoss`; skewed numbers: `ConR`. Missing marks: `NonNegativePU`,
`PUMLC`, `COMIC`. `method("gce")` gives the arguments of a `Learner` by a method's name; `all_methods()` lists them.
"""

from typing import TYPE_CHECKING

from anygrain._lazy import on_first_use

if TYPE_CHECKING:
    from anygrain.robust.any_loss import AnyLoss
    from anygrain.robust.bootstrapping import Bootstrapping
    from anygrain.robust.class_balanced import ClassBalanced
    from anygrain.robust.co_teaching import CoTeaching
    from anygrain.robust.co_teaching_term import CoTeachingTerm
    from anygrain.robust.co_training import CoTraining
    from anygrain.robust.comic import COMIC
    from anygrain.robust.con_r import ConR, contrastive_regularizer, density_weights
    from anygrain.robust.cross_entropy import CrossEntropy
    from anygrain.robust.disambiguation import Disambiguation, SecondTarget, fuse, merged_classes
    from anygrain.robust.few_shot_prototypes import Decisions, FewShotPrototypes
    from anygrain.robust.focal import Focal
    from anygrain.robust.generalized_cross_entropy import GeneralizedCrossEntropy
    from anygrain.robust.label_propagation import LabelPropagation
    from anygrain.robust.label_smoothing import LabelSmoothing
    from anygrain.robust.logit_adjustment import LogitAdjustment
    from anygrain.robust.methods import Method, all_methods, method
    from anygrain.robust.mixup import Mixup
    from anygrain.robust.non_negative_pu import NonNegativePU
    from anygrain.robust.pu_mlc import PUMLC
    from anygrain.robust.representation_calibration import KeepRepresentation, RepresentationCalibration
    from anygrain.robust.self_training import Handling, SelfTraining, SelfTrainingClassifier
    from anygrain.robust.storm import Rescaler, Storm
    from anygrain.robust.sub_pseudo_labels import SubLabels, SubPseudoLabels, sub_pseudo_labels
    from anygrain.robust.subclass_balancing import SubclassBalancing, SubclassContrast, subclass_balancing_loss
    from anygrain.robust.symmetric_cross_entropy import SymmetricCrossEntropy
    from anygrain.robust.thresholds import Adaptive, Curriculum, Fixed, MarginBound, PlugInError, Threshold, TopPerClass
    from anygrain.robust.transductive_svm import TransductiveSVM
    from anygrain.robust.transition import BackwardCorrection, ForwardCorrection, estimate_transition
    from anygrain.robust.tri_training import TriTraining

__all__ = [
    "COMIC",
    "PUMLC",
    "Adaptive",
    "AnyLoss",
    "BackwardCorrection",
    "Bootstrapping",
    "ClassBalanced",
    "CoTeaching",
    "CoTeachingTerm",
    "CoTraining",
    "ConR",
    "CrossEntropy",
    "Curriculum",
    "Decisions",
    "Disambiguation",
    "FewShotPrototypes",
    "Fixed",
    "Focal",
    "ForwardCorrection",
    "GeneralizedCrossEntropy",
    "Handling",
    "KeepRepresentation",
    "LabelPropagation",
    "LabelSmoothing",
    "LogitAdjustment",
    "MarginBound",
    "Method",
    "Mixup",
    "NonNegativePU",
    "PlugInError",
    "RepresentationCalibration",
    "Rescaler",
    "SecondTarget",
    "SelfTraining",
    "SelfTrainingClassifier",
    "Storm",
    "SubLabels",
    "SubPseudoLabels",
    "SubclassBalancing",
    "SubclassContrast",
    "SymmetricCrossEntropy",
    "Threshold",
    "TopPerClass",
    "TransductiveSVM",
    "TriTraining",
    "all_methods",
    "contrastive_regularizer",
    "density_weights",
    "estimate_transition",
    "fuse",
    "merged_classes",
    "method",
    "sub_pseudo_labels",
    "subclass_balancing_loss",
]

_FILES = {
    "Adaptive": "thresholds",
    "AnyLoss": "any_loss",
    "BackwardCorrection": "transition",
    "Bootstrapping": "bootstrapping",
    "COMIC": "comic",
    "ClassBalanced": "class_balanced",
    "CoTeaching": "co_teaching",
    "CoTeachingTerm": "co_teaching_term",
    "CoTraining": "co_training",
    "ConR": "con_r",
    "CrossEntropy": "cross_entropy",
    "Curriculum": "thresholds",
    "Decisions": "few_shot_prototypes",
    "Disambiguation": "disambiguation",
    "FewShotPrototypes": "few_shot_prototypes",
    "Fixed": "thresholds",
    "Focal": "focal",
    "ForwardCorrection": "transition",
    "GeneralizedCrossEntropy": "generalized_cross_entropy",
    "Handling": "self_training",
    "KeepRepresentation": "representation_calibration",
    "LabelPropagation": "label_propagation",
    "LabelSmoothing": "label_smoothing",
    "LogitAdjustment": "logit_adjustment",
    "MarginBound": "thresholds",
    "Method": "methods",
    "Mixup": "mixup",
    "NonNegativePU": "non_negative_pu",
    "PUMLC": "pu_mlc",
    "PlugInError": "thresholds",
    "RepresentationCalibration": "representation_calibration",
    "Rescaler": "storm",
    "SecondTarget": "disambiguation",
    "SelfTraining": "self_training",
    "SelfTrainingClassifier": "self_training",
    "Storm": "storm",
    "SubLabels": "sub_pseudo_labels",
    "SubPseudoLabels": "sub_pseudo_labels",
    "SubclassBalancing": "subclass_balancing",
    "SubclassContrast": "subclass_balancing",
    "SymmetricCrossEntropy": "symmetric_cross_entropy",
    "Threshold": "thresholds",
    "TopPerClass": "thresholds",
    "TransductiveSVM": "transductive_svm",
    "TriTraining": "tri_training",
    "all_methods": "methods",
    "contrastive_regularizer": "con_r",
    "density_weights": "con_r",
    "estimate_transition": "transition",
    "fuse": "disambiguation",
    "merged_classes": "disambiguation",
    "method": "methods",
    "sub_pseudo_labels": "sub_pseudo_labels",
    "subclass_balancing_loss": "subclass_balancing",
}

__getattr__ = on_first_use(__name__, _FILES)
