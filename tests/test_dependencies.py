"""What a digest of code notices and what it does not, on a package of the tests' own."""

from __future__ import annotations

import ast
import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import datadose
from datadose import dependencies
from datadose.dependencies import code_digest
from datadose.studies.sft_curves.figure1 import Figure1
from datadose.studies.sft_curves.figure5 import Figure5
from datadose.sweep import Cell, Workers, run_cells
from datadose.versions import library_versions
from helpers.house import HOUSE, edit, forget, load, write


def _digest(name: str = "run", module: str = "house.cells") -> str:
    return code_digest(load(name, module))


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the package ``house``, on the path."""
    write(tmp_path / "house", HOUSE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "house"
    forget()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("unrelated.py", "return 0", "return 1"),
        ("direct.py", "def unused(): return 0", "def unused(): return 1"),
        ("cells.py", "style(table)", "style(style(table))"),
        ("cells.py", "math.sqrt(x)", "math.exp(x)"),
        ("drawing.py", "return table", "return None"),
        ("typed.py", "pass", "x = 1"),
        ("shapes.py", "other(x): return x", "other(x): return -x"),
        ("room/private.py", "pass", "x = 1"),
        ("texts.py", "another(x): return True", "another(x): return False"),
        ("lazy_too.py", "return 1", "return 2"),
        ("cells.py", '"""Cell."""', '"""Cell: another text."""'),
        ("cells.py", '"""Cell."""', ""),
        ("cells.py", '"""Cells, and', '"""Some cells, and'),
        ("cells.py", '"""Documents', '"""Explains'),
        ("cells.py", "# A comment.", "# Another one."),
        ("cells.py", "finish(helper(x)", "finish( helper( x )"),
        ("settings.py", "size: int", "size: float"),
    ],
)
def test_a_change_that_the_function_does_not_reach_keeps_the_digest(
    house: Path, file: str, old: str, new: str
) -> None:
    before = _digest()
    edit(house / file, old, new)
    assert _digest() == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("cells.py", "return found", "return 2 * found"),
        ("cells.py", "SCALE = 2.0", "SCALE = 3.0"),
        ("cells.py", "import helper", "import unused as helper"),
        ("direct.py", "return deep(x)", "return 2 * deep(x)"),
        ("indirect.py", "f(self, x): return x", "f(self, x): return -x"),
        ("indirect.py", "K = 3", "K = 4"),
        ("late.py", "return x", "return -x"),
        ("shapes.py", "area(x): return x", "area(x): return -x"),
        ("room/public.py", "return 1", "return 2"),
        ("room/__init__.py", "room.public import Public", "room.private import Private as Public"),
        ("relative.py", "near(x): return x", "near(x): return -x"),
        ("relative.py", "verify(x): return True", "verify(x): return False"),
        ("texts.py", "verdict(x): return True", "verdict(x): return False"),
        ("lazy.py", "return 1", "return 2"),
        ("__init__.py", "from house.lazy import first", "from house.lazy import last as first"),
        ("direct.py", 'TABLE["base"] = 1', 'TABLE["base"] = 2'),
        ("direct.py", "registered(): return 1", "registered(): return 2"),
    ],
)
def test_a_change_that_the_function_reaches_changes_the_digest(
    house: Path, file: str, old: str, new: str
) -> None:
    before = _digest()
    edit(house / file, old, new)
    assert _digest() != before


@pytest.mark.parametrize(
    ("used", "file"),
    [
        ("from house.shapes import *\ndef run(): return other(1)", "shapes.py"),
        ("from house import shapes\ndef run(): return vars(shapes)['other'](1)", "shapes.py"),
        ("import house.shapes\ndef run(): return house.shapes.other(1)", "shapes.py"),
        ("import house.shapes as s\nALL = [s.other]\ndef run(): return ALL[0](1)", "shapes.py"),
        ("def run():\n    import house.shapes\n    return house.shapes.other(1)", "shapes.py"),
        ("try:\n    from house.shapes import other\nexcept OSError: pass\ndef run(): other()", "shapes.py"),
        ("import house.shapes\ndef run(): return 0", "effect.py"),
        ("def other(x): return x\ndef run(): return globals()['other'](1)", "star.py"),
    ],
)  # fmt: skip
def test_what_names_do_not_show_counts_as_a_whole(house: Path, used: str, file: str) -> None:
    (house / "star.py").write_text(used + "\n")
    (house / "effect.py").write_text("import math\nmath.other = 1\ndef other(x): return x\n")
    edit(house / "shapes.py", "def area", "import house.effect\ndef area")
    before = _digest("run", "house.star")
    new = (
        ("math.other = 1", "math.other = 2")
        if file == "effect.py"
        else ("other(x): return x", "other(x): return 2")
    )
    edit(house / file, *new)
    assert _digest("run", "house.star") != before


def test_the_digest_does_not_depend_on_where_the_package_lies(
    house: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = _digest()
    shutil.move(house, tmp_path / "elsewhere" / "house")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "elsewhere"), *sys.path[1:]])
    assert _digest() == before
    assert sys.modules["house"].__file__ == str(tmp_path / "elsewhere" / "house" / "__init__.py")


def test_classes_and_functions_among_the_arguments_count(house: Path) -> None:
    def digests() -> list[str]:
        Setting = load("Setting", "house.settings")
        module = sys.modules["house.settings"]
        small = importlib.import_module("house.cells").small
        several: list[Any] = [
            {"a": [(Setting(1),)]}, partial(small, Setting(1)), {module.measure}, [small], {"a": 1},
        ]  # fmt: skip
        return [code_digest(small, values) for values in several]

    before = digests()
    assert before[3] == before[4]
    edit(house / "settings.py", "volume(self): return self.size", "volume(self): return 2 * self.size")
    after = digests()
    assert [one != other for one, other in zip(before, after, strict=True)] == [
        True,
        True,
        False,
        False,
        False,
    ]
    edit(house / "settings.py", "return setting.volume()", "return -setting.volume()")
    assert [one != other for one, other in zip(after, digests(), strict=True)] == [
        False,
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("class Kind(NamedTuple):\n    x: int", "Kind(1)"),
        ("class Kind(StrEnum):\n    A = 'a'", "Kind.A"),
        ("class Kind(dict):\n    x = 1", "Kind()"),
        ("class Kind:\n    x = 1", "Kind().of_base"),
        (
            "class Kind:\n    __slots__ = ('use',)\n    def __init__(self, use): self.use = use",
            "Kind(late.finish)",
        ),
    ],
)
def test_what_an_argument_is_made_of_counts(house: Path, kind: str, value: str) -> None:
    def digest() -> str:
        forget()
        module = importlib.import_module("house.kinds")
        return code_digest(module.run, eval(value, vars(module)))

    text = "from enum import StrEnum\nfrom typing import NamedTuple\nfrom house import late\n"
    text += "def run(x): return x.f()\nclass Base:\n    def of_base(self): return self.f()\n"
    text += kind.replace("Kind:", "Kind(Base):") + "\n    def f(self): return 1\n"
    (house / "kinds.py").write_text(text)
    before = digest()
    old = ("late.py", "return x", "return -x") if "late" in value else ("kinds.py", "return 1", "return 2")
    edit(house / old[0], *old[1:])
    assert digest() != before


def test_what_belongs_to_python_may_be_an_argument(house: Path) -> None:
    small = load("small")
    assert code_digest(small, [str.upper, [].append, len]) == code_digest(small)


def test_libraries_count_where_they_are_reached(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (house / "cells.py").write_text(
        "import numpy as np\nfrom scipy import linalg\nimport yaml\n"
        "def run(): return np.sum(1)\ndef small(): return yaml.dump(linalg.norm(1))\n"
    )
    asked: dict[str, set[str]] = {}
    for name in ("run", "small"):
        function = load(name)
        monkeypatch.setattr(
            dependencies, "library_versions", lambda found, name=name: asked.setdefault(name, found)
        )
        monkeypatch.setattr(dependencies.json, "dumps", lambda _: "")
        code_digest(function)
        monkeypatch.undo()
        monkeypatch.syspath_prepend(str(house.parent))
    assert asked == {"run": {"numpy"}, "small": {"scipy", "yaml"}}


def test_versions_are_those_of_the_libraries_and_of_what_they_call(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(library_versions(["math", "jaxtyping"])) == {"python", "machine"}
    assert set(library_versions(["scipy"])) == {"scipy", "numpy", "python", "machine"}
    assert {"torch", "numpy"} < set(library_versions(["torch"]))
    assert "PyYAML" in library_versions(["yaml"])
    before = library_versions(["numpy"])
    monkeypatch.setattr("datadose.versions.metadata.version", lambda name: f"{name} of tomorrow")
    assert library_versions(["numpy"]) != before


def test_a_script_counts_with_its_helpers(house: Path) -> None:
    folder = house.parent
    (folder / "assistant.py").write_text("def assist(x): return x\ndef rest(): return 0\n")
    (folder / "script.py").write_text("from assistant import assist\ndef run(x): return assist(x)\n")
    before = _digest("run", "script")
    edit(folder / "assistant.py", "rest(): return 0", "rest(): return 1")
    assert _digest("run", "script") == before
    edit(folder / "assistant.py", "assist(x): return x", "assist(x): return -x")
    assert _digest("run", "script") != before


def _typed(text: str) -> str:
    """The digest of ``run`` as typed into an interpreter."""
    code = f"{text}\nfrom datadose.dependencies import code_digest\nprint(code_digest(run))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_a_function_typed_into_an_interpreter_counts_by_its_instructions(
    house: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{house.parent}:{Path(datadose.__file__).parents[1]}")
    text = "from house.late import finish\nK = 1\n"
    text += "def other(x): return x\ndef run(x): return finish(other(x)) + K + 5"
    before = _typed(text)
    assert _typed(text) == before
    others = [("+ 5", "+ 6"), ("K = 1", "K = 2"), ("other(x): return x", "other(x): return 7 * x")]
    assert before not in [_typed(text.replace(old, new)) for old, new in others]
    edit(house / "late.py", "return x", "return 3 * x")
    assert _typed(text) != before


def test_a_sweep_computes_the_cells_again_whose_code_changed(house: Path, tmp_path: Path) -> None:
    (house / "cells.py").write_text(
        "from pathlib import Path\nfrom house.late import finish\nfrom house.shapes import area\n"
        "def _log(log, name): Path(log).open('a').write(name + ' ')\n"
        "def one(log): _log(log, 'one'); return finish(1)\n"
        "def two(log): _log(log, 'two'); return area(2)\n"
        "def draw(table): return table\n"
    )
    log = tmp_path / "log"

    def executed() -> list[str]:
        log.write_text("")
        cells = [Cell(load("one"), {"log": str(log)})]
        cells.append(Cell(sys.modules["house.cells"].two, {"log": str(log)}))
        run_cells(cells, cache_folder=tmp_path / "cache", workers=Workers(), title="test")
        return log.read_text().split()

    assert executed() == ["one", "two"]
    edit(house / "cells.py", "return table", "return table.plot()")
    assert executed() == []
    edit(house / "late.py", "return x", "return -x")
    assert executed() == ["one"]
    edit(house / "shapes.py", "area(x): return x", "area(x): return -x")
    assert executed() == ["two"]


def test_of_a_copy_of_this_package_unused_modules_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figure 5 is simulated, drawn and judged in one module, of which its cells reach their own part."""
    shutil.copytree(
        Path(datadose.__file__).parent, tmp_path / "house", ignore=shutil.ignore_patterns("__pycache__")
    )
    for path in (tmp_path / "house").rglob("*.py"):
        path.write_text(path.read_text().replace("datadose", "house"))
    monkeypatch.setattr(dependencies, "_OURS", "house")
    monkeypatch.syspath_prepend(str(tmp_path))

    def digest() -> str:
        return _digest("simulate_both", "house.studies.sft_curves.figure5")

    before = digest()
    unused = ("llm/score.py", "studies/report.py", "planner/plan.py", "theory/peaks.py", "deprecation.py")
    for path in unused:
        edit(tmp_path / "house" / path, ") -> ", ", added: int = 1) -> ")
    edit(tmp_path / "house/studies/sft_curves/figure5.py", "def draw(table", "def draw(added, table")
    assert digest() == before
    edit(tmp_path / "house" / "prompts.py", "def draw_moments(", "def draw_moments(added, ")
    assert digest() != before
    forget()


def test_the_modules_of_this_package_do_nothing_when_they_are_imported() -> None:
    """Else a module that is imported, but not reached by name, would have to count."""
    folder = Path(datadose.__file__).parent
    found = set()
    for path in folder.rglob("*.py"):
        name = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
        run = dependencies._Module(name, path).run
        if any(not isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in run):
            found.add(path.relative_to(folder).as_posix())
        # A decorator that registers what it is given would be such a statement; these do not.
        decorators = {ast.unparse(one) for node in run for one in getattr(node, "decorator_list", ())}
        if any(not one.startswith(("torch.", "command(", "remembered(")) for one in decorators):
            found.add(path.relative_to(folder).as_posix())
    commands = {path for path in found if path.endswith("__main__.py")}
    # One finds the modules that moved under their old names, the other refuses to do without its extra.
    assert found - commands == {"__init__.py", "explore/__init__.py"}


def _run_functions(cell: Cell) -> set[tuple[str, str]]:
    """(module, name) of the functions of this package that run in ``cell``; methods by their class."""
    found = set()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_qualname.split(".")[0]
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("datadose.") and name.isidentifier():
            found.add((module, name))

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        cell.function(**cell.arguments)
    finally:
        sys.setprofile(before)
    # What a dataclass writes for itself has no name of its own.
    return found - {(module, "__create_fn__") for module, _ in found}


@pytest.mark.parametrize("experiment", [Figure1, Figure5])
def test_whatever_runs_in_a_cell_counts(experiment: Any) -> None:
    cells = {cell.function: cell for cell in experiment.preset("smoke").cells()}
    for cell in cells.values():
        lines, _ = dependencies._reached(dependencies._places(cell.function, cell.arguments))
        ran = _run_functions(cell)
        assert len(ran) > 3
        for name, function in ran:
            if name in dependencies.SILENT:
                continue
            module = dependencies._module(name)
            assert module is not None
            nodes = [node for node in module.bound[function] if isinstance(node, ast.stmt)]
            assert {f"{name}: {dependencies._piece(node).text}" for node in nodes} & lines, (name, function)
