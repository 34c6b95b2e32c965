"""What to ask where rows have tags: all unknown tags of a row, or one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from anygrain.data.error import InputError
from anygrain.data.exchange import Form, Task
from anygrain.data.exchange.reading import QUESTION
from anygrain.data.tag_dataset import TagDataset
from anygrain.program.asking import DEFAULTS, Asking, Proposal
from anygrain.program.held_out import held_out_log_probs

TAGS, TAG = "tags", "tag"
YES, NO = "yes", "no"
SHOWN = 3  # tags in doubt that are named


def ask_tags(asking: Asking) -> Proposal:
    """Rows, or tags of rows, to ask about.

    Raises:
        InputError: a question that is nothing, nothing to ask.
    """
    from anygrain.audit.ask import Question, choose_tags

    dataset, names = asking.dataset, list(asking.dataset.tags.names)
    ((kind, cost),) = _one(asking)
    single = kind == TAG
    if asking.same:
        given = torch.from_numpy(dataset.given())
        log_probs, _ = held_out_log_probs(asking.run, given.numel())
        on = dataset.labels.posterior(log_probs)[:, 1].reshape(given.shape)
        unknown = given < 0
    else:
        on = torch.from_numpy(asking.learner.predict_proba(asking.data))
        unknown = torch.ones_like(on, dtype=torch.bool)
    by = asking.by or DEFAULTS[asking.config.space]
    free = int(unknown.sum()) if single else int(unknown.any(dim=1).sum())
    found = choose_tags(
        on.clamp(0, 1),
        asking.wanted(free, "tag" if single else "row", "of the others every tag is known"),
        by=by,
        single=single,
        questions=[Question.fine(2, cost)],
        unknown=unknown,
        features=asking.features() if by != "random" else None,
        seed=asking.config.learn.seed,
    )
    cells, out, proposed = asking.fields(), [], []
    for at, (row, tag) in enumerate(zip(found.rows.tolist(), found.tag.tolist(), strict=True)):
        chance = found.probability[at]
        fields = {name: str(column[row]) for name, column in cells.items()}
        if single:
            p = float(chance[tag])
            answer, several, score = YES if p > 0.5 else NO, (), max(p, 1 - p)
            fields = {"asked": f"{names[tag]}?", **fields}
            reason = f"{names[tag]} {p:.2f}"
        else:
            several = tuple(name for name, p in zip(names, chance.tolist(), strict=True) if p > 0.5)
            sure = torch.where(unknown[row], torch.maximum(chance, 1 - chance), torch.ones_like(chance))
            answer, score = "", float(sure.prod())
            doubt = sure.argsort()[: min(SHOWN, int(unknown[row].sum()))].tolist()
            reason = ", ".join(f"{names[t]} {float(chance[t]):.2f}" for t in doubt)
        proposed.append(f"{answer or ', '.join(several) or 'none'} {score:.2f}")
        out.append(
            Task(
                row=str(asking.ids[row]),
                fields=fields,
                priority=at + 1,
                reason=reason,
                question=names[tag] if single else TAGS,
                proposed=answer,
                several=several,
                score=score,
            )
        )
    return Proposal(
        tasks=out,
        cost=found.cost,
        gain=found.gain,
        unit="nats",
        proposed=proposed,
        columns={
            "proposed": [t.proposed or "|".join(t.several) for t in out],
            "probability": [t.score for t in out],
        },
        kind="Tags",
        more=f', tag = "{QUESTION}"' if single else "",
        by_name=not single,
    )


def _one(asking: Asking) -> list[tuple[str, float]]:
    """What is asked, and its cost: all tags of a row, or one.

    Raises:
        InputError: both at once.
    """
    priced = asking.prices([f"{TAGS}=1"], [TAGS, TAG])
    if len(priced) > 1:
        raise InputError(
            "--question was given several times. Expected tags=COST (all unknown tags of a row) or tag=COST (one tag)"
        )
    return priced


def tag_form(dataset: TagDataset, learner: Any, questions: Sequence[str]) -> Form:
    """Several of the tags, or yes and no where one tag is asked about."""
    image = dataset.config.data.images
    if any(text.rpartition("=")[0] == TAG for text in questions):
        return Form(choices=(YES, NO), name=TAG, image=image)
    return Form(choices=tuple(dataset.tags.names), name=TAGS, image=image, answer="several")
