"""The verb check: does everything work here?"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path

from anygrain.program import fits
from anygrain.program.screen import Screen, seconds, size

EXTRAS = {
    "report": ("jinja2", "matplotlib"),
    "text": ("sentence_transformers",),
    "train": ("lightning",),
    "vision": ("timm", "torchvision"),
    "search": ("usearch",),
    "scale": ("ray",),
}


def check(screen: Screen, *, fix: bool = False) -> bool:
    """Say what is installed, train a small model, save it, and load it again; whether that worked.

    Args:
        screen: where to say so.
        fix: print the command that mends what does not fit, and nothing else.
    """
    if fix:
        screen.line(fits.fix() or "nothing to fix: no installed package was built for another torch")
        return True
    import torch

    device = f"cuda ok ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else "cpu ok"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = [
        f"python {platform.python_version()} ok",
        (f"torch {torch.__version__.split('+')[0]} {device}"),
        f"{cores} cores",
    ]
    memory = _free_memory()
    if memory:
        parts.append(f"{size(memory)} free memory")
    parts.append(f"{size(shutil.disk_usage(Path.cwd()).free)} free disk")
    screen.line(" · ".join(parts))
    missing = {n: not all(importlib.util.find_spec(m) for m in modules) for n, modules in EXTRAS.items()}
    shown = [f"{n} no (pip install 'anygrain[{n}]')" if absent else f"{n} yes" for n, absent in missing.items()]
    screen.line("extras: " + " · ".join(shown))
    wrong = fits.misfit()
    if wrong:
        screen.line(wrong)
    began = time.monotonic()
    same = _small_model()
    took = seconds(time.monotonic() - began)
    if same:
        screen.line(f"trained a 3-class toy model and reloaded it: same predictions ({took})")
        screen.line("Next:  anygrain demo")
    else:
        screen.line(f"trained a 3-class toy model and reloaded it: its predictions CHANGED ({took})")
    return same


def _small_model() -> bool:
    import numpy as np
    import torch

    from anygrain.labels import Candidates, Exact
    from anygrain.learn import Learner

    random = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 40)
    features = random.normal(size=(120, 4)) + 3 * np.eye(3, 4)[truth]
    exact = torch.from_numpy(np.where(np.arange(120) % 10 == 0, truth, -1))
    maybe = torch.from_numpy((random.random((120, 3)) < 0.3) | (np.arange(3) == truth[:, None]))
    learner = Learner(seed=0, rounds=1).fit(features, Exact(exact, 3) & Candidates(maybe))
    with tempfile.TemporaryDirectory() as folder:
        learner.save(Path(folder) / "model")
        again = Learner.load(Path(folder) / "model")
    right = float((learner.predict(features) == truth).mean())
    return right > 0.8 and bool(np.array_equal(again.predict_proba(features), learner.predict_proba(features)))


def _free_memory() -> float | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return float(line.split()[1]) * 1024
    except OSError:
        pass
    return None
