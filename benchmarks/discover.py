"""Every method that finds classes beside the others: accuracy of all, old and new classes, and the class number.

    ANYGRAIN_DATA=... python benchmarks/discover.py --cache FOLDER [--encoder MINILM] [--data digits_domains,...]
        [--methods auto,ward] [--settings k75,k50,coarse] [--seeds 3] [--number] [--adapted] [--tables]

Three settings: k75, three quarters of the classes are known and a tenth of their rows labelled; k50, half and half;
coarse, the coarse class of every row and the number of classes in each. Which classes are known and which rows are
labelled is drawn by the seed. Judged on test rows, of coarse classes on the training rows themselves; one matching over
all classes. With --number the number of classes is not given, and it alone is judged: as the default finds it, and on
small sets as methods do that find their own; below coarse classes also one by one. Features are those of
`discover_features.py`; with --adapted methods get texts and the sentence encoder itself, a folder, of which the last
two layers learn what is told (see `Adapted`; a method that is not "auto" finds the classes afterwards). Seeds are
those from --first on. Every finished run is a line in FOLDER/runs.jsonl, so that a stopped run goes on where it was.
One thread. The tables go to DISCOVER_RESULTS.md, ± is half an interval of 95 % over seeds. Lines of which
FOLDER holds no run stay as they stand on that page.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bags import Cache, shown
from discover_features import ENCODER, LOADERS, TEXTS, features, sentences
from scipy import stats

from anygrain.discover import Discover
from anygrain.discover.class_number import class_number
from anygrain.discover.methods import METHODS
from anygrain.discover.task import read_task
from anygrain.encoders import HuggingFace
from anygrain.encoders.encoder import Encoder
from anygrain.labels import Coarse, Exact, Labels
from anygrain.metrics import ari, class_number_error, hungarian_accuracy, nmi

SETTINGS = {"k75": (0.75, 0.1), "k50": (0.5, 0.5), "coarse": (0.0, 0.0)}
WORDS = {
    "k75": "Known 75 %, 10 % of their rows labelled",
    "k50": "Known 50 %, half of their rows labelled",
    "coarse": "Coarse label of each row, number of classes in each",
}
COLUMNS = ("all", "old", "new", "NMI", "ARI", "s")

#: accuracy all of the best measured before the library, less a standard deviation: k75, k50, coarse
DEMANDS = {
    "clinc150": (87.2, 85.6, 85.3),
    "banking77": (79.5, 77.3, None),
    "trec_questions": (50.4, 66.2, 48.7),
    "newsgroups20_bow": (60.3, 56.2, 64.5),
    "omniglot_small": (49.6, 55.8, 58.3),
    "grocery_store": (38.3, 40.8, 81.1),
    "digits_domains": (97.9, 89.5, 99.4),
}
#: sets whose features are those on which the demands were measured
SAME_FEATURES = ("clinc150", "banking77", "trec_questions", "newsgroups20_bow")
#: accuracy of fine-tuned encoders, k75
PUBLISHED = {"banking77": ("USNID", 78.36), "clinc150": ("USNID", 90.36)}
ADAPTED = ", encoder adapted"
NEAR = 3.0  # points by which the default may be below the best baseline on new classes
BASELINES = ("ss-kmeans", "constrained-kmeans", "mixture", "gmm", "ward", "spectral", "hdbscan")

SHOWN = ("all", "new", "number", "held", "width", "parent", "s", "refused")
READ = "default"  # the number as every method takes it that does not find it itself
FINDERS = ("gpc", "gmm", "hdbscan")  # which are asked on small sets
FEW = ("digits_domains", "grocery_store", "omniglot_small", "trec_questions")

Arrays = dict[str, np.ndarray]


class AsTheyAre(Encoder):
    """Features that were made before."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.feature_dim = dim

    def forward(self, data: Any) -> torch.Tensor:
        return torch.from_numpy(np.asarray(data, dtype=np.float32))


def case(data: Arrays, setting: str, seed: int) -> tuple[np.ndarray, np.ndarray, int, Labels, Any]:
    """Truth of training and test rows with the known classes first, their number, labels, and the number of classes."""
    rng, k = np.random.default_rng(seed), int(data["y"].max()) + 1
    order = rng.permutation(k)
    place = np.empty(k, int)
    place[order] = np.arange(k)
    y, y_test = place[data["y"]], place[data["y_test"]]
    share, labelled = SETTINGS[setting]
    if setting == "coarse":
        above = data["parents"][order]
        nodes = int(above.max()) + 1
        number: Any = {c: int((above == c).sum()) for c in range(nodes)}
        return y, y_test, 0, Coarse(torch.from_numpy(above[y]), torch.eye(nodes)), number
    known = round(k * share)
    given = np.full(len(y), -1)
    for one in range(known):
        rows = rng.permutation(np.flatnonzero(y == one))
        given[rows[: max(1, round(labelled * len(rows)))]] = one
    return y, y_test, known, Exact(torch.from_numpy(given), known), k


def score(found: np.ndarray, truth: np.ndarray, known: int) -> dict[str, float]:
    right = hungarian_accuracy(found, truth, known)
    parts = {"all": right.all, "old": right.old, "new": right.new, "NMI": nmi(found, truth), "ARI": ari(found, truth)}
    return {name: 100 * value for name, value in parts.items()}


def run(data: Arrays, name: str, setting: str, seed: int, folder: str = "") -> dict[str, Any]:
    """One line of the tables; with the folder of an encoder, rows are texts and it is adapted."""
    y, y_test, known, labels, number = case(data, setting, seed)
    encoder = HuggingFace(folder, tune="last") if folder else AsTheyAre(data["x"].shape[1])
    settings = None
    if name.endswith(ADAPTED):
        name = name.removesuffix(ADAPTED)
        name, settings = ("auto", None) if name == "auto" else ("adapted", {"method": name})
    began = time.process_time()
    model = Discover(name, seed=seed, encoder=encoder, device="cpu", bootstrap=0, settings=settings)
    model.fit(data["x"], labels, number)
    seconds = time.process_time() - began
    found = score(model.labels_, y, 0) if setting == "coarse" else score(model.predict(data["x_test"]), y_test, known)
    return {**found, "s": seconds, "why": model.why_}


def counted(data: Arrays, name: str, setting: str, seed: int) -> dict[str, Any]:
    """The number of classes where it is not given: as `class_number` reads it, or as a method finds it."""
    y, _, _, labels, number = case(data, setting, seed)
    encoder = AsTheyAre(data["x"].shape[1])
    began = time.process_time()
    if name == READ:
        task, _ = read_task(
            data["x"], labels, None, encoder=encoder, train=False, seed=seed, device=torch.device("cpu")
        )
        per_node, interval = class_number(task)
        below = per_node.numpy()
    else:
        model = Discover(name, seed=seed, encoder=encoder, device="cpu", bootstrap=0)
        model.fit(data["x"], labels, None)
        below, interval = np.bincount(model.node_), model.n_classes_interval_
    seconds = time.process_time() - began
    truth = len(set(y.tolist()))
    found = {
        "number": 100 * class_number_error(int(below.sum()), truth),
        "held": float(interval[0] <= truth <= interval[1]),
        "width": interval[1] / max(interval[0], 1),
        "s": seconds,
    }
    if setting == "coarse":
        found["parent"] = float(np.abs(below - [number[c] for c in range(len(below))]).mean())
    return found


# -- tables ------------------------------------------------------------------------------------------------------------


class Results:
    """What the page says: finished runs, and where there are none, what it said before."""

    def __init__(self, cache: Cache, path: Path) -> None:
        self.cache, self.before = cache, dict[tuple[str, ...], str]()
        heading = ""
        for line in path.read_text().splitlines() if path.exists() else []:
            heading = line.removeprefix("## ") if line.startswith("## ") else heading
            if line.startswith("| "):
                first, second = (cell.strip("* ") for cell in line.split("|")[1:3])
                self.before[heading, first, second] = line
            elif line.startswith("- "):
                self.before[heading, line.split(":")[0]] = line

    def values(self, name: str, setting: str, method: str, column: str, given: bool = True) -> list[float]:
        found = self.cache.found
        rows = [found[key] for key in sorted(found) if key[:4] == (name, setting, method, given)]
        return [one[column] for one in rows if column in one]

    def row(self, name: str, setting: str, method: str) -> list[str]:
        """Cells of a line of the tables of methods, from the number of seeds on; none where nothing was run."""
        held = {column: self.values(name, setting, method, column) for column in COLUMNS}
        if held["all"]:
            return [str(len(held["all"])), *(number(held[column]) for column in COLUMNS)]
        before = self.before.get((WORDS[setting], name, method))
        return [cell.strip() for cell in before.split("|")[3:-1]] if before else []

    def score(self, name: str, setting: str, method: str, column: str) -> tuple[float, float]:
        """Mean and standard deviation over seeds, of runs or as a line of the tables gives them; NaN without any."""
        held = self.values(name, setting, method, column)
        if held:
            return float(np.mean(held)), float(np.std(held, ddof=1)) if len(held) > 1 else np.nan
        cells = self.row(name, setting, method)
        if not cells or cells[1 + COLUMNS.index(column)] == "-":
            return np.nan, np.nan
        mean, *half = cells[1 + COLUMNS.index(column)].split(" ± ")
        n = int(cells[0])
        return float(mean), float(half[0]) * n**0.5 / float(stats.t.ppf(0.975, n - 1)) if half else np.nan


def number(held: list[float]) -> str:
    return "-" if not held or np.isnan(held).any() else shown(held, 1)


def table(results: Results, setting: str) -> list[str]:
    lines = [f"## {WORDS[setting]}", "", f"| set | method | seeds | {' | '.join(COLUMNS)} |", "|---" * 9 + "|"]
    for name in LOADERS:
        for method in (*METHODS, *(f"{one}{ADAPTED}" for one in METHODS)):
            cells = results.row(name, setting, method)
            if cells:
                title = f"**{method}**" if method.startswith("auto") else method
                lines.append(f"| {' | '.join([name, title, *cells])} |")
    return [*lines, ""]


def demands(results: Results) -> list[str]:
    lines = [
        "## The default against what is asked of it",
        "",
        "Asked: `all` of the best that was measured before the library, less a standard deviation, where features are"
        " the same (texts); for pictures, whose features are others, of the best baseline here, less the same. `new`"
        " within 3 points of the best baseline's here. Published: encoders fine-tuned on the set.",
        "",
        "| set | setting | seeds | all | asked | best baseline all | new | best baseline new | met | published |",
        "|---" * 10 + "|",
    ]
    for name in LOADERS:
        for (at, setting), how in product(enumerate(SETTINGS), ("", ADAPTED)):
            mine = results.row(name, setting, f"auto{how}")
            best: dict[str, tuple[float, float, str]] = {}
            for column in ("all", "new"):
                scores = [(*results.score(name, setting, m, column), m) for m in BASELINES]
                there = [one for one in scores if not np.isnan(one[0])]
                best[column] = max(there, key=lambda one: one[0], default=(np.nan, np.nan, ""))
            if not mine or np.isnan(best["all"][0]):
                continue
            asked = DEMANDS[name][at] if name in SAME_FEATURES else best["all"][0] - best["all"][1]
            reached = {column: results.score(name, setting, f"auto{how}", column)[0] for column in ("all", "new")}
            parts = [] if asked is None else [("all", reached["all"] >= asked)]
            if setting != "coarse":
                parts.append(("new", reached["new"] >= best["new"][0] - NEAR))
            missed = [part for part, met in parts if not met]
            said = PUBLISHED.get(name) if setting == "k75" else None
            cells = [
                f"{name}{how}",
                setting,
                mine[0],
                mine[1 + COLUMNS.index("all")],
                "-" if asked is None else f"{asked:.1f}",
                f"{best['all'][0]:.1f} {best['all'][2]}",
                mine[1 + COLUMNS.index("new")],
                "-" if setting == "coarse" else f"{best['new'][0]:.1f} {best['new'][2]}",
                f"{' and '.join(missed)} missed" if missed else "yes",
                f"{said[1]} {said[0]}" if said else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def numbers(results: Results) -> list[str]:
    heading = "The class number, where it is not given"
    lines = [
        f"## {heading}",
        "",
        "Error: of the number, in per cent; held: seeds whose interval (nine tenths) holds the truth; width: its upper"
        " end over its lower; per parent: mean absolute error below one coarse class.",
        "",
        f"| set | setting | error | held | width | per parent | s | {' | '.join(f'error of {m}' for m in FINDERS)} |",
        "|---" * (7 + len(FINDERS)) + "|",
    ]
    for name, setting in product(LOADERS, SETTINGS):
        held = results.values(name, setting, READ, "held", given=False)
        before = results.before.get((heading, name, setting), "")
        cells = [cell.strip() for cell in before.split("|")[1:-1]] or ["-"] * (7 + len(FINDERS))
        if held:
            columns = ("width", "parent", "s") if setting == "coarse" else ("width", "", "s")
            rest = [number(results.values(name, setting, READ, c, given=False)) if c else "" for c in columns]
            error = number(results.values(name, setting, READ, "number", given=False))
            cells[:7] = [name, setting, error, f"{sum(held):.0f} of {len(held)}", *rest]
        for place, finder in enumerate(FINDERS):
            errors = results.values(name, setting, finder, "number", given=False)
            cells[7 + place] = number(errors) if errors else cells[7 + place]
        if held or before:
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def listed(results: Results, heading: str, lines: dict[str, list[str]]) -> list[str]:
    """A list under its heading: lines by how they begin, and those that stood there and begin otherwise."""
    before = [line for key, line in results.before.items() if key[0] == heading and len(key) == 2]
    kept = [line for line in before if not line.startswith(tuple(lines))]
    found = sorted(kept + [line for part in lines.values() for line in part])
    return [f"## {heading}", "", *found, ""] if found else []


def chosen(results: Results) -> list[str]:
    lines = dict[str, list[str]]()
    for (name, setting, method, given, seed), value in results.cache.found.items():
        if method.startswith("auto") and given and "why" in value:
            begins = f"- {name}{method.removeprefix('auto')}, {setting}, "
            lines.setdefault(begins, []).append(f"{begins}seed {seed}: {value['why']}.")
    return listed(results, "What the default chose", lines)


def refused(results: Results) -> list[str]:
    lines = dict[str, list[str]]()
    for key, value in results.cache.found.items():
        said = lines.setdefault(f"- {key[2]}: ", [])
        if "refused" in value and (line := f"- {key[2]}: {value['refused']}") not in said:
            said.append(line)
    return listed(results, "Refused", lines)


def page(results: Results) -> str:
    about = [
        "# Methods that find classes",
        "",
        f"By `python benchmarks/discover.py --cache CACHE`, {datetime.date.today():%Y-%m-%d}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, one thread; ± is half an interval of 95 % over "
        "seeds; s are CPU seconds of fitting, predictions left out. Lines of methods that were not run again stand as "
        "an earlier run left them; their seconds are those of another machine.",
        "",
    ]
    parts = [demands(results), *(table(results, setting) for setting in SETTINGS), numbers(results), chosen(results)]
    return "\n".join([*about, *(line for part in [*parts, refused(results)] for line in part)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder for features and finished runs")
    parser.add_argument("--encoder", default=ENCODER, help="sentence encoder")
    parser.add_argument("--data", default=",".join(LOADERS), help="sets, separated by commas")
    parser.add_argument(
        "--methods",
        help="methods, separated by commas; all of them, or with --number the default and those that find it",
    )
    parser.add_argument("--settings", default=",".join(SETTINGS), help="settings, separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--adapted", action="store_true", help="the sentence encoder learns what is told first")
    parser.add_argument("--number", action="store_true", help="the number of classes is not given")
    parser.add_argument("--tables", action="store_true", help="only write the tables")
    args = parser.parse_args()
    torch.set_num_threads(1)
    usual = [READ, *FINDERS] if args.number else [name for name in METHODS if name != "adapted"]
    methods = args.methods.split(",") if args.methods else usual
    cache = Cache(args.cache / "runs.jsonl")
    if not args.tables:
        for name in args.data.split(","):
            data = features(name, args.cache, args.encoder)
            if args.adapted:
                if name not in TEXTS:
                    continue
                data |= {"x": list(sentences(name)[0].text), "x_test": list(sentences(name)[1].text)}
            for seed in range(args.first, args.first + args.seeds):
                for setting in args.settings.split(","):
                    if setting == "coarse" and ("parents" not in data or args.adapted):
                        continue
                    for method in methods:
                        if args.number and method != READ and name not in FEW:
                            continue
                        method = f"{method}{ADAPTED}" if args.adapted else method
                        key = (name, setting, method, not args.number, seed)
                        if key in cache.found:
                            continue
                        try:
                            folder = args.encoder if args.adapted else ""
                            done = counted(data, method, setting, seed) if args.number else None
                            cache.keep(key, done or run(data, method, setting, seed, folder))
                        except ValueError as error:
                            cache.keep(key, {"refused": str(error)})
                        print(key, {c: cache.found[key].get(c) for c in SHOWN if c in cache.found[key]}, flush=True)
    path = Path(__file__).parent / "DISCOVER_RESULTS.md"
    path.write_text(page(Results(cache, path)))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
