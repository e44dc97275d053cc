"""What is said of what users get wrong: each kind of mistake, and the line that answers it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from datadose import errors
from datadose.errors import require_choice, require_extra, require_number
from datadose.llm.run_summary import summary
from datadose.llm.selection import SelectionConfig
from helpers.command import PREDICT, environment, run_main, with_option
from helpers.contents import PLAN, TRAIN
from helpers.synthetic import make

BOTH = PLAN + "interference: 0.1\nsources: [{name: a, covariance: [1, 1, 1], size: 4}]\n"
FILES = {
    "plan.yaml": PLAN + "interference: 0.1\n",
    "train.yaml": TRAIN,
    "both.yaml": BOTH,
    "neither.yaml": PLAN,
    "key.yaml": PLAN + "interference: 0.1\nlenght: 4\n",
    "percent.yaml": PLAN.replace("0.2", "20%") + "interference: 0.1\n",
    "comma.yaml": PLAN.replace("0.2", "0,2") + "interference: 0.1\n",
    "share.yaml": PLAN + "interference: 0.1\ntraining: best\nkeep: 50\n",
    "word.yaml": PLAN + "interference: 0.1\nreward: verifyable\n",
    "missing.yaml": PLAN.replace("length: 60\n", "") + "interference: 0.1\n",
    "empty.yaml": "",
}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("plan both.yaml", "interference and sources: both are given; keep one of them"),
        ("plan neither.yaml", "interference and sources: neither is given; give one of them"),
        ("plan key.yaml", "lenght: unknown key; did you mean length? allowed: keys budget"),
        ("plan percent.yaml", "eta: got 20% (write 0.2); allowed: a finite number in (0, 2)"),
        ("plan comma.yaml", "eta: got 0,2 (write 0.2); allowed: a finite number in (0, 2)"),
        (
            "plan share.yaml",
            "keep: got 50 (a share: write 0.5 for 50 percent); allowed: a finite number in [0, 1]",
        ),
        ("plan word.yaml", "reward: got verifyable (did you mean verifiable?); allowed: dense, verifiable"),
        ("plan missing.yaml", "length: is missing; required: an integer"),
        ("plan empty.yaml", "empty.yaml is empty; required: keys sigma0, delta, length, eta, max_prompts"),
        ("plan .", ". is a folder; allowed: a YAML file"),
        (
            "plan train.yaml",
            "train.yaml looks like a file of `datadose train`: run `datadose train train.yaml`",
        ),
        ("train plan.yaml", "plan.yaml looks like a file of `datadose plan`: run `datadose plan plan.yaml`"),
        ("predit", "got 'predit' (did you mean predict?); allowed: reproduce, claims"),
        ("plan plan.yaml --jsn", "unknown option --jsn (did you mean --json?)"),
        ("reproduce figg1 --preset smoke", "target: got figg1 (did you mean fig1?); allowed: fig1, fig2"),
        ("reproduce fig1 --preset quik", "preset: got quik (did you mean quick?); allowed: smoke, quick"),
        (" ".join(with_option("--form", "exct")), "form: got exct (did you mean exact?); allowed: exact"),
        (" ".join(with_option("--rho", "10%")), "argument --rho: got '10%' (write 0.1); allowed: a finite"),
        # Where an option that is needed is misspelt, it is not said to be missing.
        (" ".join(PREDICT).replace("--eta", "--eat"), "unknown option --eat (did you mean --eta?)"),
    ],
)
def test_a_mistake_is_answered_with_what_may_be_meant(
    arguments: str,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    assert run_main(arguments.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert line in shown.err
    assert shown.err.count("\n") == 1


def test_a_share_in_percent_a_method_and_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.InputError, match=r"hard: got 50 \(a share: write 0.5 for 50 percent\)"):
        SelectionConfig(hard=50)
    with pytest.raises(errors.InputError, match=r"got embeding \(did you mean embedding\?\)"):
        require_choice("representation", "embeding", ["sketch", "embedding"])
    # Nothing is guessed where nothing is near.
    with pytest.raises(errors.InputError, match=r"eta: got abc; allowed"):
        require_number("eta", "abc", 0, 2)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    wanted = r"^dash: is needed here and not installed: pip install 'datadose\[explore\]'$"
    with pytest.raises(errors.InputError, match=wanted):
        require_extra("explore", "dash")


def test_help_lists_the_keys_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    for command, keys in (
        ("plan", ("sigma0: ", "sources.N.label_noise: a finite number >= 0 (default 0.0)", "costs.total: ")),
        ("train", ("stages.N.stage: sft, outcome, rl (required)", "test.thinking_steps: ", "seeds: ")),
    ):
        assert run_main([command, "--help"]) == 0
        shown = capsys.readouterr().out
        assert all(f"\n  {key}" in shown for key in keys)


def test_help_lists_the_methods_of_select(capsys: pytest.CaptureFixture[str]) -> None:
    from datadose.llm.selection.config import DEFAULT, METHOD_NAMES

    assert run_main(["select", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{', '.join(METHOD_NAMES[:-1])} or {METHOD_NAMES[-1]} ({DEFAULT})" in shown


WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, NoTorch())
from datadose.cli import main
import datadose.explore.app
import datadose.llm.selection
for line, code in ((PREDICT, 0), ("plan plan.yaml", 0), ("train --help", 0),
                   ("reproduce fig1 --preset smoke --jobs 1 --out results", 0),
                   ("select --scores scores --target target --rl-size 0 --sft-size 2 --out chosen", 0),
                   ("train train.yaml --out run", 2)):
    try:
        found = main(line.split())
    except SystemExit as stop:
        found = stop.code
    assert found == code, (line, found)
"""


@pytest.mark.long
def test_formulas_the_planner_the_explorer_and_selection_need_no_torch(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    make(60, 0).saved(tmp_path / "scores")
    make(30, 1, (0.0, 1.0, 0.0, 0.0), name="target").saved(tmp_path / "target")
    code = WITHOUT_TORCH.replace("PREDICT", repr(" ".join(PREDICT)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results/report.html").is_file()
    assert "train: error: torch is needed here and not installed: pip install torch" in done.stderr


def test_a_run_is_told_in_its_losses_or_its_rewards_and_groups() -> None:
    sft = {"history": [{"step": i, "loss": 3.0 - i / 10} for i in range(20)]}
    assert summary(sft) == ["loss, nats a token: 2.95 in the first 2 steps, 1.15 in the last"]
    groups = [
        {"step": i, "loss": 0.0, "reward": i / 4, "frac_reward_zero_std": float(i < 2)} for i in range(4)
    ]
    told = summary({"history": groups, "verifier_errors": {"timeout": 3}, "unfinished": 1})
    assert told[0] == "reward: 0 in the first step, 0.75 in the last"
    assert told[1].startswith(
        "groups without signal (all passed or all failed): 50%; 2 of 4 steps had no other"
    )
    assert "3 completions without a verdict" in told[2]
    assert summary({"runs": ["a", "b"]}) == []
