"""Whether torchvision was built for the torch that is installed; it is never imported to find out.

A torchvision of another torch fails when it is imported, and with it every package that imports it (lightning, timm,
transformers), with a traceback that names a missing operator. Its version says as much: torchvision 0.N belongs to
torch 2.(N - 15), and both must be built for the same processor.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

#: packages that import torchvision where it is installed
STOPPED = ("lightning", "timm", "sentence-transformers")
OFFSET = 15


@dataclass(frozen=True)
class Build:
    """Version and processor of a package: "0.28.0+cu128" is Build((0, 28), "cu128")."""

    release: tuple[int, int]
    tag: str

    @property
    def number(self) -> str:
        return f"{self.release[0]}.{self.release[1]}"

    @property
    def processor(self) -> str:
        return "CPU" if self.tag == "cpu" else "ROCm" if self.tag.startswith("rocm") else "CUDA"


def read_build(text: str) -> Build | None:
    """The build that a version names; without a tag it is that of the package index, CUDA on Linux and else CPU."""
    found = re.match(r"(\d+)\.(\d+)[^+]*(?:\+(\w[\w.]*))?$", text)
    if found is None:
        return None
    return Build((int(found[1]), int(found[2])), found[3] or ("cuda" if sys.platform == "linux" else "cpu"))


def fits(torch: Build, torchvision: Build) -> bool:
    """Whether the two were built for each other."""
    if torchvision.release != (0, torch.release[1] + OFFSET) or torch.release[0] != 2:
        return False
    exact = "cuda" not in (torch.tag, torchvision.tag)
    return torch.tag == torchvision.tag if exact else torch.processor == torchvision.processor


def misfit() -> str | None:
    """One line that says that torchvision does not fit torch; None where it does, or is not there."""
    found = _builds()
    if found is None or fits(*found):
        return None
    torch, torchvision = found
    stopped = [name for name in STOPPED if _version(name)]
    stops = f" and stops {' and '.join(stopped)} from loading" if stopped else ""
    return (
        f"torchvision {torchvision.number} ({torchvision.processor}) does not fit torch {torch.number} "
        f"({torch.processor}){stops}. Remove it: pip uninstall torchvision, or install the {torch.processor} build "
        "(anygrain check --fix prints the command)"
    )


def explained(error: BaseException) -> str | None:
    """`misfit` where an error comes from importing torchvision; None where it does not."""
    seen: BaseException | None = error
    while seen is not None:
        if "torchvision" in str(seen):
            return misfit()
        seen = seen.__cause__ or seen.__context__
    return None


def fix() -> str | None:
    """The command that installs the torchvision of the installed torch; None where nothing is wrong."""
    found = _builds()
    if found is None or fits(*found):
        return None
    torch = found[0]
    command = f'pip install --force-reinstall --no-deps "torchvision==0.{torch.release[1] + OFFSET}.*"'
    from_index = torch.tag == "cuda" or sys.platform == "darwin"
    return command if from_index else f"{command} --index-url https://download.pytorch.org/whl/{torch.tag}"


def _builds() -> tuple[Build, Build] | None:
    texts = [_version("torch"), _version("torchvision")]
    builds = [read_build(text) for text in texts if text]
    return (builds[0], builds[1]) if len(builds) == 2 and builds[0] and builds[1] else None


def _version(name: str) -> str | None:
    """Version of an installed package, with the tag of its build, which some write in their version.py alone."""
    try:
        text = version(name)
    except PackageNotFoundError:
        return None
    spec = None if "+" in text else importlib.util.find_spec(name.replace("-", "_"))
    file = Path(spec.origin).with_name("version.py") if spec is not None and spec.origin else None
    if file is not None and file.is_file():
        said = re.search(r"""__version__\s*(?::\s*\w+)?\s*=\s*['"]([^'"]+)['"]""", file.read_text(encoding="utf-8"))
        return said[1] if said else text
    return text
