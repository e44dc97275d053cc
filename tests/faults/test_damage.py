"""Files that were cut, flipped or forged are noticed with one line, and no code in them runs."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import datadose
from datadose.errors import InputError
from datadose.files import read_table
from datadose.models import LinearAttention, PromptBatch
from datadose.stages import FixedData, Optimisation, Outcome, train
from datadose.stages.checkpoint import load_weights, save_weights
from datadose.studies.index import study
from datadose.studies.ledger import judge_all
from datadose.studies.report import write_report
from datadose.studies.reproduce import draw_saved
from datadose.tensor_files import read_tensors, write_tensors
from helpers.command import run_main
from helpers.processes import SMALL, TRAIN, kept


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def _half(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[: len(lines) // 2]))


def _one_digit(path: Path) -> None:
    content = path.read_bytes()
    place = [match.start() for match in re.finditer(rb"[0-9]", content)][-1]
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


@pytest.mark.parametrize("damage", [_half, _one_digit])
def test_a_damaged_table_is_no_result(damage: Callable[[Path], None], results: Path) -> None:
    """By the figure, the report and the ledger; the command that it names makes the same bytes again."""
    table = results / "fig5.csv"
    whole = table.read_bytes()
    damage(table)
    for read in (
        lambda: read_table(table),
        lambda: draw_saved("fig5", results),
        lambda: write_report(results),
        lambda: judge_all([study("fig5")], results),
    ):
        with pytest.raises(InputError, match=r"fig5\.csv; allowed: .*`datadose reproduce fig5`"):
            read()
    assert run_main([*map(str, SMALL), "--out", str(results), "--jobs", "1"]) == 0
    assert table.read_bytes() == whole


def test_a_flipped_bit_in_a_kept_result_is_one_line(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = (results / "fig5.csv").read_bytes()
    victims = random.Random(0).sample(kept(results), 3)
    for victim in victims:
        _flip(victim, -3)
    assert run_main([*map(str, SMALL), "--out", str(results), "--jobs", "1"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
    assert len(said) == 1
    assert "3 damaged" in said[0]
    assert (results / "fig5.csv").read_bytes() == table


def test_weights_with_a_flipped_bit_are_refused(tmp_path: Path) -> None:
    """At the first bytes, throughout and at the last one."""
    path, model = tmp_path / "weights.safetensors", LinearAttention(-0.3 * torch.eye(8))
    save_weights(path, model)
    whole = path.read_bytes()
    places = [*range(8, 40), *random.Random(1).sample(range(40, len(whole)), 60), len(whole) - 1]
    for place in places:
        _flip(path, place)
        with pytest.raises(InputError, match=r"weights\.safetensors"):
            load_weights(path, model)
        path.write_bytes(whole)
    load_weights(path, model)


def _stage(checkpoint: Path, steps: int = 6) -> Any:
    model = LinearAttention(-0.3 * torch.eye(4).expand(2, 4, 4).clone())
    data = FixedData(PromptBatch.draw(torch.ones(4).numpy(), 10, 8, seeds=[0, 1]), 4)
    return train(
        model, Outcome(1), data, Optimisation("adam", 1e-3, steps=steps, batch=4), checkpoint=checkpoint
    )


FORGERIES: list[dict[str, Any]] = [
    {"steps": 1_000_000_000},
    {"steps": -1},
    {"steps": "many"},
    {"steps": 0},
    {"history": [{"step": 0}]},
    {"history": [{"step": 7, "loss": [1.0, 1.0]}]},
    {"history": [{"step": 0, "loss": [1.0]}]},
    {"history": [{"step": 0, "loss": 1.0}]},
    {"history": "none"},
    {"diverged": [{"run": 5, "step": 0, "divergence_radius": None}]},
    {"diverged": [{"run": 0}]},
    {"first_loss": []},
    {"first_loss": None},
]


@pytest.mark.parametrize("forged", FORGERIES, ids=json.dumps)
def test_impossible_progress_is_refused(forged: dict[str, Any], tmp_path: Path) -> None:
    """A checkpoint that says what no run can have done, its sha256 being right."""
    path = tmp_path / "stage.safetensors"
    assert _stage(path).steps == 6
    tensors, texts = read_tensors(path, "checkpoint")
    progress = {**json.loads(texts["training"]), **forged}
    write_tensors(path, tensors, {**texts, "training": json.dumps(progress)})
    with pytest.raises(InputError, match=r"stage\.safetensors") as caught:
        _stage(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("texts", [{"training": "{"}, {"training": "[1]"}, {"plan": "7"}, {"plan": "{"}])
def test_broken_metadata_are_refused(texts: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "stage.safetensors"
    _stage(path)
    tensors, before = read_tensors(path, "checkpoint")
    write_tensors(path, tensors, {**before, **texts})
    with pytest.raises(InputError, match=r"stage\.safetensors"):
        _stage(path)
    tensors["optimiser.first"] = tensors.pop("optimiser.0.exp_avg")
    write_tensors(path, tensors, before)
    with pytest.raises(InputError, match=r"stage\.safetensors"):
        _stage(path)


@pytest.mark.parametrize("place", [20, 200, -5])
def test_a_flipped_checkpoint_stops_train_with_one_line(
    place: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.yaml").write_text(TRAIN % 40)
    command = ["train", str(tmp_path / "train.yaml"), "--out", str(tmp_path / "run")]
    assert run_main(command) == 0
    _flip(tmp_path / "run" / "checkpoints" / "0-sft.safetensors", place)
    capsys.readouterr()
    assert run_main([*command, "--resume"]) == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert "0-sft.safetensors" in complaint


def test_nothing_unpickles() -> None:
    """No reader of ours takes a format that runs code."""
    forbidden = re.compile(
        r"\b(import|from) pickle\b|\bpickle\.|torch\.load|"
        r"joblib\.(load|Memory)|allow_pickle=True|read_pickle|marshal|shelve"
    )
    for path in Path(datadose.__file__).parent.rglob("*.py"):
        code = re.sub(r'""".*?"""|#[^\n]*', "", path.read_text(), flags=re.DOTALL)
        assert not forbidden.search(code), path
