"""Writing results so that a reader never meets half a file; reading is :mod:`datadose.reading`'s.

pandas is imported where a table is: commands that answer from formulas start without it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datadose.errors import InputError, RunError
from datadose.reading import read_bytes, read_json, refuse_constant

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "file_digest",
    "prepare_folder",
    "read_json",
    "read_table",
    "refuse_constant",
    "to_json",
    "write_atomic",
    "write_json",
    "write_jsonl",
    "write_table",
]


def prepare_folder(field: str, folder: Path) -> Path:
    """Create ``folder`` if need be; InputError if it is a file, cannot be created or cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(
            field, str(folder), "a folder, or a path where one can be made (a file is there)"
        ) from error
    except (OSError, ValueError) as error:
        # ValueError: a path with a null character.
        reason = getattr(error, "strerror", None) or error
        raise InputError(field, str(folder), f"a folder that can be written ({reason})") from error
    return folder


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` whole or not at all; RunError if the disk refuses it."""
    data = content.encode() if isinstance(content, str) else content
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as handle:
            temporary = Path(handle.name)
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        msg = (
            f"{path}: could not be written ({error.strerror}); finished cells are kept, run again to continue"
        )
        raise RunError(msg) from error


def write_table(path: Path, table: pd.DataFrame) -> None:
    """A CSV with stable bytes: fixed column order, Unix line ends, 12 significant digits."""
    write_atomic(path, table.to_csv(index=False, float_format="%.12g", lineterminator="\n"))


def read_table(path: Path) -> pd.DataFrame:
    """A CSV that :func:`write_table` wrote; InputError if it is missing or malformed."""
    import pandas as pd  # noqa: PLC0415

    content = io.BytesIO(read_bytes("table", path, "a table written by `datadose reproduce`"))
    try:
        return pd.read_csv(content, dtype={"panel": "string"})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError("table", str(path), f"a well-formed CSV ({error})") from error


def write_json(path: Path, document: Any) -> None:
    """A JSON document, keys in the order given, NaN refused (it is not JSON)."""
    write_atomic(path, to_json(document) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """One JSON document a line."""
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows))


def file_digest(path: Path) -> str:
    """sha256 of the file's content (64 hexadecimal digits)."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def to_json(document: Any) -> str:
    """``document`` as indented JSON; NaN and infinities raise ValueError."""
    return json.dumps(document, indent=2, allow_nan=False)
