"""Child processes that run verifiers: kept between calls, ended when a call takes too long."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing import Pipe
from multiprocessing.reduction import ForkingPickler
from typing import Any

from datadose.llm.verifiers.verdicts import Verdict, describe, failed

_START_SECONDS = 300.0
"""Seconds for importing a verifier: one that loads a model takes its time."""
_LOOK_SECONDS = 0.2
"""How often a waiting parent looks whether the child is still there."""
_END_SECONDS = 1.0
"""What a child has for ending by itself when the program ends."""

_PROGRAM = """\
import json, sys
sys.path[:] = json.loads(sys.argv[3])
from datadose.llm.verifiers.child import end, serve
serve(int(sys.argv[1]), sys.argv[2])
end()
"""


class _GoneError(Exception):
    """The child has ended; the message has the reason."""


class _NotStartedError(Exception):
    """The child could not import the verifier; it would fail again."""


class Child:
    """One child process with one verifier."""

    def __init__(self, verifier: object, address: str) -> None:
        self.verifier = verifier
        self.pipe, theirs = Pipe()
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), address, json.dumps(sys.path)],
                    stdin=subprocess.DEVNULL,
                    stdout=_errors(),
                    pass_fds=[theirs.fileno()],
                    # A group of its own: Ctrl-C reaches the parent only, and killing it takes all it started.
                    process_group=0,
                )
        except BaseException:
            self.pipe.close()
            raise
        self.is_ready = False

    def wait_until_ready(self) -> None:
        """Return when the child has imported its verifier; raises _NotStartedError if it cannot."""
        if self.is_ready:
            return
        fault = json.loads(self._receive(_START_SECONDS))
        if fault is not None:
            raise _NotStartedError(fault)
        self.is_ready = True

    def ask(self, call: bytes, timeout: float) -> Verdict:
        """The verdict on a pickled call; raises _GoneError, and TimeoutError after ``timeout`` seconds."""
        try:
            self.pipe.send_bytes(call)
        except OSError as error:
            raise _GoneError(self._end()) from error
        passed, issue = json.loads(self._receive(timeout))
        return passed, issue

    def _receive(self, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        try:
            # A process that the verifier has forked may hold the pipe open: its end is awaited as well.
            while not self.pipe.poll(max(0.0, min(_LOOK_SECONDS, deadline - time.monotonic()))):
                if self.process.poll() is not None and not self.pipe.poll(0):
                    raise _GoneError(self._end())
                if time.monotonic() >= deadline:
                    raise TimeoutError
            return self.pipe.recv_bytes()
        except (EOFError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            raise _GoneError(self._end()) from error

    def _end(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS)
        code = self.process.returncode
        if code is None:
            return "its process closed the pipe"
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"its process ended by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"

    def close(self) -> None:
        """End the child, at the end of its own accord."""
        self.pipe.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the child and everything in its group at once, and leave no zombie."""
        self.end()
        self.pipe.close()
        self.process.wait()

    def end(self) -> None:
        """End the child and everything in its group; who waits for it finds it gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Children:
    """The child processes of this process: idle ones by verifier, one for each call that is under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, list[Child]] = {}
        self._busy: set[Child] = set()
        self._broken: dict[str, tuple[object, str]] = {}
        self._stopped = False
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self.forget)

    def ask(
        self, verifier: object, address: str, completion: str, columns: Mapping[str, Any], timeout: float
    ) -> Verdict:
        """The verdict of ``verifier``, found at ``address``; see :func:`datadose.llm.verifiers.judge`."""
        broken, fault = self._broken.get(address, (None, ""))
        if broken is verifier:
            return failed(fault)
        try:
            call = bytes(ForkingPickler.dumps((timeout, completion, dict(columns))))
        except Exception as error:
            return failed(f"the row cannot be sent to its process ({describe(error)})")
        try:
            return self._ask(verifier, address, call, timeout)
        except TimeoutError:
            fault = f"no verdict within {timeout:g} s"
        except OSError as error:
            fault = f"its process cannot be started ({describe(error)})"
        except _GoneError as error:
            fault = str(error)
        except _NotStartedError as error:
            fault = str(error)
            self._broken[address] = verifier, fault
        return failed(fault)

    def _ask(self, verifier: object, address: str, call: bytes, timeout: float) -> Verdict:
        child = self._take(verifier, address)
        try:
            child.wait_until_ready()
            verdict = child.ask(call, timeout)
        except BaseException:
            # Also Ctrl-C: a child with an answer due is of no use to the next call.
            self._drop(child)
            raise
        with self._lock:
            self._busy.discard(child)
            self._idle.setdefault(address, []).append(child)
        return verdict

    def _take(self, verifier: object, address: str) -> Child:
        """An idle child, or a new one that has yet to get ready; busy from now on."""
        while True:
            with self._lock:
                idle = self._idle.get(address)
                child = idle.pop() if idle else Child(verifier, address)
                self._busy.add(child)
                is_stopped = self._stopped
            if is_stopped:
                self._drop(child)
                raise _GoneError("stopped")
            if child.process.poll() is None and child.verifier is verifier:
                return child
            # It ended after its answer, no fault of the next row; or its module has been imported anew since.
            self._drop(child)

    def _drop(self, child: Child) -> None:
        with self._lock:
            self._busy.discard(child)
        child.kill()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """End what is under way; inside, every call fails at once."""
        with self._lock:
            self._stopped = True
            busy = list(self._busy)
        try:
            for child in busy:
                child.end()
            yield
        finally:
            self._stopped = False

    def close(self) -> None:
        """End all children that no call waits for."""
        with self._lock:
            idle = [child for children in self._idle.values() for child in children]
            self._idle.clear()
            self._broken.clear()
        for child in idle:
            child.close()

    def forget(self) -> None:
        """Let go of the parent's children in a process that was forked: their pipes are not its own."""
        self.__init__()  # type: ignore[misc]


def _errors() -> int:
    """Where a child's stdout goes: stderr, or nowhere if that is closed."""
    try:
        os.fstat(2)
    except OSError:
        return subprocess.DEVNULL
    return 2


CHILDREN = Children()
