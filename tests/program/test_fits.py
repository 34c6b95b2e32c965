"""torchvision that does not fit torch is named from metadata alone, and so is the command that mends it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from anygrain.cli import run
from anygrain.labels import LabelError
from anygrain.program import fits


@pytest.mark.parametrize(
    ("torch", "torchvision", "fit"),
    [
        ("2.13.0+cpu", "0.28.0+cpu", True),
        ("2.13.1+cpu", "0.28.2+cpu", True),
        ("2.13.0+cpu", "0.28.0+cu128", False),
        ("2.13.0+cpu", "0.27.0+cpu", False),
        ("2.7.0+cu126", "0.22.0+cu126", True),
        ("2.7.0+cu126", "0.22.0+cu128", False),
        ("2.7.0+rocm6.3", "0.22.0+cpu", False),
        ("2.9.0.dev20250801+cpu", "0.24.0.dev20250801+cpu", True),
    ],
)
def test_pairs_of_versions(torch: str, torchvision: str, fit: bool) -> None:
    one, two = fits.read_build(torch), fits.read_build(torchvision)
    assert one is not None
    assert two is not None
    assert fits.fits(one, two) == fit


def test_a_build_without_a_tag_is_that_of_the_package_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert fits.read_build("0.28.0") == fits.Build((0, 28), "cuda")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert fits.read_build("0.28.0") == fits.Build((0, 28), "cpu")
    assert fits.read_build("of today") is None


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages, first on the path: a torchvision that nobody may import, a torch, and lightning."""
    for name, version in (("torch", "2.13.0+cpu"), ("torchvision", "0.28.0"), ("lightning", "2.6.1")):
        meta = tmp_path / f"{name}-{version}.dist-info"
        meta.mkdir()
        (meta / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    (package / "version.py").write_text("__version__ = '0.28.0+cu130'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(fits, "STOPPED", ("lightning", "not-installed"))
    return tmp_path


LINE = (
    "torchvision 0.28 (CUDA) does not fit torch 2.13 (CPU) and stops lightning from loading. Remove it: pip uninstall "
    "torchvision, or install the CPU build (anygrain check --fix prints the command)"
)


def test_check_names_it_without_importing_it(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fits.misfit() == LINE
    assert run(["check", "--fix"]) == 0
    assert capsys.readouterr().out.strip() == (
        'pip install --force-reinstall --no-deps "torchvision==0.28.*" --index-url https://download.pytorch.org/whl/cpu'
    )
    assert "torchvision" not in sys.modules


def test_an_import_that_fails_because_of_it_says_so(
    installed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*given: object, **more: object) -> bool:
        try:
            import torchvision  # type: ignore[import-not-found,import-untyped,unused-ignore]  # noqa: F401
        except RuntimeError as error:
            raise LabelError("the encoder needs lightning") from error
        return True

    monkeypatch.setattr("anygrain.program.check._small_model", load)
    assert run(["check"]) == 2
    assert capsys.readouterr().err.strip() == LINE


def test_what_fits_is_not_mentioned(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (installed / "torchvision" / "version.py").write_text("__version__ = '0.28.0+cpu'\n")
    assert fits.misfit() is None
    assert run(["check", "--fix"]) == 0
    assert "nothing to fix" in capsys.readouterr().out
