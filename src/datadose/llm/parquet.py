"""Rows of a parquet file as JSON-like values, within limits: a few bytes of it can claim a whole memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datadose.errors import InputError, reject, require_extra

MOST_ROWS = 10_000_000
MOST_BYTES = 2**30
"""Bytes of the decoded values that any file may have."""
EXPANSION = 100
"""Times its own size that a file's decoded values may take beyond that."""

_BATCH_ROWS = 1024
_ROW_BYTES = _VALUE_BYTES = 8
"""What a row and a value of it count beyond texts: nulls take no place in the file, and some in memory."""


def read_parquet(path: Path, field: str) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """(columns, {}) row by row; where values cannot be Python's, null for them and what is wrong, by column.

    Raises InputError, which calls the file ``field``: no well-formed parquet file, or one that holds more
    than MOST_ROWS rows or decodes to more bytes than the limits above.
    """
    require_extra("llm", "pyarrow")
    from pyarrow import ArrowException, parquet  # noqa: PLC0415

    decoded = 0
    try:
        most = max(MOST_BYTES, EXPANSION * path.stat().st_size)
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_batch_rows(file.metadata, path, field, most)):
                for columns, troubles in table_rows(batch):
                    decoded += _ROW_BYTES + _size(columns)
                    if decoded > most:
                        _too_large(path, field, most)
                    yield columns, troubles
    except (ArrowException, OSError) as error:
        raise InputError(field, str(path), f"a well-formed parquet file ({error})") from error


def _batch_rows(metadata: Any, path: Path, field: str, most: int) -> int:
    """Rows to decode together: no value is larger than its row group, so a batch stays below the limit."""
    if metadata.num_rows > MOST_ROWS:
        reject(field, f"{path} with {metadata.num_rows:,} rows", f"a pool of at most {MOST_ROWS:,} rows")
    places = range(metadata.num_row_groups)
    groups: list[int] = [metadata.row_group(place).total_byte_size for place in places]
    if sum(groups) > most:
        _too_large(path, field, most)
    return max(1, min(_BATCH_ROWS, most // max(1, *groups, 1)))


def _too_large(path: Path, field: str, most: int) -> None:
    size = path.stat().st_size
    allowed = f"at most 1 GiB of values, or {EXPANSION} times the file's own size"
    reject(field, f"{path} of {size:,} bytes, which decodes to more than {most:,}", allowed)


def _size(value: Any) -> int:
    """Bytes of a value, about: characters of texts, and something for each value."""
    if isinstance(value, dict):
        return _VALUE_BYTES + sum(map(_size, value.values()))
    if isinstance(value, (list, tuple)):
        return _VALUE_BYTES + sum(map(_size, value))
    return _VALUE_BYTES + (len(value) if isinstance(value, (str, bytes)) else 0)


def table_rows(batch: Any) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """The rows of a batch or table of Arrow, as :func:`read_parquet` gives them."""
    try:
        found = batch.to_pylist()
    except (ValueError, OverflowError):
        # Text that is not UTF-8, a time that Python has no value for: found value by value.
        yield from (_row(batch, place) for place in range(batch.num_rows))
    else:
        yield from ((columns, {}) for columns in found)


def _row(batch: Any, place: int) -> tuple[dict[str, Any], dict[str, str]]:
    columns: dict[str, Any] = {}
    troubles: dict[str, str] = {}
    for name, values in zip(batch.schema.names, batch.columns, strict=True):
        try:
            columns[name] = values[place].as_py()
        except (ValueError, OverflowError) as error:
            columns[name] = None
            troubles[name] = f"a value that cannot be read ({error})"
    return columns, troubles
