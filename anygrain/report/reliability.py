"""Reliability: of the rows that were given a probability, how many were right?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from anygrain.report.intervals import wilson
from anygrain.report.svg import Drawing


class ReliabilityDisplay:
    r"""Confidence against accuracy, in bins of the confidence, with an interval for each bin.

    With bins :math:`B_b` of n rows in all, the expected calibration error is
    :math:`\sum_b |B_b| / n \; |\mathrm{accuracy}_b - \mathrm{confidence}_b|`.

    Args:
        confidence: mean probability of the predicted class in each bin, shape (B,).
        accuracy: share of right predictions in each bin, shape (B,).
        count: rows in each bin, shape (B,).
        low, high: limits of the accuracy at 95 %, shape (B,); Wilson's interval where not given.
        edges: limits of the bins, shape (B, 2), for the table; optional.
        name: what was predicted with.

    Raises:
        ValueError: lengths that differ.
    """

    def __init__(
        self,
        confidence: Any,
        accuracy: Any,
        count: Any,
        *,
        low: Any = None,
        high: Any = None,
        edges: Any = None,
        name: str | None = None,
    ) -> None:
        self.confidence = np.asarray(confidence, dtype=np.float64)
        self.accuracy = np.asarray(accuracy, dtype=np.float64)
        self.count = np.asarray(count, dtype=np.float64)
        if not self.confidence.shape == self.accuracy.shape == self.count.shape:
            raise ValueError(
                f"bins differ in number: {self.confidence.shape} confidences, {self.accuracy.shape} accuracies, "
                f"{self.count.shape} counts"
            )
        if low is None or high is None:
            low, high = wilson(self.accuracy * self.count, self.count)
        self.low, self.high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        self.edges = None if edges is None else np.asarray(edges, dtype=np.float64).reshape(-1, 2)
        self.name = name

    @property
    def calibration_error(self) -> float:
        """Expected calibration error over these bins; NaN without rows."""
        total = self.count.sum()
        return float((self.count * np.abs(self.accuracy - self.confidence)).sum() / total) if total else float("nan")

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        probabilities: Any,
        *,
        classes: Sequence[Any] | None = None,
        n_bins: int = 10,
        name: str | None = None,
        ax: Any = None,
        plot: bool = True,
    ) -> Self:
        """From true classes and predicted probabilities; empty bins are left out.

        Args:
            y_true: true classes, shape (N,): columns of `probabilities`, or members of `classes`.
            probabilities: shape (N, K), rows that sum to one.
            classes: the K classes in the order of the columns; 0..K-1 where not given.
            n_bins: bins of equal width over [0, 1].
            name: for the legend.
            ax: matplotlib axes to draw on; new ones where not given.
            plot: False only computes.

        Raises:
            ValueError: shapes that do not fit, or a class that is not among `classes`.
        """
        table = np.asarray(probabilities, dtype=np.float64)
        truth = np.asarray(y_true)
        if table.ndim != 2 or truth.shape != table.shape[:1]:
            raise ValueError(
                f"probabilities have shape {table.shape} and y_true {truth.shape}; expected (N, K) and (N,)"
            )
        names = np.arange(table.shape[1]) if classes is None else np.asarray(classes)
        if len(names) != table.shape[1]:
            raise ValueError(f"{len(names)} classes for {table.shape[1]} columns of probabilities")
        unknown = ~np.isin(truth, names)
        if unknown.any():
            raise ValueError(f"y_true holds {truth[unknown][0]!r}, which is not among the classes")
        top = table.argmax(axis=1)
        correct = names[top] == truth
        confidence = table[np.arange(len(table)), top]
        # a confidence of exactly 1 belongs to the last bin
        place = np.minimum((confidence * n_bins).astype(np.int64), n_bins - 1)
        count = np.bincount(place, minlength=n_bins).astype(np.float64)
        kept = count > 0
        total = np.maximum(count, 1)
        edge = np.arange(n_bins + 1) / n_bins
        display = cls(
            (np.bincount(place, confidence, n_bins) / total)[kept],
            (np.bincount(place, correct, n_bins) / total)[kept],
            count[kept],
            edges=np.stack([edge[:-1], edge[1:]], axis=1)[kept],
            name=name,
        )
        return display.plot(ax) if plot else display

    def plot(self, ax: Any = None) -> Self:
        """Draw on matplotlib axes (new ones without `ax`); sets `ax_` and `figure_`."""
        from anygrain.report.axes import new_axes

        ax = new_axes(ax)
        ax.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--", label="perfectly calibrated")
        spread = np.abs(np.stack([self.accuracy - self.low, self.high - self.accuracy]))
        ax.errorbar(
            self.confidence, self.accuracy, yerr=spread, color="#0072B2", marker="o", capsize=3, label=self.name
        )
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", aspect="equal")
        ax.legend(loc="upper left", frameon=False)
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def to_svg(self, width: float = 380, height: float = 330) -> str:
        """The same as SVG for a page."""
        drawing = Drawing(width, height, margins=(50, 12, 14, 46))
        grid = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        drawing.y_axis("share that is right", grid, "{:.1f}".format)
        drawing.x_axis("probability that was stated", grid, "{:.1f}".format, grid=False)
        drawing.path([0, 1], [0, 1], "ideal")
        drawing.text(drawing.x(0.03), drawing.y(0.94), "too modest", css="hint")
        drawing.text(drawing.x(0.98), drawing.y(0.04), "too sure", anchor="end", css="hint")
        order = np.argsort(self.confidence)
        if len(order) > 1:
            drawing.path(self.confidence[order], self.accuracy[order], "line ours")
        largest = max(float(self.count.max(initial=0)), 1.0)
        for bin_ in order:
            at = drawing.x(self.confidence[bin_])
            drawing.segment(at, drawing.y(self.low[bin_]), at, drawing.y(self.high[bin_]), "whisker ours")
            rows = int(self.count[bin_])
            tip = f"stated {self.confidence[bin_]:.2f}, right {self.accuracy[bin_]:.2f}, {rows} rows"
            size = 3.0 + 4.0 * float(np.sqrt(rows / largest))
            drawing.mark(at, drawing.y(self.accuracy[bin_]), "ours", size=size, tip=tip)
        return drawing.svg("Reliability: accuracy against stated probability")
