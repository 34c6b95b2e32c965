"""What to ask where labels speak of classes: the class, a coarser one, or a vote of somebody."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.data.dataset import Dataset, combined, model_input, read_dataset
from anygrain.data.error import counted
from anygrain.data.exchange import Form, Task
from anygrain.labels import Labels
from anygrain.labels.instance import InstanceLabels
from anygrain.labels.sampling import SampledRows
from anygrain.program.asking import ANYBODY, DEFAULTS, ROUNDS, Asking, Proposal, Voters
from anygrain.program.held_out import held_out_log_probs
from anygrain.program.of_classes import adopt_prior_of

FINE = "class"
COARSE = (
    "worth knowing: coarse answers settle rows cheaply and teach a model little; benchmarks/ASK_RESULTS.md has how "
    "many fine ones each was worth"
)
read_classes = read_dataset


def ask_classes(asking: Asking) -> Proposal:
    """Rows to ask about, and what.

    Raises:
        InputError: a question that is nothing, nothing to ask.
    """
    from anygrain.audit.ask import choose, head_ensemble

    dataset, learner, screen = asking.dataset, asking.learner, asking.screen
    log_probs, held = held_out_log_probs(asking.run, len(dataset))
    known = known_of(dataset, log_probs, held.bool())  # this fits the annotators too
    free = torch.from_numpy(dataset.exact() < 0)
    if not asking.same:
        known, free = learner.log_probs(asking.data), torch.ones(len(asking.ids), dtype=torch.bool)
    elif (seen := _seen_votes(dataset, held.bool())) and asking.by != "random":
        screen.line(
            f"{counted(seen, 'row')} with labels that may be wrong could not be held out: these are believed as the "
            "model has learnt them, not counted again"
            + ("" if asking.config.learn.cross_fit else ". learn.cross_fit = true in the fit holds every row out")
        )
    voters = Voters.of(dataset.evidence)
    names, asked_of = _questions(asking, voters)
    if FINE in names and any(name not in (FINE, ANYBODY, *voters.at) for name in names):
        screen.line(COARSE)
    may_ask = free[:, None].expand(-1, len(names)).clone()
    if asking.same:
        may_ask &= torch.stack([voters.may_ask(name, len(free)) for name in names], dim=1)
    by = asking.by or DEFAULTS[asking.config.space]
    models = None
    if by == "bald":
        trained_on = model_input(dataset.table, dataset.columns, dataset.ids)
        models = head_ensemble(learner, trained_on, dataset.labels, asking.data)
    found = choose(
        known,
        asking.wanted(int(may_ask.any(dim=1).sum())),
        by=by,
        questions=asked_of,
        may_ask=may_ask,
        features=asking.features() if by != "random" else None,
        models=models,
        seed=asking.config.learn.seed,
    )
    tasks = _tasks(found, known, asking)
    return Proposal(
        tasks=tasks,
        cost=found.cost,
        gain=found.gain,
        unit="nats",
        proposed=[f"{t.proposed} {t.score:.2f}" for t in tasks],
        columns={"proposed": [t.proposed for t in tasks], "probability": [t.score for t in tasks]},
        kind=_kind_of_answers(found, learner),
    )


def class_form(dataset: Dataset, learner: Any, questions: Sequence[str]) -> Form:
    """The classes, or the tree where there is a taxonomy."""
    taxonomy = learner.taxonomy_
    nodes = () if taxonomy is None else tuple(sorted(_path(taxonomy, name) for name in taxonomy.names))
    choices = tuple(str(c) for c in learner.classes_)
    return Form(choices=choices, name=FINE, paths=nodes, image=dataset.config.data.images)


def known_of(dataset: Dataset, log_probs: Tensor, held: Tensor) -> Tensor:
    """Log-probabilities (N, K) of every row by features and labels; annotators are fitted to what the model says.

    A model that saw a row has its labels in it already: of such a row only what rules classes out is added, which
    nothing gains from being said twice.

    Args:
        log_probs: (N, K), what the model says of every row.
        held: bool (N,), rows that it was not trained on.
    """
    for evidence in dataset.evidence:
        evidence.labels = copy.copy(evidence.labels).with_own_channels()
    adopt_prior_of(dataset, log_probs)
    parts = [e.labels for e in dataset.evidence if not e.labels.given_x]
    if not parts:
        return log_probs
    together = combined(parts)
    certain = [part for part in parts if _is_certain(part)]
    of_seen = combined(certain).posterior(log_probs) if certain else log_probs.exp()
    posterior = torch.where(held[:, None], together.posterior(log_probs), of_seen)
    for _ in range(ROUNDS if together.channels else 0):
        together.update(posterior, log_probs)
        posterior = torch.where(held[:, None], together.posterior(log_probs), of_seen)
    return posterior.clamp(min=1e-30).log()


def _is_certain(labels: Labels) -> bool:
    """Whether labels only rule out classes of their rows."""
    per_row = isinstance(labels, InstanceLabels) and not isinstance(labels, SampledRows)
    return per_row and getattr(labels, "error", None) == 0


def _seen_votes(dataset: Dataset, held: Tensor) -> int:
    """Rows with labels that may be wrong, and no exact one, which the model was trained on."""
    rows = [e.rows for e in dataset.evidence if not e.labels.given_x and not _is_certain(e.labels)]
    return int((np.any(rows, axis=0) & ~held.numpy() & (dataset.exact() < 0)).sum()) if rows else 0


def _questions(asking: Asking, voters: Voters) -> tuple[list[str], list[Any]]:
    """Names and questions that may be asked.

    Raises:
        InputError: no cost, a cost that is no number above 0, a name that is nothing.
    """
    from anygrain.audit.ask import Question

    taxonomy, classes = asking.learner.taxonomy_, [str(c) for c in asking.learner.classes_]
    levels = [] if taxonomy is None else list(taxonomy.level_names[1:])
    known = [FINE, *levels, *voters.at, *([ANYBODY] if voters.at else [])]
    priced = asking.prices([f"{ANYBODY}=1"] if voters.at else [f"{FINE}=1"], known)
    out = []
    for name, price in priced:
        if name == FINE:
            out.append(Question.fine(len(classes), price, names=classes))
        elif name in levels:
            out.append(Question.coarse(taxonomy, name, price))
        else:
            channel, at = voters.channel(name)
            title = f"a vote of {name}"
            out.append(Question.vote(channel, at, len(classes), price, name=title, names=tuple(classes)))
    return [name for name, _ in priced], out


def _tasks(found: Any, known: Tensor, asking: Asking) -> list[Task]:
    names = [str(c) for c in asking.learner.classes_]
    cells = asking.fields()
    two = known[found.rows].exp().topk(2, dim=1)
    best, chance = two.indices.tolist(), two.values.tolist()
    out = []
    for at, (row, answer) in enumerate(zip(found.rows.tolist(), found.answer_names(), strict=True)):
        likely = ", ".join(f"{names[k]} {p:.2f}" for k, p in zip(best[at], chance[at], strict=True))
        out.append(
            Task(
                row=str(asking.ids[row]),
                fields={name: str(values[row]) for name, values in cells.items()},
                priority=at + 1,
                reason=likely,
                question=found.questions[int(found.question[at])].name,
                proposed=answer,
                path=_path(asking.learner.taxonomy_, answer),
                score=float(found.probability[at]),
            )
        )
    return out


def _path(taxonomy: Any, name: str) -> tuple[str, ...]:
    """Nodes from the root to a node; () without a taxonomy."""
    if taxonomy is None:
        return ()
    path = [name]
    while above := taxonomy.parents(path[0]):
        path.insert(0, above[0])
    return tuple(path)


def _kind_of_answers(found: Any, learner: Any) -> str:
    """The kind of label that the answers are."""
    from anygrain.audit.ask import Question

    levels = () if learner.taxonomy_ is None else learner.taxonomy_.level_names
    asked = {found.questions[q].name for q in found.question.unique().tolist()}
    if not asked <= {Question.fine(len(learner.classes_)).name, *levels}:
        return "Crowd"
    return "Coarse" if levels else "Exact"
