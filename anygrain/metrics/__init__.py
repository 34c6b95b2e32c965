"""Metrics: how good predicted probabilities are, at every level, and how sure one can be of the number.

Which model is better: `log_loss` or `brier_score`, which only the truth minimises; `accuracy` is what readers ask for.
Can its probabilities be trusted: `expected_calibration_error` (chosen class), `classwise_calibration_error` (all).
Of numbers: `crps` or `log_density`, which only the true distribution is best at; `rmse` and `coverage_error` are what
readers ask for.
Of tags: `tag_scores` (each tag), `mean_average_precision`, `micro_f1`, `macro_tag_f1`, `ranking_loss`, `tag_coverage`.
Of classes that were found: `hungarian_accuracy` (all, old, new), `nmi`, `ari`, `class_number_error`.
How sure is the number: `wilson_interval` of a share, `bootstrap_interval` of anything, `paired_lower_bound` of a gain.
"""

from anygrain.metrics.accuracy import accuracy, accuracy_by_level, macro_f1, mean_distance, node_accuracy
from anygrain.metrics.calibration import (
    Reliability,
    classwise_calibration_error,
    event_calibration_error,
    event_reliability,
    expected_calibration_error,
    reliability_curve,
)
from anygrain.metrics.clustering import (
    HungarianAccuracy,
    ari,
    class_number_error,
    hungarian_accuracy,
    nmi,
)
from anygrain.metrics.intervals import (
    Interval,
    bootstrap_interval,
    mean_interval,
    paired_lower_bound,
    wilson_interval,
)
from anygrain.metrics.numbers import (
    CoverageCurve,
    coverage_curve,
    coverage_error,
    crps,
    crps_scores,
    interval_coverage,
    interval_width,
    log_densities,
    log_density,
    mean_absolute_error,
    r_squared,
    rmse,
)
from anygrain.metrics.scores import brier_score, brier_scores, log_loss, log_losses
from anygrain.metrics.tags import (
    TagScores,
    macro_tag_f1,
    mean_average_precision,
    micro_f1,
    ranking_loss,
    ranking_losses,
    tag_counts,
    tag_coverage,
    tag_coverages,
    tag_log_losses,
    tag_scores,
)

__all__ = [
    "CoverageCurve",
    "HungarianAccuracy",
    "Interval",
    "Reliability",
    "TagScores",
    "accuracy",
    "accuracy_by_level",
    "ari",
    "bootstrap_interval",
    "brier_score",
    "brier_scores",
    "class_number_error",
    "classwise_calibration_error",
    "coverage_curve",
    "coverage_error",
    "crps",
    "crps_scores",
    "event_calibration_error",
    "event_reliability",
    "expected_calibration_error",
    "hungarian_accuracy",
    "interval_coverage",
    "interval_width",
    "log_densities",
    "log_density",
    "log_loss",
    "log_losses",
    "macro_f1",
    "macro_tag_f1",
    "mean_absolute_error",
    "mean_average_precision",
    "mean_distance",
    "mean_interval",
    "micro_f1",
    "nmi",
    "node_accuracy",
    "paired_lower_bound",
    "r_squared",
    "ranking_loss",
    "ranking_losses",
    "reliability_curve",
    "rmse",
    "tag_counts",
    "tag_coverage",
    "tag_coverages",
    "tag_log_losses",
    "tag_scores",
    "wilson_interval",
]
