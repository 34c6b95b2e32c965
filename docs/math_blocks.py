"""Formulas of docstrings, written as Sphinx directives, turned into Markdown for the reference pages."""

import re
from textwrap import dedent
from typing import Any

import griffe

BLOCK = re.compile(r"^(?P<indent> *)\.\. math:: *(?P<body>.*(?:\n(?P=indent) +\S.*)*)", re.MULTILINE)
INLINE = re.compile(r":math:`([^`]+)`")


def to_markdown(text: str) -> str:
    """Math blocks between blank lines and double dollars, inline formulas between single ones."""

    def block(match: re.Match[str]) -> str:
        first, _, rest = match["body"].partition("\n")
        lines = [first, *dedent(rest).splitlines()]
        return "\n".join(match["indent"] + line for line in ["$$", *lines, "$$"])

    return INLINE.sub(r"$\1$", BLOCK.sub(block, text))


class MathBlocks(griffe.Extension):
    """Rewrites the docstring of every object that is documented."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)
