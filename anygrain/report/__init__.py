"""Pictures and the page of a run.

`write_report(run_folder)` makes the page. The displays draw alone: `ReliabilityDisplay.from_predictions(y, p)` and
`ConfusionDisplay.from_predictions(y, predicted)` on matplotlib axes, the others from the numbers that you give them.
"""

from anygrain.report.balance import BalanceDisplay
from anygrain.report.confusion import ConfusionDisplay
from anygrain.report.coverage import CoverageDisplay
from anygrain.report.heat import HeatDisplay
from anygrain.report.histogram import ResidualDisplay
from anygrain.report.history import HistoryDisplay
from anygrain.report.intervals import IntervalDisplay
from anygrain.report.page import write_report
from anygrain.report.precision import PrecisionDisplay
from anygrain.report.reliability import ReliabilityDisplay
from anygrain.report.rowmap import MapDisplay, row_map
from anygrain.report.scatter import ScatterDisplay
from anygrain.report.together import TogetherDisplay

__all__ = [
    "BalanceDisplay",
    "ConfusionDisplay",
    "CoverageDisplay",
    "HeatDisplay",
    "HistoryDisplay",
    "IntervalDisplay",
    "MapDisplay",
    "PrecisionDisplay",
    "ReliabilityDisplay",
    "ResidualDisplay",
    "ScatterDisplay",
    "TogetherDisplay",
    "row_map",
    "write_report",
]
