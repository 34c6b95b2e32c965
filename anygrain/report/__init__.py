"""Pictures and the page of a run.

`write_report(run_folder)` makes the page. The displays draw alone: `ReliabilityDisplay.from_predictions(y, p)` and
`ConfusionDisplay.from_predictions(y, predicted)` on matplotlib axes, the others from the numbers that you give them.
"""

from anygrain.report.balance import BalanceDisplay
from anygrain.report.confusion import ConfusionDisplay
from anygrain.report.history import HistoryDisplay
from anygrain.report.intervals import IntervalDisplay
from anygrain.report.page import write_report
from anygrain.report.reliability import ReliabilityDisplay
from anygrain.report.rowmap import MapDisplay, row_map

__all__ = [
    "BalanceDisplay",
    "ConfusionDisplay",
    "HistoryDisplay",
    "IntervalDisplay",
    "MapDisplay",
    "ReliabilityDisplay",
    "row_map",
    "write_report",
]
