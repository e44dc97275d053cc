"""Files whose content is bad (plans, trainings, ledgers, arrays), and what their line of error must say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

REST = "length: 60\neta: 0.2\nmax_prompts: 40\n"
PLAN = "sigma0: [0.1, 0.5, 1.0]\ndelta: [1.0, 0.0, 0.0]\n" + REST
TRAIN = """shift: {sigma0: [0.1, 1.0], delta: [1.0, 0.0]}
pretrain: {length: 10}
stages: [{stage: sft, length: 10, prompts: 8, steps: 3}]
test: {length: 10, prompts: 16}
"""
CLAIM = {"id": "thm-4.1", "statement": "text", "value": 1.0, "threshold": None, "verdict": "holds"}
ROW = {"prompt": "a", "completion": "b"}

PLANS: dict[str, tuple[str, str]] = {
    "unknown key": (PLAN + "interference: 0.1\nlenght: 4\n", "did you mean length?"),
    "key twice": (PLAN + "interference: 0.1\neta: 0.3\n", "line 7; allowed: well-formed YAML (the key eta"),
    "key twice in a section": (PLAN + "budget: {cap: 1, cap: 2}\n", "the key cap is given twice"),
    "both data": (PLAN + "interference: 0.1\nsources: []\n", "sources: got [];"),
    "both kinds": (
        PLAN + "interference: 0.1\nsources: [{name: a, covariance: [1, 1, 1], size: 4}]\n",
        "interference and sources: both are given; keep one of them",
    ),
    "no data": (PLAN, "interference and sources: neither is given"),
    "a pipeline": (TRAIN, "looks like a file of `datadose train`"),
    "a list": ("- 1\n- 2\n", "holds a list, not keys"),
    "a number": ("3\n", "holds a int, not keys"),
    "date": (PLAN + "interference: 2026-13-45\n", "line 6"),
    "a real date": (PLAN + "interference: 2026-11-28\n", "interference: got 2026-11-28; allowed: a finite"),
    "long number": (PLAN + "interference: " + "9" * 5000 + "\n", "line 6"),
    "large number": (PLAN.replace("40", "9" * 400) + "interference: 0.1\n", "max_prompts: got"),
    "percent": (
        PLAN.replace("0.2", "20%") + "interference: 0.1\n",
        "eta: got 20% (write 0.2); allowed: a finite number in (0, 2)",
    ),
    "eta nan": (PLAN.replace("0.2", ".nan") + "interference: 0.1\n", "eta: got nan"),
    "eta none": (
        PLAN.replace("0.2", "") + "interference: 0.1\n",
        "eta: is missing; required: a finite number",
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
        "sources.0.name: is missing",
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
        "sigma0.block: unknown key; did you mean blocks?",
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
    "a number as key": (PLAN + "1: 2\n", "1: unknown key"),
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
    "no stages": (TRAIN.replace("stages:", "stage:"), "stage: unknown key; did you mean stages?"),
    "seeds many": (TRAIN + "seeds: many\n", "seeds: got many; allowed: an integer"),
    "seeds a trillion": (TRAIN + "seeds: 1000000000000\n", "seeds: got 1000000000000"),
    "stage": (TRAIN.replace("sft", "ppo"), "stages.0.stage: got ppo; allowed: sft, outcome, rl"),
    "two lengths of training": (
        TRAIN.replace("steps: 3", "steps: 3, epochs: 2"),
        "epochs and steps: both are given",
    ),
    "no length of training": (TRAIN.replace(", steps: 3", ""), "stages.0.epochs and steps: neither is given"),
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
    "muon": (TRAIN.replace("{length: 10}", "{length: 10, optimiser: muon}"), "pretrain.optimiser: got"),
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


def write_arrays(folder: Path) -> None:
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
