"""Where a text has its answer: after its thoughts, in its last final form.

The last boxed form decides; without a box the last ``####``; without that the last "answer is", "answer:" or
``<answer>``. All searches take time proportional to the text's length.
"""

from __future__ import annotations

import re
from typing import TypeAlias

_THOUGHTS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)
LONGEST_FORM = 2000
"""Characters of a final form at most, so that what reads it takes bounded time."""
_LONGEST_JOIN = 40
"""Characters between two boxes that belong together."""

Span: TypeAlias = tuple[int, int, str]
"""Where a form starts and ends, and what it holds."""

_BOX = re.compile(r"\\(?:boxed|fbox|framebox|framed|bbox|fcolorbox)(?![A-Za-z])")
_BOX_OPTIONS = re.compile(r"\s*(?:\[[^\[\]\n]{0,80}\]\s*){0,2}")
_COLOURS = re.compile(r"\s*\{[^{}\n]{0,40}\}\s*\{[^{}\n]{0,40}\}\s*")
_BARE_BOX = re.compile(r"[^\s$\\{}]+")
_BETWEEN_BOXES = re.compile(r"(?:[\s$,;*]|\\[()\[\]]|\band\b|\bor\b|\\text\{\s*(?:and|or)\s*\})*")
_JOINS = re.compile(r"[,;]|\band\b|\bor\b")
_HASHES = re.compile(r"(?<!#)####(?!#)")
_HEADING = re.compile(
    r"[\W_]*(?:the |my |our )?(?:final |step[- ]by[- ]step )?"
    r"(?:step|answer|solution|conclusion|summary|explanation|verification|check|result|reasoning|part|case)s?\b",
    re.IGNORECASE,
)
_ANSWER = re.compile(
    r"<answer>"
    r"|\banswers?\b(?:[*_\s]*[:\uff1a=]"
    r"|(?:[ \t]+(?:to|for|of|in|here|now|then|thus|hence|therefore)\b[^\n.:;,?!]{0,80}?)?"
    r"[*_ \t]+(?:is|are)\b[*_ \t]*:?)"
    r"[*_ \t]*",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=[*_\"')\]]*(?:\s|$))")
_DISPLAY = (("\\[", "\\]"), ("$$", "$$"), ("\\begin{", "\\end{"))
_FORMULAS = re.compile(r"\$\$[^$]+\$\$|\$[^$\n]+\$|\\\([^\n]{1,200}?\\\)")


def is_unfinished(text: str) -> bool:
    """Whether ``text`` breaks off inside a thought: ``<think>`` without ``</think>``, or a like pair."""
    return any(text.rfind(start) > text.rfind(end) for start, end in _THOUGHTS)


def without_thought(text: str) -> str:
    """The part of ``text`` after its last finished thought; all of it if there is none."""
    start = max((at + len(end) for _, end in _THOUGHTS if (at := text.rfind(end)) >= 0), default=0)
    return text[start:]


def final_form(text: str) -> str | None:
    """The last final form of ``text`` (without thoughts), None if it has none.

    It is "" where the last one was broken off, or is longer than ``LONGEST_FORM``.
    """
    for find in (_boxed, _after_hashes, _after_answer):
        found = find(text)
        if found is not None:
            return found.strip() if len(found) <= LONGEST_FORM else ""
    return None


def closing_formula(text: str) -> str | None:
    """The formula in dollars, ``\\(`` or ``\\[`` with which ``text`` ends, None if it ends with none."""
    end = text.rstrip(" \t\n.,;:!*")[-LONGEST_FORM:]
    for start, stop in (("\\[", "\\]"), ("\\(", "\\)"), ("$$", "$$"), ("$", "$")):
        if end.endswith(stop):
            at = end.rfind(start, 0, len(end) - len(stop))
            return None if at < 0 else end[at + len(start) : len(end) - len(stop)].strip()
    return None


def _boxed(text: str) -> str | None:
    """The content of the last box, or of the last boxes where only "and", "or" or a comma parts them."""
    starts = list(_BOX.finditer(text))
    if not starts:
        return None
    last = _box(text, starts[-1].end())
    if last is None:
        return ""
    parts, start = [last[2]], starts[-1].start()
    for match in reversed(starts[:-1]):
        span = _box(text, match.end())
        if span is None or not 0 <= start - span[1] <= _LONGEST_JOIN:
            break
        between = text[span[1] : start]
        if not _BETWEEN_BOXES.fullmatch(between) or not _JOINS.search(between):
            break
        parts.append(span[2])
        start = match.start()
    return parts[0] if len(set(parts)) == 1 else ", ".join(reversed(parts))


def _box(text: str, at: int) -> Span | None:
    """The box whose command ends at ``at``; None if it is broken off."""
    options = _BOX_OPTIONS.match(text, at)
    at = options.end() if options else at
    if text.startswith("fcolorbox", at - len("fcolorbox")):
        colours = _COLOURS.match(text, at)
        at = colours.end() if colours else at
    if not text.startswith("{", at):
        bare = _BARE_BOX.match(text, at)
        return None if bare is None else (at, bare.end(), bare.group().rstrip(".,;"))
    end = _closing_brace(text, at)
    return None if end is None else (at, end + 1, text[at + 1 : end])


def _closing_brace(text: str, at: int) -> int | None:
    """The place of the brace that closes the one at ``at``, within the length that a form may have."""
    depth, place, limit = 0, at, min(len(text), at + LONGEST_FORM + 2)
    while place < limit:
        character = text[place]
        if character == "\\":
            place += 1  # an escaped brace closes nothing
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return place
        place += 1
    return None


def _after_hashes(text: str) -> str | None:
    """What follows the last ``####`` on its line (or the next one with text), headings of Markdown aside."""
    for match in reversed(list(_HASHES.finditer(text))):
        content = _content(text, match.end(), sentence=False)
        inner = _after_answer(content)
        if inner:
            return inner
        if not _HEADING.match(content):
            return content
    return None


def _after_answer(text: str) -> str | None:
    """What follows the last "answer is", "answer:" or ``<answer>``, to the end of its sentence."""
    found = list(_ANSWER.finditer(text))
    if not found:
        return None
    last = found[-1]
    if last.group().lower().startswith("<answer>"):
        end = text.find("</answer>", last.end())
        content = text[last.end() : end if end >= 0 else len(text)].strip()
        return content if end >= 0 else ""
    return _content(text, last.end(), sentence=True)


def _content(text: str, at: int, *, sentence: bool) -> str:
    """The line with text that follows ``at`` (all of a displayed formula), cut at the end of its sentence."""
    rest = text[at : at + 2 * LONGEST_FORM].lstrip()
    for start, stop in _DISPLAY:
        if rest.startswith(start):
            end = rest.find(stop, len(start))
            return "" if end < 0 else rest[: (rest + "\n").find("\n", end + len(stop))]
    line = rest.partition("\n")[0]
    if not sentence:
        return line
    # A full stop inside a formula ends no sentence.
    hidden = _FORMULAS.sub(lambda match: "x" * len(match.group()), line)
    full_stop = _SENTENCE_END.search(hidden)
    return line if full_stop is None else line[: full_stop.start()]
