"""The verb fit: from a configuration to a run folder."""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anygrain.data.checks import warnings_for
from anygrain.data.config import Config, load_config
from anygrain.data.conflicts import message
from anygrain.data.dataset import Columns, Dataset, model_input, read_dataset, softened
from anygrain.data.error import InputError, counted, number
from anygrain.data.run_folder import FORMAT, RunFolder, fingerprint
from anygrain.data.table import write_table
from anygrain.labels import All, Labels, Positive, aggregate
from anygrain.labels.class_prior import PriorEstimate
from anygrain.labels.error import LabelError
from anygrain.program.fits import explained
from anygrain.program.interrupt import stop_if_asked
from anygrain.program.measure import Measured
from anygrain.program.screen import Screen, seconds, size
from anygrain.program.threads import threads_for

PACKAGES = ("anygrain", "torch", "numpy", "scikit-learn", "pyarrow", "narwhals", "safetensors")


class Stopped(Exception):
    """The fit was stopped and can go on; the message is the command that does so."""


def fit(
    config_path: str | Path,
    out: str | Path,
    settings: Sequence[str],
    screen: Screen,
    *,
    command: str,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
) -> None:
    """Fit what a configuration describes, and write the run folder.

    Raises:
        InputError: bad input; nothing has been written.
        Stopped: the fit was interrupted after it had begun.
    """
    began = time.monotonic()
    config = load_config(config_path, settings)
    folder = RunFolder(out, config.to_toml(), fingerprint(_files(config)) if _all_there(config) else "")
    how = folder.check(resume=resume, overwrite=overwrite)
    if how == "finished":
        screen.line(f"{folder.path} is finished already. Next:  anygrain predict {folder.path} TABLE --out FILE")
        return
    dataset = read_dataset(config)
    if dataset.conflicts:
        if config.learn.conflicts == "stop":
            for conflict in dataset.conflicts[1:8]:
                screen.line(f"row {conflict.row}: {conflict.problem}")
            raise InputError(message(dataset.conflicts))
        dataset = softened(dataset)
    known = warnings_for(dataset)
    stages = {"read": time.monotonic() - began}
    _say_data(dataset, screen, stages["read"])
    learner, data = make_learner(config, dataset)
    duration, memory = estimate(dataset, config)
    screen.line(f"needs about {seconds(duration)} and {size(memory)}")
    if dry_run:
        for sentence in [*known, *dataset.notes]:
            screen.line(f"worth knowing: {sentence}")
        screen.line("the configuration with every default written out:")
        for setting in config.to_toml().rstrip("\n").split("\n"):
            screen.line(f"  {setting}" if setting else "")
        screen.line(f"nothing was written (--dry-run). Next:  anygrain fit {config_path} --out {out}")
        return
    folder.open(how)
    try:
        _run(config, dataset, learner, data, folder, screen, stages, known, command, began, how)
    except KeyboardInterrupt:
        progress = folder.progress() or {"done": 0, "total": 0}
        folder.log("stopped", done=progress["done"], total=progress["total"])
        at = f"after step {progress['done']} of {progress['total']}" if progress["total"] else "before the first step"
        flags = " ".join(f"--set {_shell(s)}" for s in settings)
        again = " ".join(
            part for part in ("anygrain fit", str(config_path), "--out", str(out), flags, "--resume") if part
        )
        raise Stopped(f"stopped {at}. Go on with:  {again}") from None
    except Exception as error:
        said = explained(error)
        if said or isinstance(error, InputError | LabelError):  # bad input that only shows in the fit: nothing stays
            folder.discard()
        if said:
            raise InputError(said) from error
        raise
    finally:
        folder.close()


def _run(
    config: Config,
    dataset: Dataset,
    learner: Any,
    data: Any,
    folder: RunFolder,
    screen: Screen,
    stages: dict[str, float],
    known: list[str],
    command: str,
    began: float,
    how: str,
) -> None:
    from anygrain.learn import RecipeState
    from anygrain.learn.loggers import loggers_for

    folder.write_text("config.toml", config.to_toml())
    earlier = folder.steps()
    spent = (folder.progress() or {}).get("seconds", 0.0) if how == "resume" else 0.0
    state = RecipeState()
    for tensors, facts in earlier:
        state.steps[facts["step"]] = tensors
        state.history.append(facts)
    if earlier:
        screen.line(f"goes on after {counted(len(earlier), 'finished step')}")
    work = float(len(dataset)) * len(dataset.classes) * _dimensions(dataset, config)
    with threads_for(work), screen.progress("fit") as steps, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        at = time.monotonic()

        loggers = loggers_for(config.output.loggers, folder.path, resume=how == "resume")
        numbers = {facts["step"]: at for at, (_, facts) in enumerate(earlier, start=1)}
        whole = {step for step, tensors in state.steps.items() if set(tensors) != {"done"}}

        def keep(done: int, total: int, facts: dict[str, Any]) -> None:
            folder.keep_step(done, state.steps[facts["step"]], facts)
            numbers[facts["step"]] = done
            for step in [s for s in whole if set(state.steps[s]) == {"done"}]:  # its tensors are not needed any more
                past = next(h for h in state.history if h["step"] == step)
                folder.keep_step(numbers[step], state.steps[step], past)
                whole.discard(step)
            whole.add(facts["step"])
            folder.say_progress(done, total, seconds=spent + time.monotonic() - began)
            folder.log("step", done=done, total=total, **facts)
            for logger in loggers:
                logger(done, total, facts)
            value = facts.get("held_out_evidence")
            about = facts.get("track", "") + (f"  held-out {value:.2f}" if value is not None else "")
            steps.update(done, total, about)
            stop_if_asked()

        try:
            learner.fit(data, dataset.labels, callback=keep, state=state)
        finally:
            for logger in loggers:
                logger.close()
        stages["fit"] = time.monotonic() - at
        last = next((h["held_out_evidence"] for h in reversed(state.history) if "held_out_evidence" in h), None)
        held = f"  held-out {last:.2f}" if last is not None else ""
        screen.line(f"fit  {counted(len(state.history), 'step')}{held}  {seconds(stages['fit'])}")
        at = time.monotonic()
        adopt_channels([e.labels for e in dataset.evidence], learner.labels_)
        adopt_prior(dataset, learner.class_prior_estimate_)
        measured = Measured(dataset, torch.from_numpy(np.asarray(learner.held_out_log_probs_)), learner.held_out_)
        features = learner.transform(data)
        apart = any(facts.get("track") == "held out" for facts in state.history)  # exact labels, taken back in turn
        folds = config.learn.exact_folds if apart else config.learn.folds
        evaluation = measured.evaluation(features, folds=folds, seed=config.learn.seed)
        stages["measure"] = time.monotonic() - at
    known = [*known, *dict.fromkeys(" ".join(str(w.message).split()) for w in caught if _is_ours(w))]
    if learner.class_prior_estimate_ is not None:
        estimate, low, high = learner.class_prior_estimate_
        known.append(f"the class prior was not given: estimated {estimate:.3g}, 95 % interval {low:.3g} to {high:.3g}")
    at = time.monotonic()
    places = None
    if config.output.report and config.output.map:
        from anygrain.report import row_map

        with threads_for(work):
            places = row_map(features, measured.posterior.numpy(), seed=config.learn.seed)
        stages["map"] = time.monotonic() - at
    stop_if_asked()
    learner.save(folder.path / "model")
    write_table(measured.table(places), folder.path / "labels.parquet")
    conflicts = _conflicts(dataset, folder)
    reload_line = _reload(folder.path, dataset)
    total = spent + time.monotonic() - began
    metrics: dict[str, Any] = {
        "format": FORMAT,
        "name": folder.path.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": total,
        "stages": stages,
        "command": command,
        "reload": reload_line,
        "seed": config.learn.seed,
        "versions": versions(),
        "data": _data(dataset, learner, features),
        "classes": list(dataset.classes.names),
        "evidence": _evidence(dataset),
        "evaluation": evaluation,
        "held_out": measured.held_out_evidence(),
        "conflicts": conflicts,
        "agreement": measured.agreement(),
        "sources": measured.sources(),
        "confusion": measured.confusion(),
        "classes_table": measured.classes_table(),
        "worst": measured.worst(),
        "suspects": measured.suspects(),
        "learner": _learnt(learner, config),
        "history": [_round(facts) for facts in state.history],
        "warnings": known,
        "notes": dataset.notes,
    }
    folder.write_json("metrics.json", metrics)
    if config.output.report:
        _report(folder, screen)
    _say_result(metrics, dataset, screen)
    folder.finish(seconds=total)
    folder.close()
    _say_folder(folder, reload_line, total, screen)


# -- before -----------------------------------------------------------------------------------------------------------


def _files(config: Config) -> list[str | Path]:
    paths = [config.data.source, config.taxonomy]
    for label in config.labels:
        paths += [getattr(label, name, "") for name in ("source", "taxonomy", "transition")]
    return [p for p in dict.fromkeys(paths) if p]


def _all_there(config: Config) -> bool:
    return all(Path(p).is_file() for p in _files(config))


def make_learner(config: Config, dataset: Dataset) -> tuple[Any, Any]:
    """The Learner that a configuration asks for, and the data in the form that it reads."""
    from anygrain.encoders import Encoder, Frame, Text
    from anygrain.learn import Learner

    data = model_input(dataset.table, dataset.columns, dataset.ids)
    encoder: Encoder | str | None = None
    if isinstance(data, list):
        encoder = config.encoder.pretrained or Text(dim=config.encoder.dim)
    elif config.encoder.pretrained:
        raise InputError(
            "encoder.pretrained reads text alone. Expected text = ... without columns or features, or no "
            "encoder.pretrained"
        )
    elif not isinstance(data, np.ndarray):
        encoder = Frame()
        encoder.text.dim = config.encoder.dim
    learn = config.learn
    learner = Learner(
        encoder=encoder,
        head=learn.head,
        seed=learn.seed,
        device=learn.device,
        taxonomy=dataset.classes.taxonomy,
        rounds=learn.rounds,
        folds=learn.folds,
        exact_folds=learn.exact_folds,
        neighbours=learn.neighbours,
        penalty=learn.penalty,
        epochs=None if learn.epochs == "auto" else learn.epochs,
        batch_size=None if learn.batch_size == "auto" else learn.batch_size,
        learning_rate=None if learn.learning_rate == "auto" else learn.learning_rate,
        accumulate=learn.accumulate,
        augmentation="auto" if learn.augment else None,
        precision=learn.precision,
    )
    return learner, data


def estimate(dataset: Dataset, config: Config) -> tuple[float, float]:
    """Seconds and bytes that a fit needs, roughly; measured on two cores with text and tables."""
    n, k = len(dataset), len(dataset.classes)
    text, features = bool(dataset.columns.text), len(dataset.columns.all)
    d = _dimensions(dataset, config)
    steps = config.learn.rounds * (2 if config.learn.neighbours else 1) + 2 * config.learn.exact_folds + 2
    heads = 2.5e-9 * n * d * k * steps
    graph = 2.0 * n * n * d / 2e10 if config.learn.neighbours else 0.0
    encode = 4e-4 * n if text else 1e-6 * n * features
    tables = 6e-7 * n * k * steps
    records = sum(e.labels.n_records for e in dataset.evidence if e.labels.channels)
    votes = 3e-8 * records * k * steps
    duration = 4 + heads + graph + encode + tables + votes
    memory = 4e8 + 4.0 * n * (3 * d + 60 * k) + (12_000.0 * n if text else 0)
    return duration, memory


def _dimensions(dataset: Dataset, config: Config) -> int:
    """Number of features after the encoder, roughly."""
    return (config.encoder.dim if dataset.columns.text else 0) + len(dataset.columns.all)


def _say_data(dataset: Dataset, screen: Screen, took: float) -> None:
    kinds = counted(len(dataset.evidence), "kind", "kinds")
    folds = dataset.config.learn.folds
    screen.line(
        f"{counted(len(dataset), 'row')} · {number(len(dataset.classes))} classes · {kinds} of evidence · held out "
        "by evidence in "
        f"{folds} parts, no row shared  {seconds(took)}"
    )


# -- after ------------------------------------------------------------------------------------------------------------


def _is_ours(warning: warnings.WarningMessage) -> bool:
    """Warnings that say something of the data, not of the code of other packages."""
    from anygrain.labels.identifiability import IdentifiabilityWarning

    return issubclass(warning.category, IdentifiabilityWarning) or (
        issubclass(warning.category, UserWarning) and f"{os.sep}anygrain{os.sep}" in str(warning.filename)
    )


def _conflicts(dataset: Dataset, folder: RunFolder) -> dict[str, Any]:
    found = dataset.conflicts
    if found:
        rows = {"row": [c.row for c in found], "problem": [c.problem for c in found]}
        write_table(rows, folder.path / "conflicts.csv")
    return {
        "rows": len(found),
        "mode": dataset.config.learn.conflicts,
        "examples": [{"row": c.row, "problem": c.problem} for c in found[:20]],
        "file": "conflicts.csv" if found else None,
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    out = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            if name == "anygrain":
                from anygrain import __version__

                out[name] = __version__
    return out


def _data(dataset: Dataset, learner: Any, features: np.ndarray) -> dict[str, Any]:
    bags = [len(b) for e in dataset.evidence for b in e.labels.bags if e.kind not in ("Pairs", "Compare")]
    return {
        "source": str(dataset.config.data.source),
        "rows": len(dataset),
        "classes": len(dataset.classes),
        "rows_with_labels": int(dataset.labelled.sum()),
        "text": dataset.columns.text,
        "columns": [*dataset.columns.numbers, *dataset.columns.categories, *dataset.columns.dates],
        "features": len(dataset.columns.features),
        "encoder": encoder_words(dataset.columns, dataset.config),
        "encoded": int(features.shape[1]),
        "bags": max(bags) if bags else None,
        "missing": list(dataset.config.data.missing),
    }


def encoder_words(columns: Columns, config: Config) -> str:
    """What the encoder is, in words."""
    parts = []
    if columns.text:
        parts.append(config.encoder.pretrained or f"hashed tf-idf with SVD, {config.encoder.dim} dimensions")
    rest = len(columns.all) - len(columns.text)
    if rest:
        parts.append(f"{counted(rest, 'column')} standardised")
    return " and ".join(parts)


def _evidence(dataset: Dataset) -> list[dict[str, Any]]:
    return [
        {
            "name": e.name,
            "kind": e.kind,
            "source": e.source,
            "columns": e.columns,
            "says": e.says,
            "labels": e.n_labels,
            "rows": int(e.rows.sum()),
            "of": len(dataset),
            "values": e.values,
            "simulated": e.simulated,
        }
        for e in dataset.evidence
    ]


def _learnt(learner: Any, config: Config) -> dict[str, Any]:
    chosen = dict(learner.chosen_)
    words = "all evidence" if chosen.get("chosen") == "evidence" else "exact labels alone"
    return {
        "chosen": f"{words}: {chosen.get('why', '')}".rstrip(": "),
        "temperature": float(learner.temperature_),
        "rounds": config.learn.rounds,
        "exact_only_won": chosen.get("chosen") == "exact only",
        "details": chosen,
    }


def _round(facts: dict[str, Any]) -> dict[str, Any]:
    return {"evidence": None, "held_out": facts.get("held_out_evidence"), **facts}


def _reload(path: Path, dataset: Dataset) -> str:
    if dataset.columns.text and len(dataset.columns.all) == len(dataset.columns.text):
        words = str(dataset.snippets()[0]).split()[:6]
        return f"anygrain.load({str(path)!r}).predict_proba([{' '.join(words)!r}])".replace("'", '"')
    return f'anygrain.load("{path}").predict_proba(table)'


def _report(folder: RunFolder, screen: Screen) -> None:
    from anygrain.report import write_report

    try:
        write_report(folder.path)
    except ModuleNotFoundError:
        screen.line(
            "no report.html: it needs  pip install 'anygrain[report]'  and then  anygrain report " + str(folder.path)
        )


def _say_result(metrics: dict[str, Any], dataset: Dataset, screen: Screen) -> None:
    evaluation = metrics["evaluation"]
    if evaluation:
        rows = [("", "fine accuracy", "log loss", "calibration error")]
        for at, entry in enumerate(evaluation["entries"]):
            low, high = entry["interval"]
            name = f"{entry['name']}*" if at == 0 else entry["name"]
            rows.append(
                (
                    name,
                    f"{entry['accuracy']:.2f} [{low:.2f}, {high:.2f}]",
                    f"{entry['log_loss']:.2f}",
                    f"{entry['ece']:.2f}",
                )
            )
        screen.line(f"on {counted(evaluation['rows'], 'exact row')}, none of them seen by the model that scores it")
        screen.table(rows, gap=3)
        screen.line(f"* {evaluation['method']}")
    else:
        held = metrics["held_out"]
        if any(e["kind"] == "Exact" for e in metrics["evidence"]):
            screen.line("too few exact rows to keep some apart: at least two of half of the classes are needed")
        screen.line(
            f"accuracy was not measured; held-out evidence per row {held['evidence_per_row']:.2f} "
            f"(chance {held['chance']:.2f})"
        )
    if metrics["learner"]["exact_only_won"]:
        several = any(e["kind"] != "Exact" for e in metrics["evidence"])
        left_out = (
            "the other labels did not help, so they were left out"
            if several
            else ("rows without labels did not help, so they were left out")
        )
        screen.line(f"{left_out}: {metrics['learner']['details'].get('why', '')}")
    said = []
    if metrics["suspects"]:
        said.append(f"{counted(metrics['suspects'], 'label looks', 'labels look')} wrong (report.html, labels.parquet)")
    crowd = [s for s in metrics["sources"] if s["kind"] == "Crowd" and s["agreement"] is not None]
    if len(crowd) > 1:
        least = min(crowd, key=lambda s: s["agreement"])
        said.append(f"{least['name']} agrees with the rest {100 * least['agreement']:.0f} % of the time")
    said += [*metrics["warnings"], *metrics["notes"]]
    for sentence in said:
        screen.line(f"worth knowing: {sentence}")


def _say_folder(folder: RunFolder, reload_line: str, took: float, screen: Screen) -> None:
    shown = ("config.toml", "model", "labels.parquet", "metrics.json", "report.html", "log.jsonl", "conflicts.csv")
    present = [f"{n}/" if n == "model" else n for n in shown if (folder.path / n).exists()]
    screen.line(f"{folder.path}: {' '.join(present)} ({size(folder.size())})  {seconds(took)} in all")
    screen.line(f"again in Python:  {reload_line}")
    screen.line(f"Next:  anygrain report {folder.path} --open   or   anygrain predict {folder.path} TABLE --out FILE")


def _shell(text: str) -> str:
    import shlex

    return shlex.quote(text)


__all__ = ["Stopped", "encoder_words", "estimate", "fit", "make_learner", "versions"]


def adopt_prior(dataset: Dataset, estimate: PriorEstimate | None) -> None:
    """Give rows known to be positive the class prior that a fit estimated, where they came without."""
    for evidence in dataset.evidence:
        if estimate is not None and isinstance(evidence.labels, Positive) and evidence.labels.prior is None:
            evidence.labels = evidence.labels.with_possible_prior(estimate.estimate)


def adopt_channels(given: Sequence[Labels], fitted: Labels) -> None:
    """Channels of the parts given become those of a fit; sources that saw the features are fitted by themselves.

    Args:
        given: the parts, in the order in which the Learner had them.
        fitted: `Learner.labels_`, where one target stands for all sources that saw the features.
    """
    seen = [part for part in given if part.given_x]
    others = [part for part in given if not part.given_x]
    parts = fitted.parts if isinstance(fitted, All) else [fitted]
    for part, twin in zip(others, parts[len(parts) - len(others) :], strict=True):
        for channel, found in zip(part.channels, twin.channels, strict=True):
            channel.load_state_dict(found.state_dict())
    if any(part.channels for part in seen):
        aggregate(All(*seen))
