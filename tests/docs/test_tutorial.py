"""The tutorial shows what its commands print; and the checker that says so can fail."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from helpers.pages import Step, alterations, differences, follow, read_steps, unsupported_decimals

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"


@pytest.mark.parametrize("end", ["## 9. Train it for real", pytest.param("", marks=pytest.mark.slow)])
def test_the_tutorial_shows_what_it_prints(end: str, tmp_path: Path) -> None:
    """Every step, in order; then every number shown, altered, is noticed (one run serves both)."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    page = PAGE.read_text()
    assert end in page
    done = follow(page.partition(end)[0] if end else page, tmp_path)
    assert "\n".join(filter(None, (differences(step, printed) for step, printed in done))) == ""
    changed = [(altered, printed) for step, printed in done for altered in alterations(step)]
    assert len(changed) > 100
    assert [altered.expected for altered, printed in changed if not differences(altered, printed)] == []


def test_decimals_in_the_tutorials_prose_are_printed_somewhere() -> None:
    assert unsupported_decimals(PAGE.read_text()) == []


SMALL = """A page.

```yaml
# small.yaml
value: 0.25
```

```console
$ cat small.yaml
# small.yaml
...
$ printf 'seeds 3,  error 0.1234\\n\\n' && \\
    printf '1 lost\\n'
seeds 3, error 0.1234
1 lost
$ ls nowhere; echo after
after
```

```python
x = 2 / 3
print("ratio", x)
```
```text
ratio 0.6667
```

```sh
false  # not run
```
"""


def problems(page: str, folder: Path) -> list[str]:
    folder.mkdir()
    return [text for step, printed in follow(page, folder) if (text := differences(step, printed))]


def test_a_true_page_passes(tmp_path: Path) -> None:
    assert [step.kind for step in read_steps(SMALL)] == ["file", "command", "command", "command", "python"]
    assert problems(SMALL, tmp_path / "true") == []


@pytest.mark.parametrize(
    ("true", "false"),
    [
        ("0.1234\n1 lost", "0.1254\n1 lost"),
        ("seeds 3, error 0.1234\n", "seeds 4, error 0.1234\n"),
        ("seeds 3, error", "seeds 3, loss"),
        ("1 lost\n$", "$"),
        ("1 lost\n$", "1 lost\n2 lost\n$"),
        ("# small.yaml\n...\n", "...\n# small.yaml\n"),
        ("# small.yaml\n...\n", "# small.yaml\n"),
        ("after\n```", "before\n```"),
        ("ratio 0.6667", "ratio 0.6687"),
        ("ratio 0.6667", "ratio -0.6667"),
        ("```text\nratio 0.6667\n```\n", ""),
        ("value: 0.25", "value: 0.25\nother: 1\n```\n\n```python\nprint('unsaid')"),
    ],
)
def test_an_edited_page_fails(tmp_path: Path, true: str, false: str) -> None:
    assert SMALL.count(true) == 1
    assert len(problems(SMALL.replace(true, false), tmp_path / "edited")) == 1


def test_a_failing_command_shows_its_error(tmp_path: Path) -> None:
    page = "```console\n$ echo out; echo wrong >&2; exit 2\nout\nwrong\n```\n"
    assert problems(page, tmp_path / "told") == []
    assert len(problems(page.replace("wrong\n`", "`"), tmp_path / "untold")) == 1


def test_python_that_raises_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        problems("```python\n1 / 0\n```\n", tmp_path / "raises")


@pytest.mark.parametrize(
    "block", ["```\nplain\n```\n", "```text\nan output of nothing\n```\n", "```console\nx\n```\n"]
)
def test_blocks_outside_the_conventions_are_errors(block: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        read_steps(block)


def test_numbers_are_compared_to_the_digits_shown() -> None:
    step = Step("python", "", "1.23 45 6.7e-09 -0.5000\n", 1)
    assert differences(step, "1.2261 45 6.6931e-09 -0.49991\n") == ""
    for other in ("1.25 45 6.7e-09 -0.5", "1.23 46 6.7e-09 -0.5", "1.23 45 6.9e-09 -0.5"):
        assert differences(step, other)


def test_decimals_in_prose_are_looked_up() -> None:
    page = SMALL + "\nThe ratio is 0.67, the error 0.12 ([0.99 is a link](https://example.org/1.23)).\n"
    assert unsupported_decimals(page) == ["0.99"]
    assert unsupported_decimals(page + "It halves to 0.33.\n") == ["0.99", "0.33"]
