"""The one place where files from outside are read: what is not readable, or not of its kind, is one error.

Every reader raises :class:`~datadose.errors.InputError` with the field that named the file, the path and what
is allowed: for a path that is missing, a folder, a device or a pipe (reading one might never end), without
permission, or larger than its kind may be; and for content that is not of the kind.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from datadose.errors import InputError, reject
from datadose.printing import shortened

LARGEST_TEXT = 2**28
"""Bytes of a text file that is read whole."""


def check_file(field: str, path: Path, kind: str) -> int:
    """The size in bytes of the regular file at ``path``, which can be opened; errors call it ``kind``."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(field, str(path), f"the path of an existing file ({kind})") from error
    except (OSError, ValueError) as error:
        # ValueError: a path with a null character.
        raise InputError(field, str(path), f"{kind} that can be read ({_reason(error)})") from error
    if stat.S_ISDIR(found.st_mode):
        reject(field, path, kind, said=f"{path} is a folder; allowed: {kind}")
    if not stat.S_ISREG(found.st_mode):
        reject(field, f"{path}, which is a device or a pipe", f"{kind} on disk")
    try:
        path.open("rb").close()
    except OSError as error:
        raise InputError(field, str(path), f"{kind} that can be read ({_reason(error)})") from error
    return found.st_size


def exists(path: Path) -> bool:
    """Whether something is there: not where the path cannot be one (too long, a null character)."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def is_folder(path: Path) -> bool:
    """Whether a folder is there, as for :func:`exists`."""
    return exists(path) and path.is_dir()


def read_bytes(field: str, path: Path, kind: str = "a file", most: int = LARGEST_TEXT) -> bytes:
    """The content of the regular file at ``path``, at most ``most`` bytes of it."""
    size = check_file(field, path, kind)
    try:
        with path.open("rb") as handle:
            # One byte more than allowed: a file may grow, and some (of /proc) call themselves empty.
            content = handle.read(most + 1) if size <= most else b""
    except OSError as error:
        raise InputError(field, str(path), f"{kind} that can be read ({_reason(error)})") from error
    if max(size, len(content)) > most:
        reject(field, f"{path} of {max(size, len(content)):,} bytes", f"{kind} of at most {most:,} bytes")
    return content


def read_text(field: str, path: Path, kind: str = "a text file", most: int = LARGEST_TEXT) -> str:
    """The same as text: UTF-8, with or without a byte order mark."""
    content = read_bytes(field, path, kind, most)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"byte {error.start} is not"
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            where = "this is UTF-16"
        raise InputError(field, str(path), f"{kind} in UTF-8 ({where})") from error


def read_json(path: Path, field: str = "file") -> Any:
    """A JSON document, strictly: see :func:`load_json`."""
    return parse_json(field, str(path), read_text(field, path, "a JSON file"))


def parse_json(field: str, where: str, text: str) -> Any:
    """``text`` as a JSON document; InputError, which calls it ``where``, as :func:`load_json` describes."""
    try:
        return load_json(text)
    except NotJSONError as error:
        raise InputError(field, f"{where}{error.line}: {error.found}", error.allowed) from error


class NotJSONError(ValueError):
    """What was found in a text that is no JSON, what is allowed, and ", line 3" where that is known."""

    def __init__(self, found: str, allowed: str, line: str = "") -> None:
        self.found, self.allowed, self.line = found, allowed, line
        super().__init__(f"{found}; allowed: {allowed}")


_NO_JSON: tuple[tuple[type[Exception], str, str], ...] = (
    (json.JSONDecodeError, "{}", "well-formed JSON"),
    (ArithmeticError, "the number {}", "JSON numbers (NaN and infinities are none)"),
    (KeyError, "the key {} twice", "each key of an object once"),
    (RecursionError, "nested too deep", "JSON that is nested less deep"),
    (UnicodeEncodeError, "half a character", "whole characters in JSON texts"),
    (ValueError, "a number of too many digits", "numbers below 4,300 digits"),
)
"""What is raised while JSON is read, what was found then, and what is allowed: the first that fits."""


def load_json(text: str, *, writable: bool = True) -> Any:
    """``text`` as a JSON document; if not ``writable``, with NaN, 1e999 and lone surrogates left in it.

    Raises NotJSONError for what is no JSON, for a key that an object has twice, for numbers that are none
    (NaN, infinities, 1e999, 5,000 digits), for a lone surrogate and for nesting too deep
    to be read.
    """
    try:
        floats = _finite if writable else None
        constants = _refuse if writable else float
        document = json.loads(
            text, parse_constant=constants, parse_float=floats, object_pairs_hook=_without_twins
        )
        if writable and "\\ud" in text.lower():
            json.dumps(document, ensure_ascii=False).encode()
    except tuple(kind for kind, _, _ in _NO_JSON) as error:
        found, allowed = next(words for kind, *words in _NO_JSON if isinstance(error, kind))
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise NotJSONError(found.format(getattr(error, "msg", error)), allowed, line) from error
    return document


def _refuse(name: str) -> NoReturn:
    raise ArithmeticError(name)


def _finite(text: str) -> float:
    number = float(text)
    return _refuse(text) if abs(number) == float("inf") else number


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise KeyError(next(name for name in names if names.count(name) > 1))
    return found


def open_array(field: str, path: Path) -> np.ndarray[Any, Any]:
    """The real array of a .npy file, on disk: its shape is known, its numbers are read where they are used.

    No pickle is opened, and a file whose header claims more than it holds is refused before memory is taken.
    """
    check_file(field, path, "a .npy file")
    try:
        with path.open("rb") as handle:
            magic = handle.read(6)
        array = np.lib.format.open_memmap(path, mode="r") if magic == b"\x93NUMPY" else None
    except OSError as error:
        raise InputError(field, str(path), f"a .npy file that can be read ({_reason(error)})") from error
    except Exception as error:
        # The header is parsed as Python source: numpy raises whatever tokenizer and parser do.
        raise InputError(field, str(path), f"a readable .npy file of numbers ({_reason(error)})") from error
    if array is None:
        reject(field, str(path), "a readable .npy file of numbers, as numpy.save writes it")
    if array.dtype.kind not in "fiu":
        reject(field, f"{path}, an array of {array.dtype}", "real numbers")
    return array


def _reason(error: Exception) -> str:
    shown = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
    return shortened(shown, 150)
