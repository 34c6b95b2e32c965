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

from anygrain.data.config import Config, load_config
from anygrain.data.dataset import Given
from anygrain.data.error import InputError, counted
from anygrain.data.run_folder import FORMAT, RunFolder
from anygrain.data.table import write_table
from anygrain.labels.error import LabelError
from anygrain.program.fits import explained
from anygrain.program.held_out import FILE as HELD_OUT
from anygrain.program.held_out import keep_held_out
from anygrain.program.interrupt import stop_if_asked
from anygrain.program.look import fingerprint_of, look, say_counts
from anygrain.program.screen import Screen, seconds, size
from anygrain.program.setup import dimensions, encoder_words, refusal
from anygrain.program.space import Space
from anygrain.program.threads import threads_for

PAIRS = ("Pairs", "PairsUnlabeled", "Compare")  # kinds whose sets are no bags
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
    folder = RunFolder(out, config.to_toml(), fingerprint_of(config))
    how = folder.check(resume=resume, overwrite=overwrite)
    if how == "finished":
        screen.line(f"{folder.path} is finished already. Next:  anygrain predict {folder.path} TABLE --out FILE")
        return
    found = look(config, screen)
    space, dataset, known = found.space, found.dataset, found.warnings
    stages = {"read": found.seconds}
    learner, data = space.learner(config, dataset)
    duration, memory = space.estimate(dataset, config)
    screen.line(f"needs about {seconds(duration)} and {size(memory)}")
    if dry_run:
        say_counts(found, screen)
        screen.line("the configuration with every default written out:")
        for setting in config.to_toml().rstrip("\n").split("\n"):
            screen.line(f"  {setting}" if setting else "")
        screen.line(f"nothing was written (--dry-run). Next:  anygrain fit {config_path} --out {out}")
        return
    folder.open(how)
    try:
        _run(config, space, dataset, learner, data, folder, screen, stages, known, command, began, how)
    except KeyboardInterrupt:
        progress = folder.progress() or {"done": 0, "total": 0}
        folder.log("stopped", done=progress["done"], total=progress["total"])
        at = f"after step {progress['done']} of {progress['total']}" if progress["total"] else "before the first step"
        raise Stopped(f"stopped {at}. Go on with:  {resumed_by(config_path, out, settings)}") from None
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
    space: Space[Any],
    dataset: Given[Any],
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
    work = float(len(dataset)) * space.width(dataset) * dimensions(dataset, config)
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
        except LabelError as error:
            raise InputError(refusal(config.learn.method, error)) from error
        finally:
            for logger in loggers:
                logger.close()
        stages["fit"] = time.monotonic() - at
        last = next((h["held_out_evidence"] for h in reversed(state.history) if "held_out_evidence" in h), None)
        held = f"  held-out {last:.2f}" if last is not None else ""
        screen.line(f"fit  {counted(len(state.history), 'step')}{held}  {seconds(stages['fit'])}")
        at = time.monotonic()
        features = learner.transform(data)
        measured = space.measure(dataset, learner, features, config)
        stages["measure"] = time.monotonic() - at
    said = (" ".join(str(w.message).split()) for w in caught if _is_ours(w))
    known = list(dict.fromkeys([*known, *measured.notes, *said]))
    at = time.monotonic()
    places = None
    if config.output.report and config.output.map:
        from anygrain.report import row_map

        with threads_for(work):
            places = row_map(features, measured.groups, seed=config.learn.seed)
        stages["map"] = time.monotonic() - at
    stop_if_asked()
    learner.save(folder.path / "model")
    keep_held_out(learner, folder)
    write_table(measured.table(places), folder.path / "labels.parquet")
    conflicts = _conflicts(dataset, folder)
    reload_line = space.reload(folder.path, dataset)
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
        "space": space.name,
        "data": {**_data(dataset, features), "classes": space.width(dataset)},
        "evidence": _evidence(dataset),
        "conflicts": conflicts,
        **measured.metrics,
        "history": [_round(facts) for facts in state.history],
        "warnings": known,
        "notes": dataset.notes,
    }
    folder.write_json("metrics.json", metrics)
    if config.output.report:
        _report(folder, screen)
    space.say_result(metrics, dataset, screen)
    folder.finish(seconds=total)
    folder.close()
    _say_folder(folder, reload_line, total, space.name, screen)


# -- after ------------------------------------------------------------------------------------------------------------


def _is_ours(warning: warnings.WarningMessage) -> bool:
    """Warnings that say something of the data, not of the code of other packages."""
    from anygrain.labels.identifiability import IdentifiabilityWarning

    return issubclass(warning.category, IdentifiabilityWarning) or (
        issubclass(warning.category, UserWarning) and f"{os.sep}anygrain{os.sep}" in str(warning.filename)
    )


def _conflicts(dataset: Given[Any], folder: RunFolder) -> dict[str, Any]:
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


def _data(dataset: Given[Any], features: np.ndarray) -> dict[str, Any]:
    bags = [len(b) for e in dataset.evidence for b in e.labels.bags if e.kind not in PAIRS]
    return {
        "source": str(dataset.config.data.source),
        "rows": len(dataset),
        "rows_with_labels": int(dataset.labelled.sum()),
        "text": dataset.columns.text,
        "columns": [*dataset.columns.numbers, *dataset.columns.categories, *dataset.columns.dates],
        "features": len(dataset.columns.features),
        "encoder": encoder_words(dataset.columns, dataset.config),
        "encoded": int(features.shape[1]),
        "bags": max(bags) if bags else None,
        "missing": list(dataset.config.data.missing),
    }


def _evidence(dataset: Given[Any]) -> list[dict[str, Any]]:
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


def _round(facts: dict[str, Any]) -> dict[str, Any]:
    return {"evidence": None, "held_out": facts.get("held_out_evidence"), **facts}


def _report(folder: RunFolder, screen: Screen) -> None:
    from anygrain.report import write_report

    try:
        write_report(folder.path)
    except ModuleNotFoundError:
        screen.line(
            "no report.html: it needs  pip install 'anygrain[report]'  and then  anygrain report " + str(folder.path)
        )


def _say_folder(folder: RunFolder, reload_line: str, took: float, space: str, screen: Screen) -> None:
    files = ("labels.parquet", HELD_OUT, "metrics.json", "report.html", "log.jsonl", "conflicts.csv")
    shown = ("config.toml", "model", *files)
    present = [f"{n}/" if n == "model" else n for n in shown if (folder.path / n).exists()]
    screen.line(f"{folder.path}: {' '.join(present)} ({size(folder.size())})  {seconds(took)} in all")
    screen.line(f"again in Python:  {reload_line}")
    screen.line(f"Next:  anygrain report {folder.path} --open   or   anygrain predict {folder.path} TABLE --out FILE")
    asks = f"   or   anygrain ask {folder.path} --out next.csv" if space == "classes" else ""
    screen.line(f"       anygrain audit {folder.path}{asks}")


def resumed_by(config_path: str | Path, out: str | Path, settings: Sequence[str], compare: str = "") -> str:
    """The command that goes on with a fit, or a comparison."""
    import shlex

    parts = ["anygrain", "fit", str(config_path), *(["--compare", compare] if compare else []), "--out", str(out)]
    parts += [part for setting in settings for part in ("--set", setting)]
    return shlex.join([*parts, "--resume"])


__all__ = ["Stopped", "fit", "resumed_by", "versions"]
