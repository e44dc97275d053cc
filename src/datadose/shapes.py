"""Arrays whose annotations state their shape, as ``Float[Array, "d B"]``; axes of one name have one length.

Type checkers and readers read ``Annotated``, and at run time nothing is checked and nothing more is imported.
Where jaxtyping has been imported before this module, as the tests do, the same annotations are its types,
which a type checker at run time can enforce.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING or "jaxtyping" not in sys.modules:
    from typing import Annotated as Bool
    from typing import Annotated as Float
    from typing import Annotated as Inexact
    from typing import Annotated as Int
else:
    from jaxtyping import Bool, Float, Inexact, Int

# Not NDArray[...]: from NumPy 2.5 on that is no class, and jaxtyping refuses it.
Array: TypeAlias = np.ndarray[tuple[Any, ...], np.dtype[np.float64]]
"""A float64 array: a spectrum (d,), a matrix (d, d), or the shape that the function states."""
Complex: TypeAlias = np.ndarray[tuple[Any, ...], np.dtype[np.complex128]]
"""A complex128 array, of the shape that the function states."""
Spectrum: TypeAlias = Float[Array, " d"]
"""The eigenvalues of a diagonal matrix, shape (d,)."""
Matrix: TypeAlias = Float[Array, "d d"]
"""A matrix, shape (d, d)."""
Operator: TypeAlias = Spectrum | Matrix
"""An operator on R^d in either form: a spectrum (d,) or a matrix (d, d)."""
PerPrompt: TypeAlias = Float[Array, "d B"]
"""A vector of R^d for each of B prompts, shape (d, B)."""
PerPromptMatrix: TypeAlias = Float[Array, "B d d"]
"""A matrix for each of B prompts, shape (B, d, d)."""

__all__ = [
    "Array",
    "Bool",
    "Complex",
    "Float",
    "Inexact",
    "Int",
    "Matrix",
    "Operator",
    "PerPrompt",
    "PerPromptMatrix",
    "Spectrum",
]
