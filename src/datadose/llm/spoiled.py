"""What spoils pass rates: samples cut by the limit of tokens, thoughts without an end, missing samples.

The sentences stand here once: scoring prints them, the report of a selection shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LARGE_SHARE = 0.05
"""A share of the samples from which the pass rates are not reliable: as large as the chance that a 95
percent interval misses."""


@dataclass(frozen=True)
class Spoiled:
    """One thing that spoils pass rates."""

    text: str
    share: float
    """Of all samples, or of all rows; in [0, 1]."""

    @property
    def large(self) -> bool:
        """Whether it should be mended before anything is trained."""
        return self.share >= LARGE_SHARE


def spoiled_samples(
    sampling: Mapping[str, Any], max_tokens: int | None, unfinished: int = 0
) -> list[Spoiled]:
    """What spoils the pass rates of a pool, and what to do about it; [] if nothing does.

    Args:
        sampling: the manifest's counts under that name; one that is not there counts for nothing.
        max_tokens: the limit of a sample's tokens, None if that is not known.
        unfinished: samples that broke off inside a thought.
    """
    count = {
        name: int(sampling.get(name) or 0)
        for name in ("samples", "truncated", "truncated_rows", "missing", "missing_rows", "rows_without")
    }
    samples, given = count["samples"], sampling.get("engine") == "file"
    found = []
    if count["truncated"]:
        limit = (
            "the limit of tokens where they were made"
            if given or max_tokens is None
            else f"--max-tokens {max_tokens}"
        )
        more = "make them again with a larger one" if given else "raise --max-tokens"
        text = (
            f"{count['truncated']} of {samples} samples, of {count['truncated_rows']} rows, were cut by "
            f"{limit}: they fail unless an answer stands before the cut; {more} (column truncated)"
        )
        found.append(Spoiled(text, _share(count["truncated"], samples)))
    if unfinished:
        found.append(Spoiled(unfinished_samples(unfinished), _share(unfinished, samples)))
    if count["missing"]:
        reasons = sampling.get("reasons") or {"unknown": 0}
        text = (
            f"{count['missing']} samples of {count['missing_rows']} rows are missing, most for: "
            f"{next(iter(reasons))}; pass rates are those of the others (columns incomplete, issue)"
        )
        found.append(Spoiled(text, _share(count["missing"], samples + count["missing"])))
    if given and count["rows_without"]:
        text = f"{count['rows_without']} rows have no completions in the file: no pass rate"
        found.append(Spoiled(text, 0.0))
    return found


def unfinished_samples(count: int) -> str:
    """A sentence on ``count`` samples without the end of their thought."""
    return f"{count} samples broke off inside a thought: no answer (--max-tokens?)"


def _share(part: int, whole: int) -> float:
    return min(1.0, part / whole) if whole else 1.0
