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
from itertools import islice
from pathlib import Path
from typing import Any

from datadose.errors import reject
from datadose.files import atomic_file, prepare_folder, write_atomic, write_jsonl
from datadose.llm.pool import Columns
from datadose.llm.selection.trainer_rows import TRAINERS, Stage
from datadose.printing import note

FORMATS = ("trl", *TRAINERS)
"""Trainers that a selection is written for."""

_BATCH = 10_000
_SETS = ("sft", "control_sft", "rl", "control_rl")


def write_format(name: str, folder: Path, model: str) -> dict[str, Any]:
    """Write the sets of a selection for another trainer into ``folder/name``; returns a record of it.

    None of an earlier selection is left in the folder of any trainer.

    Args:
        name: one of FORMATS; for ``trl`` nothing is written.
        folder: of the selection, with its JSONL files.
        model: the base model's name, for the configuration.

    Raises RunError if the disk refuses.
    """
    record: dict[str, Any] = {"name": name, "files": [], "notes": []}
    for other, there in TRAINERS.items():
        for set_name in _SETS:
            (folder / other / f"{set_name}{there.suffix}").unlink(missing_ok=True)
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
            record["notes"] += [f"{set_name}: {count} rows {what}" for what, count in sorted(lost.items())]
            rows = _Changed(source, change)
            write_parquet(target, rows) if how.suffix == ".parquet" else write_jsonl(target, rows)
            record["files"].append(f"{name}/{target.name}")
    for file, text in how.settings(model, kinds).items():
        write_atomic(out / file, text)
        record["files"].append(f"{name}/{file}")
    for said in record["notes"]:
        note(f"{name}: {said}")
    return record


def check_format(name: str) -> str:
    """The name of a format; InputError for another."""
    if name not in FORMATS:
        reject("format", name, ", ".join(FORMATS))
    return name


def _rows(path: Path) -> Iterator[Columns]:
    with path.open("rb") as handle:
        for line in handle:
            yield json.loads(line)


@dataclass(frozen=True)
class _Changed:
    """The rows of a file, changed; they can be gone over more than once."""

    source: Path
    change: Callable[[Columns, int], Columns]

    def __iter__(self) -> Iterator[Columns]:
        return (self.change(row, place) for place, row in enumerate(_rows(self.source)))


def write_parquet(path: Path, rows: Iterable[Columns]) -> None:
    """Write rows, gone over twice: types that differ must have a common one (a null, a number)."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    schema = pa.unify_schemas([batch.schema for batch in _tables(rows, None)], promote_options="permissive")
    with atomic_file(path) as handle, parquet.ParquetWriter(handle, schema) as writer:
        for table in _tables(rows, schema):
            writer.write_table(table)


def _tables(rows: Iterable[Columns], schema: Any) -> Iterator[Any]:
    import pyarrow as pa  # noqa: PLC0415

    left = iter(rows)
    while batch := list(islice(left, _BATCH)):
        yield pa.Table.from_pylist(batch, schema=schema)
