"""Audit of labels: which are wrong, where classes overlap, what stands twice or apart, and what a label is worth.

`suspects(log_probs, labels)` judges every record from anybody's probabilities; `audit(model, data, labels)` finds
probabilities of its own where none are given, and everything else that this room knows. `knn_shapley` and
`label_influence` value single labels, `find_duplicates` and `find_outliers` look at the data, `class_overlap` at the
classes, `learn_noise` at how wrong labels come about. `soft_labels` and `soft_numbers` make one
target of many answers.
"""

from typing import TYPE_CHECKING

from anygrain._lazy import on_first_use

if TYPE_CHECKING:
    from anygrain.audit.agreement import Agreement, cohen_kappa, fleiss_kappa, krippendorff_alpha
    from anygrain.audit.annotators import Annotators, judge_annotators
    from anygrain.audit.auditing import Audit, audit
    from anygrain.audit.duplicates import Duplicates, find_duplicates
    from anygrain.audit.further_votes import VotesNeeded, votes_needed
    from anygrain.audit.of_ratings import SoftNumbers, soft_numbers
    from anygrain.audit.of_votes import soft_labels
    from anygrain.audit.outliers import Outliers, find_outliers
    from anygrain.audit.overlap import Overlap, class_overlap
    from anygrain.audit.rules import JudgedRules, judge_rules
    from anygrain.audit.suspicion import suspects
    from anygrain.audit.value import knn_shapley, label_influence
    from anygrain.robust.label_noise import Noise, learn_noise

__all__ = [
    "Agreement",
    "Annotators",
    "Audit",
    "Duplicates",
    "JudgedRules",
    "Noise",
    "Outliers",
    "Overlap",
    "SoftNumbers",
    "VotesNeeded",
    "audit",
    "class_overlap",
    "cohen_kappa",
    "find_duplicates",
    "find_outliers",
    "fleiss_kappa",
    "judge_annotators",
    "judge_rules",
    "knn_shapley",
    "krippendorff_alpha",
    "label_influence",
    "learn_noise",
    "soft_labels",
    "soft_numbers",
    "suspects",
    "votes_needed",
]

_FILES = {
    "Agreement": "agreement",
    "Annotators": "annotators",
    "Audit": "auditing",
    "Duplicates": "duplicates",
    "JudgedRules": "rules",
    "Noise": "anygrain.robust.label_noise",
    "Outliers": "outliers",
    "Overlap": "overlap",
    "SoftNumbers": "of_ratings",
    "VotesNeeded": "further_votes",
    "audit": "auditing",
    "class_overlap": "overlap",
    "cohen_kappa": "agreement",
    "find_duplicates": "duplicates",
    "find_outliers": "outliers",
    "fleiss_kappa": "agreement",
    "judge_annotators": "annotators",
    "judge_rules": "rules",
    "knn_shapley": "value",
    "krippendorff_alpha": "agreement",
    "label_influence": "value",
    "learn_noise": "anygrain.robust.label_noise",
    "soft_labels": "of_votes",
    "soft_numbers": "of_ratings",
    "suspects": "suspicion",
    "votes_needed": "further_votes",
}

__getattr__ = on_first_use(__name__, _FILES)
