"""Strict configuration: YAML without surprises, unknown keys refused, and one clear error.

Validation is pydantic's; this module turns its first complaint into the project's one-line error, in which
what is allowed is read off the field's own type.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from datadose.errors import InputError, close_match, number_hint, reject
from datadose.reading import read_text

LARGEST_YAML = 2**24
"""Bytes of a configuration; large arrays belong into .npy files."""
DEEPEST_YAML = 12
MOST_VALUES = 2_000_000
"""Of a document whose references are written out: a few hundred bytes of them can fill a memory."""


class Strict(BaseModel):
    """A config section: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Config = TypeVar("Config", bound=Strict)


class _Loader(yaml.SafeLoader):
    """YAML with each key once, of bounded depth and size; errors contain their line."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next node, counted with all that it refers to."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark, is_reference = event.start_mark, isinstance(event, yaml.AliasEvent)
        self._depth += 1
        if self._depth > DEEPEST_YAML:
            raise _fault(f"nested more than {DEEPEST_YAML} deep", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_reference and id(node) not in self._sizes:
            raise _fault("a reference to what it stands in", mark)
        self._sizes[id(node)] = 1 + sum(self._sizes[id(part)] for part in _parts(node))
        if self._sizes[id(node)] > MOST_VALUES:
            raise _fault(f"more than {MOST_VALUES:,} values", mark)
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """A mapping, whose keys differ."""
        lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in lines:
                message = f"the key {key.value} is given twice, first in line {lines[key.value]}"
                raise _fault(message, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """A value; a date such as 2026-13-45 or a number of 5,000 digits is an error of its line."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            raise _fault(f"{str(node.value)[:40]} is no date or number: {error}", node.start_mark) from error


def _fault(message: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=message, problem_mark=mark)


def _parts(node: Any) -> Iterator[Any]:
    if isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def read_yaml(field: str, path: Path) -> Any:
    """The YAML document of ``path``; InputError with the line for what is no YAML, or no bounded one."""
    text = read_text(field, path, "a YAML file", LARGEST_YAML)
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it is not YAML"
        raise InputError(field, f"{path}{where}", f"well-formed YAML ({problem})") from error


def require_one(**values: object) -> None:
    """InputError unless exactly one of ``values`` is given (is not None)."""
    given = [name for name, value in values.items() if value is not None]
    if len(given) != 1:
        names = " and ".join(values)
        said = "both are given; keep one of them" if given else "neither is given; give one of them"
        reject(names, "both" if given else "neither", f"exactly one of {names}", said=said)


def first_fault(error: ValidationError, kind: type[Strict]) -> InputError:
    """The project's error for the first complaint of ``error`` about a document of ``kind``."""
    # A union reports every alternative that failed; the deepest place is the one that was meant.
    first = max(error.errors(), key=lambda e: (e["type"] == "extra_forbidden", len(e["loc"])))
    is_key = first["type"] in ("extra_forbidden", "invalid_key")
    names, annotation = _place(kind, first["loc"][:-1] if is_key else first["loc"])
    allowed = _described(annotation)
    if is_key:
        key, known = str(first["loc"][-1]), sorted(_section(annotation).model_fields)
        keys, close = f"keys {', '.join(known)}", close_match(key, known)
        said = f"unknown key; {f'{close} ' if close else ''}allowed: {keys}"
        return InputError(".".join([*names, key]), "an unknown key", keys, close, said)
    raised = first.get("ctx", {}).get("error")
    if isinstance(raised, InputError):
        return raised.below(".".join(names)) if names else raised
    place = ".".join(names) or "config"
    if first["type"] == "missing" or first["input"] is None:
        return InputError(place, "nothing", allowed, said=f"is missing; required: {allowed}")
    value = "a section" if isinstance(first["input"], dict) else first["input"]
    return InputError(place, value, allowed, _hint(value, annotation))


def _hint(value: object, annotation: Any) -> str:
    """What a value that is not allowed is taken for: a number in another writing, a word misspelt."""
    for kind, limits in _options(annotation):
        if kind in (int, float):
            high = [limit.le for limit in limits if hasattr(limit, "le")]
            return number_hint(value, *high, whole=kind is int)
        if get_origin(kind) is Literal and (close := close_match(value, map(str, get_args(kind)))):
            return close
    return ""


def _place(kind: type[Strict], loc: Sequence[int | str]) -> tuple[list[str], Any]:
    """(names, annotation) of the place ``loc`` below ``kind``, without a union's names for its members."""
    names: list[str] = []
    annotation: Any = kind
    for part in loc:
        if isinstance(part, int):
            inner = [get_args(t) for t, _ in _options(annotation) if get_origin(t) in (list, tuple)]
            annotation = inner[0][min(part, len(inner[0]) - 1)] if inner else Any
        elif part in _section(annotation).model_fields:
            field = _section(annotation).model_fields[part]
            annotation = Annotated[field.annotation, field]
        else:
            continue
        names.append(str(part))
    return names, annotation


def _options(annotation: Any, limits: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """(type, limits) for every alternative of an annotation but None."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        found = [limit for one in more for limit in getattr(one, "metadata", [one])]
        yield from _options(inner, (*limits, *found))
    elif get_origin(annotation) in (Union, types.UnionType):
        for inner in get_args(annotation):
            yield from _options(inner, limits)
    elif annotation is not types.NoneType:
        yield annotation, limits


def _section(annotation: Any) -> type[Strict]:
    """The config section among the alternatives (one without keys if there is none)."""
    found = [t for t, _ in _options(annotation) if isinstance(t, type) and issubclass(t, Strict)]
    return found[0] if found else Strict


def describe_keys(kind: type[Strict], above: str = "") -> Iterator[tuple[str, str]]:
    """(key, what it may be and its default) of every field of ``kind``, those of its sections below them."""
    for name, field in kind.model_fields.items():
        annotation: Any = Annotated[field.annotation, field]
        required = field.is_required()
        default = "required" if required else f"default {_shown_default(field.get_default())}"
        place, section = f"{above}{name}", _section(annotation)
        inner = [get_args(t)[0] for t, _ in _options(annotation) if get_origin(t) is list]
        item = _section(inner[0]) if inner else Strict
        if item is not Strict:
            yield place, f"a list of sections ({default})"
            yield from describe_keys(item, f"{place}.N.")
        elif section is not Strict and len(list(_options(annotation))) == 1:
            yield place, f"a section ({default})"
            yield from describe_keys(section, f"{place}.")
        else:
            yield place, f"{_described(annotation)} ({default})"


def _shown_default(default: Any) -> str:
    """A default as YAML has it."""
    if isinstance(default, Strict):
        return "as below"
    shown = yaml.safe_dump(default, default_flow_style=True).removesuffix("...\n").strip()
    return "none" if default is None else shown


def _described(annotation: Any) -> str:
    """What a field may be, in words."""
    options = list(_options(annotation))
    # Text beside a section or a list of numbers is the name of a file that holds the same.
    text = "text" if len(options) == 1 else "the path of a .npy file"
    *most, last = [_described_one(kind, limits, text) for kind, limits in options]
    return f"{', '.join(most)} or {last}" if most else last


def _described_one(kind: Any, limits: tuple[Any, ...], text: str) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is list:
        item = _described(get_args(kind)[0])
        return "a list of finite numbers" if item == "a finite number" else f"a list, each item {item}"
    if get_origin(kind) is tuple:
        return f"[{', '.join(_described(part) for part in get_args(kind))}]"
    if isinstance(kind, type) and issubclass(kind, Strict):
        return f"a section with keys {', '.join(kind.model_fields)}"
    if kind in (int, float):
        return ("an integer" if kind is int else "a finite number") + _range(limits)
    return "true or false" if kind is bool else text


def _range(limits: tuple[Any, ...]) -> str:
    """ " in (0, 2)", " >= 1": the limits of a number."""
    found = {name: getattr(x, name) for x in limits for name in ("gt", "ge", "lt", "le") if hasattr(x, name)}
    low, high = found.get("gt", found.get("ge")), found.get("lt", found.get("le"))
    if low is not None and high is not None:
        return f" in {'(' if 'gt' in found else '['}{low:g}, {high:g}{')' if 'lt' in found else ']'}"
    sign = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return "".join(f" {sign[name]} {value:g}" for name, value in found.items())
