"""The folder of one run: what stands in it, and how it is written whole or not at all.

::

    RUN/
      config.toml      the configuration with every default written out; paths absolute, so that it can be run again
      model/           the learner: config.json and model.safetensors (see `anygrain.load`)
      labels.parquet   one line per data row: what the row's class is taken to be, and how well its labels fit
      held_out.safetensors   what models said of every row without having seen it, which ask and audit read
      metrics.json     everything that was measured
      report.html      the same, to look at
      tensorboard/, mlflow/   the course of the fit for these tools, where they were asked for
      log.jsonl        one JSON object per line: {"time", "event", ...}, in order of time
      conflicts.csv    only with conflicts = "soften", and only when rows contradict themselves: row, problem
      .lock            while a fit works here
      .state/          while a fit is unfinished: what it needs to go on

**labels.parquet.** Rows stand in the order of the data source. Probabilities are those of *cross-fitted* models: no
row was scored by a model that was trained on it.

==================  =======  ===========================================================================================
column              type     meaning
==================  =======  ===========================================================================================
row                 string   row id: the id column as text, or the number of the row (from 0) where there is none
class               string   the most probable class given the features and all labels of the row
probability         float    its probability
entropy             float    entropy of that distribution, in nats
predicted           string   the most probable class from the features alone
predicted_prob      float    its probability
evidence            float    log P(labels of the row | features), in nats; null where the row has no label
wrong_labels        int      how many labels of the row look wrong: they are more probably wrong than right, where a
                             label is right if the true class is the one that it names, or one of those
suspect             float    -log P(right | features, all labels) of the row's most suspect label, in nats, from 0 to
                             13.8; above log 2 = .69 it looks wrong; null where the row has no label of its own
suspect_source      string   who gave that label: the column or the annotator
suspect_value       string   what it says
exact               string   the exact class given for the row, or null
given               string   all labels of the row, "department=Billing; worker_2=refund"
text                string   the first 160 characters of the text, or the first columns as "name=value"
map_x, map_y        float    place of the row on a map (`anygrain.report.row_map`); null where not placed
==================  =======  ===========================================================================================

Where the labels speak of a number, ``class`` to ``predicted_prob`` and ``exact`` give way to

==================  =======  ===========================================================================================
column              type     meaning
==================  =======  ===========================================================================================
mean, sd            float    mean and standard deviation given the features and all labels of the row
predicted           float    the mean from the features alone
predicted_sd        float    its standard deviation
value               float    the value given for the row, or null
==================  =======  ===========================================================================================

Where they speak of tags, ``class`` to ``predicted_prob`` and ``exact`` give way to

==================  =======  ===========================================================================================
column              type     meaning
==================  =======  ===========================================================================================
tags                list     tags that are more probable than not given the features and all labels of the row
predicted           list     the same from the features alone
given               list     tags that labels say the row has (in place of the text ``given``)
given_absent        int      number of tags that labels say it lacks
p_NAME              float    probability of each tag given the features and all labels
predicted_p_NAME    float    the same from the features alone
==================  =======  ===========================================================================================

**metrics.json.** Numbers are finite or null. Intervals are [low, high] at 95 %.

- ``format``: "anygrain-run-1"
- ``name``: name of the run folder; ``created``: ISO 8601; ``seconds``: total; ``stages``: {stage: seconds}
- ``command``: the command line; ``reload``: a line of Python; ``seed``; ``versions``: {package: version}
- ``data``: {``source``, ``rows``, ``classes`` (K), ``rows_with_labels``, ``text`` (columns), ``columns``, ``features``
  (number), ``encoder`` (in words), ``encoded`` (dimensions), ``bags`` (number, or null), ``missing`` (values)}
- ``classes``: the K names
- ``evidence``: what was read as what, a list of {``name``, ``kind``, ``source`` (file), ``columns`` (list), ``says``
  (in words), ``labels`` (number of labels: values, votes, sets), ``rows`` (data rows with at least one), ``of``
  (data rows), ``values`` (number of distinct values), ``simulated`` (true, or false)}
- ``evaluation``: null without exact rows, else
    - ``rows``, ``folds``, ``method`` (one sentence: how the rows were kept out)
    - ``entries``: a list, ours first, of {``key``, ``name``, ``ours`` (bool), ``rows``, ``correct``, ``accuracy``,
      ``interval`` (Wilson), ``log_loss`` (nats, or null), ``ece`` (10 equal-width bins, or null)}. Keys:
      ``posterior`` (features and the row's other labels), ``features`` (features alone), ``exact_only`` (a model that
      was trained on the exact rows alone), ``labels`` (the row's other labels together, without features),
      ``labels:NAME`` (one kind alone), ``majority`` (the most frequent exact class)
    - ``reliability``: of ``posterior``, a list of {``low``, ``high``, ``rows``, ``confidence``, ``accuracy``,
      ``interval``}, empty bins left out; ``reliability_features``: of ``features``
- ``held_out``: {``evidence_per_row``: mean log P(labels of a row | features) over rows with labels, ``rows``,
  ``chance``: the same for uniform probabilities}
- ``conflicts``: {``rows``: number of rows that contradict themselves, ``mode``: "stop" or "soften", ``examples``:
  list of {``row``, ``problem``}, at most 20, ``file``: "conflicts.csv" or null}
- ``agreement``: for every two kinds that speak of the same rows {``first``, ``second``, ``rows``, ``agree``,
  ``share``, ``interval``}: how often the class most probable by the first alone is possible, or most probable, by
  the second
- ``sources``: annotators, rules and label columns, a list of {``name``, ``part`` (name of the evidence), ``kind``,
  ``labels``, ``accuracy`` (expected, by the model and all labels; of annotators and rules as
  `anygrain.audit.judge_annotators` and `judge_rules` have it), ``interval``, ``agreement`` (share of its labels that
  another label of the same row confirms, or null), ``compared`` (number of such labels), ``suspects`` (labels that look
  wrong)}
- ``confusion``: for every parent class (one entry with ``parent`` null without a taxonomy) {``parent``, ``classes``,
  ``matrix`` (rows: class given the features and all labels; columns: class predicted from the features), ``rows``,
  ``inside`` (share of rows whose prediction stays inside the parent)}; at most 60 classes per entry, most frequent
  first, the rest under "other"
- ``classes_table``: a list of {``class``, ``expected`` (sum of posterior), ``exact`` (exact rows), ``labels`` (labels
  that name it)}
- ``worst``: at most 20 labels that look wrong, the most suspect first, a list of {``row``,
  ``source``, ``given``, ``proposed``, ``probability``, ``wrong`` (probability that the label is wrong), ``suspect``
  (-log P(right), nats), ``text``, ``image`` (a small JPEG as a data address, or null)}, with the most probable class
  as ``proposed``. For sets ``row`` is the bag, and ``proposed``, ``probability`` and ``image`` are
  null
- ``suspects``: number of labels that look wrong: P(wrong | features, all labels) > .5, by `anygrain.audit.suspects` and
  what ``held_out.safetensors`` holds
- ``learner``: {``chosen``: what the fit settled on, in words, ``temperature``, ``rounds``, ``exact_only_won`` (bool)}
- ``history``: per round of the final fit {``round``, ``evidence`` (per row, fitted), ``held_out`` (per row), and
  whatever else the learner tells}
- ``warnings``: sentences; ``notes``: sentences

``space`` is "classes", "real" or "tags". Of a number there are no ``classes``, ``confusion`` and ``classes_table``;
``quantity`` is its name, and

- ``evaluation``: null with fewer than two given values. ``entries`` have ``rmse``, ``mae``, ``r2``, ``crps`` and
  ``log_density`` (nats), each with ``..._interval`` (bootstrap), and ``coverage``: for the levels .5, .8, .9 and .95
  {``level``, ``share`` (of given values inside), ``interval`` (Wilson), ``rows``, ``width`` (mean)}. Keys
  ``exact_only`` (ridge regression on the values alone) and ``mean`` (mean of the labels); the others as above.
  ``calibration``: the same for levels .05 to .95, from the features, without ``width``; the width of intervals
  of either half of the rows comes from the residuals of the other half, as that of predictions comes from all
- ``held_out``: ``chance`` is one normal distribution for all rows
- ``agreement``: ``correlation``, ``difference`` (mean of second - first) and ``rms`` in place of ``agree`` to
  ``interval``
- ``sources``: {``name``, ``part``, ``kind``, ``labels``, ``suspects``, ``bias``, ``interval`` (of the bias),
  ``spread``, ``slope``}, the last four null but for annotators
- ``worst``: the 20 labels that are hardest to believe; ``expected``, ``spread`` and ``away``, what all else expects of
  the label, the standard deviation of that, and the distance in standard deviations, in place of ``proposed`` and
  ``probability``
- ``learner``: {``chosen``, ``head``, ``penalty``, ``spread`` (factor on standard deviations), ``exact_only_won``}

Of tags there are no ``classes``, ``confusion`` and ``classes_table``; ``data.classes`` is the number of tags, ``tags``
are their names, an *entry* is a tag of a row, and

- ``evaluation``: null where known entries are all of one sort. ``known`` is their number, ``threshold`` the
  probability above which a tag is named. ``entries`` have ``map``, ``auc`` (means of tags), ``micro_f1``,
  ``macro_f1``, ``log_loss`` (each of the three with ``..._interval``, by bootstrap over rows), ``brier``, ``ece``,
  ``ranking_loss`` and ``coverage``. Keys ``posterior`` (only where several kinds speak of the same entries),
  ``features`` and ``prior`` (the frequency of every tag). ``reliability``: as above, of P(has the tag) from the
  features; ``precision_recall``: {``threshold``, ``precision``, ``recall`` (lists), ``average_precision``} of all
  entries together
- ``tags_table``: a list of {``tag``, ``on``, ``off``, ``unknown`` (rows), ``expected``, ``predicted``, ``share``,
  ``average_precision``, ``auc``, ``precision``, ``recall``, ``f1``, ``brier``, ``log_loss``, ``ece``,
  ``log_loss_prior``, ``wrongly_on``, ``wrongly_off`` (entries that look wrong)}
- ``together``: {``tags``: at most 40, ``matrix``: expected number of rows with both, on the diagonal with one}
- ``held_out``: ``chance`` is the frequency of every tag
- ``agreement``: over entries; ``on``: where one says that the row has the tag, ``share_on``: agreement there
- ``sources``: two for every kind, what it says rows have and lack, without ``agreement`` and ``compared``
- ``worst``: ``tag``, ``given`` ("has" or "lacks") and ``probability`` of having it; no ``proposed``
- ``learner``: {``chosen``, ``error`` (that kinds share)}
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, ClassVar

from anygrain.data.error import InputError, counted, some
from anygrain.data.table import check_place

FORMAT = "anygrain-run-1"
WRITTEN = (
    "config.toml",
    "model",
    "labels.parquet",
    "held_out.safetensors",
    "metrics.json",
    "report.html",
    "log.jsonl",
    "tensorboard",
    "mlflow",
    "conflicts.csv",
    "audit",
    ".lock",
    ".state",
)


class RunFolder:
    """A run folder that is being written; use it as a context, which holds its lock.

    Args:
        path: the folder; made when the context is entered.
        config: the configuration, as TOML; a fit goes on only with the same one.
        data: what the configuration read, as a short text that changes when the data do.

    Attributes:
        noun: what the folder holds, in messages.
        written: names of all that it may hold.
        result: the file that is there once it is finished.
    """

    noun: ClassVar[str] = "run"
    written: ClassVar[tuple[str, ...]] = WRITTEN
    result: ClassVar[str] = "metrics.json"

    def __init__(self, path: str | Path, config: str, data: str):
        self.path = Path(path)
        self.config, self.data = config, data
        self.state = self.path / ".state"
        self._lock: IO[str] | None = None

    # -- may it be used? ----------------------------------------------------------------------------------------------

    def check(self, *, resume: bool = False, overwrite: bool = False) -> str:
        """What can be done in this folder: "new", "resume", "overwrite" or "finished" (nothing is left to do).

        Raises:
            InputError: it is in use, holds another run, or holds something else; with what to type.
        """
        path = self.path
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file. Choose another --out")
        check_place(path)
        present = sorted(p.name for p in path.iterdir()) if path.exists() else []
        if not present:
            return "new"
        strange = [name for name in present if name not in self.written and not name.endswith(".part")]
        if strange:
            raise InputError(
                f"{path} holds {counted(len(strange), 'file')} that no {self.noun} wrote: {some(strange)}. Choose "
                "another --out"
            )
        if _is_locked(path / ".lock"):
            raise InputError(f"{path} is in use by another fit. Wait for it, or choose another --out")
        progress = self.progress()
        if overwrite:
            return "overwrite"
        if progress is None:
            if not (path / self.result).exists():
                raise InputError(
                    f"{path} holds the rest of a {self.noun} that stopped early. Add --overwrite to start again, or "
                    "choose another --out"
                )
            if resume:
                return "finished"
            raise InputError(
                f"{path} holds a finished {self.noun}. Add --overwrite to replace it, or choose another --out"
            )
        same = progress["config"] == self.config
        at = f"step {progress['done']} of {progress['total']}" if progress.get("total") else "before its first step"
        if not resume:
            what = "same config" if same else "another config"
            go_on = "Add --resume to continue, --overwrite" if same else "Add --overwrite"
            raise InputError(
                f"{path} holds an unfinished {self.noun} ({at}, {what}). {go_on} to start again, or choose another "
                "--out"
            )
        if not same:
            raise InputError(
                f"{path} was begun with another configuration "
                f"({_first_difference(progress['config'], self.config)}). Use the same one to "
                "--resume, or --overwrite to start again"
            )
        if progress["data"] != self.data:
            raise InputError(
                f"{path} was begun on other data: a file has changed since. Add --overwrite to start again"
            )
        return "resume"

    def progress(self) -> dict[str, Any] | None:
        """How far an unfinished run has come; None where there is none."""
        try:
            found: dict[str, Any] = json.loads((self.state / "progress.json").read_text())
            return found
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    # -- writing ------------------------------------------------------------------------------------------------------

    def open(self, how: str) -> None:
        """Take the folder: lock it, and clear it unless a run goes on."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.path} cannot be made: {error.strerror}. Choose another --out") from error
        self._lock = _lock(self.path / ".lock")
        if how != "resume":
            self._clear()
            self.state.mkdir()
            self.say_progress(0, 0)
        self.log("resumed" if how == "resume" else "started")

    def _clear(self) -> None:
        for name in self.written:
            target = self.path / name
            if name == ".lock":
                continue
            if target.is_dir():
                shutil.rmtree(target)
            elif target.exists():
                target.unlink()

    def say_progress(self, done: int, total: int, **more: Any) -> None:
        self.write_json(
            ".state/progress.json", {"done": done, "total": total, "config": self.config, "data": self.data, **more}
        )

    def log(self, event: str, **facts: Any) -> None:
        """Append a line to log.jsonl."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **facts}
        with open(self.path / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(plain(line), ensure_ascii=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """A file, whole or not at all."""
        write_whole(self.path / name, text)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        self.write_text(name, json.dumps(plain(value), ensure_ascii=False, indent=1, allow_nan=False) + "\n")

    def write_tensors(self, name: str, tensors: Mapping[str, Any], metadata: dict[str, str] | None = None) -> None:
        """Tensors as safetensors, whole or not at all."""
        from safetensors.torch import save_file

        target = self.path / name
        part = target.with_name(target.name + ".part")
        save_file({key: t.detach().contiguous().clone() for key, t in tensors.items()}, part, metadata=metadata)
        part.replace(target)

    def keep_step(self, number: int, tensors: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """What one finished step of a fit left, whole or not at all."""
        name = (self.state / f"{number:05d}.safetensors").relative_to(self.path)
        self.write_tensors(str(name), tensors, {"facts": json.dumps(plain(facts))})

    def steps(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Tensors and facts of the finished steps, in order."""
        from safetensors import safe_open

        out = []
        for path in sorted(self.state.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
                out.append((tensors, json.loads(file.metadata()["facts"])))
        return out

    def finish(self, **facts: Any) -> None:
        """The run is complete: what was needed to go on is removed."""
        self.log("finished", **facts)
        shutil.rmtree(self.state, ignore_errors=True)

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            (self.path / ".lock").unlink(missing_ok=True)

    def discard(self) -> None:
        """Take back what an opened folder holds, because the input turned out to be bad."""
        self.close()
        self._clear()
        self.path.rmdir()

    def size(self) -> int:
        """Bytes of everything in the folder."""
        return sum(p.stat().st_size for p in self.path.rglob("*") if p.is_file())


def write_whole(path: Path, text: str) -> None:
    """A text to a file, whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def plain(value: Any) -> Any:
    """Numbers, strings, lists and dicts that JSON can hold; NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Path):
        return str(value)
    return value


def fingerprint(paths: list[str | Path]) -> str:
    """A short text that changes when one of the files does."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def _first_difference(before: str, now: str) -> str:
    import tomllib

    old, new = _flat(tomllib.loads(before)), _flat(tomllib.loads(now))
    changed = [k for k in dict.fromkeys([*old, *new]) if old.get(k) != new.get(k)]
    return some([f"{k} was {old.get(k)!r}, is {new.get(k)!r}" for k in changed], 1) if changed else "its form"


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{name}.{key}".strip(".")).items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {k: v for at, inner in enumerate(value) for k, v in _flat(inner, f"{name}.{at}").items()}
    return {name: value}


def _lock(path: Path) -> IO[str]:
    """A file that is held until it is closed, or the program ends.

    Raises:
        InputError: somebody else holds it.
    """
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (stays open while the run does)
    try:
        _hold(file)
    except OSError as error:
        file.close()
        raise InputError(f"{path.parent} is in use by another fit. Wait for it, or choose another --out") from error
    file.truncate(0)
    file.write(f"{os.getpid()} {time.time():.0f}\n")
    file.flush()
    return file


def _hold(file: IO[str]) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    with open(path, "a", encoding="utf-8") as file:
        try:
            _hold(file)
        except OSError:
            return True
    return False
