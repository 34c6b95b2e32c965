"""What a run knows of bags: their answers while held out, and which instances they were given for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from anygrain.data.bag_rows import bag_rows
from anygrain.data.dataset import Dataset
from anygrain.labels import All, LabelError, SetLabels
from anygrain.metrics import log_loss
from anygrain.program.reliability import calibration_error, reliability

SHOWN = 3  # bags of each sort
CLASSES = 3  # whose bags are shown
STRONGEST = 5  # instances that are listed of a bag
MOST = 20_000  # instances of a bag that are drawn

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


# -- rows that are bags ------------------------------------------------------------------------------------------------


def _of_rows(dataset: Dataset, learner: Any) -> dict[str, Any]:
    data = bag_rows(dataset.columns.instances[0], dataset.table, dataset.ids)
    held = np.exp(np.asarray(learner.held_out_log_probs_))
    chosen = _to_show(held, dataset.exact(), np.asarray(learner.held_out_))
    entries: list[dict[str, Any]] = []
    note = "Scores of instances are the model's own probabilities; it was trained on the labels of these bags."
    for bag, why in chosen:
        here = data[np.array([bag])]
        try:
            probs = learner.predict_proba(here, unit="instance")
        except LabelError as error:
            note = f"No scores of instances: {error}."
            break
        at = int(held[bag].argmax())
        entry = {
            "bag": str(dataset.ids[bag]),
            "why": why,
            "class": dataset.classes.names[at],
            "probability": float(held[bag, at]),
            "given": _given(dataset, bag),
            **_instances(probs[:, at], here.coords, None),
        }
        try:
            entry["attention"] = _rounded(learner.attention(here)[: len(entry["score"])])
        except LabelError:  # this model has none
            entry["attention"] = None
        entries.append(entry)
    sizes = data.sizes.double()
    return {
        "unit": "set",
        "bags": len(data),
        "instances": data.n_instances,
        "sizes": [int(sizes.min()), float(sizes.median()), int(sizes.max())],
        "entries": entries,
        "questions": [],
        "note": note,
    }


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
        "note": "" if all(question.trusted for question, _ in parts) else NOT_TRUSTED,
    }


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


def _bags_of(
    dataset: Dataset, log_probs: torch.Tensor, held: torch.Tensor, question: Any, part: SetLabels
) -> list[dict[str, Any]]:
    """Bags that surely hold a class, with the rows that make it so; of `AnyOf` alone, which asks for a class."""
    if question.kind != "AnyOf":
        return []
    target = question.asked["target"]
    score = log_probs.exp()[:, target].sum(dim=1).numpy()
    chances = question.answers(log_probs, part.sets)[:, 1].numpy()
    said, offsets, members = part.answered().numpy(), part.sets.offsets.tolist(), part.sets.members.numpy()
    ids = dataset.table.strings(dataset.config.data.bag) if dataset.config.data.bag else None
    snippets = dataset.snippets()
    wrong = np.flatnonzero((said >= 0) & ((chances > 0.5) != (said == 1)))
    sure = np.flatnonzero((chances > 0.5) & (said != 0))
    shown = [(int(b), "surest") for b in sure[np.argsort(-chances[sure], kind="stable")][: 2 * SHOWN]]
    off = np.abs(chances[wrong] - 0.5)
    shown += [(int(b), "wrong while held out") for b in wrong[np.argsort(-off, kind="stable")][:SHOWN]]
    name = " or ".join(dataset.classes.names[c] for c in target)
    out = []
    for bag, why in shown:
        rows = members[offsets[bag] : offsets[bag + 1]]
        rows = part.rows.numpy()[rows]
        names = [f"{dataset.ids[row]}: {snippets[row]}" for row in rows.tolist()]
        out.append(
            {
                "bag": str(ids[rows[0]]) if ids is not None else str(bag),
                "why": why,
                "class": name,
                "probability": float(chances[bag]),
                "given": {1: "present", 0: "absent"}.get(int(said[bag])),
                "attention": None,
                **_instances(score[members[offsets[bag] : offsets[bag + 1]]], None, names),
            }
        )
    return out
