"""Write the files of this folder: `make lock` and `make bounds` run this.

``bounds`` reads ``pyproject.toml`` alone and writes ``lowest.txt``, every dependency at its lower bound, and
``without-torch.txt``, the dependencies of the package except torch. ``lock TORCH PYTHON [PYTHON ...]`` asks
pip of each of these interpreters which versions it would install today beside the requirement TORCH, and
writes them to ``lock.txt``. Where interpreters differ, a line has an environment marker.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
BUILD_OF_TORCH = re.compile(r"(torch|triton|nvidia-.*|cuda-.*)")
"""torch and the libraries of one of its builds: the Makefile's TORCH chooses them, not the lock."""


def dependencies(extras: bool) -> list[Requirement]:
    """Return the requirements in ``pyproject.toml``, with those of the extras if ``extras``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = list(project["dependencies"])
    if extras:
        lines += [line for extra in project["optional-dependencies"].values() for line in extra]
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


def resolved(python: str, torch: str) -> tuple[str, dict[str, str]]:
    """Ask pip of the interpreter ``python`` what ``torch`` (a requirement) and `.[dev]` would install.

    Returns the interpreter's version, such as ``3.12``, and name -> version of each package but datadose and
    torch with the libraries of its build. Nothing is installed. Raises SystemExit if pip cannot answer.
    """
    command = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    run = subprocess.run([*command, torch, f"{ROOT}[dev]"], stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{python}: pip could not resolve .[dev]")
    report = json.loads(run.stdout)
    found = {}
    for item in report["install"]:
        name: str = canonicalize_name(item["metadata"]["name"])
        if name != "datadose" and not BUILD_OF_TORCH.fullmatch(name):
            found[name] = Version(item["metadata"]["version"]).public
    return report["environment"]["python_version"], found


def merged(versions: Mapping[str, Mapping[str, str]]) -> str:
    """Return the text of ``lock.txt`` for ``versions``: Python version -> name -> version.

    A package with one version in all of them has a line without a marker. Otherwise each version of it has a
    line, and that of the newest Python serves newer ones too.

    Example: ``merged({"3.11": {"a": "1"}, "3.12": {"a": "2"}})`` ends with the lines
    ``a==1; python_version == "3.11"`` and ``a==2; python_version >= "3.12"``.
    """
    pythons = sorted(versions, key=Version)
    lines = []
    for name in sorted({name for found in versions.values() for name in found}):
        chosen = {python: versions[python][name] for python in pythons if name in versions[python]}
        if len(set(chosen.values())) == 1:
            lines.append(f"{name}=={next(iter(chosen.values()))}")
            continue
        last = list(chosen)[-1]
        for python, version in chosen.items():
            lines.append(f'{name}=={version}; python_version {">=" if python == last else "=="} "{python}"')
    return _text(f"make lock, for Python {', '.join(pythons)}", lines)


def _text(command: str, lines: list[str]) -> str:
    return "\n".join([f"# Made by {command}. Do not edit.", *lines, ""])


def main(arguments: list[str]) -> None:
    """Write the files that ``arguments`` ask for."""
    match arguments:
        case ["bounds"]:
            (FOLDER / "lowest.txt").write_text(lowest(), encoding="utf-8")
            (FOLDER / "without-torch.txt").write_text(without_torch(), encoding="utf-8")
        case ["lock", torch, *pythons] if pythons:
            text = merged(dict(resolved(python, torch) for python in pythons))
            (FOLDER / "lock.txt").write_text(text, encoding="utf-8")
        case _:
            raise SystemExit("usage: write.py bounds | lock TORCH PYTHON [PYTHON ...]")


if __name__ == "__main__":
    main(sys.argv[1:])
