"""matplotlib, imported only when somebody draws with it."""

from __future__ import annotations

from typing import Any


def new_axes(ax: Any = None) -> Any:
    """The axes, or those of a new figure.

    Raises:
        ModuleNotFoundError: matplotlib is missing; the message says what to type.
    """
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("drawing needs matplotlib; type: pip install 'anygrain[report]'") from error
    return plt.subplots(layout="constrained")[1]
