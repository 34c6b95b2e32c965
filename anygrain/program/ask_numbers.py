"""What to ask where labels speak of a number: the number, or a rating of somebody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.data.exchange import Form, Task
from anygrain.data.number_dataset import NumberDataset
from anygrain.labels import RealAll
from anygrain.program.asking import ANYBODY, DEFAULTS, ROUNDS, Asking, Proposal, Voters
from anygrain.program.held_out import held_out_of

NUMBER = "number"
HIGHEST = 10  # of a scale of ratings


def ask_numbers(asking: Asking) -> Proposal:
    """Rows to ask about, and whom.

    Raises:
        InputError: a question that is nothing, nothing to ask.
    """
    from anygrain.audit.ask import NumberQuestion, choose_numbers
    from anygrain.learn.number import belief

    dataset = asking.dataset
    mean, variance = known_of(asking)  # this fits the annotators too
    values, noise = dataset.values()
    exact = torch.from_numpy(~np.isnan(values) & (noise == 0))
    told = torch.from_numpy(np.any([e.rows for e in dataset.evidence], axis=0))
    free = ~exact
    if not asking.same:
        mean, variance = (v.double() for v in belief(asking.learner, asking.data))
        free, told = torch.ones(len(mean), dtype=torch.bool), torch.zeros(len(mean), dtype=torch.bool)
    voters = Voters.of(dataset.evidence)
    priced = asking.prices(
        [f"{ANYBODY}=1"] if voters.at else [f"{NUMBER}=1"],
        [NUMBER, *voters.at, *([ANYBODY] if voters.at else [])],
    )
    asked_of = []
    may_ask = free[:, None].expand(-1, len(priced)).clone()
    for at, (name, price) in enumerate(priced):
        if name == NUMBER:
            asked_of.append(NumberQuestion("the number", 0.0, price))
        else:
            asked_of.append(NumberQuestion.rating(*voters.channel(name), price, name=f"a rating of {name}"))
        if asking.same:
            may_ask[:, at] &= voters.may_ask(name, len(free))
    by = asking.by or DEFAULTS[asking.config.space]
    found = choose_numbers(
        mean,
        variance,
        asking.wanted(int(may_ask.any(dim=1).sum())),
        by=by,
        questions=asked_of,
        may_ask=may_ask,
        features=asking.features() if by != "random" else None,
        known=told,
        seed=asking.config.learn.seed,
    )
    spread = float(mean.var(correction=0) + variance.mean())
    cells, out = asking.fields(), []
    for at, row in enumerate(found.rows.tolist()):
        m, sd = float(found.mean[at]), float(found.sd[at])
        out.append(
            Task(
                row=str(asking.ids[row]),
                fields={name: str(column[row]) for name, column in cells.items()},
                priority=at + 1,
                reason=f"{m:.4g} ± {sd:.2g}",
                question=found.questions[int(found.question[at])].name,
                proposed=_shown(m, asking.form),
                score=max(0.0, 1 - sd**2 / spread) if spread > 0 else 1.0,
            )
        )
    rated = any(name != NUMBER for name, _ in priced)
    return Proposal(
        tasks=out,
        cost=found.cost,
        gain=found.gain,
        unit="variance",
        proposed=[t.proposed for t in out],
        columns={"proposed": [t.proposed for t in out], "sd": found.sd.tolist()},
        kind="Ratings" if rated else "Value",
    )


def known_of(asking: Asking) -> tuple[Tensor, Tensor]:
    """Mean and variance (N,) of every row of the run by features and labels; annotators are fitted to the model.

    What is said of a row that the model was trained on is in its mean already, and is not counted again.
    """
    dataset = asking.dataset
    (mean, variance), held = held_out_of(asking.run, len(dataset))
    said = torch.from_numpy(mean), torch.from_numpy(variance)
    for evidence in dataset.evidence:
        evidence.labels = evidence.labels.with_own_channels()
    parts = [e.labels for e in dataset.evidence]
    together = RealAll(*parts) if len(parts) > 1 else parts[0]
    posterior = together.posterior(*said)
    for _ in range(ROUNDS if together.channels else 0):
        together.update(*posterior)
        posterior = together.posterior(*said)
    apart = torch.from_numpy(held)
    return torch.where(apart, posterior.mean, said[0]), torch.where(apart, posterior.variance, said[1])


def number_form(dataset: NumberDataset, learner: Any, questions: Sequence[str]) -> Form:
    """A field for a number; a scale of ratings where all that is known are whole numbers from 1 to 10."""
    seen = [v for e in dataset.evidence for v in e.record_value.tolist() if v and ".." not in v]
    numbers = np.array(seen, dtype=float)
    whole = len(numbers) > 0 and bool(((numbers == numbers.round()) & (numbers >= 1) & (numbers <= HIGHEST)).all())
    name, image = dataset.quantity, dataset.config.data.images
    if whole and {e.kind for e in dataset.evidence} <= {"Value", "Ratings"}:
        return Form(choices=(), name=name, image=image, answer="rating", highest=max(int(numbers.max()), 2))
    return Form(choices=(), name=name, image=image, answer="number")


def _shown(mean: float, form: Form) -> str:
    """A proposed number, on the scale where there is one."""
    return str(min(max(round(mean), 1), form.highest)) if form.answer == "rating" else f"{mean:.6g}"
