"""The commands of a report: the command line takes them, and other trainers find their files."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datadose.cli import _parser
from datadose.cli.llm_options import config_of
from datadose.llm.posttrain_config import PosttrainConfig
from datadose.llm.scores import Scores
from datadose.llm.selection import (
    FORMATS,
    Selection,
    SelectionConfig,
    select,
    training_commands,
    write_selection,
)
from datadose.llm.selection import writing as module
from datadose.llm.selection.trainer_rows import REWARD, TRAINERS
from helpers.synthetic import MANIFEST, make

pytestmark = pytest.mark.usefixtures("quick_geometry")

RECORD = {
    **MANIFEST,
    "model": "models/a model's; rm -rf <x>",
    "loss": "all",
    "template_date": "2025-01-31",
    "verifier": "my judges:number",
    "verifier_timeout": 9.0,
    "temperature": 0.7,
    "max_tokens": 64,
}
CONFIG = SelectionConfig(method="filters", sft_size=30, rl_size=60)


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "write_report", lambda *_: None)


def _chosen(folder: Path, config: SelectionConfig = CONFIG, record: dict[str, Any] = RECORD) -> Selection:
    scores = make(400, 0, (0.6, 0.4, 0, 0)).saved(folder / "pool")
    pool: Scores = replace(scores, manifest={**scores.manifest, **record})
    target = replace(make(60, 1, name="target").scores, manifest=pool.manifest)
    return select(pool, None if config.sft_size == 0 else target, config=config)


def _parsed(text: str) -> Any:
    program, *words = shlex.split(text)
    assert program == "datadose"
    return _parser().parse_args(words)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (CONFIG, 8),
        (replace(CONFIG, sft_size=0, group=12), 4),
        (replace(CONFIG, rl_size=0), 4),
    ],
    ids=["both", "RL only", "SFT only"],
)
def test_the_command_line_takes_every_command(tmp_path, config, expected):
    out = Path("my folder") / "out"
    commands = training_commands(_chosen(tmp_path, config), out)
    assert len(commands) == expected
    runs = {}
    for one in commands:
        arguments = _parsed(one.text)
        assert arguments.command == ("posttrain" if one.trains else "score")
        if not one.trains:
            # What is measured is what an earlier command makes.
            assert arguments.model in runs
            continue
        made = config_of(PosttrainConfig, arguments)
        runs[str(arguments.out / "adapter")] = made
        name = f"{'control_' if 'control' in one.what else ''}{made.stage}"
        assert (arguments.data, arguments.out) == (out / f"{name}.jsonl", out / "runs" / name)
        assert made.template_date == "2025-01-31"
        if made.stage == "rl":
            assert (made.samples, made.batch % made.samples) == (config.group, 0)
            assert (arguments.verifier, made.temperature, made.max_tokens) == ("my judges:number", 0.7, 64)
            assert made.verifier_timeout == 9.0
        base = made.stage == "sft" or config.sft_size == 0
        assert arguments.model == (RECORD["model"] if base else str(out / "runs" / "sft" / "adapter"))
        assert made.loss == ("all" if made.stage == "sft" else "last")
    pairs = [runs[name] for name in runs]
    # A set and its control are trained alike.
    assert all(first == second for first, second in zip(pairs[::2], pairs[1::2], strict=True))


def test_manifests_without_keys_give_commands_too(tmp_path):
    record = {"model": "-odd", "model_digest": "0"}
    commands = training_commands(_chosen(tmp_path, record=record), Path("-out"))
    for one in commands:
        arguments = _parsed(one.text)
        assert str(arguments.out).startswith("-out")
    rl = next(_parsed(one.text) for one in commands if "--stage rl" in one.text)
    assert rl.verifier == "VERIFIER"
    assert _parsed(commands[0].text).model == "-odd"


@pytest.mark.parametrize("form", [name for name in FORMATS if name != "trl"])
def test_other_trainers_start_where_their_files_are(tmp_path, form):
    """Programs of their names note where they were started; the control's run sees the control's rows."""
    selection, out = _chosen(tmp_path), tmp_path / "my out"
    write_selection(selection, selection.pool, None, out, form=form)
    (out / form / REWARD).write_text("")
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "log"
    for name in ("torchrun", "python", "deepspeed", "llamafactory-cli", "axolotl"):
        (programs / name).write_text(f'#!/bin/sh\npwd >> "{log}"\n')
        (programs / name).chmod(0o755)
    suffix, places = TRAINERS[form].suffix, []
    for one in training_commands(selection, out, form):
        if one.text.startswith("datadose"):
            assert (form, _parsed(one.text).stage) == ("llama-factory", "rl")
            continue
        environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        subprocess.run(["sh", "-c", one.text], check=True, env=environment, cwd=tmp_path)
        places.append(Path(log.read_text().splitlines()[-1]))
    stages = ("sft",) if form == "llama-factory" else ("sft", "rl")
    assert places == [out / form, out / "control" / form] * len(stages)
    for stage in stages:
        control = (out / form / f"control_{stage}{suffix}").read_bytes()
        assert (out / "control" / form / f"{stage}{suffix}").read_bytes() == control
        for name in TRAINERS[form].configuration:
            file = name.format(stage=stage)
            assert (out / "control" / form / file).read_bytes() == (out / form / file).read_bytes()


def test_a_model_in_a_folder_is_found_from_the_trainers_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    selection = _chosen(tmp_path, record={**RECORD, "model": "small"})
    write_selection(selection, selection.pool, None, Path("out"), form="axolotl")
    assert f"base_model: {tmp_path / 'small'}" in (tmp_path / "out" / "axolotl" / "sft.yaml").read_text()


@pytest.mark.parametrize("form", ["verl", "openrlhf", "axolotl"])
def test_other_trainers_draw_the_group_that_the_set_was_chosen_for(tmp_path, form):
    selection = _chosen(tmp_path, replace(CONFIG, group=5))
    write_selection(selection, selection.pool, None, tmp_path / "out", form=form)
    (file,) = (tmp_path / "out" / form).glob("rl.[sy]*")
    found = re.findall(r"(?:rollout\.n=|n_samples_per_prompt |num_generations: )(\d+)", file.read_text())
    assert found == ["5"]
