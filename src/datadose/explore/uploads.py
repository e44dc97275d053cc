"""From uploaded files to a plan: a SHIFT.yaml with the .npy files that it names, or two .npy files alone."""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import yaml

from datadose.configs import CovarianceSpec, load_config, shape_of
from datadose.errors import InputError, reject
from datadose.explore.setting import Setting
from datadose.planner import Plan, plan_file
from datadose.planner.config import PlanConfig
from datadose.reading import open_array

LARGEST_UPLOAD = 32 * 2**20
LARGEST_YAML = 2**18
LARGEST_REQUEST = 48 * 2**20
"""Bytes of a request: an upload in base64 and what comes with it."""
LARGEST_COUNTS = {
    "max_prompts": 10**6,
    "rl_prompts": 10**6,
    "length": 10**6,
    "steps": 10**6,
    "chain_steps": 8,
}
LARGEST_SPECTRUM = 4000
LARGEST_MATRIX = 400
LARGEST_MATRIX_BESIDE_SOURCES = 100
MOST_SOURCES = 8
MOST_DENSE_SOURCES = 4
"""Up to these sizes a plan takes up to about 20 seconds of one core; the command line has no such limit."""
_ELSE = "datadose plan has no limit"
_AT_ONCE = threading.Semaphore(2)


def plan_uploads(names: Sequence[str], contents: Sequence[str], setting: Setting) -> Plan:
    """The plan for uploaded files (``contents`` are data URLs).

    Either one SHIFT.yaml with the .npy files it names, or ``sigma0.npy`` and ``delta.npy`` alone, for which
    length, eta, interference and the rest are those of ``setting``. Nothing else on this machine is read.

    Raises InputError that names the file, the field or the line, and what is allowed; also where two other
    plans are being made.
    """
    if not _AT_ONCE.acquire(blocking=False):
        reject("upload", "one more plan", "two at once on this server; try again in a moment")
    try:
        return _plan(names, contents, setting)
    finally:
        _AT_ONCE.release()


def _plan(names: Sequence[str], contents: Sequence[str], setting: Setting) -> Plan:
    with TemporaryDirectory(prefix="datadose-") as name:
        folder = Path(name)
        try:
            shift_file = _written(names, contents, folder, setting)
            _check(load_config(shift_file, PlanConfig), folder)
            return plan_file(shift_file)
        except InputError as error:
            parts = (error.value, error.allowed, error.hint, error.said)
            raise InputError(error.field, *(str(part).replace(f"{folder}/", "") for part in parts)) from error


def _written(names: Sequence[str], contents: Sequence[str], folder: Path, setting: Setting) -> Path:
    """The uploads as files; the path of the SHIFT.yaml among them, or of one made for two .npy files."""
    configs: list[str] = []
    arrays: list[str] = []
    total = 0
    for given, content in zip(names, contents, strict=True):
        name = PurePosixPath(given.replace("\\", "/")).name
        if len(name) > 100 or not name.isprintable():
            reject("file", name[:40] + "...", "a name of at most 100 printable characters")
        kind = PurePosixPath(name).suffix.lower()
        if kind not in (".yaml", ".yml", ".npy"):
            reject("file", name, "a SHIFT.yaml (.yaml, .yml) and .npy files")
        # Base64 takes four characters for three bytes.
        total += 3 * len(content) // 4
        if total > LARGEST_UPLOAD + 100:
            reject(
                "file", f"{name}, {total:,} bytes with those before it", f"{LARGEST_UPLOAD:,} bytes in all"
            )
        data = _decoded(name, content)
        most = LARGEST_UPLOAD if kind == ".npy" else LARGEST_YAML
        if not 0 < len(data) <= most:
            reject("file", f"{name}, {len(data):,} bytes", f"1 to {most:,} bytes")
        if kind == ".npy" and not data.startswith(b"\x93NUMPY"):
            reject("file", name, "an array as numpy.save writes it")
        (folder / name).write_bytes(data)
        (arrays if kind == ".npy" else configs).append(name)
    if not configs and sorted(arrays) == ["delta.npy", "sigma0.npy"]:
        configs.append("shift.yaml")
        document = {"sigma0": "sigma0.npy", "delta": "delta.npy", **setting.planned()}
        (folder / "shift.yaml").write_text(yaml.safe_dump(document))
    if len(configs) != 1:
        allowed = "one SHIFT.yaml with the .npy files it names, or sigma0.npy and delta.npy"
        reject("files", ", ".join([*configs, *arrays]) or "no file", allowed)
    return folder / configs[0]


def _decoded(name: str, content: str) -> bytes:
    try:
        return base64.b64decode(content.partition(",")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("file", name, "a whole file (this upload was cut)") from error


def _check(config: PlanConfig, folder: Path) -> None:
    """Covariances come from the upload alone, and all is of a size that a page can wait for."""
    for name, most in LARGEST_COUNTS.items():
        value = getattr(config, name)
        if value is not None and value > most:
            reject(name, f"{value:,}", f"at most {most:,} here; {_ELSE}")
    sources = config.sources or []
    if len(sources) > MOST_SOURCES:
        reject("sources", f"{len(sources)} of them", f"at most {MOST_SOURCES} here; {_ELSE}")
    specs: list[tuple[str, CovarianceSpec]] = [("sigma0", config.sigma0), ("delta", config.delta)]
    specs += [(f"covariance of source {source.name}", source.covariance) for source in sources]
    shapes = [(name, _shape(name, spec, folder)) for name, spec in specs]
    are_dense = any(len(shape) == 2 for _, shape in shapes)
    if are_dense and len(sources) > MOST_DENSE_SOURCES:
        reject(
            "sources", f"{len(sources)} of them", f"at most {MOST_DENSE_SOURCES} with matrices here; {_ELSE}"
        )
    for name, shape in shapes:
        most = LARGEST_SPECTRUM
        if are_dense:
            most = LARGEST_MATRIX_BESIDE_SOURCES if sources else LARGEST_MATRIX
        if shape and shape[0] > most:
            reject(name, f"shape {shape}", f"dimension at most {most:,} here; {_ELSE}")


def _shape(field: str, spec: CovarianceSpec, folder: Path) -> tuple[int, ...]:
    """The shape of a covariance, without reading its numbers."""
    if not isinstance(spec, str):
        return shape_of(spec)
    if spec != PurePosixPath(spec).name or not (folder / spec).is_file():
        found = ", ".join(sorted(path.name for path in folder.glob("*.npy"))) or "there is none"
        reject(field, spec, f"the name of a .npy file of the same upload ({found})")
    return tuple(int(size) for size in open_array(field, folder / spec).shape)
