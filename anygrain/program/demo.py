"""The verb demo: from nothing to a model of real data."""

from __future__ import annotations

from pathlib import Path

from anygrain.data.error import InputError
from anygrain.data.table import read_table
from anygrain.demo import DEMOS, SIMULATED, copy_demo
from anygrain.program.fit import fit
from anygrain.program.init import init
from anygrain.program.predict import predict
from anygrain.program.screen import Screen


def demo(name: str, where: Path, screen: Screen, *, copy_only: bool = False, overwrite: bool = False) -> None:
    """Copy the data of a demo, guess its configuration, fit it, and predict rows that it has not seen.

    Raises:
        InputError: no such demo, or files in the way.
    """
    folder = Path(name)
    run, config = Path("runs") / "demo", Path(f"{name}.toml")
    if not copy_only and name in DEMOS and not overwrite:
        for path in (where / run, where / config):
            if path.exists():
                raise InputError(f"{path.relative_to(where)} exists. Add --overwrite to run the demo again")
    copy_demo(name, where / folder, overwrite=overwrite)
    table = folder / DEMOS[name][0]
    taxonomy = folder / "taxonomy.csv"
    _describe(where, folder, name, screen)
    if copy_only:
        screen.line(f"Next:  anygrain init {table} --taxonomy {taxonomy}")
        return
    screen.flush_left(f"\n$ anygrain init {table} --taxonomy {taxonomy}")
    init(table, screen, taxonomy=taxonomy, overwrite=overwrite, next_out=str(run))
    command = f"anygrain fit {config} --out {run}"
    screen.flush_left(f"\n$ {command}")
    fit(config, run, [], screen, command=command, overwrite=overwrite)
    out = run.parent / "demo_new.parquet"
    screen.flush_left(f"\n$ anygrain predict {run} {folder / 'new.csv'} --out {out} --truth product")
    predict(run, folder / "new.csv", out, screen, truth="product", overwrite=True)


def _describe(where: Path, folder: Path, name: str, screen: Screen) -> None:
    table = read_table(where / folder / DEMOS[name][0])
    n = len(table)
    said = []
    for column in table.columns:
        values = table.strings(column)
        filled = int((values != "").sum())
        kinds = len(set(values.tolist()) - {""})
        missing = f", {100 * (1 - filled / n):.0f} % missing" if filled < n else ""
        said.append(column if kinds == n or kinds > 200 else f"{column} ({kinds} values{missing})")
    screen.line(f"{folder / DEMOS[name][0]}  {n} rows: {', '.join(said)}")
    screen.line(f"{folder / 'taxonomy.csv'}  {' -> '.join(read_table(where / folder / 'taxonomy.csv').columns)}")
    screen.line(f"{folder / 'new.csv'}  {len(read_table(where / folder / 'new.csv'))} other rows, to test on")
    screen.line(
        f"the votes of {', '.join(SIMULATED[DEMOS[name][0]])} are simulated, all else is real (see "
        f"{folder / 'README.md'})"
    )
