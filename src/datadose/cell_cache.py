"""Results of finished cells on disk, one file each, in a form that runs no code when it is read.

joblib's disk cache would unpickle whatever a results folder holds. Here a result is JSON (numbers, texts,
None, lists, dicts with text keys), so that a folder from anybody can be continued; floats come back bit by
bit. A file holds the sha256 of its content: one that was cut or changed is dropped, and its cell runs again.

The key of a result is its function, its arguments (by joblib's hash) and the code and library versions that
these depend on (:mod:`~datadose.dependencies`): results never outlive the code that made them. A path among
the arguments is that of what another cell made, and named by its key: it counts by its name, wherever it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from datadose.dependencies import code_digest
from datadose.errors import RunError
from datadose.files import write_atomic
from datadose.workers import run_one


def call_key(function: Callable[..., Any], arguments: dict[str, Any]) -> str:
    """A digest (32 hexadecimal digits) of a call: the code of ``function`` and its ``arguments``."""
    named = {name: value.name if isinstance(value, Path) else value for name, value in arguments.items()}
    return str(joblib.hash([code_digest(function, arguments, run_one), named]))


def make_folder(folder: Path) -> None:
    """Create ``folder`` if need be; RunError if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{folder}: could not be written ({error.strerror})"
        raise RunError(msg) from error


class CellCache:
    """The results under ``folder``; ``damaged`` lists the files that were dropped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: list[Path] = []

    def path(self, function: Callable[..., Any], arguments: dict[str, Any]) -> Path:
        """The file that keeps the result of ``function`` with ``arguments``."""
        name = f"{function.__module__}.{function.__qualname__}"
        return self.folder / name / f"{call_key(function, arguments)}.json"

    def read(self, path: Path) -> tuple[Any, ...]:
        """``(result,)`` as :meth:`write` returned it, or ``()`` if there is none that is whole."""
        try:
            digest, _, content = path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return ()
        except OSError:
            digest, content = b"", b""
        if digest != self._digest(path, content):
            self.damaged.append(path)
            return ()
        return (json.loads(content),)

    def write(self, path: Path, result: Any) -> Any:
        """Keep ``result`` in ``path`` and return it as it will be read: scalars as numbers, tuples as lists.

        Raises RunError if it cannot be written, TypeError for a result that JSON cannot hold.
        """
        content = json.dumps(_plain(result)).encode()
        make_folder(path.parent)
        write_atomic(path, self._digest(path, content) + b"\n" + content)
        return json.loads(content)

    @staticmethod
    def _digest(path: Path, content: bytes) -> bytes:
        # With the name, so that a file copied over another one is noticed too.
        return hashlib.sha256(f"{path.parent.name}/{path.name}\n".encode() + content).hexdigest().encode()


def _plain(value: Any) -> Any:
    """``value`` in the types that JSON gives back."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    msg = f"a cell returns numbers, texts, None, lists and dicts with text keys, not {type(value)}"
    raise TypeError(msg)
