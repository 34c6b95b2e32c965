"""Write a measured table into its marked section of a Markdown page of results."""

import datetime
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

RESULTS = Path(__file__).with_name("RESULTS.md")
HEADING = """# {title}

Every section is written by the command it names. Times are those of one run, so compare ratios.
"""


def machine() -> str:
    """Cores, memory and versions of this machine, in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB RAM, "
        f"{torch.get_num_threads()} torch thread(s), Python {platform.python_version()}, torch {torch.__version__}"
    )


def command(argv: Sequence[str] | None = None) -> str:
    """The command line as a reader can repeat it: paths below the working directory relative, checkouts by name."""
    shown = []
    for word in list(sys.argv if argv is None else argv):
        path = Path(word)
        if path.is_absolute():
            inside = path.is_relative_to(Path.cwd())
            word = str(path.relative_to(Path.cwd())) if inside else f"PATH/{path.name}"
        shown.append(word if not word.startswith("scratch/") else f"PATH/{path.name}")
    return "python " + shlex.join(shown)


def write_section(
    name: str,
    markdown: str,
    *,
    argv: Sequence[str] | None = None,
    path: Path = RESULTS,
    title: str = "Side by side with other projects",
) -> None:
    """Replace the text between ``<!-- begin name -->`` and ``<!-- end name -->`` in `path`, or append it.

    The date, the machine and the command are put under the table.

    Args:
        name: of the section, a word.
        markdown: the section: heading, table, remarks.
        argv: the command line, by default that of this process.
        path: of the page, by default ``RESULTS.md`` beside this file.
        title: of the page, where it is new.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    page = path.read_text() if path.exists() else HEADING.format(title=title)
    today = datetime.date.today().isoformat()
    section = f"{begin}\n{markdown.strip()}\n\n{today}; {machine()}; `{command(argv)}`\n{end}"
    if begin in page and end in page:
        before, rest = page.split(begin, 1)
        page = before + section + rest.split(end, 1)[1]
    else:
        page = page.rstrip("\n") + "\n\n" + section + "\n"
    path.write_text(page)
