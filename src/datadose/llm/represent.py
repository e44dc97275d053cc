"""The target's and the reference's representations: from a scores folder, or measured once and kept."""

from __future__ import annotations

from pathlib import Path

from datadose.errors import reject
from datadose.files import file_digest
from datadose.llm.pool import read_pool
from datadose.llm.scores import Scores, read_scores
from datadose.printing import note
from datadose.reading import check_file, is_folder


def scores_of(path: Path, field: str, pool: Scores, *, allow_pickle_weights: bool = False) -> Scores:
    """Scores of ``path``: itself if it is a scores folder, else measured with the pool's model.

    A pool file is scored once, without samples, into a folder inside ``pool.folder`` named by its content;
    a later call reads that folder.

    Raises InputError if ``path`` was scored under another model than the pool, if it is no pool file, or if
    the pool's model cannot be loaded any more.
    """
    measured = is_folder(path)
    scores = read_scores(path, field) if measured else _measure(path, field, pool, allow_pickle_weights)
    for name in ("model_digest", "chat_template_digest"):
        if scores.manifest.get(name) != pool.manifest.get(name):
            reject(field, f"{path} with another {name}", "scores under the same model as the pool's")
    return scores


def _measure(path: Path, field: str, pool: Scores, allow_pickle_weights: bool) -> Scores:
    check_file(field, path, "a .jsonl or .parquet file, or a folder that `datadose score` has written")
    if pool.folder is None:
        msg = "scores without a folder cannot keep those of a target"
        raise ValueError(msg)
    digest = file_digest(path)[:16]
    folder = pool.folder / f"{field}-{digest}"
    if not (folder / "manifest.json").is_file():
        from datadose.llm.score import score  # noqa: PLC0415
        from datadose.llm.score_config import ScoreConfig  # noqa: PLC0415
        from datadose.progress import step_progress  # noqa: PLC0415

        read_pool(path, field, mark=True)  # what is wrong with it is said under its own name
        model = pool.manifest["model"]
        config = ScoreConfig(dtype=pool.manifest["dtype"], sketch_size=pool.manifest["sketch"]["size"])
        note(f"{field}: measuring {path} with {model}, once, into {folder}")
        pickles = allow_pickle_weights
        with step_progress() as progress:
            score(model, path, folder, config=config, allow_pickle_weights=pickles, progress=progress)
    return read_scores(folder, field)
