"""The verb ask: which rows to label next, and what to ask of each."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anygrain.data.config import Config
from anygrain.data.dataset import (
    Columns,
    Dataset,
    check_numbers,
    combined,
    model_input,
    read_columns,
    read_dataset,
    row_ids,
)
from anygrain.data.error import InputError, counted, did_you_mean, quoted, some
from anygrain.data.exchange import TOOLS, Form, Task, write_tasks
from anygrain.data.table import Table, check_place, check_writable, read_table, write_table
from anygrain.labels import Labels
from anygrain.labels.instance import InstanceLabels
from anygrain.labels.sampling import SampledRows
from anygrain.program.held_out import check_same_rows, held_out_log_probs
from anygrain.program.of_classes import adopt_prior_of
from anygrain.program.predict import run_config
from anygrain.program.screen import Screen

FINE, ANYBODY = "class", "anybody"
SHOWN_FIELDS = 8  # columns of a table that people see of a row
ROUNDS = 10  # of fitting annotators to what the model says


def ask(
    run: str | Path,
    out: str | Path,
    screen: Screen,
    *,
    n: int = 50,
    table: str | Path = "",
    tool: str = "",
    by: str = "",
    questions: Sequence[str] = (),
    overwrite: bool = False,
) -> None:
    """Choose rows to label, and write them for people to answer.

    Rows with an exact label are not asked about. Where annotators vote, a question is a vote, and rows with votes
    compete with rows without any.

    Args:
        run: folder of a finished run of classes.
        out: file to write: a table (.csv, .parquet, ...), or what the tool imports.
        screen: where to say so.
        n: how many rows.
        table: rows to choose from; those of the run when not given.
        tool: "label-studio", "argilla" or "doccano"; a plain table when not given.
        by: a strategy of `anygrain.audit.ask`; "" is "badge" where only the fine class is asked for, which saved most
            labels (benchmarks/ASK_RESULTS.md), and "evidence_gain" where votes or coarse answers may be asked for.
        questions: what may be asked and what an answer costs, as NAME=COST: "class", a level of the taxonomy, the name
            of an annotator, or "anybody" for a vote of somebody new.
        overwrite: whether `out` may exist.

    Raises:
        InputError: bad input; nothing has been written.
    """
    from anygrain.audit.ask import STRATEGIES, choose, head_ensemble
    from anygrain.labels import LabelError
    from anygrain.learn import Learner

    run, out = Path(run), Path(out)
    config = run_config(run)
    _check_request(config, run, out, tool, by, list(STRATEGIES), overwrite=overwrite)
    try:
        learner = Learner.load(run)
    except LabelError as error:
        raise InputError(str(error)) from error
    dataset = read_dataset(config)
    source = read_table(table) if table else dataset.table
    columns = dataset.columns if source is dataset.table else read_columns(config, source)
    ids = dataset.ids if source is dataset.table else _ids(config, source)
    check_numbers(source, columns, ids)
    data = model_input(source, columns, ids)
    check_same_rows(run, dataset.ids)
    log_probs, held = held_out_log_probs(run, len(dataset))
    known = _known(dataset, log_probs, held.bool())  # this fits the annotators too
    free = torch.from_numpy(dataset.exact() < 0)
    if source is not dataset.table:
        known, free = learner.log_probs(data), torch.ones(len(source), dtype=torch.bool)
    elif (seen := _seen_votes(dataset, held.bool())) and by != "random":
        screen.line(
            f"{counted(seen, 'row')} with labels that may be wrong could not be held out: these are believed as the "
            "model has learnt them, not counted again"
            + ("" if config.learn.cross_fit else ". learn.cross_fit = true in the fit holds every row out")
        )
    voters = {name: vote for e in dataset.evidence for name, vote in _annotators(e.labels).items()}
    asked_of = _questions(questions or _usual(voters), config, learner, dataset, voters)
    by = by or ("badge" if [q.name for q in asked_of] == ["fine class"] else "evidence_gain")
    models = None
    if by == "bald":
        trained_on = model_input(dataset.table, dataset.columns, dataset.ids)
        models = head_ensemble(learner, trained_on, dataset.labels, data)
    features = torch.from_numpy(learner.transform(data)) if by != "random" else None
    if not bool(free.any()):
        raise InputError("Every row has an exact label: there is nothing to ask. Expected --table NEW with other rows")
    wanted = min(n, int(free.sum()))
    if wanted < n:
        screen.line(f"only {counted(wanted, 'row')} can be asked about: the others have an exact label")
    try:
        found = choose(
            known,
            wanted,
            by=by,
            questions=asked_of,
            may_ask=free,
            features=features,
            models=models,
            seed=config.learn.seed,
        )
    except LabelError as error:
        raise InputError(str(error)) from error
    tasks = _tasks(found, known, ids, source, columns, learner)
    if tool:
        places = write_tasks(tasks, _form(config, learner), out, tool)
    else:
        write_table(_as_table(tasks, found), out)
        places = [out]
    _say(found, tasks, places, tool, _kind_of_answers(found, learner), screen)


def _check_request(
    config: Config, run: Path, out: Path, tool: str, by: str, strategies: list[str], *, overwrite: bool
) -> None:
    """Raise before work starts for what cannot be done."""
    if config.space != "classes":
        raise InputError(f"{run} is a model of {config.space}. anygrain ask chooses rows for models of classes")
    usable = [s for s in strategies if s not in ("novel", "distillation")]  # these need more than a run holds
    if by and by not in usable:
        raise InputError(f"--by {by} is not known.{did_you_mean(by, usable)} Expected one of {', '.join(usable)}")
    if tool and tool not in TOOLS:
        raise InputError(f"--tool {tool} is not known.{did_you_mean(tool, list(TOOLS))} One of {some(TOOLS)}")
    if tool:
        check_place(out)
    else:
        check_writable(out)
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists. Choose another --out, or add --overwrite")


def _ids(config: Config, table: Table) -> np.ndarray:
    return row_ids(table, config.data.id if config.data.id in table.columns else "")


def _annotators(labels: Any) -> dict[str, tuple[Any, int]]:
    """Channel and place of every named annotator of votes."""
    names = getattr(labels, "annotator_names", None)
    return {} if names is None else {name: (labels, at) for at, name in enumerate(names)}


def _known(dataset: Dataset, log_probs: Tensor, held: Tensor) -> Tensor:
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


def _usual(voters: dict[str, Any]) -> list[str]:
    return [f"{ANYBODY}=1"] if voters else [f"{FINE}=1"]


def _questions(
    asked: Sequence[str], config: Config, learner: Any, dataset: Dataset, voters: dict[str, tuple[Any, int]]
) -> list[Any]:
    """Questions from NAME=COST.

    Raises:
        InputError: no cost, a cost that is no number above 0, a name that is nothing.
    """
    from anygrain.audit.ask import Question

    taxonomy, names = learner.taxonomy_, [str(c) for c in learner.classes_]
    levels = [] if taxonomy is None else list(taxonomy.level_names[1:])
    known = [FINE, *levels, *voters, *([ANYBODY] if voters else [])]
    out = []
    for text in asked:
        name, _, cost = text.rpartition("=")
        try:
            price = float(cost)
        except ValueError:
            price = -1.0
        if not name or not 0 < price < float("inf"):
            raise InputError(
                f"--question {text} has no cost. Expected NAME=COST with a number above 0, such as {FINE}=1"
            )
        if name == FINE:
            out.append(Question.fine(len(names), price, names=names))
        elif name in levels:
            out.append(Question.coarse(taxonomy, name, price))
        elif name in voters or (name == ANYBODY and voters):
            labels, at = voters[name] if name in voters else (next(iter(voters.values()))[0], -1)
            out.append(
                Question.vote(labels.channel, at, len(names), price, name=f"a vote of {name}", names=tuple(names))
            )
        else:
            raise InputError(
                f"--question {text}: {quoted(name)} is nothing that can be asked.{did_you_mean(name, known)} "
                f"Expected one of {some(map(quoted, known), 8)}"
            )
    return out


def _tasks(found: Any, known: Tensor, ids: np.ndarray, table: Table, columns: Columns, learner: Any) -> list[Task]:
    names = [str(c) for c in learner.classes_]
    shown = columns.images or columns.text or columns.all[:SHOWN_FIELDS]
    cells = {name: table.strings(name) for name in shown}
    two = known[found.rows].exp().topk(2, dim=1)
    best, chance = two.indices.tolist(), two.values.tolist()
    out = []
    for at, (row, answer) in enumerate(zip(found.rows.tolist(), found.answer_names(), strict=True)):
        likely = ", ".join(f"{names[k]} {p:.2f}" for k, p in zip(best[at], chance[at], strict=True))
        question = found.questions[int(found.question[at])].name
        out.append(
            Task(
                row=str(ids[row]),
                fields={name: str(values[row]) for name, values in cells.items()},
                priority=at + 1,
                reason=likely,
                question=question,
                proposed=answer,
                path=_path(learner.taxonomy_, answer),
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


def _form(config: Config, learner: Any) -> Form:
    taxonomy = learner.taxonomy_
    nodes = () if taxonomy is None else tuple(sorted(_path(taxonomy, name) for name in taxonomy.names))
    return Form(choices=tuple(str(c) for c in learner.classes_), name=FINE, paths=nodes, image=config.data.images)


def _as_table(tasks: Sequence[Task], found: Any) -> dict[str, Any]:
    fields = {name: [t.fields[name] for t in tasks] for name in tasks[0].fields}
    taken = {"row", "priority", "question", "cost", "gain", "proposed", "probability", "reason"}
    return {
        "row": [t.row for t in tasks],
        "priority": [t.priority for t in tasks],
        "question": [t.question for t in tasks],
        "cost": found.cost.tolist(),
        "gain": found.gain.double().tolist(),
        "proposed": [t.proposed for t in tasks],
        "probability": [t.score for t in tasks],
        "reason": [t.reason for t in tasks],
        **{name if name not in taken else f"{name}_": values for name, values in fields.items()},
    }


def _kind_of_answers(found: Any, learner: Any) -> str:
    """The kind of label that the answers are."""
    from anygrain.audit.ask import Question

    levels = () if learner.taxonomy_ is None else learner.taxonomy_.level_names
    asked = {found.questions[q].name for q in found.question.unique().tolist()}
    if not asked <= {Question.fine(len(learner.classes_)).name, *levels}:
        return "Crowd"
    return "Coarse" if levels else "Exact"


def _say(found: Any, tasks: Sequence[Task], places: Sequence[Path], tool: str, kind: str, screen: Screen) -> None:
    rows = [("first rows", "question", "cost", "nats", "proposed", "likely")]
    for at, task in enumerate(tasks[:5]):
        gain, cost = float(found.gain[at]), float(found.cost[at])
        rows.append(
            (task.row, task.question, f"{cost:g}", f"{gain:.2f}", f"{task.proposed} {task.score:.2f}", task.reason)
        )
    screen.table(rows)
    times = torch.bincount(found.question, minlength=len(found.questions)).tolist()
    asked = [f"{t} x {question.name}" for t, question in zip(times, found.questions, strict=True) if t]
    total = f"{float(found.gain.sum()):.0f} nats expected for a cost of {float(found.cost.sum()):g}"
    screen.line(f"{counted(len(tasks), 'row')}: {', '.join(asked)} · {total}")
    screen.line(f"-> {', '.join(map(str, places))}")
    if tool:
        export = "export the approved ones (the others hold what the model proposed)" if tool == "doccano" else "export"
        screen.line(
            f'Next:  label them, {export}, and add to the configuration: [[labels]] kind = "{kind}", source = '
            f'"export.json", format = "{tool}"'
        )
    else:
        screen.line("Next:  fill in a column of answers, and add it to the configuration as [[labels]] with source")
