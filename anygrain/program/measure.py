"""What a fit is worth: everything that metrics.json and labels.parquet hold, from log-probabilities of unseen rows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.data.dataset import Dataset, combined
from anygrain.data.error import counted
from anygrain.data.evidence import Evidence
from anygrain.data.pictures import image_cells, thumbnail
from anygrain.labels import InstanceLabels, Labels, Sampled
from anygrain.labels.aggregate import aggregate
from anygrain.labels.pairs_unlabeled import DrawnRows
from anygrain.metrics import wilson_interval
from anygrain.program.careless import wrong_share
from anygrain.program.records import Records, map_columns
from anygrain.program.reliability import calibration_error, reliability

DOUBT = 0.05  # share of rows about which the model may be wrong where the labels of sets are judged
FEWEST = 2  # other rows that must name a class before the model may speak against a label of it
CLASS_KINDS = ("Exact", "Noisy", "Crowd", "Rules")
MOST_CONFUSED = 60
CHUNK = 2**22


@dataclass(kw_only=True)
class ClassRecords(Records):
    """Every label that was given, (R,) each: see `Records`.

    At most .5 of `wrong` where fewer than two other rows name the class of a label: the model knows too little of it.

    Attributes:
        right: probability that the true class is the one it names, or one of those, given the features and all other
            labels. The label itself and how often its source errs do not count.
        voted: class that it names, -1 where it names none or several.
        proposed, probability: the most probable class by everything else, and its probability; -1 and NaN for sets.
    """

    right: np.ndarray
    voted: np.ndarray
    proposed: np.ndarray
    probability: np.ndarray


class Measured:
    """The numbers of one fit.

    Args:
        dataset: the data; the channels of its labels are those of the fit.
        log_probs: log p(class | features) from heads that saw neither the row nor its labels, shape (N, K).
        held_out: bool (N,): where that could be done.
    """

    def __init__(self, dataset: Dataset, log_probs: Tensor, held_out: np.ndarray):
        self.dataset = dataset
        self.log_probs = log_probs.double().log_softmax(dim=1)
        self.held_out = held_out
        self.labels = dataset.labels
        self.names = dataset.classes.names
        self.exact = dataset.exact()
        self.posterior = _joined(dataset.evidence, self.log_probs)
        self.single = [(at, e) for at, e in enumerate(dataset.evidence) if isinstance(e.labels, InstanceLabels)]
        self.own = {at: e.labels.log_evidence(torch.float64) for at, e in self.single}
        self.total = sum(self.own.values(), torch.zeros_like(self.log_probs))
        self.records = self._records()

    # -- single labels ------------------------------------------------------------------------------------------------

    def _records(self) -> ClassRecords:
        scores = self._scores_of_sets()
        out: list[dict[str, np.ndarray]] = []
        shares = self.posterior.mean(dim=0)
        first = 0
        for at, evidence in enumerate(self.dataset.evidence):
            labels = evidence.labels
            score = scores[first : first + labels.n_records]
            first += labels.n_records
            said = (evidence.record_value != "").nonzero()[0]
            if isinstance(labels, InstanceLabels):
                others = self.total - self.own[at]
                others = torch.where(torch.isnan(others), self._without(at), others)
                right, chance, proposed, probability = self._judge(evidence, labels, others, said, shares)
                voted = self._voted(evidence)[said]
            else:
                right, chance = (values[said] for values in _set_is_right(labels, score))
                proposed = voted = np.full(len(said), -1)
                probability = np.full(len(said), np.nan)
            row = evidence.record_row[said].astype(np.int64)
            rare = self._is_rare(voted, row)
            known = evidence.record_source[said] if isinstance(labels, InstanceLabels) else np.zeros(len(said))
            _, who = np.unique(known.astype(str), return_inverse=True)
            wrong = wrong_share(right, chance, who, ~rare)
            wrong[rare] = wrong[rare].clip(max=0.5)
            if isinstance(labels, Sampled | DrawnRows):  # rows of several classes are drawn so: none is wrong
                wrong[:] = 0.0
            out.append(
                {
                    "part": np.full(len(said), at),
                    "row": row,
                    "source": evidence.record_source[said],
                    "value": evidence.record_value[said],
                    "right": right,
                    "wrong": wrong,
                    "voted": voted,
                    "proposed": proposed,
                    "probability": probability,
                }
            )
        return ClassRecords(**{name: np.concatenate([part[name] for part in out]) for name in out[0]})

    def _is_rare(self, voted: np.ndarray, row: np.ndarray) -> np.ndarray:
        """bool (n,): labels that name a class which fewer than `FEWEST` other rows are named by."""
        pairs: list[np.ndarray] = []
        for _, evidence in self.single:
            named = self._voted(evidence)
            pairs.append(np.stack([named, evidence.record_row.astype(np.int64)])[:, named >= 0])
        every = np.unique(np.concatenate(pairs, axis=1), axis=1) if pairs else np.zeros((2, 0), dtype=np.int64)
        rows_of = np.bincount(every[0], minlength=len(self.names))
        return np.asarray((voted >= 0) & (rows_of[voted] <= FEWEST))

    def _scores_of_sets(self) -> np.ndarray:
        """log P(record | everything else) for all records; only those of sets are meant to be used.

        A set is improbable as soon as the model is sure and wrong about some of its members, so it is taken to be wrong
        about one row in twenty.
        """
        n_records = sum(e.labels.n_records for e in self.dataset.evidence)
        if len(self.single) == len(self.dataset.evidence):
            return np.zeros(n_records)
        p = self.log_probs.exp()
        return self.labels.record_scores(((1 - DOUBT) * p + DOUBT * p.mean(dim=0)).log()).numpy()

    def _without(self, at: int) -> Tensor:
        """Log evidence of all kinds but one, (N, K)."""
        rest = [table for other, table in self.own.items() if other != at]
        return sum(rest, torch.zeros_like(self.log_probs))

    def _judge(
        self, evidence: Evidence, labels: InstanceLabels, others: Tensor, said: np.ndarray, shares: Tensor
    ) -> tuple[np.ndarray, ...]:
        """Of records (n,), by everything else: P(it is right), that of any row, the likeliest class and its P."""
        table = labels.record_log_prob(torch.float64)
        several = labels.record_instances is not None
        voted = torch.from_numpy(self._voted(evidence))
        right, chance, likeliest = [], [], []
        for chunk in torch.from_numpy(said).split(max(1, CHUNK // len(self.names))):
            here = table[chunk]
            row = torch.from_numpy(evidence.record_row)[chunk]
            known = self.log_probs[row] + others[row]
            if several:  # the other records of the same kind speak too
                own = labels_own(self.own, self.dataset, evidence)[row]
                known = known + torch.where(torch.isfinite(here), own - here, own)
            known = torch.where(torch.isfinite(known).any(1, keepdim=True), known, self.log_probs[row])
            belief = known.softmax(dim=1)
            vote = voted[chunk]
            possible = here > here.max(dim=1, keepdim=True).values - 0.7
            inside = (belief * possible).sum(dim=1)
            named = belief.gather(1, vote.clamp(min=0)[:, None])[:, 0]
            right.append(torch.where(vote >= 0, named, inside))
            chance.append(torch.where(vote >= 0, shares[vote.clamp(min=0)], possible.to(shares.dtype) @ shares))
            likeliest.append(belief.max(dim=1))
        if not right:
            return (np.zeros(0),) * 4
        top = torch.cat([found.indices for found in likeliest]).numpy()
        sure = torch.cat([found.values for found in likeliest]).numpy()
        return torch.cat(right).numpy(), torch.cat(chance).numpy(), top, sure

    def _voted(self, evidence: Evidence) -> np.ndarray:
        if evidence.kind not in CLASS_KINDS:
            return np.full(len(evidence.record_value), -1)
        return self.dataset.classes.encode(evidence.record_value, evidence.name, evidence.source)

    # -- tables of rows -----------------------------------------------------------------------------------------------

    def table(self, places: np.ndarray | None) -> dict[str, Any]:
        """The columns of labels.parquet."""
        import pyarrow as pa

        n = len(self.dataset)
        names = np.array(self.names, dtype=object)
        top, predicted = self.posterior.max(dim=1), self.log_probs.max(dim=1)
        entropy = -torch.special.xlogy(self.posterior, self.posterior).sum(dim=1)
        said = np.zeros(n, dtype=bool)
        for _, evidence in self.single:
            said |= evidence.rows
        evidence_of = torch.logsumexp(self.log_probs + self.total, dim=1).numpy()
        return {
            "row": self.dataset.ids.tolist(),
            "class": names[top.indices.numpy()].tolist(),
            "probability": pa.array(top.values.numpy(), pa.float32()),
            "entropy": pa.array(entropy.numpy(), pa.float32()),
            "predicted": names[predicted.indices.numpy()].tolist(),
            "predicted_prob": pa.array(predicted.values.exp().numpy(), pa.float32()),
            "evidence": pa.array(evidence_of, pa.float32(), mask=~(said & np.isfinite(evidence_of))),
            **self.records.suspects_by_row(n),
            "exact": pa.array([names[e] if e >= 0 else None for e in self.exact.tolist()], pa.string()),
            "given": self.records.said(n),
            "text": self.dataset.snippets().tolist(),
            **map_columns(places, n),
        }

    def suspects(self) -> int:
        """Number of labels that look wrong."""
        return int(self.records.looks_wrong.sum())

    def worst(self, shown: int = 20) -> list[dict[str, Any]]:
        """The most suspect labels."""
        r = self.records
        text, columns = self.dataset.snippets(), self.dataset.columns.images
        images = image_cells(self.dataset.table, columns[0]) if columns else None
        out = []
        for at in np.argsort(-r.suspect, kind="stable")[:shown].tolist():
            if r.wrong[at] <= 0.5:
                break
            row = int(r.row[at])
            of_set = row < 0
            out.append(
                {
                    "row": str(r.source[at] if of_set else self.dataset.ids[row]),
                    "source": self.dataset.evidence[int(r.part[at])].name if of_set else str(r.source[at]),
                    "given": str(r.value[at]),
                    "proposed": None if of_set else self.names[int(r.proposed[at])],
                    "probability": None if of_set else float(r.probability[at]),
                    "wrong": float(r.wrong[at]),
                    "suspect": float(r.suspect[at]),
                    "text": self._members(int(r.part[at]), str(r.source[at])) if of_set else str(text[row]),
                    "image": None if of_set or images is None else thumbnail(images[row]),
                }
            )
        return out

    def _members(self, part: int, name: str) -> str:
        """What stands in the place of a text for a set."""
        evidence = self.dataset.evidence[part]
        at = int((evidence.record_source == name).nonzero()[0][0])
        return counted(int(evidence.labels.bags[0].sizes[at]), "row")

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
            "rows": len(rows),
            "folds": folds,
            "method": f"each row was scored by models that were not trained on it ({folds} parts)",
            "entries": entries,
            "reliability": reliability(*_stated(held, truth)),
            "reliability_features": reliability(*_stated(features_only, truth)),
        }

    def held_out_evidence(self) -> dict[str, Any]:
        """Mean log-likelihood of the labels of a row under the features, over rows with labels."""
        value = self.labels.infer(self.log_probs)[0]
        uniform = torch.full_like(self.log_probs, -float(np.log(len(self.names))))
        chance = self.labels.infer(uniform)[0]
        rows = max(int(self.dataset.labelled.sum()), 1)
        return {
            "evidence_per_row": float(value.sum()) / rows,
            "chance": float(chance.sum()) / rows,
            "rows": rows,
        }

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
                out.append(
                    {
                        "first": one.name,
                        "second": two.name,
                        "rows": n,
                        "agree": agree,
                        "share": agree / n,
                        "interval": list(wilson_interval(agree, n)),
                    }
                )
        return out

    def sources(self) -> list[dict[str, Any]]:
        """Annotators, rules and label columns: how often each is right, and how often others confirm it."""
        r = self.records
        named = r.voted >= 0
        count = np.zeros((len(self.dataset), len(self.names)))
        np.add.at(count, (r.row[named].astype(np.int64), r.voted[named].astype(np.int64)), 1)
        out = []
        for at, evidence in self.single:
            mine = r.part == at
            for source in dict.fromkeys(r.source[mine].tolist()):
                chosen = mine & (r.source == source)
                n = int(chosen.sum())
                right = float(r.right[chosen].sum())
                votes = chosen & named
                row, voted = r.row[votes].astype(np.int64), r.voted[votes].astype(np.int64)
                others = count[row].sum(axis=1) - 1
                compared = others > 0
                confirmed = (count[row, voted] - 1)[compared] / others[compared]
                out.append(
                    {
                        "name": str(source),
                        "part": evidence.name,
                        "kind": evidence.kind,
                        "labels": n,
                        "accuracy": right / n,
                        "interval": list(wilson_interval(round(right), n)),
                        "agreement": float(confirmed.mean()) if len(confirmed) else None,
                        "compared": len(confirmed),
                        "suspects": int(r.looks_wrong[chosen].sum()),
                    }
                )
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
        voted = self.records.voted.astype(np.int64)
        labels = np.bincount(voted[voted >= 0], minlength=len(self.names)).tolist()
        return [
            {"class": c, "expected": e, "exact": x, "labels": v}
            for c, e, x, v in zip(self.names, expected, exact, labels, strict=True)
        ]


def _set_is_right(labels: Labels, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P(what is said of a set is right | everything else) (M,), from its log, and the chance of a random answer (M,).

    Shares that were read with noise are never taken to be wrong: the noise explains them.
    """
    if getattr(labels, "is_noisy", False):
        return np.ones(len(score)), np.ones(len(score))
    error = float(getattr(labels, "error", 0.0))
    outcomes = getattr(labels, "n_outcomes", 2.0)  # yes or no, or as many as there are counts of so many members
    chance = 1 / np.maximum(np.asarray(outcomes, dtype=np.float64), 1.0) * np.ones(len(score))
    return np.clip((np.exp(score) - error * chance) / (1 - error), 0, 1), chance


def labels_own(own: dict[int, Tensor], dataset: Dataset, evidence: Evidence) -> Tensor:
    """Log evidence (N, K) of one kind."""
    return own[next(at for at, e in enumerate(dataset.evidence) if e is evidence)]


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
