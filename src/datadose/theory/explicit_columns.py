"""What the explicit forms start from: sources of one condition a prompt, in one form, and a model."""

from __future__ import annotations

from collections.abc import Sequence

from datadose.covariance import is_spectrum
from datadose.errors import reject, require_number
from datadose.shapes import Operator
from datadose.theory.columns import Columns
from datadose.theory.source import Source
from datadose.theory.trained_operator import TrainedOperator


def explicit_columns(sources: Sequence[Source], eta: float, chain_steps: int) -> tuple[Columns, ...]:
    """The columns of sources that impose one condition a prompt, all in one form.

    Args:
        sources: K >= 1 sources of one dimension.
        eta: chain-of-thought step, in (0, 2).
        chain_steps: k >= 0 of the chains of thought.

    Raises InputError for no source, for sources of different dimensions, and for label noise in chains of
    more than one step (k >= 1), which makes a prompt impose two conditions.
    """
    require_number("eta", eta, 0, 2, open_ends=True)
    columns = tuple(source.columns(eta, chain_steps) for source in sources)
    if not columns:
        reject("sources", "none", "at least one source")
    for source, c in zip(sources, columns, strict=True):
        if c.pair is not None:
            instead = "0 where chain_steps >= 1; `trained` with a `ridge` takes such prompts"
            reject("label_noise", f"{source.label_noise:g} with chain_steps {chain_steps}", instead)
    sizes = [len(c.cross) for c in columns]
    if len(set(sizes)) > 1:
        reject("sources", f"dimensions {sizes}", "one dimension")
    return columns if all(is_spectrum(c.cross) for c in columns) else tuple(c.dense() for c in columns)


def as_start(start: TrainedOperator | Operator, dimension: int) -> TrainedOperator:
    """The model that training starts from; an operator V0 is one that is known.

    Raises InputError for a start of another dimension.
    """
    found = start if isinstance(start, TrainedOperator) else TrainedOperator.fixed(start)
    if len(found.mean) != dimension:
        reject("start", f"dimension {len(found.mean)}", f"dimension {dimension}, as in the sources")
    return found
