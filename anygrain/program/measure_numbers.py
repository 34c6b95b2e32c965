"""What a fit of a number is worth: all that metrics.json and labels.parquet hold, from beliefs about unseen rows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch

from anygrain.data.evidence import NumberEvidence
from anygrain.data.number_dataset import NumberDataset
from anygrain.labels import AggregateValue, Belief, Censored, Ratings, RealAll, RealLabels, Value, aggregate
from anygrain.labels.real import RealInstanceLabels
from anygrain.learn.number import half_width
from anygrain.metrics import crps_scores, log_densities, wilson_interval
from anygrain.program.audited import Audited
from anygrain.program.measured import Measured, evaluated

LEVELS = (0.5, 0.8, 0.9, 0.95)
CURVE = tuple(round(0.05 * step, 2) for step in range(1, 20))
RESAMPLES, MANY = 1000, 20_000  # draws of the bootstrap; a fifth of them above so many rows
CELLS = 2**24
LOG_2PI = float(np.log(2 * np.pi))


class MeasuredNumbers(Measured[NumberDataset]):
    """The numbers of one fit.

    Args:
        dataset, audit: see `Measured`.
        mean, variance: belief about every row by heads that saw neither the row nor its labels, both (N,).
        held_out: bool (N,): where that could be done.

    Attributes:
        residual: how far every record lies from what all else expects of it, in standard deviations, (R,); NaN where
            that is sure.
        expected, spread: what all else expects of it, mean and standard deviation, (R,).
    """

    def __init__(self, dataset: NumberDataset, audit: Audited, mean: Any, variance: Any, held_out: np.ndarray):
        super().__init__(dataset, audit, held_out)
        self.belief = Belief(torch.as_tensor(mean).double(), torch.as_tensor(variance).double())
        self.labels = dataset.labels
        self.posterior = _joined(dataset.evidence, self.belief)
        self.values, self.noise = dataset.values()
        self.expected, self.spread, self.residual = self._expected()

    @property
    def predicted(self) -> np.ndarray:
        mean: np.ndarray = self.belief.mean.numpy()
        return mean

    @property
    def sd(self) -> np.ndarray:
        sd: np.ndarray = self.belief.variance.sqrt().numpy()
        return sd

    # -- rows ---------------------------------------------------------------------------------------------------------

    def beliefs(self) -> dict[str, Any]:
        return {
            "mean": self.posterior.mean.numpy(),
            "sd": self.posterior.variance.sqrt().numpy(),
            "predicted": self.predicted,
            "predicted_sd": self.sd,
        }

    def given_columns(self) -> dict[str, Any]:
        import pyarrow as pa

        value = pa.array(self.values, pa.float64(), from_pandas=True)
        return {"value": value, "given": self.records.said(len(self.dataset))}

    def evidence(self) -> tuple[np.ndarray, np.ndarray]:
        own = [e for e in self.dataset.evidence if isinstance(e.labels, RealInstanceLabels)]
        if not own:
            return np.full(len(self.dataset), np.nan), np.zeros(len(self.dataset), dtype=bool)
        found = RealAll(*(e.labels for e in own)).infer(*self.belief)[0].numpy()
        return found, np.asarray(np.any([e.rows for e in own], axis=0))

    # -- single labels ------------------------------------------------------------------------------------------------

    def _expected(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What all else expects of every record, mean and standard deviation, and how far it lies off, (R,) each."""
        r, evidence = self.records, self.dataset.evidence
        place = np.cumsum([0, *(e.labels.n_records for e in evidence)])[r.part] + r.place
        score = self.labels.record_scores(*self.belief).numpy()[place]
        residual = self.labels.record_residuals(*self.belief).numpy()[place]
        given = np.concatenate([_given(e.labels) for e in evidence])[place]
        with np.errstate(over="ignore", invalid="ignore"):
            spread = np.exp(-score - 0.5 * np.square(residual) - 0.5 * LOG_2PI)
        expected = given - residual * spread
        for at, entry in enumerate(evidence):
            if isinstance(entry.labels, Censored):
                mine = r.part == at
                others = _joined([e for e in evidence if e is not entry], self.belief)
                expected[mine] = others.mean.numpy()[r.row[mine]]
                spread[mine] = others.variance.sqrt().numpy()[r.row[mine]]
        return expected, spread, residual

    def is_shown(self, at: int) -> bool:
        """All are: a number may be hard to believe where it is no mistake."""
        return True

    def about(self, at: int) -> dict[str, Any]:
        numbers = {"expected": self.expected, "spread": self.spread, "away": self.residual}
        return {name: float(values[at]) for name, values in numbers.items()}

    # -- how good -----------------------------------------------------------------------------------------------------

    def evaluation(self, features: np.ndarray | None, *, folds: int, seed: int) -> dict[str, Any] | None:
        """Errors, scores and intervals on rows whose value is given; None with fewer than two of them.

        Args:
            features: (N, D), learnt without labels, for a baseline; None where labels had a part in them.
            folds: how often rows were held out.
            seed: of the bootstrap and of the folds of the baseline.
        """
        rows = (~np.isnan(self.values) & self.held_out).nonzero()[0]
        if len(rows) < 2:
            return None
        truth, noise = self.values[rows], self.noise[rows]
        others = [e for e in self.dataset.evidence if not isinstance(e.labels, Value)]
        drawn = _Bootstrap(truth, seed)

        def entry(key: str, name: str, mean: Any, variance: Any, *, ours: bool = False) -> dict[str, Any]:
            m, v = (np.asarray(t, dtype=np.float64) for t in (mean, variance))
            return drawn.entry(key, name, m, np.sqrt(v + np.square(noise)), ours=ours)

        entries = []
        if others:
            entries.append(
                entry(
                    "posterior", "features and other labels", *self._at(_joined(others, self.belief), rows), ours=True
                )
            )
        by_features = entry("features", "features alone", *self._at(self.belief, rows), ours=True)
        sd = np.sqrt(self.sd[rows] ** 2 + np.square(noise))
        away = np.abs(truth - self.predicted[rows]) / sd
        half = np.random.default_rng(seed).permutation(len(rows)) % 2 == 0
        by_features["coverage"] = [_covered(level, *_conformal(level, away, half), sd) for level in LEVELS]
        entries.append(by_features)
        ridge = None if features is None else _ridge(features, self.values, rows, self.dataset.groups, seed)
        if ridge is not None:
            entries.append(entry("exact_only", f"ridge regression on {len(rows)} values", *ridge))
        if len(others) > 1:
            entries.append(entry("labels", "other labels, no features", *self._at(_alone(others), rows)))
        for evidence in others:
            if evidence.rows[rows].any():
                said = _alone([evidence])
                entries.append(
                    entry(f"labels:{evidence.name}", f"{evidence.name} ({evidence.kind}) alone", *self._at(said, rows))
                )
        n = len(truth)
        others_mean = (truth.sum() - truth) / (n - 1)
        entries.append(
            entry(
                "mean",
                "mean of the labels",
                others_mean,
                np.full(n, max(float(truth.var()), 1e-300)) - np.square(noise),
            )
        )
        return {
            **evaluated(n, folds, entries),
            "calibration": [_point(level, *_conformal(level, away, half)) for level in CURVE],
        }

    def _at(self, belief: Belief, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return belief.mean.numpy()[rows], belief.variance.numpy()[rows]

    def log_likelihoods(self) -> tuple[torch.Tensor, torch.Tensor]:
        location, scale = self.labels.location_scale()
        like = torch.zeros_like(self.belief.mean)
        one = self.labels.infer(like + location, like + scale**2)[0]
        return self.labels.infer(*self.belief)[0], one

    # -- what the labels say of each other ----------------------------------------------------------------------------

    def agreement(self) -> list[dict[str, Any]]:
        """How closely every two kinds that give numbers for the same rows agree."""
        guesses = [(e, e.labels.rough().numpy()) for e in self.dataset.evidence if not isinstance(e.labels, Censored)]
        out = []
        for (one, a), (two, b) in combinations(guesses, 2):
            both = ~np.isnan(a) & ~np.isnan(b)
            n = int(both.sum())
            if n < 3:
                continue
            apart = b[both] - a[both]
            varies = a[both].std() > 0 and b[both].std() > 0
            out.append(
                {
                    "first": one.name,
                    "second": two.name,
                    "rows": n,
                    "correlation": float(np.corrcoef(a[both], b[both])[0, 1]) if varies else None,
                    "difference": float(apart.mean()),
                    "rms": float(np.sqrt(np.mean(np.square(apart)))),
                }
            )
        return out

    def sources(self) -> list[dict[str, Any]]:
        """Annotators and label columns: how many labels, how many look wrong, and the bias and spread of annotators."""
        r = self.records
        out = []
        for at, evidence in enumerate(self.dataset.evidence):
            mine = r.part == at
            of_sets = isinstance(evidence.labels, AggregateValue)
            found = [evidence.name] if of_sets else list(dict.fromkeys(r.source[mine].tolist()))
            for name in found:
                chosen = mine if of_sets else mine & (r.source == name)
                out.append({**self.source(chosen, str(name), at), **_reading(evidence.labels, str(name))})
        return out


def _reading(labels: RealLabels, name: str) -> dict[str, Any]:
    """How an annotator reads the number: bias with its interval, spread, and slope where annotators have one."""
    if not isinstance(labels, Ratings):
        return dict.fromkeys(("bias", "interval", "spread", "slope"))
    channel = labels.channel
    at = list(labels.annotator_names or ()).index(name)
    bias, variance = float(channel.bias[at]), float(channel.variance[at])
    doubt = 1.96 / np.sqrt(float(channel.count[at]) / variance + 1 / float(channel.bias_variance))
    return {
        "bias": bias,
        "interval": [bias - doubt, bias + doubt],
        "spread": float(np.sqrt(variance)),
        "slope": float(channel.slope[at]) if channel.with_slope else None,
    }


class _Bootstrap:
    """Scores of predictions of the same values, with intervals from the same draws of rows."""

    def __init__(self, truth: np.ndarray, seed: int):
        self.truth, self.seed = truth, seed

    def entry(self, key: str, name: str, mean: np.ndarray, sd: np.ndarray, *, ours: bool) -> dict[str, Any]:
        """One line of the evaluation."""
        error = self.truth - mean
        safe = np.maximum(sd, 1e-12 * max(float(np.abs(self.truth).max()), 1e-300))
        losses = np.stack(
            [
                np.square(error),
                np.abs(error),
                crps_scores(mean, safe, self.truth),
                log_densities(mean, safe, self.truth),
                self.truth,
                self.truth**2,
            ],
            axis=1,
        )
        # about the middle, so that digits are not lost
        losses[:, 4] -= self.truth.mean()
        losses[:, 5] = np.square(losses[:, 4])
        point, drawn = _scores(losses.mean(axis=0)[None]), _scores(self._means(losses))
        low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
        out: dict[str, Any] = {"key": key, "name": name, "ours": ours, "rows": len(error)}
        for at, score in enumerate(("rmse", "mae", "r2", "crps", "log_density")):
            out[score] = float(point[0, at])
            out[f"{score}_interval"] = [float(low[at]), float(high[at])]
        away = np.abs(error) / safe
        out["coverage"] = [_covered(level, *_normal(level, away), safe) for level in LEVELS]
        return out

    def _means(self, losses: np.ndarray) -> np.ndarray:
        """Mean of every column over rows drawn with replacement, (draws, C)."""
        n = len(losses)
        draws = RESAMPLES if n <= MANY else RESAMPLES // 5
        random = np.random.default_rng(self.seed)
        at_once = max(1, CELLS // n)
        parts = []
        for start in range(0, draws, at_once):
            some = min(at_once, draws - start)
            cells = random.integers(0, n, (some, n)) + n * np.arange(some)[:, None]
            parts.append(np.bincount(cells.ravel(), minlength=some * n).reshape(some, n) @ losses / n)
        return np.concatenate(parts)


def _scores(means: np.ndarray) -> np.ndarray:
    """RMSE, mean absolute error, R^2, CRPS and log density (draws, 5) from means of the columns of losses."""
    square, absolute, crps, density, middle, square_of_truth = means.T
    total = square_of_truth - middle**2
    with np.errstate(divide="ignore", invalid="ignore"):
        r2 = np.where(total > 0, 1 - square / total, np.nan)
    return np.stack([np.sqrt(square), absolute, r2, crps, density], axis=1)


def _normal(level: float, away: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half width in standard deviations of the interval of a normal distribution, (n,), and what it holds."""
    width = np.full(len(away), half_width(np.zeros(0), level))
    return width, away <= width


def _conformal(level: float, away: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half width (n,) in standard deviations as predictions have it, each half of the rows by the other half."""
    from anygrain.learn.real import ENOUGH

    width = np.empty(len(away))
    for side in (True, False):
        rest = np.sort(away[half != side])
        width[half == side] = half_width(rest if len(away) >= ENOUGH else rest[:0], level)
    return width, away <= width


def _covered(level: float, width: np.ndarray, inside: np.ndarray, sd: np.ndarray) -> dict[str, Any]:
    return {**_point(level, width, inside), "width": float((2 * width * sd).mean())}


def _point(level: float, width: np.ndarray, inside: np.ndarray) -> dict[str, Any]:
    right, n = int(inside.sum()), len(inside)
    return {"level": level, "share": right / n, "interval": list(wilson_interval(right, n)), "rows": n}


def _joined(evidence: Sequence[NumberEvidence], belief: Belief) -> Belief:
    """What features and labels say of every row."""
    return RealAll(*(e.labels for e in evidence)).posterior(*belief) if evidence else belief


def _alone(evidence: Sequence[NumberEvidence]) -> Belief:
    """What labels say by themselves of every row: their channels are fitted anew, without features."""
    found = aggregate(RealAll(*(copy.deepcopy(e.labels) for e in evidence)))
    return Belief(found.mean, found.variance)


def _ridge(
    features: np.ndarray, values: np.ndarray, rows: np.ndarray, groups: np.ndarray | None, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Cross-fitted mean and variance (n,) of ridge regression on the values alone; None with too few of them."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold, KFold

    if len(rows) < 20:
        return None
    x, y = features[rows], values[rows]
    if groups is None:
        folds = KFold(5, shuffle=True, random_state=seed).split(x)
    elif len(np.unique(groups[rows])) < 5:
        return None
    else:
        folds = GroupKFold(5).split(x, groups=groups[rows])
    mean = np.empty(len(rows))
    for train, test in folds:
        mean[test] = RidgeCV(np.logspace(-3, 3, 13)).fit(x[train], y[train]).predict(x[test])
    return mean, np.full(len(rows), float(np.mean(np.square(y - mean))))


def _given(labels: RealLabels) -> np.ndarray:
    """The number that every record gives (R,), NaN where it gives none."""
    if isinstance(labels, Value | Ratings | AggregateValue):
        return np.asarray(labels.values.double().numpy())
    return np.full(labels.n_records, np.nan)
