"""The mean of several runs' weights, as a run of its own: tensor by tensor, adapters without loss.

The mean of the products B A of two adapters is no product of their mean factors; PEFT's ``cat`` is exact: the
factors side by side, with the sum of the ranks.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import torch

from datadose.errors import InputError, reject, require_extra
from datadose.files import prepare_folder, write_json
from datadose.llm.language_model import LanguageModel
from datadose.llm.loading import files_digest
from datadose.llm.posttrain import earlier_result
from datadose.llm.trainers import disk_errors, silence
from datadose.reading import is_folder, read_json
from datadose.versions import versions

_KINDS = ("adapter", "model")
_FINISHED = "the folder of a run that `datadose posttrain` has finished"


def average(runs: Sequence[Path], out: Path, *, allow_pickle_weights: bool = False) -> dict[str, Any]:
    """Write the mean of the runs' weights to ``out/adapter`` or ``out/model``, and ``out/result.json``.

    Args:
        runs: at least two finished runs of one base model, all with adapters or all with all weights. The
            result of an average may be one of them; it counts once.
        out: folder of the mean, which loads as each of the runs does. If it is there already it is returned.
        allow_pickle_weights: read the base model's weights from ``.bin`` files too, which can run code.

    Returns what ``result.json`` holds: the runs, digests of their weights, the base model and versions.

    Raises InputError for fewer than two runs, one given twice, a folder that is no finished run, and runs of
    different models or kinds; RunError if writing fails.

    Example::

        average([Path("runs/a"), Path("runs/b")], Path("runs/mean"))
    """
    require_extra("train", "trl", "peft", "accelerate", "datasets")
    if len(runs) < 2:
        reject("average", ", ".join(map(str, runs)) or "no run", "at least two runs")
    results = [_finished(run) for run in runs]
    first = results[0]
    for index, (run, result) in enumerate(zip(runs, results, strict=True)):
        if run.resolve() in {other.resolve() for other in runs[:index]}:
            reject("average", str(run), "each run once")
        if result["weights"] != first["weights"]:
            allowed = f"runs of one kind ({runs[0]} has {first['weights']} weights)"
            reject("average", f"{run} with {result['weights']} weights", allowed)
        if result["model_digest"] != first["model_digest"]:
            found = f"{run}, trained from {result['model']}"
            reject("average", found, f"runs of one base model ({runs[0]} is from {first['model']})")
    kind = str(first["weights"])
    folders = [run / kind for run in runs]
    setting = {"average": [files_digest(folder) for folder in folders], "model_digest": first["model_digest"]}
    prepare_folder("out", out)
    if (earlier := earlier_result(out, setting)) is not None:
        return earlier
    write_json(out / "setting.json", setting)
    with silence(), disk_errors(out):
        if kind == "adapter":
            base = _base_model(first, allow_pickle_weights=allow_pickle_weights)
            _mean_adapter(base, folders, out / kind)
        else:
            _mean_model(folders, out / kind)
    result = {
        **setting,
        "runs": [str(run) for run in runs],
        "model": first["model"],
        "weights": kind,
        "versions": versions("transformers", "peft"),
    }
    write_json(out / "result.json", result)
    return result


def _finished(run: Path) -> dict[str, Any]:
    """The result of a run."""
    if not is_folder(run) or not (run / "result.json").is_file():
        reject("average", str(run), _FINISHED)
    result = read_json(run / "result.json", "average")
    if not isinstance(result, dict) or result.get("weights") not in _KINDS:
        reject("average", str(run / "result.json"), _FINISHED)
    if not isinstance(result.get("model"), str) or not isinstance(result.get("model_digest"), str):
        reject("average", str(run / "result.json"), _FINISHED)
    if not any((run / str(result["weights"])).glob("*.safetensors")):
        reject("average", f"{run / str(result['weights'])} without weights", _FINISHED)
    return result


def _base_model(result: dict[str, Any], *, allow_pickle_weights: bool) -> LanguageModel:
    found = LanguageModel.load(result["model"], dtype="float32", allow_pickle_weights=allow_pickle_weights)
    if found.digest != result["model_digest"]:
        reject("average", f"{result['model']}, which has changed", "runs whose base model is as it was")
    return found


def _mean_adapter(base: LanguageModel, folders: Sequence[Path], out: Path) -> None:
    from peft import PeftModel  # noqa: PLC0415 - optional

    names = [f"run{index}" for index in range(len(folders))]
    model: Any = PeftModel.from_pretrained(base.model, str(folders[0]), adapter_name=names[0])
    for name, folder in zip(names[1:], folders[1:], strict=True):
        model.load_adapter(str(folder), adapter_name=name)
    try:
        weights = [1 / len(names)] * len(names)
        # PEFT saves an adapter of this name in the folder itself, as that of a run is.
        model.add_weighted_adapter(names, weights, "default", combination_type="cat")
    except ValueError as error:
        allowed = f"adapters that fit together ({' '.join(str(error).split())})"
        raise InputError("average", ", ".join(map(str, folders)), allowed) from error
    model.save_pretrained(str(out), selected_adapters=["default"])
    base.tokenizer.save_pretrained(out)


def _mean_model(folders: Sequence[Path], out: Path) -> None:
    """A file of weights at a time; all else is that of the first run."""
    weights = "*.safetensors"
    shutil.copytree(folders[0], out, ignore=shutil.ignore_patterns(weights), dirs_exist_ok=True)
    names = [sorted(path.name for path in folder.glob(weights)) for folder in folders]
    for folder, found in zip(folders, names, strict=True):
        if found != names[0]:
            reject("average", str(folder), f"weights in the files of {folders[0]}")
    for name in names[0]:
        _mean_file([folder / name for folder in folders], out / name)


def _mean_file(paths: Sequence[Path], out: Path) -> None:
    from safetensors import safe_open  # noqa: PLC0415 - optional
    from safetensors.torch import save_file  # noqa: PLC0415

    with ExitStack() as stack:
        files = [stack.enter_context(cast("Any", safe_open(path, framework="pt"))) for path in paths]
        for path, file in zip(paths, files, strict=True):
            if set(file.keys()) != set(files[0].keys()):
                reject("average", str(path), f"the tensors of {paths[0]}")
        means = {
            name: _mean([file.get_tensor(name) for file in files], name) for name in sorted(files[0].keys())
        }
        save_file(means, out, metadata=files[0].metadata())


def _mean(tensors: Sequence[torch.Tensor], name: str) -> torch.Tensor:
    """In float64, then of the tensors' own type."""
    first = tensors[0]
    if any(t.shape != first.shape or t.dtype != first.dtype for t in tensors):
        reject("average", f"tensors {name} of several shapes or types", "runs of one base model")
    if not first.is_floating_point():
        if not all(torch.equal(t, first) for t in tensors):
            reject("average", f"tensors {name} of whole numbers that differ", "runs of one base model")
        return first
    total = torch.zeros(first.shape, dtype=torch.float64)
    for tensor in tensors:
        total += tensor
    return (total / len(tensors)).to(first.dtype)
