"""Griffe extension that converts numpydoc docstrings in reStructuredText to Markdown."""

import re

from griffe import Docstring, Extension, Object

_SUBSTITUTIONS = [
    (re.compile(r":(?:class|meth|func|attr):`~(?:[\w.]+\.)?(\w+)`"), r"`\1`"),
    (re.compile(r":(?:class|meth|func|attr):`([\w.]+)`"), r"`\1`"),
    (re.compile(r":math:`(.+?)`", re.DOTALL), r"$\1$"),
    (re.compile(r"``(.+?)``", re.DOTALL), r"`\1`"),
    (re.compile(r" ?::(?=\n|$)"), ":"),  # Markdown also treats the indented block below as code
    (re.compile(r" \[(\d+)\]_"), r" [\1]"),
    (re.compile(r"^\.\. \[(\d+)\] ", re.MULTILINE), r"\1. "),
]


class Markdown(Extension):
    """Rewrite every docstring before it is parsed."""

    def on_object(self, *, obj: Object, **kwargs: object) -> None:
        """Rewrite the docstring of a class, function or module."""
        if isinstance(obj.docstring, Docstring):
            for pattern, replacement in _SUBSTITUTIONS:
                obj.docstring.value = pattern.sub(replacement, obj.docstring.value)
