"""Classes as Gaussians whose shape and number the Bayesian information criterion chooses."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from anygrain.discover.class_number import FEWEST
from anygrain.discover.components import components, projected
from anygrain.discover.discoverer import Callback, Discoverer
from anygrain.discover.found import Found
from anygrain.discover.gaussians import Covariance, best_of
from anygrain.discover.task import Task
from anygrain.encoders.encoder import Encoder

SHAPES: tuple[Covariance, ...] = ("tied", "diagonal", "spherical")
GRID = 8  # numbers of classes that are tried first
ROWS = 5000  # of which the criterion is taken
CLOSE = 10.0  # difference of BIC from which on a number is no longer plausible: strong evidence


class GaussianMixture(Discoverer):
    r"""Gaussians with one covariance, diagonal ones or spherical ones; told rows stay where that allows.

    .. math:: \mathrm{BIC} = -2 \sum_i \log \sum_k \pi_k \mathcal N(z_i; \mu_k, \Sigma_k) P(o_i \mid y_i = k)
              + p \log N

    with p free parameters. Where the number of classes is not given, it is the one with the least BIC among eight from
    the lowest to the highest, at most an eighth of the rows, and then between its neighbours; below every coarse class
    by itself. BIC takes classes to be Gaussian: where they are not it finds too many, often the highest number allowed.

    Args:
        covariance: "tied", "diagonal", "spherical", or None: the one with the least BIC.
        components: principal components.
        starts: how many times each mixture is started, from k-means.

    Attributes:
        covariance_: the shape.
        bic_: of the mixture.

    Source: Schwarz, Estimating the dimension of a model, 1978; Fraley and Raftery, Model-based clustering, 2002; what
    is plausible: Kass and Raftery, Bayes factors, 1995.
    """

    finds_number = True
    learns_from = None

    def __init__(
        self,
        *,
        covariance: Covariance | None = None,
        components: int = 16,
        starts: int = 2,
        seed: int = 0,
        encoder: Encoder | None = None,
        device: str = "auto",
        bootstrap: int = 5,
    ) -> None:
        super().__init__(seed=seed, encoder=encoder, device=device, bootstrap=bootstrap)
        self.covariance, self.components, self.starts = covariance, components, starts

    def _find(self, task: Task, callback: Callback | None = None) -> Found:
        history: list[dict[str, Any]] = []
        shapes, interval, how = SHAPES if self.covariance is None else (self.covariance,), None, "given"
        if task.per_node is None:
            per_node, interval, shape = self._number(task, shapes, history)
            task, shapes, how = task.with_number(per_node), (shape,), "that with the least BIC"
        tried = []
        for shape in shapes:
            mixture, mean, basis, steps = best_of(task, self.components, self.starts, shape, callback)
            bic = -2 * mixture.value * task.n_rows + mixture.n_parameters() * math.log(task.n_rows)
            history += [{**step, "covariance": shape, "bic": bic} for step in steps]
            tried.append((bic, shape, mixture, mean, basis))
        bic, shape, mixture, mean, basis = min(tried, key=lambda one: one[0])
        why = f"{shape} covariance; the number of classes is {how}"
        facts = {"covariance": shape, "bic": bic}
        return Found(task.node, mixture.model(mean, basis), interval=interval, why=why, history=history, facts=facts)

    def _number(
        self, task: Task, shapes: tuple[Covariance, ...], history: list[dict[str, Any]]
    ) -> tuple[Tensor, tuple[int, int], Covariance]:
        """Number of classes below every coarse class (C,), an interval for the total, and the shape."""
        mean, basis = components(task.features, self.components, task.seed)
        flat = replace(task, features=projected(task.features, mean, basis))
        found: dict[Covariance, tuple[float, list[int], int, int]] = {}
        for shape in shapes:
            value, low, high = 0.0, 0, 0
            numbers: list[int] = []
            for c, part in enumerate(flat.split_by_node(ROWS)):
                bic = search(part, shape, history, c)
                best = min(bic, key=bic.__getitem__)
                close = [number for number, own in bic.items() if own <= bic[best] + CLOSE]
                value, numbers = value + bic[best], [*numbers, best]
                low, high = low + min(close), high + max(close)
            found[shape] = (value, numbers, low, high)
        shape = min(found, key=lambda one: found[one][0])
        _, chosen, low, high = found[shape]
        return torch.tensor(chosen), (low, high), shape


def search(task: Task, shape: Covariance, history: list[dict[str, Any]], group: int) -> dict[int, float]:
    """BIC by number of classes: of some from the lowest to the highest, then of those around the best."""
    found: dict[int, float] = {}

    def read(numbers: list[int]) -> None:
        for number in numbers:
            if number not in found:
                flat = task.with_number(torch.tensor([number]))
                mixture = best_of(flat, task.features.shape[1], 1, shape)[0]
                found[number] = -2 * mixture.value * task.n_rows + mixture.n_parameters() * math.log(task.n_rows)
                history.append({"step": f"group {group + 1}", "classes": number, "bic": found[number]})

    least = max(task.least, 1)
    most = min(task.most, max(task.n_rows // FEWEST, least))  # with fewer rows a class, likelihood has no bound
    ratio = most / least
    read(sorted({round(least * ratio ** (i / (GRID - 1))) for i in range(GRID)}))
    for _ in range(2):
        tried = sorted(found)
        at = tried.index(min(found, key=found.__getitem__))
        around = [tried[max(at - 1, 0)], tried[at], tried[min(at + 1, len(tried) - 1)]]
        read([round((one + two) / 2) for one, two in pairwise(around)])
    return found
