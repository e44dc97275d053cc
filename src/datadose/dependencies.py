"""Which code a result depends on: what its function reaches by name, across modules, and no more.

Sources are parsed, not run. Whatever the names in a function mean at the top level of its module (functions,
classes, constants, imports) is reached, and in turn what these name; a class is reached as a whole. Neither
docstrings and comments count, nor imports for the type checker, nor the place of a package. Where names do
not show what is meant (a module used as a value, ``globals()``, an import by a computed name), all of the
module is reached; a text such as "package.module:function" reaches what it names. Statements that do more
than bind a name are reached with their module. In other packages they are reached with every import of the
module, too; this one has none that matter (a test holds it to that), so what is only imported is not read.

Installed libraries count by their versions; this package, that of the function and whatever else is not
installed (a script, its helpers) count by their source.
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
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeAlias

from datadose.versions import library_versions

Chain: TypeAlias = tuple[str, ...]
"""A name and the attributes taken from it: ``module.function`` is ("module", "function")."""
Place: TypeAlias = tuple[str, Chain | None]
"""What a chain means in a module; all of the module if it is empty, what runs at the import if it is None."""

_OURS = __name__.partition(".")[0]
_PLAIN = (bool, int, float, str)
_COMPUTED = {"globals", "eval", "exec", "__import__", "__name__"}
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def code_digest(function: Callable[..., Any], *values: Any) -> str:
    """A digest of the code and the library versions that a call depends on (16 hexadecimal digits).

    ``function`` is the function that is called; the functions and the classes of objects in ``values`` (its
    arguments, say) count as well, at any depth.
    """
    own = frozenset({_OURS, _top(function.__module__)})
    return _digest(own, frozenset(_places(function, *values)))


@cache
def _digest(own: frozenset[str], places: frozenset[Place]) -> str:
    lines, libraries = _sources(own).reached(places)
    document = json.dumps([sorted(lines), library_versions(libraries)])
    return hashlib.sha256(document.encode()).hexdigest()[:16]


@cache
def _sources(own: frozenset[str]) -> _Sources:
    return _Sources(own)


def _top(module: str) -> str:
    return module.partition(".")[0]


def _places(*values: Any) -> Iterator[Place]:
    """Where the functions and classes in ``values`` are defined."""
    waiting, seen = list(values), dict[int, Any]()
    while waiting:
        value = waiting.pop()
        if value is None or isinstance(value, (*_PLAIN, bytes)) or id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, ModuleType):
            yield value.__name__, ()
        elif isinstance(value, (list, tuple, set, frozenset)):
            waiting += value
        elif isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif not hasattr(value, "__qualname__"):
            waiting += [type(value), getattr(value, "__dict__", None)]
            # Those of a partial function.
            waiting += [getattr(value, name, None) for name in ("func", "args", "keywords")]
        elif value.__module__ != "__main__" or hasattr(sys.modules["__main__"], "__file__"):
            local = "<locals>" in value.__qualname__ or value.__qualname__ == "<lambda>"
            yield value.__module__, () if local else (_top(value.__qualname__),)
        elif isinstance(value, FunctionType):
            # Typed into an interpreter: its instructions and what they name are all there is.
            named = {name: value.__globals__.get(name) for name in value.__code__.co_names}
            plain = {name: one for name, one in named.items() if isinstance(one, _PLAIN)}
            yield "", (value.__qualname__, repr(_instructions(value.__code__)), repr(plain))
            waiting += named.values()
        elif isinstance(value, type):
            waiting += [*vars(value).values(), *value.__bases__]


def _instructions(code: CodeType) -> list[Any]:
    inner = [_instructions(const) if isinstance(const, CodeType) else const for const in code.co_consts]
    return [code.co_code, code.co_names, inner]


class _Sources:
    """The modules that count by their source; ``own`` are the top-level packages that do so if installed."""

    def __init__(self, own: frozenset[str]) -> None:
        self._own = own
        self._modules: dict[str, _Module | None] = {}

    def reached(self, places: Iterable[Place]) -> tuple[set[str], set[str]]:
        """The code that is reached from ``places``, and the libraries."""
        waiting, seen = list(places), set[Place]()
        lines, libraries = set[str](), set[str]()
        while waiting:
            place = waiting.pop()
            if place in seen:
                continue
            seen.add(place)
            name, chain = place
            module = self._module(name)
            if module is not None:
                waiting += self._next(module, chain, lines)
            elif not name:
                lines.add(repr(chain))
            elif chain is not None:
                libraries.add(_top(name))
        return lines, libraries

    def _next(self, module: _Module, chain: Chain | None, lines: set[str]) -> Iterator[Place]:
        """The places that ``chain`` leads to; its own code is added to ``lines``."""
        if chain is None:
            yield module.name.rpartition(".")[0] or module.name, None
            yield module.name, ("*",)
            if _top(module.name) != _OURS:
                yield from module.imported()
            for node in module.run:
                yield from self._named(module, module.piece(node), lines)
            return
        yield module.name, None
        if not chain:
            yield from ((module.name, (name,)) for name in module.bound)
            return
        head, rest = chain[0], chain[1:]
        for meaning in module.bound.get(head, ()):
            if isinstance(meaning, ast.stmt):
                yield from self._named(module, module.piece(meaning), lines)
                if "__module__" in rest:
                    yield module.name, ()
            else:
                lines.add(f"{module.name}: {head} is {meaning}")
                yield meaning[0], (meaning[1] or ()) + rest
        if head in module.bound or head == "*":
            return
        if self._module(f"{module.name}.{head}"):
            yield f"{module.name}.{head}", rest
        elif "__getattr__" in module.bound and head in module.for_types:
            # Imported on first use; the imports for the type checker show from where.
            lines.add(f"{module.name}: {head} is {module.for_types[head]}")
            yield from ((name, (inner or ()) + rest) for name, inner in module.for_types[head])
        else:
            yield module.name, ()

    def _named(self, module: _Module, piece: _Piece, lines: set[str]) -> Iterator[Place]:
        """What the names in a statement mean."""
        lines.add(f"{module.name}: {piece.text}")
        for chain in piece.chains:
            if chain[0] in module.bound:
                yield module.name, chain
            if chain[0] in _COMPUTED or chain[-1] == "import_module":
                yield module.name, ()
        for name, (target, inner) in piece.imports:
            uses = [chain[1:] for chain in piece.chains if chain[0] == name]
            yield from ((target, (inner or ()) + rest) for rest in uses or [()])
        for text in piece.texts:
            # With a dot or a colon: a word alone is no place.
            found = re.fullmatch(r"(\w+(?:\.\w+)*)[.:](\w+)", text)
            if found and (":" in text or _top(text) in self._own):
                inside = ":" in text or not self._module(text)
                yield (found[1], (found[2],)) if inside else (text, ())

    def _module(self, name: str) -> _Module | None:
        if name not in self._modules:
            path = next((path for path in self._files(name) if path.exists()), None)
            self._modules[name] = None if path is None else _Module(name, path)
        return self._modules[name]

    def _files(self, name: str) -> list[Path]:
        """Where the source may be; nowhere for a library."""
        top, *inner = name.split(".")
        if top == "__main__":
            return [Path(sys.modules[top].__file__ or "")]
        counts = top in self._own or top not in {"", *sys.stdlib_module_names}
        spec = find_spec(top) if counts else None
        if spec is None:
            return []
        folders = list(spec.submodule_search_locations or [])
        place = Path(spec.origin or folders[0])
        installed = place.suffix not in ("", ".py") or {"site-packages", "dist-packages"} & {*place.parts}
        if installed and top not in self._own:
            return []
        bases = [Path(folder, *inner) for folder in folders] if inner else []
        found = [(base / "__init__.py", base.with_name(f"{base.name}.py"), base) for base in bases]
        return list(itertools.chain(*found)) if inner else [place]


class _Module:
    """The top level of a module: what its names are bound to, and the those that do more than bind."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.bound: dict[str, list[ast.stmt | Place]] = defaultdict(list)
        self.for_types: dict[str, list[Place]] = defaultdict(list)
        self.run: list[ast.stmt] = []
        self._package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        self._pieces: dict[ast.stmt, _Piece] = {}
        # A folder without __init__.py is a module without code.
        for node in ast.parse(path.read_bytes() if path.is_file() else b"").body:
            self._add(node)

    def piece(self, node: ast.stmt) -> _Piece:
        """``node`` taken apart, once."""
        if node not in self._pieces:
            self._pieces[node] = _Piece(node, self._package)
        return self._pieces[node]

    def imported(self) -> Iterator[Place]:
        """What runs when the imports of the module do."""
        for meaning in itertools.chain(*self.bound.values()):
            if isinstance(meaning, tuple):
                module, chain = meaning
                yield module, None
                yield from ((f"{module}.{name}", None) for name in chain or ())

    def _add(self, node: ast.stmt) -> None:
        if _is_text(node):
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in (test := ast.unparse(node.test)):
            inverted = test.startswith("not ")
            self._add_for_types(node.orelse if inverted else node.body)
            for inner in node.body if inverted else node.orelse:
                self._add(inner)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for name, place in _imports(node, self._package):
                self.bound[name].append(place)
        else:
            for name in _stored(node):
                self.bound[name].append(node)
            if not self._only_binds(node):
                self.run.append(node)
                for part in ast.walk(node):
                    for name, place in _imports(part, self._package):
                        self.bound[name].append(place)

    def _add_for_types(self, body: list[ast.stmt]) -> None:
        for inner in body:
            for name, place in _imports(inner, self._package):
                self.for_types[name].append(place)

    def _only_binds(self, node: ast.stmt) -> bool:
        if isinstance(node, _DEFINITIONS):
            calls = [one.func if isinstance(one, ast.Call) else one for one in node.decorator_list]
            means = [meaning for call in calls for meaning in self.bound.get((*_chain(call), "?")[0], [None])]
            return all(isinstance(one, tuple) and _top(one[0]) in sys.stdlib_module_names for one in means)
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            return not any(
                isinstance(n, (ast.Attribute, ast.Subscript)) for t in targets for n in ast.walk(t)
            )
        return False


class _Piece:
    """A statement taken apart: its text without docstrings, its chains, imports and text constants."""

    def __init__(self, node: ast.stmt, package: str) -> None:
        self.chains: set[Chain] = set()
        self.imports: list[tuple[str, Place]] = []
        self.texts: set[str] = set()
        self._package = package
        self._parts: list[str] = []
        self._visit(node)
        self.text = " ".join(self._parts)

    def _visit(self, node: Any) -> None:
        if isinstance(node, list):
            self._parts.append("[")
            for one in node:
                if not _is_text(one):
                    self._visit(one)
            self._parts.append("]")
        elif not isinstance(node, ast.AST):
            if isinstance(node, str):
                self.texts.add(node)
            self._parts.append(repr(node))
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            self.imports += _imports(node, self._package)
            self._parts.append(ast.dump(node))
        elif chain := _chain(node):
            self.chains.add(chain)
            self._parts.append(".".join(chain))
        else:
            self._parts.append(type(node).__name__)
            for field in node._fields:
                self._visit(getattr(node, field, None))


def _is_text(node: Any) -> bool:
    """Whether a statement is a docstring, or a text that documents the line above it."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _chain(node: ast.AST) -> Chain:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if isinstance(node, ast.Name) else ()


def _imports(node: ast.AST, package: str) -> Iterator[tuple[str, Place]]:
    """Each name that an import binds, with what it means."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield (alias.asname or _top(alias.name)), (alias.name if alias.asname else _top(alias.name), ())
            if not alias.asname:
                yield "", (alias.name, None)
    elif isinstance(node, ast.ImportFrom):
        parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
        module = ".".join([*parents, *([node.module] if node.module else [])])
        for alias in node.names:
            star = alias.name == "*"
            yield alias.asname or alias.name, (module, () if star else (alias.name,))


def _stored(node: ast.stmt) -> set[str]:
    """The names that a statement may bind."""
    if isinstance(node, _DEFINITIONS):
        return {node.name}
    inside = list(ast.walk(node))
    names = {one.id for one in inside if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    return names | {one.name for one in inside if isinstance(one, _DEFINITIONS)}
