"""The examples of the documentation give what the pages say they give."""

import doctest
import re
from pathlib import Path

import pytest

PAGES = sorted(Path(__file__).resolve().parents[1].joinpath("docs").glob("*.md"))


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
