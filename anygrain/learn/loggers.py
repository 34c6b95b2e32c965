"""Where the course of a fit is written: callbacks for `Learner.fit(callback=...)`.

`JsonLines` needs nothing; `TensorBoard` and `MLflow` write for the tools of these names (`anygrain[track]`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from anygrain.labels import LabelError


class Logger(Protocol):
    """A callback that is closed at the end."""

    def __call__(self, done: int, total: int, facts: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """One JSON object per finished step, added to a file."""

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.file = Path(file)
        self.file.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, done: int, total: int, facts: dict[str, Any]) -> None:
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"done": done, "total": total, **facts}) + "\n")

    def close(self) -> None:
        """Nothing is left open."""


class TensorBoard:
    """Every number of a finished step as a curve: `tensorboard --logdir FOLDER`.

    Raises:
        LabelError: tensorboard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise LabelError('the logger "tensorboard" needs it installed: pip install "anygrain[track]"') from error
        self.writer: Any = SummaryWriter(str(folder))

    def __call__(self, done: int, total: int, facts: dict[str, Any]) -> None:
        for name, value in numbers(facts).items():
            self.writer.add_scalar(name, value, done)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class MLflow:
    """Every number of a finished step as a metric of one run: `mlflow ui --backend-store-uri FOLDER`.

    Args:
        folder: of the store; MLFLOW_TRACKING_URI in the environment goes before it.
        name: of the run.
        resume: whether to go on with the last run of that name.

    Raises:
        LabelError: mlflow-skinny is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str], name: str, *, resume: bool = False) -> None:
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise LabelError('the logger "mlflow" needs mlflow-skinny: pip install "anygrain[track]"') from error
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            uri = Path(folder).resolve().as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow-skinny has no driver for a database
        self.client: Any = MlflowClient(tracking_uri=uri)
        found = self.client.get_experiment_by_name("anygrain")
        experiment = self.client.create_experiment("anygrain") if found is None else found.experiment_id
        earlier = self.client.search_runs([experiment]) if resume else []
        same = [run.info.run_id for run in earlier if run.info.run_name == name]
        self.run = same[0] if same else self.client.create_run(experiment, run_name=name).info.run_id

    def __call__(self, done: int, total: int, facts: dict[str, Any]) -> None:
        for name, value in numbers(facts).items():
            self.client.log_metric(self.run, name, value, step=done)

    def close(self) -> None:
        self.client.set_terminated(self.run)


def loggers_for(names: Sequence[str], folder: str | os.PathLike[str], *, resume: bool = False) -> list[Logger]:
    """Loggers by name, "tensorboard" or "mlflow", that write into folders of these names."""
    path = Path(folder)
    made: list[Logger] = []
    for name in names:
        if name == "tensorboard":
            made.append(TensorBoard(path / "tensorboard"))
        elif name == "mlflow":
            made.append(MLflow(path / "mlflow", path.name, resume=resume))
        else:
            raise LabelError(f'"{name}" is not a logger; expected "tensorboard" or "mlflow"')
    return made


def numbers(facts: dict[str, Any]) -> dict[str, float]:
    """The numbers among what was found, as "track/name"."""
    track = str(facts.get("track", "fit")).replace(" ", "_")
    return {
        f"{track}/{name}": float(value)
        for name, value in facts.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
