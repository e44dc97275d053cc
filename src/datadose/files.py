"""Writing results: no reader finds half a file, and a damaged file is noticed.

Files are opened for reading by :mod:`datadose.reading`.
pandas is imported where a table is: commands that answer from formulas start without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import platform
import re
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from datadose.errors import InputError, RunError, reject
from datadose.reading import read_bytes, read_json

if TYPE_CHECKING:
    import pandas as pd

TABLE_DIGEST = "table_sha256"
"""The key of NAME.json under which the sha256 of NAME.csv is recorded."""

_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def prepare_folder(field: str, folder: Path) -> Path:
    """Create ``folder`` if need be; InputError if it is a file, cannot be created or takes no files."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Permissions do not show if a file can be made there (read-only mounts, attributes); trying does.
        tempfile.TemporaryFile(dir=folder).close()
    except (FileExistsError, NotADirectoryError) as error:
        allowed = "a folder, or a path where one can be made (a file is there)"
        raise InputError(field, str(folder), allowed) from error
    except (OSError, ValueError) as error:
        # ValueError: a path with a null character.
        reason = getattr(error, "strerror", None) or error
        raise InputError(field, str(folder), f"a folder that can be written ({reason})") from error
    return folder


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A new file, open for writing, that takes the place of ``path`` when the block ends without an error.

    Until then it has another name in the same folder. An error or an interrupt removes it; what a killed
    process left is removed by the next process that writes there. Raises RunError if it cannot be written.
    """
    temporary = path.parent / f".datadose-{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.part"
    try:
        _remove_abandoned(path.parent)
        # As open() would, so that the user's umask decides who may read the file.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(descriptor, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        msg = f"{path}: could not be written ({error.strerror or error})"
        raise RunError(msg) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@cache
def _remove_abandoned(folder: Path) -> None:
    """Remove the temporary files that dead processes of this machine left in ``folder``."""
    if os.name != "posix":
        return
    for path in folder.glob(f".datadose-{_HOST}-*.part"):
        owner = re.match(rf"\.datadose-{_HOST}-(\d+)-", path.name)
        if owner is not None and not _alive(int(owner[1])):
            path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder that is renamed to ``path`` if the block ends without an error, and continued later if not."""
    part = path.with_name(f".{path.name}.part")
    part.mkdir(parents=True, exist_ok=True)
    yield part
    part.replace(path)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write ``content`` to ``path`` whole or not at all; RunError if it cannot be written."""
    with atomic_file(path) as handle:
        handle.write(content.encode() if isinstance(content, str) else content)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write ``table`` to ``path`` as a CSV with stable bytes.

    Columns keep their order, lines end as on Unix, and numbers have 12 significant digits.
    """
    write_atomic(path, table.to_csv(index=False, float_format="%.12g", lineterminator="\n"))


def write_recorded_table(folder: Path, name: str, table: pd.DataFrame, record: dict[str, Any]) -> None:
    """Write ``folder``/NAME.csv, and ``record`` with the table's sha256 as NAME.json."""
    path = folder / f"{name}.csv"
    write_table(path, table)
    write_json(folder / f"{name}.json", {**record, TABLE_DIGEST: file_digest(path)})


def check_table(path: Path) -> None:
    """InputError if the CSV ``path`` is not the one that the JSON beside it records, if it records one."""
    beside = path.with_suffix(".json")
    record = read_json(beside) if beside.is_file() else None
    wanted = record.get(TABLE_DIGEST) if isinstance(record, dict) else None
    if wanted is not None and file_digest(path) != wanted:
        again = f"it was changed or cut since; `datadose reproduce {path.stem}` makes it again"
        reject("table", str(path), f"the table that {beside.name} records ({again})")


def read_table(path: Path) -> pd.DataFrame:
    """A CSV that :func:`write_table` wrote; InputError if it is missing, malformed or not as recorded."""
    import pandas as pd  # noqa: PLC0415

    content = io.BytesIO(read_bytes("table", path, "a table written by `datadose reproduce`"))
    check_table(path)
    try:
        return pd.read_csv(content, dtype={"panel": "string"})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError("table", str(path), f"a well-formed CSV ({error})") from error


def write_json(path: Path, document: Any) -> None:
    """Write ``document`` as JSON, keys in the order given. NaN is refused, since it is not JSON."""
    write_atomic(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write ``rows`` to ``path``, one JSON document a line, as they come."""
    with atomic_file(path) as handle:
        for row in rows:
            handle.write(json.dumps(row).encode() + b"\n")


def file_digest(path: Path) -> str:
    """The sha256 of the file's content, as 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
