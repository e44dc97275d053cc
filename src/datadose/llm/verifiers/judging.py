"""The verdict on a completion: the one entry for everything that calls a verifier."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from datadose.errors import require_number
from datadose.llm.verifiers.answers import is_unfinished
from datadose.llm.verifiers.processes import CHILDREN
from datadose.llm.verifiers.registry import Verifier, address, is_fixed
from datadose.llm.verifiers.verdicts import Verdict, call

TIMEOUT = 5.0
"""Seconds that a verifier may take for one completion."""


def judge(
    verifier: Verifier, completion: str, columns: Mapping[str, Any], *, timeout: float = TIMEOUT
) -> Verdict:
    """Whether ``completion`` passes, or None and what was wrong.

    ``exact`` and ``number`` run in this process: their work is bounded by the text's length. Every other
    verifier that another process can import runs in a child process, kept for the next call and replaced
    when it had to be ended; a lambda, a nested function or one of the main program runs here, without a time
    limit. In all cases the verifier gets a copy of the row, and what it prints goes to stderr. Verdicts do
    not depend on the number of children. May be called from several threads.

    Args:
        verifier: from :func:`load_verifier`, or any function of that kind.
        completion: the model's text. One that breaks off inside a thought has no answer: it does not pass,
            and the verifier is not called.
        columns: the row; ``answer`` is what the built-in verifiers compare with.
        timeout: seconds for one call, above 0; a child that takes longer is killed with all that it started.

    Returns (passed, issue). ``passed`` is None where there is an issue: ``verifier failed: ...`` for one that
    raised, exited, crashed, took too long or returned no number in [0, 1], and ``answer ...`` for a row whose
    own answer the verifier cannot read.
    """
    if is_unfinished(completion):
        return False, None
    place = None if is_fixed(verifier) else address(verifier)
    if place is not None:
        return CHILDREN.ask(verifier, place, completion, columns, timeout)
    if is_fixed(verifier):
        return call(verifier, completion, columns, (Exception,))
    with contextlib.redirect_stdout(sys.stderr):
        return call(verifier, completion, copy.deepcopy(columns), (Exception, SystemExit))


def threaded(work: Callable[[Any], Any], items: Sequence[Any], threads: int) -> list[Any]:
    """``work`` on each of ``items``, in order, on so many threads: each has a child process of its own.

    On an exception, Ctrl-C among them, what is under way is ended.
    """
    if threads == 1:
        return [work(item) for item in items]
    pool = ThreadPoolExecutor(threads)
    try:
        return list(pool.map(work, items))
    except BaseException:
        with CHILDREN.stopped():
            pool.shutdown(cancel_futures=True)
        raise
    finally:
        pool.shutdown()


def require_timeout(value: object) -> float:
    """``value`` as seconds above 0 and of a day at most; InputError otherwise."""
    return require_number("verifier-timeout", value, 0, 86400, open_ends=True)
