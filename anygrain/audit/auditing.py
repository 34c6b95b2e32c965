"""The audit of labels and data: probabilities that did not see a row's own labels, and all that follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.audit.cleanlab_names import cleanlab_columns
from anygrain.audit.duplicates import Duplicates, find_duplicates
from anygrain.audit.judged import array
from anygrain.audit.judging import Judgement, as_labels, as_log_probs, judge_labels
from anygrain.audit.outliers import Outliers, find_outliers
from anygrain.audit.overlap import Overlap, class_overlap
from anygrain.audit.sources import fitted_crowds, needed_of
from anygrain.audit.suspicion import columns_of, frame
from anygrain.audit.value import held_out_value
from anygrain.labels import All, Crowd, Exact, LabelError, Labels, RealLabels, Rules, Tags
from anygrain.labels.real.all import RealAll
from anygrain.learn.started_channels import with_started_channels

#: a label looks wrong where it is more probably wrong than right
IN_DOUBT = 0.5
#: folds of the heads that judge rows which they have not seen
FOLDS = 5


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        labels: that were audited.
        judgement: of every record, see `Judgement`.
        log_probs: of the instances, by a model that did not see their labels, (N, K); None of numbers.
        held_out: bool (N,): whether that could be done for the instance.
        duplicates, outliers: of the data rows.
        overlap: of the classes; None of numbers and tags.
        influence, shapley: value of every row's label, (rows,), see `held_out_value`; None where a row has several
            instances, or is said nothing of.
        class_names: (K,), or None.
    """

    labels: Labels | RealLabels
    judgement: Judgement
    log_probs: np.ndarray | None
    held_out: np.ndarray
    duplicates: Duplicates
    outliers: Outliers
    overlap: Overlap | None
    influence: np.ndarray | None
    shapley: np.ndarray | None
    class_names: tuple[str, ...] | None

    # -- single records -----------------------------------------------------------------------------------------------

    @property
    def suspects(self) -> Any:
        """The frame of `anygrain.audit.suspects`: a row per record, in order."""
        return frame(columns_of(self.judgement))

    @property
    def prob_wrong(self) -> np.ndarray:
        """P(record is wrong), (R,)."""
        return self.judgement.joined("wrong")

    @property
    def looks_wrong(self) -> np.ndarray:
        """bool (R,): records that are more probably wrong than right."""
        return np.asarray(self.prob_wrong > IN_DOUBT)

    @property
    def share_wrong(self) -> float:
        """Expected share of wrong records among those that say something; what a check in CI compares to its limit."""
        said = self.said
        return float(self.prob_wrong[said].mean()) if bool(said.any()) else 0.0

    @property
    def said(self) -> np.ndarray:
        """bool (R,): records that are not missing."""
        return self.judgement.said

    def records(self) -> dict[str, np.ndarray]:
        """The suspects with what they are about, columns (R,).

        Beside those of `suspects`: `kind` and `source` (the annotator, rule or tag, "" elsewhere), data `row` (-1 of
        sets), `probability` of what is proposed, `looks_wrong`.
        """
        parts = _parts(self.labels)
        at = self.judgement.part
        kinds = np.array([type(p).__name__ for p in parts], dtype=object)
        rows = array(self.labels.rows)
        instance = self.judgement.instance
        columns = columns_of(self.judgement)
        return {
            "record": columns["record"],
            "kind": kinds[at],
            "source": np.concatenate([_sources(p) for p in parts]),
            "row": np.where(instance >= 0, rows[instance.clip(0)], -1),
            "given": columns["given"],
            "proposed": columns["proposed"],
            "probability": self.judgement.joined("probability"),
            "prob_wrong": columns["prob_wrong"],
            "nats_lost": columns["nats_lost"],
            "looks_wrong": self.looks_wrong,
        }

    # -- classes ------------------------------------------------------------------------------------------------------

    @property
    def posterior(self) -> np.ndarray | None:
        """P(class | features, all records, their errors), (N, K): the likely true class with its probability."""
        return self.judgement.posterior

    @property
    def class_prior(self) -> np.ndarray | None:
        """Share of every class among the instances, (K,)."""
        return None if self.posterior is None else np.asarray(self.posterior.mean(axis=0))

    @property
    def transition(self) -> np.ndarray | None:
        """Estimated P(label | true class) of the first kind whose records name a class, (K, K); by tag (L, 2, 2)."""
        return None if self.judgement.noise is None else self.judgement.parts[self.judgement.noise[0]].transition

    @property
    def errors(self) -> dict[str, float]:
        """Expected share of wrong records of every kind."""
        kinds = [type(p).__name__ for p in _parts(self.labels)]
        names = [k if kinds.count(k) == 1 else f"{k} {at + 1}" for at, k in enumerate(kinds)]
        if len(names) != len(self.judgement.parts):
            return {"all": self.judgement.parts[0].error}
        return {name: part.error for name, part in zip(names, self.judgement.parts, strict=True)}

    # -- data rows ----------------------------------------------------------------------------------------------------

    def rows(self) -> dict[str, np.ndarray]:
        """What is known of every data row, columns (rows,).

        `class` and `probability` (where a row is one instance), `prob_wrong` (of its most suspect record), `outlier`
        (probability), `duplicate_group`, `conflict` (with a duplicate), `influence`, `shapley`, `votes_needed` (of
        voted rows).
        """
        n = self.labels.n_rows
        out: dict[str, np.ndarray] = {"row": np.arange(n)}
        if self.posterior is not None and self.by_row is not None:
            best = self.posterior[self.by_row]
            names = (
                np.array(self.class_names, dtype=object) if self.class_names is not None else np.arange(best.shape[1])
            )
            out["class"], out["probability"] = names[best.argmax(axis=1)], best.max(axis=1)
        worst = np.zeros(n)
        columns = self.records()
        about = columns["row"] >= 0
        np.maximum.at(worst, columns["row"][about], columns["prob_wrong"][about])
        out["prob_wrong"] = worst
        out["outlier"] = self.outliers.probability
        out["duplicate_group"] = self.duplicates.group
        conflict = np.zeros(n, dtype=bool)
        conflict[self.duplicates.first[self.duplicates.conflict]] = True
        conflict[self.duplicates.second[self.duplicates.conflict]] = True
        out["conflict"] = conflict
        if self.influence is not None and self.shapley is not None:
            out["influence"], out["shapley"] = self.influence, self.shapley
        if self.votes_needed is not None and self.by_row is not None:
            out["votes_needed"] = self.votes_needed[self.by_row]
        return out

    @cached_property
    def votes_needed(self) -> np.ndarray | None:
        """Votes of anybody until an instance is 95 % sure, expected number, (N,); None where there is no `Crowd`.

        Of several crowds, the one that needs fewest votes.
        """
        found: np.ndarray | None = None
        for _, own, rest in fitted_crowds(self.labels, self.log_probs):
            needed = needed_of(own, rest)
            if needed is not None:
                found = needed.expected if found is None else np.minimum(found, needed.expected)
        return found

    @property
    def by_row(self) -> np.ndarray | None:
        """Instance of every data row, (rows,); None where rows have none or several."""
        return _one_per_row(self.labels)

    def cleanlab(self) -> dict[str, np.ndarray]:
        """`rows` under the column names of cleanlab and its Datalab, see `cleanlab_columns`."""
        return cleanlab_columns(self)

    # -- files --------------------------------------------------------------------------------------------------------

    def to_parquet(self, folder: str | Path, *, names: str = "anygrain") -> list[Path]:
        """Write tables into a folder: audit.parquet (`records`), audit_rows, audit_duplicates and audit_overlap.

        Args:
            folder: made where it is not there.
            names: "cleanlab": audit_rows.parquet under its column names.

        Returns:
            the files.

        Raises:
            LabelError: other names.
        """
        if names not in ("anygrain", "cleanlab"):
            raise LabelError(f'names is "{names}"; expected "anygrain" or "cleanlab"')
        import pyarrow
        import pyarrow.parquet

        d = self.duplicates
        tables: dict[str, dict[str, np.ndarray]] = {
            "audit": self.records(),
            "audit_rows": self.rows() if names == "anygrain" else self.cleanlab(),
            "audit_duplicates": {
                "first": d.first,
                "second": d.second,
                "exact": d.exact,
                "distance": d.distance,
                "conflict": d.conflict,
            },
        }
        if self.overlap is not None:
            o = self.overlap
            known = self.class_names
            words = (lambda c: c) if known is None else (lambda c: np.array(known, dtype=object)[c])
            tables["audit_overlap"] = {
                "first": words(o.first),
                "second": words(o.second),
                "overlap": o.overlap,
                "confused": o.confused,
                "noise": o.noise,
            }
        out = Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        files = []
        for name, columns in tables.items():
            path = out / f"{name}.parquet"
            pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd")
            files.append(path)
        return files


def audit(
    model: Any, data: Any, labels: Any = None, *, features: np.ndarray | None = None, seed: int = 0, value: bool = True
) -> Audit:
    """Audit labels and data.

    Args:
        model: log-probabilities of a model that did not see the row's own labels, as `suspects` takes them; a fitted
            `Learner`, whose held-out ones are taken where they are of these labels; an unfitted one, which is fitted;
            None: a `Learner` with five folds. Folds respect bags and groups of the labels.
        data: rows as a `Learner` takes them.
        labels: `Labels` of any kind, `RealLabels`, or a vector of classes; None: those of the fitted Learner.
        features: of the rows, (rows, D), where probabilities are given; None: by an encoder that suits the data.
        seed: of the Learner and of the halves that values are measured on.
        value: whether `influence` and `shapley` are computed.

    Raises:
        LabelError: tables that do not fit, no labels.
    """
    from sklearn.base import BaseEstimator

    if labels is None:
        labels = getattr(model, "labels_", None)
        if labels is None:
            raise LabelError("labels are missing: give Labels, or a Learner that was fitted to some")
    if model is None or isinstance(model, BaseEstimator):
        read, log_probs, held_out, features = _by_learner(model, data, labels, seed)
    else:
        shape: tuple[int, ...] = tuple(getattr(model, "shape", ()))
        read = as_labels(labels, shape[1] if len(shape) == 2 else None)
        log_probs, held_out = model, np.ones(read.n_instances, dtype=bool)
        features = _features(data, seed) if features is None else features
    if len(features) != read.n_rows:
        raise LabelError(f"the data have {len(features)} rows and the labels {read.n_rows}; expected the same rows")
    found = judge_labels(log_probs, read)
    evidence = None if isinstance(read, RealLabels) else _alone(read)
    one = _one_per_row(read)
    by_row = None if evidence is None else _by_row(read, evidence, one)
    influence = shapley = None
    if value and evidence is not None and one is not None and not isinstance(read, Tags):
        order = torch.from_numpy(one)
        believed = torch.from_numpy(np.asarray(found.posterior))[order]
        influence, shapley = held_out_value(features, evidence[order], believed, array(read.groups()), seed=seed)
    known: np.ndarray | None = None
    between: Overlap | None = None
    names = None
    if isinstance(read, Labels):
        table = as_log_probs(log_probs, read.to("cpu"))
        known, names = array(table), read.class_names
        if read.n_classes > 1 and not any(isinstance(p, Tags) for p in _parts(read)):
            between = _overlap(found, table)
    return Audit(
        labels=read,
        judgement=found,
        log_probs=known,
        held_out=held_out,
        duplicates=find_duplicates(data, features, by_row),
        outliers=find_outliers(features),
        overlap=between,
        influence=influence,
        shapley=shapley,
        class_names=names,
    )


def _overlap(found: Judgement, log_probs: Tensor) -> Overlap:
    """Overlap of the classes once noise is taken out, where labels tell what it is."""
    if found.noise is None:
        return class_overlap(log_probs)
    at, noise = found.noise
    transition = found.parts[at].transition
    if transition is None or transition.shape != (log_probs.shape[1],) * 2:  # of nodes, not of classes
        return class_overlap(log_probs)
    return class_overlap(noise.sharpness.logits(log_probs).log_softmax(dim=1), transition)


def _by_learner(model: Any, data: Any, labels: Any, seed: int) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """Labels, their log-probabilities by heads that did not see them, where that was done, and features of the rows."""
    from sklearn.base import clone

    from anygrain.encoders.trainable import TrainableEncoder
    from anygrain.learn import Learner

    known = hasattr(model, "held_out_log_probs_") or hasattr(model, "held_out_mean_")
    own = known and (labels is model.labels_ or labels is model._given)
    if not own:
        model = Learner(seed=seed, folds=FOLDS) if model is None else clone(model)
        if isinstance(model.encoder, TrainableEncoder):
            model.set_params(cross_fit=True)
        model.fit(data, labels)
        labels = model._given
    features = model.transform(data)
    if model.space_ == "real":
        found: Any = (model.held_out_mean_, model.held_out_variance_)
        return labels, found, np.asarray(getattr(model, "held_out_", np.ones(len(found[0]), dtype=bool))), features
    if labels.class_names is None and isinstance(labels, Exact) and not isinstance(labels, Tags) and model.named_:
        labels = Exact(labels.labels, labels.n_classes, class_names=[str(c) for c in model.classes_.tolist()])
    return labels, model.held_out_log_probs_, np.asarray(model.held_out_), features


def _features(data: Any, seed: int) -> np.ndarray:
    """Features (rows, D) of data by the encoder that suits them."""
    from anygrain.encoders import encoder_for

    encoder = encoder_for(data)
    encoder.learn(data, seed=seed)
    with torch.no_grad():
        return array(encoder(data))


def _alone(labels: Labels) -> Tensor:
    """What labels say without features, (N, K), as a posterior under equal priors."""
    started = with_started_channels(labels.to("cpu"))
    even = torch.full((labels.n_instances, labels.n_classes), -float(np.log(labels.n_classes)), dtype=torch.float64)
    return started.posterior(even)


def _one_per_row(labels: Labels | RealLabels) -> np.ndarray | None:
    """Instance of every data row, (rows,); None where rows have none or several."""
    rows = array(labels.rows)
    if len(rows) != labels.n_rows or len(np.unique(rows)) != labels.n_rows:
        return None
    return np.argsort(rows, kind="stable")


def _by_row(labels: Labels, evidence: Tensor, one: np.ndarray | None) -> np.ndarray | None:
    """Evidence by data row, (rows, K), or (rows, L, K) where all rows have L instances; None elsewhere."""
    table = array(evidence)
    if one is not None:
        return np.asarray(table[one])
    count = np.bincount(array(labels.rows), minlength=labels.n_rows)
    if not len(count) or count.min() != count.max():
        return None
    return np.asarray(table[np.argsort(array(labels.rows), kind="stable")].reshape(labels.n_rows, int(count[0]), -1))


def _parts(labels: Labels | RealLabels) -> Sequence[Any]:
    return labels.parts if isinstance(labels, All | RealAll) else [labels]


def _sources(part: Any) -> np.ndarray:
    """Who gave every record of a part, (R,): the annotator, rule or tag; "" where there is only one source."""
    if isinstance(part, Crowd):
        index, names, count = array(part.annotators), part.annotator_names, part.n_annotators
    elif isinstance(part, Rules):
        index, names, count = array(part.rules), part.rule_names, part.n_rules
    elif isinstance(part, Tags):
        index, names, count = array(part.tag), part.tag_names, part.n_tags
    else:
        return np.full(part.n_records, "", dtype=object)
    words = [str(s) for s in range(count)] if names is None else list(names)
    return np.asarray(np.array([*words, ""], dtype=object)[index])
