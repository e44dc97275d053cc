"""How results show themselves: in a line, as a table in a notebook, as a data frame, as a picture."""

from __future__ import annotations

from dataclasses import fields
from html import escape
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from datadose.printing import printable, shortened

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_FEW = 6
"""A sequence of at most this many values is shown whole."""
_LONGEST = 60
"""Characters that a text may take in a line."""


class Compact:
    """A record that is shown by its facts: ``repr`` is one line, and a notebook shows a table."""

    def _facts(self) -> dict[str, object]:
        """What is worth showing, by name: the fields that are not None, unless a class says better."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in named.items() if value is not None}

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={in_short(value)}" for name, value in self._facts().items())
        return f"{type(self).__name__}({told})"

    def _repr_html_(self) -> str:
        """The facts as a table, which notebooks show in place of ``repr``."""
        told = {name: v if isinstance(v, str) else in_short(v) for name, v in self._facts().items()}
        left = 'style="text-align:left"'
        rows = "".join(
            f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(text)}</td></tr>"
            for name, text in told.items()
        )
        return f"<table><caption>{type(self).__name__}</caption>{rows}</table>"


class Tabular(Compact):
    """A result that is a data frame and a picture as well."""

    _picture: ClassVar[str]
    """Full name of the function that draws it, looked up when it is called: results stand below drawing."""

    def _columns(self) -> dict[str, Any]:
        """The columns of the data frame."""
        raise NotImplementedError

    def to_frame(self) -> pd.DataFrame:
        """Return the result as a pandas data frame; the class says which columns it has."""
        import pandas as pd  # noqa: PLC0415  (a long import, for frames only)

        return pd.DataFrame(self._columns())

    def plot(self, ax: Axes | None = None, **style: Any) -> Axes:
        """Draw the result and return the axes.

        Args:
            ax: matplotlib axes to draw on; a new figure's unless given.
            style: keywords of matplotlib's lines, such as ``color`` and ``label``; none for a plan.
        """
        axes: Axes = resolve_name(self._picture)(self, ax, **style)
        return axes


def in_short(value: object) -> str:
    """``value`` in a few words: large arrays by their shape and range, long sequences by their length."""
    if isinstance(value, np.ndarray):
        return _array_in_short(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        if len(value) > _FEW:
            return f"{len(value)} values"
        inner = ", ".join(map(in_short, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {in_short(inner)}' for key, inner in value.items())}}}"
    return printable(shortened(repr(value), _LONGEST))


def _array_in_short(array: np.ndarray[Any, Any]) -> str:
    if array.ndim == 1 and len(array) <= _FEW:
        return f"[{', '.join(f'{value:.4g}' for value in array)}]"
    if array.ndim == 1:
        return f"{len(array)} values in [{array.min():.4g}, {array.max():.4g}]"
    return f"a {' x '.join(map(str, array.shape))} array"
