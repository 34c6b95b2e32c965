"""The verb audit: which labels look wrong, and what else is odd about labels and data."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anygrain.data.checks import warnings_of_labels
from anygrain.data.config import Config, load_config
from anygrain.data.dataset import Dataset, Given, model_input, row_ids
from anygrain.data.error import InputError, counted, did_you_mean, quoted, some
from anygrain.data.pictures import image_cells, thumbnail
from anygrain.data.table import read_table, write_table
from anygrain.program.fit import versions
from anygrain.program.held_out import check_same_rows, held_out_of, said_of
from anygrain.program.look import look
from anygrain.program.of_classes import adopt_prior, adopt_prior_of
from anygrain.program.predict import fitted_config
from anygrain.program.records import Records, records_of
from anygrain.program.screen import Screen, seconds
from anygrain.program.setup import dimensions, refusal
from anygrain.program.space import Space, space_of
from anygrain.program.threads import threads_for

if TYPE_CHECKING:
    from anygrain.audit import Annotators, Audit, JudgedRules
    from anygrain.audit.sources import JudgedCrowd

FORMAT = "anygrain-audit-1"
NAMES = ("anygrain", "cleanlab")
FILES = (
    "audit.json", "audit.html", "audit.parquet", "audit_rows.parquet", "audit_duplicates.parquet",
    "audit_overlap.parquet", "annotators.parquet", "agreement.parquet", "rules.parquet",
)  # fmt: skip
WORST, SHOWN = 30, 20  # records, and rows of other tables, that the page shows
PAIRED = 300  # annotators up to which every two are compared
SURE = 0.95  # an item whose class is as probable needs no more votes


def audit(
    target: Path | None,
    out: Path | None,
    screen: Screen,
    *,
    command: str,
    settings: list[str],
    probs: Path | None = None,
    labels: Path | None = None,
    names: str = "anygrain",
    fail_above: float | None = None,
    overwrite: bool = False,
) -> bool:
    """Audit the labels of a run, or of a configuration; whether the share of wrong labels is within its limit.

    Args:
        target: a run folder, whose held-out probabilities are taken; or a configuration, which is fitted first.
        out: folder to write, RUN/audit of a run when not given.
        probs: a table of somebody's probabilities, for the labels of a configuration: columns are named after the
            classes (or the tags; "mean" and "sd" of a number), and rows come in order or with the row ids.
        labels: the configuration that the probabilities are for.
        names: "anygrain", or "cleanlab" for column names that its notebooks read.
        fail_above: largest expected share of wrong labels that is accepted.
        settings, overwrite: as in fit.

    Raises:
        InputError: bad input; nothing has been written.
    """
    began = time.monotonic()
    if names not in NAMES:
        raise InputError(f"--names {names} is not known.{did_you_mean(names, NAMES)} Expected one of {some(NAMES)}")
    if fail_above is not None and not 0 <= fail_above <= 1:
        raise InputError(f"--fail-above {fail_above:g} is no share. Expected a number from 0 to 1, such as 0.05")
    if (probs is None) != (labels is None):
        raise InputError("--probs and --labels go together: --probs probs.parquet --labels CONFIG")
    source = labels if labels is not None else target
    if source is None or (labels is not None and target is not None):
        raise InputError(
            "Expected a run folder or a configuration: anygrain audit RUN, or --probs FILE --labels CONFIG"
        )
    folder = _folder(source, out, overwrite=overwrite)
    from anygrain.audit import audit as audit_of
    from anygrain.audit.sources import judge_all_rules, judge_crowds

    config, space, dataset, log_probs, features, notes = _given(source, probs, settings, screen)
    data = model_input(dataset.table, dataset.columns, dataset.ids)
    with threads_for(float(len(dataset)) * space.width(dataset) * dimensions(dataset, config)):
        found = audit_of(log_probs, data, dataset.labels, features=features, seed=config.learn.seed)
        crowds = judge_crowds(found.labels, found.log_probs, confidence=SURE)
        rules = judge_all_rules(found.labels, found.posterior)
    records = columns_of(records_of(found.judgement, dataset), dataset)
    folder.mkdir(parents=True, exist_ok=True)
    _write(found, crowds, rules, records, dataset, folder, names)
    result = {
        "format": FORMAT,
        "name": source.stem if source.is_file() else source.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "seconds": time.monotonic() - began,
        "versions": versions(),
        "source": str(config.data.source),
        "space": space.name,
        "rows": len(dataset),
        "fail_above": fail_above,
        **summary(found, crowds, rules, records, dataset),
        "notes": [*notes, *dataset.notes, *(warnings_of_labels(dataset) if isinstance(dataset, Dataset) else [])],
    }
    (folder / "audit.json").write_text(json.dumps(_plain(result), indent=1) + "\n", encoding="utf-8")
    _page(result, folder, dataset, screen)
    within = fail_above is None or result["share_wrong"] <= fail_above
    _say(result, folder, screen, within=within)
    return within


# -- what is given ----------------------------------------------------------------------------------------------------


def _folder(source: Path, out: Path | None, *, overwrite: bool) -> Path:
    """The folder to write, checked."""
    if out is None and not source.is_dir():
        raise InputError(
            f"{source} is no run folder, so --out must say where to write: anygrain audit {source} --out audit"
        )
    folder = out if out is not None else source / "audit"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file. Expected a folder to write, such as --out audit")
    there = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    odd = [name for name in there if name not in FILES]
    if odd:
        raise InputError(f"{folder} holds {odd[0]}, which is no part of an audit. Choose another --out")
    if there and not overwrite:
        raise InputError(f"{folder} holds an audit already. Choose another --out, or add --overwrite")
    return folder


def _given(
    source: Path, probs: Path | None, settings: list[str], screen: Screen
) -> tuple[Config, Space[Any], Given[Any], Any, np.ndarray | None, list[str]]:
    """Configuration, space, data, what a model that did not see the labels says, features, and notes."""
    from anygrain.labels import LabelError
    from anygrain.learn import Learner

    notes: list[str] = []
    if source.is_dir():
        if settings:
            raise InputError("--set is for configurations: a run was fitted as its config.toml says")
        config = fitted_config(source)
        space = space_of(config)
        dataset = space.read(config)
        dataset = space.soften(dataset) if dataset.conflicts else dataset
        check_same_rows(source, dataset.ids)
        log_probs, held = held_out_of(source, dataset.labels.n_instances)
        try:
            learner = Learner.load(source)
        except LabelError as error:
            raise InputError(str(error)) from error
        features = learner.transform(model_input(dataset.table, dataset.columns, dataset.ids))
    else:
        config = load_config(source, settings)
        if probs is not None:
            space = space_of(config)
            dataset = space.read(config)
            dataset = space.soften(dataset) if dataset.conflicts else dataset
            theirs = probabilities(probs, dataset, space)
            if space.name == "classes":
                adopt_prior_of(dataset, theirs)
            return config, space, dataset, theirs, None, notes
        seen = look(config, screen)
        space, dataset = seen.space, seen.dataset
        learner, data = space.learner(config, dataset)
        with (
            threads_for(float(len(dataset)) * space.width(dataset) * dimensions(dataset, config)),
            screen.progress("fit") as steps,
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            try:
                learner.fit(data, dataset.labels, callback=lambda done, total, facts: steps.update(done, total))
            except LabelError as error:
                raise InputError(refusal(config.learn.method, error)) from error
        held = np.asarray(learner.held_out_)
        log_probs = said_of(learner)
        features = learner.transform(data)
    if space.name == "classes":
        adopt_prior(dataset, learner.class_prior_estimate_)
    unseen = int((~np.asarray(held)).sum())
    if unseen:
        of = counted(len(held), "row")
        notes.append(f"{unseen} of {of} could not be held out, and were scored by a model that saw them")
    return config, space, dataset, log_probs, features, notes


def probabilities(path: Path, dataset: Given[Any], space: Space[Any]) -> Any:
    """What a table says of the rows of a data set: log-probabilities (N, K), or mean and variance of a number.

    Raises:
        InputError: columns or rows that do not fit, numbers that are no probabilities.
    """
    table = read_table(path)
    config = dataset.config
    order = np.arange(len(table))
    if config.data.id and config.data.id in table.columns:
        ids = row_ids(table, config.data.id)
        place = {name: at for at, name in enumerate(ids.tolist())}
        lost = [name for name in dataset.ids.tolist() if name not in place]
        if lost:
            raise InputError(
                f"{table.name} lacks {counted(len(lost), 'row')} of the data, {config.data.id} = "
                f"{some(map(quoted, map(str, lost)))}. Expected probabilities of every row"
            )
        order = np.array([place[name] for name in dataset.ids.tolist()])
    elif len(table) != len(dataset):
        raise InputError(
            f"{table.name} has {counted(len(table), 'row')} and the data {len(dataset)}. Expected as many, or the "
            f"column {quoted(config.data.id or 'id')} to join by"
        )

    def cells(column: str) -> np.ndarray:
        return table.numbers(table.require(column), np.arange(1, len(table) + 1).astype(str))[order].astype(np.float64)

    if space.name == "real":
        spread = cells("variance") if "variance" in table.columns else cells("sd") ** 2
        if not (spread > 0).all():
            raise InputError(
                f"{table.name}: {int((~(spread > 0)).sum())} spreads are not above 0. Expected sd or variance"
            )
        return cells("mean"), spread
    tags = space.name == "tags"
    classes = list(dataset.tags.names if tags else dataset.classes.names)  # type: ignore[attr-defined]
    given = np.stack([cells(name) for name in classes], axis=1)
    bad = np.flatnonzero(~(np.isfinite(given) & (given >= 0) & (given <= 1 + 1e-6)).all(axis=1))
    if len(bad):
        raise InputError(
            f"{table.name}: {counted(len(bad), 'row')} with cells that are no probabilities (first: row "
            f"{dataset.ids[bad[0]]})"
        )
    if tags:
        on = given.reshape(-1).clip(1e-9, 1 - 1e-9)
        return np.log(np.stack([1 - on, on], axis=1))
    total = given.sum(axis=1)
    off = np.flatnonzero(np.abs(total - 1) > 0.01)
    if len(off):
        raise InputError(
            f"{table.name}: probabilities of {counted(len(off), 'row')} do not sum to 1 (first: row "
            f"{dataset.ids[off[0]]}, to {total[off[0]]:.3g})"
        )
    given = (given / total[:, None]).clip(1e-12)
    return np.log(given / given.sum(axis=1, keepdims=True))


# -- what was found ---------------------------------------------------------------------------------------------------


def columns_of(records: Records, dataset: Given[Any]) -> dict[str, np.ndarray]:
    """The columns of audit.parquet: every label that says something, the most suspect first."""
    best = records.order
    ids = np.append(dataset.ids.astype(object), "")
    kinds = np.array([e.kind for e in dataset.evidence], dtype=object)
    names = np.array([e.name for e in dataset.evidence], dtype=object)
    columns = {
        "row": ids[records.row],
        "label": names[records.part],
        "kind": kinds[records.part],
        "source": np.where(records.tag == "", records.source, records.tag),
        "given": records.value,
        "proposed": records.proposed,
        "probability": records.probability,
        "prob_wrong": records.wrong,
        "nats_lost": records.nats,
        "looks_wrong": records.looks_wrong,
        "_row": records.row,
    }
    return {name: values[best] for name, values in columns.items()}


def summary(
    found: Audit,
    crowds: list[JudgedCrowd],
    rules: Mapping[int, JudgedRules],
    records: Mapping[str, np.ndarray],
    dataset: Given[Any],
) -> dict[str, Any]:
    """What audit.json says beside who made it when."""
    said, wrong = len(records["row"]), records["prob_wrong"]
    d, names = found.duplicates, found.class_names
    odd = np.flatnonzero(found.outliers.probability > 0.5)
    prior = found.class_prior if not _of_tags(dataset) else None
    transition = found.transition
    shape = () if transition is None else transition.shape
    o = found.overlap
    return {
        "labels": said,
        "share_wrong": float(wrong.mean()) if said else 0.0,
        "looks_wrong": int(records["looks_wrong"].sum()),
        "kinds": [
            {
                "label": e.name,
                "kind": e.kind,
                "labels": int((records["label"] == e.name).sum()),
                "share_wrong": _mean(wrong[records["label"] == e.name]),
                "looks_wrong": int(records["looks_wrong"][records["label"] == e.name].sum()),
            }
            for e in dataset.evidence
        ],
        "worst": _worst(records, dataset),
        "classes": None if names is None or prior is None else list(names),
        "class_prior": prior,
        "noise_of": None if found.judgement.noise is None else dataset.evidence[found.judgement.noise[0]].name,
        "transition": None if names is None or prior is None or shape != (len(names),) * 2 else transition,
        "tags": _tags(found, dataset),
        "overlap": [] if o is None or names is None else [
            {
                "first": names[o.first[at]],
                "second": names[o.second[at]],
                "overlap": float(o.overlap[at]),
                "confused": float(o.confused[at]),
                "noise": float(o.noise[at]),
            }
            for at in range(min(SHOWN, len(o.first)))
        ],
        "duplicates": {
            "exact": int(d.exact.sum()),
            "near": int((~d.exact).sum()),
            "conflict": int(d.conflict.sum()),
            "worst": [
                {
                    "first": str(dataset.ids[d.first[at]]),
                    "second": str(dataset.ids[d.second[at]]),
                    "exact": bool(d.exact[at]),
                    "conflict": bool(d.conflict[at]),
                    "_rows": [int(d.first[at]), int(d.second[at])],
                }
                for at in np.lexsort((d.distance, ~d.conflict))[:SHOWN].tolist()
            ],
        },
        "outliers": {
            "rows": len(odd),
            "worst": [
                {"row": str(dataset.ids[at]), "probability": float(found.outliers.probability[at]), "_row": at}
                for at in odd[np.argsort(-found.outliers.distance[odd], kind="stable")][:SHOWN].tolist()
            ],
        },
        "crowds": [_crowd(crowd, dataset) for crowd in crowds],
        "rules": [
            {"label": dataset.evidence[at].name, "rules": _lines(judged.columns())} for at, judged in rules.items()
        ],
        "value": _value(found, dataset),
    }  # fmt: skip


def _of_tags(dataset: Given[Any]) -> bool:
    return dataset.config.space == "tags"


def _tags(found: Audit, dataset: Given[Any]) -> list[dict[str, Any]]:
    """How often each tag is missing where a row has it, and given where it lacks it."""
    matrices = found.transition
    if not _of_tags(dataset) or matrices is None or matrices.ndim != 3:
        return []
    names = dataset.tags.names  # type: ignore[attr-defined]
    return [
        {"tag": name, "missed": float(m[1, 0]), "wrongly": float(m[0, 1])}
        for name, m in zip(names, matrices, strict=True)
    ]


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _worst(records: Mapping[str, np.ndarray], dataset: Given[Any]) -> list[dict[str, Any]]:
    text = dataset.snippets()
    names = [n for n in records if not n.startswith("_")]
    out = []
    for at in range(min(WORST, int(records["looks_wrong"].sum()))):
        row = int(records["_row"][at])
        out.append({**{n: records[n][at] for n in names}, "text": str(text[row]) if row >= 0 else "", "_row": row})
    return out


def _crowd(crowd: JudgedCrowd, dataset: Given[Any]) -> dict[str, Any]:
    needed = crowd.needed
    evidence = dataset.evidence[crowd.part]
    return {
        "label": evidence.name,
        "alpha": vars(crowd.alpha),
        "kappa": vars(crowd.kappa),
        "annotators": _lines(crowd.annotators.columns()),
        "classes": list(crowd.annotators.class_names),
        "confusion": crowd.annotators.pooled,
        "groups": _types(crowd.annotators),
        "votes_needed": None if needed is None else {
            "confidence": SURE,
            "unsure": int((needed.expected > 0).sum()),
            "votes": needed.total,
            "unreached": int((needed.reached < 0.5).sum()),
            "most": needed.most,
        },
    }  # fmt: skip


def _types(annotators: Annotators) -> list[dict[str, Any]]:
    """Types of the annotators, the most common first: how many, whom, and P(vote | class)."""
    if annotators.group is None or annotators.group_confusion is None:
        return []
    return [
        {
            "annotators": int((annotators.group == at).sum()),
            "votes": int(annotators.votes[annotators.group == at].sum()),
            "accuracy": float(np.diagonal(table).mean()),
            "confusion": table,
        }
        for at, table in enumerate(annotators.group_confusion)
    ]


def _value(found: Audit, dataset: Given[Any]) -> dict[str, Any] | None:
    """Labels that cost most and that help most, by leaving them out."""
    if found.influence is None or found.shapley is None:
        return None
    order = np.argsort(found.influence, kind="stable")
    text = dataset.snippets()

    def line(at: int) -> dict[str, Any]:
        assert found.influence is not None
        assert found.shapley is not None
        return {
            "row": str(dataset.ids[at]), "influence": float(found.influence[at]), "shapley": float(found.shapley[at]),
            "text": str(text[at]), "_row": at,
        }  # fmt: skip

    worst = [at for at in order[:SHOWN].tolist() if found.influence[at] < 0]
    best = [at for at in order[::-1][:SHOWN].tolist() if found.influence[at] > 0]
    return {
        "harmful": int((found.influence < 0).sum()),
        "worst": [line(at) for at in worst],
        "best": [line(at) for at in best],
    }


def _lines(columns: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    return [dict(zip(columns, line, strict=True)) for line in zip(*(v.tolist() for v in columns.values()), strict=True)]


# -- what is written --------------------------------------------------------------------------------------------------


def _write(
    found: Audit,
    crowds: list[JudgedCrowd],
    rules: Mapping[int, JudgedRules],
    records: Mapping[str, np.ndarray],
    dataset: Given[Any],
    folder: Path,
    names: str,
) -> None:
    """The tables."""
    from anygrain.audit.agreement import cohen_columns

    ids, theirs = dataset.ids.astype(object), names == "cleanlab"
    for old in FILES:
        (folder / old).unlink(missing_ok=True)
    rows = {**(found.cleanlab() if theirs else found.rows()), "row": ids}
    rows = {"row": rows.pop("row"), **rows}
    if theirs:
        write_table(rows, folder / "audit.parquet")
    else:
        write_table({n: v for n, v in records.items() if not n.startswith("_")}, folder / "audit.parquet")
        write_table(rows, folder / "audit_rows.parquet")
    d = found.duplicates
    if len(d.first):
        columns = {"first": ids[d.first], "second": ids[d.second]}
        write_table(
            {**columns, "exact": d.exact, "distance": d.distance, "conflict": d.conflict},
            folder / "audit_duplicates.parquet",
        )
    if found.overlap is not None and found.class_names is not None and len(found.overlap.first):
        o, called = found.overlap, np.array(found.class_names, dtype=object)
        columns = {"first": called[o.first], "second": called[o.second]}
        write_table(
            {**columns, "overlap": o.overlap, "confused": o.confused, "noise": o.noise},
            folder / "audit_overlap.parquet",
        )
    tables: dict[str, list[dict[str, np.ndarray]]] = {"annotators": [], "agreement": [], "rules": []}
    for crowd in crowds:
        name = dataset.evidence[crowd.part].name
        who = crowd.annotators.cleanlab() if theirs else crowd.annotators.columns()
        tables["annotators"].append({"label": np.full(len(who["annotator"]), name, dtype=object), **who})
        part = _parts(found)[crowd.part]
        if part.n_annotators <= PAIRED:
            pairs = cohen_columns(part)
            tables["agreement"].append({"label": np.full(len(pairs["items"]), name, dtype=object), **pairs})
    for at, judged in rules.items():
        lines = judged.snorkel() if theirs else judged.columns()
        tables["rules"].append({"label": np.full(len(lines["rule"]), dataset.evidence[at].name, dtype=object), **lines})
    for name, parts in tables.items():
        if parts and sum(len(part["label"]) for part in parts):
            joined = {column: np.concatenate([part[column] for part in parts]) for column in parts[0]}
            write_table(joined, folder / f"{name}.parquet")


def _parts(found: Audit) -> list[Any]:
    return list(getattr(found.labels, "parts", [found.labels]))


def _plain(value: Any) -> Any:
    """A value as JSON has it: NaN is null, keys that begin with "_" are for the page alone."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if not k.startswith("_")}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _page(result: dict[str, Any], folder: Path, dataset: Given[Any], screen: Screen) -> None:
    from anygrain.report.audit_page import write_audit

    text = dataset.snippets()
    images = image_cells(dataset.table, dataset.columns.images[0]) if dataset.columns.images else None

    def shown(row: int) -> dict[str, Any]:
        return {"text": str(text[row]), "image": None if images is None else thumbnail(images[row])}

    try:
        write_audit(result, folder / "audit.html", shown)
    except ModuleNotFoundError:
        screen.line("no audit.html: it needs  pip install 'anygrain[report]'")


def _say(result: dict[str, Any], folder: Path, screen: Screen, *, within: bool) -> None:
    rows = [("label", "kind", "labels", "look wrong", "expected wrong")]
    for kind in result["kinds"]:
        share = kind["share_wrong"]
        rows.append(
            (
                kind["label"],
                kind["kind"],
                f"{kind['labels']}",
                f"{kind['looks_wrong']}",
                "–" if share is None else f"{100 * share:.1f} %",
            )
        )
    screen.table(rows, gap=3)
    d = result["duplicates"]
    said = [
        f"{counted(d['exact'] + d['near'], 'duplicate pair')}, {d['conflict']} with labels that conflict",
        counted(result["outliers"]["rows"], "row far from all others", "rows far from all others"),
    ]
    for crowd in result["crowds"]:
        spammers = [a["annotator"] for a in crowd["annotators"] if a["prob_spammer"] > 0.5]
        alpha = crowd["alpha"]
        agreement = f"Krippendorff's alpha {alpha['value']:.2f} [{alpha['low']:.2f}, {alpha['high']:.2f}]"
        said.append(
            f"{crowd['label']}: {agreement if alpha['items'] else 'no row has two votes, so agreement is not known'}"
            + (
                f", {counted(len(spammers), 'annotator')} who may guess ({some(map(str, spammers))})"
                if spammers
                else ""
            )
        )
    screen.line(" · ".join(said))
    for note in result["notes"]:
        screen.line(f"worth knowing: {note}")
    screen.line(f"{folder}: {' '.join(n for n in FILES if (folder / n).exists())}  {seconds(result['seconds'])}")
    share, limit = result["share_wrong"], result["fail_above"]
    if limit is not None:
        verdict = "within" if within else "above"
        screen.line(
            f"{100 * share:.1f} % of the labels are expected to be wrong: {verdict} the limit of {100 * limit:g} %"
        )
    screen.line(f"Next:  open {folder / 'audit.html'}   or mend the labels that {folder / 'audit.parquet'} lists first")
