"""What models said of the training rows without having seen them, kept in a run folder as held_out.safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.data.error import InputError
from anygrain.data.run_folder import RunFolder
from anygrain.data.table import read_table

FILE = "held_out.safetensors"
FLOOR = -60.0  # of log-probabilities, which are kept in half precision


def keep_held_out(learner: Any, folder: RunFolder) -> None:
    """Write held-out log-probabilities (N, K) of instances, or mean and variance (N,), and where there are any."""
    held = torch.as_tensor(learner.held_out_)
    if learner.space_ == "real":
        said = {
            "mean": torch.as_tensor(learner.held_out_mean_),
            "variance": torch.as_tensor(learner.held_out_variance_),
        }
    else:
        said = {"log_probs": _kept(learner.held_out_log_probs_)}
    folder.write_tensors(FILE, {**said, "held_out": held})


def said_of(learner: Any) -> Any:
    """What `held_out_of` gives of a run, from the fitted learner."""
    if learner.space_ == "real":
        return tuple(torch.as_tensor(v).double().numpy() for v in (learner.held_out_mean_, learner.held_out_variance_))
    return _read_back(_kept(learner.held_out_log_probs_))


def _kept(log_probs: Any) -> Tensor:
    """Log-probabilities as the file holds them."""
    return torch.as_tensor(log_probs).clamp(min=FLOOR).half()


def _read_back(kept: Tensor) -> Tensor:
    return kept.float().log_softmax(dim=1)


def held_out_of(run: Path, n: int) -> tuple[Any, np.ndarray]:
    """What models said of instances, and held out, bool (N,): False where a model speaks that has seen the row.

    Log-probabilities (N, K), or mean and variance of a number, both (N,).

    Args:
        run: a run folder.
        n: instances that the labels of the run have now.

    Raises:
        InputError: no such file, or another number of instances.
    """
    found = _read(run, n)
    held = found["held_out"].bool().numpy()
    if "log_probs" in found:
        return _read_back(found["log_probs"]), held
    return (found["mean"].double().numpy(), found["variance"].double().numpy()), held


def held_out_log_probs(run: Path, n: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N, K) and held out, bool (N,), of a run of classes or tags; see `held_out_of`."""
    found = _read(run, n)
    return _read_back(found["log_probs"]), found["held_out"]


def check_same_rows(run: Path, ids: np.ndarray) -> None:
    """Check that a table still has the rows of a run, in their order.

    Args:
        run: a run folder.
        ids: row ids that are there now, (N,).

    Raises:
        InputError: other rows, or another order.
    """
    known = read_table(run / "labels.parquet").strings("row")
    n = min(len(known), len(ids))
    moved = np.flatnonzero(known[:n].astype(str) != ids[:n].astype(str))
    if len(known) != len(ids) or len(moved):
        at = int(moved[0]) if len(moved) else n
        now = f"is {ids[at]} now" if at < len(ids) else "is not there any more"
        was = f"row {at} was {known[at]} and {now}" if at < len(known) else f"row {at}, {ids[at]}, is new"
        raise InputError(f"the table of {run} has changed since the fit: {was}. Fit again")


def _read(run: Path, n: int) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    path = run / FILE
    if not path.exists():
        raise InputError(f"{run} holds no {FILE}. Expected a run of this version: anygrain fit writes it")
    found = load_file(path)
    if len(found["held_out"]) != n:
        raise InputError(
            f"the table of {run} has changed: {len(found['held_out'])} rows were trained on, and {n} are there now. "
            "Fit again"
        )
    return dict(found)
