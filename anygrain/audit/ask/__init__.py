"""What to label next, at which granularity, and by whom.

`choose(log_probs, n)` asks for most expected evidence per cost. Give it `features`, and a batch holds no near copies;
`questions` where coarse answers are cheaper or annotators differ; `models` (`head_ensemble`) where labels are to train
the model rather than to settle rows. `choose(by=...)` knows the classical strategies; each works alone on tensors.
`choose_numbers(mean, variance, n)` and `choose_tags(probability, n)` do the same for numbers and tags.
"""

from anygrain.audit.ask.choose import STRATEGIES, Asked, choose
from anygrain.audit.ask.distillation import distillation_queries, robust_distribution, robust_inclusion
from anygrain.audit.ask.diverse import badge, k_center, spread
from anygrain.audit.ask.evidence_gain import Question, best_question, evidence_gain
from anygrain.audit.ask.head_ensemble import head_ensemble
from anygrain.audit.ask.next_class import next_classes, tree_locus
from anygrain.audit.ask.novel import label_map, novel_queries, novelty
from anygrain.audit.ask.numbers import (
    NUMBER_STRATEGIES,
    AskedNumbers,
    NumberQuestion,
    choose_numbers,
    model_variance_reduction,
    variance_reduction,
)
from anygrain.audit.ask.tags import TAG_STRATEGIES, AskedTags, choose_tags
from anygrain.audit.ask.uncertainty import bald, entropy, least_confidence, margin

__all__ = [
    "NUMBER_STRATEGIES",
    "STRATEGIES",
    "TAG_STRATEGIES",
    "Asked",
    "AskedNumbers",
    "AskedTags",
    "NumberQuestion",
    "Question",
    "badge",
    "bald",
    "best_question",
    "choose",
    "choose_numbers",
    "choose_tags",
    "distillation_queries",
    "entropy",
    "evidence_gain",
    "head_ensemble",
    "k_center",
    "label_map",
    "least_confidence",
    "margin",
    "model_variance_reduction",
    "next_classes",
    "novel_queries",
    "novelty",
    "robust_distribution",
    "robust_inclusion",
    "spread",
    "tree_locus",
    "variance_reduction",
]
