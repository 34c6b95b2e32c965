r"""The temperature of a network where too few rows are told for any to be held out.

Twins are networks that start apart and are told less: of every class a third of its rows is hidden from each, as long
as one stays. How often a twin names the class that the network names, on rows of which nothing is told and beyond what
both would agree on by chance, says how far its errors are chance; that is taken for the mean confidence. The evidence
of the hidden rows then corrects it:

.. math:: \log t = \log t_0 + \arg\max_m \sum_o \log P(o \mid \mathrm{log\_softmax}(e^m t_0' L')) - \frac{m^2}{2 s^2}

with t_0 and t_0' the temperatures at which the network and a twin are as sure as they agree, and L' the twin's logits
of the rows that were hidden from it. Two networks may share an error, so the first guess is rather too sure.

Source: that networks disagree as often as they err, Jiang, Nagarajan, Baek and Kolter, Assessing generalization of SGD
via disagreement, 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from anygrain.encoders.trainable import TrainableEncoder
from anygrain.labels import Labels
from anygrain.learn import calibration
from anygrain.learn.cross_fit import rank_in_class
from anygrain.learn.end_to_end import LEAST_ROWS, ClassEndToEnd, instances_of
from anygrain.learn.recipe import RecipeState

TWINS = 2
EVERY = 3  # of the rows of a class one is hidden
FEWEST = 20  # instances of which nothing is told, for networks to agree on
AROUND = 0.2  # standard deviation of log t around what agreement says
AROUND_ONE = 0.5  # and around 0 where there is nothing to agree on
FACTORS = tuple(float(f) for f in torch.logspace(-2, 2, 41, base=2.0))


def wants_twins(whole: ClassEndToEnd) -> bool:
    """Whether too few rows are told for any to be held out, and twins can tell more."""
    if whole.held is not None or int(whole.told.sum()) >= LEAST_ROWS:
        return False
    return int(whole.untold.sum()) >= FEWEST or bool(hidden_rows(whole, 0, 0).any())


def hidden_rows(whole: ClassEndToEnd, twin: int, seed: int) -> Tensor:
    """bool (rows,): rows whose labels a twin does not see.

    Rows that labels join are one, and the first instance of which something is told speaks for them: those that are
    sure of one class are shared out among the twins class by class, so that each class keeps some, the others together.
    """
    rank, count, kind = rank_in_class(whole.labels, ~whole.untold.cpu(), seed)
    return (kind >= 0) & (rank % EVERY == twin) & (count > 1)


def twin_temperature(
    whole: ClassEndToEnd,
    train: Callable[..., ClassEndToEnd],
    fresh: Callable[[int], TrainableEncoder],
    data: Any,
    labels: Callable[[], Labels],
    *,
    state: RecipeState,
    seed: int,
    before: int,
) -> float:
    """The inverse temperature of a trained network, from twins that are trained for it.

    Args:
        whole: the training of the network.
        train: makes a training of an encoder, inputs and labels.
        fresh: an untrained encoder by its seed.
        data: that encoders read.
        labels: of all rows, with channels of their own.
        state: of the fit.
        seed: of the twins.
        before: trainings that were before, for progress.
    """

    def compute() -> tuple[dict[str, Tensor], dict[str, Any]]:
        trained = []
        for t in range(TWINS):
            own = seed + 7919 * (t + 1)
            encoder = fresh(own)
            hidden = hidden_rows(whole, t, seed)
            twin = train(
                encoder,
                encoder.inputs(data),
                labels(),
                hidden=hidden,
                part=f"twin {t + 1} ",
                before=before + t,
                epochs=whole.pace.epochs,
                seed=own,
            )
            twin.fit()
            trained.append((twin.logits(), hidden))
        temperature, agreement = temperature_by(whole.logits(), trained, whole.labels, whole.untold)
        for step in [name for name in state.steps if name.startswith("twin ")]:
            state.steps[step] = {"done": torch.ones(1)}
        facts = {"track": "twins", "round": 1, "temperature": temperature, "agreement": agreement}
        return {"temperature": torch.tensor(temperature, dtype=torch.float64)}, facts

    return float(state.step("temperature", compute)[0]["temperature"])


def class_shares(labels: Labels, told: Tensor) -> Tensor:
    """Shares (K,) of the classes among instances of which something is told, bool (N,), by the evidence alone."""
    even = torch.zeros(labels.n_instances, labels.n_classes, device=labels.device).log_softmax(dim=1)
    said = labels.posterior(even)
    return said[told.to(labels.device)].mean(dim=0) if bool(told.any()) else said.mean(dim=0)


def temperature_by(
    logits: Tensor, twins: list[tuple[Tensor, Tensor]], labels: Labels, untold: Tensor
) -> tuple[float, float | None]:
    """Inverse temperature of logits (N, K), and how often they are right by their twins, where nothing is told.

    Args:
        twins: logits (N, K) of each, and rows whose labels it did not see, bool (rows,).
        untold: instances of which nothing is told, bool (N,).
    """
    alone = untold.to(logits.device)
    agreement: float | None = None
    around = AROUND_ONE
    guesses = [1.0] * (1 + len(twins))
    if int(alone.sum()) >= FEWEST:
        shares = class_shares(labels, ~alone)
        named = logits[alone].argmax(dim=1)
        likely = [calibration.likely_right(named, twin[alone].argmax(dim=1), shares) for twin, _ in twins]
        agreement, around = sum(likely) / len(likely), AROUND
        guesses = [
            min(calibration.confidence_temperature(each[alone], agreement), 1.0)
            for each in (logits, *(twin for twin, _ in twins))
        ]
    score = -torch.tensor(FACTORS).log().square() / (2 * around**2)
    for (twin, hidden), guess in zip(twins, guesses[1:], strict=True):
        evidence = calibration.told(labels[hidden]) if bool(hidden.any()) else None
        if evidence is None:
            continue
        own = guess * twin[instances_of(labels, hidden.nonzero()[:, 0]).to(twin.device)]
        everyone = torch.ones(len(own), dtype=torch.bool, device=own.device)
        score += len(own) * torch.tensor(
            [calibration.evidence_score(evidence, (f * own).log_softmax(dim=1), everyone) for f in FACTORS]
        )
    return guesses[0] * FACTORS[int(score.argmax())], agreement
