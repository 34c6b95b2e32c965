"""Ctrl-C that is never lost.

Python drops a KeyboardInterrupt that is raised inside a callback from C, so the wish to stop is also written down, and
long work asks for it between steps.
"""

from __future__ import annotations

import signal
from types import FrameType

_asked = False


def interrupt(number: int = signal.SIGINT, frame: FrameType | None = None) -> None:
    """A handler of signals: note the wish to stop, and raise KeyboardInterrupt."""
    global _asked
    _asked = True
    raise KeyboardInterrupt


def stop_if_asked() -> None:
    """Raise KeyboardInterrupt if somebody asked to stop since the last time one was raised here."""
    global _asked
    if _asked:
        _asked = False
        raise KeyboardInterrupt
