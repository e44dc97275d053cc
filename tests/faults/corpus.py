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
from typing import Any

import numpy as np

from datadose.cli import _parser
from datadose.cli.common import integer, number

REST = "length: 60\neta: 0.2\nmax_prompts: 40\n"
PLAN = "sigma0: [0.1, 0.5, 1.0]\ndelta: [1.0, 0.0, 0.0]\n" + REST
TRAIN = """shift: {sigma0: [0.1, 1.0], delta: [1.0, 0.0]}
pretrain: {length: 10}
stages: [{stage: sft, length: 10, prompts: 8, steps: 3}]
test: {length: 10, prompts: 16}
"""
CLAIM = {"id": "thm-4.1", "statement": "text", "value": 1.0, "threshold": None, "verdict": "holds"}
ROW = {"prompt": "a", "completion": "b"}


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
        *("--sft-size", "2", "--unaligned", "0", "--out", "out"),
    ),
    "posttrain": (
        *("posttrain", "--model", "{in}/model", "--data", "{in}/pool.jsonl", "--stage", "sft"),
        *("--out", "out"),
    ),
    "explore": ("explore", "--port", "0"),
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
    Place("plan SHIFT.yaml", ".yaml", _replaced("plan", "{in}/plan.yaml"), "config: got"),
    Place("train CONFIG.yaml", ".yaml", _replaced("train", "{in}/train.yaml"), "config: got"),
    Place("score --pool", ".jsonl", _replaced("score", "{in}/pool.jsonl"), "pool: got"),
    Place("score --pool parquet", ".parquet", _replaced("score", "{in}/pool.jsonl"), "pool: got"),
    Place(
        "score --completions",
        ".jsonl",
        lambda path: (*BASE["score"], "--completions", path, "--verifier", "exact"),
        "completions: got",
    ),
    Place("posttrain --data", ".jsonl", _replaced("posttrain", "{in}/pool.jsonl"), "data: got"),
    Place("select --target", ".jsonl", _replaced("select", "{in}/target.jsonl"), "target: got"),
    Place(
        "select --reference", ".jsonl", lambda path: (*BASE["select"], "--reference", path), "reference: got"
    ),
]


def _file_cases() -> Iterator[Case]:
    for place in PLACES:
        for kind in (*UNREADABLE, *BYTES):
            name = f"{place.name}: {kind}"
            yield Case(name, place.arguments(name), place.said, name if kind == "forbidden" else "")
    for kind in (*UNREADABLE, *BYTES):
        name = f"plan delta.npy: {kind}"
        yield Case(
            name, ("plan", f"{{in}}/{_slug(name)}.yaml"), "delta: got", name if kind == "forbidden" else ""
        )
    for kind in ("folder", "pipe", "device", "loop", "forbidden", *BYTES):
        name = f"claims.json: {kind}"
        yield Case(
            name,
            ("claims", "--out", f"{{in}}/{_slug(name)}"),
            "out: got",
            name if kind == "forbidden" else "",
        )


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


# --- content ---------------------------------------------------------------------------------------------

PLANS: dict[str, tuple[str, str]] = {
    "unknown key": (PLAN + "interference: 0.1\nlenght: 4\n", "did you mean length?"),
    "key twice": (PLAN + "interference: 0.1\neta: 0.3\n", "line 7; allowed: well-formed YAML (the key eta"),
    "key twice in a section": (PLAN + "budget: {cap: 1, cap: 2}\n", "the key cap is given twice"),
    "both data": (PLAN + "interference: 0.1\nsources: []\n", "sources: got [];"),
    "both kinds": (
        PLAN + "interference: 0.1\nsources: [{name: a, covariance: [1, 1, 1], size: 4}]\n",
        "interference and sources: got both; allowed: exactly one of",
    ),
    "no data": (PLAN, "interference and sources: got neither"),
    "a pipeline": (TRAIN, "looks like a file of `datadose train`"),
    "a list": ("- 1\n- 2\n", "which holds a list"),
    "a number": ("3\n", "which holds a int"),
    "date": (PLAN + "interference: 2026-13-45\n", "line 6"),
    "a real date": (PLAN + "interference: 2026-11-28\n", "interference: got 2026-11-28; allowed: a finite"),
    "long number": (PLAN + "interference: " + "9" * 5000 + "\n", "line 6"),
    "large number": (PLAN.replace("40", "9" * 400) + "interference: 0.1\n", "max_prompts: got"),
    "percent": (
        PLAN.replace("0.2", "20%") + "interference: 0.1\n",
        "eta: got 20%; allowed: a finite number in (0, 2)",
    ),
    "eta nan": (PLAN.replace("0.2", ".nan") + "interference: 0.1\n", "eta: got nan"),
    "eta none": (
        PLAN.replace("0.2", "") + "interference: 0.1\n",
        "eta: got nothing; allowed: a finite number",
    ),
    "eta list": (PLAN.replace("0.2", "[0.2]") + "interference: 0.1\n", "eta: got [0.2]"),
    "length text": (
        PLAN.replace("60", "long") + "interference: 0.1\n",
        "length: got long; allowed: an integer",
    ),
    "length a half": (PLAN.replace("60", "60.5") + "interference: 0.1\n", "length: got 60.5"),
    "length zero": (PLAN.replace("60", "0") + "interference: 0.1\n", "length: got 0"),
    "interference below 0": (PLAN + "interference: -1\n", "interference: got -1"),
    "interference infinite": (PLAN + "interference: .inf\n", "interference: got inf"),
    "steps true": (PLAN + "interference: 0.1\nsteps: []\n", "steps: got []"),
    "reward": (
        PLAN + "interference: 0.1\nreward: sparse\n",
        "reward: got sparse; allowed: dense, verifiable",
    ),
    "choose_eta": (
        PLAN + "interference: 0.1\nchoose_eta: maybe\n",
        "choose_eta: got maybe; allowed: true or false",
    ),
    "budget beside sources": (
        PLAN + "budget: {cap: 1}\nsources: [{name: a, covariance: [1, 1, 1], size: 4}]\n",
        "budget: got one beside sources",
    ),
    "source without a name": (
        PLAN + "sources: [{covariance: [1], size: 1}]\n",
        "sources.0.name: got nothing",
    ),
    "source named list": (
        PLAN + "sources: [{name: [], covariance: [1], size: 1}]\n",
        "sources.0.name: got []",
    ),
    "source of another dimension": (
        PLAN + "sources: [{name: '[/red]x', covariance: [1], size: 1}]\n",
        "covariance of source [/red]x: got shape (1,)",
    ),
    "spectrum with text": (
        PLAN.replace("0.5", "half") + "interference: 0.1\n",
        "sigma0.1: got half; allowed: a finite",
    ),
    "spectrum with nan": (
        PLAN.replace("0.5", ".nan") + "interference: 0.1\n",
        "sigma0: got nan at index (1,)",
    ),
    "spectrum below 0": (
        PLAN.replace("0.5", "-0.5") + "interference: 0.1\n",
        "sigma0: got smallest eigenvalue",
    ),
    "empty spectrum": ("sigma0: []\ndelta: []\n" + REST + "interference: 0.1\n", "sigma0: got shape (0,)"),
    "spectra of two sizes": (
        "sigma0: [1]\ndelta: [1, 2]\n" + REST + "interference: 0.1\n",
        "delta: got shape (2,)",
    ),
    "a number as spectrum": (
        "sigma0: 5\ndelta: [1]\n" + REST + "interference: 0.1\n",
        "sigma0: got 5; allowed: a list",
    ),
    "blocks without end": (
        "sigma0: {blocks: [[1, 1000000000000]]}\ndelta: [1]\n" + REST + "interference: 0.1\n",
        "sigma0.blocks.0.1: got 1000000000000; allowed: an integer in [1, 1e+06]",
    ),
    "many large blocks": (
        "sigma0: {blocks: [[1, 1000000], [2, 1000000]]}\ndelta: [1]\n" + REST + "interference: 0.1\n",
        "sigma0: got dimension 2,000,000; allowed: a spectrum of dimension at most 1,000,000",
    ),
    "empty blocks": (
        "sigma0: {blocks: []}\ndelta: [1]\n" + REST + "interference: 0.1\n",
        "sigma0: got shape (0,)",
    ),
    "a misspelt block": (
        "sigma0: {block: [[1, 2]]}\ndelta: [1]\n" + REST,
        "sigma0.block: got an unknown key (did you",
    ),
    "a block of text": ("sigma0: {blocks: [[1, x]]}\ndelta: [1]\n" + REST, "sigma0.blocks.0.1: got x"),
    "deep lists": ("sigma0: " + "[" * 5000 + "]" * 5000 + "\n" + REST, "nested more than 12 deep"),
    "deep mappings": ("sigma0: " + "{a: " * 5000 + "}" * 5000 + "\n" + REST, "nested more than 12 deep"),
    "references": (
        "a: &a ["
        + "1," * 100
        + "]\n"
        + "".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 20)}]\n" for i in range(9)
        ),
        "more than 2,000,000 values",
    ),
    "a reference to itself": ("sigma0: &a [1, *a]\n" + REST, "a reference to what it stands in"),
    "an unknown reference": ("sigma0: *a\n" + REST, "found undefined alias"),
    "a tag": ("sigma0: !!python/object/apply:os.system ['echo']\n" + REST, "line 1"),
    "a list as key": ("? [1]\n: 2\n" + PLAN, "line 1"),
    "a number as key": (PLAN + "1: 2\n", "1: got an unknown key"),
    "two documents": (PLAN + "---\n" + PLAN, "line 6"),
    "tabs": ("sigma0: [1]\n\tdelta: [1]\n", "line 2"),
    "control characters": ("sigma0: \x07\n", "config: got"),
    "path with a null": ('sigma0: "a\\0b.npy"\ndelta: [1]\n' + REST + "interference: 0.1\n", "sigma0: got"),
    "path to nowhere": ("sigma0: none.npy\ndelta: [1]\n" + REST + "interference: 0.1\n", "sigma0: got"),
    "path to /dev/zero": (
        "sigma0: /dev/zero\ndelta: [1]\n" + REST + "interference: 0.1\n",
        "which is a device",
    ),
}

TRAINS: dict[str, tuple[str, str]] = {
    "a plan": (PLAN + "interference: 0.1\n", "looks like a file of `datadose plan`"),
    "no stages": (TRAIN.replace("stages:", "stage:"), "stage: got an unknown key (did you mean stages?)"),
    "seeds many": (TRAIN + "seeds: many\n", "seeds: got many; allowed: an integer"),
    "seeds a trillion": (TRAIN + "seeds: 1000000000000\n", "seeds: got 1000000000000"),
    "stage": (TRAIN.replace("sft", "ppo"), "stages.0.stage: got ppo; allowed: sft, outcome, rl"),
    "two lengths of training": (
        TRAIN.replace("steps: 3", "steps: 3, epochs: 2"),
        "epochs and steps: got both",
    ),
    "no length of training": (TRAIN.replace(", steps: 3", ""), "stages.0.epochs and steps: got neither"),
    "prompts": (
        TRAIN.replace("prompts: 8", "prompts: stale"),
        "stages.0.prompts: got stale; allowed: an integer",
    ),
    "rate": (TRAIN.replace("steps: 3", "steps: 3, learning_rate: fast"), "stages.0.learning_rate: got fast"),
    "batch": (
        TRAIN.replace("steps: 3", "steps: 3, batch: 9"),
        "stages.0.batch: got 9; allowed: at most prompts, 8",
    ),
    "key twice": (TRAIN.replace("steps: 3", "steps: 3, steps: 4"), "the key steps is given twice"),
    "blocks": (
        TRAIN.replace("[0.1, 1.0]", "{blocks: [[1, 99999999]]}"),
        "shift.sigma0.blocks.0.1: got 99999999",
    ),
    "curriculum": (TRAIN.replace("{length: 10}", "{length: 10, curriculum: {}}"), "pretrain.curriculum: got"),
    "theorem": (
        TRAIN.replace("steps: 3", "steps: 3, learning_rate: theorem"),
        "stages.0.learning_rate: got theorem",
    ),
}

LEDGERS: dict[str, tuple[Any, str]] = {
    "an object": (CLAIM, "a list of claims"),
    "a number": (3, "a list of claims"),
    "texts": (["thm-4.1"], "entry 1"),
    "a key is missing": ([CLAIM, {"id": "thm-4.1"}], "entry 2 without statement"),
    "a text value": ([{**CLAIM, "value": "1.0"}], "entry 1: value 1.0; allowed: a number or null"),
    "a true value": ([{**CLAIM, "threshold": True}], "threshold True"),
    "a list as id": ([{**CLAIM, "id": []}], "entry 1: id []; allowed: text"),
    "a verdict of none": ([{**CLAIM, "verdict": None}], "entry 1: verdict None"),
    "an interval of one": ([{**CLAIM, "interval": [1]}], "interval [1]"),
    "an interval of texts": ([{**CLAIM, "interval": ["a", "b"]}], "interval a"),
    "a note of numbers": ([{**CLAIM, "note": 3}], "entry 1: note 3"),
}
LEDGER_TEXTS: dict[str, tuple[str, str]] = {
    "infinite": (json.dumps([CLAIM]).replace("1.0", "1e999"), "JSON numbers"),
    "NaN": (json.dumps([CLAIM]).replace("1.0", "NaN"), "JSON numbers"),
    "half a character": (json.dumps([CLAIM]).replace("text", "\\ud800"), "half a character"),
    "key twice": (json.dumps([CLAIM]).replace('"value"', '"id": "b", "value"'), "the key 'id' twice"),
    "a comma too many": ("[\n{},\n]", "line 3"),
}


def _arrays(folder: Path) -> None:
    """The .npy files that a plan may name, none of them a covariance."""
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(folder / "texts.npy", np.array(["1.0", "2.0"]))
    np.save(folder / "complex.npy", np.array([1.0, 1j]))
    np.save(folder / "truths.npy", np.array([True, False]))
    np.save(folder / "cube.npy", np.ones((2, 2, 2)))
    np.save(folder / "scalar.npy", np.float64(3.0))
    np.save(folder / "oblong.npy", np.ones((2, 3)))
    np.save(folder / "asymmetric.npy", np.array([[1.0, 0.5], [0.0, 1.0]]))
    np.save(folder / "records.npy", np.zeros(2, dtype=[("a", "f8")]))
    np.savez(folder / "zip.npz", a=np.ones(2))
    (folder / "zip.npz").rename(folder / "zip.npy")
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%s,), }"
    shapes = {"huge": b"1000000000000", "longer": b"64", "negative": b"-3", "deep": b"(" * 4000 + b")" * 4000}
    for name, shape in shapes.items():
        text = header % shape + b"\n"
        size = len(text).to_bytes(4, "little")
        (folder / f"{name}.npy").write_bytes(b"\x93NUMPY\x02\x00" + size + text + b"\0" * 24)
    (folder / "header.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': import ")
    (folder / "magic.npy").write_bytes(b"\x93NUMPY")


ARRAYS = {
    **dict.fromkeys(
        ("objects", "huge", "longer", "negative", "deep", "header", "magic", "zip"), "a readable .npy file"
    ),
    **dict.fromkeys(("texts", "complex", "truths", "records"), "real numbers"),
    **dict.fromkeys(("cube", "scalar", "oblong", "asymmetric"), "a spectrum of shape (d,)"),
}


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
        ("--pool", "{in}/plan.yaml", "pool: got"),
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
    for command in ("reproduce", "train", "score", "select", "posttrain"):
        for name, value in OUTS.items():
            yield Case(f"{command} --out: {name}", (*BASE[command], f"--out={value}"), "out: got")
    yield Case("no command", (), "COMMAND")
    yield Case("an unknown command", ("dose",), "dose")
    yield Case(
        "a target", ("reproduce", "[/red]fig9", "--preset", "smoke", "--out", "out"), "target: got [/red]fig9"
    )
    for command, line in BASE.items():
        if command not in ("reproduce", "claims", "explore"):
            yield Case(f"{command} alone", line[:1], "required")
        yield Case(f"{command} --nonsense", (*line, "--nonsense"), "unrecognized arguments: --nonsense")


CASES = [*_file_cases(), *_content_cases(), *_option_cases(), *_line_cases()]


def write_inputs(folder: Path) -> dict[str, str]:
    """Every file that the cases name but the model and its scores; name of a bad file -> its path."""
    bad = {}
    (folder / "plan.yaml").write_text(PLAN + "interference: 0.1\n")
    (folder / "train.yaml").write_text(TRAIN)
    (folder / "pool.jsonl").write_text(
        "".join(json.dumps({**ROW, "prompt": f"a{i}"}) + "\n" for i in range(12))
    )
    targets = [{"prompt": f"c{i}", "completion": f"{i * i}"} for i in range(6)]
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
    _arrays(folder)
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
