"""A pool of examples for a language model, in common files and layouts.

:func:`read_pool` gives its rows as a list, :func:`open_pool` keeps them on disk. Every layout is made the
same at once: whatever reads a :class:`Row` uses ``prompt``, ``completions``, ``answer`` and ``tools`` only.
A bad row is a row with an ``issue``.
"""

from datadose.llm.pool.layouts import COLUMNS, LAYOUTS, Layout, final_form, parse_columns
from datadose.llm.pool.reading import Pool, open_pool, read_pool
from datadose.llm.pool.records import read_jsonl
from datadose.llm.pool.row import BadRowError, Columns, Message, Row, Text, answer_text, is_blank, text_of
from datadose.llm.pool.sources import find_source, no_bars
from datadose.llm.pool.survey import describe_layout
from datadose.llm.pool.training import for_trl
from datadose.llm.pool.values import kind_of

__all__ = [
    "COLUMNS",
    "LAYOUTS",
    "BadRowError",
    "Columns",
    "Layout",
    "Message",
    "Pool",
    "Row",
    "Text",
    "answer_text",
    "describe_layout",
    "final_form",
    "find_source",
    "for_trl",
    "is_blank",
    "kind_of",
    "no_bars",
    "open_pool",
    "parse_columns",
    "read_jsonl",
    "read_pool",
    "text_of",
]
