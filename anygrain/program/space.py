"""What fits of classes, of a number and of tags do differently."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from anygrain.data.config import Config
from anygrain.data.dataset import Given
from anygrain.program.screen import Screen
from anygrain.program.trained import is_trained

D = TypeVar("D", bound=Given[Any])


class Space(ABC, Generic[D]):
    """One of the three; a configuration belongs to one by the kinds of its labels."""

    name: str

    @abstractmethod
    def read(self, config: Config) -> D:
        """Everything that a configuration names, checked."""

    @abstractmethod
    def soften(self, dataset: D) -> D:
        """The same data with labels that may be wrong, where some contradict each other."""

    @abstractmethod
    def warnings(self, dataset: D) -> list[str]:
        """What is worth knowing before a fit."""

    @abstractmethod
    def says(self, dataset: D) -> str:
        """What is learnt, in a few words."""

    def counts(self, dataset: D) -> list[tuple[str, ...]]:
        """How much there is of everything that is learnt, a table with a header; empty where that means nothing."""
        return []

    def folds(self, dataset: D) -> int:
        """Parts that rows are split in, so that a row is scored by heads that did not see it."""
        from anygrain.learn.cross_fit import PARTS

        trained = is_trained(dataset.config, dataset.columns)
        return PARTS if trained else dataset.config.learn.folds

    @abstractmethod
    def learner(self, config: Config, dataset: D) -> tuple[Any, Any]:
        """The Learner that a configuration asks for, and the data in the form that it reads."""

    @abstractmethod
    def estimate(self, dataset: D, config: Config) -> tuple[float, float]:
        """Seconds and bytes that a fit needs, roughly."""

    @abstractmethod
    def width(self, dataset: D) -> int:
        """How many numbers a head gives for a row."""

    @abstractmethod
    def measure(self, dataset: D, learner: Any, features: np.ndarray, config: Config) -> Measurement:
        """What the fit is worth."""

    @abstractmethod
    def reload(self, path: Path, dataset: D) -> str:
        """A line of Python that predicts with the run."""

    @abstractmethod
    def say_result(self, metrics: dict[str, Any], dataset: D, screen: Screen) -> None:
        """Say how good it is, and what is worth knowing."""


class Measurement(ABC):
    """What a fit is worth, before it is written.

    Attributes:
        metrics: the part of metrics.json that differs between spaces.
        groups: shares (N, K) of groups of rows that a map should keep apart.
        notes: sentences that the fit adds to what is worth knowing.
    """

    metrics: dict[str, Any]
    groups: np.ndarray
    notes: list[str]

    @abstractmethod
    def table(self, places: np.ndarray | None) -> dict[str, Any]:
        """The columns of labels.parquet."""


def space_of(config: Config) -> Space[Any]:
    """The space of a configuration's labels."""
    if config.space == "real":
        from anygrain.program.of_numbers import NumberSpace

        return NumberSpace()
    if config.space == "tags":
        from anygrain.program.of_tags import TagSpace

        return TagSpace()
    from anygrain.program.of_classes import ClassSpace

    return ClassSpace()
