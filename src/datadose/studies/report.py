"""The self-contained HTML report: figures, what they mean, and the ledger. Reads saved files only.

The page holds everything it shows and requests nothing: pictures, the places of their data points
(``NAME.hover.json``, if it is there), style and script are inside. It reads well without its script.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datadose._version import __version__
from datadose.drawing.page import render_page
from datadose.errors import reject
from datadose.files import check_table, write_atomic
from datadose.reading import read_bytes, read_json


@dataclass(frozen=True)
class Story:
    """A figure's title and its two sentences for a practitioner."""

    title: str
    text: str
    claims: tuple[str, ...]
    """Prefixes of the ids of the claims that the figure bears on."""


STORIES = {
    "fig1": Story(
        "How many SFT examples? (Figure 1)",
        "Each curve is the test error after supervised fine-tuning on B examples: a few examples aligned "
        "with the shift help, but the error explodes where their number equals the number of directions they "
        "span (B = m, or B = d once interference makes them span everything). Past the peak more data help "
        "again, yet with strong interference (r = 0.01) even the largest set stays worse than the best small "
        "one.",
        ("fig-1", "insight-2", "exact-asymptotics"),
    ),
    "fig2": Story(
        "How long should the prompts be? (Figure 2)",
        "Longer prompts make each example cleaner, but they also make the pretrained model surer of "
        "the old distribution, so under interference the error of small sets falls and then rises with n. "
        "Prompt length and number of examples have to be chosen together.",
        ("fig-2",),
    ),
    "fig3": Story(
        "Does a real transformer do the same? (Figure 3)",
        "A GPT-2 is pretrained to write chains of thought for the weights of a regression, then post-trained "
        "on the shift. Dotted lines are the untouched models: how long the model was pretrained decides what "
        "post-training can still add, and on data of the shift alone it may only take away.",
        ("fig-3",),
    ),
    "gpt_data": Story(
        "Which data for a real transformer, and what do its weights do?",
        "Top: rare and common directions of the target, and the old distribution (forgetting), after each "
        "stage on three kinds of data. Bottom: the slope of the first thought on S w*, which for the linear "
        "model is its operator. For the GPT read it as a summary: how well S w* and w* itself explain the "
        "thought stands below.",
        ("fig-3-replay", "fig-3-mechanism"),
    ),
    "fig4": Story(
        "What does training itself do? (Figure 4)",
        "After SFT on the shift's data the error falls and rises again with B only because a fixed number of "
        "epochs means more steps for more data: at equal steps it does not rise. Outcome supervision and RL "
        "improve with B either way, and lose with longer chains when the task is far from the pretrained "
        "model.",
        ("fig-4",),
    ),
    "fig4map": Story(
        "Where do Figure 4's claims hold?",
        "Each row changes one choice that the paper leaves open, each column is one of its six claims. The "
        "claims about SFT and B hang on the schedule, and those about outcome supervision on the data being "
        "the shift's own.",
        (),
    ),
    "fig5": Story(
        "Which theory describes SFT? (Figure 5)",
        "The paper's theorem describes a first-order approximation V~ of the fine-tuned model, and as "
        "printed it is off below the peak; with one coefficient corrected it matches V~ on both sides. The "
        "exact theory describes the fine-tuned model V* itself, whose error is well below that of V~.",
        ("thm-B.1", "fig-5", "prop-B.2", "app-B"),
    ),
    "insight1_selection": Story(
        "Which SFT examples? (Insight 1)",
        "Scoring candidates by the model's own error and training on the hardest beats random and easy "
        "choice at every size when the demonstrations are right. The same ranking collects wrong "
        "demonstrations first, so with 30 percent of them wrong it loses to random choice for large sets: "
        "verify answers before you rank by loss.",
        ("insight-1",),
    ),
    "insight2_size": Story(
        "How much SFT data under interference? (Insight 2)",
        "While the data vary little off the shift (a small r > 0, strong interference for the paper), a set "
        "well below the peak at B = d beats even the largest one. Past a certain r the examples teach the "
        "other directions at nearly the right scale, and more data win: keep sets small only if r is small.",
        ("insight-2",),
    ),
    "insight3_stability": Story(
        "When is outcome supervision stable? (Insight 3)",
        "The step size that gradient descent bears falls steeply with the size of the shift and with the "
        "number of thinking steps, about where the curvature theory puts it. With a step size of its own, a "
        "shift near rho(M) = 1 is not more sensitive to its sample than others; one step size for all is "
        "what breaks larger shifts.",
        ("insight-3", "app-E"),
    ),
    "insight4_balance": Story(
        "What should pretraining hold? (Insight 4, section 7)",
        "With a fixed budget, pretraining that gives the shift's directions their share makes every stage "
        "work, while starved pretraining leaves outcome supervision far behind SFT, and RL without any "
        "signal. SFT repairs starvation best; too much mass on the shift costs the rest.",
        ("insight-4", "sec-7"),
    ),
    "rl_bands": Story(
        "Which prompts for RL? (Finding 3)",
        "Prompts that the model passes rarely, but not never, teach more than medium ones once there are "
        "enough of them; prompts far beyond it teach nothing, and wherever there is signal more prompts "
        "help. An unfiltered set of the same size comes close to the best band.",
        ("finding-3",),
    ),
    "sft_then_rl": Story(
        "SFT, then RL?",
        "At the same number of optimiser steps, SFT followed by RL almost never beats the better of the two "
        "alone. RL alone is best when demonstrations are few and the task is within reach; beyond its reach "
        "only SFT moves the model.",
        ("sft-then-rl",),
    ),
    "overthinking": Story(
        "How long should the model think?",
        "On prompts of finite length, errors may explode with further thinking even where the long-prompt "
        "theory says they shrink. Near tasks gain from more thinking; after SFT the model bears more of it "
        "than after outcome supervision or RL.",
        ("overthinking",),
    ),
    "planner": Story(
        "Does the planner find the right dose?",
        "On random shifts that nothing was built from, the number of prompts that `datadose plan` chooses is "
        "compared with the best of all numbers in simulation: it loses next to nothing. The planner's own "
        "choice of directions, at the same total variance, often gains a few percent over the paper's, and "
        "nothing where the best is no SFT at all.",
        ("planner-dose", "planner-allocation"),
    ),
    "planner_stages": Story(
        "Does the planner choose the right stage?",
        "On random shifts that the rule was not built on, no stage, SFT, RL and SFT then RL are run at the "
        "same number of optimiser steps; rings mark what the planner recommends. It is nearly always as good "
        "as the best of the four, while every fixed rule misses the best in a quarter of the cases or more. "
        "On further shifts the numbers behind it are compared with what training comes to: where they are "
        "wrong, the plan withholds them.",
        ("planner-stage", "planner-forecasts"),
    ),
    "token_study": Story(
        "The same questions, on a language model of our own",
        "A character-level transformer meets a task never, rarely or as often as any other in pretraining. "
        "Each panel asks one of the theory's questions on tokens: what pretraining left latent, how many "
        "demonstrations and which, what replay keeps, which prompts for RL. Points are means over seeds, "
        "bars 95 percent intervals; forgetting is read on the tasks that the model knew.",
        ("token-",),
    ),
    "llm_study": Story(
        "Does the selection pay on a real model?",
        "SmolLM2-135M-Instruct on arithmetic from solved to hopeless: SFT by LoRA on sets of equal size that "
        "were chosen in different ways, from a clean and from a contaminated pool, and GRPO on bands of pass "
        "rates. The gain on the target stands beside what the model forgets.",
        ("llm-",),
    ),
}


_VERDICTS = ("holds", "mixed", "fails", "not run")
_PART_OF_CLAIMS = ("theorems", "insight1", "theory")
"""What ``datadose reproduce claims`` makes: tables without a figure, and claims judged by theory alone."""


def write_report(out: Path) -> Path:
    """``out/report.html`` from whatever tables, figures and claims ``out`` holds; no network when opened.

    Raises InputError for a table that is not the one its figure was drawn from.
    """
    ledger = out / "claims.json"
    claims = [_claim(out, claim) for claim in read_ledger(ledger)] if ledger.is_file() else []
    figures = [_figure(out, name, story, claims) for name, story in STORIES.items() if _drawn(out, name)]
    for claim in claims:
        claim["figures"] = [f for f in figures if claim["id"].startswith(STORIES[f["name"]].claims)]
    verdicts = [claim["verdict"] for claim in claims]
    page = render_page(
        "report.html",
        scripts=("tables.js", "hover.js"),
        figures=figures,
        claims=claims,
        counts={v: verdicts.count(v) for v in _VERDICTS},
        version=__version__,
    )
    write_atomic(out / "report.html", page)
    return out / "report.html"


_TEXTS = ("id", "statement", "verdict")
_NUMBERS = ("value", "threshold")
_MORE_TEXTS = ("paper", "setting", "statistic", "note", "experiment", "test")


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """The entries of a claims.json; InputError naming the entry and the key of what is none."""
    claims = read_json(path, "out")
    if not isinstance(claims, list):
        reject(
            "out",
            f"{path} with a {type(claims).__name__}",
            "a list of claims, as datadose reproduce writes it",
        )
    for place, claim in enumerate(claims):
        where = f"{path}, entry {place + 1}"
        if not isinstance(claim, dict):
            reject("out", f"{where}: a {type(claim).__name__}", "a claim with id, statement and verdict")
        for key in (*_TEXTS, *_NUMBERS):
            if key not in claim:
                reject("out", f"{where} without {key}", f"claims with {', '.join((*_TEXTS, *_NUMBERS))}")
        for key in (*_TEXTS, *_MORE_TEXTS):
            if not isinstance(claim.get(key, ""), str):
                reject("out", f"{where}: {key} {claim[key]}", "text")
        ends = claim.get("interval") or [None, None]
        if not isinstance(ends, list) or len(ends) != 2:
            reject("out", f"{where}: interval {ends}", "null or a list of two numbers")
        for key, value in (*((key, claim[key]) for key in _NUMBERS), *(("interval", end) for end in ends)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
                reject("out", f"{where}: {key} {value}", "a number or null")
    return claims


def _drawn(out: Path, name: str) -> bool:
    return all((out / f"{name}.{kind}").is_file() for kind in ("svg", "json", "csv"))


def _figure(out: Path, name: str, story: Story, claims: list[dict[str, Any]]) -> dict[str, Any]:
    check_table(out / f"{name}.csv")
    svg = read_bytes("figure", out / f"{name}.svg", "an SVG picture")
    saved = _saved(out, name)
    hover = out / f"{name}.hover.json"
    kinds = ("csv", "json", "png", "svg")
    return {
        "name": name,
        "title": story.title,
        "text": story.text,
        "image": "data:image/svg+xml;base64," + base64.b64encode(svg).decode(),
        "claims": [claim for claim in claims if claim["id"].startswith(story.claims)],
        **{key: saved.get(key, "") for key in ("command", "preset", "seeds")},
        "versions": saved["versions"],
        "files": [f"{name}.{kind}" for kind in kinds if (out / f"{name}.{kind}").is_file()],
        "hover": read_json(hover) if hover.is_file() else None,
    }


def _claim(out: Path, claim: dict[str, Any]) -> dict[str, Any]:
    """An entry of the ledger with where it comes from: its table, and the command that makes it."""
    table = claim.get("experiment", "")
    saved = _saved(out, "theorems" if table == "theory" else table)
    target = "claims" if table in _PART_OF_CLAIMS else table
    alone = f"datadose reproduce {target} --preset {saved.get('preset', 'quick')}"
    return {
        **claim,
        "experiment": table,
        "test": claim.get("test", ""),
        "table": f"{table}.csv" if table and (out / f"{table}.csv").is_file() else "",
        "command": (saved.get("command") or alone) if table else "",
        "order": _VERDICTS.index(claim["verdict"]) if claim["verdict"] in _VERDICTS else len(_VERDICTS),
    }


def _saved(out: Path, table: str) -> dict[str, Any]:
    """The record of how a table was made; {} where there is none."""
    path = out / f"{table}.json"
    if not table or not path.is_file():
        return {}
    saved = read_json(path)
    if not isinstance(saved, dict) or not isinstance(saved.get("versions"), dict):
        reject("file", str(path), "a record with versions, as datadose reproduce writes it")
    return saved
