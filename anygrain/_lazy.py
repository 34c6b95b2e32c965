"""Public names of a room, imported when they are first used: scikit-learn's import alone costs a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def on_first_use(package: str, files: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package whose names are in files.

    Args:
        package: its name.
        files: module of every name, within the package, or in full where there is a dot in it.
    """

    def get(name: str) -> Any:
        if name not in files:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        file = files[name]
        return getattr(import_module(file if "." in file else f"{package}.{file}"), name)

    return get
