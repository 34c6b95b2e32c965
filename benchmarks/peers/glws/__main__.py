"""The fourteen settings of the GLWS paper on digits and CIFAR-10 pictures, and mixtures of kinds.

    ANYGRAIN_DATA=... python -m benchmarks.peers.glws --glws PATH

PATH is a checkout of github.com/Hhhhhhao/General-Framework-Weak-Supervision; without one its columns are left out. Both
sides see the same pictures, weak labels, weak and strong views, initial network shape, epochs and pictures per step, on
one thread. Of the GLWS code the algorithm classes run as they are (`train`, `train_step`); ours is `Learner` as it
comes. The ceiling is the same network with the true classes. Both sides are scored by the network of the end, ours at
the temperature that held-out evidence chose; nothing of the test pictures is seen. Where the evidence leaves open which
class is which, and for confidence differences, the better of both readings is scored, as GLWS does. It trains with
AdamW at our rate, as SGD of some of its configurations diverged on this network. Scores are the mean of the seeds that
a side has, with the lowest and the highest; gains are of the seeds that both have. Results that were kept (`--keep`)
may be of an earlier state of our code.

Seconds are of processor time, of `--rounds` rounds in each of which plain training with true classes, ours and GLWS
take their turn; in brackets the part spent on the evidence (posteriors of batches; for GLWS the forward part of its
trellises). Plain training sees each picture once in one view, which is the least that any method does: GLWS / plain is
what a method that costs nothing besides would reach.
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


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds per epoch of one round, and of these the seconds spent on the evidence; None where a side is absent."""

    data: str
    setting: str
    round: int
    plain: float
    ours: float
    ours_in_evidence: float
    peer: float | None = None
    peer_in_evidence: float | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        return self.data, self.setting, self.round


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
        read = [json.loads(line) for line in lines]
        self.results = {result.key: result for result in (Result(**cell) for cell in read if "side" in cell)}
        self.times = {times.key: times for times in (Times(**cell) for cell in read if "plain" in cell)}

    def add_times(self, times: Times) -> None:
        self.times[times.key] = times
        self._write(times)
        print(times, flush=True)

    def _write(self, found: Result | Times) -> None:
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(dataclasses.asdict(found)) + "\n")

    def add(self, result: Result) -> None:
        self.results[result.key] = result
        self._write(result)
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


def run_times(pictures: Pictures, name: str, rounds: int, checkout: Path | None, kept: Kept) -> None:
    """Short trainings of all sides in turn: what an epoch costs under the same load."""
    evidence = SETTINGS[name](pictures, torch.Generator().manual_seed(0))
    for number in range(rounds):
        if (pictures.name, name, number) in kept.times:
            continue
        gc.collect()
        _, plain = supervised(pictures, evidence.rows, evidence.truth, evidence.n_classes, epochs=1, seed=number)
        ours = Ours(evidence, pictures, epochs=2, seed=number).train()
        peer: tuple[float, float] | tuple[None, None] = (None, None)
        if checkout is not None:
            peer = Peer(checkout, evidence, pictures, epochs=1, seed=number).train()
        kept.add_times(Times(pictures.name, name, number, plain, *ours, *peer))


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


def _of(found: Found, side: str, what: str) -> str:
    values = [getattr(result, what) for result in found.get(side, [])]
    if not values:
        return ""
    ends = f" ({min(values):.3f}..{max(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{ends}"


def _mean(found: Found, side: str, what: str) -> float:
    return statistics.mean(getattr(result, what) for result in found[side])


def _seconds(found: Found, side: str) -> str:
    if side not in found:
        return ""
    return f"{_mean(found, side, 'seconds'):.2f} ({_mean(found, side, 'in_evidence'):.2f})"


def settings_table(rows: dict[str, Found]) -> Iterator[str]:
    """A line per setting, and what of the aims is met."""
    yield (
        "| setting | seeds: ours, GLWS | ceiling | accuracy: ours | GLWS | calibration error: ours | GLWS "
        "| log loss: ours | GLWS |"
    )
    yield "|---" * 9 + "|"
    met: dict[str, list[str]] = defaultdict(list)
    both = [name for name, found in rows.items() if "GLWS" in found and "ours" in found]
    for name, found in rows.items():
        if name in both:
            theirs = {result.seed: result.accuracy for result in found["GLWS"]}
            gains = [result.accuracy - theirs[result.seed] for result in found["ours"] if result.seed in theirs]
            if gains and statistics.mean(gains) >= 0:
                met["accuracy"].append(name)
            if _mean(found, "ours", "calibration") <= _mean(found, "GLWS", "calibration") / 2:
                met["calibration"].append(name)
        cells = [
            name, ", ".join(str(len(found.get(side, []))) for side in ("ours", "GLWS")),
            _of(found, "ceiling", "accuracy"),
            *(_of(found, side, what) for what in ("accuracy", "calibration", "log_loss") for side in ("ours", "GLWS")),
        ]  # fmt: skip
        yield "| " + " | ".join(cells) + " |"
    if both:
        yield ""
        yield (
            f"Of {len(both)} settings: accuracy not below GLWS in {len(met['accuracy'])}, calibration error at most "
            f"half in {len(met['calibration'])}."
        )
        for what, said in (("accuracy", "Accuracy below GLWS"), ("calibration", "Calibration error above half")):
            missed = [name for name in both if name not in met[what]]
            if missed:
                yield f"{said}: {', '.join(missed)}."


def times_table(times: Sequence[Times]) -> Iterator[str]:
    """A line per setting: seconds of all sides, and ratios."""
    yield "| setting | s per epoch: plain | ours | GLWS | GLWS / ours | GLWS / plain | evidence alone: GLWS / ours |"
    yield "|---" * 7 + "|"
    by_name: dict[str, list[Times]] = {}
    for found in times:
        by_name.setdefault(found.setting, []).append(found)
    for name in (name for name in SETTINGS if name in by_name):
        rounds = by_name[name]

        def mean(what: str, of: Sequence[Times] = rounds) -> float:
            values = [getattr(one, what) for one in of]
            return float("nan") if None in values else statistics.mean(values)

        ours, peer, plain = mean("ours"), mean("peer"), mean("plain")
        spent, theirs = mean("ours_in_evidence"), mean("peer_in_evidence")
        ratio = f"{theirs / spent:.1f}" if theirs > 0 else ""
        yield (
            f"| {name} | {plain:.2f} | {ours:.2f} ({spent:.2f}) | {peer:.2f} ({theirs:.2f}) "
            f"| {peer / ours:.1f} | {peer / plain:.1f} | {ratio} |"
        )


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
    about, about_times = (" ".join(part.split()) for part in __doc__.split("\n\n")[2:4])
    for data in names:
        rows = by_data.get(data, {})
        fourteen = {name: rows[name] for name in SETTINGS if name in rows}
        mixed = {name: found for name, found in rows.items() if name.startswith(MIXTURES)}
        if fourteen:
            table = "\n".join(settings_table(fourteen))
            text = f"## {data}: fourteen settings\n\n{about}\n\n{size}.\n\n{table}"
            write_section(data, text, argv=argv, path=PAGE)
        times = [found for found in kept.times.values() if found.data == data]
        if times:
            table = "\n".join(times_table(times))
            write_section(f"{data}-times", f"## {data}: times\n\n{about_times}\n\n{table}", argv=argv, path=PAGE)
        if mixed:
            table = "\n".join(mixtures_table(mixed))
            text = f"## {data}: mixtures\n\n{size}.\n\n{table}"
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
    parser.add_argument("--rounds", type=int, default=2, help="rounds in which the sides are timed in turn")
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
    for setting in (setting for setting in wanted if setting != MIXTURES):
        for name in names:
            run_times(shown[name], setting, args.rounds, checkout, kept)
    write(kept, names, size)
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
