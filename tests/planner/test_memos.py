"""The decision memos say what the planner says today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datadose.planner import Plan, plan_file
from datadose.planner.stage_choice import Stage, show_pass_rate

ROOT = Path(__file__).parents[2]


def memo(name: str) -> tuple[Plan, str]:
    return plan_file(ROOT / "configs" / "memos" / f"{name}.yaml"), (
        ROOT / "docs/memos" / f"{name}.md"
    ).read_text()


def quoted(text: str, *numbers: str) -> None:
    for number in numbers:
        assert number in text, number


def test_rare_skill(tmp_path: Path) -> None:
    found, text = memo("rare_skill")
    assert found.sources is not None
    assert found.stages is not None
    assert {s.name: s.prompts for s in found.sources} == {
        "experts": 60, "annotators": 600, "synthetic": 0, "web": 0,
    }  # fmt: skip
    assert found.stages.stage == "sft"
    rate = found.sources[1].noisy_per_clean
    assert rate is not None
    assert found.sources[2].noisy_per_clean is None
    config = (ROOT / "configs" / "memos" / "rare_skill.yaml").read_text()
    (tmp_path / "all.yaml").write_text(config.replace("max_prompts: 1000", "max_prompts: 8660"))
    everything = plan_file(tmp_path / "all.yaml")
    quoted(
        text,
        f"**{found.predicted_error:.3f}**",
        f"| {found.error_before:.3f} |",
        f"| {everything.error_at_max_prompts:.3f} |",
        f"{rate:.2f} annotators",
        f"costs {-(found.sources[2].marginal_value or 0):.4f}",
        f"promises {found.stages.of('rl').error:.2f}",
    )


def test_too_much_sft() -> None:
    found, text = memo("too_much_sft")
    assert found.stages is not None
    assert found.near_optimal == (0, 85)
    curve = dict(found.curve)
    quoted(
        text,
        f"best {found.prompts};",
        f"| {found.error_before:.3f} | {found.predicted_error:.3f} |",
        f"| {curve[2000]:.2f} |",
        f"promises {found.stages.of('rl').error:.3f}",
    )


def test_cut_stop_or_weigh(tmp_path: Path) -> None:
    """The three ways of the memo, each from the plan's own file with a line or two changed."""
    found, text = memo("cut_stop_or_weigh")
    config = (ROOT / "configs" / "memos" / "cut_stop_or_weigh.yaml").read_text()

    def changed(*pairs: tuple[str, str]) -> dict[str, Any]:
        new = config
        for old, other in pairs:
            assert old in new
            new = new.replace(old, other)
        (tmp_path / "changed.yaml").write_text(new)
        return plan_file(tmp_path / "changed.yaml").to_json()

    weighed = found.to_json()["stopping"]
    low, high = weighed["near_optimal_time"]
    logs, scraped = (part["weight"] for part in found.to_json()["mixture"][1:])
    assert (logs, scraped) == (1.0, pytest.approx(0.001, rel=0.05))
    cut = changed(("weights: tuned", "weights: equal"))
    assert [part["prompts"] for part in cut["mixture"]] == [150, 3000, 0]
    penalty = changed(("training: best", "training: penalty"))["penalty"]
    keep = changed(("weights: tuned", "weights: tuned\nkeep: 0.5"))["stopping"]
    bought = {part["name"]: part["prompts"] for part in found.to_json()["next_purchase"]}
    quoted(
        text,
        f"and {weighed['steps']} steps of full-batch descent, anything from {low:.0f} to {high:.0f}",
        f"**{weighed['predicted_error']:.3f}** | 0.375 | {weighed['predicted_pretraining']:.3f} |",
        f"| {weighed['error_on_all_rows']:.3f} | 0.579 |",
        f"({cut['stopping']['steps']} steps) | {cut['stopping']['predicted_error']:.3f} |",
        f"| to convergence | {cut['stopping']['error_if_converged']:.3f} |",
        f"| {penalty['predicted_error']:.3f} | |",
        f"({keep['predicted_error']:.3f} on the target, {keep['predicted_pretraining']:.3f} on Sigma0)",
        f"{bought['logs']} more from the logs and {bought['scraped']} scraped ones",
    )
    assert bought["curated"] == 0


def rows(text: str) -> dict[str, list[str]]:
    """The memo's table of stages: name -> predicted and measured pass rate, predicted and measured error."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return {name: rest for name, *rest in cells if len(rest) == 4}


@pytest.mark.filterwarnings("error")
def test_too_hard_for_rl() -> None:
    """What is forecast is within a fifth (a pass rate: or 0.05) of what the memo's own runs measured."""
    found, text = memo("too_hard_for_rl")
    assert found.stages is not None
    assert found.stages.stage == "sft then rl"
    assert not found.stages.of("rl").has_signal
    quoted(text, f"= {found.spectral_radius:.1f}$")
    names: dict[str, Stage] = {
        "none": "none", "RL": "rl", "SFT on 8": "sft", "SFT on 8, then RL": "sft then rl",
    }  # fmt: skip
    table, withheld = rows(text), 0
    for name, stage in names.items():
        outlook = found.stages.of(stage)
        predicted_rate, rate, predicted_error, error = table[name]
        for shown, value in (
            (predicted_rate, None if outlook.pass_rate is None else show_pass_rate(outlook.pass_rate)),
            (predicted_error, None if outlook.error is None else f"{outlook.error:.2f}"),
        ):
            assert shown == ("not forecast" if value is None else value), name
            withheld += value is None
        if outlook.pass_rate is not None:
            assert outlook.pass_rate == pytest.approx(float(rate), rel=0.2, abs=0.05)
        if outlook.error is not None:
            assert outlook.error == pytest.approx(float(error), rel=0.2)
    assert withheld == 3
