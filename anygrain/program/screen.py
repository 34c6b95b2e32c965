"""What a verb shows: plain lines, aligned tables, and progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

EVERY = 10.0  # seconds between lines of progress where there is no terminal


class Screen:
    """Lines on a console; text is never read as markup."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console(highlight=False, soft_wrap=True)

    def line(self, text: str = "") -> None:
        self.console.print(f"  {text}" if text else "", markup=False, highlight=False, soft_wrap=True)

    def flush_left(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def table(self, rows: Sequence[Sequence[str]], *, gap: int = 2, widest: int = 60) -> None:
        """Rows of cells, aligned; the first is a header."""
        width = [min(widest, max(len(row[c]) for row in rows)) for c in range(len(rows[0]))]
        for row in rows:
            self.line((" " * gap).join(cell.ljust(w) for cell, w in zip(row, width, strict=True)).rstrip())

    def columns(self, names: Sequence[str]) -> None:
        """Names side by side."""
        self.line("  ".join(names))

    def progress(self, name: str) -> Steps:
        return Steps(self, name)


class Steps:
    """Progress of a piece of work: one line redrawn on a terminal, else one line every ten seconds."""

    def __init__(self, screen: Screen, name: str):
        self.screen, self.name = screen, name
        self.began = self.said = time.monotonic()
        self.bar: Progress | None = None
        if screen.console.is_terminal:
            self.bar = Progress(
                TextColumn("  {task.description}"),
                BarColumn(24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[about]}"),
                TextColumn("{task.fields[clock]}"),
                console=screen.console,
                transient=True,
            )
            self.task = self.bar.add_task(name, total=None, about="", clock="")

    def __enter__(self) -> Self:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def update(self, done: int, total: int, about: str = "") -> None:
        now = time.monotonic()
        clock = seconds(now - self.began)
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total or None, about=about, clock=clock)
        elif now - self.said >= EVERY:
            self.said = now
            of = f"{done}/{total}" if total else str(done)
            self.screen.line(f"{self.name}  {of}  {about}  {clock}")


def seconds(value: float) -> str:
    """ "0.4 s", "14 s", "3 min 20 s"."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    return f"{int(value // 60)} min {int(value % 60)} s"


def size(value: float) -> str:
    """Bytes in words."""
    for unit, many in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= (0.1 * many if unit == "GB" else many):
            return f"{value / many:.1f} {unit}"
    return f"{value:.0f} B"


def error_line(text: str) -> None:
    """One line on standard error."""
    print(" ".join(text.split()), file=sys.stderr)
