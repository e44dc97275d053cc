"""Pages that run: the fenced blocks of a Markdown page, executed in order, and what they print compared.

Conventions of a page (they are plain Markdown, so it reads the same on GitHub):

- ``console``: lines after ``$ `` are commands for bash (a backslash continues one); what follows a command is
  its standard output, and for one that fails its standard error too. A line ``...`` stands for any lines.
- ``python``: run in one namespace a page. A ``text`` block right after it is what it prints.
- a block whose first line is ``# NAME.py`` or ``# NAME.yaml`` is that file: it is written, not run.
- ``sh``, ``yaml`` and ``json`` blocks without such a line are shown only.

Numbers with a decimal point may differ by one unit of the last digit shown or by RELATIVE (at will on a page
where a toy is trained, as its test says); whole numbers and words may not. Frames of tables and white space
are not compared.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.command import PATIENCE

RELATIVE = 2e-3
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w/-]+\.(?:py|ya?ml))\n")
# Not a version, a file name, or the number of a theorem or a section.
_DECIMAL = re.compile(r"(?<![\w.-])(?<!ection )(?<!osition )(?<!Prop )(?<!Thm )\d+\.\d+(?![\w.]*\d)")
_SHOWN_ONLY = ("sh", "yaml", "json")


@dataclass(frozen=True)
class Step:
    """One thing that the reader does: write a file, run a command, run Python; and what should be printed."""

    kind: str
    source: str
    expected: str
    line: int


def read_steps(page: str) -> list[Step]:
    """The steps of a page's text, in order. ValueError for a block that the conventions do not know."""
    found: list[Step] = []
    for block in _FENCE.finditer(page):
        language, body = block[1], block[2]
        line = page[: block.start()].count("\n") + 1
        named = _FILE.match(body)
        if named and language in ("python", "yaml"):
            found.append(Step("file", body, named[1], line))
        elif language == "console":
            found += _commands(body, line)
        elif language == "python":
            found.append(Step("python", body, "", line))
        elif language == "text" and found and found[-1].kind == "python" and not found[-1].expected:
            found[-1] = Step("python", found[-1].source, body, found[-1].line)
        elif language not in _SHOWN_ONLY:
            msg = f"line {line}: a block of kind {language or 'none'} that is neither run nor compared"
            raise ValueError(msg)
    return found


def _commands(body: str, line: int) -> list[Step]:
    parts = re.split(r"^\$ ", body, flags=re.MULTILINE)
    if parts[0].strip():
        msg = f"line {line}: output without a command"
        raise ValueError(msg)
    steps = []
    for part in parts[1:]:
        command = re.match(r"(?:.*\\\n)*.*\n", part)
        assert command is not None
        steps.append(Step("command", command[0], part[command.end() :], line))
    return steps


class Reader:
    """Somebody who follows a page in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "__main__"}
        shims = folder / ".bin"
        shims.mkdir()
        for name, module in (("datadose", " -m datadose.cli"), ("python", "")):
            (shims / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{module} "$@"\n')
            (shims / name).chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{shims}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def do(self, step: Step) -> str:
        """Carry out ``step`` and return what it printed."""
        if step.kind == "file":
            path = self.folder / step.expected
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.source)
            return ""
        return self._run(step.source) if step.kind == "command" else self._python(step.source)

    def _run(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            cwd=self.folder,
            env=self.environment,
        )
        return done.stdout if done.returncode == 0 else done.stdout + done.stderr

    def _python(self, source: str) -> str:
        # dont_inherit: this file's `from __future__ import annotations` is not the page's.
        code = compile(source, "page", "exec", dont_inherit=True)
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, self.names)
        return printed.getvalue()


def follow(page: str, folder: Path) -> list[tuple[Step, str]]:
    """Carry out a page in ``folder``: every step with what it printed (files print nothing)."""
    reader = Reader(folder)
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        return [(step, reader.do(step)) for step in read_steps(page)]
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None)).startswith(str(folder)):
                del sys.modules[name]


def differences(step: Step, printed: str, relative: float = RELATIVE) -> str:
    """Empty if ``printed`` is what the page says, else what is missing and what came instead."""
    if step.kind == "file":
        return ""
    lines = _lines(printed)
    segments = [_lines(part) for part in re.split(r"^\s*\.\.\.\s*$\n?", step.expected, flags=re.MULTILINE)]
    place = 0
    for index, segment in enumerate(segments):
        fixed = index == 0
        last = index == len(segments) - 1
        starts = [place] if fixed else range(place, len(lines) - len(segment) + 1)
        if last and not fixed:
            starts = [max(place, len(lines) - len(segment))]
        found = next((at for at in starts if _match(segment, lines[at : at + len(segment)], relative)), None)
        if found is None or (last and found + len(segment) != len(lines)):
            wanted = "\n".join(segment)
            return f"line {step.line}: the page says\n{wanted}\nbut this came\n{printed}"
        place = found + len(segment)
    return ""


def _lines(text: str) -> list[str]:
    """Lines without frames, runs of white space and blank lines."""
    plain = [" ".join(re.sub("[\u2500-\u257f]", " ", line).split()) for line in text.splitlines()]
    return [line for line in plain if line]


def _match(wanted: list[str], came: list[str], relative: float) -> bool:
    return len(wanted) == len(came) and all(_same(a, b, relative) for a, b in zip(wanted, came, strict=True))


def _same(wanted: str, came: str, relative: float) -> bool:
    # The words by themselves: a number may have gained or lost a sign or a digit without moving them.
    if NUMBER.sub("#", wanted) != NUMBER.sub("#", came):
        return False
    pairs = zip(NUMBER.findall(wanted), NUMBER.findall(came), strict=True)
    return all(_close(a, b, relative) for a, b in pairs)


def _close(wanted: str, came: str, relative: float) -> bool:
    if wanted == came:
        return True
    if not any(mark in wanted + came for mark in ".e"):
        return False
    unit = _unit(wanted) * (1 + 1e-9)
    return abs(float(wanted) - float(came)) <= max(unit, relative * abs(float(wanted)))


def _unit(number: str) -> float:
    """The value of one unit in the last digit shown."""
    mantissa, _, exponent = number.partition("e")
    return float(10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2])))


def alterations(step: Step) -> Iterator[Step]:
    """The step with one number of what it should print changed by 3 percent or more, each number in turn."""
    for found in NUMBER.finditer(step.expected):
        shown = found[0]
        whole = not any(mark in shown for mark in ".e")
        unit = _unit(shown)
        changed = f"{int(shown) + 1}" if whole else repr(float(shown) + 2.5 * unit + 0.03 * abs(float(shown)))
        text = step.expected[: found.start()] + changed + step.expected[found.end() :]
        yield Step(step.kind, step.source, text, step.line)


def unsupported_decimals(page: str) -> list[str]:
    """Decimal numbers in a page's prose that no block of the page shows, to the digits of the prose."""
    shown = [abs(float(number)) for block in _FENCE.finditer(page) for number in NUMBER.findall(block[2])]
    prose = re.sub(r"\]\([^)]*\)", "]", _FENCE.sub("", page))
    return [
        number
        for number in re.findall(_DECIMAL, prose)
        if not any(abs(float(number) - value) <= 0.5 * _unit(number) * (1 + 1e-9) for value in shown)
    ]
