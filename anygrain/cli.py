"""The program `anygrain`: reads arguments, calls the verb, turns errors into one line and an exit code.

Exit codes: 0 done, 1 a fault of the program, or more wrong labels than audit may find, 2 bad input and nothing
written, 3 stopped but resumable.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from anygrain.program.screen import Screen

DONE, FAULT, BAD_INPUT, STOPPED = 0, 1, 2, 3

app = typer.Typer(
    help="Train fine, calibrated, instance-level models from whatever labels you have.",
    epilog="Start with:  anygrain demo",
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help=("A setting on top of the configuration; repeatable.")),
]


def main(arguments: list[str] | None = None) -> None:
    """Run the program and leave it with its exit code; a polite kill stops it as Ctrl-C does."""
    from anygrain.program.interrupt import interrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run the program on arguments; its exit code. `--trace` anywhere shows where an error came from."""
    # threads that wait must not spin: on busy cores that costs a factor of five (read when torch is imported)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    trace = "--trace" in arguments
    arguments = [a for a in arguments if a != "--trace"]
    # older typer builds on click, newer ones carry their own copy: the same names from one place
    usage_error: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
    try:
        code = app(arguments or ["--help"], prog_name="anygrain", standalone_mode=False)
        return code if isinstance(code, int) else DONE
    except (KeyboardInterrupt, typer.Abort):
        _say_error("stopped")
        return STOPPED
    except Exception as error:
        if isinstance(error, usage_error):
            _say_error(f"{error.format_message()}  (anygrain --help)")  # type: ignore[attr-defined]
            return BAD_INPUT
        from anygrain.data.error import InputError
        from anygrain.labels import LabelError
        from anygrain.program.fit import Stopped
        from anygrain.program.fits import explained

        if trace:
            import traceback

            traceback.print_exc()
        if isinstance(error, Stopped):
            _say_error(str(error))
            return STOPPED
        said = explained(error)
        if said or isinstance(error, InputError | LabelError):
            _say_error(said or str(error))
            return BAD_INPUT
        _say_error(f"{type(error).__name__}: {error}  (add --trace to see where)")
        return FAULT


def _say_error(text: str) -> None:
    print(" ".join(text.split()), file=sys.stderr)


def _screen() -> Screen:
    from anygrain.program.screen import Screen

    return Screen()


def _command() -> str:
    import shlex

    return " ".join(["anygrain", *(shlex.quote(a) for a in sys.argv[1:])])


@app.command()
def check(
    config: Annotated[Path | None, typer.Argument(help="A configuration: checks its data instead.")] = None,
    settings: Settings = None,
    fix: Annotated[bool, typer.Option("--fix", help="Print the command that mends what does not fit.")] = False,
) -> None:
    """Does everything work on this machine? Trains a small model. Or, with a configuration: is its data right?"""
    from anygrain.program.check import check as verb
    from anygrain.program.look import check_data

    if config is not None:
        check_data(config, settings or [], _screen())
        return
    if not verb(_screen(), fix=fix):
        raise typer.Exit(FAULT)


@app.command()
def demo(
    name: Annotated[str, typer.Argument(help="Which data: tickets.")] = "tickets",
    copy_only: Annotated[bool, typer.Option("--copy-only", help="Copy the data and stop.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Copy real data here, guess a configuration, and train on it."""
    from anygrain.program.demo import demo as verb

    verb(name, Path.cwd(), _screen(), copy_only=copy_only, overwrite=overwrite)


@app.command()
def init(
    table: Annotated[Path, typer.Argument(help="The table: .csv, .tsv, .parquet, .jsonl or .arrow.")],
    taxonomy: Annotated[Path | None, typer.Option(help="Classes and their parents, a CSV.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(metavar="NAME=KIND", help="What a column is, where you know; repeatable.")
    ] = None,
    target: Annotated[str, typer.Option(help="The column to learn: a number, or a class.")] = "",
    out: Annotated[Path | None, typer.Option(help="The configuration to write; NAME.toml when left out.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the configuration.")] = False,
) -> None:
    """Guess a configuration from a table, and show the guess."""
    from anygrain.program.init import init as verb

    verb(table, _screen(), taxonomy=taxonomy, given=column or [], target=target, out=out, overwrite=overwrite)


@app.command()
def fit(
    config: Annotated[Path, typer.Argument(help="The configuration, a .toml.")],
    out: Annotated[Path, typer.Option(help="The run folder to write.")],
    settings: Settings = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, train nothing, write nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run or comparison.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is there.")] = False,
    compare: Annotated[
        str, typer.Option(metavar="A,B,C", help="Compare methods on held-out rows instead: default,gce,...")
    ] = "",
) -> None:
    """Train on a table and its labels."""
    if compare:
        from anygrain.program.compare import compare as compare_verb

        compare_verb(
            config,
            compare,
            out,
            settings or [],
            _screen(),
            command=_command(),
            resume=resume,
            overwrite=overwrite,
            dry_run=dry_run,
        )
        return
    from anygrain.program.fit import fit as verb

    verb(
        config, out, settings or [], _screen(), command=_command(), resume=resume, overwrite=overwrite, dry_run=dry_run
    )


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    table: Annotated[Path, typer.Argument(help="The new rows.")],
    out: Annotated[Path, typer.Option(help="The file to write: .parquet, .csv, .tsv, .jsonl or .arrow.")],
    truth: Annotated[str, typer.Option(help="A column with the true class, number or tags, to compare with.")] = "",
    level: Annotated[str, typer.Option(help='A level of the taxonomy to name too, or "auto".')] = "",
    coverage: Annotated[
        float | None, typer.Option(help="Share of true numbers that intervals are to hold, 0.9 when left out.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Probability above which a tag is named, 0.5 when left out.")
    ] = None,
    unit: Annotated[
        str, typer.Option(help="row; instance: the instances of rows that are bags; set: the bags of rows.")
    ] = "row",
    instances: Annotated[str, typer.Option(help="Where the instances of new bags lie, as data.instances.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Predict new rows: class, probability, entropy, next two classes; a number's mean, sd, interval; or tags."""
    from anygrain.program.predict import predict as verb

    verb(
        run,
        table,
        out,
        _screen(),
        truth=truth,
        level=level,
        coverage=coverage,
        threshold=threshold,
        unit=unit,
        instances=instances,
        overwrite=overwrite,
    )


@app.command()
def ask(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    out: Annotated[Path, typer.Option(help="The file to write: a table, or what the labelling tool imports.")],
    n: Annotated[int, typer.Option(help="How many rows.", min=1)] = 50,
    table: Annotated[Path | None, typer.Option(help="Rows to choose from; those of the run when left out.")] = None,
    tool: Annotated[str, typer.Option(help="label-studio, argilla or doccano; a plain table when left out.")] = "",
    by: Annotated[
        str, typer.Option(help="How rows are chosen: badge, evidence_gain, margin, ...; found when left out.")
    ] = "",
    question: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=COST",
            help="What may be asked: class, a level, number, tags, tag, an annotator, anybody; repeatable.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
) -> None:
    """Choose the rows to label next, and write them for a labelling tool."""
    from anygrain.program.ask import ask as verb

    verb(run, out, _screen(), n=n, table=table or "", tool=tool, by=by, questions=question or [], overwrite=overwrite)


@app.command()
def audit(
    target: Annotated[Path | None, typer.Argument(metavar="RUN|CONFIG", help="A run folder, or a .toml.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write; RUN/audit when left out.")] = None,
    probs: Annotated[Path | None, typer.Option(help="A table of anybody's probabilities, a column per class.")] = None,
    labels: Annotated[Path | None, typer.Option(help="The configuration that --probs is for.")] = None,
    names: Annotated[str, typer.Option(help="Names of the columns: anygrain or cleanlab.")] = "anygrain",
    fail_above: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Exit with 1 where more labels are expected to be wrong.")
    ] = None,
    settings: Settings = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the audit that is there.")] = False,
) -> None:
    """Which labels look wrong, and what is odd about annotators, rules, classes and rows."""
    from anygrain.program.audit import audit as verb

    within = verb(
        target,
        out,
        _screen(),
        command=_command(),
        settings=settings or [],
        probs=probs,
        labels=labels,
        names=names,
        fail_above=fail_above,
        overwrite=overwrite,
    )
    if not within:
        raise typer.Exit(FAULT)


@app.command()
def discover(
    config: Annotated[Path, typer.Argument(help="The configuration, a .toml; the section discover of it says how.")],
    out: Annotated[Path, typer.Option(help="The run folder to write.")],
    method: Annotated[
        str, typer.Option(help="A method by name, see anygrain methods --discover; discover.method when left out.")
    ] = "",
    n_classes: Annotated[
        str, typer.Option(metavar="20|10-30", help="How many classes, known ones included; found when left out.")
    ] = "",
    accepted: Annotated[
        Path | None, typer.Option(help="classes.csv of an earlier run, edited: go on from what was accepted.")
    ] = None,
    settings: Settings = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is there.")] = False,
) -> None:
    """Find classes: finer ones inside coarse ones, new ones beside known ones."""
    from anygrain.program.discover import discover as verb
    from anygrain.program.discover import short_settings

    given = [*short_settings(method, n_classes), *(settings or [])]
    verb(config, out, given, _screen(), command=_command(), accepted=accepted, overwrite=overwrite)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    open_it: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
) -> None:
    """Write the report of a run again, one HTML file."""
    from anygrain.program.report import report as verb

    verb(run, _screen(), open_it=open_it)


@app.command()
def labels(kind: Annotated[str, typer.Argument(help="A kind of label.")] = "") -> None:
    """The kinds of label, and how their columns look."""
    from anygrain.program.kinds import example, summary

    screen = _screen()
    if not kind:
        screen.table([("kind", "each label says"), *summary()], widest=100)
        screen.line("Next:  anygrain labels Crowd   shows its columns and its configuration")
        return
    title, shown = example(kind)
    screen.line(title)
    for block in (shown.table, shown.config):
        screen.line()
        for line in block.strip("\n").split("\n"):
            screen.line(line)
    screen.line()
    screen.line("Next:  anygrain init TABLE   guesses the rest of the configuration")


@app.command()
def methods(
    discover: Annotated[bool, typer.Option("--discover", help="Those of anygrain discover instead.")] = False,
) -> None:
    """Methods for doubtful labels, for learn.method and --compare; or those that find classes."""
    from anygrain.robust.methods import all_methods

    screen = _screen()
    if discover:
        from anygrain.discover.methods import METHODS

        screen.table([("method", "what it is for"), *((name, m.good_for) for name, m in METHODS.items())], widest=120)
        screen.line("Next:  anygrain discover CONFIG --method gpc --out OUT")
        return
    rows = [("method", "what it is", "for")]
    screen.table([*rows, *((m.name, m.says, m.accepts) for m in all_methods().values())], widest=100)
    screen.line("Next:  anygrain fit CONFIG --compare default,gce --out OUT   or   --set learn.method=gce:q=0.5")


@app.command()
def systems(
    words: Annotated[list[str] | None, typer.Argument(help="Words that must occur.")] = None,
    room: Annotated[str | None, typer.Option(help="One room only.")] = None,
) -> None:
    """The methods that this project sets out to hold, each with its claim and state."""
    from anygrain.data.error import InputError
    from anygrain.systems import all_systems, render

    try:
        rows = render(all_systems(), room=room, text=" ".join(words) if words else None)
    except ValueError as error:
        raise InputError(str(error)) from error
    screen = _screen()
    if not rows:
        raise InputError(f"no system holds the words {' '.join(words or [])}. All of them: anygrain systems")
    if len(rows) <= 3:
        for row in rows:
            screen.line(f"{row['id']}  {row['name']}  ({row['room']}, {row['state']})")
            screen.line(f"      {row['claim']}")
        return
    header = ("id", "room", "state", "name")
    screen.table([header, *((r["id"], r["room"], r["state"], r["name"]) for r in rows)], widest=90)
    shown = sum(r["state"] == "shown" for r in rows)
    screen.line(f"{len(rows)} systems, {shown} shown. Next:  anygrain systems {rows[0]['id']}   shows its claim")


if __name__ == "__main__":
    main()
