"""The fourteen settings of the GLWS paper on digits and CIFAR-10 pictures, and mixtures of kinds.

    ANYGRAIN_DATA=... python -m benchmarks.peers.glws --glws PATH

PATH is a checkout of github.com/Hhhhhhao/General-Framework-Weak-Supervision; without one its columns are left out. Both
sides see the same pictures, weak labels, weak and strong views, initial network shape, epochs and pictures per step, on
one thread. Of the GLWS code the algorithm classes run as they are (`train`, `train_step`); ours is `Learner` as it
comes. The ceiling is the same network with the true classes. Both sides are scored by the network of the end, ours at
the temperature that held-out evidence chose; nothing of the test pictures is seen. Seconds are of processor time; in
brackets the part spent on the evidence (posteriors of batches; for GLWS the forward part of its trellises). Where the
evidence leaves open which class is which, and for confidence differences, the better of both readings is scored, as
GLWS does. It trains with AdamW at our rate, as SGD of some of its configurations diverged on this network. Where
results were kept (`--keep`) the sides come from runs at different load of the machine: times then compare roughly.
"""

import argparse
import dataclasses
import gc
import json
import statistics
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from anygrain.metrics import accuracy, expected_calibration_error, log_loss
from benchmarks.peers.glws.mixtures import mixtures
from benchmarks.peers.glws.network import BATCH, probabilities, supervised
from benchmarks.peers.glws.ours import Ours
from benchmarks.peers.glws.peer import Peer
from benchmarks.peers.glws.pictures import Pictures, load
from benchmarks.peers.glws.settings import SETTINGS
from benchmarks.peers.results import write_section

PAGE = Path(__file__).parent.with_name("GLWS_RESULTS.md")
MIXTURES = "mixtures"


@dataclasses.dataclass(frozen=True)
class Result:
    """One training, scored on the test pictures."""

    data: str
    setting: str
    side: str
    seed: int
    accuracy: float
    calibration: float
    log_loss: float
    seconds: float
    in_evidence: float = 0.0

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.data, self.setting, self.side, self.seed


def scores(probs: Tensor, truth: Tensor, swaps: bool = False) -> dict[str, float]:
    """Accuracy, calibration error and log loss of probabilities (N, K); where they are not finite, of uniform ones."""
    probs = torch.where(probs.isfinite().all(dim=1, keepdim=True), probs.double(), 1 / probs.shape[1])
    if swaps and float((probs.argmax(dim=1) == truth).double().mean()) < 0.5:
        probs = probs.flip(1)
    given, right = probs.numpy(), truth.numpy()
    return {
        "accuracy": accuracy(given, right),
        "calibration": expected_calibration_error(given, right),
        "log_loss": log_loss(given, right),
    }


class Kept:
    """Results, also in a file of JSON lines, so that a run that was stopped goes on.

    Args:
        path: of the file; None: nothing is kept.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self.results = {result.key: result for result in (Result(**json.loads(line)) for line in lines)}

    def add(self, result: Result) -> None:
        self.results[result.key] = result
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(dataclasses.asdict(result)) + "\n")
        print(
            f"{result.data:8} {result.setting:38} seed {result.seed} {result.side:8} accuracy {result.accuracy:.3f} "
            f"calibration {result.calibration:.3f} log loss {result.log_loss:.3f} {result.seconds:.2f} s an epoch",
            flush=True,
        )


def run_setting(
    pictures: Pictures, name: str, seed: int, epochs: int, sides: Sequence[str], checkout: Path | None, kept: Kept
) -> None:
    """Those of ours, GLWS and the ceiling that are asked for and not among the results."""
    wanted = [side for side in sides if (pictures.name, name, side, seed) not in kept.results]
    if not wanted:
        return
    evidence = SETTINGS[name](pictures, torch.Generator().manual_seed(seed))
    for side in wanted:
        gc.collect()
        spent = 0.0
        if side == "ceiling" and len(evidence.truth.unique()) < 2:
            continue  # pictures of one class alone
        if side == "ceiling":
            k = evidence.n_classes
            model, seconds = supervised(pictures, evidence.rows, evidence.truth, k, epochs=epochs, seed=seed)
            found = probabilities(model, pictures, pictures.test)
        elif side == "ours":
            ours = Ours(evidence, pictures, epochs=epochs, seed=seed)
            seconds, spent = ours.train()
            found = ours.probabilities(pictures.test)
        else:
            peer = Peer(checkout, evidence, pictures, epochs=epochs, seed=seed)
            seconds, spent = peer.train()
            found = probabilities(peer.model, pictures, pictures.test)
        score = scores(found, evidence.test_truth, evidence.swaps and side != "ceiling")
        kept.add(Result(pictures.name, name, side, seed, seconds=seconds, in_evidence=spent, **score))


def run_mixtures(pictures: Pictures, seed: int, epochs: int, kept: Kept) -> None:
    """Every kind of the mixture alone, and all at once."""
    for name, labels in mixtures(pictures, torch.Generator().manual_seed(seed)).items():
        setting = f"{MIXTURES}: {name}"
        if (pictures.name, setting, "ours", seed) in kept.results:
            continue
        ours = Ours.of(pictures.train, labels, epochs=epochs, seed=seed)
        seconds, spent = ours.train()
        score = scores(ours.probabilities(pictures.test), pictures.test_classes)
        kept.add(Result(pictures.name, setting, "ours", seed, seconds=seconds, in_evidence=spent, **score))


Found = dict[str, list[Result]]


def _of(found: Found, side: str, what: str, digits: int = 3) -> str:
    values = [getattr(result, what) for result in found.get(side, [])]
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}"


def _mean(found: Found, side: str, what: str) -> float:
    return statistics.mean(getattr(result, what) for result in found[side])


def _seconds(found: Found, side: str) -> str:
    if side not in found:
        return ""
    return f"{_mean(found, side, 'seconds'):.2f} ({_mean(found, side, 'in_evidence'):.2f})"


def settings_table(rows: dict[str, Found]) -> Iterator[str]:
    """A line per setting, and what of the aims is met."""
    yield (
        "| setting | ceiling | accuracy: ours | GLWS | calibration error: ours | GLWS | log loss: ours | GLWS "
        "| s per epoch: ours | GLWS | GLWS / ours |"
    )
    yield "|---" * 11 + "|"
    met: dict[str, list[str]] = defaultdict(list)
    both = [name for name, found in rows.items() if "GLWS" in found and "ours" in found]
    for name, found in rows.items():
        ratio = ""
        if name in both:
            times = _mean(found, "GLWS", "seconds") / _mean(found, "ours", "seconds")
            ratio = f"{times:.1f}"
            theirs = {result.seed: result.accuracy for result in found["GLWS"]}
            gains = [result.accuracy - theirs[result.seed] for result in found["ours"] if result.seed in theirs]
            if statistics.mean(gains) >= 0:
                met["accuracy"].append(name)
            if _mean(found, "ours", "calibration") <= _mean(found, "GLWS", "calibration") / 2:
                met["calibration"].append(name)
            if times >= 10:
                met["time"].append(name)
        cells = [
            name, _of(found, "ceiling", "accuracy"),
            *(_of(found, side, what) for what in ("accuracy", "calibration", "log_loss") for side in ("ours", "GLWS")),
            _seconds(found, "ours"), _seconds(found, "GLWS"), ratio,
        ]  # fmt: skip
        yield "| " + " | ".join(cells) + " |"
    if both:
        yield ""
        yield (
            f"Of {len(both)} settings: accuracy not below GLWS in {len(met['accuracy'])}, calibration error at most "
            f"half in {len(met['calibration'])}, an epoch in a tenth of the time in {len(met['time'])}."
        )
        for what, said in (("accuracy", "Accuracy below GLWS"), ("calibration", "Calibration error above half")):
            missed = [name for name in both if name not in met[what]]
            if missed:
                yield f"{said}: {', '.join(missed)}."


def mixtures_table(rows: dict[str, Found]) -> Iterator[str]:
    yield "| evidence | accuracy | calibration error | log loss | s per epoch |"
    yield "|---" * 5 + "|"
    for name, found in rows.items():
        cells = [_of(found, "ours", what) for what in ("accuracy", "calibration", "log_loss")]
        yield "| " + " | ".join([name.split(": ", 1)[1], *cells, _seconds(found, "ours")]) + " |"


def write(kept: Kept, names: list[str], size: str) -> None:
    """All results, as sections of the page; `size` says of what."""
    by_data: dict[str, dict[str, Found]] = {}
    for result in kept.results.values():
        by_data.setdefault(result.data, {}).setdefault(result.setting, {}).setdefault(result.side, []).append(result)
    argv = ["-m", "benchmarks.peers.glws", *sys.argv[1:]]
    about = " ".join(__doc__.split("\n\n")[2].split())
    for data in names:
        rows = by_data.get(data, {})
        fourteen = {name: rows[name] for name in SETTINGS if name in rows}
        mixed = {name: found for name, found in rows.items() if name.startswith(MIXTURES)}
        seeds = max((len(sides.get("ours", ())) for sides in rows.values()), default=0)
        spread = f"; mean ± deviation of {seeds} seeds" if seeds > 1 else "; one seed"
        if fourteen:
            table = "\n".join(settings_table(fourteen))
            text = f"## {data}: fourteen settings\n\n{about}\n\n{size}{spread}.\n\n{table}"
            write_section(data, text, argv=argv, path=PAGE)
        if mixed:
            table = "\n".join(mixtures_table(mixed))
            text = f"## {data}: mixtures\n\n{size}{spread}.\n\n{table}"
            write_section(f"{data}-mixtures", text, argv=argv, path=PAGE)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.glws", description=__doc__.splitlines()[0])
    parser.add_argument("--glws", type=Path, help="checkout of Hhhhhhao/General-Framework-Weak-Supervision")
    parser.add_argument("--settings", default="all", help=f"names separated by commas, of the fourteen or {MIXTURES}")
    parser.add_argument("--data", default="digits,cifar10")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--train", type=int, default=2000, help="training pictures")
    parser.add_argument("--test", type=int, default=2000, help="test pictures")
    parser.add_argument("--shrink", type=int, default=2, help="factor by which the sides of pictures are made smaller")
    parser.add_argument("--sides", default="ours,GLWS,ceiling")
    parser.add_argument("--keep", type=Path, help="file of results; those in it are not measured again")
    parser.add_argument("--write-only", action="store_true", help="write the page from the results that are kept")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    names = args.data.split(",")
    wanted = [*SETTINGS, MIXTURES] if args.settings == "all" else args.settings.split(",")
    unknown = [name for name in wanted if name not in (*SETTINGS, MIXTURES)]
    if unknown:
        parser.error(f"{unknown[0]!r} is no setting; expected some of: {', '.join([*SETTINGS, MIXTURES])}")
    checkout = None if args.glws is None else args.glws.resolve()
    sides = [side for side in args.sides.split(",") if side != "GLWS" or checkout is not None]
    if not set(sides) <= {"ours", "GLWS", "ceiling"}:
        parser.error(f"--sides is {args.sides}; expected some of ours, GLWS, ceiling")
    kept = Kept(args.keep)
    size = f"{args.train:,} training and {args.test:,} test pictures, {args.epochs} epochs, {BATCH} pictures at a time"
    if args.shrink > 1:
        size += f", sides divided by {args.shrink}"
    if args.write_only:
        write(kept, names, size)
        return
    shown = {name: load(name, train=args.train, test=args.test, shrink=args.shrink) for name in names}
    for seed in range(args.seeds):
        for name in names:
            for setting in wanted:
                if setting == MIXTURES:
                    run_mixtures(shown[name], seed, args.epochs, kept)
                else:
                    run_setting(shown[name], setting, seed, args.epochs, sides, checkout, kept)
                write(kept, names, size)


if __name__ == "__main__":
    main()
