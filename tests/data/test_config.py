"""Configurations: written out they read back the same; what is wrong is named with its line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anygrain.data.config import KINDS, load_config, parse_config
from anygrain.data.error import InputError
from anygrain.data.toml import lines_of, to_toml
from anygrain.program.kinds import EXAMPLES

TEXT = """[data]
source = "tickets.csv"          # relative to the config
id = "id"
text = "text"
[[labels]]
kind = "Coarse"
column = "department"
taxonomy = "taxonomy.csv"
[[labels]]
kind = "Crowd"
columns = ["worker_1", "worker_2"]
[learn]
seed = 0
"""


def load(folder: Path, text: str = TEXT, *given: str) -> Any:
    (folder / "tickets.toml").write_text(text)
    return load_config(folder / "tickets.toml", given)


def test_defaults_are_written_out_and_read_back(tmp_path: Path) -> None:
    config = load(tmp_path)
    again = parse_config(tomllib.loads(config.to_toml()))
    assert again == config
    assert again.to_toml() == config.to_toml()
    assert config.data.source == str((tmp_path / "tickets.csv").resolve())
    assert config.encoder.dim == 256
    assert [label.name for label in config.labels] == ["department", "worker"]


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_example_of_the_program_is_a_configuration(kind: str) -> None:
    text = EXAMPLES[kind].config
    raw = tomllib.loads(text)
    raw.setdefault("data", {})["source"] = "rows.csv"
    config = parse_config(raw)
    assert config.labels[0].kind == kind


def test_settings_on_top(tmp_path: Path) -> None:
    given = (
        "learn.seed=3",
        'conflicts="soften"',
        "missing=n/a",
        "labels.department.error=0.1",
        'worker.repeats="last"',
        "labels.1.weight=2",
        "coarse.level=department",
        'data.columns=["a", "b"]',
    )
    config = load(tmp_path, TEXT, *given)
    assert (config.learn.seed, config.learn.conflicts, config.data.missing) == (3, "soften", ["n/a"])
    department, worker = config.labels
    assert (department.error, department.level, worker.repeats, worker.weight) == (0.1, "department", "last", 2.0)
    assert config.data.columns == ["a", "b"]


def test_one_kind_of_label_needs_no_name(tmp_path: Path) -> None:
    text = '[data]\nsource = "a.csv"\n[[labels]]\nkind = "Proportions"\ncolumns = ["n_*"]\n'
    assert load(tmp_path, text, 'labels.kind="Counts"').labels[0].kind == "Counts"


@pytest.mark.parametrize(
    ("change", "given", "message"),
    [
        (
            ("seed = 0\n", "seed = 0\n[encoder]\ndims = 64\n"),
            (),
            "tickets.toml line 15: encoder.dims is not a setting. Did you mean encoder.dim? (int, default 256)",
        ),
        (("seed = 0", 'seed = "a"'), (), 'tickets.toml line 13: learn.seed is "a". Expected int, default 0'),
        (
            ("Crowd", "Crowds"),
            (),
            'tickets.toml line 10: "Crowds" is not a kind of label. Did you mean "Crowd"? Kinds: ' + ", ".join(KINDS),
        ),
        (
            ('column = "dep', 'colum = "dep'),
            (),
            "tickets.toml line 7: labels (Coarse).colum is not a setting. Did you mean labels (Coarse).column? "
            "(string) (and 1 "
            "more: tickets.toml line 5: labels (Coarse).column is missing)",
        ),
        (
            ("[data]", "[dat]"),
            (),
            'tickets.toml has no [data]. Expected [data] with source = "table.csv". Write one with: anygrain init '
            "TABLE",
        ),
        ((), ("seed=x",), '--set seed=x: learn.seed is "x". Expected int, default 0'),
        (
            (),
            ("labels.department.error=2",),
            "--set labels.department.error=2: labels (Coarse).error is 2. Expected number of at least 0 below 1, "
            "default 0.0",
        ),
        ((), ("sed=1",), "--set sed: sed is not a setting. Did you mean learn.seed?"),
        (
            (),
            ("labels.error=0.1",),
            "--set labels.error does not say which labels. Expected labels.NAME.error with one of department, worker",
        ),
        (
            (),
            ("departmen.error=0.1",),
            "--set departmen.error: there is no departmen. Did you mean department? Expected data, encoder, learn, "
            "discover, output or "
            "labels: department, worker",
        ),
        ((), ("seed",), "--set seed has no value. Expected key=value, such as --set learn.seed=1"),
        (
            (),
            ("conflicts=go",),
            '--set conflicts=go: learn.conflicts is "go". Expected one of "stop", "soften", default "stop"',
        ),
    ],
)
def test_message(tmp_path: Path, change: tuple[str, ...], given: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, TEXT.replace(*change) if change else TEXT, *given)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_no_file_and_no_toml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tickets\.toml is not TOML: "):
        load(tmp_path, "x = [\n")
    with pytest.raises(InputError) as caught:
        load_config(tmp_path / "ticket.toml")
    assert str(caught.value) == (
        f"There is no configuration {tmp_path}/ticket.toml. Did you mean {tmp_path}/tickets.toml?"
    )


scalars = st.one_of(
    st.text(), st.integers(-(2**53), 2**53), st.booleans(), st.floats(allow_nan=False), st.lists(st.text(), max_size=3)
)
keys = st.text(min_size=1, max_size=8)
tables = st.dictionaries(keys, st.one_of(scalars, st.dictionaries(keys, scalars, max_size=2)), max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, st.one_of(scalars, tables, st.lists(tables, min_size=1, max_size=3)), max_size=4))
def test_toml_is_the_inverse_of_tomllib(value: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(value)) == value


def test_lines_of_settings() -> None:
    lines = lines_of(TEXT)
    assert lines[("data", "text")] == 4
    assert lines[("labels", 1, "columns")] == 11
    assert lines[("learn",)] == 12


def test_the_configuration_of_the_documentation_names_real_settings() -> None:
    page = (Path(__file__).parents[2] / "docs" / "program.md").read_text(encoding="utf-8")
    raw = tomllib.loads(page.split("```toml\n")[1].split("```")[0])
    config = parse_config(raw)
    assert config.encoder == parse_config({"data": {"source": "a"}}).encoder
    assert config.learn == parse_config({"data": {"source": "a"}}).learn
    assert config.output == parse_config({"data": {"source": "a"}}).output
