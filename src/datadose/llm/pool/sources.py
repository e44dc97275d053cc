"""What a pool may be: a file, a folder or a glob of shards, or a data set of the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from datadose.errors import InputError, reject, require_extra
from datadose.files import file_digest
from datadose.llm.parquet import table_rows
from datadose.llm.pool.records import KINDS, Record, from_arrow, kind_of_file, read_file
from datadose.reading import check_file, exists, is_folder

HUB = "hf:"
"""What the name of a data set of the Hub begins with: ``hf:owner/name[/config][:split]``."""

ALLOWED = f"a {KINDS} file, a folder or a glob of such files, or {HUB}owner/name[/config][:split]"

_BATCH_ROWS = 1024


class Source(Protocol):
    """Records that can be read more than once."""

    shards: list[str]
    """Names of the files, in order."""

    def records(self) -> Iterator[Record]:
        """Every record, shard after shard."""

    def digest(self) -> str:
        """sha256 of what is read (64 hexadecimal digits)."""


def find_source(path: Path | str, field: str) -> Source:
    """The source of records at ``path``.

    Raises InputError, which names ``field``, if nothing there can be a pool.
    """
    text = str(path)
    if text.startswith(HUB):
        return HubData(text, field)
    path = Path(path)
    if is_folder(path):
        if any((path / name).is_file() for name in _SAVED):
            return HubData(f"{HUB}{path}", field)
        files = sorted(p for p in path.rglob("*") if _is_shard(p.relative_to(path)) and p.is_file())
        if not files:
            reject(field, f"{path}, a folder without such files", ALLOWED)
        return Files(files, path, field)
    if not exists(path) and glob.has_magic(text):
        files = sorted(file for file in _matching(path) if file.is_file())
        if not files:
            reject(field, f"{path}, which matches no file", ALLOWED)
        for file in files:
            if kind_of_file(file) is None:
                reject(field, f"{path}, which matches {file}", f"shards that are {KINDS}")
        return Files(files, _stem(path), field)
    if kind_of_file(path) is None:
        reject(field, text, ALLOWED)
    # A device or a pipe might never end.
    check_file(field, path, ALLOWED)
    return Files([path], path.parent, field)


_SAVED = ("dataset_dict.json", "state.json")
"""In a folder that ``save_to_disk`` of `datasets` wrote."""


def _is_shard(path: Path) -> bool:
    return kind_of_file(path) is not None and not any(part.startswith((".", "_")) for part in path.parts)


def _matching(pattern: Path) -> Iterator[Path]:
    folder = _stem(pattern)
    return folder.glob(str(pattern.relative_to(folder)))


def _stem(pattern: Path) -> Path:
    """The folder above a glob's first wildcard."""
    plain = next(place for place, part in enumerate(pattern.parts) if glob.has_magic(part))
    return Path(*pattern.parts[:plain])


class Files:
    """One file, or shards that are read one after the other, in the order of their names."""

    def __init__(self, files: list[Path], folder: Path, field: str) -> None:
        self.files, self.field = files, field
        self.shards = [str(file.relative_to(folder)) if len(files) > 1 else file.name for file in files]

    def records(self) -> Iterator[Record]:
        """Every record, shard after shard."""
        if len(self.files) == 1:
            yield from read_file(self.files[0], self.field)
            return
        for shard, (file, name) in enumerate(zip(self.files, self.shards, strict=True)):
            for record in read_file(file, self.field):
                yield replace(record, place=f"{name}, {record.place}", shard=shard)

    def digest(self) -> str:
        """sha256 of the file; of several, of their names and digests."""
        try:
            digests = [file_digest(file) for file in self.files]
        except OSError as error:
            allowed = f"files that can be read ({error.strerror or error})"
            raise InputError(self.field, str(self.files[0]), allowed) from error
        if len(digests) == 1:
            return digests[0]
        lines = "\n".join(f"{name} {one}" for name, one in zip(self.shards, digests, strict=True))
        return hashlib.sha256(lines.encode()).hexdigest()


class HubData:
    """A data set as `datasets` loads it: of the Hub, of a local folder, or saved with ``save_to_disk``."""

    def __init__(self, name: str, field: str) -> None:
        require_extra("llm", "datasets")
        self.name, self.field = name, field
        self.data = self._load()
        self.shards = [name]

    def records(self) -> Iterator[Record]:
        """Every record of the data set."""
        batches = self.data.with_format("arrow").iter(_BATCH_ROWS)
        mixed = {name: one for name, one in self.data.features.items() if _JSON_FEATURE in repr(one)}
        for record in from_arrow(row for batch in batches for row in table_rows(batch)):
            for name, feature in mixed.items():
                record.columns[name] = _decoded(feature, record.columns.get(name))
            yield record

    def digest(self) -> str:
        """sha256 of the rows as they are read."""
        found = hashlib.sha256()
        for record in self.records():
            found.update(repr((record.columns, record.troubles)).encode("utf-8", "backslashreplace"))
        return found.hexdigest()

    def _load(self) -> Any:
        from datasets import DatasetDict  # noqa: PLC0415 - optional, and slow to import

        path, config, split = parse_hub_name(self.name, self.field)
        try:
            data = _loaded(path, config, split)
        except Exception as error:
            # Whatever a data set's files, the network or the Hub raise.
            detail = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(self.field, self.name, f"a data set that can be loaded ({detail})") from error
        if not isinstance(data, DatasetDict):
            return data
        if split is None:
            split = "train" if "train" in data else next(iter(data)) if len(data) == 1 else None
        if split not in data:
            reject(self.field, self.name, f"a split, as in {HUB}NAME:SPLIT, of {', '.join(map(str, data))}")
        return data[split]


def parse_hub_name(name: str, field: str) -> tuple[str, str | None, str | None]:
    """The path or ``owner/name``, the configuration and the split in ``hf:owner/name[/config][:split]``.

    A part that is not given is None. Raises InputError, which names ``field``, for another form.
    """
    rest = name.removeprefix(HUB)
    if is_folder(Path(rest)):
        return rest, None, None
    path, _, split = rest.rpartition(":")
    if path and is_folder(Path(path)):
        return path, None, split or None
    path, _, split = rest.partition(":")
    parts = path.split("/")
    if not all(parts) or len(parts) > 3 or path.startswith("."):
        reject(field, name, f"{HUB}owner/name[/config][:split], or {HUB} and a folder")
    return "/".join(parts[:2]), parts[2] if len(parts) == 3 else None, split or None


def _loaded(path: str, config: str | None, split: str | None) -> Any:
    from datasets import load_dataset, load_from_disk  # noqa: PLC0415 - optional, and slow to import

    with no_bars():
        if any((Path(path) / name).is_file() for name in _SAVED):
            return load_from_disk(path)
        return load_dataset(path, config, split=split)


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """No progress bars of `datasets` inside."""
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar  # noqa: PLC0415
    from datasets.utils.logging import is_progress_bar_enabled as bars_enabled  # noqa: PLC0415

    bars = bars_enabled()
    disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            enable_progress_bar()


def _decoded(feature: Any, value: Any) -> Any:
    """A value of Arrow with what `datasets` keeps in it as JSON text read: columns of several types."""
    if value is None:
        return None
    if isinstance(feature, dict):
        return {name: _decoded(feature[name], inner) for name, inner in value.items()}
    if isinstance(value, list) and hasattr(feature, "feature"):
        return [_decoded(feature.feature, inner) for inner in value]
    return json.loads(value) if _JSON_FEATURE in repr(feature) and isinstance(value, str) else value


_JSON_FEATURE = "Json("
