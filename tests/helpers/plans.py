"""Plan files of the tests, and the documents that they give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from datadose.cli import main
from datadose.shift import Shift

BASE: dict[str, Any] = {
    "sigma0": {"blocks": [[0.1, 6], [1.0, 10]]},
    "delta": {"blocks": [[1.0, 6], [0.0, 10]]},
    "length": 40,
    "eta": 0.2,
    "interference": 0.05,
    "max_prompts": 60,
}
POOL = [
    {"name": "experts", "covariance": {"blocks": [[0.22, 6], [0.0, 10]]}, "size": 20},
    {
        "name": "crowd",
        "covariance": {"blocks": [[0.22, 6], [0.0, 10]]},
        "size": 50,
        "length": 80,
        "demonstration_noise": 0.05,
    },
]
SHIFT = Shift.two_block(16, 6, 0.1, 0.2, 0.05)


def sourced(**changes: Any) -> dict[str, Any]:
    document = {key: value for key, value in BASE.items() if key != "interference"}
    return {**document, "sources": POOL, **changes}


def write(folder: Path, document: dict[str, Any]) -> Path:
    path = folder / "shift.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def document_of(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["plan", str(path), "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    document: dict[str, Any] = json.loads(shown.out)
    return document


# --- the document ---------------------------------------------------------------------------------------
