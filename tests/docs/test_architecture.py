"""The code keeps to docs/architecture.md: its rooms and arrows, and files and functions of a size to read."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "datadose"
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
PARALLEL = {("simulation", "models"), ("stages", "planner")}
"""Rooms that may not meet, though one stands above the other."""


@cache
def modules() -> dict[str, Path]:
    """Dotted name below the package -> file; the package itself is ``__init__``."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


@cache
def rooms() -> list[tuple[str, tuple[str, ...]]]:
    """(room, its modules and folders) in the order of the table."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| ([\w ]+) \| ((?:`[\w/]+` ?)+) \|", text, re.MULTILINE)
    return [
        (name, tuple(part.rstrip("/") for part in re.findall(r"`([\w/]+)`", parts))) for name, parts in rows
    ]


def room_of(module: str) -> int:
    """The row of the table where ``module`` stands."""
    places = [row for row, (_, parts) in enumerate(rooms()) if module.partition(".")[0] in parts]
    assert len(places) == 1, f"{module} stands in {len(places)} rooms of docs/architecture.md"
    return places[0]


def imported(module: str) -> Iterator[str]:
    """The modules of the package that ``module`` imports, anywhere in it."""
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "datadose":
            base = (node.module or "").partition(".")[2]
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                yield inner if inner in modules() else (base or "__init__")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("datadose."):
                    yield alias.name.partition(".")[2]
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{module}: imports are absolute"


def test_the_table_names_what_there_is() -> None:
    named = {part for _, parts in rooms() for part in parts}
    assert named == {name.partition(".")[0] for name in modules()}


@pytest.mark.parametrize("module", sorted(modules()))
def test_arrows_run_upwards_in_the_table(module: str) -> None:
    here = room_of(module)
    names = [name for name, _ in rooms()]
    wrong = [other for other in imported(module) if room_of(other) > here and module != "__init__"]
    wrong += [other for other in imported(module) if (names[room_of(other)], names[here]) in PARALLEL]
    assert wrong == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {name: {other for other in imported(name) if other != name} for name in modules()}
    # Names of the package are imported on first use, the command line's by their commands.
    graph["__init__"] = set()
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", sorted(modules()))
def test_files_and_functions_fit_a_reader(module: str) -> None:
    text = modules()[module].read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    long = {
        node.name: size
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    }
    assert long == {}


@pytest.mark.parametrize("package", ["theory", "planner", "studies.index", "cli"])
def test_what_answers_from_formulas_starts_without_torch(package: str) -> None:
    code = f"import sys, datadose.{package}; sys.exit(any(m in sys.modules for m in ('torch', 'matplotlib')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
