"""Reliability: of the rows that were given a probability, how many were right?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from anygrain.metrics import reliability_curve, wilson_interval
from anygrain.report.svg import Drawing


class ReliabilityDisplay:
    r"""Confidence against accuracy, in bins of the confidence, with an interval for each bin.

    Args:
        confidence: mean probability of the predicted class in each bin, shape (B,).
        accuracy: share of right predictions in each bin, shape (B,).
        count: rows in each bin, shape (B,).
        low, high: limits of the accuracy, shape (B,); Wilson's interval at 95 % where not given.
        name: what was predicted with.
        event: what the probability was stated of, such as "has the tag"; that the prediction is right where not given.

    Raises:
        ValueError: lengths that differ, or a bin without rows.
    """

    def __init__(
        self,
        confidence: Any,
        accuracy: Any,
        count: Any,
        *,
        low: Any = None,
        high: Any = None,
        name: str | None = None,
        event: str | None = None,
    ) -> None:
        self.confidence = np.asarray(confidence, dtype=np.float64)
        self.accuracy = np.asarray(accuracy, dtype=np.float64)
        self.count = np.asarray(count, dtype=np.int64)
        if not self.confidence.shape == self.accuracy.shape == self.count.shape:
            raise ValueError(
                f"bins differ in number: {self.confidence.shape} confidences, {self.accuracy.shape} accuracies, "
                f"{self.count.shape} counts"
            )
        if low is None or high is None:
            right = np.round(self.accuracy * self.count).astype(np.int64)
            limits = [wilson_interval(int(r), int(n)) for r, n in zip(right, self.count, strict=True)]
            low, high = np.array(limits, dtype=np.float64).reshape(-1, 2).T
        self.low, self.high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
        self.name, self.event = name, event

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        probabilities: Any,
        *,
        classes: Sequence[Any] | None = None,
        bins: int = 10,
        name: str | None = None,
        ax: Any = None,
        plot: bool = True,
    ) -> Self:
        """From true classes and predicted probabilities; empty bins are left out (`metrics.reliability_curve`).

        Args:
            y_true: true classes, shape (N,): columns of `probabilities` (-1 is missing), or members of `classes`.
            probabilities: shape (N, K), rows that sum to one.
            classes: the K classes in the order of the columns, where `y_true` does not hold their numbers.
            bins: bins of equal width over [0, 1].
            name: for the legend.
            ax: matplotlib axes to draw on; new ones where not given.
            plot: False only computes.

        Raises:
            ValueError: shapes that do not fit, or a class that is not among `classes`.
        """
        truth = np.asarray(y_true)
        if classes is not None:
            names = np.asarray(classes)
            unknown = ~np.isin(truth, names)
            if unknown.any():
                raise ValueError(f"y_true holds {truth[unknown].tolist()[0]!r}, which is not among the classes")
            order = np.argsort(names)
            truth = order[np.searchsorted(names[order], truth)]
        display = cls(*reliability_curve(probabilities, truth, bins=bins), name=name)
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

    def to_svg(self, width: float = 460, height: float = 380) -> str:
        """The same as SVG for a page."""
        drawing = Drawing(width, height, margins=(50, 12, 14, 46))
        grid = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
        drawing.y_axis(f"share that {self.event or 'is right'}", grid)
        drawing.x_axis("probability that was stated", grid, grid=False)
        drawing.path([0, 1], [0, 1], "ideal")
        above, below = ("stated too low", "stated too high") if self.event else ("too modest", "too sure")
        drawing.text(drawing.x(0.03), drawing.y(0.94), above, css="hint")
        drawing.text(drawing.x(0.98), drawing.y(0.04), below, anchor="end", css="hint")
        order = np.argsort(self.confidence)
        if len(order) > 1:
            drawing.path(self.confidence[order], self.accuracy[order], "line ours join")
        largest = max(float(self.count.max(initial=0)), 1.0)
        for bin_ in order:
            at = drawing.x(self.confidence[bin_])
            drawing.segment(at, drawing.y(self.low[bin_]), at, drawing.y(self.high[bin_]), "whisker ours")
            rows = int(self.count[bin_])
            found = f"{self.event or 'right'} {self.accuracy[bin_]:.2f}"
            tip = f"stated {self.confidence[bin_]:.2f}, {found}, {rows} {'entries' if self.event else 'rows'}"
            size = 3.0 + 4.0 * float(np.sqrt(rows / largest))
            drawing.mark(at, drawing.y(self.accuracy[bin_]), "ours", size=size, tip=tip)
        return drawing.svg("Reliability: accuracy against stated probability")
