"""A fit of a number: what it reads, measures and says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anygrain.data.config import Config
from anygrain.data.error import counted, quoted
from anygrain.data.number_checks import warnings_for_numbers
from anygrain.data.number_dataset import NumberDataset, read_number_dataset, softened_numbers
from anygrain.labels import RealAll, RealLabels
from anygrain.learn.number import FOLDS
from anygrain.program.audited import audited
from anygrain.program.held_out import said_of
from anygrain.program.measure_numbers import MeasuredNumbers
from anygrain.program.screen import Screen
from anygrain.program.setup import dimensions, make_learner
from anygrain.program.space import Measurement, Space
from anygrain.program.trained import is_trained, learnt_without_labels, seen_note
from anygrain.program.training_cost import network_cost

GROUPS = 5  # of rows, by the number, that a map keeps apart


class NumberSpace(Space[NumberDataset]):
    name = "real"

    def read(self, config: Config) -> NumberDataset:
        return read_number_dataset(config)

    def soften(self, dataset: NumberDataset) -> NumberDataset:
        return softened_numbers(dataset)

    def warnings(self, dataset: NumberDataset) -> list[str]:
        return warnings_for_numbers(dataset)

    def says(self, dataset: NumberDataset) -> str:
        return f"the number {quoted(dataset.quantity)}"

    def folds(self, dataset: NumberDataset) -> int:
        trained = is_trained(dataset.config, dataset.columns)
        return super().folds(dataset) if trained else max(dataset.config.learn.folds, FOLDS)

    def learner(self, config: Config, dataset: NumberDataset) -> tuple[Any, Any]:
        return make_learner(config, dataset, None)

    def estimate(self, dataset: NumberDataset, config: Config) -> tuple[float, float]:
        """Seconds and bytes that a fit needs, roughly; measured on two cores with text and tables."""
        trained = network_cost(dataset, config)
        if trained is not None:
            return trained
        n, d = len(dataset), dimensions(dataset, config)
        text = bool(dataset.columns.text)
        searches = 1 if len(dataset.evidence) == 1 else 2
        heads = {"gaussian": 7 * (1 + 6e-7 * n * d), "gaussian-mlp": 7 * (2 + 1e-5 * n * (8 + d))}
        wanted = list(heads) if config.learn.head == "linear" else [config.learn.head]
        duration = 3 + searches * sum(heads[name] for name in wanted) + (4e-4 * n if text else 0.0)
        memory = 4e8 + 4.0 * n * (3 * d + 200) + (12_000.0 * n if text else 0)
        return duration, memory

    def width(self, dataset: NumberDataset) -> int:
        return 1

    def measure(self, dataset: NumberDataset, learner: Any, features: np.ndarray, config: Config) -> Measurement:
        return NumberMeasurement(dataset, learner, features, config)

    def reload(self, path: Path, dataset: NumberDataset) -> str:
        if dataset.columns.text and len(dataset.columns.all) == len(dataset.columns.text):
            words = " ".join(str(dataset.snippets()[0]).split()[:6]).replace('"', "'")
            return f'anygrain.load("{path}").predict_interval(["{words}"], coverage=0.9)'
        return f'anygrain.load("{path}").predict_interval(table, coverage=0.9)'

    def say_result(self, metrics: dict[str, Any], dataset: NumberDataset, screen: Screen) -> None:
        evaluation = metrics["evaluation"]
        if evaluation:
            rows = [("", "error (RMSE)", "R2", "CRPS", "log density", "90 % interval holds", "its width")]
            for at, entry in enumerate(evaluation["entries"]):
                low, high = entry["rmse_interval"]
                held = next(c for c in entry["coverage"] if c["level"] == 0.9)
                name = f"{entry['name']}*" if at == 0 else entry["name"]
                r2 = "-" if entry["r2"] != entry["r2"] else f"{round(entry['r2'], 2) + 0.0:.2f}"
                rows.append(
                    (
                        name,
                        f"{entry['rmse']:.3g} [{low:.3g}, {high:.3g}]",
                        r2,
                        f"{entry['crps']:.3g}",
                        f"{entry['log_density']:.2f}",
                        f"{100 * held['share']:.0f} %",
                        f"{held['width']:.3g}",
                    )
                )
            screen.line(
                f"on {counted(evaluation['rows'], 'given value')}, none of them seen by the model that scores it"
            )
            screen.table(rows, gap=3)
            screen.line(f"* {evaluation['method']}")
        else:
            held = metrics["held_out"]
            screen.line(
                "errors were not measured, there are fewer than two values to compare with; held-out evidence per row "
                f"{held['evidence_per_row']:.2f} (one normal distribution for all rows: {held['chance']:.2f})"
            )
        if metrics["learner"]["exact_only_won"]:
            why = metrics["learner"]["details"].get("why", "")
            screen.line(f"the other labels did not help, so they were left out: {why}")
        said = []
        if metrics["suspects"]:
            looks = counted(metrics["suspects"], "label looks", "labels look")
            said.append(f"{looks} wrong (report.html, labels.parquet)")
        raters = [s for s in metrics["sources"] if s["spread"] is not None]
        if len(raters) > 1:
            far = max(raters, key=lambda s: abs(s["bias"]))
            wide = max(raters, key=lambda s: s["spread"])
            said.append(
                f"{far['name']} is off by {far['bias']:+.3g} on average · {wide['name']} has the largest spread, "
                f"{wide['spread']:.3g}"
            )
        for sentence in [*said, *metrics["warnings"], *metrics["notes"]]:
            screen.line(f"worth knowing: {sentence}")


class NumberMeasurement(Measurement):
    def __init__(self, dataset: NumberDataset, learner: Any, features: np.ndarray, config: Config):
        audit = audited(said_of(learner), dataset.labels)
        adopt_channels([e.labels for e in dataset.evidence], learner.labels_)
        belief = learner.held_out_mean_, learner.held_out_variance_
        measured = MeasuredNumbers(dataset, audit, *belief, learner.held_out_)
        rank = np.argsort(np.argsort(measured.posterior.mean.numpy(), kind="stable"))
        self.measured, self.groups = measured, np.eye(GROUPS)[rank * GROUPS // max(len(dataset), 1)]
        self.notes = seen_note(learner)
        plain = learnt_without_labels(learner, features)
        self.metrics = {
            "quantity": dataset.quantity,
            "evaluation": measured.evaluation(plain, folds=NumberSpace().folds(dataset), seed=config.learn.seed),
            "held_out": measured.held_out_evidence(),
            "agreement": measured.agreement(),
            "sources": measured.sources(),
            "worst": measured.worst(),
            "suspects": measured.suspects(),
            "learner": _learnt(learner),
        }

    def table(self, places: np.ndarray | None) -> dict[str, Any]:
        return self.measured.table(places)


def _learnt(learner: Any) -> dict[str, Any]:
    chosen = dict(learner.chosen_)
    words = "all evidence" if chosen.get("chosen") == "evidence" else "values alone"
    heads = {"gaussian": "a linear head", "gaussian-mlp": "a network of one hidden layer"}
    return {
        "chosen": f"{words}: {chosen.get('why', '')}".rstrip(": ") + f"; {heads[chosen['head']]} predicts best",
        "head": chosen["head"],
        "penalty": chosen.get("penalty"),
        "spread": learner.variance_scale_,
        "exact_only_won": chosen.get("chosen") == "exact only",
        "details": chosen,
    }


def adopt_channels(given: Sequence[RealLabels], fitted: RealLabels) -> None:
    """Channels of the parts given become those of a fit."""
    parts = fitted.parts if isinstance(fitted, RealAll) else [fitted]
    for part, twin in zip(given, parts, strict=True):
        for channel, found in zip(part.channels, twin.channels, strict=True):
            channel.load_state_dict(found.state_dict())
