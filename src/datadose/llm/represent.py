"""The target's and the reference's representations: from a scores folder, or measured once and kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from datadose.errors import reject
from datadose.llm.cache import content_digest
from datadose.llm.pool import find_source
from datadose.llm.scores import EMBEDDING, FILES, Scores, read_scores
from datadose.llm.whereabouts import find_model
from datadose.printing import note
from datadose.reading import is_folder


def scores_of(
    path: Path,
    field: str,
    pool: Scores,
    *,
    columns: Mapping[str, str] | None = None,
    several: bool = False,
    allow_pickle_weights: bool = False,
) -> Scores:
    """Scores of ``path``: itself if it is a scores folder, else measured with the pool's model.

    A pool is scored once, without samples, into a folder inside ``pool.folder`` named by its content and by
    ``columns`` (the column of each role; with ``several``, where the file has them); a later call reads that
    folder.

    Raises InputError if ``path`` was scored under another model than the pool, if it is no pool, or if
    the pool's model cannot be loaded any more.
    """
    if is_folder(path) and any((path / name).is_file() for name in FILES):
        scores = read_scores(path, field)
    else:
        scores = _measure(path, field, pool, columns or {}, several, allow_pickle_weights)
    for name in ("model_digest", "chat_template_digest"):
        if scores.manifest.get(name) != pool.manifest.get(name):
            reject(field, f"{path} with another {name}", "scores under the same model as the pool's")
    return scores


def _measure(
    path: Path,
    field: str,
    pool: Scores,
    columns: Mapping[str, str],
    several: bool,
    allow_pickle_weights: bool,
) -> Scores:
    if pool.folder is None:
        msg = "scores without a folder cannot keep those of a target"
        raise ValueError(msg)
    # What an earlier version has measured is measured again.
    digest = content_digest([find_source(path, field).digest(), dict(columns), EMBEDDING])[:16]
    folder = pool.folder / f"{field}-{digest}"
    if not (folder / "manifest.json").is_file():
        from datadose.llm.score import score  # noqa: PLC0415
        from datadose.llm.score_config import ScoreConfig  # noqa: PLC0415
        from datadose.progress import step_progress  # noqa: PLC0415

        model = find_model(pool.manifest, pool.folder)
        found = pool.manifest
        config = ScoreConfig(
            dtype=found["dtype"],
            sketch_size=found["sketch"]["size"],
            loss=found["loss"],
            template_date=found["template_date"],
        )
        with step_progress() as progress:
            score(
                model,
                path,
                folder,
                columns=columns,
                several=several,
                field=field,
                config=config,
                allow_pickle_weights=allow_pickle_weights,
                progress=progress,
            )
        note(f"{field}: {path} was measured with {model}, once, into {folder}")
    return read_scores(folder, field)
