"""From uploaded files to a plan: a SHIFT.yaml with the .npy files that it names, or two .npy files alone."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import numpy as np
import yaml

from datadose.configs import Blocks, CovarianceSpec, PlanConfig, load_config
from datadose.errors import InputError, reject
from datadose.explore.setting import Setting
from datadose.planner import Plan, plan_file

LARGEST_UPLOAD = 32 * 2**20
LARGEST_SPECTRUM = 4000
LARGEST_MATRIX = 600
"""Above these sizes a plan takes minutes: the command line has no such limit."""


def plan_uploads(names: Sequence[str], contents: Sequence[str], setting: Setting) -> Plan:
    """The plan for uploaded files (``contents`` are data URLs).

    Either one SHIFT.yaml with the .npy files it names, or ``sigma0.npy`` and ``delta.npy`` alone, for which
    length, eta, interference and the rest are those of ``setting``. Nothing else on this machine is read.

    Raises InputError that names the file, the field or the line, and what is allowed.
    """
    with TemporaryDirectory(prefix="datadose-") as name:
        folder = Path(name)
        try:
            shift_file = _written(names, contents, folder, setting)
            _check(load_config(shift_file, PlanConfig), folder)
            return plan_file(shift_file)
        except InputError as error:
            shown = str(error.value).replace(f"{folder}/", "")
            raise InputError(error.field, shown, error.allowed.replace(f"{folder}/", "")) from error


def _written(names: Sequence[str], contents: Sequence[str], folder: Path, setting: Setting) -> Path:
    """The uploads as files; the path of the SHIFT.yaml among them, or of one made for two .npy files."""
    configs: list[str] = []
    arrays: list[str] = []
    total = 0
    for given, content in zip(names, contents, strict=True):
        name = PurePosixPath(given.replace("\\", "/")).name
        kind = PurePosixPath(name).suffix.lower()
        if kind not in (".yaml", ".yml", ".npy"):
            reject("file", name, "a SHIFT.yaml (.yaml, .yml) and .npy files")
        data = _decoded(name, content)
        total += len(data)
        if not data or total > LARGEST_UPLOAD:
            reject("file", f"{name}, {len(data):,} bytes", f"1 to {LARGEST_UPLOAD:,} bytes in all")
        (folder / name).write_bytes(data)
        (arrays if kind == ".npy" else configs).append(name)
    if len(configs) == 1:
        return folder / configs[0]
    if not configs and sorted(arrays) == ["delta.npy", "sigma0.npy"]:
        return _made_for_two(folder, setting)
    raise InputError(
        "files",
        ", ".join([*configs, *arrays]) or "no file",
        "one SHIFT.yaml with the .npy files it names, or sigma0.npy and delta.npy",
    )


def _decoded(name: str, content: str) -> bytes:
    try:
        return base64.b64decode(content.partition(",")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("file", name, "a whole file (this upload was cut)") from error


def _made_for_two(folder: Path, setting: Setting) -> Path:
    fields = ("length", "eta", "interference", "max_prompts", "chain_steps", "steps", "reward", "tolerance")
    document = {"sigma0": "sigma0.npy", "delta": "delta.npy"}
    path = folder / "shift.yaml"
    path.write_text(yaml.safe_dump({**document, **{name: getattr(setting, name) for name in fields}}))
    return path


def _check(config: PlanConfig, folder: Path) -> None:
    """Covariances come from the upload alone and are of a size that a page can wait for."""
    specs: list[tuple[str, CovarianceSpec]] = [("sigma0", config.sigma0), ("delta", config.delta)]
    specs += [(f"covariance of source {source.name}", source.covariance) for source in config.sources or []]
    for field, spec in specs:
        if isinstance(spec, str):
            _check_file(field, spec, folder)
        else:
            size = sum(count for _, count in spec.blocks) if isinstance(spec, Blocks) else len(spec)
            if size > LARGEST_SPECTRUM:
                reject(
                    field,
                    f"dimension {size:,}",
                    f"at most {LARGEST_SPECTRUM:,} here; datadose plan has no limit",
                )


def _check_file(field: str, name: str, folder: Path) -> None:
    if name != PurePosixPath(name).name or not (folder / name).is_file():
        found = sorted(path.name for path in folder.glob("*.npy"))
        reject(
            field, name, f"the name of a .npy file of the same upload ({', '.join(found) or 'there is none'})"
        )
    try:
        shape = np.load(folder / name, allow_pickle=False, mmap_mode="r").shape
    except (ValueError, OSError, EOFError):
        return  # The reader says what is wrong with it.
    most = LARGEST_MATRIX if len(shape) == 2 else LARGEST_SPECTRUM
    if shape and shape[0] > most:
        reject(
            field, f"{name} of shape {shape}", f"dimension at most {most:,} here; datadose plan has no limit"
        )
