"""Rows of a selection, and lines of configuration, as other trainers read them (cited in formats.py)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, TypeAlias

import yaml

from datadose.llm.pool import Columns, Message, answer_text

Stage: TypeAlias = Literal["sft", "rl"]
REWARD = "reward.py"
"""The file of the reward in the folder of a trainer."""
_TOOL_JOINT = "\n</tool_response>\n<tool_response>\n"


@dataclass(frozen=True)
class Format:
    """What is written for one trainer."""

    suffix: str
    demonstration: Callable[[Columns, int], Columns]
    """A row of sft.jsonl and its number, from 0, to what the trainer reads."""
    problem: Callable[[Columns, int], Columns] | None
    """The same for rl.jsonl; None where the trainer has no RL with a verifier."""
    settings: Callable[[str, dict[Stage, bool], int], dict[str, str]]
    """The model's name, by stage whether its prompts are plain strings, and how many completions a prompt has
    in a step of RL, to files of configuration."""
    loses: Callable[[Columns, Stage], str | None]
    """What of a row the trainer would leave out or train on in addition, None for nothing."""
    launch: str
    """What starts it in its folder, with ``{stage}`` in place of the stage."""
    configuration: tuple[str, ...]
    """The files of ``settings`` that a stage needs, likewise."""


def messages_of(row: Columns) -> tuple[list[Message], list[Message]]:
    """(prompt, completion) of a row as messages: a string is one of the user, or of the assistant."""
    prompt, completion = row["prompt"], row.get("completion") or []
    return (
        [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt,
        [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion,
    )


def _with_tools(found: Columns, row: Columns) -> Columns:
    return {**found, "tools": row["tools"]} if row.get("tools") else found


def _openrlhf_loses(row: Columns, stage: Stage) -> str | None:
    if stage == "sft" and len(messages_of(row)[1]) > 1:
        return "have several turns to learn: it trains on the ones between them too"
    return _no_tools(row, stage)


def _no_tools(row: Columns, _: Stage) -> str | None:
    return "have tools, which its chat template is not given" if row.get("tools") else None


def _verl_demonstration(row: Columns, _: int) -> Columns:
    prompt, completion = messages_of(row)
    return _with_tools({"messages": prompt + completion}, row)


def _verl_problem(row: Columns, place: int) -> Columns:
    rest = {name: value for name, value in row.items() if name not in ("completion", "tools")}
    return {
        "data_source": str(row.get("data_source") or "datadose"),
        "prompt": messages_of(row)[0],
        "ability": str(row.get("ability") or ""),
        "reward_model": {"style": "rule", "ground_truth": answer_text(row.get("answer"))},
        "extra_info": {
            "split": "train",
            "index": place,
            "id": str(row.get("id", place)),
            # A verifier may need any column; as text, since their types differ between rows.
            "row": json.dumps(rest, ensure_ascii=False),
        },
    }


def _verl_loses(row: Columns, stage: Stage) -> str | None:
    if stage == "rl":
        return _no_tools(row, stage)
    if any(message["role"] == "assistant" for message in messages_of(row)[0]):
        return "have earlier turns of the assistant, which it trains on too"
    return "are plain strings, which it puts in a chat template" if isinstance(row["prompt"], str) else None


def _verl_settings(model: str, kinds: dict[Stage, bool], group: int) -> dict[str, str]:
    lines = {
        "sft": [
            "torchrun --standalone --nproc_per_node=1 -m verl.trainer.sft_trainer",
            "data.train_files=sft.parquet data.messages_key=messages data.tools_key=tools",
            f"model.path={shlex.quote(model)}",
        ],
        "rl": [
            "python -m verl.trainer.main_ppo algorithm.adv_estimator=grpo",
            "data.train_files=rl.parquet data.val_files=rl.parquet data.prompt_key=prompt",
            f"actor_rollout_ref.model.path={shlex.quote(model)} actor_rollout_ref.rollout.n={group}",
            f"reward.custom_reward_function.path={REWARD} reward.custom_reward_function.name=compute_score",
        ],
    }
    told = "compute_score(data_source, solution_str, ground_truth, extra_info) -> number"
    return {f"{stage}.sh": _command(lines[stage], told if stage == "rl" else "") for stage in kinds}


def _openrlhf_settings(model: str, kinds: dict[Stage, bool], group: int) -> dict[str, str]:
    found = {}
    for stage, plain in kinds.items():
        template = '--data.input_template ""' if plain else "--data.apply_chat_template"
        if stage == "sft":
            lines = [
                "deepspeed --module openrlhf.cli.train_sft --data.dataset sft.jsonl",
                f"--data.input_key input --data.output_key output {template}",
                f"--model.model_name_or_path {shlex.quote(model)}",
            ]
        else:
            lines = [
                "python -m openrlhf.cli.train_ppo_ray --data.prompt_dataset rl.jsonl",
                f"--data.input_key input --data.label_key label {template}",
                f"--actor.model_name_or_path {shlex.quote(model)} --rollout.n_samples_per_prompt {group}",
                f"--algo.advantage.estimator group_norm --reward.remote_url {REWARD}",
            ]
        told = "reward_func(queries, prompts, labels) -> {rewards, scores, extra_logs}"
        found[f"{stage}.sh"] = _command(lines, told if stage == "rl" else "")
    return found


def _openrlhf_demonstration(row: Columns, _: int) -> Columns:
    return {"input": row["prompt"], "output": row["completion"]}


def _openrlhf_problem(row: Columns, _: int) -> Columns:
    return {
        "input": row["prompt"],
        "label": answer_text(row.get("answer")),
        "datasource": str(row.get("data_source") or "datadose"),
    }


def _command(lines: list[str], reward: str) -> str:
    after = "To go on from SFT, put the folder of its run in place of the model's."
    told = f"; the reward is {REWARD}: {reward}\n# {after}\n" if reward else ".\n"
    return f"# In this folder{told}" + " \\\n  ".join(lines) + "\n"


def _factory_demonstration(row: Columns, _: int) -> Columns:
    if isinstance(row["prompt"], str) and isinstance(row["completion"], str):
        return {"instruction": row["prompt"], "output": row["completion"]}
    prompt, completion = messages_of(row)
    turns: list[Message] = []
    for message in prompt + completion:
        role, text = _factory_turn(message)
        if turns and role == turns[-1]["role"] == "tool":
            turns[-1]["content"] += _TOOL_JOINT + text
        else:
            turns.append({"role": role, "content": text})
    tools = row.get("tools")
    return {"messages": turns, "tools": json.dumps(tools, ensure_ascii=False) if tools else ""}


def _factory_turn(message: Message) -> tuple[str, str]:
    """(role, content) of a message: calls are a turn of their own kind, a thought stands before the text."""
    thought = message.get("reasoning_content") or message.get("reasoning") or message.get("thinking")
    text = message.get("content") or ""
    before = f"<think>\n{thought}\n</think>\n\n" if thought else ""
    if not (calls := message.get("tool_calls")):
        return str(message["role"]), before + text
    functions = [call.get("function", call) for call in calls]
    named = [{"name": f["name"], "arguments": _parsed(f.get("arguments"))} for f in functions]
    return "function_call", before + json.dumps(named, ensure_ascii=False)


def _parsed(arguments: Any) -> Any:
    """The arguments of a call as an object, if they are its JSON text."""
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments or {}
    except ValueError:
        return arguments


def _factory_loses(row: Columns, _: Stage) -> str | None:
    if isinstance(row["prompt"], str):
        return None
    turns = _factory_demonstration(row, 0)["messages"]
    roles = [turn["role"] for turn in turns if turn["role"] != "system"]
    asks = [role in ("user", "tool") for role in roles]
    if len(roles) % 2 or asks != [place % 2 == 0 for place in range(len(roles))]:
        return "do not alternate between user and assistant, and it leaves them out"
    if any(message.get("tool_calls") and message.get("content") for message in chain(*messages_of(row))):
        return "have text beside a call, which it has no place for"
    if len(messages_of(row)[1]) > 1:
        return "have several turns to learn, of which it trains on the last"
    return None


def _factory_settings(model: str, kinds: dict[Stage, bool], _: int) -> dict[str, str]:
    if "sft" not in kinds:
        return {}
    plain = kinds["sft"]
    columns = (
        {"prompt": "instruction", "response": "output"}
        if plain
        else {"messages": "messages", "tools": "tools"}
    )
    about: dict[str, Any] = {"formatting": "alpaca" if plain else "sharegpt", "columns": columns}
    if not plain:
        about["tags"] = {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "observation_tag": "tool",
            "function_tag": "function_call",
            "system_tag": "system",
        }
    sets = {name: {"file_name": f"{name}.jsonl", **about} for name in ("sft", "control_sft")}
    settings = {
        "model_name_or_path": model,
        "stage": "sft",
        "do_train": True,
        "dataset": "sft",
        "dataset_dir": ".",
        # The trainer has templates of its own, by name: which one is the model's is not known here.
        "template": "empty" if plain else "NAME",
        "mask_history": True,
        "output_dir": "../run",
    }
    return {"dataset_info.json": json.dumps(sets, indent=2) + "\n", "sft.yaml": _yaml(settings)}


def _axolotl_demonstration(row: Columns, _: int) -> Columns:
    if isinstance(row["prompt"], str) and isinstance(row["completion"], str):
        return {"instruction": row["prompt"], "output": row["completion"]}
    prompt, completion = messages_of(row)
    turns = [{**message, "training": False} for message in prompt]
    turns += [{**message, "training": message["role"] == "assistant"} for message in completion]
    return _with_tools({"messages": turns}, row)


def _axolotl_problem(row: Columns, _: int) -> Columns:
    return row


def _axolotl_settings(model: str, kinds: dict[Stage, bool], group: int) -> dict[str, str]:
    found = {}
    source: dict[str, Any] = {"path": "sft.jsonl", "ds_type": "json"}
    if kinds.get("sft"):
        form = "{instruction}"
        source["type"] = {
            "field_instruction": "instruction",
            "field_output": "output",
            "format": form,
            "no_input_format": form,
        }
    else:
        source |= {"type": "chat_template", "field_messages": "messages", "field_tools": "tools"}
        source |= {
            "message_field_training": "training",
            "roles_to_train": ["assistant"],
            "train_on_eos": "turn",
        }
    if "sft" in kinds:
        found["sft.yaml"] = _yaml({"base_model": model, "datasets": [source], "output_dir": "../run"})
    if "rl" in kinds:
        settings = {
            "base_model": model,
            "rl": "grpo",
            "datasets": [{"path": "rl.jsonl", "ds_type": "json", "split": "train", "type": None}],
            "trl": {"num_generations": group, "reward_funcs": ["reward.reward"]},
            "output_dir": "../run-rl",
        }
        found["rl.yaml"] = _yaml(settings)
    return found


def _yaml(settings: dict[str, Any]) -> str:
    return "# In this folder.\n" + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def _nothing(_: Columns, __: Stage) -> str | None:
    return None


_SHELL: tuple[str, tuple[str, ...]] = ("sh {stage}.sh", ("{stage}.sh",))

TRAINERS = {
    "verl": Format(".parquet", _verl_demonstration, _verl_problem, _verl_settings, _verl_loses, *_SHELL),
    "openrlhf": Format(
        ".jsonl", _openrlhf_demonstration, _openrlhf_problem, _openrlhf_settings, _openrlhf_loses, *_SHELL
    ),
    "llama-factory": Format(
        ".jsonl",
        _factory_demonstration,
        None,
        _factory_settings,
        _factory_loses,
        "llamafactory-cli train {stage}.yaml",
        ("dataset_info.json", "{stage}.yaml"),
    ),
    "axolotl": Format(
        ".jsonl",
        _axolotl_demonstration,
        _axolotl_problem,
        _axolotl_settings,
        _nothing,
        "axolotl train {stage}.yaml",
        ("{stage}.yaml",),
    ),
}
