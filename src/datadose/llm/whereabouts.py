"""Where the model and the pool of a scores folder are, which are named as somebody typed them somewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datadose.errors import InputError, reject
from datadose.reading import exists, is_folder, read_json

MODEL_PLACE = "model_from_here"
"""Key of a manifest: the folder of the model, seen from that of the scores; absent for a name on the Hub."""


def place_of(model: str, folder: Path) -> dict[str, str]:
    """What a manifest in ``folder`` records of the place of ``model``; nothing of a name on the Hub."""
    if not is_folder(Path(model)):
        return {}
    return {MODEL_PLACE: Path(os.path.relpath(Path(model).resolve(), folder.resolve())).as_posix()}


def find_model(manifest: Mapping[str, Any], folder: Path) -> str:
    """The model of the scores in ``folder``, whatever folder the command runs in.

    Raises InputError where it was a folder that is not there any more: the Hub is not asked for its name.
    """
    name, place = str(manifest["model"]), manifest.get(MODEL_PLACE)
    if place is None:
        return name
    # The place first: what has the name may be another model by now, where folders were copied.
    if is_folder(found := folder / place):
        # Not scores/../model, in words that a reader has to work out; relative where the folder is.
        return str(found.resolve()) if folder.is_absolute() else os.path.relpath(found.resolve())
    if not is_folder(Path(name)):
        reject("model", name, f"the model that the pool was scored with, in its folder {found.resolve()}")
    return name


def refuse_other_scores(folder: Path, pool: Path | str, model: Path | str) -> None:
    """InputError where ``folder`` has the scores of another pool or model, or a rows.jsonl that is none.

    Pool and model are known by their names: a file or weights of the same name may have changed.
    """
    manifest = folder / "manifest.json"
    if not exists(manifest):
        if exists(folder / "rows.jsonl") and not exists(folder / ".cache"):
            reject(
                "out", f"{folder}, which has a rows.jsonl that `datadose score` did not write", "a new folder"
            )
        return
    try:
        found = read_json(manifest)
        names = {name: str(found[name]) for name in ("pool", "model")}
    except (InputError, KeyError, TypeError):
        # Not whole: it is written again.
        return
    for name, given in (("pool", pool), ("model", model)):
        if not _names(names[name]) & _names(given):
            reject(
                "out", f"{folder} with the scores of {name} {names[name]}", f"a new folder for {name} {given}"
            )


def _names(place: Path | str) -> set[str]:
    """The last part of a path, as it was typed and as what it leads to is named: ``.``, or a link."""
    return {Path(place).name, Path(place).resolve().name} - {""}
