"""The page as a browser sees it: nothing is fetched, nothing sticks out, light and dark, two pages on paper."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from anygrain.report import write_report
from tests.report.folders import write_run, write_tag_run

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]
PROBE = """
<script>
const broken = [];
document.addEventListener("securitypolicyviolation", (event) => broken.push(event.blockedURI));
addEventListener("load", () => {
  const root = document.documentElement, wide = root.clientWidth;
  const out = [...document.querySelectorAll("main *")].filter((e) =>
    e.getBoundingClientRect().right > wide + 1 && !e.closest(".scroll, pre, svg")).map((e) => e.outerHTML.slice(0, 90));
  const worst = document.querySelector("table.worst");
  const nats = () => [...worst.tBodies[0].rows].map((row) => +row.cells[4].textContent);
  worst.tHead.rows[0].cells[4].querySelector("button").click(); const down = nats();
  worst.tHead.rows[0].cells[4].querySelector("button").click(); const up = nats();
  const style = getComputedStyle(document.body), shape = document.querySelector("svg").getBoundingClientRect();
  root.setAttribute("data-probe", JSON.stringify({
    broken, out, down, up, overflow: root.scrollWidth - wide, fetched: performance.getEntriesByType("resource").length,
    ground: style.backgroundColor, ink: style.color, picture: [shape.width, shape.height],
    alone: document.querySelectorAll("svg a, img, iframe, object, embed, link[rel=stylesheet]").length }));
});
</script>"""


def browse(page: Path, profile: Path, *flags: str) -> str:
    """What Chromium prints for a page."""
    assert BROWSER is not None
    command = [BROWSER, *QUIET, f"--user-data-dir={profile}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def look(page: Path, profile: Path, *flags: str) -> dict:
    """What a script inside the page finds."""
    probed = page.with_name("probed.html")
    probed.write_text(page.read_text(encoding="utf-8").replace("<main>", PROBE + "<main>"), encoding="utf-8")
    found = re.search(r'data-probe="([^"]*)"', browse(probed, profile, "--dump-dom", *flags))
    assert found, "the page did not load"
    return json.loads(found[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "t1"
    write_run(folder)
    return write_report(folder)


@pytest.fixture(scope="module")
def tag_page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tags"
    write_tag_run(folder, tags=30)
    return write_report(folder)


@pytest.mark.parametrize("which", ["page", "tag_page"])
@pytest.mark.parametrize("width", [1280, 500])
def test_nothing_is_fetched_and_nothing_sticks_out(which, tmp_path, width, request):
    page = request.getfixturevalue(which)
    found = look(page, tmp_path, f"--window-size={width},1000")
    assert found["fetched"] == 0
    assert found["broken"] == []
    assert found["alone"] == 0
    assert found["overflow"] <= 0
    assert found["out"] == []
    assert found["picture"][0] > 300


def test_tables_sort(page, tmp_path):
    found = look(page, tmp_path)
    assert found["down"] == sorted(found["down"], reverse=True)
    assert found["up"] == sorted(found["up"])
    assert len(found["up"]) == 20


def luminance(colour: str) -> float:
    part = np.array([int(v) for v in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_light_and_dark_are_both_readable(page, tmp_path):
    light = look(page, tmp_path, "--blink-settings=preferredColorScheme=1")
    dark = look(page, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert luminance(light["ground"]) > 0.8 > 0.1 > luminance(dark["ground"])
    for found in (light, dark):
        low, high = sorted([luminance(found["ground"]), luminance(found["ink"])])
        assert (high + 0.05) / (low + 0.05) > 12


def test_it_is_painted(page, tmp_path):
    from matplotlib.image import imread

    picture = tmp_path / "page.png"
    browse(page, tmp_path / "profile", "--window-size=1280,3000", f"--screenshot={picture}")
    pixels = imread(picture)[..., :3]
    assert pixels.shape[:2] == (3000, 1280)
    # the strong colour of the pictures, and ink in every fifth of the page
    assert (np.abs(pixels - np.array([0, 114, 178]) / 255).max(axis=2) < 0.02).sum() > 500
    assert all((part.max(axis=2) < 0.3).sum() > 200 for part in np.array_split(pixels, 5))


@pytest.mark.parametrize("size", [{}, {"parents": 10, "children": 15, "rows": 3000, "annotators": 40}, {"parents": 0}])
def test_it_prints_on_two_pages(tmp_path, size):
    write_run(tmp_path / "run", **size)
    paper = tmp_path / "page.pdf"
    page = write_report(tmp_path / "run")
    browse(page, tmp_path / "profile", "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", paper.read_bytes())) == 2


@pytest.mark.parametrize("tags", [4, 60])
def test_a_page_of_tags_prints_on_two_pages(tmp_path, tags):
    write_tag_run(tmp_path / "run", tags=tags)
    paper = tmp_path / "page.pdf"
    page = write_report(tmp_path / "run")
    browse(page, tmp_path / "profile", "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", paper.read_bytes())) <= 2
