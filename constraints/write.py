"""Write the files of this folder: `make lock` and `make bounds` run this.

``bounds`` reads ``pyproject.toml`` alone and writes ``lowest.txt``, every dependency at its lower bound, and
``without-torch.txt``, the dependencies of the package except torch. ``lock TORCH`` asks uv for the newest
versions that go with the requirement TORCH, such as torch==2.13.0, and writes them to ``lock.txt``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
BUILD_OF_TORCH = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)")
"""torch and the libraries of one of its builds: the Makefile's TORCH chooses them, not the lock."""


def _project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def dependencies(extras: bool) -> list[Requirement]:
    """Return the requirements in ``pyproject.toml``, with those of the extras if ``extras``."""
    lines = list(_project()["dependencies"])
    if extras:
        lines += [line for extra in _project()["optional-dependencies"].values() for line in extra]
    return [one for one in map(Requirement, lines) if one.name != "datadose"]


def lowest() -> str:
    """Return the text of ``lowest.txt``: ``name==bound`` for every dependency."""
    bounds: dict[str, Version] = {}
    for requirement in dependencies(extras=True):
        found = [Version(part.version) for part in requirement.specifier if part.operator == ">="]
        if len(found) != 1:
            raise SystemExit(f"pyproject.toml: got {requirement}; allowed: one lower bound, such as >=1.0")
        name = canonicalize_name(requirement.name)
        bounds[name] = max(bounds.get(name, found[0]), found[0])
    return _text("make bounds", [f"{name}=={bounds[name]}" for name in sorted(bounds)])


def without_torch() -> str:
    """Return the text of ``without-torch.txt``: what the package requires without extras, except torch."""
    return _text("make bounds", sorted(str(one) for one in dependencies(extras=False) if one.name != "torch"))


def lock(torch: str) -> str:
    """Return the text of ``lock.txt``: the newest versions of `.[dev]` with the requirement ``torch``.

    They are resolved by uv for every system and every Python that ``pyproject.toml`` allows; where these
    differ, a line has an environment marker. Raises SystemExit if uv cannot resolve them.
    """
    command = [sys.executable, "-m", "uv", "pip", "compile", "--universal", "--upgrade", "--extra", "dev"]
    shown = ["--quiet", "--no-header", "--no-annotate", "--python-version", _oldest_python()]
    run = subprocess.run(
        [*command, *shown, "pyproject.toml", "-"],
        input=torch,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if run.returncode:
        raise SystemExit("make lock: uv could not resolve .[dev]")
    lines = [line for line in run.stdout.splitlines() if not BUILD_OF_TORCH.fullmatch(Requirement(line).name)]
    return _text("make lock", lines)


def _oldest_python() -> str:
    """The lower bound of the package's Python, such as 3.11."""
    return str(_project()["requires-python"]).removeprefix(">=")


def _text(command: str, lines: list[str]) -> str:
    return "\n".join([f"# Made by {command}. Do not edit.", *lines, ""])


def main(arguments: list[str]) -> None:
    """Write the files that ``arguments`` ask for."""
    match arguments:
        case ["bounds"]:
            (FOLDER / "lowest.txt").write_text(lowest(), encoding="utf-8")
            (FOLDER / "without-torch.txt").write_text(without_torch(), encoding="utf-8")
        case ["lock", torch]:
            (FOLDER / "lock.txt").write_text(lock(torch), encoding="utf-8")
        case _:
            raise SystemExit("usage: write.py bounds | lock TORCH")


if __name__ == "__main__":
    main(sys.argv[1:])
