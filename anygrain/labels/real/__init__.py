"""What is known about a number: values, ranges, ratings, means and sums over bags, and how they combine."""

from anygrain.labels.real.aggregate import RealAggregated
from anygrain.labels.real.aggregate_value import AggregateValue
from anygrain.labels.real.all import RealAll
from anygrain.labels.real.base import RealInstanceLabels, RealLabels, RealSetLabels
from anygrain.labels.real.belief import Belief
from anygrain.labels.real.censored import Censored
from anygrain.labels.real.rating_channel import RatingChannel
from anygrain.labels.real.ratings import Ratings
from anygrain.labels.real.value import Value

__all__ = [
    "AggregateValue",
    "Belief",
    "Censored",
    "RatingChannel",
    "Ratings",
    "RealAggregated",
    "RealAll",
    "RealInstanceLabels",
    "RealLabels",
    "RealSetLabels",
    "Value",
]
