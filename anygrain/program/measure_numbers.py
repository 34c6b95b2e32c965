"""What a fit of a number is worth: all that metrics.json and labels.parquet hold, from beliefs about unseen rows."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch

from anygrain.data.error import counted
from anygrain.data.evidence import NumberEvidence
from anygrain.data.number_dataset import NumberDataset
from anygrain.labels import AggregateValue, Belief, Censored, Ratings, RealAll, RealLabels, Value, aggregate
from anygrain.labels.real import RealInstanceLabels
from anygrain.learn.number import half_width
from anygrain.metrics import wilson_interval
from anygrain.program.careless import careless_share
from anygrain.program.records import Records, map_columns

LEVELS = (0.5, 0.8, 0.9, 0.95)
CURVE = tuple(round(0.05 * step, 2) for step in range(1, 20))
RESAMPLES, MANY = 1000, 20_000  # draws of the bootstrap; a fifth of them above so many rows
CELLS = 2**24
FREEDOMS = (3.0, 5.0, 10.0, 30.0, np.inf)  # of Student's t, how heavy the tails of right labels may be
NARROWED = (0.5, 0.7, 1.0)  # by how much their spread may be smaller than stated
LOG_2PI = float(np.log(2 * np.pi))


@dataclass(kw_only=True)
class NumberRecords(Records):
    """Every label that was given, (R,) each: see `Records`.

    Attributes:
        residual: how far it lies from what all else predicts of it, in standard deviations; NaN where that is sure.
        expected, spread: what all else predicts of it, mean and standard deviation.
    """

    residual: np.ndarray
    expected: np.ndarray
    spread: np.ndarray


class MeasuredNumbers:
    """The numbers of one fit.

    Args:
        dataset: the data; the channels of its labels are those of the fit.
        mean, variance: belief about every row by heads that saw neither the row nor its labels, both (N,).
        held_out: bool (N,): where that could be done.
    """

    def __init__(self, dataset: NumberDataset, mean: Any, variance: Any, held_out: np.ndarray):
        self.dataset, self.held_out = dataset, held_out
        self.belief = Belief(torch.as_tensor(mean).double(), torch.as_tensor(variance).double())
        self.labels = dataset.labels
        self.posterior = _joined(dataset.evidence, self.belief)
        self.values, self.noise = dataset.values()
        self.records = self._records()

    @property
    def predicted(self) -> np.ndarray:
        mean: np.ndarray = self.belief.mean.numpy()
        return mean

    @property
    def sd(self) -> np.ndarray:
        sd: np.ndarray = self.belief.variance.sqrt().numpy()
        return sd

    # -- single labels ------------------------------------------------------------------------------------------------

    def _records(self) -> NumberRecords:
        scores = self.labels.record_scores(*self.belief).numpy()
        residuals = self.labels.record_residuals(*self.belief).numpy()
        out: list[dict[str, np.ndarray]] = []
        first = 0
        for at, evidence in enumerate(self.dataset.evidence):
            here = slice(first, first + evidence.labels.n_records)
            first = here.stop
            said = (evidence.record_value != "").nonzero()[0]
            score, residual = scores[here][said], residuals[here][said]
            row = evidence.record_row[said].astype(np.int64)
            given = _given(evidence.labels)[said]
            if isinstance(evidence.labels, Censored):
                others = _joined([e for e in self.dataset.evidence if e is not evidence], self.belief)
                expected, spread = others.mean.numpy()[row], others.variance.sqrt().numpy()[row]
                chance = _chance_of_range(evidence.labels, said)
            else:
                with np.errstate(over="ignore", invalid="ignore"):
                    spread = np.exp(-score - 0.5 * np.square(residual) - 0.5 * LOG_2PI)
                expected = given - residual * spread
                chance = _chance(given, spread)
            _, who = np.unique(evidence.record_source[said].astype(str), return_inverse=True)
            if isinstance(evidence.labels, AggregateValue):
                who = np.zeros_like(who)  # every bag says one thing: together they are one source
            wrong = _wrong(score, residual, chance, who, is_range=isinstance(evidence.labels, Censored))
            out.append(
                {
                    "part": np.full(len(said), at),
                    "row": row,
                    "source": evidence.record_source[said],
                    "value": evidence.record_value[said],
                    "residual": residual,
                    "expected": expected,
                    "spread": spread,
                    "wrong": wrong,
                }
            )
        return NumberRecords(**{name: np.concatenate([part[name] for part in out]) for name in out[0]})

    # -- tables of rows -----------------------------------------------------------------------------------------------

    def table(self, places: np.ndarray | None) -> dict[str, Any]:
        """The columns of labels.parquet."""
        import pyarrow as pa

        n = len(self.dataset)
        own = [e for e in self.dataset.evidence if isinstance(e.labels, RealInstanceLabels)]
        evidence_of = np.full(n, np.nan)
        if own:
            evidence_of = RealAll(*(e.labels for e in own)).infer(*self.belief)[0].numpy()
        said = np.any([np.zeros(n, dtype=bool), *(e.rows for e in own)], axis=0)
        return {
            "row": self.dataset.ids.tolist(),
            "mean": self.posterior.mean.numpy(),
            "sd": self.posterior.variance.sqrt().numpy(),
            "predicted": self.predicted,
            "predicted_sd": self.sd,
            "evidence": pa.array(evidence_of, pa.float32(), mask=~said),
            **self.records.suspects_by_row(n),
            "value": pa.array(self.values, pa.float64(), from_pandas=True),
            "given": self.records.said(n),
            "text": self.dataset.snippets().tolist(),
            **map_columns(places, n),
        }

    def suspects(self) -> int:
        """Number of labels that look wrong."""
        return int(self.records.looks_wrong.sum())

    def worst(self, shown: int = 20) -> list[dict[str, Any]]:
        """The labels that are hardest to believe, by everything else."""
        r = self.records
        text = self.dataset.snippets()
        surprise = np.where(np.isnan(r.residual), np.inf, np.abs(r.residual))
        out = []
        for at in np.lexsort((-surprise, -r.suspect))[:shown].tolist():
            row = int(r.row[at])
            of_set = row < 0
            evidence = self.dataset.evidence[int(r.part[at])]
            out.append(
                {
                    "row": str(r.source[at] if of_set else self.dataset.ids[row]),
                    "source": evidence.name if of_set else str(r.source[at]),
                    "given": str(r.value[at]),
                    "expected": float(r.expected[at]),
                    "spread": float(r.spread[at]),
                    "away": float(r.residual[at]),
                    "wrong": float(r.wrong[at]),
                    "suspect": float(r.suspect[at]),
                    "text": self._members(evidence, str(r.source[at])) if of_set else str(text[row]),
                }
            )
        return out

    def _members(self, evidence: NumberEvidence, name: str) -> str:
        """What stands in the place of a text for a bag."""
        at = int((evidence.record_source == name).nonzero()[0][0])
        return counted(int(evidence.labels.bags[0].sizes[at]), "row")

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
            "rows": n,
            "folds": folds,
            "method": f"each row was scored by models that were not trained on it ({folds} parts)",
            "entries": entries,
            "calibration": [_point(level, *_conformal(level, away, half)) for level in CURVE],
        }

    def _at(self, belief: Belief, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return belief.mean.numpy()[rows], belief.variance.numpy()[rows]

    def held_out_evidence(self) -> dict[str, Any]:
        """Mean log-likelihood of the labels of a row under the features, and under one normal distribution of all."""
        location, scale = self.labels.location_scale()
        like = torch.zeros_like(self.belief.mean)
        value = self.labels.infer(*self.belief)[0]
        chance = self.labels.infer(like + location, like + scale**2)[0]
        rows = max(int(self.dataset.labelled.sum()), 1)
        return {
            "evidence_per_row": float(value.sum()) / rows,
            "chance": float(chance.sum()) / rows,
            "rows": rows,
        }

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
            labels = evidence.labels
            channel = labels.channel if isinstance(labels, Ratings) else None
            names = list(labels.annotator_names or ()) if isinstance(labels, Ratings) else []
            of_sets = isinstance(labels, AggregateValue)
            found = [evidence.name] if of_sets else list(dict.fromkeys(r.source[mine].tolist()))
            for source in found:
                chosen = mine if of_sets else mine & (r.source == source)
                entry: dict[str, Any] = {
                    "name": str(source),
                    "part": evidence.name,
                    "kind": evidence.kind,
                    "labels": int(chosen.sum()),
                    "suspects": int(r.looks_wrong[chosen].sum()),
                    "bias": None,
                    "interval": None,
                    "spread": None,
                    "slope": None,
                }
                if channel is not None:
                    w = names.index(str(source))
                    bias, variance = float(channel.bias[w]), float(channel.variance[w])
                    doubt = 1.96 / np.sqrt(float(channel.count[w]) / variance + 1 / float(channel.bias_variance))
                    entry |= {
                        "bias": bias,
                        "interval": [bias - doubt, bias + doubt],
                        "spread": float(np.sqrt(variance)),
                    }
                    entry["slope"] = float(channel.slope[w]) if channel.with_slope else None
                out.append(entry)
        return out


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
                crps_of_rows(error, safe),
                _log_densities(error, safe),
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


def crps_of_rows(error: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score of normal distributions, (n,), from truth - mean and sd."""
    from scipy.special import ndtr

    z = error / sd
    density = np.exp(-0.5 * np.square(z)) / np.sqrt(2 * np.pi)
    return np.asarray(sd * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi)))


def _log_densities(error: np.ndarray, sd: np.ndarray) -> np.ndarray:
    return np.asarray(-0.5 * (np.square(error / sd) + LOG_2PI) - np.log(sd))


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


# -- labels that look wrong -------------------------------------------------------------------------------------------


def _given(labels: RealLabels) -> np.ndarray:
    """The number that every record gives (R,), NaN where it gives none."""
    if isinstance(labels, Value | Ratings | AggregateValue):
        return np.asarray(labels.values.double().numpy())
    return np.full(labels.n_records, np.nan)


def _chance(given: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Density (R,) of a number that is given without regard to the truth, by the quartiles of all numbers.

    Cauchy's, and never as narrow as what everything else predicts of a label: else labels would look wrong because
    they are where most labels are.
    """
    if not len(given):
        return np.ones(0)
    low, middle, high = np.quantile(given, [0.25, 0.5, 0.75])
    known = spread[np.isfinite(spread)]
    scale = max((high - low) / 2, 2 * float(np.median(known)) if len(known) else 0.0) or float(np.std(given)) or 1.0
    return np.asarray(1 / (np.pi * scale * (1 + np.square((given - middle) / scale))))


def _chance_of_range(labels: Censored, said: np.ndarray) -> np.ndarray:
    """The same for the probability of ranges."""
    middle, sd = labels.location_scale()
    ends = [np.arctan((t.double().numpy()[said] - middle) / (0.6745 * sd)) / np.pi for t in (labels.low, labels.high)]
    return np.asarray((ends[1] - ends[0]).clip(1e-12))


def _wrong(
    score: np.ndarray, residual: np.ndarray, chance: np.ndarray, who: np.ndarray, *, is_range: bool
) -> np.ndarray:
    r"""P(label was given without regard to the truth | everything), (R,).

    .. math:: P(\text{wrong}) = e / ((1 - e) f / c + e)

    with f the density of the label by everything else, c that of a number given anyhow, and e how often its source
    gives one, estimated by EM (`careless_share`). Where everything else predicts a normal distribution, right labels
    may have heavier tails than that, and be nearer than stated: Student's t, by the likelihood of all labels.
    """
    counts = np.ones(len(score), dtype=bool)
    if is_range:
        right = np.exp(score.clip(max=0.0))
        careless, _ = careless_share(right / chance, who, counts)
        return np.asarray(careless * (1 - right))
    log_chance = np.log(chance)
    known = ~np.isnan(residual)
    sample = np.flatnonzero(known)[:: max(1, int(known.sum()) // 20_000)]
    best, log_ratio = -np.inf, score - log_chance
    for freedom in FREEDOMS:
        for narrow in NARROWED:
            found = score - log_chance + np.where(known, _tails(np.nan_to_num(residual), freedom, narrow), 0.0)
            ratio = np.exp(found.clip(-700, 700))
            _, error = careless_share(ratio[sample], who[sample], counts[sample], rounds=30)
            e = error[who[sample]]
            value = float(np.logaddexp(np.log1p(-e) + found[sample], np.log(e)).sum())
            if value > best + 1e-9:
                best, log_ratio = value, found
    careless, _ = careless_share(np.exp(log_ratio.clip(-700, 700)), who, counts)
    return careless


def _tails(residual: np.ndarray, freedom: float, narrow: float) -> np.ndarray:
    """log of Student's t, narrowed, over the standard normal density, (R,)."""
    from scipy.stats import norm, t

    shape = norm if np.isinf(freedom) else t(freedom)
    return np.asarray(shape.logpdf(residual / narrow) - np.log(narrow) - norm.logpdf(residual))
