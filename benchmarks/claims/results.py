"""Write the row of a claim into RESULTS.md, and its state into the list of seed systems."""

import argparse
import datetime
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).with_name("RESULTS.md")
SYSTEMS = ROOT / "anygrain" / "systems.json"
HEADING = """# Claims of the seed systems

One row for each claim script that has run, also where the claim did not come out. Systems without a row are planned
(`anygrain systems`). Intervals are 95 % ones of the mean over seeds unless the row says otherwise.

| id | claim | ours | baseline | interval | came out | date, machine, command |
|---|---|---|---|---|---|---|
"""
STARTED = time.process_time()


def arguments(doc: str, seeds: int) -> argparse.Namespace:
    """--seeds, and --dry to print without writing; one torch thread."""
    parser = argparse.ArgumentParser(description=doc.strip().splitlines()[0])
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--dry", action="store_true", help="print the row and write nothing")
    torch.set_num_threads(1)
    return parser.parse_args()


def interval(values: Sequence[float], scale: float = 100.0) -> tuple[float, float, float]:
    """Mean and 95 % interval of Student's t, of values times `scale`."""
    from scipy.stats import t

    found = scale * np.asarray(values, dtype=float)
    half = t.ppf(0.975, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else float("nan")
    return float(found.mean()), float(found.mean() - half), float(found.mean() + half)


def shown(values: Sequence[float], scale: float = 100.0, digits: int = 1) -> str:
    """Mean [low, high] of values times `scale`, as text."""
    mean, low, high = interval(values, scale)
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def claim_of(name: str) -> str:
    """What must come out for a system."""
    return next(row["claim"] for row in json.loads(SYSTEMS.read_text(encoding="utf-8")) if row["id"] == name)


def record(name: str, *, ours: str, baseline: str, interval: str, came_out: bool, note: str = "", dry: bool) -> None:
    """Print the row of a system, and, unless `dry`, put it into RESULTS.md and the state into systems.json.

    Args:
        name: "S001" .. "S150".
        ours, baseline, interval: cells of the row.
        came_out: whether the claim holds as it is stated.
        note: what came out otherwise, behind yes or no.
    """
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    took = f"{(time.process_time() - STARTED) / 60:.1f} CPU minutes"
    script = Path(sys.argv[0]).resolve()
    words = [str(script.relative_to(ROOT)), *sys.argv[1:]]
    run = f"{datetime.date.today().isoformat()}, {threads}, {took}, torch {torch.__version__}, "
    run += f"`python {shlex.join(words)}`"
    verdict = ("yes" if came_out else "no") + (f": {note}" if note else "")
    cells = [name, claim_of(name), ours, baseline, interval, verdict, run]
    row = "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
    print(row)
    if dry:
        return
    page = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    rows = {m[1]: m[0] for m in re.finditer(r"^\| (S\d{3}) \|.*$", page, flags=re.MULTILINE)}
    rows[name] = row
    RESULTS.write_text(HEADING + "\n".join(rows[key] for key in sorted(rows)) + "\n", encoding="utf-8")
    systems = json.loads(SYSTEMS.read_text(encoding="utf-8"))
    for system in systems:
        if system["id"] == name:
            system["state"] = "shown" if came_out else "not shown"
    SYSTEMS.write_text(json.dumps(systems, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
