"""Procedures: another way to fit, in place of the default recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from anygrain.labels import Labels

if TYPE_CHECKING:
    from anygrain.learn.learner import Learner


class Procedure:
    """Fits `learner.head_` to features (N, D) and labels of the same N instances.

    It is built from `learner.step(features, labels, instances, epoch)`, which gives a `Step` with gradient,
    `learner.objective(step)`, the loss with terms and weighting, `learner.posterior_of(features, labels)` and
    `learner.evaluate(features, labels)`, the mean log-likelihood of evidence. A procedure says in its docstring which
    losses, terms and weightings it composes with.

    Channels of the labels, how annotators, rules and `Noisy` err, were fitted to the features by the recipe before,
    with a linear head. The temperature is found afterwards, from rows that a second run, of a copy, was not given; a
    procedure that finds it from rows that it held out itself sets `learner.temperature_` and says so.
    """

    #: whether `run` finds the temperature
    finds_temperature = False

    def for_instances(self, instances: Tensor) -> Procedure:
        """The procedure for some of the instances (n,): of what it was given by instance, what is theirs."""
        return self

    def check(self, learner: Learner, labels: Labels) -> None:
        """Refuses, before any work, what it cannot fit; called by `Learner.fit`.

        Raises:
            LabelError: settings of the learner or labels that it does not go with.
        """

    def run(self, learner: Learner, features: Tensor, labels: Labels) -> None:
        raise NotImplementedError
