"""The one place that prints on a terminal what a user named: sources, ids, paths, columns.

Names are data: brackets are no markup, escape sequences do not act, and a lone surrogate does not fail.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_muted: ContextVar[bool] = ContextVar("muted", default=False)


def printable(text: object) -> str:
    """``text`` with every character that a terminal would act on, or cannot show, as a backslash escape.

    Line ends and tabs stay.
    """
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in shown
    )


def shortened(text: str, longest: int) -> str:
    """``text``, of which at most ``longest`` characters are left, the last three dots where some are not."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def say(text: object) -> None:
    """Print ``text`` on a line of stdout."""
    print(printable(text))


def note(text: object) -> None:
    """Print ``text`` on a line of stderr: the state of the work, not its result."""
    if not _muted.get():
        print(printable(text), file=sys.stderr)


@contextmanager
def muted() -> Iterator[None]:
    """No :func:`note` inside: a study's own steps have nothing to say to who runs the study."""
    before = _muted.set(True)
    try:
        yield
    finally:
        _muted.reset(before)
