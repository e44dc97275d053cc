"""``reward.py`` for another trainer: the verifier that the pass rates were measured with, as its reward."""

from __future__ import annotations

from string import Template

_HEAD = '''"""The verifier that the pass rates of this selection were measured with, as a reward of $trainer.

datadose must be installed where the trainer runs.
"""

${imports}from datadose.llm.pool import answer_text
from datadose.llm.verifiers import judge, load_verifier

VERIFIER = load_verifier($verifier)$module
TIMEOUT = $timeout  # seconds for one completion


def passes(text, row):
    """1.0 for a completion that passes, 0.0 for one that does not or that the verifier cannot judge."""
    row = {**row, "answer": answer_text(row.get("answer"))}
    return float(judge(VERIFIER, text, row, timeout=TIMEOUT)[0] is True)


'''

_BODIES = {
    "verl": """def compute_score(data_source, solution_str, ground_truth, extra_info=None):
    row = json.loads((extra_info or {}).get("row") or "{}")
    return passes(solution_str, {**row, "answer": ground_truth})
""",
    "openrlhf": """def reward_func(queries, prompts, labels):
    # A query is the prompt with what the model said.
    texts = [query[len(prompt) :] for query, prompt in zip(queries, prompts)]
    found = [
        passes(text, {"prompt": prompt, "answer": label})
        for text, prompt, label in zip(texts, prompts, labels)
    ]
    rewards = torch.tensor(found)
    return {"rewards": rewards, "scores": rewards, "extra_logs": {}}
""",
    "axolotl": """def reward(prompts, completions, **columns):
    columns = {"prompt": prompts, **columns}
    rows = [
        {name: values[place] for name, values in columns.items() if isinstance(values, list)}
        for place in range(len(completions))
    ]
    texts = [said if isinstance(said, str) else said[-1]["content"] for said in completions]
    return [passes(text, row) for text, row in zip(texts, rows)]
""",
}
_IMPORTS = {"verl": "import json\n\n", "openrlhf": "import torch\n\n", "axolotl": ""}


_ANSWER_ALONE = ("exact", "number", "last-number", "math")
"""Verifiers that read nothing of a row but its answer."""


def reward_notes(trainer: str, verifier: str) -> list[str]:
    """Remarks on ``reward.py``: a module that it needs, columns that ``trainer`` does not hand on."""
    found = []
    if (module := _module_of(verifier)) is not None:
        found.append(f"rl: reward.py needs the module {module} where {trainer} runs")
    if trainer == "openrlhf" and verifier not in _ANSWER_ALONE:
        alone = "its reward sees a row's prompt and answer alone"
        found.append(f"rl: {alone}, and {verifier} may read other columns")
    return found


def _module_of(verifier: str) -> str | None:
    module, colon, _ = verifier.partition(":")
    return module if colon else None


def reward_file(trainer: str, verifier: str, timeout: float) -> str:
    """The content of ``reward.py``.

    Args:
        trainer: ``verl``, ``openrlhf`` or ``axolotl``. openrlhf hands its reward the prompt and the answer of
            a row alone; the others hand it all columns.
        verifier: its name, or ``module:function``, as :func:`~datadose.llm.verifiers.load_verifier` takes it.
        timeout: seconds for one completion.
    """
    module = _module_of(verifier)
    there = "" if module is None else f"  # the module {module!r} must be found where the trainer runs"
    head = Template(_HEAD).substitute(
        trainer=trainer, module=there, imports=_IMPORTS[trainer], verifier=repr(verifier), timeout=timeout
    )
    return head + _BODIES[trainer]
