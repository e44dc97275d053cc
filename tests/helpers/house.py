"""A package of the tests' own: modules that reach each other in every way, and edits of them."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

from datadose import dependencies

HOUSE = {
    "__init__.py": '''
        """Names are loaded on first use."""
        from importlib import import_module
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from house.lazy import first_use
            from house.lazy_too import never_used
        _HOMES = {"first_use": "house.lazy", "never_used": "house.lazy_too"}
        def __getattr__(name):
            if name not in _HOMES:
                raise AttributeError(name)
            return getattr(import_module(_HOMES[name]), name)
    ''',
    "lazy.py": "def first_use(): return 1",
    "lazy_too.py": "def never_used(): return 1",
    "cells.py": '''
        """Cells, and a drawing beside them."""
        import math
        from typing import TYPE_CHECKING
        from house import first_use, shapes
        from house.direct import helper
        from house.drawing import style
        from house.room import Public
        from .relative import near
        if TYPE_CHECKING:
            from house.typed import Hint
        SCALE = 2.0
        """Documents the line above."""
        CHECK = f"{near.__module__}:verify"
        def run(x: float) -> float:
            """Cell."""
            from house.late import finish
            # A comment.
            found = finish(helper(x) * SCALE) + shapes.area(x) + Public().value() + near(x) + first_use()
            return found + len(CHECK) + len("house.texts:verdict")
        def small(x: float) -> float:
            """Cell: of its own."""
            return math.sqrt(x)
        def computed(name: str) -> float:
            """Cell: names do not show what it calls."""
            return getattr(shapes, name)(1.0)
        def draw(table: "Hint") -> None:
            style(table)
    ''',
    "direct.py": """
        from house.indirect import deep
        TABLE = {}
        TABLE["base"] = 1
        def register(function):
            TABLE[function.__name__] = function
            return function
        @register
        def registered(): return 1
        def helper(x): return deep(x) + TABLE["registered"]()
        def unused(): return 0
    """,
    "indirect.py": """
        class Base:
            K = 3
        class Deep(Base):
            def f(self, x): return x
        def deep(x): return Deep().f(x)
    """,
    "late.py": "def finish(x): return x",
    "shapes.py": "def area(x): return x\ndef other(x): return x",
    "room/__init__.py": "from house.room.public import Public\nfrom house.room.private import Private",
    "room/public.py": "class Public:\n    def value(self): return 1",
    "room/private.py": "class Private: pass",
    "relative.py": "def near(x): return x\ndef verify(x): return True",
    "texts.py": "def verdict(x): return True\ndef another(x): return True",
    "typed.py": "class Hint: pass",
    "drawing.py": "import matplotlib\ndef style(table): return table",
    "unrelated.py": "def nothing(): return 0",
    "settings.py": """
        from dataclasses import dataclass
        @dataclass
        class Setting:
            size: int
            def volume(self): return self.size
        def measure(setting): return setting.volume()
    """,
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        lines = text.strip("\n").split("\n")
        indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n".join(line[indent:] for line in lines) + "\n")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    # A source of the same size in the same second would be taken for the compiled one.
    shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)


def forget() -> None:
    """As in a new process."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("house", "script", "assistant")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    dependencies._digest.cache_clear()
    dependencies._module.cache_clear()


def load(name: str = "run", module: str = "house.cells") -> Any:
    forget()
    return getattr(importlib.import_module(module), name)
