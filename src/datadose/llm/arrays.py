"""What scoring holds of all rows at once, in few large arrays."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from datadose.llm.language_model import Encoded, LanguageModel
from datadose.llm.pool import Row

Ids: TypeAlias = NDArray[np.int32]
"""Token ids."""


class Tokens:
    """Token ids of rows by key, at four bytes each; Python's integers take ten times that."""

    def __init__(self) -> None:
        self.ids: dict[str, Ids] = {}
        self.start: dict[str, int] = {}
        """Where the completion begins."""
        self._targets: dict[str, int] = {}

    def add(self, row: Row, model: LanguageModel) -> int:
        """Encode ``row``, once for each key; returns its length."""
        key = row.key
        if key not in self.ids:
            found = model.encode(row)
            self.ids[key] = np.array(found.prompt_ids + found.completion_ids, dtype=np.int32)
            self.start[key] = len(found.prompt_ids)
            self._targets[key] = found.targets if row.completion_text.strip() else 0
        return len(self.ids[key])

    def targets(self, row: Row) -> int | None:
        """Scored tokens of ``row``, None if it could not be encoded."""
        return self._targets.get(row.key)

    def encoded(self, key: str) -> Encoded:
        """As the model takes them."""
        ids, start = self.ids[key].tolist(), self.start[key]
        return Encoded(ids[:start], ids[start:])
