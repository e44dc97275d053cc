"""Which code a result depends on: what its function reaches by name, across modules, and no more.

Sources are parsed, not run. Whatever the names in a function mean at the top level of its module (functions,
classes, constants, imports) is reached, and in turn what these name; a class is reached as a whole. Neither
docstrings and comments count, nor imports for the type checker, nor the place of a package. Where names do
not show what is meant (a module used as a value, ``globals()``, an import by a computed name), all of the
module is reached; a text such as "package.module:function" reaches what it names. Statements that do more
than bind a name are reached with every import of their module; this package has none that matter (a test
holds it to that), so what is only imported of it is not read.

Installed libraries count by their versions; this package and whatever is not installed (a script, its
helpers) count by their source. Modules that move no number (SILENT) do not count, nor what they alone reach:
a progress bar that looks different makes no result old.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple, TypeAlias

from datadose.versions import library_versions

Chain: TypeAlias = tuple[str, ...]
"""A name and the attributes taken from it: ``module.function`` is ("module", "function")."""
Place: TypeAlias = tuple[str, Chain | None]
"""What a chain means in a module; all of the module if it is empty, what runs at the import if it is None."""

_OURS = __name__.partition(".")[0]
SILENT = {
    f"{_OURS}.{name}"
    for name in ("deprecation", "errors", "files", "printing", "progress", "shapes", "showing")
}
"""Messages, errors, progress, checks of shapes, how a file is written whole, how a result is shown: no result
depends on them."""
_PLAIN = (bool, int, float, str, type(None))
_COMPUTED = {"globals", "eval", "exec", "__import__", "__name__"}
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def code_digest(function: Callable[..., Any], *values: Any) -> str:
    """A digest of the code and the library versions that a call depends on (16 hexadecimal digits).

    ``function`` is the function that is called; the functions and the classes of objects in ``values`` (its
    arguments, for example) count as well, at any depth.
    """
    return _digest(frozenset(_places(function, *values)))


@cache
def _digest(places: frozenset[Place]) -> str:
    lines, libraries = _reached(places)
    document = json.dumps([sorted(lines), library_versions(libraries)])
    return hashlib.sha256(document.encode()).hexdigest()[:16]


def _top(module: str) -> str:
    return module.partition(".")[0]


def _places(*values: Any) -> Iterator[Place]:
    """Where the functions and classes in ``values`` are defined."""
    waiting, seen = list(values), dict[int, Any]()
    while waiting:
        value = waiting.pop()
        # Of a subclass, the class counts.
        if type(value) in (*_PLAIN, bytes) or id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, ModuleType):
            yield value.__name__, ()
        elif not hasattr(value, "__qualname__"):
            slots = getattr(type(value), "__slots__", ())
            # The first three are those of a partial function.
            names = ("func", "args", "keywords", "__dict__", *slots)
            waiting += [type(value), *(getattr(value, name, None) for name in names)]
            if isinstance(value, dict):
                waiting += [*value, *value.values()]
            elif isinstance(value, (list, tuple, set, frozenset)):
                waiting += value
        elif getattr(value, "__module__", None) is None:
            continue  # Of Python itself.
        elif value.__module__ != "__main__" or hasattr(sys.modules["__main__"], "__file__"):
            # A method is reached with the class of its object.
            waiting.append(getattr(value, "__self__", None))
            local = "<locals>" in value.__qualname__ or value.__qualname__ == "<lambda>"
            yield value.__module__, () if local else (_top(value.__qualname__),)
        elif isinstance(value, FunctionType):
            # Typed into an interpreter: its instructions and what they name are all there is.
            named = [value.__globals__.get(name) for name in value.__code__.co_names]
            yield "", (_instructions(value.__code__), repr([one for one in named if isinstance(one, _PLAIN)]))
            waiting += named
        elif isinstance(value, type):
            waiting += [*vars(value).values(), *value.__bases__]


def _instructions(code: CodeType) -> str:
    inner = [_instructions(const) if isinstance(const, CodeType) else const for const in code.co_consts]
    return repr((code.co_code, code.co_names, inner))


def _reached(places: Iterable[Place]) -> tuple[set[str], set[str]]:
    """The code that is reached from ``places``, and the libraries."""
    waiting, seen = list(places), set[Place]()
    lines, libraries = set[str](), set[str]()
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        name, chain = place
        if name in SILENT:
            continue
        module = _module(name)
        if module is not None:
            waiting += module.leads(chain, lines)
        elif not name:
            lines.add(repr(chain))
        elif chain is not None:
            libraries.add(_top(name))
    return lines, libraries


@cache
def _module(name: str) -> _Module | None:
    """The module ``name``, None if it does not count by its source."""
    top, *inner = name.split(".")
    if top == "__main__":
        return _Module(name, Path(getattr(sys.modules[top], "__file__", None) or ""))
    spec = find_spec(top) if top not in {"", *sys.stdlib_module_names} else None
    if spec is None:
        return None
    folders = spec.submodule_search_locations or [(spec.origin or top).removesuffix(".py")]
    if top != _OURS and {"site-packages", "dist-packages"} & {*Path(folders[0]).parts}:
        return None
    bases = [Path(folder, *inner) for folder in folders]
    # A folder without __init__.py is a module without code.
    found = [(base / "__init__.py", base.with_name(f"{base.name}.py"), base) for base in bases]
    path = next((path for path in itertools.chain(*found) if path.exists()), None)
    return None if path is None or path.suffix not in ("", ".py") else _Module(name, path)


class _Module:
    """The top level of a module: what its names are bound to, and the statements that do more than bind."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.bound: dict[str, list[ast.stmt | tuple[str, Chain]]] = defaultdict(list)
        self.run: list[ast.stmt] = []
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        if name == "__main__":
            package = sys.modules[name].__package__ or ""
        tree = ast.parse(path.read_bytes() if path.is_file() else b"")
        # Where names are imported on first use, the imports for the type checker show from where.
        self._lazy = any(getattr(part, "name", None) == "__getattr__" for part in ast.walk(tree))
        for part in ast.walk(tree):
            if isinstance(body := getattr(part, "body", None), list):
                body[:] = [node for node in body if not _is_text(node)]
            if isinstance(part, ast.ImportFrom) and part.level:
                part.module = resolve_name("." * part.level + (part.module or ""), package)
        for node in tree.body:
            self._add(node)

    def leads(self, chain: Chain | None, lines: set[str]) -> Iterator[Place]:
        """The places that ``chain`` leads to; its own code is added to ``lines``."""
        if chain is None:
            if _top(self.name) != _OURS:
                yield from self._on_import(lines)
            return
        yield self.name, None
        if not chain:
            yield from ((self.name, (name,)) for name in self.bound)
            return
        head, rest = chain[0], chain[1:]
        # A package may import its own module, which has the name that it is bound to.
        meanings = [meaning for meaning in self.bound.get(head, ()) if meaning != (self.name, (head,))]
        for meaning in meanings:
            if isinstance(meaning, ast.stmt):
                yield from self._named(meaning, lines)
                if "__module__" in rest:
                    yield self.name, ()
            else:
                lines.add(f"{self.name}: {head} is {meaning}")
                yield meaning[0], meaning[1] + rest
        if not meanings:
            inner = f"{self.name}.{head}"
            yield (inner, rest) if _module(inner) else (self.name, ())

    def _named(self, node: ast.stmt, lines: set[str]) -> Iterator[Place]:
        """What the names in a statement mean."""
        piece = _piece(node)
        lines.add(f"{self.name}: {piece.text}")
        for chain in piece.chains:
            if chain[0] in self.bound or "*" in self.bound:
                yield self.name, chain
            if chain[0] in _COMPUTED or chain[-1] == "import_module":
                yield self.name, ()
        yield from piece.imports
        for text in piece.texts:
            # With a dot or a colon: a word alone is no place.
            found = re.fullmatch(r"(\w+(?:\.\w+)*)[.:](\w+)", text)
            if found and (":" in text or (_top(text) != "__main__" and _module(_top(text)))):
                yield (text, ()) if _module(text) else (found[1], (found[2],))

    def _on_import(self, lines: set[str]) -> Iterator[Place]:
        """What runs when the module is imported, with its own imports."""
        yield self.name.rpartition(".")[0] or self.name, None
        for meaning in itertools.chain(*self.bound.values()):
            if isinstance(meaning, tuple):
                yield meaning[0], None
                yield from ((f"{meaning[0]}.{name}", None) for name in meaning[1])
        for node in self.run:
            yield from self._named(node, lines)

    def _add(self, node: ast.stmt) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in (test := ast.unparse(node.test)):
            typing_only = test == "TYPE_CHECKING" and not self._lazy
            for inner in node.orelse if typing_only else node.body + node.orelse:
                self._add(inner)
            return
        for name in _stored(node):
            self.bound[name].append(node)
        if self._only_binds(node):
            return
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            self.run.append(node)
        for part in ast.walk(node):
            for name, place in _imports(part):
                self.bound[name].append(place)

    def _only_binds(self, node: ast.stmt) -> bool:
        if isinstance(node, _DEFINITIONS):
            heads = [(*_chain(getattr(one, "func", one)), "?")[0] for one in node.decorator_list]
            means = [meaning for head in heads for meaning in self.bound.get(head, [None])]
            return all(isinstance(one, tuple) and _top(one[0]) in sys.stdlib_module_names for one in means)
        inside = (part for part in ast.walk(node) if isinstance(part, (ast.Attribute, ast.Subscript)))
        return isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)) and not any(
            isinstance(part.ctx, ast.Store) for part in inside
        )


class _Piece(NamedTuple):
    """A statement taken apart: its text, its chains, imports and text constants."""

    text: str
    chains: set[Chain]
    imports: list[Place]
    texts: set[str]


@cache
def _piece(node: ast.stmt) -> _Piece:
    parts = list(ast.walk(node))
    inner = {id(part.value) for part in parts if isinstance(part, ast.Attribute)}
    return _Piece(
        ast.dump(node),
        {chain for part in parts if id(part) not in inner and (chain := _chain(part))},
        [place for part in parts for _, place in _imports(part)],
        {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)},
    )


def _is_text(node: Any) -> bool:
    """Whether a statement is a docstring, or a text that documents the line above it."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _chain(node: ast.AST) -> Chain:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if isinstance(node, ast.Name) else ()


def _imports(node: ast.AST) -> Iterator[tuple[str, tuple[str, Chain]]]:
    """Each name that an import binds, with what it means; ``import a.b`` binds a, and reads a.b."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.asname or "", (alias.name, ())
            if not alias.asname:
                yield _top(alias.name), (_top(alias.name), ())
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name, (node.module or "", () if alias.name == "*" else (alias.name,))


def _stored(node: ast.stmt) -> set[str]:
    """The names that a statement may bind."""
    if isinstance(node, _DEFINITIONS):
        return {node.name}
    inside = list(ast.walk(node))
    names = {one.id for one in inside if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    return names | {one.name for one in inside if isinstance(one, _DEFINITIONS)}
