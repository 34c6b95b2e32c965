"""What importing costs: `anygrain.labels` needs torch and numpy only, `import anygrain` loads nothing heavy."""

import importlib.metadata
import re
import subprocess
import sys


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(' '.join({{m.partition('.')[0] for m in sys.modules}}))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def imported_by(package: str, seen: set[str]) -> set[str]:
    """Names of a package and of everything that it requires, as installed."""
    if package in seen:
        return seen
    seen.add(package)
    try:
        needs = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return seen
    for need in needs:
        if "extra ==" not in need:
            imported_by(re.match(r"[A-Za-z0-9_.-]+", need)[0].lower().replace("-", "_"), seen)
    return seen


def test_labels_import_torch_and_numpy_only():
    bare = modules_after("import torch, numpy")
    ours = modules_after("import anygrain.labels")
    allowed = imported_by("torch", set()) | imported_by("numpy", set()) | set(sys.stdlib_module_names) | {"anygrain"}
    assert {m for m in ours - bare if not m.startswith("_")} <= allowed


def test_importing_anygrain_loads_no_heavy_part():
    ours = modules_after("import anygrain")
    heavy = {
        "sklearn",
        "scipy",
        "pandas",
        "polars",
        "pyarrow",
        "matplotlib",
        "lightning",
        "transformers",
        "jinja2",
        "typer",
    }
    assert not ours & heavy
