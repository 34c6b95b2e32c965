"""What a fit of classes is worth: all that metrics.json and labels.parquet hold, by models that saw no row's labels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.data.dataset import Dataset, combined
from anygrain.data.evidence import Evidence
from anygrain.labels import InstanceLabels, Labels
from anygrain.labels.aggregate import aggregate
from anygrain.metrics import wilson_interval
from anygrain.program.audited import Audited
from anygrain.program.measured import Measured, agreeing, evaluated
from anygrain.program.reliability import calibration_error, reliability

CLASS_KINDS = ("Exact", "Noisy", "Crowd", "Rules")
MOST_CONFUSED = 60


class MeasuredClasses(Measured[Dataset]):
    """The numbers of one fit.

    Args:
        dataset, audit: see `Measured`.
        log_probs: log p(class | features) from heads that saw neither the row nor its labels, shape (N, K).
        held_out: bool (N,): where that could be done.
    """

    def __init__(self, dataset: Dataset, audit: Audited, log_probs: Tensor, held_out: np.ndarray):
        super().__init__(dataset, audit, held_out)
        self.log_probs = log_probs.double().log_softmax(dim=1)
        self.labels = dataset.labels
        self.names = dataset.classes.names
        self.exact = dataset.exact()
        self.posterior = _joined(dataset.evidence, self.log_probs)
        self.single = [(at, e) for at, e in enumerate(dataset.evidence) if isinstance(e.labels, InstanceLabels)]
        self.own = {at: e.labels.log_evidence(torch.float64) for at, e in self.single}
        self.total = sum(self.own.values(), torch.zeros_like(self.log_probs))
        self.voted = self._voted()

    def _voted(self) -> np.ndarray:
        """Class that every label names, -1 where it names none or several, (R,)."""
        r, out = self.records, np.full(len(self.records.row), -1)
        for at, evidence in enumerate(self.dataset.evidence):
            mine = r.part == at
            if evidence.kind in CLASS_KINDS and mine.any():
                out[mine] = self.dataset.classes.encode(r.value[mine], evidence.name, evidence.source)
        return out

    # -- rows ---------------------------------------------------------------------------------------------------------

    def beliefs(self) -> dict[str, Any]:
        import pyarrow as pa

        names = np.array(self.names, dtype=object)
        top, predicted = self.posterior.max(dim=1), self.log_probs.max(dim=1)
        entropy = -torch.special.xlogy(self.posterior, self.posterior).sum(dim=1)
        return {
            "class": names[top.indices.numpy()].tolist(),
            "probability": pa.array(top.values.numpy(), pa.float32()),
            "entropy": pa.array(entropy.numpy(), pa.float32()),
            "predicted": names[predicted.indices.numpy()].tolist(),
            "predicted_prob": pa.array(predicted.values.exp().numpy(), pa.float32()),
        }

    def given_columns(self) -> dict[str, Any]:
        import pyarrow as pa

        exact = [self.names[e] if e >= 0 else None for e in self.exact.tolist()]
        return {"exact": pa.array(exact, pa.string()), "given": self.records.said(len(self.dataset))}

    def evidence(self) -> tuple[np.ndarray, np.ndarray]:
        said = np.zeros(len(self.dataset), dtype=bool)
        for _, evidence in self.single:
            said |= evidence.rows
        evidence_of = torch.logsumexp(self.log_probs + self.total, dim=1).numpy()
        return evidence_of, said & np.isfinite(evidence_of)

    # -- single labels ------------------------------------------------------------------------------------------------

    def about(self, at: int) -> dict[str, Any]:
        r = self.records
        of_set = r.row[at] < 0
        return {
            "proposed": None if of_set else str(r.proposed[at]),
            "probability": None if of_set else float(r.probability[at]),
        }

    def sources(self) -> list[dict[str, Any]]:
        """Annotators, rules and label columns: how often each is right, and how often others confirm it.

        How often is the audit's: of annotators and rules by their own channel, of others by their records.
        """
        r, named = self.records, self.voted >= 0
        count = np.zeros((len(self.dataset), len(self.names)))
        np.add.at(count, (r.row[named], self.voted[named]), 1)
        out = []
        for at, _ in self.single:
            mine = r.part == at
            for name in dict.fromkeys(r.source[mine].tolist()):
                chosen = mine & (r.source == name)
                votes = chosen & named
                row, voted = r.row[votes], self.voted[votes]
                others = count[row].sum(axis=1) - 1
                compared = others > 0
                confirmed = (count[row, voted] - 1)[compared] / others[compared]
                out.append(
                    {
                        **self.source(chosen, str(name), at),
                        **(self.audit.sources.get((at, str(name))) or self.expected_accuracy(chosen)),
                        "agreement": float(confirmed.mean()) if len(confirmed) else None,
                        "compared": len(confirmed),
                    }
                )
        return out

    # -- how good -----------------------------------------------------------------------------------------------------

    def evaluation(self, features: np.ndarray | None, *, folds: int, seed: int) -> dict[str, Any] | None:
        """Accuracy and calibration on rows whose exact class is known; None without such rows.

        Args:
            features: (N, D), learnt without labels, for a baseline; None where labels had a part in them.
            folds: how often rows were held out.
            seed: of the folds of the baseline.
        """
        rows = ((self.exact >= 0) & self.held_out).nonzero()[0]
        if not len(rows):
            return None
        truth = self.exact[rows]
        others = [e for e in self.dataset.evidence if e.kind != "Exact"]
        entries = []
        features_only = self.log_probs.exp().numpy()[rows]
        held = features_only
        if any(not e.labels.given_x for e in others):
            held = _joined(others, self.log_probs).numpy()[rows]
            entries.append(_entry("posterior", "features and other labels", held, truth, ours=True))
        entries.append(_entry("features", "features alone", features_only, truth, ours=True))
        alone = None if features is None else _exact_only(features, self.exact, rows, seed)
        if alone is not None:
            entries.append(_entry("exact_only", f"{len(rows)} exact rows alone", alone, truth))
        if len(others) > 1:
            entries.append(
                _entry("labels", "other labels, no features", _alone([e.labels for e in others])[rows], truth)
            )
        for evidence in others:
            if evidence.rows[rows].any():
                said = _alone([evidence.labels])[rows]
                entries.append(
                    _entry(f"labels:{evidence.name}", f"{evidence.name} ({evidence.kind}) alone", said, truth)
                )
        share = np.bincount(self.exact[self.exact >= 0], minlength=len(self.names)).astype(np.float64)
        entries.append(_entry("majority", "most frequent class", np.tile(share / share.sum(), (len(rows), 1)), truth))
        return {
            **evaluated(len(rows), folds, entries),
            "reliability": reliability(*_stated(held, truth)),
            "reliability_features": reliability(*_stated(features_only, truth)),
        }

    def log_likelihoods(self) -> tuple[Tensor, Tensor]:
        uniform = torch.full_like(self.log_probs, -float(np.log(len(self.names))))
        return self.labels.infer(self.log_probs)[0], self.labels.infer(uniform)[0]

    # -- what the labels say of each other ----------------------------------------------------------------------------

    def agreement(self) -> list[dict[str, Any]]:
        """How often every two kinds can both be right about a row, by the class most probable by each alone."""
        tops = {}
        for at, evidence in self.single:
            table = self.own[at]
            tops[at] = ((table >= table.max(dim=1, keepdim=True).values - 1e-6).numpy(), evidence.rows)
        out = []
        for (a, one), (b, two) in combinations(self.single, 2):
            both = tops[a][1] & tops[b][1]
            n = int(both.sum())
            if n:
                agree = int((tops[a][0] & tops[b][0])[both].any(axis=1).sum())
                out.append(agreeing(one.name, two.name, n, agree))
        return out

    def confusion(self) -> list[dict[str, Any]]:
        """Class given features and all labels against class predicted from the features, inside every parent."""
        taxonomy = self.dataset.classes.taxonomy
        k = len(self.names)
        truth, predicted = self.posterior.argmax(dim=1).numpy(), self.log_probs.argmax(dim=1).numpy()
        full = np.zeros((k, k))
        np.add.at(full, (truth, predicted), 1)
        groups: list[tuple[str | None, np.ndarray]] = [(None, np.arange(k))]
        if taxonomy is not None and len(taxonomy.level_names) > 1:
            member = taxonomy.membership(1).numpy() > 0
            groups = [(name, row.nonzero()[0]) for name, row in zip(taxonomy.nodes(1), member, strict=True)]
        out = []
        for parent, inside in groups:
            rows = full[inside].sum()
            order = inside[np.argsort(-full[inside].sum(axis=1), kind="stable")][:MOST_CONFUSED]
            left = np.setdiff1d(inside, order)
            names = [self.names[i] for i in sorted(order.tolist())]
            order = np.sort(order)
            matrix = full[np.ix_(order, order)]
            if len(left):
                names.append("other")
                right_side = full[np.ix_(order, left)].sum(axis=1, keepdims=True)
                below = full[np.ix_(left, order)].sum(axis=0, keepdims=True)
                matrix = np.block([[matrix, right_side], [below, full[np.ix_(left, left)].sum(keepdims=True)]])
            kept = full[np.ix_(inside, inside)].sum()
            out.append(
                {
                    "parent": parent,
                    "classes": names,
                    "matrix": matrix.astype(int).tolist(),
                    "rows": int(rows),
                    "inside": float(kept / rows) if rows else None,
                }
            )
        return out

    def classes_table(self) -> list[dict[str, Any]]:
        """How much there is of every class."""
        expected = self.posterior.sum(dim=0).tolist()
        exact = np.bincount(self.exact[self.exact >= 0], minlength=len(self.names)).tolist()
        labels = np.bincount(self.voted[self.voted >= 0], minlength=len(self.names)).tolist()
        return [
            {"class": c, "expected": e, "exact": x, "labels": v}
            for c, e, x, v in zip(self.names, expected, exact, labels, strict=True)
        ]


def _joined(evidence: Sequence[Evidence], log_probs: Tensor) -> Tensor:
    """P(class | features and labels), (N, K). Rules and teachers saw the features: they are not counted again."""
    parts = [e.labels for e in evidence if not e.labels.given_x]
    return combined(parts).posterior(log_probs) if parts else log_probs.exp()


def _alone(labels: Sequence[Labels]) -> np.ndarray:
    """What labels say by themselves, (N, K): their channels are fitted anew, without features."""
    together = combined([copy.deepcopy(part) for part in labels])
    if together.channels:
        return np.asarray(aggregate(together).posterior.double().numpy())
    even = torch.full(
        (together.n_instances, together.n_classes), -float(np.log(together.n_classes)), dtype=torch.float64
    )
    return np.asarray(together.posterior(even).numpy())


def _exact_only(features: np.ndarray, exact: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray | None:
    """Cross-fitted probabilities (n, K) of logistic regression on the exact rows alone; None with too few of them."""
    from sklearn.linear_model import LogisticRegression

    if len(rows) < 10:
        return None
    k = int(exact.max()) + 1
    order = np.random.default_rng(seed).permutation(len(rows))
    fold = np.empty(len(rows), dtype=np.int64)
    fold[order[np.argsort(exact[rows][order], kind="stable")]] = np.arange(len(rows)) % 5
    out = np.full((len(rows), k), 1e-6)
    for f in range(5):
        train, test = rows[fold != f], rows[fold == f]
        classes = np.unique(exact[train])
        if len(classes) < 2:
            return None
        if len(train) > 20_000:
            train = np.random.default_rng(seed).choice(train, 20_000, replace=False)
        model = LogisticRegression(C=10.0, max_iter=200).fit(features[train], exact[train])
        probs = np.full((len(test), k), 1e-6)
        probs[:, model.classes_] = model.predict_proba(features[test])
        out[fold == f] = probs
    return np.asarray(out / out.sum(axis=1, keepdims=True))


def _entry(key: str, name: str, probs: np.ndarray, truth: np.ndarray, *, ours: bool = False) -> dict[str, Any]:
    """One line of the evaluation; where several classes are equally probable one of them is taken to be drawn."""
    n = len(truth)
    top = probs >= probs.max(axis=1, keepdims=True) - 1e-9
    inside = np.take_along_axis(top, np.minimum(truth, probs.shape[1] - 1)[:, None], axis=1)[:, 0]
    inside &= truth < probs.shape[1]
    right = float((inside / top.sum(axis=1)).sum())
    own = np.where(truth < probs.shape[1], probs[np.arange(n), np.minimum(truth, probs.shape[1] - 1)], 0.0)
    return {
        "key": key,
        "name": name,
        "ours": ours,
        "rows": n,
        "correct": right,
        "accuracy": right / n,
        "interval": list(wilson_interval(round(right), n)),
        "log_loss": max(0.0, float(-np.log(own.clip(1e-12)).mean())),
        "ece": calibration_error(*_stated(probs, truth)),
    }


def _stated(probs: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the most probable class, and whether it is right, (n,) both."""
    top = probs.max(axis=1)
    tied = probs >= top[:, None] - 1e-9
    inside = (truth < probs.shape[1]) & np.take_along_axis(tied, np.minimum(truth, probs.shape[1] - 1)[:, None], 1)[
        :, 0
    ]
    return top, inside / tied.sum(axis=1)
