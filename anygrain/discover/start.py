"""Where a method that refines classes starts: what another method says of the rows."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from anygrain.discover.discoverer import AT_ONCE, Callback, Discoverer
from anygrain.discover.evidence import believed
from anygrain.discover.found import Found
from anygrain.discover.methods import method
from anygrain.discover.task import Task
from anygrain.encoders.trainable import in_batches
from anygrain.learn.loop import FeatureRows

ROWS_AT_ONCE = 65536

#: a method by its name or as it is
Start = str | Discoverer


def found_by(start: Start, task: Task, callback: Callback | None = None) -> Found:
    """What a method finds in the fixed features of a task with a known number of classes."""
    one = method(start)(seed=task.seed) if isinstance(start, str) else start
    return one._find(on_features(task), callback)


def on_features(task: Task) -> Task:
    """The same task for methods that read features as they are."""
    return replace(task, rows=FeatureRows(task.features), encoder=None)


def log_probs_of(found: Found, task: Task) -> Tensor:
    """Log-probabilities (N, K) of the rows' classes by what was found alone, on the CPU; see `given_said`."""
    log_probs = found.log_probs
    if log_probs is None:
        log_probs = in_batches(found.model, task.rows, AT_ONCE, found.model)
    return log_probs.cpu()


def given_said(found: Found, task: Task) -> Tensor:
    """Probabilities (N, K) of the rows' classes by what was found and what is said of them, float32, on the CPU.

    Args:
        task: that in which it was found: of a network that reads features, `on_features`.
    """
    return believed(log_probs_of(found, task), task.evidence, found.node)


def class_sums(x: Tensor, share: Tensor) -> Tensor:
    """Sums (K, D) of rows (N, D) by their shares (N, K) in the classes."""
    parts = zip(share.split(ROWS_AT_ONCE), x.split(ROWS_AT_ONCE), strict=True)
    return torch.stack([own.T @ part for own, part in parts]).sum(dim=0)
