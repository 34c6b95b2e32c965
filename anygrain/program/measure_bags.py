"""What a run knows of bags: their answers while held out, and which instances they were given for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from anygrain.data.bag_rows import bag_rows
from anygrain.data.dataset import Dataset
from anygrain.data.error import counted
from anygrain.labels import All, AnyOf, LabelError, Proportions, SetLabels
from anygrain.metrics import log_loss
from anygrain.program.reliability import calibration_error, reliability

SHOWN = 3  # bags of each sort
CLASSES = 3  # whose bags are shown
STRONGEST = 5  # instances that are listed of a bag
MOST = 20_000  # instances of a bag that are drawn
POINTS = 2000  # of stated and expected counts or shares
OF_NUMBERS = ("Counts", "Proportions")  # kinds that say how many

OF_INSTANCES = (
    "Probabilities of instances are the model's own; it was trained on the labels of these bags. Only bags have "
    "labels, so how often instances of a stated probability are of the class is not measured: read them as an order."
)
NOT_TRUSTED = (
    "The labels say whether a bag holds the class, not how often, and bags seem to hold it several times: chances of "
    "instances rank well but are not to be read as chances. A rate or a count beside them would settle it, such as "
    'kind = "Proportions" or "Between".'
)


def measured_bags(dataset: Dataset, learner: Any) -> dict[str, Any] | None:
    """For metrics.json; None where a run knows of no bags."""
    if dataset.columns.instances:
        return _of_rows(dataset, learner)
    parts = _asked(learner)
    return _of_sets(dataset, learner, parts) if parts else None


def few_bags(dataset: Dataset, folds: int) -> list[str]:
    """Sentences, before work starts, on classes or answers of fewer bags than there are parts to hold out."""
    from anygrain.learn.bag_model import FOLDS, HEADS
    from anygrain.learn.few_bags import said_of_few_bags

    found = []
    if dataset.columns.instances and dataset.config.encoder.bags == "auto":
        exact = dataset.exact()
        count = torch.bincount(torch.from_numpy(exact[exact >= 0]), minlength=len(dataset.classes))
        found.append(said_of_few_bags(count, dataset.classes.names, FOLDS[HEADS[0]]))
    for part in (entry.labels for entry in dataset.evidence):
        if isinstance(part, AnyOf):
            said = part.answered()
            names = [f'answered by "{name}"' for name in ("absent", "present")]
            found.append(said_of_few_bags(torch.bincount(said[said >= 0], minlength=2), names, folds))
    return [sentence for sentence in found if sentence]


# -- rows that are bags ------------------------------------------------------------------------------------------------


def _of_rows(dataset: Dataset, learner: Any) -> dict[str, Any]:
    data = bag_rows(dataset.columns.instances[0], dataset.table, dataset.ids)
    held = np.exp(np.asarray(learner.held_out_log_probs_))
    chosen = _to_show(held, dataset.exact(), np.asarray(learner.held_out_))
    sizes = data.sizes.double()
    found: dict[str, Any] = {
        "unit": "set",
        "bags": len(data),
        "instances": data.n_instances,
        "sizes": [int(sizes.min()), float(sizes.median()), int(sizes.max())],
        "entries": [],
        "questions": [],
    }
    shown = [data[np.array([bag])] for bag, _ in chosen]
    try:
        probs = [learner.predict_proba(here, unit="instance") for here in shown]
    except LabelError as error:
        return {**found, "note": f"No scores of instances: {error}."}
    try:
        attention: list[list[float] | None] = [_rounded(learner.attention(here)[:MOST]) for here in shown]
    except LabelError:  # this model has none
        attention = [None] * len(shown)
    rare = _rare(probs)
    for (bag, why), here, p, weights in zip(chosen, shown, probs, attention, strict=True):
        at = int(held[bag].argmax())
        entry = {
            "bag": str(dataset.ids[bag]),
            "why": why,
            "class": dataset.classes.names[at],
            "probability": float(held[bag, at]),
            "given": _given(dataset, bag),
            "of": dataset.classes.names[at if rare is None else rare],
            **_instances(p[:, at if rare is None else rare], here.coords, None),
            "attention": weights,
        }
        found["entries"].append(entry)
    return {**found, "note": OF_INSTANCES}


def _rare(probs: list[np.ndarray]) -> int | None:
    """Of two classes the one that fewer instances are of, whose instances make a bag what it is; None of more."""
    if not probs or probs[0].shape[1] != 2:
        return None
    return int(np.mean([p.mean(axis=0) for p in probs], axis=0).argmin())


def _given(dataset: Dataset, row: int) -> str | None:
    exact = int(dataset.exact()[row])
    return dataset.classes.names[exact] if exact >= 0 else None


def _to_show(held: np.ndarray, exact: np.ndarray, apart: np.ndarray) -> list[tuple[int, str]]:
    """Bags that are surest of the most frequent classes, and those most surely wrong."""
    predicted, top = held.argmax(axis=1), held.max(axis=1)
    wrong = (exact >= 0) & (exact != predicted) & apart
    out: list[tuple[int, str]] = []
    for c in np.argsort(-np.bincount(predicted, minlength=held.shape[1]), kind="stable")[:CLASSES].tolist():
        of_class = np.flatnonzero((predicted == c) & ~wrong)
        out += [(int(bag), "surest") for bag in of_class[np.argsort(-top[of_class], kind="stable")][:SHOWN]]
    bad = np.flatnonzero(wrong)
    return out + [(int(bag), "wrong while held out") for bag in bad[np.argsort(-top[bad], kind="stable")][:SHOWN]]


def _instances(score: np.ndarray, coords: np.ndarray | None, names: list[str] | None) -> dict[str, Any]:
    """Scores of a bag, its strongest instances, and their places."""
    order = np.argsort(-score, kind="stable")[:STRONGEST].tolist()
    strongest = [
        {
            "instance": names[at] if names else str(at),
            "score": float(score[at]),
            "place": None if coords is None else [float(v) for v in coords[at]],
        }
        for at in order
    ]
    return {
        "instances": len(score),
        "strongest": strongest,
        "score": _rounded(score[:MOST]),
        "coords": None if coords is None else [[float(v) for v in place] for place in coords[:MOST]],
    }


def _rounded(values: Any) -> list[float]:
    return [float(f"{v:.4g}") for v in np.asarray(values, dtype=np.float64).tolist()]


# -- rows that are instances -------------------------------------------------------------------------------------------


def _asked(learner: Any) -> list[tuple[Any, SetLabels]]:
    """Questions of a fitted learner, with the labels that asked them."""
    questions = list(getattr(learner, "questions_", ()))
    labels = learner.labels_.parts if isinstance(learner.labels_, All) else [learner.labels_]
    found = []
    for part in labels:
        if questions and isinstance(part, SetLabels) and type(part).__name__ == questions[0].kind:
            found.append((questions.pop(0), part))
    return found


def _of_sets(dataset: Dataset, learner: Any, parts: list[tuple[Any, SetLabels]]) -> dict[str, Any]:
    log_probs = torch.from_numpy(np.asarray(learner.held_out_log_probs_)).double()
    held = torch.from_numpy(np.asarray(learner.held_out_))
    first = parts[0][1]
    sizes = first.sets.sizes.double()
    return {
        "unit": "instance",
        "bags": len(first.sets),
        "instances": int(sizes.sum()),
        "sizes": [int(sizes.min()), float(sizes.median()), int(sizes.max())],
        "entries": _bags_of(dataset, log_probs, held, *parts[0]),
        "questions": [_answered(question, part, log_probs, held, dataset.classes.names) for question, part in parts],
        "note": _note(dataset, parts),
        "warning": None if all(question.trusted for question, _ in parts) else NOT_TRUSTED,
    }


def _note(dataset: Dataset, parts: list[tuple[Any, SetLabels]]) -> str:
    """What measured the probabilities of instances."""
    exact = int((dataset.exact() >= 0).sum())
    if exact:
        return f"How well instances are calibrated is shown above, by {counted(exact, 'row')} of known class."
    if any(question.kind in OF_NUMBERS for question, _ in parts):
        return (
            "No instance has an exact label. What bags tell of probabilities of instances is their sum, shown below "
            "for bags that were held out."
        )
    return "No instance has an exact label: how well single instances are calibrated is not measured."


def _answered(
    question: Any, part: SetLabels, log_probs: torch.Tensor, held: torch.Tensor, names: Any
) -> dict[str, Any]:
    """How good the answers of held-out bags are, where the labels say the answer."""
    said = part.answered()
    members = held[part.sets.members].long()
    whole = torch.ones(len(said), dtype=torch.long).scatter_reduce(0, part.sets.index, members, "amin") > 0
    known = (whole & (said >= 0)).numpy()
    out: dict[str, Any] = {
        "kind": question.kind,
        "answers": list(question.columns or names),
        "bags": int(known.sum()),
        "trusted": bool(question.trusted),
    }
    if question.kind in OF_NUMBERS:
        return {**out, **_summed(question, part, log_probs, whole)}
    if not known.any():
        return out
    chances = question.answers(log_probs, part.sets).numpy()[known]
    truth = said.numpy()[known]
    right = chances.argmax(axis=1) == truth
    top = chances.max(axis=1)
    return {
        **out,
        "accuracy": float(right.mean()),
        "log_loss": float(log_loss(chances, truth)),
        "ece": calibration_error(top, right.astype(float)),
        "reliability": reliability(top, right.astype(float)),
    }


def _numbers(part: Any) -> torch.Tensor:
    """Counts or shares that were given, (M, K) float64; NaN where not known."""
    given: torch.Tensor = (part.proportions if isinstance(part, Proportions) else part.counts).double()
    return torch.where(given < 0, torch.nan, given)


def _summed(question: Any, part: Any, log_probs: torch.Tensor, whole: torch.Tensor) -> dict[str, Any]:
    """Counts or shares that held-out bags were expected to have, with the interval of a sum, and those given."""
    given = _numbers(part)
    told = whole[:, None] & ~given.isnan()
    if not told.any():
        return {}
    expected = question.answers(log_probs, part.sets)
    p = log_probs.exp()[part.sets.members]
    variance = p.new_zeros(len(part.sets), part.n_classes).index_add(0, part.sets.index, p * (1 - p))
    divisor = 1.0 if question.kind == "Counts" else part.sets.sizes[:, None].double()
    half = 1.96 * variance.sqrt() / divisor
    around = 0.5 / divisor  # counts are whole
    gap = (expected - given).abs()
    plain = (given.nan_to_num() * told.double()).sum(dim=0) / told.sum(dim=0).clamp(min=1)  # the mean of each class
    columns = [values.expand_as(given)[told].tolist() for values in (expected, given, half + around)]
    return {
        "bags": int(told.any(dim=1).sum()),
        "number": "count" if question.kind == "Counts" else "share",
        "error": float(gap[told].mean()),
        "error_of_means": float((plain - given).abs()[told].mean()),
        "inside": float((gap <= half + around)[told].double().mean()),
        "points": [[float(f"{v:.4g}") for v in point] for point in zip(*columns, strict=True)][:POINTS],
    }


@dataclass(frozen=True)
class _Shown:
    """A bag of rows that is shown, and what was predicted and given of it."""

    bag: int
    why: str
    classes: list[int]  # whose probability is shown of its instances
    name: str
    value: float
    given: str | None


def _bags_of(
    dataset: Dataset, log_probs: torch.Tensor, held: torch.Tensor, question: Any, part: SetLabels
) -> list[dict[str, Any]]:
    """Bags, with the rows that make them what they are."""
    answers, names = question.answers(log_probs, part.sets).numpy(), dataset.classes.names
    rare = [int(log_probs.exp().mean(dim=0).argmin())] if len(names) == 2 else None
    if question.kind == "AnyOf":
        shown = _present(answers[:, 1], part.answered().numpy(), question.asked["target"], names)
    elif question.kind in OF_NUMBERS:
        shown = _farthest(answers, _numbers(part).numpy(), rare or range(len(names)), names)
    elif question.columns is None:  # the answers are the classes
        said = part.answered().numpy()
        apart = np.ones(len(said), dtype=bool)
        shown = [
            _Shown(
                bag, why, rare or [c], names[c], float(answers[bag, c]), names[said[bag]] if said[bag] >= 0 else None
            )
            for bag, why in _to_show(answers, said, apart)
            for c in [int(answers[bag].argmax())]
        ]
    else:
        return []
    offsets, members = part.sets.offsets.tolist(), part.sets.members.numpy()
    ids = dataset.table.strings(dataset.config.data.bag) if dataset.config.data.bag else None
    snippets, coords, probs = dataset.snippets(), _places(dataset), log_probs.exp()
    out = []
    for each in shown:
        inside = members[offsets[each.bag] : offsets[each.bag + 1]]
        rows = part.rows.numpy()[inside]
        out.append(
            {
                "bag": str(ids[rows[0]]) if ids is not None else str(each.bag),
                "why": each.why,
                "class": each.name,
                "probability": each.value,
                "given": each.given,
                "of": " or ".join(names[c] for c in each.classes),
                **_instances(
                    probs[inside][:, each.classes].sum(dim=1).numpy(),
                    None if coords is None else coords[rows],
                    [f"{dataset.ids[row]}: {snippets[row]}" for row in rows.tolist()],
                ),
                "attention": None,
            }
        )
    return out


def _present(chance: np.ndarray, said: np.ndarray, target: list[int], names: Sequence[str]) -> list[_Shown]:
    """Bags that surely hold a class, and those most surely wrong."""
    wrong = np.flatnonzero((said >= 0) & ((chance > 0.5) != (said == 1)))
    sure = np.flatnonzero((chance > 0.5) & (said != 0))
    shown = [(int(b), "surest") for b in sure[np.argsort(-chance[sure], kind="stable")][: 2 * SHOWN]]
    off = np.abs(chance[wrong] - 0.5)
    shown += [(int(b), "wrong while held out") for b in wrong[np.argsort(-off, kind="stable")][:SHOWN]]
    name, words = " or ".join(names[c] for c in target), {1: "present", 0: "absent"}
    return [_Shown(b, why, target, name, float(chance[b]), words.get(int(said[b]))) for b, why in shown]


def _farthest(expected: np.ndarray, given: np.ndarray, classes: Sequence[int], names: Sequence[str]) -> list[_Shown]:
    """Bags with the most of the classes that differ most between bags, and those farthest from what was given."""
    differ = sorted(classes, key=lambda c: -expected[:, c].std())[:CLASSES]
    per_class = 2 * SHOWN // len(differ)
    order = np.argsort(-expected, axis=0, kind="stable")[:per_class]
    shown = [(int(bag), c, "most of its class") for c in differ for bag in order[:, c]]
    gap = np.abs(np.nan_to_num(expected - given))[:, list(classes)]
    by_bag = gap.max(axis=1)
    for bag in np.argsort(-by_bag, kind="stable")[:SHOWN].tolist():
        c = classes[int(gap[bag].argmax())]
        if by_bag[bag] > 0 and (bag, c) not in {each[:2] for each in shown}:
            shown.append((bag, c, "farthest from what was given"))

    def said(value: float) -> str | None:
        return None if np.isnan(value) else f"{value:.3g}"

    return [_Shown(b, why, [c], names[c], float(expected[b, c]), said(given[b, c])) for b, c, why in shown]


def _places(dataset: Dataset) -> np.ndarray | None:
    """(N, 2), of rows that are instances; None where the configuration names no columns of places."""
    columns = dataset.config.data.coords
    if not columns:
        return None
    return np.stack([dataset.table.numbers(column) for column in columns], axis=1)
