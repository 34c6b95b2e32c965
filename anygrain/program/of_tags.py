"""A fit of tags: what it reads, measures and says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from anygrain.data.config import Config
from anygrain.data.error import counted, number
from anygrain.data.tag_checks import warnings_for_tags
from anygrain.data.tag_dataset import TagDataset, read_tag_dataset, softened_tags
from anygrain.learn.tags import FOLDS
from anygrain.program.audited import audited
from anygrain.program.held_out import said_of
from anygrain.program.measure_tags import MeasuredTags
from anygrain.program.screen import Screen
from anygrain.program.setup import dimensions, learns_from_marks_alone, make_learner
from anygrain.program.space import Measurement, Space
from anygrain.program.trained import is_trained, seen_note
from anygrain.program.training_cost import network_cost

PASSES = 400  # over the rows in the fit of all heads, roughly


class TagSpace(Space[TagDataset]):
    name = "tags"

    def read(self, config: Config) -> TagDataset:
        return read_tag_dataset(config, marks_alone=learns_from_marks_alone(config.learn.method))

    def soften(self, dataset: TagDataset) -> TagDataset:
        return softened_tags(dataset)

    def warnings(self, dataset: TagDataset) -> list[str]:
        return warnings_for_tags(dataset)

    def says(self, dataset: TagDataset) -> str:
        given = dataset.given()
        rows = max(int((given >= 0).any(axis=1).sum()), 1)
        return f"{counted(len(dataset.tags), 'tag')}, {(given == 1).sum() / rows:.1f} a row"

    def counts(self, dataset: TagDataset) -> list[tuple[str, ...]]:
        given = dataset.given()
        has, lacks = (given == 1).sum(axis=0), (given == 0).sum(axis=0)
        rows: list[tuple[str, ...]] = [("tag", "has it", "lacks it", "not known")]
        for at, name in enumerate(dataset.tags.names):
            unknown = len(dataset) - int(has[at]) - int(lacks[at])
            rows.append((name, number(int(has[at])), number(int(lacks[at])), number(unknown)))
        return rows

    def folds(self, dataset: TagDataset) -> int:
        trained = is_trained(dataset.config, dataset.columns)
        return super().folds(dataset) if trained else max(dataset.config.learn.folds, FOLDS)

    def learner(self, config: Config, dataset: TagDataset) -> tuple[Any, Any]:
        return make_learner(config, dataset, None)

    def estimate(self, dataset: TagDataset, config: Config) -> tuple[float, float]:
        """Seconds and bytes that a fit needs, roughly; measured on two cores with text and tables."""
        trained = network_cost(dataset, config)
        if trained is not None:
            return trained
        n, d, tags = len(dataset), dimensions(dataset, config), len(dataset.tags)
        text = bool(dataset.columns.text)
        rounds = 1 if len(dataset.evidence) == 1 else config.learn.rounds
        duration = 3 + 2.5e-10 * n * d * tags * PASSES * (1 + 0.2 * rounds) + (4e-4 * n if text else 0.0)
        memory = 4e8 + 4.0 * n * (3 * d + 60 * tags) + (12_000.0 * n if text else 0)
        return duration, memory

    def width(self, dataset: TagDataset) -> int:
        return len(dataset.tags)

    def measure(self, dataset: TagDataset, learner: Any, features: np.ndarray, config: Config) -> Measurement:
        return TagMeasurement(dataset, learner, config)

    def reload(self, path: Path, dataset: TagDataset) -> str:
        if dataset.columns.text and len(dataset.columns.all) == len(dataset.columns.text):
            words = " ".join(str(dataset.snippets()[0]).split()[:6]).replace('"', "'")
            return f'anygrain.load("{path}").predict_proba(["{words}"])'
        return f'anygrain.load("{path}").predict_proba(table)'

    def say_result(self, metrics: dict[str, Any], dataset: TagDataset, screen: Screen) -> None:
        evaluation = metrics["evaluation"]
        if evaluation:
            rows: list[tuple[str, ...]] = [
                ("", "mAP", "micro F1", "macro F1", "log loss", "calibration error", "ranking loss")
            ]
            for at, entry in enumerate(evaluation["entries"]):
                low, high = entry["micro_f1_interval"]
                cells = [_shown(entry[key]) for key in ("macro_f1", "log_loss", "ece", "ranking_loss")]
                name = f"{entry['name']}*" if at == 0 else entry["name"]
                f1 = f"{entry['micro_f1']:.2f} [{low:.2f}, {high:.2f}]"
                rows.append((name, _shown(entry["map"]), f1, *cells))
            screen.line(
                f"on {counted(evaluation['known'], 'entry', 'entries')} of {counted(evaluation['rows'], 'row')}, none "
                "of them seen by the model that scores it"
            )
            screen.table(rows, gap=3)
            screen.line(f"* {evaluation['method']}; F1 at a probability of {evaluation['threshold']:g}")
        else:
            held = metrics["held_out"]
            screen.line(
                "nothing was measured: held-out entries are all of one sort; held-out evidence per row "
                f"{held['evidence_per_row']:.2f} (tags as often as they are: {held['chance']:.2f})"
            )
        said = []
        if metrics["suspects"]:
            looks = counted(metrics["suspects"], "entry looks", "entries look")
            said.append(f"{looks} wrong (report.html, labels.parquet)")
        for sentence in [*said, *metrics["warnings"], *metrics["notes"]]:
            screen.line(f"worth knowing: {sentence}")


class TagMeasurement(Measurement):
    def __init__(self, dataset: TagDataset, learner: Any, config: Config):
        audit = audited(said_of(learner), dataset.labels)
        measured = MeasuredTags(dataset, audit, learner.held_out_log_probs_, learner.held_out_)
        self.measured, self.groups = measured, measured.posterior
        self.notes = seen_note(learner, np.asarray(measured.held_out.all(axis=1)))
        self.metrics = {
            "tags": list(dataset.tags.names),
            "evaluation": measured.evaluation(folds=TagSpace().folds(dataset), seed=config.learn.seed),
            "held_out": measured.held_out_evidence(),
            "agreement": measured.agreement(),
            "sources": measured.sources(),
            "tags_table": measured.tags_table(),
            "together": measured.together(),
            "worst": measured.worst(),
            "suspects": measured.suspects(),
            "learner": {
                "chosen": str(learner.chosen_.get("why", "")),
                "error": float(learner.error_),
                "details": dict(learner.chosen_),
            },
        }

    def table(self, places: np.ndarray | None) -> dict[str, Any]:
        return self.measured.table(places)


def _shown(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.2f}"
