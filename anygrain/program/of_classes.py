"""A fit of classes: what it reads, measures and says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anygrain.data.checks import warnings_for
from anygrain.data.config import Config
from anygrain.data.dataset import Dataset, Given, read_dataset, softened
from anygrain.data.error import counted, number, quoted
from anygrain.labels import All, Labels, Positive, aggregate
from anygrain.labels.class_prior import PriorEstimate
from anygrain.program.audited import audited
from anygrain.program.held_out import said_of
from anygrain.program.measure_bags import measured_bags
from anygrain.program.measure_classes import MeasuredClasses
from anygrain.program.screen import Screen
from anygrain.program.setup import dimensions, make_learner
from anygrain.program.space import Measurement, Space
from anygrain.program.trained import is_trained, learnt_without_labels, seen_note
from anygrain.program.training_cost import network_cost

WIDE_PRIOR = 0.35  # an interval of an estimated class prior that is worth a word


class ClassSpace(Space[Dataset]):
    name = "classes"

    def read(self, config: Config) -> Dataset:
        return read_dataset(config)

    def soften(self, dataset: Dataset) -> Dataset:
        return softened(dataset)

    def warnings(self, dataset: Dataset) -> list[str]:
        from anygrain.program.measure_bags import few_bags

        return [*warnings_for(dataset), *few_bags(dataset, self.folds(dataset))]

    def says(self, dataset: Dataset) -> str:
        return f"{number(len(dataset.classes))} classes"

    def learner(self, config: Config, dataset: Dataset) -> tuple[Any, Any]:
        return make_learner(config, dataset, dataset.classes.taxonomy)

    def estimate(self, dataset: Dataset, config: Config) -> tuple[float, float]:
        """Seconds and bytes that a fit needs, roughly; measured on two cores with text, tables and images."""
        n, k = len(dataset), len(dataset.classes)
        trained = network_cost(dataset, config)
        if trained is not None:
            return trained
        text, features = bool(dataset.columns.text), len(dataset.columns.all)
        d = dimensions(dataset, config)
        steps = config.learn.rounds * (2 if config.learn.neighbours else 1) + 2 * config.learn.exact_folds + 2
        heads = 2.5e-9 * n * d * k * steps
        graph = 2.0 * n * n * d / 2e10 if config.learn.neighbours else 0.0
        encode = 4e-4 * n if text else 1e-6 * n * features
        tables = 6e-7 * n * k * steps
        records = sum(e.labels.n_records for e in dataset.evidence if e.labels.channels)
        votes = 3e-8 * records * k * steps
        duration = 4 + heads + graph + encode + tables + votes
        memory = 4e8 + 4.0 * n * (3 * d + 60 * k) + (12_000.0 * n if text else 0)
        return duration, memory

    def width(self, dataset: Dataset) -> int:
        return len(dataset.classes)

    def measure(self, dataset: Dataset, learner: Any, features: np.ndarray, config: Config) -> Measurement:
        return ClassMeasurement(dataset, learner, features, config)

    def reload(self, path: Path, dataset: Dataset) -> str:
        if dataset.columns.images:
            return f'anygrain.load("{path}").predict_proba(["image.jpg"])'
        if dataset.columns.text and len(dataset.columns.all) == len(dataset.columns.text):
            words = str(dataset.snippets()[0]).split()[:6]
            return f"anygrain.load({str(path)!r}).predict_proba([{' '.join(words)!r}])".replace("'", '"')
        return f'anygrain.load("{path}").predict_proba(table)'

    def say_result(self, metrics: dict[str, Any], dataset: Dataset, screen: Screen) -> None:
        evaluation = metrics["evaluation"]
        if evaluation:
            rows = [("", "fine accuracy", "log loss", "calibration error")]
            for at, entry in enumerate(evaluation["entries"]):
                low, high = entry["interval"]
                name = f"{entry['name']}*" if at == 0 else entry["name"]
                rows.append(
                    (
                        name,
                        f"{entry['accuracy']:.2f} [{low:.2f}, {high:.2f}]",
                        f"{entry['log_loss']:.2f}",
                        f"{entry['ece']:.2f}",
                    )
                )
            screen.line(f"on {counted(evaluation['rows'], 'exact row')}, none of them seen by the model that scores it")
            screen.table(rows, gap=3)
            screen.line(f"* {evaluation['method']}")
        else:
            held = metrics["held_out"]
            if any(e["kind"] == "Exact" for e in metrics["evidence"]):
                screen.line(why_none_apart(dataset))
            screen.line(
                f"accuracy was not measured; held-out evidence per row {held['evidence_per_row']:.2f} "
                f"(chance {held['chance']:.2f})"
            )
        for asked in (metrics.get("bags") or {}).get("questions", []):
            if "accuracy" in asked:
                screen.line(
                    f"{asked['kind']} of {counted(asked['bags'], 'bag')} that were held out: right "
                    f"{asked['accuracy']:.2f} of the time, log loss {asked['log_loss']:.2f}, calibration error "
                    f"{asked['ece']:.2f}"
                )
            elif "error" in asked:
                screen.line(
                    f"{asked['kind']} of {counted(asked['bags'], 'bag')} that were held out: off by "
                    f"{asked['error']:.3g} on average ({asked['error_of_means']:.3g} if every bag were like the mean)"
                )
        if metrics["learner"]["exact_only_won"]:
            several = any(e["kind"] != "Exact" for e in metrics["evidence"])
            left_out = (
                "the other labels did not help, so they were left out"
                if several
                else ("rows without labels did not help, so they were left out")
            )
            screen.line(f"{left_out}: {metrics['learner']['details'].get('why', '')}")
        said = []
        if metrics["suspects"]:
            said.append(
                f"{counted(metrics['suspects'], 'label looks', 'labels look')} wrong (report.html, labels.parquet)"
            )
        crowd = [s for s in metrics["sources"] if s["kind"] == "Crowd" and s["agreement"] is not None]
        if len(crowd) > 1:
            least = min(crowd, key=lambda s: s["agreement"])
            said.append(f"{least['name']} agrees with the rest {100 * least['agreement']:.0f} % of the time")
        said += [warning for warning in [(metrics.get("bags") or {}).get("warning")] if warning]
        said += [*metrics["warnings"], *metrics["notes"]]
        for sentence in said:
            screen.line(f"worth knowing: {sentence}")


class ClassMeasurement(Measurement):
    def __init__(self, dataset: Dataset, learner: Any, features: np.ndarray, config: Config):
        adopt_prior(dataset, learner.class_prior_estimate_)
        audit = audited(said_of(learner), dataset.labels)
        adopt_channels([e.labels for e in dataset.evidence], learner.labels_)
        log_probs = torch.from_numpy(np.asarray(learner.held_out_log_probs_))
        measured = MeasuredClasses(dataset, audit, log_probs, learner.held_out_)
        # exact labels, taken back in turn
        apart = any(facts.get("track") == "held out" for facts in learner.history_)
        folds = config.learn.exact_folds if apart else ClassSpace().folds(dataset)
        plain = learnt_without_labels(learner, features)
        self.measured, self.groups = measured, measured.posterior.numpy()
        self.metrics = {
            "classes": list(dataset.classes.names),
            "evaluation": measured.evaluation(plain, folds=folds, seed=config.learn.seed),
            "held_out": measured.held_out_evidence(),
            "agreement": measured.agreement(),
            "sources": measured.sources(),
            "confusion": measured.confusion(),
            "classes_table": measured.classes_table(),
            "worst": measured.worst(),
            "suspects": measured.suspects(),
            "learner": _learnt(learner, config),
        }
        bags = measured_bags(dataset, learner)
        if bags is not None:
            self.metrics["bags"] = bags
        self.notes = seen_note(learner)
        if learner.class_prior_estimate_ is not None:
            self.notes += prior_notes(dataset, learner.class_prior_estimate_)

    def table(self, places: np.ndarray | None) -> dict[str, Any]:
        return self.measured.table(places)


def why_none_apart(dataset: Dataset) -> str:
    """Why no exact row was held out: procedures and trained encoders hold out by `cross_fit`, the recipe by classes."""
    from anygrain.robust.methods import read_method

    learn = dataset.config.learn
    procedure = read_method(learn.method)[0].slot == "procedure"
    if procedure or is_trained(dataset.config, dataset.columns):
        return "no exact row was held out" + ("" if learn.cross_fit else ": learn.cross_fit = true holds every row out")
    return "too few exact rows to keep some apart: at least two of half of the classes are needed"


def _learnt(learner: Any, config: Config) -> dict[str, Any]:
    chosen = dict(learner.chosen_)
    words = "all evidence" if chosen.get("chosen") == "evidence" else "exact labels alone"
    return {
        "chosen": f"{words}: {chosen.get('why', '')}".rstrip(": "),
        "temperature": float(learner.temperature_),
        "rounds": config.learn.rounds,
        "exact_only_won": chosen.get("chosen") == "exact only",
        "details": chosen,
    }


def prior_notes(dataset: Dataset, estimate: PriorEstimate) -> list[str]:
    """That a class prior was estimated, and whether that is too little to go by."""
    prior, low, high = estimate
    out = [f"the class prior was not given: estimated {prior:.3g}, 95 % interval {low:.3g} to {high:.3g}"]
    if high - low > WIDE_PRIOR:
        entry = next(e for e in dataset.evidence if isinstance(e.labels, Positive))
        target = quoted(dataset.classes.names[entry.labels.target_class])  # type: ignore[attr-defined]
        out.append(
            f"the interval of the class prior is wide, and probabilities hang on it; if the share of {target} is "
            f"known, give it: --set labels.{entry.name}.prior=..."
        )
    return out


def adopt_prior(dataset: Dataset, estimate: PriorEstimate | None) -> None:
    """Give rows known to be positive the class prior that a fit estimated, where they came without."""
    for evidence in dataset.evidence:
        if estimate is not None and isinstance(evidence.labels, Positive) and evidence.labels.prior is None:
            evidence.labels = evidence.labels.with_possible_prior(estimate.estimate)


def adopt_prior_of(dataset: Given[Any], log_probs: Any) -> None:
    """Give rows known to be positive the class prior that a model goes by: its mean probability (N, K) of their class.

    For a run that is read again, whose fit estimated the prior.
    """
    for evidence in dataset.evidence:
        if isinstance(evidence.labels, Positive) and evidence.labels.prior is None:
            share = torch.as_tensor(log_probs)[:, evidence.labels.target_class].exp().mean()
            evidence.labels = evidence.labels.with_possible_prior(float(share))


def adopt_channels(given: Sequence[Labels], fitted: Labels) -> None:
    """Channels of the parts given become those of a fit; sources that saw the features are fitted by themselves.

    Args:
        given: the parts, in the order in which the Learner had them.
        fitted: `Learner.labels_`, where one target stands for all sources that saw the features.
    """
    seen = [part for part in given if part.given_x]
    others = [part for part in given if not part.given_x]
    parts = fitted.parts if isinstance(fitted, All) else [fitted]
    for part, twin in zip(others, parts[len(parts) - len(others) :], strict=True):
        for channel, found in zip(part.channels, twin.channels, strict=True):
            channel.load_state_dict(found.state_dict())
    if any(part.channels for part in seen):
        aggregate(All(*seen))
