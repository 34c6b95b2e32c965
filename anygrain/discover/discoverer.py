"""The contract of every method that finds classes."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from anygrain.discover.class_number import class_number
from anygrain.discover.evidence import believed
from anygrain.discover.exemplars import exemplars, nearest_known
from anygrain.discover.found import ClassModel, Found
from anygrain.discover.linked import linked_choice
from anygrain.discover.placed import class_names, taxonomy_of
from anygrain.discover.stability import stability
from anygrain.discover.task import Number, Task, fixed_features, read_task
from anygrain.encoders.encoder import Encoder
from anygrain.encoders.trainable import Inputs, TrainableEncoder, in_batches
from anygrain.learn.fabric import device_of
from anygrain.learn.loop import FeatureRows

AT_ONCE = 8192  # rows that go through a model together
LEARNT_ROWS = 30_000  # from which a method learns, where it need not see all,
PER_CLASS = 100  # or so many times the number of classes

#: called as (steps done, steps in all, facts)
Callback = Callable[[int, int, dict[str, Any]], None]


class Discoverer(ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Finds classes in rows of which something, little or nothing is said.

    A method gives `_find(task) -> Found`; all else is here. Known classes keep their indices and names: they are the
    first of the K classes, in the order of the labels; new ones follow, by the node (coarse class) above them.

    Args:
        seed: where all that is random comes from.
        encoder: an `Encoder`, or None: chosen for the data, and read as it is. One that is given and can be trained is
            trained with the classes by methods that have gradients, and read as it is by the others.
        device: "auto" (a GPU if there is one), "cpu", "cuda", ...
        bootstrap: how many times the classes are looked for again in a random half of the rows, for `stability_`;
            0 for not at all.

    Attributes:
        labels_: (N,) class of every row, 0..K-1: the most probable, so that pairs hold.
        log_probs_: (N, K) log-probabilities of the classes, given what is said of the rows.
        n_classes_: K; `n_classes_interval_`: lowest and highest plausible K, equal where K was given.
        class_names_: (K,); a new class is called "new 1", or "department / 1" under a coarse class.
        node_: (K,) the coarse class above every class; `node_names_`: their names, none where nothing coarse is known.
        known_: (K,) whether a class was known before.
        taxonomy_: the classes under their coarse classes; flat where there are none.
        nearest_known_: (K,) index of the known class whose mean lies nearest in the space of the model, -1 where there
            is none; a known class is its own.
        exemplars_: for every class the rows nearest to its mean, nearest first, at most 5.
        stability_: (K,) mean Jaccard index of a class with the class most like it, over refits on halves of the rows:
            above .75 it is real, below .5 it dissolves; NaN where `bootstrap` is 0.
        why_: what was chosen and why, in a sentence.
        history_: one dict per step.

    Source of stability: Hennig, Cluster-wise assessment of cluster stability, 2007.
    """

    #: whether the method looks for the number of classes itself where it is not given
    finds_number = False
    #: whether an encoder that is given and can be trained is trained; else its features are read as they are
    trains_encoder = False
    #: about how many rows a method learns from at most, or 100 times the number of classes: those that `Task.sample`
    #: draws; its model reads the others. None for all, as for methods that give log-probabilities or facts of rows
    learns_from: int | None = LEARNT_ROWS

    def __init__(
        self, *, seed: int = 0, encoder: Encoder | None = None, device: str = "auto", bootstrap: int = 5
    ) -> None:
        self.seed, self.encoder, self.device, self.bootstrap = seed, encoder, device, bootstrap

    @abstractmethod
    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        """Look for classes; `task.per_node` is known unless the method finds the number itself."""

    def fit(self, data: Any, labels: Any = None, n_classes: Number = None, *, callback: Callback | None = None) -> Self:
        """Find the classes of some rows.

        Args:
            data: N rows: features (N, D), texts, a data frame, pictures: what the encoder reads.
            labels: what is said of the rows: `Labels` of rows or pairs of rows, or several joined by `&`; a vector of
                classes, missing where not known; None for nothing. Of `Coarse` labels the classes are to be divided.
            n_classes: the total number K, known classes included; (lowest, highest); a mapping from every coarse class,
                by name or index, to the number of classes in it; None: it is found.
            callback: called after every step.

        Raises:
            LabelError: what cannot be: more classes than rows, a number below that of the known classes, a coarse class
                with fewer rows than classes, contradictory links (two rows are named), rows that are all the same.
        """
        device = device_of(self.device)
        task, self.encoder_ = read_task(
            data,
            labels,
            n_classes,
            encoder=self._own_encoder(),
            train=self.trains_encoder,
            seed=self.seed,
            device=device,
        )
        return self._fit_task(task, callback)

    def _fit_task(self, task: Task, callback: Callback | None = None) -> Self:
        """Find the classes of a task that was read."""
        interval: tuple[int, int] | None = None
        if task.per_node is None and not self.finds_number:
            per_node, interval = class_number(task)
            task = task.with_number(per_node)
        part = self._some(task)
        found = self._find(part, callback)
        if part.n_rows < task.n_rows:  # of the other rows only the model knows
            found = replace(found, log_probs=None)
        self._keep(task, found, interval, callback=callback)
        return self

    def _some(self, task: Task) -> Task:
        """The rows that the method learns from."""
        return task if self.learns_from is None else task.sample(max(self.learns_from, PER_CLASS * task.most))

    def _own_encoder(self) -> Encoder | None:
        return copy.deepcopy(self.encoder)

    def _keep(
        self,
        task: Task,
        found: Found,
        interval: tuple[int, int] | None,
        bootstrap: int | None = None,
        callback: Callback | None = None,
    ) -> None:
        k, known = len(found.node), task.n_known
        self.model_, self._trained = found.model.eval(), task.encoder is not None
        self.n_classes_, self.node_, self.node_names_ = k, found.node.numpy(), task.evidence.node_names
        self.n_classes_interval_ = found.interval or interval or (k, k)
        self.known_ = np.arange(k) < known
        self.class_names_ = class_names(task, found.node)
        said = self._read(task.rows) if found.log_probs is None else found.log_probs.cpu()
        posterior = believed(said, task.evidence, found.node)
        del said
        self.labels_ = linked_choice(posterior, task.evidence).numpy()
        posterior.clamp_(min=1e-12)
        self.log_probs_ = posterior.div_(posterior.sum(dim=1, keepdim=True)).log_().numpy()
        self.taxonomy_ = taxonomy_of(self.class_names_, found.node, task.evidence.node_names)
        as_they_are = task.encoder is None and type(self.model_).embed is ClassModel.embed
        embedded = (
            task.features.cpu() if as_they_are else in_batches(self.model_.embed, task.rows, AT_ONCE, self.model_)
        )
        self.exemplars_ = exemplars(embedded, torch.from_numpy(self.labels_), k)
        self.nearest_known_ = nearest_known(embedded, torch.from_numpy(self.labels_), k, known)
        self.stability_ = stability(
            found.again or self._find,
            task.with_number(torch.bincount(found.node, minlength=task.evidence.n_nodes)),
            self.labels_,
            self.bootstrap if bootstrap is None else bootstrap,
            callback,
        )
        self.why_, self.history_ = found.why, found.history
        for name, value in found.facts.items():
            setattr(self, f"{name}_", value)

    def _read(self, rows: Inputs) -> Tensor:
        return in_batches(self.model_, rows, AT_ONCE, self.model_)

    def _rows(self, data: Any) -> Inputs:
        check_is_fitted(self, "model_")
        if self._trained:
            assert isinstance(self.encoder_, TrainableEncoder)
            return self.encoder_.inputs(data)
        return FeatureRows(fixed_features(self.encoder_, data))

    def predict_log_proba(self, data: Any) -> np.ndarray:
        """Log-probabilities (N, K) of new rows, of which nothing is said."""
        return np.asarray(self._read(self._rows(data)).numpy())

    def predict_proba(self, data: Any) -> np.ndarray:
        """Probabilities (N, K) of new rows."""
        proba: np.ndarray = np.exp(self.predict_log_proba(data))
        return proba

    def predict(self, data: Any) -> np.ndarray:
        """The class (N,) of new rows, 0..K-1."""
        return np.asarray(self.predict_log_proba(data).argmax(axis=1))
