"""The examples of the documentation give what the pages say they give."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(ROOT.joinpath("docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run_as_printed(page):
    """All blocks of a page are one session, from top to bottom."""
    text = page.read_text(encoding="utf-8")
    blocks = [(m[1], text.count("\n", 0, m.start(1))) for m in re.finditer(r"^```pycon\n(.*?)^```$", text, re.M | re.S)]
    session: dict[str, object] = {}
    runner = doctest.DocTestRunner(verbose=False)
    for code, line in blocks:
        test = doctest.DocTestParser().get_doctest(code, session, page.name, str(page), line)
        runner.run(test, clear_globs=False)
        session = test.globs
    assert runner.summarize(verbose=False).failed == 0
    assert blocks or ">>>" not in text


def test_the_kind_that_the_contributors_guide_writes_passes_its_own_check():
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M | re.S)
    assert "report.ok" in blocks[-1]
    exec("\n".join(blocks), {"__name__": "guide"})
