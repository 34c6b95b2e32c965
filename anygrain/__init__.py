"""Train fine, calibrated, instance-level models from whatever labels you have.

`anygrain.labels` says what is known, `anygrain.learn.Learner` trains on it, `anygrain.load(folder)` reads a saved
model; the program `anygrain` does the same from a table.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anygrain.learn import Learner

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(folder: str | os.PathLike[str]) -> Learner:
    """The model saved in a folder: that of `Learner.save`, or a run folder of the program.

    No pickle is ever opened.

    Raises:
        FileNotFoundError: no model in the folder.
        ValueError: a folder that holds a pickle, or was written by something else.
    """
    from anygrain.learn import Learner

    return Learner.load(folder)
