"""What is known about classes and numbers: kinds of label, channels, taxonomies, and how they combine.

Start with the kind that says what one row of your labels says (`Exact`, `Coarse`, `Crowd`, `Counts`, ...; of a number
`Value`, `Censored`, `Ratings`, `AggregateValue`).
Join kinds with `&`; the evidence multiplies. `aggregate` gives posteriors without features; with features use
`anygrain.learn.Learner`. `check` compares a kind, also one of yours, with brute-force enumeration.
"""

from anygrain.labels.aggregate import Aggregated, aggregate
from anygrain.labels.aggregates import Aggregate
from anygrain.labels.all import All
from anygrain.labels.anyof import AnyOf
from anygrain.labels.at_least import AtLeast
from anygrain.labels.at_most import AtMost
from anygrain.labels.automata import Tables
from anygrain.labels.automaton import Automaton
from anygrain.labels.bags import Bags
from anygrain.labels.base import Batch, Labels
from anygrain.labels.between import Between
from anygrain.labels.candidates import Candidates
from anygrain.labels.channels import (
    Channel,
    ClassCoin,
    Confusion,
    Difficulty,
    InclusionRates,
    LabellingFunction,
    OneCoin,
    Ordinal,
    RuleForest,
    Spammer,
    Transition,
)
from anygrain.labels.check import Check, check
from anygrain.labels.coarse import Coarse
from anygrain.labels.compare import Compare
from anygrain.labels.complementary import Complementary
from anygrain.labels.counts import Counts
from anygrain.labels.crowd import Crowd
from anygrain.labels.error import LabelError
from anygrain.labels.exact import Exact
from anygrain.labels.identifiability import IdentifiabilityWarning, identifiability
from anygrain.labels.instance import InstanceLabels
from anygrain.labels.interval import Interval
from anygrain.labels.majority import Majority
from anygrain.labels.noisy import Noisy
from anygrain.labels.pairs import Pairs
from anygrain.labels.pairs_unlabeled import PairsUnlabeled
from anygrain.labels.positive import Positive
from anygrain.labels.proportions import Proportions
from anygrain.labels.real import (
    AggregateValue,
    Belief,
    Censored,
    RatingChannel,
    Ratings,
    RealAggregated,
    RealAll,
    RealLabels,
    Value,
)
from anygrain.labels.rules import Rules
from anygrain.labels.sampling import Sampled
from anygrain.labels.set_label import SetLabel
from anygrain.labels.sets import SetLabels
from anygrain.labels.soft import Soft
from anygrain.labels.tags import Tags
from anygrain.labels.taxonomy import Taxonomy
from anygrain.labels.two_unlabeled import TwoUnlabeled

__all__ = [
    "Aggregate",
    "AggregateValue",
    "Aggregated",
    "All",
    "AnyOf",
    "AtLeast",
    "AtMost",
    "Automaton",
    "Bags",
    "Batch",
    "Belief",
    "Between",
    "Candidates",
    "Censored",
    "Channel",
    "Check",
    "ClassCoin",
    "Coarse",
    "Compare",
    "Complementary",
    "Confusion",
    "Counts",
    "Crowd",
    "Difficulty",
    "Exact",
    "IdentifiabilityWarning",
    "InclusionRates",
    "InstanceLabels",
    "Interval",
    "LabelError",
    "LabellingFunction",
    "Labels",
    "Majority",
    "Noisy",
    "OneCoin",
    "Ordinal",
    "Pairs",
    "PairsUnlabeled",
    "Positive",
    "Proportions",
    "RatingChannel",
    "Ratings",
    "RealAggregated",
    "RealAll",
    "RealLabels",
    "RuleForest",
    "Rules",
    "Sampled",
    "SetLabel",
    "SetLabels",
    "Soft",
    "Spammer",
    "Tables",
    "Tags",
    "Taxonomy",
    "Transition",
    "TwoUnlabeled",
    "Value",
    "aggregate",
    "check",
    "identifiability",
]
