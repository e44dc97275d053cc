"""Signatures as they stand in the source, with every class of the package linked.

Sphinx evaluates annotations: `Array` becomes `ndarray[tuple[Any, ...], dtype[float64]]`, and the fields of a
configuration the validators behind them. The source says it better, and only needs names that can be found.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import inspect
import re
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_origin

from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.util.typing import restify

_NAME = re.compile(r"(?<![\w.'\"])[A-Za-z_]\w*(?:\.\w+)*")
_QUOTED = re.compile(r"('[^']*'|\"[^\"]*\")")


class _Verbatim:
    """A text that formats as itself."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _qualified(annotation: Any, names: dict[str, Any]) -> str:
    """The annotation with every name that can be found in full, short on display (`~`)."""
    if not isinstance(annotation, str):
        return inspect.formatannotation(annotation)
    parts = _QUOTED.split(annotation)
    parts[::2] = [_NAME.sub(lambda match: _full_name(match[0], names), part) for part in parts[::2]]
    return "".join(parts)


def _full_name(name: str, names: dict[str, Any]) -> str:
    first, *rest = name.split(".")
    found = names.get(first) or only_class_called(first)
    for part in rest:
        found = getattr(found, part, None)
    if found is None or found is Annotated:  # A shape: `Float` is Annotated outside the tests.
        return name
    if get_origin(found) is Literal and name != "Literal":
        return str(found).replace("typing.", "~typing.")
    if inspect.isclass(found) and found.__module__ != "builtins" and get_origin(found) is None:
        return f"~{found.__module__}.{found.__qualname__}"
    home = _home_of_alias(first, found) if not rest else None
    if home is None and get_origin(found) is Callable:
        return f"~{found}"  # an alias without a page: what it stands for
    return f"~{home}.{name}" if home else name


def only_class_called(name: str) -> Any:
    """The package's class of that name if it has one only: a module may import it for type checkers alone."""
    if inspect.isclass(getattr(builtins, name, None)):
        return None
    found = {
        kind
        for module_name, module in list(sys.modules.items())
        if module_name.startswith("datadose") and inspect.isclass(kind := vars(module).get(name))
    }
    return found.pop() if len(found) == 1 else None


def _home_of_alias(name: str, alias: Any) -> str | None:
    """The module of the package that defines the type alias ``name``."""
    for module_name, module in list(sys.modules.items()):
        # Not getattr: a package that imports on first use would look for the name anew each time.
        own = vars(module) if module_name.startswith("datadose") else {}
        if own.get(name) is alias and own.get("__annotations__", {}).get(name) == "TypeAlias":
            return module_name
    return None


def _of_fields(model: type[BaseModel]) -> inspect.Signature:
    """The signature of a pydantic model, with annotations as written."""
    written = {
        name: annotation
        for kind in reversed(model.__mro__)
        for name, annotation in vars(kind).get("__annotations__", {}).items()
    }
    return inspect.Signature(
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty
                if field.is_required()
                else field.get_default(call_default_factory=True),
                annotation=written[name],
            )
            for name, field in model.model_fields.items()
        ]
    )


def _factories(kind: Any) -> dict[str, str]:
    """The default factories of a dataclass, as calls."""
    if not dataclasses.is_dataclass(kind):
        return {}
    made = {field.name: field.default_factory for field in dataclasses.fields(kind)}
    return {name: f"{factory.__name__}()" for name, factory in made.items() if hasattr(factory, "__name__")}


def _shown_default(default: Any, factory: str | None) -> Any:
    """A default that Sphinx can parse: it splits a signature that is no Python at every comma."""
    if default is inspect.Parameter.empty:
        return default
    try:
        ast.parse(repr(default), mode="eval")
    except SyntaxError:
        return _Verbatim("..." if factory is None or "<" in factory else factory)
    return default


def as_written(_: Sphinx, what: str, name: str, obj: Any, *__: Any) -> tuple[str, str | None] | None:
    """The signature of ``obj`` as in the source; None leaves Sphinx's own."""
    if what not in ("function", "method", "class", "exception"):
        return None
    try:
        is_model = inspect.isclass(obj) and issubclass(obj, BaseModel)
        signature = _of_fields(obj) if is_model else inspect.signature(obj)
    except (TypeError, ValueError):
        return None
    names = {**vars(sys.modules[obj.__module__])} if getattr(obj, "__module__", None) in sys.modules else {}
    parameters = list(signature.parameters.values())
    if what == "method" and parameters and parameters[0].name in ("self", "cls"):
        parameters = parameters[1:]
    factories = _factories(obj) if what == "class" else {}
    parameters = [
        parameter.replace(
            annotation=parameter.empty
            if parameter.annotation is parameter.empty
            else _Verbatim(_qualified(parameter.annotation, names)),
            default=_shown_default(parameter.default, factories.get(parameter.name)),
        )
        for parameter in parameters
    ]
    shown = str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    returned = signature.return_annotation
    if what in ("class", "exception") or returned is inspect.Signature.empty:
        return shown, None
    return shown, _qualified(returned, names)


def _only_our_own(_: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Skip what was imported from elsewhere, before Sphinx tries to read its signature."""
    home = getattr(inspect.unwrap(obj) if callable(obj) else obj, "__module__", None)
    foreign = what == "module" and isinstance(home, str) and not home.startswith("datadose")
    return True if foreign and (inspect.isclass(obj) or inspect.isroutine(obj)) else None


def _plain_stars(*arguments: Any, **options: Any) -> str:
    """What an alias stands for; the star in a shape such as "*runs d" starts no emphasis."""
    return re.sub(r"(?<!\\)\*(?=\w)", r"\\*", restify(*arguments, **options))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("sphinx.ext.autodoc") and vars(module).get("restify") is restify:
            vars(module)["restify"] = _plain_stars
    app.connect("autodoc-process-signature", as_written)
    app.connect("autodoc-skip-member", _only_our_own)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
