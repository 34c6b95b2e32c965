"""The verb discover: from a configuration to the classes that are hidden in its rows."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from anygrain.data.classes import Classes
from anygrain.data.config import Config, load_config
from anygrain.data.dataset import Dataset, model_input
from anygrain.data.error import InputError, counted, did_you_mean, number, quoted
from anygrain.data.pictures import image_cells, thumbnail
from anygrain.data.run_folder import FORMAT, WRITTEN, RunFolder
from anygrain.data.table import write_table
from anygrain.discover import Revision, describe
from anygrain.discover.discover import Discover
from anygrain.discover.methods import METHODS
from anygrain.discover.naming import Suggestion
from anygrain.discover.revision import taxonomy_under
from anygrain.labels import LabelError, Soft
from anygrain.program.discover_data import Given, Said, number_asked, number_words, read_given
from anygrain.program.fit import Stopped, versions
from anygrain.program.interrupt import stop_if_asked
from anygrain.program.look import fingerprint_of
from anygrain.program.screen import Screen, seconds, size
from anygrain.program.setup import dimensions, encoder_words, make_learner
from anygrain.program.threads import threads_for

SPACE = "found"  # what metrics.json calls a run of this verb
TSNE_ROWS = 2000  # placed by t-SNE; above, a random part of so many rows by principal components
MOST_VALUES = 200  # of a label that found classes are compared with
SHOWN = 40  # lines of the table of classes


class FoundFolder(RunFolder):
    """A run folder with the table of classes that a person edits, and their taxonomy."""

    written: ClassVar[tuple[str, ...]] = (*WRITTEN, "classes.csv", "taxonomy.csv")


def discover(
    config_path: str | Path,
    out: str | Path,
    settings: Sequence[str],
    screen: Screen,
    *,
    command: str,
    accepted: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Find classes in the rows of a configuration, and write the run folder, whole or not at all.

    Args:
        config_path: the configuration; its section [discover] says how.
        out: the folder.
        settings, overwrite: as in fit.
        screen: where to say so.
        command: that was typed.
        accepted: classes.csv of an earlier run, in place of discover.accepted; the number of classes then follows from
            it, unless a setting says one.

    Raises:
        InputError: bad input; nothing has been written.
        LabelError: what cannot be: more classes than rows, contradictory links, all rows the same.
        Stopped: it was interrupted; nothing has been written.
    """
    began = time.monotonic()
    config = load_config(config_path, settings)
    config.discover = config.discover.model_copy()  # written out, also where it was not given
    if accepted is not None:
        config.discover.accepted = str(accepted.resolve())
        if not any(setting.partition("=")[0].strip().endswith("n_classes") for setting in settings):
            config.discover.n_classes = "auto"  # what a configuration asks for is about the search before
    if config.discover.method not in METHODS:
        known = list(METHODS)
        raise InputError(
            f"discover.method is {quoted(config.discover.method)}.{did_you_mean(config.discover.method, known)} "
            f"Expected one of {', '.join(known)}"
        )
    folder = FoundFolder(out, config.to_toml(), fingerprint_of(config))
    how = folder.check(overwrite=overwrite)
    if how == "overwrite":
        _check_edited(folder, config)
    given = read_given(config)
    asked = number_asked(config, given)
    rows = len(given.source.table)
    coarse = f" in {counted(len(given.evidence.node_names), 'coarse class', 'coarse classes')}"
    screen.line(
        f"{counted(rows, 'row')}{coarse if given.evidence.node_names else ''} · "
        f"{counted(given.evidence.n_known, 'known class', 'known classes')} · {number_words(asked)}  "
        f"{seconds(time.monotonic() - began)}"
    )
    stages = {"read": time.monotonic() - began}
    try:
        run = _Search(config, given, asked, screen, stages)
        result = run.found()
    except KeyboardInterrupt:
        again = shlex.join(["anygrain", "discover", str(config_path), "--out", str(out)])
        raise Stopped(f"stopped before anything was written. Start again with:  {again}") from None
    folder.open(how)
    try:
        _write(folder, config, run, result, command, began, screen)
    except BaseException:
        folder.discard()
        raise
    finally:
        folder.close()
    _say(folder, config_path, run, time.monotonic() - began, screen)


def short_settings(method: str, n_classes: str) -> list[str]:
    """The options of the command as settings.

    Raises:
        InputError: a number of classes that is none.
    """
    settings = [f"discover.method={method}"] if method else []
    if not n_classes:
        return settings
    ends = n_classes.replace(" ", "").split("-")
    if len(ends) > 2 or not all(end.isdigit() for end in ends):
        raise InputError(
            f"--n-classes {n_classes} is no number of classes. Expected 20, or 10-30 for at least and at most"
        )
    asked = ends[0] if len(ends) == 1 else f"[{', '.join(ends)}]"
    return [*settings, f"discover.n_classes={asked}"]


def _check_edited(folder: RunFolder, config: Config) -> None:
    """Refuse to replace a table of classes that a person has worked on.

    Raises:
        InputError: it has changed since it was written, or is what this run begins with.
    """
    table = folder.path / "classes.csv"
    begins = Path(config.discover.accepted) if config.discover.accepted else None
    if begins is not None and begins.resolve() in (table.resolve(), folder.path.resolve()):
        raise InputError(f"{folder.path} holds the accepted classes that this run begins with. Choose another --out")
    if not table.is_file():
        return
    try:
        written = json.loads((folder.path / "metrics.json").read_text(encoding="utf-8")).get("classes_file")
    except (FileNotFoundError, json.JSONDecodeError):
        return
    if written is not None and written != _digest(table):
        raise InputError(
            f"{table} was edited since it was written. Go on from it with --accepted {table} and another --out, or "
            "remove it"
        )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


class _Search:
    """One search: what was found, its names, and the model that knows the classes."""

    def __init__(self, config: Config, given: Given, asked: Any, screen: Screen, stages: dict[str, float]) -> None:
        self.config, self.given, self.asked, self.screen, self.stages = config, given, asked, screen, stages
        source = given.source
        self.table, self.ids, self.columns = source.table, source.rows.ids, source.columns
        self.data = model_input(source.table, source.columns, source.rows.ids)

    def found(self) -> dict[str, Any]:
        """Look for the classes; the part of metrics.json that speaks of them."""
        config, given = self.config, self.given
        names = Classes(given.evidence.known_names, "", given.source.rows.spelling)
        self.dataset = Dataset(
            config=config,
            table=self.table,
            ids=self.ids,
            columns=self.columns,
            evidence=given.read,
            groups=None,
            conflicts=[],
            notes=[*given.source.notes, *(n for e in given.read for n in e.notes)],
            classes=names,
        )
        self.learner, data = make_learner(config, self.dataset, None)
        encoder = self.learner.encoder
        if isinstance(encoder, str):
            from anygrain.encoders import Pretrained

            encoder = Pretrained(encoder)
        evidence = given.evidence if given.revision is None else given.revision.evidence(given.evidence)
        search = Discover(
            config.discover.method,
            seed=config.learn.seed,
            encoder=encoder,
            device=config.learn.device,
            bootstrap=config.discover.bootstrap,
        )
        at = time.monotonic()
        work = float(len(self.table)) * dimensions(self.dataset, config) * 30
        with threads_for(work), self.screen.progress("discover") as steps:
            steps.update(0, 0)

            def step(done: int, total: int, facts: dict[str, Any]) -> None:
                steps.update(done, total, str(facts.get("step", "")))
                stop_if_asked()

            self.search = search.fit(data, evidence, self.asked, callback=step)
            stop_if_asked()
            self.stages["discover"] = time.monotonic() - at
            if self.search.n_classes_ < 2:
                raise LabelError("one class was found, which tells rows nothing; ask for n_classes of two or more")
            at = time.monotonic()
            self.suggestions: list[Suggestion] = describe(self.search, self.data, ids=self.ids)
            parents = None if given.revision is None else given.revision.parents_of(self.search)
            self.revision = Revision.of(self.search, suggestions=self.suggestions, parents=parents)
            self.names = [line.name for line in self.revision.lines]
            self.taxonomy = taxonomy_under(self.names, [line.parent for line in self.revision.lines])
            self.stages["names"] = time.monotonic() - at
            at = time.monotonic()
            self._teach(data)
            self.stages["model"] = time.monotonic() - at
            at = time.monotonic()
            self.places = self._places() if config.output.report and config.output.map else None
            self.stages["map"] = time.monotonic() - at
        return self._measured()

    def _teach(self, data: Any) -> None:
        """A Learner that says of new rows what the search says of these; that needs neither rounds nor a graph."""
        posterior = torch.from_numpy(np.exp(self.search.log_probs_)).double()
        labels = Soft(posterior / posterior.sum(dim=1, keepdim=True), class_names=self.names)
        self.learner.set_params(rounds=1, neighbours=0, exact_folds=0, cross_fit=False, taxonomy=self.taxonomy)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.learner.fit(data, labels, callback=lambda done, total, facts: stop_if_asked())

    def _places(self) -> np.ndarray:
        """Places (N, 2) on a map of what the model sees; NaN for rows that a page cannot hold."""
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE

        seed = self.config.learn.seed
        features = self.learner.transform(self.data)
        features = features.toarray() if hasattr(features, "toarray") else np.asarray(features)
        n = len(features)
        shown = np.arange(n)
        places = np.full((n, 2), np.nan)
        if n > TSNE_ROWS:
            shown = np.sort(np.random.default_rng(seed).choice(n, TSNE_ROWS, replace=False))
        wide = min(30, features.shape[1], n - 1)
        reduced = PCA(wide, random_state=seed).fit_transform(features)[shown]
        self.drawn_by = "principal components"
        if n <= TSNE_ROWS and n > 10 and wide > 2:
            near = min(30.0, (n - 1) / 3)
            reduced = TSNE(perplexity=near, init="pca", max_iter=500, random_state=seed).fit_transform(reduced)
            self.drawn_by = "t-SNE"
        places[shown] = np.pad(reduced[:, :2], ((0, 0), (0, max(0, 2 - reduced.shape[1]))))
        return places

    # -- what is written ----------------------------------------------------------------------------------------------

    def columns_of_rows(self) -> dict[str, Any]:
        """The columns of labels.parquet."""
        rows, lines = self.revision.rows, self.revision.lines
        placed = {} if self.places is None else {"map_x": self.places[:, 0], "map_y": self.places[:, 1]}
        return {
            "row": [str(v) for v in self.ids],
            "class": rows.astype(np.int64),
            "name": [self.names[k] for k in rows.tolist()],
            "probability": self.revision.probability.astype(np.float32),
            "known": [lines[k].known for k in rows.tolist()],
            "parent": [lines[k].parent or None for k in rows.tolist()],
            "text": [str(v) for v in self.dataset.snippets()],
            **placed,
        }

    def _measured(self) -> dict[str, Any]:
        found, texts = self.search, self.dataset.snippets()
        images = image_cells(self.table, self.columns.images[0]) if self.columns.images else None
        classes = []
        for line, suggestion in zip(self.revision.lines, self.suggestions, strict=True):
            shown = [
                {
                    "row": str(self.ids[row]),
                    "text": str(texts[row]),
                    "image": thumbnail(images[row]) if images is not None else None,
                }
                for row in found.exemplars_[line.id].tolist()
            ]
            known = {**vars(line), "terms": list(suggestion.terms), "found": found.class_names_[line.id]}
            classes.append({**known, "description": suggestion.description, "exemplars": shown})
        low, high = found.n_classes_interval_
        return {
            "n_classes": found.n_classes_,
            "n_classes_interval": [int(low), int(high)],
            "asked": self.asked is not None and not isinstance(self.asked, tuple),
            "method": self.config.discover.method,
            "used": type(found.method_).__name__,
            "why": found.why_,
            "classes": classes,
            "crossed": [self._crossed(said) for said in self.given.said],
            "map": None
            if self.places is None
            else {"by": self.drawn_by, "rows": int(np.isfinite(self.places[:, 0]).sum())},
        }

    def _crossed(self, said: Said) -> dict[str, Any]:
        """How often every word of a label meets every class, the most frequent words first."""
        words, codes, count = np.unique(said.values, return_inverse=True, return_counts=True)
        order = np.argsort(-count, kind="stable")[:MOST_VALUES]
        table = np.zeros((len(words), self.search.n_classes_), dtype=np.int64)
        of = self.revision.rows[said.rows]
        np.add.at(table, (codes, of), 1)
        shown = {
            "name": said.name,
            "kind": said.kind,
            "says": said.says,
            "compared": said.compared,
            "labels": len(said.values),
            "rows": len(np.unique(said.rows)),
            "values": words[order].tolist(),
            "table": table[order].tolist(),
        }
        if said.compared:
            from anygrain.metrics.clustering import ari, hungarian_accuracy, nmi

            accuracy = hungarian_accuracy(of, codes).all
            return {**shown, "accuracy": float(accuracy), "nmi": nmi(of, codes), "ari": ari(of, codes)}
        return shown


def _write(
    folder: RunFolder,
    config: Config,
    run: _Search,
    result: dict[str, Any],
    command: str,
    began: float,
    screen: Screen,
) -> None:
    folder.write_text("config.toml", config.to_toml())
    run.learner.save(folder.path / "model")
    write_table(run.columns_of_rows(), folder.path / "labels.parquet")
    run.revision.to_csv(folder.path / "classes.csv")
    write_table(_taxonomy_columns(run), folder.path / "taxonomy.csv")
    total = time.monotonic() - began
    folder.write_json(
        "metrics.json",
        {
            "format": FORMAT,
            "name": folder.path.name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": total,
            "stages": run.stages,
            "command": command,
            "reload": f'anygrain.load("{folder.path}").predict_proba(...)',
            "seed": config.learn.seed,
            "versions": versions(),
            "space": SPACE,
            "data": {
                "source": str(config.data.source),
                "rows": len(run.table),
                "encoder": encoder_words(run.columns, config),
            },
            "accepted": config.discover.accepted or None,
            "classes_file": _digest(folder.path / "classes.csv"),
            **result,
            "notes": run.dataset.notes,
        },
    )
    if config.output.report:
        from anygrain.report import write_report

        try:
            write_report(folder.path)
        except ModuleNotFoundError:
            screen.line(
                "no report.html: it needs  pip install 'anygrain[report]'  and then  anygrain report "
                + str(folder.path)
            )
    folder.finish(seconds=total)


def _taxonomy_columns(run: _Search) -> dict[str, list[str]]:
    """The taxonomy as columns, finest level first."""
    taxonomy = run.taxonomy
    columns: dict[str, list[str]] = {taxonomy.level_names[0]: list(taxonomy.classes)}
    for level in taxonomy.level_names[1:]:
        above = taxonomy.membership(level).argmax(dim=0).tolist()
        columns[level] = [taxonomy.nodes(level)[at] for at in above]
    return columns


def _say(folder: RunFolder, config_path: str | Path, run: _Search, took: float, screen: Screen) -> None:
    found, lines = run.search, run.revision.lines
    low, high = found.n_classes_interval_
    plausible = f" ({low} to {high} are plausible)" if low != high else ""
    screen.line(f"{counted(found.n_classes_, 'class', 'classes')}{plausible}, {sum(found.known_)} known: {found.why_}")
    header = ("id", "name", "in", "rows", "stable", "nearest known")
    rows = [
        (
            str(line.id),
            line.name + ("  (known)" if line.known else ""),
            line.parent,
            number(line.size),
            "" if np.isnan(line.stability) else f"{line.stability:.2f}",
            line.nearest,
        )
        for line in lines[:SHOWN]
    ]
    kept = [at for at in range(len(header)) if any(row[at] for row in rows)]
    screen.table([tuple(row[at] for at in kept) for row in (header, *rows)], gap=3, widest=44)
    if len(lines) > SHOWN:
        screen.line(f"... ({number(len(lines) - SHOWN)} more)")
    weak = [line for line in lines if line.stability < 0.5]
    if weak:
        screen.line(
            f"worth knowing: {counted(len(weak), 'class dissolves', 'classes dissolve')} in half of the "
            f"rows (stable below .5): {', '.join(str(line.id) for line in weak[:12])}"
        )
    shown = ("config.toml", "model", "labels.parquet", "classes.csv", "taxonomy.csv", "metrics.json", "report.html")
    present = [f"{n}/" if n == "model" else n for n in shown if (folder.path / n).exists()]
    screen.line(f"{folder.path}: {' '.join(present)} ({size(folder.size())})  {seconds(took)} in all")
    screen.line(f"Next:  anygrain report {folder.path} --open   and edit name and action in {folder.path}/classes.csv")
    screen.line("       (accept, merge ID, split NUMBER, drop, or a name of your own), then")
    screen.line(f"       anygrain discover {config_path} --accepted {folder.path}/classes.csv --out OUT")
