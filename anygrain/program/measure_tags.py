"""What a fit of tags is worth: all that metrics.json and labels.parquet hold, from probabilities of unseen rows."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.data.kinds.tags import SAID
from anygrain.data.tag_dataset import TagDataset
from anygrain.metrics import (
    TagScores,
    event_calibration_error,
    ranking_losses,
    tag_counts,
    tag_coverages,
    tag_log_losses,
    tag_scores,
)
from anygrain.metrics.tags import f1_of
from anygrain.program.audited import Audited
from anygrain.program.measured import Measured, agreeing, evaluated
from anygrain.program.reliability import reliability

THRESHOLD = 0.5  # a tag is predicted where it is more probable than this
RESAMPLES, CELLS = 1000, 2**32  # draws of the bootstrap, and multiplications that they may take
POINTS = 200  # of the curve of precision and recall
MOST_TOGETHER = 40  # tags in the table of what goes together


class MeasuredTags(Measured[TagDataset]):
    """The numbers of one fit.

    Args:
        dataset, audit: see `Measured`.
        log_probs: log P(off), log P(on) of every row and tag from heads that did not see the row, shape (N L, 2).
        held_out: bool (N L,): where that could be done.
    """

    def __init__(self, dataset: TagDataset, audit: Audited, log_probs: Any, held_out: np.ndarray):
        super().__init__(dataset, audit, np.asarray(held_out, dtype=bool).reshape(len(dataset), -1))
        self.names, self.shape = dataset.tags.names, (len(dataset), len(dataset.tags))
        self.log_probs = torch.as_tensor(log_probs).double().log_softmax(dim=1)
        self.odds = (self.log_probs[:, 1] - self.log_probs[:, 0]).reshape(self.shape).numpy()
        self.predicted = _sigmoid(self.odds)
        self.labels = dataset.labels
        self.posterior = self.labels.posterior(self.log_probs)[:, 1].reshape(self.shape).numpy()
        self.given = dataset.given()
        self.own = [self._evidence(at) for at in range(len(dataset.evidence))]
        self.share = self._share()

    def _evidence(self, at: int) -> np.ndarray:
        """What one kind says, as log P(label | on) - log P(label | off), (N, L)."""
        table = self.dataset.evidence[at].labels.log_evidence(torch.float64)
        return np.asarray((table[:, 1] - table[:, 0]).reshape(self.shape).numpy())

    def _share(self) -> np.ndarray:
        """How frequent every tag is where it is known, (L,)."""
        on, known = (self.given == 1).sum(axis=0), (self.given >= 0).sum(axis=0)
        return np.asarray((on + 0.5) / (known + 1))

    def _without(self, at: int) -> np.ndarray:
        """P(on) given the features and all kinds but one, (N, L)."""
        if len(self.own) == 1:
            return self.predicted
        with np.errstate(invalid="ignore"):
            odds = self.odds + sum(own for other, own in enumerate(self.own) if other != at)
        return _sigmoid(np.where(np.isnan(odds), self.odds, odds))

    # -- rows ---------------------------------------------------------------------------------------------------------

    def beliefs(self) -> dict[str, Any]:
        return {
            "tags": named(self.posterior > THRESHOLD, self.names),
            "predicted": named(self.predicted > THRESHOLD, self.names),
        }

    def given_columns(self) -> dict[str, Any]:
        import pyarrow as pa

        absent = pa.array((self.given == 0).sum(axis=1), pa.int32())
        return {"given": named(self.given == 1, self.names), "given_absent": absent}

    def evidence(self) -> tuple[np.ndarray, np.ndarray]:
        found = self.labels.infer(self.log_probs)[0].reshape(self.shape).numpy()
        return found.sum(axis=1), np.asarray((self.given >= 0).any(axis=1))

    def more_columns(self) -> dict[str, Any]:
        tables = {"p": self.posterior, "predicted_p": self.predicted}
        return {
            f"{prefix}_{name}": column.astype(np.float32)
            for prefix, table in tables.items()
            for name, column in zip(self.names, table.T, strict=True)
        }

    # -- single entries -----------------------------------------------------------------------------------------------

    def about(self, at: int) -> dict[str, Any]:
        r = self.records
        has = r.proposed[at] == SAID[2]
        return {"tag": r.tag[at], "probability": float(r.probability[at] if has else 1 - r.probability[at])}

    # -- how good -----------------------------------------------------------------------------------------------------

    def evaluation(self, *, folds: int, seed: int) -> dict[str, Any] | None:
        """Scores on entries that are known and were held out; None where all of them say the same.

        Args:
            folds: how often rows were held out.
            seed: of the bootstrap.
        """
        truth = np.where(self.held_out, self.given, -1)
        rows = (truth >= 0).any(axis=1)
        if not ((truth == 1).any() and (truth == 0).any()):
            return None
        truth = truth[rows]
        compared = _Compared(truth, seed)
        entries = []
        joined = self._with_others()
        if joined is not None:
            entries.append(compared.entry("posterior", "features and other labels", joined[rows], ours=True))
        entries.append(compared.entry("features", "features alone", self.predicted[rows], ours=True))
        entries.append(compared.entry("prior", "each tag as often as it is", np.tile(self.share, (len(truth), 1))))
        known = truth >= 0
        stated, happened = self.predicted[rows][known], truth[known]
        return {
            **evaluated(len(truth), folds, entries),
            "known": int(known.sum()),
            "threshold": THRESHOLD,
            "reliability": reliability(stated, happened),
            "precision_recall": _curve(stated, happened),
        }

    def _with_others(self) -> np.ndarray | None:
        """P(on) given the features and all other kinds than the one that is scored, (N, L); None where none speaks."""
        tables = [self.dataset.table_of(evidence) for evidence in self.dataset.evidence]
        if not (np.sum([table >= 0 for table in tables], axis=0) > 1).any():
            return None
        out, told = self.predicted, np.zeros(self.shape, dtype=bool)
        for at, table in enumerate(tables):
            first = (table >= 0) & ~told
            out = np.where(first, self._without(at), out)
            told |= first
        return np.asarray(out)

    def tags_table(self) -> list[dict[str, Any]]:
        """How much there is of every tag, and how well it is predicted from the features."""
        truth = np.where(self.held_out, self.given, -1)
        if not (truth >= 0).any():
            scores: TagScores | None = None
            by_prior = None
        else:
            scores = tag_scores(self.predicted, truth, bins=10)
            by_prior = tag_scores(np.tile(self.share, (len(truth), 1)), truth, bins=10)
        expected, predicted = self.posterior.sum(axis=0), (self.predicted > THRESHOLD).sum(axis=0)
        r = self.records
        looks_wrong = {said: Counter(r.tag[r.looks_wrong & (r.value == said)].tolist()) for said in SAID[1:]}
        out = []
        for at, name in enumerate(self.names):
            column = self.given[:, at]
            entry: dict[str, Any] = {
                "tag": name,
                "on": int((column == 1).sum()),
                "off": int((column == 0).sum()),
                "unknown": int((column < 0).sum()),
                "expected": float(expected[at]),
                "predicted": int(predicted[at]),
                "share": float(self.share[at]),
                "wrongly_on": looks_wrong[SAID[2]][name],
                "wrongly_off": looks_wrong[SAID[1]][name],
            }
            for score in ("average_precision", "auc", "precision", "recall", "f1", "brier", "log_loss"):
                entry[score] = None if scores is None else float(getattr(scores, score)[at])
            entry["ece"] = None if scores is None else float(scores.calibration_error[at])
            entry["log_loss_prior"] = None if by_prior is None else float(by_prior.log_loss[at])
            out.append(entry)
        return out

    def log_likelihoods(self) -> tuple[Tensor, Tensor]:
        plain = np.log(np.stack([1 - self.share, self.share], axis=1))
        tiled = torch.from_numpy(np.tile(plain, (len(self.dataset), 1)))
        return self.labels.infer(self.log_probs)[0], self.labels.infer(tiled)[0]

    # -- what the labels say of each other ----------------------------------------------------------------------------

    def agreement(self) -> list[dict[str, Any]]:
        """How often every two kinds say the same of the entries that both speak of."""
        out = []
        for one, two in combinations(self.dataset.evidence, 2):
            first, second = self.dataset.table_of(one), self.dataset.table_of(two)
            both = (first >= 0) & (second >= 0)
            n, agree = int(both.sum()), int((first == second)[both].sum())
            if n:
                on = both & ((first == 1) | (second == 1))
                out.append(
                    {
                        **agreeing(one.name, two.name, n, agree),
                        "on": int(on.sum()),
                        "share_on": float((first == second)[on].mean()) if on.any() else None,
                    }
                )
        return out

    def sources(self) -> list[dict[str, Any]]:
        """What every kind says of tags that rows have, and lack: how much, how much is right, what looks wrong."""
        r = self.records
        out = []
        for at, evidence in enumerate(self.dataset.evidence):
            for said in reversed(SAID[1:].tolist()):
                mine = (r.part == at) & (r.value == said)
                if mine.any():
                    out.append({**self.source(mine, f"{evidence.name}: {said}", at), **self.expected_accuracy(mine)})
        return out

    def together(self) -> dict[str, Any]:
        """Expected number of rows with both of two tags, for the most frequent ones; on the diagonal with one."""
        expected = self.posterior.sum(axis=0)
        shown = np.sort(np.argsort(-expected, kind="stable")[:MOST_TOGETHER])
        q = self.posterior[:, shown]
        matrix = q.T @ q
        np.fill_diagonal(matrix, expected[shown])
        return {"tags": [self.names[at] for at in shown.tolist()], "matrix": matrix.round(2).tolist()}


class _Compared:
    """Scores of probabilities (N, L) of the same entries, with intervals from the same draws of rows."""

    def __init__(self, truth: np.ndarray, seed: int):
        self.truth, self.known = truth, truth >= 0
        n, tags = truth.shape
        draws = int(np.clip(CELLS / (3 * n * tags), 50, RESAMPLES))
        self.drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)

    def entry(self, key: str, name: str, probs: np.ndarray, *, ours: bool = False) -> dict[str, Any]:
        """One line of the evaluation."""
        truth, known = self.truth, self.known
        scores = tag_scores(probs, truth, threshold=THRESHOLD)
        counts = [c.astype(np.float64) for c in tag_counts(probs, truth, threshold=THRESHOLD)]
        losses = np.nansum(tag_log_losses(probs, truth), axis=1)
        n_known = known.sum(axis=1)
        of_draws = [self.drawn @ c for c in counts]  # (draws, L) each
        with np.errstate(divide="ignore", invalid="ignore"):
            micro = f1_of(*(c.sum(axis=1) for c in of_draws))
            macro = f1_of(*of_draws)[:, ~np.isnan(scores.f1)].mean(axis=1)
            loss = self.drawn @ losses / (self.drawn @ n_known)
        out = {
            "key": key,
            "name": name,
            "ours": ours,
            "rows": len(truth),
            "map": _mean(scores.average_precision),
            "auc": _mean(scores.auc),
            "micro_f1": float(f1_of(*(c.sum() for c in counts))),
            "macro_f1": _mean(scores.f1),
            "log_loss": float(losses.sum() / n_known.sum()),
            "brier": float(np.square(probs - (truth == 1))[known].mean()),
            "ece": event_calibration_error(probs[known], truth[known] == 1, bins=10),
            "ranking_loss": _mean(ranking_losses(probs, truth)),
            "coverage": _mean(tag_coverages(probs, truth)),
        }
        for score, values in (("micro_f1", micro), ("macro_f1", macro), ("log_loss", loss)):
            out[f"{score}_interval"] = [float(end) for end in np.nanquantile(values, [0.025, 0.975])]
        return out


def named(which: np.ndarray, names: tuple[str, ...]) -> Any:
    """The names of the tags of every row, a column of lists, from bool (N, L)."""
    import pyarrow as pa

    at = np.array(names, dtype=object)[np.nonzero(which)[1]]
    offsets = np.concatenate([[0], which.sum(axis=1).cumsum()]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(at.tolist(), pa.string()))


def _curve(stated: np.ndarray, happened: np.ndarray) -> dict[str, Any]:
    """Precision and recall of all entries together at some thresholds, and their average precision."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    precision, recall, threshold = precision_recall_curve(happened, stated)
    precision, recall = precision[:-1], recall[:-1]
    # evenly along the curve, ends included
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(recall)) + np.abs(np.diff(precision)))])
    wanted = np.linspace(0, length[-1], min(POINTS, len(length)))
    at = np.unique(np.searchsorted(length, wanted).clip(max=len(length) - 1))
    return {
        "threshold": threshold[at].tolist(),
        "precision": precision[at].tolist(),
        "recall": recall[at].tolist(),
        "average_precision": float(average_precision_score(happened, stated)),
    }


def _mean(values: np.ndarray) -> float | None:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else None


def _sigmoid(odds: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return np.asarray(expit(odds))
