"""EM on 10^5 to 10^7 votes: CPU time per vote and growth of peak memory.

python benchmarks/scale/crowd_votes.py
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))

from results import write_section

from anygrain.labels.aggregate import aggregate
from anygrain.labels.crowd import Crowd

VOTES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
PER_ITEM, ANNOTATORS, CLASSES = 5, 1_000, 10


def draw(votes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Item, annotator and vote (R,), and truth (N,); accuracies U(.4, .9), errors even."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(CLASSES, (votes // PER_ITEM,), generator=generator)
    item = torch.arange(len(truth)).repeat_interleave(PER_ITEM)
    annotator = torch.randint(ANNOTATORS, (votes,), generator=generator)
    right = 0.4 + 0.5 * torch.rand(ANNOTATORS, generator=generator)
    wrong = (truth[item] + torch.randint(1, CLASSES, (votes,), generator=generator)) % CLASSES
    return (
        item,
        annotator,
        torch.where(torch.rand(votes, generator=generator) < right[annotator], truth[item], wrong),
        truth,
    )


def measure(votes: int, pool: bool) -> dict[str, float]:
    torch.set_num_threads(1)
    item, annotator, vote, truth = draw(votes)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    found = aggregate(Crowd(item, annotator, vote, CLASSES), pool=pool, iterations=10, tolerance=-1.0)  # never settled
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    right = float((found.posterior.argmax(dim=1) == truth).double().mean())
    iterations = len(found.log_likelihood)
    return {
        "seconds": seconds,
        "grown": (peak - before) / 1024,
        "peak": peak / 1024,
        "right": right,
        "steps": iterations,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--votes", type=int)
    parser.add_argument("--pool", action="store_true")
    given = parser.parse_args()
    if given.votes:
        print(json.dumps(measure(given.votes, given.pool)))
        return
    lines = [
        "| votes | fit | accuracy | CPU s | µs per vote | growth of peak, MB | peak of the process, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for votes in VOTES:
        for pool in (False, True):
            command = [sys.executable, __file__, "--votes", str(votes), *(["--pool"] if pool else [])]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
            got = json.loads(done.stdout.strip().splitlines()[-1])
            name = "default: two models, hard items" if pool else f"confusion matrices, {8 + got['steps'] - 1} steps"
            line = f"| {votes:,} | {name} | {got['right']:.3f} | {got['seconds']:.2f} "
            line += f"| {1e6 * got['seconds'] / votes:.2f} "
            lines.append(line + f"| {got['grown']:.0f} | {got['peak']:.0f} |")
            print(lines[-1], flush=True)
    shape = f"{PER_ITEM} votes on each item, {ANNOTATORS:,} annotators, {CLASSES} classes; one thread."
    write_section("crowd_votes", "## Votes at scale\n\n" + shape + "\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
