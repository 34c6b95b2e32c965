"""Real data that come with the package, to try the program on."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from anygrain.data.error import InputError, did_you_mean

#: name of a demo -> its files, the table first
DEMOS = {"tickets": ("tickets.csv", "taxonomy.csv", "new.csv", "README.md")}

#: table of a demo -> columns whose labels were drawn by a program
SIMULATED = {"tickets.csv": ("worker_1", "worker_2", "worker_3")}


def copy_demo(name: str, folder: Path, *, overwrite: bool = False) -> list[Path]:
    """The files of a demo, copied into a folder.

    Raises:
        InputError: no such demo, or other files of these names in the folder.
    """
    if name not in DEMOS:
        raise InputError(f"There is no demo {name}.{did_you_mean(name, list(DEMOS))} Demos: {', '.join(DEMOS)}")
    content = {file: (files("anygrain.demo") / name / file).read_bytes() for file in DEMOS[name]}
    for file, data in content.items():
        target = folder / file
        if target.exists() and target.read_bytes() != data and not overwrite:
            raise InputError(f"{target} is there already and differs from the demo's. Move it away, or add --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in content.items():
        (folder / file).write_bytes(data)
    return [folder / file for file in content]


def simulated_columns(path: Path) -> tuple[str, ...]:
    """Columns of a table whose labels were drawn by a program, where the table is one of ours."""
    for name, contents in DEMOS.items():
        if path.name == contents[0]:
            ours = (files("anygrain.demo") / name / contents[0]).read_bytes()
            if path.read_bytes() == ours:
                return SIMULATED[path.name]
    return ()
