"""A selection in the files of other trainers, with the few lines of configuration that each needs.

The TRL files of a selection stay; ``OUT/FORMAT`` holds the same rows again. Written after the readers of
these releases, each on the package index:

- verl 0.9.1: ``utils/dataset/rl_dataset.py`` (prompt, data_source, reward_model.ground_truth, extra_info) and
  ``utils/dataset/multiturn_sft_dataset.py`` (messages, tools). It trains on every turn of the assistant.
- OpenRLHF 0.11.2: ``datasets/sft_dataset.py`` and ``datasets/prompts_dataset.py`` (input, output, label). It
  gives no tools to the chat template.
- LLaMA-Factory 0.9.5: ``data/parser.py`` and ``data/converter.py`` (``sharegpt`` with tags; plain strings as
  ``alpaca``). Turns must alternate. Its ``openai`` form adds to the system message and is not used. It has no
  RL with a verifier.
- axolotl 0.19.0: ``prompt_strategies/chat_template.py`` (messages with ``training``),
  ``prompt_strategies/user_defined.py`` (plain strings), ``utils/data/rl.py`` (GRPO reads TRL's columns).

Plain strings are trained without a chat template where the trainer allows it, as TRL does: verl does not.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from datadose.errors import require_choice
from datadose.files import atomic_file, prepare_folder, write_atomic, write_jsonl
from datadose.llm.pass_rates import GROUP
from datadose.llm.pool import Columns
from datadose.llm.selection.rewards import reward_file, reward_notes
from datadose.llm.selection.trainer_rows import REWARD, TRAINERS, Stage
from datadose.llm.verifiers import TIMEOUT
from datadose.printing import note

FORMATS = ("trl", *TRAINERS)
"""Trainers that a selection is written for."""

_BATCH = 10_000
_FILLED = "have tools or calls that Arrow has filled with the keys of others, or emptied"
_UNNAMED = "template: NAME"
_SETS = ("sft", "control_sft", "rl", "control_rl")


def write_format(
    name: str,
    folder: Path,
    model: str,
    group: int = GROUP,
    *,
    verifier: str | None = None,
    timeout: float = TIMEOUT,
) -> dict[str, Any]:
    """Write the sets of a selection for another trainer into ``folder/name``; returns a record of it.

    None of an earlier selection is left in the folder of any trainer.

    Args:
        name: one of FORMATS; for ``trl`` nothing is written.
        folder: of the selection, with its JSONL files.
        model: the base model's name, for the configuration.
        group: completions of a prompt in a step of RL, likewise.
        verifier: what the pass rates were measured with, which becomes the reward; None if that is not known.
        timeout: seconds that it may take for one completion.

    Raises RunError if writing fails.
    """
    record: dict[str, Any] = {"name": name, "files": [], "notes": []}
    _remove_earlier(folder)
    if name == "trl":
        return record
    how, out = TRAINERS[name], folder / name
    prepare_folder("out", out)
    kinds: dict[Stage, bool] = {}
    stages: tuple[tuple[Stage, Callable[[Columns, int], Columns] | None], ...] = (
        ("sft", how.demonstration),
        ("rl", how.problem),
    )
    for stage, change in stages:
        for set_name in (stage, f"control_{stage}"):
            source, target = folder / f"{set_name}.jsonl", out / f"{set_name}{how.suffix}"
            if not source.is_file():
                continue
            if change is None:
                record["notes"].append(f"{set_name}.jsonl: {name} has no RL with a verifier")
                continue
            kinds[stage] = isinstance(next(_rows(source))["prompt"], str)
            lost = Counter(found for row in _rows(source) if (found := how.loses(row, stage)) is not None)
            if filled := _write_rows(target, _Changed(source, change)):
                lost[_FILLED] = filled
            record["notes"] += [f"{set_name}: {count} rows {what}" for what, count in sorted(lost.items())]
            record["files"].append(f"{name}/{target.name}")
    settings = how.settings(model, kinds, group)
    if "rl" in kinds and verifier is not None:
        settings[REWARD] = reward_file(name, verifier, timeout)
        record["notes"] += reward_notes(name, verifier)
    for file, text in settings.items():
        if _UNNAMED in text:
            record["notes"].append(f"{file}: put the name of the model's template in place of NAME")
        write_atomic(out / file, text)
        record["files"].append(f"{name}/{file}")
    for said in record["notes"]:
        note(f"{name}: {said}")
    return record


def _write_rows(path: Path, rows: Iterable[Columns]) -> int:
    """Write rows in the form of the file's name; returns how many are not in it as they were."""
    if path.suffix == ".parquet":
        return write_parquet(path, rows)
    write_jsonl(path, rows)
    return 0


def _remove_earlier(folder: Path) -> None:
    """Remove what an earlier selection has left for any trainer."""
    for name, trainer in TRAINERS.items():
        configuration = {
            file.format(stage=stage) for file in trainer.configuration for stage in ("sft", "rl")
        }
        for file in (*(f"{set_name}{trainer.suffix}" for set_name in _SETS), REWARD, *configuration):
            (folder / name / file).unlink(missing_ok=True)


def check_format(name: str) -> str:
    """The name of a format; InputError for another."""
    require_choice("format", name, FORMATS)
    return name


def _rows(path: Path) -> Iterator[Columns]:
    with path.open("rb") as handle:
        for line in handle:
            yield json.loads(line)


@dataclass(frozen=True)
class _Changed:
    """The rows of a file, changed; they can be iterated more than once."""

    source: Path
    change: Callable[[Columns, int], Columns]

    def __iter__(self) -> Iterator[Columns]:
        return (self.change(row, place) for place, row in enumerate(_rows(self.source)))


def write_parquet(path: Path, rows: Iterable[Columns]) -> int:
    """Write ``rows`` to ``path``; they are iterated three times.

    Arrow gives the objects at one place of all rows the same keys, null where a row lacks one, and has no
    empty objects. A null in a message counts as no key; inside a tool or a call it is read as a value.

    Returns:
        How many rows are not in the file as they were.
    """
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    schemas = [table.schema for table in _tables(rows, None)]
    schema = pa.unify_schemas(schemas, promote_options="permissive")
    with atomic_file(path) as handle, parquet.ParquetWriter(handle, schema) as writer:
        for table in _tables(rows, schema):
            writer.write_table(table)
    with parquet.ParquetFile(path) as file:
        batches = file.iter_batches(_BATCH)
        written = chain.from_iterable(batch.to_pylist() for batch in batches)
        return sum(_plain(one) != _plain(row) for one, row in zip(written, rows, strict=True))


def _tables(rows: Iterable[Columns], schema: Any) -> Iterator[Any]:
    import pyarrow as pa  # noqa: PLC0415

    left = iter(rows)
    while batch := [_without_empty(row) for row in islice(left, _BATCH)]:
        names = schema.names if schema is not None else dict.fromkeys(chain.from_iterable(batch))
        yield pa.table({name: [row.get(name) for row in batch] for name in names}, schema=schema)


def _without_empty(value: Any) -> Any:
    """``value`` without the keys of empty objects."""
    if isinstance(value, dict):
        return {name: _without_empty(inner) for name, inner in value.items() if inner != {}}
    return [_without_empty(inner) for inner in value] if isinstance(value, list) else value


def _plain(row: Columns) -> Columns:
    """A row without the nulls that mean nothing: absent columns, absent keys of a message."""

    def bare(value: Any) -> Any:
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value

    return {
        name: [bare(item) for item in value] if name in ("messages", "prompt") else value
        for name, value in row.items()
        if value is not None
    }
