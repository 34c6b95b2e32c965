"""The verb report: the page of a run, written again."""

from __future__ import annotations

from pathlib import Path

from anygrain.data.error import InputError
from anygrain.program.screen import Screen, size


def report(run: Path, screen: Screen, *, open_it: bool = False) -> Path:
    """Write report.html of a finished run, and open it if asked; its path.

    Raises:
        InputError: no finished run there, or the page needs an extra that is not installed.
    """
    if not run.is_dir():
        raise InputError(f"There is no run folder {run}. Expected one that anygrain fit wrote")
    from anygrain.report import write_report

    try:
        page = write_report(run)
    except (FileNotFoundError, ValueError, ModuleNotFoundError) as error:
        raise InputError(str(error)) from error
    screen.line(f"{page}  ({size(page.stat().st_size)}, one file, works offline)")
    if open_it:
        import webbrowser

        if not webbrowser.open(page.resolve().as_uri()):
            screen.line("no browser was found here: open the file by hand")
    return page
