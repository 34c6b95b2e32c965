"""What the audit says of the labels of a fit: the same as `anygrain audit` says of its run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anygrain.labels import Labels, RealLabels, Rules

if TYPE_CHECKING:
    from anygrain.audit.judging import Judgement


@dataclass(frozen=True)
class Audited:
    """Labels, audited.

    Attributes:
        judgement: of every record.
        sources: accuracy of every annotator and rule, with its interval, by the place of its kind and its name.
    """

    judgement: Judgement
    sources: dict[tuple[int, str], dict[str, Any]]


def audited(said: Any, labels: Labels | RealLabels) -> Audited:
    """Audit labels by what models said that had not seen them.

    Args:
        said: log-probabilities (N, K), or mean and variance of a number, see `anygrain.program.held_out.said_of`.
        labels: as they were read, before they take over anything of the fit.
    """
    from anygrain.audit import judge_annotators
    from anygrain.audit.judging import judge_labels
    from anygrain.audit.sources import fitted_crowds, judge_all_rules

    judgement = judge_labels(said, labels)
    found: list[tuple[int, Any]] = [(at, judge_annotators(own, rest)) for at, own, rest in fitted_crowds(labels, said)]
    if any(isinstance(part, Rules) for part in getattr(labels, "parts", [labels])):
        found += judge_all_rules(labels, judgement.posterior).items()
    sources = {
        (at, str(name)): {"accuracy": float(accuracy), "interval": [float(low), float(high)]}
        for at, judged in found
        for name, accuracy, low, high in zip(
            judged.names, judged.accuracy, judged.accuracy_low, judged.accuracy_high, strict=True
        )
    }
    return Audited(judgement, sources)
