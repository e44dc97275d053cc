"""Bad inputs for every command: files that are none, content of the wrong kind, numbers out of range.

Inputs are made by :func:`write_inputs` in one folder, the good ones that a command needs beside the bad one
included. A :class:`Case` is a command line and what its one line of error must contain.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from datadose.cli import _parser
from datadose.cli.common import integer, number
from helpers.contents import (
    ARRAYS,
    CLAIM,
    LEDGER_TEXTS,
    LEDGERS,
    PLAN,
    PLANS,
    REST,
    ROW,
    TRAIN,
    TRAINS,
    write_arrays,
)


@dataclass(frozen=True)
class Case:
    """A command with a bad input. ``{in}`` in its arguments is the folder of the inputs."""

    name: str
    arguments: tuple[str, ...]
    said: str
    """What the line of error must contain."""
    patched: str = ""
    """The bad file that may not be opened (whoever runs the tests might open any), by its name."""

    @property
    def command(self) -> str:
        return self.arguments[0]


BASE: dict[str, tuple[str, ...]] = {
    "predict": (
        *("predict", "--dimension", "40", "--shifted", "20", "--rho", "0.1", "--eta", "0.2"),
        *("--interference", "0.1", "--length", "40", "--prompts", "5"),
    ),
    "plan": ("plan", "{in}/plan.yaml"),
    "train": ("train", "{in}/train.yaml", "--out", "out"),
    "reproduce": ("reproduce", "fig5", "--preset", "smoke", "--out", "out"),
    "claims": ("claims", "--out", "{in}/ledger"),
    "score": ("score", "--model", "{in}/model", "--pool", "{in}/pool.jsonl", "--out", "out"),
    "select": (
        *("select", "--scores", "{in}/scores", "--target", "{in}/target.jsonl", "--rl-size", "0"),
        *("--method", "filters", "--sft-size", "2", "--unaligned", "0", "--out", "out"),
    ),
    "posttrain": (
        *("posttrain", "--model", "{in}/model", "--data", "{in}/pool.jsonl", "--stage", "sft"),
        *("--out", "out"),
    ),
    "compare": (
        *("compare", "--scores", "{in}/scores", "--target", "{in}/target.jsonl", "--methods", "longest"),
        *("--budget", "2", "--out", "out"),
    ),
    "explore": ("explore", "--port", "0"),
    "samples": ("samples", "--out", "out"),
}
"""A good command line of each command."""

# --- files that cannot be read, wherever a command takes one ------------------------------------------------

LONG = "n" * 300
BYTES = {
    "empty": b"",
    "blank": b" \n\n",
    "binary": bytes(range(256)) * 8,
    "UTF-16": "a: 1\n".encode("utf-16"),
    "latin-1": "name: Gau\xdf\n".encode("latin-1"),
    "nested": b"[" * 5000 + b"]" * 5000,
    "long number": b"[" + b"9" * 5000 + b"]",
    "cut": b'{"a": [1, 2',
    "null characters": b"\0\0\0\0",
}
UNREADABLE = ("missing", "below a file", "folder", "pipe", "device", "loop", "long name", "null", "forbidden")


def make_bad(kind: str, path: Path) -> str:
    """Make a bad file of this kind at ``path``; what a command is given to name it."""
    if kind in BYTES:
        path.write_bytes(BYTES[kind])
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "forbidden":
        path.write_bytes(b"a: 1\n")
    elif kind == "below a file":
        path = path.parent / "plan.yaml" / path.name
    elif kind == "long name":
        path = path.with_name(LONG + path.suffix)
    elif kind == "null":
        path = path.with_name("a\0b" + path.suffix)
    return str(path)


@dataclass(frozen=True)
class Place:
    """Where a command takes a file: its suffix and the command line around it."""

    name: str
    suffix: str
    arguments: Callable[[str], tuple[str, ...]]
    said: str


def _replaced(command: str, old: str) -> Callable[[str], tuple[str, ...]]:
    return lambda path: tuple(path if part == old else part for part in BASE[command])


PLACES = [
    Place("plan SHIFT.yaml", ".yaml", _replaced("plan", "{in}/plan.yaml"), "config: "),
    Place("train CONFIG.yaml", ".yaml", _replaced("train", "{in}/train.yaml"), "config: "),
    Place("score --pool", ".jsonl", _replaced("score", "{in}/pool.jsonl"), "pool: "),
    Place("score --pool parquet", ".parquet", _replaced("score", "{in}/pool.jsonl"), "pool: "),
    Place(
        "score --completions",
        ".jsonl",
        lambda path: (*BASE["score"], "--completions", path, "--verifier", "exact"),
        "completions: ",
    ),
    Place("posttrain --data", ".jsonl", _replaced("posttrain", "{in}/pool.jsonl"), "data: "),
    Place("select --target", ".jsonl", _replaced("select", "{in}/target.jsonl"), "target: "),
    Place("compare --target", ".jsonl", _replaced("compare", "{in}/target.jsonl"), "target: "),
    Place("select --reference", ".jsonl", lambda path: (*BASE["select"], "--reference", path), "reference: "),
]


def _file_cases() -> Iterator[Case]:
    for place in PLACES:
        for kind in (*UNREADABLE, *BYTES):
            name = f"{place.name}: {kind}"
            yield Case(name, place.arguments(name), place.said, name if kind == "forbidden" else "")
    for kind in (*UNREADABLE, *BYTES):
        name = f"plan delta.npy: {kind}"
        yield Case(
            name, ("plan", f"{{in}}/{_slug(name)}.yaml"), "delta: ", name if kind == "forbidden" else ""
        )
    for kind in ("folder", "pipe", "device", "loop", "forbidden", *BYTES):
        name = f"claims.json: {kind}"
        yield Case(
            name,
            ("claims", "--out", f"{{in}}/{_slug(name)}"),
            "out: ",
            name if kind == "forbidden" else "",
        )


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


# --- content ---------------------------------------------------------------------------------------------


def _content_cases() -> Iterator[Case]:
    for name, (_, said) in PLANS.items():
        yield Case(f"plan: {name}", ("plan", f"{{in}}/plan-{_slug(name)}.yaml"), said)
    for name, (_, said) in TRAINS.items():
        yield Case(f"train: {name}", ("train", f"{{in}}/train-{_slug(name)}.yaml", "--out", "out"), said)
    for name, (_, said) in {**LEDGERS, **LEDGER_TEXTS}.items():
        yield Case(f"claims: {name}", ("claims", "--out", f"{{in}}/ledger-{_slug(name)}"), said)
    for name, said in ARRAYS.items():
        yield Case(f"plan: array {name}", ("plan", f"{{in}}/array-{name}.yaml"), "sigma0: got")
        yield Case(f"train: array {name}", ("train", f"{{in}}/array-{name}-train.yaml", "--out", "out"), said)


# --- options -----------------------------------------------------------------------------------------------

NOT_NUMBERS = ("", "abc", "None", "nan", "inf", "-inf", "1,5", "20%", "0x1f", "9" * 5000, "[1]", "\ud800")


def _option_cases() -> Iterator[Case]:
    """Every option of every command that takes a number, whatever commands there are."""
    commands = next(a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    for command, parser in commands.choices.items():
        for action in parser._actions:
            if action.type not in (integer, number):
                continue
            option = action.option_strings[0]
            for text in (*NOT_NUMBERS, *(("1.5", "1e400") if action.type is integer else ("1e400",))):
                yield Case(f"{command} {option}={text[:9]!r}", (*BASE[command], f"{option}={text}"), option)


OUT_OF_RANGE = {
    "predict": [
        ("--dimension", "100000000000", "dimension: got 100000000000; allowed: an integer in [1, 1000000]"),
        ("--dimension", "0", "dimension: got 0"),
        ("--shifted", "41", "shifted: got 41; allowed: an integer in [0, 40]"),
        ("--prompts", "9" * 400, "prompts: got an integer of"),
        ("--prompts", "1000000000000", "prompts: got 1000000000000"),
        ("--length", "9" * 400, "length: got"),
        ("--length", "-1", "length: got -1"),
        ("--simulate", "0", "simulate: got 0"),
        ("--form", "nonsense", "form: got nonsense"),
        ("--rho", "-1", "rho: got -1"),
        ("--eta", "2", "eta: got 2"),
        ("--interference", "-0.5", "interference: got -0.5"),
    ],
    "plan": [("--plot", "out.pdf", "plot: got out.pdf")],
    "reproduce": [
        ("--seeds", "1", "seeds: got 1"),
        ("--jobs", "0", "jobs: got 0"),
        ("--preset", "huge", "preset: got huge"),
        ("--backend", "threads", "backend: got threads"),
        ("--address", "tcp://a:1", "address: got tcp://a:1"),
    ],
    "explore": [
        ("--port", "70000", "port: got 70000; allowed: an integer in [0, 65535]"),
        ("--port", "-1", "port"),
    ],
    "score": [
        ("--samples", "-1", "samples: got -1"),
        ("--samples", "2", "verifier: got none"),
        ("--temperature", "-1", "temperature: got -1"),
        ("--batch-tokens", "0", "batch-tokens: got 0"),
        ("--dtype", "int3", "dtype: got int3"),
        ("--verifier", "no.such:thing", "verifier: got no.such:thing"),
        ("--model", "{in}/none", "model: got"),
        ("--model", "{in}/plan.yaml", "model: got"),
        ("--model", "{in}/ledger", "model: got"),
        ("--model", "pool.jsonl", "model: got"),
        ("--model", LONG, "model: got"),
        ("--model", "a\0b", "model: got"),
        ("--pool", "{in}/plan.yaml", "pool: "),
    ],
    "select": [
        ("--sft-size", "many", "sft-size: got many; allowed: auto, or an integer >= 0"),
        ("--sft-size", "-1", "sft-size: got -1"),
        ("--sft-size", "9" * 5000, "sft-size: got"),
        ("--rl-size", "1.5", "rl-size: got 1.5"),
        ("--hard", "50", "hard: got 50"),
        ("--replay", "-1", "replay: got -1"),
        ("--unaligned", "2", "unaligned: got 2"),
        ("--representation", "none", "representation: got none"),
        ("--seed", "-1", "seed: got -1"),
        ("--scores", "{in}/ledger", "scores: got"),
        ("--scores", "{in}/none", "scores: got"),
        ("--scores", "{in}/plan.yaml", "scores: got"),
        ("--scores", LONG, "scores: got"),
        ("--scores", "a\0b", "scores: got"),
    ],
    "posttrain": [
        ("--stage", "ppo", "stage: got ppo"),
        ("--steps", "0", "steps: got 0"),
        ("--batch", "-1", "batch: got -1"),
        ("--lora-rank", "-1", "lora_rank: got -1"),
        ("--learning-rate", "2", "learning_rate: got 2"),
        ("--temperature", "0", "temperature: got 0"),
        ("--max-tokens", "0", "max_tokens: got 0"),
        ("--samples", "1", "samples: got 1"),
        ("--seed", "-1", "seed: got -1"),
        ("--verifier", "exact", "verifier: got exact"),
        ("--model", "{in}/none", "model: got"),
        ("--model", "{in}/ledger", "model: got"),
    ],
    "compare": [
        ("--methods", "rds,nearest", "methods: got nearest (did you mean hardest?); allowed: random, "),
        ("--methods", "", "methods: got ''"),
        ("--methods", "rds,longest,rds", "methods: got rds twice"),
        ("--budget", "0", "budgets: got 0"),
        ("--budgets", "2,4", "budget: got --budget and --budgets"),
        ("--seeds", "1", "seeds: got 1; allowed: an integer in [2, 1000]"),
        ("--seed", "-1", "seed: got -1"),
        ("--steps", "0", "steps: got 0"),
        ("--lora-rank", "-1", "lora_rank: got -1"),
        ("--evaluate-every", "0", "evaluate_every: got 0"),
        ("--scores", "{in}/none", "scores: got"),
    ],
    "claims": [("--out", "none", "out: got none")],
    "train": [("--out", "{in}/plan.yaml", "out: got"), ("--unknown", "1", "--unknown")],
}
OUTS = {
    "a file": "{in}/plan.yaml",
    "below a file": "{in}/plan.yaml/below",
    "null": "a\0b",
    "long name": LONG,
    "a system folder": "/proc/self",
}


def _line_cases() -> Iterator[Case]:
    for command, entries in OUT_OF_RANGE.items():
        for option, value, said in entries:
            yield Case(f"{command} {option} {value[:20]}", (*BASE[command], f"{option}={value}"), said)
    for command in ("reproduce", "train", "score", "select", "posttrain", "compare", "samples"):
        for name, value in OUTS.items():
            yield Case(f"{command} --out: {name}", (*BASE[command], f"--out={value}"), "out: got")
    yield Case("no command", (), "COMMAND")
    yield Case("an unknown command", ("dose",), "dose")
    yield Case(
        "a target", ("reproduce", "[/red]fig9", "--preset", "smoke", "--out", "out"), "target: got [/red]fig9"
    )
    for command, line in BASE.items():
        if command not in ("reproduce", "claims", "explore", "samples"):
            yield Case(f"{command} alone", line[:1], "required")
        yield Case(f"{command} --nonsense", (*line, "--nonsense"), "unknown option --nonsense")


CASES = [*_file_cases(), *_content_cases(), *_option_cases(), *_line_cases()]


def write_inputs(folder: Path) -> dict[str, str]:
    """Every file that the cases name but the model and its scores; name of a bad file -> its path."""
    bad = {}
    (folder / "plan.yaml").write_text(PLAN + "interference: 0.1\n")
    (folder / "train.yaml").write_text(TRAIN)
    (folder / "pool.jsonl").write_text(
        "".join(json.dumps({**ROW, "prompt": f"a{i}"}) + "\n" for i in range(12))
    )
    targets = [{"prompt": f"c{i}", "completion": f"{i * i}"} for i in range(8)]
    (folder / "target.jsonl").write_text("".join(json.dumps(row) + "\n" for row in targets))
    (folder / "ledger").mkdir()
    (folder / "ledger/claims.json").write_text(json.dumps([CLAIM]))
    for name, (text, _) in PLANS.items():
        (folder / f"plan-{_slug(name)}.yaml").write_text(text)
    for name, (text, _) in TRAINS.items():
        (folder / f"train-{_slug(name)}.yaml").write_text(text)
    ledgers = {name: json.dumps(document) for name, (document, _) in LEDGERS.items()}
    for name, text in {**ledgers, **{name: text for name, (text, _) in LEDGER_TEXTS.items()}}.items():
        (folder / f"ledger-{_slug(name)}").mkdir()
        (folder / f"ledger-{_slug(name)}/claims.json").write_text(text)
    write_arrays(folder)
    for name in ARRAYS:
        (folder / f"array-{name}.yaml").write_text(
            f"sigma0: {name}.npy\ndelta: [1, 1]\n{REST}interference: 0.1\n"
        )
        (folder / f"array-{name}-train.yaml").write_text(TRAIN.replace("[0.1, 1.0]", f"{name}.npy"))
    for place in PLACES:
        for kind in (*UNREADABLE, *BYTES):
            name = f"{place.name}: {kind}"
            bad[name] = make_bad(kind, folder / (_slug(name) + place.suffix))
    for kind in (*UNREADABLE, *BYTES):
        name = f"plan delta.npy: {kind}"
        bad[name] = make_bad(kind, folder / f"{_slug(name)}.npy")
        given = json.dumps(bad[name])
        (folder / f"{_slug(name)}.yaml").write_text(f"sigma0: [1]\ndelta: {given}\n{REST}interference: 0.1\n")
    for kind in ("folder", "pipe", "device", "loop", "forbidden", *BYTES):
        name = f"claims.json: {kind}"
        (folder / _slug(name)).mkdir()
        bad[name] = make_bad(kind, folder / _slug(name) / "claims.json")
    return bad


def command_line(case: Case, folder: Path, bad: dict[str, str]) -> list[str]:
    """The arguments of ``case`` for inputs in ``folder``; ``bad`` is what :func:`write_inputs` returned."""
    return [bad.get(part, part).replace("{in}", str(folder)) for part in case.arguments]
