"""Errors along the number of prompts, as an array that knows which numbers of prompts they are at."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from datadose.errors import reject
from datadose.shapes import Array
from datadose.showing import Tabular

Kind: TypeAlias = Literal["predicted", "simulated"]


class ErrorCurve(Tabular, np.ndarray[Any, np.dtype[np.float64]]):
    """Errors / d at numbers of prompts: a float64 array of shape (P,) with ``to_frame`` and ``plot``.

    :func:`~datadose.predict_curve` and :func:`~datadose.sft_error_curve` return it. What is computed from it,
    parts of it included, is a plain array: the errors alone, without their prompts. The columns of its frame
    are ``prompts`` and its kind, and a picture has a gap where the error is infinite. A curve compares as the
    array that it is, error by error: ``numpy.array_equal(one, other)`` compares two as wholes.

    Args:
        prompts: numbers of prompts B >= 0, shape (P,).
        errors: the error / d at each of them, shape (P,), infinite where the mean is.
        kind: ``predicted`` or ``simulated``.

    Example:
        >>> from datadose import Shift, predict_curve
        >>> curve = predict_curve(Shift.two_block(40, 20, 0.1, 0.2, 0.1), [0, 10, 40], 40)
        >>> curve
        ErrorCurve(prompts=[0, 10, 40], predicted=[1.91, 1.728, inf])
        >>> curve.to_frame()["prompts"].tolist()
        [0.0, 10.0, 40.0]
        >>> (curve - curve[0]).round(3).tolist()
        [0.0, -0.182, inf]
    """

    prompts: Array | None
    """Numbers of prompts, shape (P,); None in an array that was made from a curve."""
    kind: Kind
    _picture: ClassVar[str] = "datadose.drawing.results.draw_error_curve"

    def __new__(cls, prompts: ArrayLike, errors: ArrayLike, kind: Kind) -> ErrorCurve:
        curve = np.array(errors, dtype=np.float64).view(cls)
        curve.prompts, curve.kind = np.array(prompts, dtype=np.float64), kind
        if curve.ndim != 1 or curve.prompts.shape != curve.shape:
            reject(
                "errors", f"shape {curve.shape} for prompts of {curve.prompts.shape}", "one error for each"
            )
        return curve

    def __array_finalize__(self, _: object) -> None:
        # Not taken over: a sorted or reversed copy has its errors at other prompts.
        self.prompts, self.kind = None, "predicted"

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Any arithmetic gives a plain array."""
        if "out" in options:
            options["out"] = tuple(map(_plain, options["out"]))
        return getattr(ufunc, method)(*map(_plain, inputs), **options)

    def __getitem__(self, key: Any) -> Any:
        return np.asarray(self)[key]

    def __copy__(self) -> Any:
        made, values = self.__reduce__()
        return made(*values)

    def __deepcopy__(self, _: Any) -> Any:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        plain = np.array(self)
        if self.prompts is None:
            return np.array, (plain,)
        return ErrorCurve, (self.prompts, plain, self.kind)

    def _facts(self) -> dict[str, object]:
        return {"errors": np.asarray(self)} if self.prompts is None else self._columns()

    def _columns(self) -> dict[str, Any]:
        if self.prompts is None:
            reject("curve", "an array made from a curve", "a curve as it was returned, which has prompts")
        return {"prompts": self.prompts, self.kind: np.asarray(self)}

    def __repr__(self) -> str:
        return repr(np.asarray(self)) if self.prompts is None else super().__repr__()

    __str__ = np.ndarray.__str__


def _plain(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, ErrorCurve) else value
