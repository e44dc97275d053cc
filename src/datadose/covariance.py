"""Covariances in two interchangeable forms: a spectrum, shape (d,), or a dense matrix, shape (d, d).

A spectrum represents the diagonal matrix in the basis that all covariances of a problem share. Every
formula of :mod:`datadose.theory` is written once against the few operations below; with spectra they are
elementwise, so a formula costs O(d) and no d x d matrix is ever formed.
"""

from __future__ import annotations

from functools import reduce
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from datadose.errors import reject
from datadose.shapes import Array as Array  # noqa: PLC0414  (its older home)

RELATIVE_ZERO = 1e-10
"""Eigenvalues of a covariance below this fraction of the largest count as zero (rank, range, PSD check)."""

_COARSE_ZERO = {np.dtype(np.float32): 1e-5, np.dtype(np.float16): 1e-2}
"""The same where a covariance comes in fewer digits; what lies below it is removed on arrival."""

LARGEST_DIMENSION = 1_000_000
"""The largest dimension of a spectrum that is read from a file or made from numbers."""
LARGEST_MATRIX = 20_000
"""Rows of a dense covariance that is read from a file; one of this size fills 3.2 GB."""


def require_size(field: str, shape: tuple[int, ...]) -> None:
    """InputError where a spectrum of ``shape`` (d,) or a matrix (d, d) is larger than one may be."""
    most = LARGEST_DIMENSION if len(shape) == 1 else LARGEST_MATRIX
    if shape and max(shape) > most:
        kind = "a spectrum" if len(shape) == 1 else "a matrix"
        reject(field, f"dimension {max(shape):,}", f"{kind} of dimension at most {most:,}")


def validate_covariance(field: str, value: Any, dimension: int | None = None) -> Array:
    """``value`` as a float64 spectrum (d,) or symmetric PSD matrix (d, d).

    Eigenvalues within 1e-10 of the largest below zero are rounding and pass (1e-5 in float32). In float32,
    eigenvalues below 1e-5 of the largest are rounding too and become exactly zero. The array is read-only,
    and where it is given again it comes back unchecked: a covariance is checked once, where it enters.

    Raises :class:`~datadose.errors.InputError` naming ``field`` if it is empty, not numeric, not finite, of
    the wrong size, not square, not symmetric or not PSD.
    """
    known = _CHECKED.get(id(value))
    if known is not None and known is value and not known.flags.writeable and dimension in (None, len(known)):
        return known
    allowed = "a spectrum of shape (d,) or a symmetric PSD matrix of shape (d, d), finite"
    given = _numbers(field, value, allowed)
    C, zero = given.astype(np.float64), _COARSE_ZERO.get(given.dtype, RELATIVE_ZERO)
    if C.ndim not in (1, 2) or C.size == 0 or (C.ndim == 2 and C.shape[0] != C.shape[1]):
        reject(field, f"shape {C.shape}", allowed)
    if dimension is not None and C.shape[0] != dimension:
        reject(field, f"shape {C.shape}", f"dimension {dimension}, as in the other covariances")
    _require_finite(field, C, allowed)
    scale = float(np.abs(C).max())
    if C.ndim == 2:
        asymmetry = float(np.abs(C - C.T).max())
        if asymmetry > zero * scale:
            mend = f"{allowed}; if the difference is rounding, give (C + C.T) / 2"
            reject(field, f"an asymmetric matrix (largest difference {asymmetry:.3g})", mend)
        C = (C + C.T) / 2
    if not _is_psd(C, zero * scale):
        smallest = float(C.min() if C.ndim == 1 else np.linalg.eigvalsh(C)[0])
        mend = (
            f"{allowed}, eigenvalues >= {-zero * scale:.3g}; if a negative one is rounding (few digits), cut "
            "the matrix to its range: keep the eigenvalues above the rounding and set the others to 0"
        )
        reject(field, f"smallest eigenvalue {smallest:.6g}", mend)
    if C.ndim == 1:
        C = np.maximum(C, 0.0)
    if zero > RELATIVE_ZERO:
        C = _without_small(C, zero)
    C.setflags(write=False)
    _CHECKED[id(C)] = C
    return C


_CHECKED: WeakValueDictionary[int, Array] = WeakValueDictionary()
"""The living covariances that have been checked, by their id."""


def validate_operator(field: str, value: Any, dimension: int | None = None) -> Array:
    """The ``value`` as a float64 operator on R^d: a spectrum (d,) or any real matrix (d, d).

    With ``dimension`` d is given; otherwise it may be any. Raises
    :class:`~datadose.errors.InputError` naming ``field`` if it is not an array of numbers, not finite or of
    another shape.
    """
    d = dimension if dimension is not None else "d"
    allowed = f"an array of shape ({d},) or ({d}, {d}), finite"
    if not isinstance(value, np.ndarray) or value.ndim == 0:
        reject(field, type(value).__name__, allowed)
    dimension = len(value) if dimension is None else dimension
    V = np.asarray(_numbers(field, value, allowed), dtype=np.float64)
    if V.shape not in ((dimension,), (dimension, dimension)):
        reject(field, f"shape {V.shape}", allowed)
    _require_finite(field, V, allowed)
    return V


def _numbers(field: str, value: Any, allowed: str) -> NDArray[Any]:
    """A new array of real numbers, of the type that they come in."""
    try:
        found = np.array(value)
        if found.dtype.kind not in "fiubc":
            found = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        reject(field, type(value).__name__, allowed)
    if found.dtype.kind == "c":
        reject(field, "complex numbers", allowed)
    return found


def _require_finite(field: str, M: Array, allowed: str) -> None:
    if not np.isfinite(M).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(M))[0])
        reject(field, f"{M[where]} at index {where}", allowed)


def _is_psd(C: Array, slack: float) -> bool:
    """Whether no eigenvalue is below -slack; for matrices by one Cholesky factorisation."""
    if C.ndim == 1:
        return bool(C.min() >= -slack)
    if slack == 0:
        return True
    try:
        np.linalg.cholesky(C / slack + np.eye(len(C)))
    except np.linalg.LinAlgError:
        return bool(np.linalg.eigvalsh(C)[0] >= -slack)
    return True


def _without_small(C: Array, zero: float) -> Array:
    """``C`` with the eigenvalues below ``zero`` of the largest set to 0; untouched where there are none."""
    if C.ndim == 1:
        return np.where(zero * C.max() < C, C, 0.0)
    values, vectors = np.linalg.eigh(C)
    keep = values > zero * values[-1]
    return C if keep.all() else np.asarray((vectors[:, keep] * values[keep]) @ vectors[:, keep].T)


def is_spectrum(M: Array) -> bool:
    """Whether ``M`` is a spectrum, shape (d,), and not a dense matrix (d, d)."""
    return M.ndim == 1


def dense(M: Array) -> Array:
    """The operator ``M``, (d,) or (d, d), as a dense matrix (d, d)."""
    return np.diag(M) if is_spectrum(M) else M


def same_form(*matrices: Array) -> tuple[Array, ...]:
    """The ``matrices`` in one form: spectra if all are spectra, else all dense."""
    if all(is_spectrum(M) for M in matrices):
        return matrices
    return tuple(dense(M) for M in matrices)


def identity_like(M: Array) -> Array:
    """The identity in the form and size of ``M``."""
    return np.ones(len(M)) if is_spectrum(M) else np.eye(len(M))


def product(*matrices: Array) -> Array:
    """The matrix product. Spectra and matrices, also rectangular ones, may be mixed (dense if any is)."""
    return reduce(_product_of_two, matrices)


def _product_of_two(X: Array, Y: Array) -> Array:
    if is_spectrum(X):
        return X * Y if is_spectrum(Y) else X[:, None] * Y
    return X * Y if is_spectrum(Y) else X @ Y


def plus(*matrices: Array) -> Array:
    """The sum of ``matrices``; dense if any operand is dense."""
    return reduce(np.add, same_form(*matrices))


def transpose(M: Array) -> Array:
    """The transpose of ``M`` (a spectrum is its own)."""
    return M if is_spectrum(M) else M.T


def inverse(M: Array) -> Array:
    """The inverse of a positive definite ``M``, in its form."""
    if is_spectrum(M):
        return 1.0 / M
    inverted = np.linalg.inv(M)
    return (inverted + inverted.T) / 2


def trace(M: Array) -> float:
    """The trace of ``M``, (d,) or (d, d)."""
    return float(M.sum() if is_spectrum(M) else np.trace(M))


def trace_product(X: Array, Y: Array) -> float:
    """tr(X Y) without forming the product; the forms may differ."""
    if X.ndim != Y.ndim:
        return float(diagonal(X) @ diagonal(Y))
    return float((X * Y).sum() if is_spectrum(X) else (X * Y.T).sum())


def trace_between(columns: Array, M: Array) -> float:
    """tr(X^T M X) for ``columns`` X, a spectrum or a matrix (d, r)."""
    if is_spectrum(columns):
        return float(diagonal(M) @ columns**2)
    return float((columns * product(M, columns)).sum())


def diagonal(M: Array) -> Array:
    """The diagonal of ``M``, shape (d,) (a spectrum is its own)."""
    return M if is_spectrum(M) else M.diagonal()


def frobenius_squared(M: Array) -> float:
    """The squared Frobenius norm ||M||_F^2, not divided by d."""
    return float((M * M).sum())


def square_root(M: Array) -> Array:
    """The symmetric PSD square root, in the form of ``M``."""
    if is_spectrum(M):
        return np.sqrt(M)
    values, vectors = np.linalg.eigh(M)
    root = np.sqrt(np.clip(values, 0.0, None))
    # An eigenvalue that is zero up to rounding must not leak sqrt(rounding) into the null space.
    root[values <= RELATIVE_ZERO * values[-1]] = 0.0
    return np.asarray((vectors * root) @ vectors.T)


def range_basis(M: Array) -> Array:
    """An orthonormal basis of range(M), shape (d, rank)."""
    values, vectors = spectral_basis(M)
    return np.asarray((np.eye(len(M)) if vectors is None else vectors)[:, values > 0])


def rank(M: Array) -> int:
    """The rank of a covariance ``M``: the number of eigenvalues above 1e-10 of the largest."""
    values = M if is_spectrum(M) else np.linalg.eigvalsh(M)
    return int((values > RELATIVE_ZERO * values.max()).sum()) if values.max() > 0 else 0


def rotated(M: Array, basis: Array) -> Array:
    """The matrix U^T M U, for an orthonormal ``basis`` U (d, r)."""
    return product(transpose(basis), product(M, basis))


def spectral_basis(matrix: Array) -> tuple[Array, Array | None]:
    """Eigenvalues of a covariance and its basis (None for a spectrum: its own).

    Eigenvalues that count as zero are exactly zero.
    """
    values, vectors = (matrix, None) if is_spectrum(matrix) else np.linalg.eigh(matrix)
    return np.where(values > RELATIVE_ZERO * max(values.max(), 0.0), values, 0.0), vectors


def range_projector(M: Array) -> Array:
    """The orthogonal projector onto range(M), in the form of ``M``."""
    if is_spectrum(M):
        return np.where(M > RELATIVE_ZERO * M.max(), 1.0, 0.0)
    basis = range_basis(M)
    return basis @ basis.T


def wishart_second_moment(covariance: Array, length: int) -> Array:
    """E[S^2] = (1 + 1/n) Cov^2 + (tr Cov / n) Cov for S = (1/n) sum of n outer products of N(0, Cov).

    It appears three times: as Gamma0 Sigma0 in pretraining (3.7), as E[phi phi^T] of post-training data
    (Prop 4.3), and in the post-test error (Prop 5.1).

    Args:
        covariance: Cov, a spectrum (d,) or a PSD matrix (d, d).
        length: n >= 1.

    Returns:
        E[S^2] in the form of ``covariance``; not divided by d.
    """
    n = length
    return (1 + 1 / n) * product(covariance, covariance) + (trace(covariance) / n) * covariance
