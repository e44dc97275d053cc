"""Checkpoints of a trainer: a run continues only from one that was written whole and has not changed."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from datadose.errors import InputError
from datadose.files import file_digest, write_json
from datadose.printing import note
from datadose.reading import read_json

_DIGESTS = "digests.json"
"""In a checkpoint: its files' digests."""


_NO_WEIGHTS = (
    *(
        "optimizer*",
        "scheduler*",
        "scaler*",
        "rng_state*",
        "trainer_state.json",
        "training_args.bin",
        "README.md",
    ),
    _DIGESTS,
)
"""What a checkpoint holds besides the model and its tokenizer."""


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written whole; a later one that is torn or changed is removed.

    It is of no use without the best one so far, where a trainer that measures itself has one.
    """
    found = {}
    for path in folder.glob("checkpoint-*"):
        with contextlib.suppress(ValueError):
            found[int(path.name.rsplit("-", 1)[1])] = path
    for _, path in sorted(found.items(), reverse=True):
        if _is_whole(path) and ((best := _best(path)) is None or best == path or _is_whole(best)):
            return str(path)
        note(f"{path} is damaged and dropped: training goes on from an earlier state")
        shutil.rmtree(path)
    return None


def seal(checkpoint: Path) -> None:
    """Record the digests of a finished checkpoint's files in it."""
    write_json(checkpoint / _DIGESTS, _digests(checkpoint))


def state_file(checkpoint: Path) -> Path:
    """The file in which the trainer writes its state."""
    return checkpoint / "trainer_state.json"


def has_ended(checkpoint: Path) -> bool:
    """Whether the trainer had nothing more to do when it wrote the checkpoint: its last step, or stopped."""
    control = read_json(state_file(checkpoint)).get("stateful_callbacks", {}).get("TrainerControl", {})
    return bool(control.get("args", {}).get("should_training_stop"))


def copy_weights(checkpoint: Path, folder: Path) -> None:
    """Copy the model (or adapter) and the tokenizer of a checkpoint to ``folder``."""
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns(*_NO_WEIGHTS), dirs_exist_ok=True)


def _best(checkpoint: Path) -> Path | None:
    """The checkpoint beside this one that its state names as the best."""
    step = read_json(state_file(checkpoint)).get("best_global_step")
    return checkpoint.with_name(f"checkpoint-{step}") if step else None


def _is_whole(checkpoint: Path) -> bool:
    """Whether the trainer finished the checkpoint, and its files are those that it wrote."""
    try:
        # The trainer writes its state last; a kill right then leaves no digests.
        state = read_json(state_file(checkpoint))
        if not (checkpoint / _DIGESTS).is_file():
            return isinstance(state, dict)
        return bool(read_json(checkpoint / _DIGESTS) == _digests(checkpoint))
    except (InputError, OSError):
        return False


def _digests(checkpoint: Path) -> dict[str, str]:
    files = (path for path in checkpoint.rglob("*") if path.is_file() and path.name != _DIGESTS)
    return {str(path.relative_to(checkpoint)): file_digest(path) for path in sorted(files)}
