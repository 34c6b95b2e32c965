"""The verb fit with --compare: several methods on the same parts of the rows, each scored on rows it did not see."""

from __future__ import annotations

import copy
import json
import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anygrain.data.config import Config, load_config
from anygrain.data.dataset import Given
from anygrain.data.error import InputError, counted, quoted
from anygrain.data.run_folder import RunFolder
from anygrain.data.table import write_table
from anygrain.data.tag_dataset import TagDataset
from anygrain.labels import Positive
from anygrain.program.fit import Stopped, resumed_by
from anygrain.program.held_evidence import held_out_scores
from anygrain.program.interrupt import stop_if_asked
from anygrain.program.look import fingerprint_of, read_checked
from anygrain.program.screen import Screen, seconds
from anygrain.program.setup import dimensions, method_arguments, refusal
from anygrain.program.space import Space
from anygrain.program.threads import threads_for

FORMAT = "anygrain-compare-1"
PARTS = 3  # rows are held out in turn
FILES = ("compare.json", "compare.parquet", "compare.html", "config.toml", "log.jsonl")


@dataclass
class Outcome:
    """One method.

    Attributes:
        method: as it was asked for.
        says: what it is, in a line.
        evidence: log-likelihood of every held-out observation, (M,).
        truth: measures of rows whose truth is given, by name, one value per row, (T,); NaN where it does not apply.
        measures: numbers of these rows that are no means, by name.
        seconds: of all its fits.
    """

    method: str
    says: str
    evidence: np.ndarray
    truth: dict[str, np.ndarray]
    measures: dict[str, float]
    seconds: float


class CompareFolder(RunFolder):
    """The folder of a comparison; methods that are finished are kept in it while others are not.

    What an earlier comparison wrote stays until the new one replaces it.
    """

    noun = "comparison"
    written = (*FILES, ".lock", ".state")
    result = "compare.json"

    def _clear(self) -> None:
        shutil.rmtree(self.state, ignore_errors=True)

    def discard(self) -> None:
        self.close()
        self._clear()
        if not (self.path / self.result).exists():
            (self.path / "log.jsonl").unlink(missing_ok=True)
            self.path.rmdir()

    def keep(self, number: int, name: str, outcome: Outcome | str) -> None:
        """Keep what came of a method: an outcome, or why it was left out."""
        if isinstance(outcome, str):
            self.keep_step(number, {"none": torch.zeros(0)}, {"method": name, "left_out": outcome})
            return
        tensors = {"evidence": outcome.evidence}
        tensors |= {f"truth.{at}": values for at, values in enumerate(outcome.truth.values())}
        tensors["measures"] = np.array(list(outcome.measures.values()), dtype=np.float64)
        facts = {
            "method": name,
            "says": outcome.says,
            "truth": list(outcome.truth),
            "measures": list(outcome.measures),
            "seconds": outcome.seconds,
        }
        self.keep_step(number, {n: torch.from_numpy(np.ascontiguousarray(v)) for n, v in tensors.items()}, facts)

    def kept(self) -> dict[str, Outcome | str]:
        """What was kept, by method."""
        found: dict[str, Outcome | str] = {}
        for tensors, facts in self.steps():
            name = facts["method"]
            if "left_out" in facts:
                found[name] = facts["left_out"]
                continue
            arrays = {key: t.numpy() for key, t in tensors.items()}
            truth = {name: arrays[f"truth.{at}"] for at, name in enumerate(facts["truth"])}
            measures = dict(zip(facts["measures"], arrays["measures"].tolist(), strict=True))
            found[name] = Outcome(name, facts["says"], arrays["evidence"], truth, measures, facts["seconds"])
        return found


def compare(
    config_path: str | Path,
    names: str,
    out: str | Path,
    settings: Sequence[str],
    screen: Screen,
    *,
    command: str,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
) -> None:
    """Fit every method in turn, say which one predicts held-out evidence best, and write compare.json and a page.

    Rows with labels are held out in three parts, whole groups and sets; what was observed of a part is scored by a
    model of the others. Parts are the same for every method, so methods are compared observation by observation.

    Args:
        names: methods with commas between: "default,gce,any_loss:measure=f1".

    Raises:
        InputError: bad input, a method that is not known or not for these labels, a folder in use; nothing was written.
        Stopped: interrupted after it had begun; methods that are finished are kept.
    """
    began = time.monotonic()
    asked = [name.strip() for name in names.split(",") if name.strip()]
    config = load_config(config_path, settings)
    twice = next((name for at, name in enumerate(asked) if name in asked[:at]), None)
    if twice is not None:
        raise InputError(f"--compare names {quoted(twice)} twice")
    if len(asked) < 2:
        raise InputError(f"--compare {names!r} is one method. Expected two or more, such as --compare default,gce")
    folder = CompareFolder(out, config.to_toml(), fingerprint_of(config))
    how = folder.check(resume=resume, overwrite=overwrite)
    if how == "finished":
        screen.line(f"{folder.path} is finished already: {folder.path / 'compare.html'} shows it")
        return
    space, dataset = read_checked(config, screen)
    configs = {name: _with_method(config, name) for name in asked}
    for each in configs.values():
        method_arguments(each, dataset)
    if isinstance(dataset, TagDataset) and not (dataset.given() == 0).any():
        raise InputError(
            "nothing says that a row lacks a tag, so held-out labels are predicted best by giving every row every tag: "
            "nothing can be compared. Expected some tags that rows are known to lack"
        )
    parts = parts_of(dataset, config.learn.seed)
    taken = seconds(time.monotonic() - began)
    screen.line(
        f"{counted(len(dataset), 'row')} · {space.says(dataset)} · {counted(len(asked), 'method')}, each fitted "
        f"{int(parts.max()) + 1} times, on the same parts of the rows  {taken}"
    )
    if dry_run:
        screen.line(f"nothing was written (--dry-run). Next:  anygrain fit {config_path} --compare {names} --out {out}")
        return
    folder.open(how)
    try:
        outcomes, left_out = _outcomes(configs, dataset, space, parts, folder, screen)
        _write(outcomes, left_out, config, dataset, space, parts, folder, screen, command)
    except KeyboardInterrupt:
        done = len(folder.kept())
        again = resumed_by(config_path, out, settings, names)
        raise Stopped(f"stopped after {done} of {counted(len(asked), 'method')}. Go on with:  {again}") from None
    except InputError:
        folder.discard()
        raise
    finally:
        folder.close()
    screen.line(f"{folder.path}: {' '.join(n for n in FILES if (folder.path / n).exists())}")
    best = summary(outcomes, config.learn.seed)["best"]
    screen.line(f"Next:  anygrain fit {config_path} --set learn.method={best} --out RUN")


def _outcomes(
    configs: dict[str, Config],
    dataset: Given[Any],
    space: Space[Any],
    parts: np.ndarray,
    folder: CompareFolder,
    screen: Screen,
) -> tuple[list[Outcome], dict[str, str]]:
    """Outcomes of the methods, and why others were left out; those that the folder keeps are not fitted again.

    Raises:
        InputError: fewer than two methods can be fitted.
    """
    from anygrain.labels import LabelError
    from anygrain.robust.methods import read_method

    found = folder.kept()
    if found:
        screen.line(f"goes on after {counted(len(found), 'finished method')}")
    folder.say_progress(len(found), len(configs))
    for at, (name, config) in enumerate(configs.items(), start=1):
        if name in found:
            continue
        outcome: Outcome | str
        try:
            outcome = _outcome(name, read_method(name)[0].says, config, dataset, space, parts)
        except LabelError as error:  # what the others took is not lost
            outcome = refusal("default", error)
        found[name] = outcome
        folder.keep(len(found), name, outcome)
        folder.say_progress(len(found), len(configs))
        about = f"left out: {outcome}" if isinstance(outcome, str) else seconds(outcome.seconds)
        folder.log("method", method=name, says=about)
        screen.line(f"{at} of {len(configs)}  {name}  {about}")
        stop_if_asked()
    asked = {name: found[name] for name in configs}
    left_out = {name: why for name, why in asked.items() if isinstance(why, str)}
    outcomes = [outcome for outcome in asked.values() if isinstance(outcome, Outcome)]
    if len(outcomes) < 2:
        why = "; ".join(f"{name}: {text}" for name, text in left_out.items())
        raise InputError(f"fewer than two methods can be fitted to this, so nothing is compared. {why}")
    return outcomes, left_out


def _write(
    outcomes: Sequence[Outcome],
    left_out: dict[str, str],
    config: Config,
    dataset: Given[Any],
    space: Space[Any],
    parts: np.ndarray,
    folder: CompareFolder,
    screen: Screen,
    command: str,
) -> None:
    """The files of a comparison."""
    result = {
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "seconds": sum(outcome.seconds for outcome in outcomes),
        "space": space.name,
        "rows": len(dataset),
        "parts": int(parts.max()) + 1,
        "observations": len(outcomes[0].evidence),
        "data": folder.data,
        "left_out": left_out,
        **summary(outcomes, config.learn.seed),
    }
    write_table({o.method: o.evidence for o in outcomes}, folder.path / "compare.parquet")
    folder.write_text("config.toml", config.to_toml())
    folder.write_text("compare.json", json.dumps(result, indent=1) + "\n")
    _write_page(result, folder.path, screen)
    _say(result, screen)
    folder.finish()


def _with_method(config: Config, name: str) -> Config:
    return config.model_copy(update={"learn": config.learn.model_copy(update={"method": name})})


def parts_of(dataset: Given[Any], seed: int) -> np.ndarray:
    """Which part every row with labels is held out in, (N,), whole groups and sets; -1 for rows that never are.

    Where rows are known to be of one class or not (`Positive`), a row without the label is an observation too.

    Raises:
        InputError: everything is one group or set.
    """
    from anygrain.learn.recipe import split_groups

    everyone = any(isinstance(e.labels, Positive) for e in dataset.evidence)
    labelled = np.flatnonzero(dataset.labelled | everyone)
    groups = dataset.labels.groups()[torch.from_numpy(labelled)]
    _, group, size = groups.unique(return_inverse=True, return_counts=True)
    if len(size) < 2 or int(size.max()) > 0.7 * len(labelled):
        raise InputError("the labelled rows are one set or group, so none can be held out: nothing can be compared")
    number = min(PARTS, len(size))
    if int(size.max()) > len(labelled) / number:
        number = 2
    out = np.full(len(dataset), -1)
    generator = torch.Generator().manual_seed(seed)
    if int(size.max()) > len(labelled) / number:  # the largest alone, the others in the other part
        out[labelled] = (group == int(size.argmax())).numpy()
    else:
        out[labelled] = split_groups(group, number, generator).numpy()
    return out


def take(data: Any, rows: np.ndarray) -> Any:
    """Some rows of what a Learner is given, by number."""
    if isinstance(data, list):
        return [data[row] for row in rows.tolist()]
    return data[rows] if isinstance(data, np.ndarray) else data[rows.tolist()]


def _outcome(
    name: str, says: str, config: Config, dataset: Given[Any], space: Space[Any], parts: np.ndarray
) -> Outcome:
    began = time.monotonic()
    evidence: list[np.ndarray] = []
    scored: list[Any] = []
    work = float(len(dataset)) * space.width(dataset) * dimensions(dataset, config)
    for part in range(int(parts.max()) + 1):
        held, rest = np.flatnonzero(parts == part), np.flatnonzero(parts != part)
        learner, data = space.learner(config, dataset)
        learner.set_params(cross_fit=learner.procedure is not None)  # else a procedure's head is not calibrated
        labels = copy.deepcopy(dataset.labels)  # channels are fitted in place
        with threads_for(work), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            learner.fit(take(data, rest), labels[torch.from_numpy(rest)])
            value, truth = held_out_scores(learner, take(data, held), dataset, held)
        evidence.append(value)
        scored.append(truth)
    joined = scored[0].joined(scored) if scored[0] is not None else None
    return Outcome(
        name,
        says,
        np.concatenate(evidence),
        {} if joined is None else joined.by_row(),
        {} if joined is None else joined.of_all(),
        time.monotonic() - began,
    )


def summary(outcomes: Sequence[Outcome], seed: int = 0) -> dict[str, Any]:
    """What the comparison comes to: a dictionary that JSON can hold.

    The best method has the largest mean of held-out evidence. Intervals are 95 % bootstrap ones over observations; of
    differences to the best they are paired. A method is as good where that interval reaches 0.
    """
    from anygrain.metrics import mean_interval

    means = [float(o.evidence.mean()) for o in outcomes]
    best = int(np.argmax(means))
    rows = []
    for at, outcome in enumerate(outcomes):
        gap = outcome.evidence - outcomes[best].evidence
        ends = mean_interval(gap, seed=seed) if at != best else (0.0, 0.0)
        row: dict[str, Any] = {
            "method": outcome.method,
            "says": outcome.says,
            "evidence": means[at],
            "evidence_interval": [float(v) for v in mean_interval(outcome.evidence, seed=seed)],
            "behind": float(gap.mean()),
            "behind_interval": [float(v) for v in ends],
            "best": at == best,
            "as_good": bool(at == best or ends[1] >= 0),
            "seconds": outcome.seconds,
            "measures": {},
        }
        for name, values in outcome.truth.items():
            known = values[~np.isnan(values)]
            row["measures"][name] = {
                "value": float(known.mean()),
                "interval": [float(v) for v in mean_interval(known, seed=seed)],
                "rows": len(known),
            }
        for name, value in outcome.measures.items():
            row["measures"][name] = {"value": float(value), "interval": None, "rows": None}
        rows.append(row)
    return {"best": outcomes[best].method, "methods": rows}


def _say(result: dict[str, Any], screen: Screen) -> None:
    rows = result["methods"]
    names = list(rows[0]["measures"])
    table = [("", "held-out evidence", "behind the best", *(n.replace("_", " ") for n in names), "time")]
    for row in rows:
        low, high = row["behind_interval"]
        behind = "best" if row["best"] else f"{row['behind']:.3f} [{low:.3f}, {high:.3f}]"
        cells = [f"{row['measures'][n]['value']:.3f}" for n in names]
        mark = "*" if row["as_good"] else ""
        table.append(
            (f"{row['method']}{mark}", f"{row['evidence']:.3f}", behind, *cells, seconds(float(row["seconds"])))
        )
    screen.line(f"per held-out observation, {counted(result['observations'], 'of them', 'of them')}")
    screen.table(table, gap=3)
    screen.line("* best, or as good: the 95 % interval of the difference, observation by observation, reaches 0")


def _write_page(result: dict[str, Any], folder: Path, screen: Screen) -> None:
    from anygrain.report.compare_page import write_comparison

    try:
        write_comparison(result, folder / "compare.html")
    except ModuleNotFoundError:
        screen.line("no compare.html: it needs  pip install 'anygrain[report]'")
