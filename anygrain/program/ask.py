"""The verb ask: which rows to label next, and what to ask of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from anygrain.data.config import Config
from anygrain.data.dataset import check_numbers, model_input, read_columns, row_ids
from anygrain.data.error import InputError, counted, did_you_mean, some
from anygrain.data.exchange import TOOLS, Form, check_form, write_tasks
from anygrain.data.number_dataset import read_number_dataset
from anygrain.data.table import check_place, check_writable, read_table, write_table
from anygrain.data.tag_dataset import read_tag_dataset
from anygrain.program.ask_classes import ask_classes, class_form, read_classes
from anygrain.program.ask_numbers import ask_numbers, number_form
from anygrain.program.ask_tags import ask_tags, tag_form
from anygrain.program.asking import Asking, Proposal
from anygrain.program.held_out import check_same_rows
from anygrain.program.predict import fitted_config
from anygrain.program.screen import Screen

READ: dict[str, Callable[[Config], Any]] = {
    "classes": read_classes,
    "real": read_number_dataset,
    "tags": read_tag_dataset,
}
CHOOSE: dict[str, Callable[[Asking], Proposal]] = {"classes": ask_classes, "real": ask_numbers, "tags": ask_tags}
FORM: dict[str, Callable[..., Form]] = {"classes": class_form, "real": number_form, "tags": tag_form}


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

    Rows with an exact label are not asked about. Where annotators vote or rate, a question is a vote or a rating,
    nobody is asked twice about a row, and rows with votes compete with rows without any.

    Args:
        run: folder of a finished run.
        out: file to write: a table (.csv, .parquet, ...), or what the tool imports.
        screen: where to say so.
        n: how many questions.
        table: rows to choose from; those of the run when not given.
        tool: "label-studio", "argilla" or "doccano"; a plain table when not given.
        by: a strategy of `anygrain.audit.ask`; found when not given, see `DEFAULTS` of `anygrain.program.asking`.
        questions: what may be asked and what an answer costs, as NAME=COST. Of classes: "class", a level of the
            taxonomy, the name of an annotator, or "anybody" for a vote of somebody new. Of numbers: "number", an
            annotator, "anybody". Of tags: "tags" of a row, or one "tag" of it.
        overwrite: whether `out` may exist.

    Raises:
        InputError: bad input; nothing has been written.
    """
    from anygrain.labels import LabelError
    from anygrain.learn import Learner

    run, out = Path(run), Path(out)
    config = fitted_config(run)
    _check_request(config, out, tool, by, overwrite=overwrite)
    try:
        learner = Learner.load(run)
    except LabelError as error:
        raise InputError(str(error)) from error
    dataset: Any = READ[config.space](config)
    form = FORM[config.space](dataset, learner, questions)
    if tool:
        check_form(form, tool)
    source = read_table(table) if table else dataset.table
    same = source is dataset.table
    columns = dataset.columns if same else read_columns(config, source)
    ids = dataset.ids if same else row_ids(source, config.data.id if config.data.id in source.columns else "")
    check_numbers(source, columns, ids)
    check_same_rows(run, dataset.ids)
    asking = Asking(
        run=run,
        config=config,
        learner=learner,
        dataset=dataset,
        table=source,
        columns=columns,
        ids=ids,
        data=model_input(source, columns, ids),
        same=same,
        n=n,
        by=by,
        questions=tuple(questions),
        form=form,
        screen=screen,
    )
    try:
        proposal = CHOOSE[config.space](asking)
    except LabelError as error:
        raise InputError(str(error)) from error
    if tool:
        places = write_tasks(proposal.tasks, form, out, tool)
    else:
        write_table(_as_table(proposal), out)
        places = [out]
    _say(proposal, places, tool, screen)


def _check_request(config: Config, out: Path, tool: str, by: str, *, overwrite: bool) -> None:
    """Raise before work starts for what cannot be done."""
    from anygrain.audit.ask import NUMBER_STRATEGIES, STRATEGIES, TAG_STRATEGIES

    of_space = {"classes": STRATEGIES, "real": NUMBER_STRATEGIES, "tags": TAG_STRATEGIES}[config.space]
    usable = [s for s in of_space if s not in ("novel", "distillation")]  # these need more than a run holds
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


def _as_table(proposal: Proposal) -> dict[str, Any]:
    tasks = proposal.tasks
    columns = {
        "row": [t.row for t in tasks],
        "priority": [t.priority for t in tasks],
        "question": [t.question for t in tasks],
        "cost": proposal.cost.tolist(),
        "gain": proposal.gain.double().tolist(),
        **proposal.columns,
        "reason": [t.reason for t in tasks],
    }
    fields = {name: [t.fields[name] for t in tasks] for name in tasks[0].fields}
    return {**columns, **{name if name not in columns else f"{name}_": values for name, values in fields.items()}}


def _say(proposal: Proposal, places: Sequence[Path], tool: str, screen: Screen) -> None:
    rows = [("first rows", "question", "cost", proposal.unit, "proposed", "likely")]
    for at, task in enumerate(proposal.tasks[:5]):
        gain, cost = float(proposal.gain[at]), float(proposal.cost[at])
        rows.append((task.row, task.question, f"{cost:g}", f"{gain:.2g}", proposal.proposed[at], task.reason))
    screen.table(rows)
    count: dict[str, int] = {}
    for task in proposal.tasks:
        name = task.question if proposal.by_name else "one tag"
        count[name] = count.get(name, 0) + 1
    asked = ", ".join(f"{times} x {name}" for name, times in count.items())
    total = f"{float(proposal.gain.sum()):.3g} {proposal.unit} expected for a cost of {float(proposal.cost.sum()):g}"
    screen.line(f"{counted(len(proposal.tasks), 'question')}: {asked} · {total}")
    screen.line(f"-> {', '.join(map(str, places))}")
    if tool:
        export = "export the approved ones (the others hold what the model proposed)" if tool == "doccano" else "export"
        screen.line(
            f'Next:  label them, {export}, and add to the configuration: [[labels]] kind = "{proposal.kind}", source = '
            f'"export.json", format = "{tool}"{proposal.more}'
        )
    else:
        screen.line("Next:  fill in a column of answers, and add it to the configuration as [[labels]] with source")
