"""The child process: imports one verifier and answers calls of it until its pipe ends.

It starts without the parent's main module, so that nothing of a script runs twice. Calls come through a pipe
of their own: what the verifier reads from stdin is empty, and what it prints goes to stderr.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import operator
import os
import resource
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from datadose.llm.verifiers.verdicts import call, describe

_MEMORY = 4 * 2**30
"""Bytes that a formula may take: a tower of powers takes all memory."""

_GRACE = 10.0
"""Seconds after its time limit at which a child ends by itself, where no parent is left to end it."""


def serve(descriptor: int, address: str) -> None:
    """Answer calls of the verifier at ``address`` (``module:name``) on the pipe ``descriptor``."""
    os.set_inheritable(descriptor, False)
    # Ctrl-C is the parent's to handle: it ends its children.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Connection(descriptor) as pipe, Path(os.devnull).open("w") as nowhere:
        try:
            verifier = _load(address)
        except BaseException as error:
            pipe.send_bytes(json.dumps(f"{address} cannot be imported: {describe(error)}").encode())
            return
        pipe.send_bytes(b"null")
        while True:
            try:
                timeout, completion, columns = pipe.recv()
            except (EOFError, OSError):
                return
            # Works even while a regular expression holds the interpreter.
            faulthandler.dump_traceback_later(timeout + _GRACE, exit=True, file=nowhere)
            verdict = call(verifier, completion, columns, (BaseException,))
            faulthandler.cancel_dump_traceback_later()
            with contextlib.suppress(BrokenPipeError):
                pipe.send_bytes(json.dumps(verdict).encode())


def _load(address: str) -> Any:
    module, _, name = address.partition(":")
    found = operator.attrgetter(name)(importlib.import_module(module))
    if address == "datadose.llm.verifiers.builtin:mathematics":
        # Slow to import: before the first call, whose time is limited.
        importlib.import_module("datadose.llm.verifiers.equality")
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    if address == "datadose.llm.verifiers.builtin:reasoning_gym_score":
        importlib.import_module("reasoning_gym")
    return found


def end() -> None:
    """Leave at once, whatever threads the verifier has left running."""
    if threading.active_count() > 1:
        os._exit(0)
