"""The report of a run: one page, whole in itself."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = "anygrain-run-1"


def write_report(run_folder: str | os.PathLike[str]) -> Path:
    """Write `report.html` into a run folder, from its `metrics.json`, `labels.parquet` and `config.toml`.

    The page is one file that needs no network: pictures are drawn in it, colours follow the reader's light or dark
    setting, and it prints on two pages.

    Args:
        run_folder: see `anygrain.data.run_folder`.

    Returns:
        Path of the page.

    Raises:
        FileNotFoundError: the folder holds no finished run.
        ValueError: its metrics are of another format.
        ModuleNotFoundError: jinja2 is missing; the message says what to type.
    """
    folder = Path(run_folder)
    page = render(*read_run(folder))
    target = folder / "report.html"
    partial = folder / ".report.html.part"
    partial.write_text(page, encoding="utf-8")
    partial.replace(target)
    return target


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray], str]:
    """Metrics, the columns of the labels, and the text of the configuration.

    Raises:
        FileNotFoundError, ValueError: as `write_report`.
    """
    import pyarrow.parquet as parquet

    for name in ("metrics.json", "labels.parquet"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}: expected the folder of a finished run (anygrain fit)")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    found = metrics.get("format") if isinstance(metrics, dict) else None
    if found != FORMAT:
        raise ValueError(f'{folder / "metrics.json"} has format {found!r}; expected "{FORMAT}"')
    table = parquet.read_table(folder / "labels.parquet")
    labels = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    config = folder / "config.toml"
    return metrics, labels, config.read_text(encoding="utf-8") if config.is_file() else ""


def render(metrics: Mapping[str, Any], labels: Mapping[str, np.ndarray], config: str) -> str:
    """The page as text.

    Args:
        metrics: what `metrics.json` holds.
        labels: columns of `labels.parquet`, shape (N,) each.
        config: text of `config.toml`.
    """
    contents: Callable[..., dict[str, Any]]
    if metrics.get("space") == "real":
        from anygrain.report.number_page import number_contents as contents

        template = "numbers.html.jinja"
    elif metrics.get("space") == "tags":
        from anygrain.report.tag_page import tag_contents as contents

        template = "tags.html.jinja"
    elif metrics.get("space") == "found":
        from anygrain.report.discover_page import discover_contents as contents

        template = "found.html.jinja"
    else:
        from anygrain.report.class_page import class_contents as contents

        template = "classes.html.jinja"
    page: str = environment().get_template(template).render(**contents(metrics, labels), config=config)
    return page


def environment() -> Any:
    """The templates of all pages, with the filters that write numbers.

    Raises:
        ModuleNotFoundError: jinja2 is missing; the message says what to type.
    """
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the report needs jinja2; type: pip install 'anygrain[report]'") from error
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("anygrain.report", "template"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        whole=whole,
        decimal=decimal,
        share=share,
        interval=interval,
        sentence=sentence,
        base=base,
        figure=figure,
        figures=figures,
    )
    return found


def whole(value: float | None) -> str:
    """A count with thin spaces between thousands."""
    return "–" if value is None else f"{round(value):,}".replace(",", "\u202f")


def decimal(value: float | None, digits: int = 2) -> str:
    """A number, or a dash."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f}".replace("-", "\u2212")


def share(value: float | None) -> str:
    """A share in percent."""
    return "–" if value is None or not np.isfinite(value) else f"{100 * value:.0f}\u202f%"


def interval(limits: Sequence[float | None] | None) -> str:
    """[low, high]."""
    return "" if not limits else f"[{decimal(limits[0])}, {decimal(limits[1])}]"


def figure(value: float | None) -> str:
    """A number with three digits that count, or a dash."""
    if value is None or not np.isfinite(value):
        return "–"
    shown = f"{value:.3g}" if abs(value) < 1000 or ("e" in f"{value:.3g}" and abs(value) >= 1e7) else f"{value:,.0f}"
    return shown.replace(",", "\u202f").replace("-", "\u2212")


def figures(limits: Sequence[float | None] | None) -> str:
    """[low, high], with three digits that count."""
    return "" if not limits else f"[{figure(limits[0])}, {figure(limits[1])}]"


def sentence(text: str) -> str:
    """The text with a capital first and a full stop last."""
    text = text.strip()
    return f"{text[:1].upper()}{text[1:]}{'' if text[-1:] in '.!?' else '.'}" if text else ""


def base(path: str | None) -> str:
    """The name of a file without its folders."""
    return Path(path or "").name
