"""The decision memos say what the planner says today."""

from __future__ import annotations

from pathlib import Path

import pytest

from datadose.planner import Plan, plan_file

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


@pytest.mark.filterwarnings("error")
def test_too_hard_for_rl() -> None:
    found, text = memo("too_hard_for_rl")
    assert found.stages is not None
    assert found.stages.stage == "sft then rl"
    assert not found.stages.of("rl").has_signal
    quoted(
        text,
        f"= {found.spectral_radius:.1f}$",
        f"| none | {found.stages.of('none').pass_rate:.5f} |",
        f"| RL | {found.stages.of('rl').pass_rate:.4f} |",
        f"| SFT on 8 | {found.stages.of('sft').pass_rate:.2f} |",
        f"| SFT on 8, then RL | {found.stages.of('sft then rl').pass_rate:.2f} |",
    )
