"""Supervised fine-tuning on chains of thought: Thm 4.1, Thm 4.2, Prop 4.3 and section 5.1.

Notation (paper section 4): Omega = [w*_1 .. w*_B], Phi = [S_1 w*_1 .. S_B w*_B] (d x B), M = Phi Phi^T,
eta the chain's step, c_k = sum_{i=0..k} (1-eta)^{2i}, V0 = -Gamma0^{-1} the pretrained operator. With
W~ = I a teacher-forced chain of k+1 steps is c_k copies of one regression, -eta w* on S w*:
L_SFT = c_k/(2B) ||V Phi + eta Omega||_F^2. Derivations: docs/derivations/sft.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from datadose.covariance import (
    dense,
    frobenius_squared,
    plus,
    product,
    range_basis,
    spectral_basis,
    validate_covariance,
    validate_operator,
)
from datadose.errors import require_integer, require_number
from datadose.prompts import Moments
from datadose.shapes import Array, Float, Inexact, Matrix, Operator, PerPrompt, PerPromptMatrix
from datadose.shift import Shift


def chain_weight(eta: float, steps: int) -> float:
    """The weight c_k = sum_{i=0..k} (1-eta)^{2i} of a chain of thought in L_SFT (Thm 4.2).

    A chain of k + 1 demonstrated steps counts as c_k copies of the one-step loss.

    Args:
        eta: step of the demonstrated chain, in (0, 2).
        steps: k >= 0.

    Raises InputError for a value out of range.
    """
    require_number("eta", eta, 0, 2, open_ends=True)
    k = require_integer("steps", steps, 0)
    return float(((1.0 - eta) ** (2 * np.arange(k + 1))).sum())


def sft_loss(V: Operator, moments: Moments, eta: float, steps: int) -> float:
    """The SFT loss L_SFT = c_k/(2B) ||V Phi + eta Omega||_F^2 at W~ = I (Thm 4.2). It is not divided by d.

    Args:
        V: operator V~, a spectrum (d,) or a matrix (d, d).
        moments: Omega and Phi of B prompts, each (d, B).
        eta: step of the demonstrated chain, in (0, 2).
        steps: k >= 0 of the chain.

    Raises InputError where ``eta`` or ``steps`` is out of range.
    """
    residual = dense(V) @ moments.phi + eta * moments.weights
    return float(chain_weight(eta, steps) * frobenius_squared(residual) / (2 * residual.shape[1]))


def sft_gradient(V: Operator, moments: Moments, eta: float, steps: int) -> Matrix:
    """The gradient dL_SFT/dV~ = (c_k/B) (V Phi + eta Omega) Phi^T at W~ = I, shape (d, d).

    The arguments and errors are those of :func:`sft_loss`. The gradient is not divided by d.
    """
    residual = dense(V) @ moments.phi + eta * moments.weights
    return np.asarray(chain_weight(eta, steps) / residual.shape[1] * residual @ moments.phi.T)


def chain_residuals(
    V: Inexact[Array, "d d"],
    W: Inexact[Array, "d d"],
    weights: PerPrompt,
    covariances: PerPromptMatrix,
    eta: float,
    steps: int,
) -> Inexact[Array, "k B d"]:
    """The teacher-forced residuals w_i + V S (W w_i - w*) - w_{i+1} of eq. (A.1), for i = 0..k.

    They give L_SFT = ||residuals||^2 / (2B) for any V~ and W~. Complex inputs are accepted, so that
    derivatives can be taken by a complex step.

    Args:
        V, W: the blocks V~ and W~, each (d, d).
        weights: tasks w* of B prompts, shape (d, B).
        covariances: empirical covariances S of the prompts, shape (B, d, d).
        eta: step of the demonstrated chain, in (0, 2).
        steps: k >= 0.

    Returns:
        The residuals, shape (k+1, B, d).
    """
    decay = (1 - eta) ** np.arange(steps + 2)
    chain = (1 - decay)[:, None, None] * weights.T
    off_target = chain[:-1] @ W.T - weights.T
    seen = np.einsum("bij,kbj->kbi", covariances, off_target, optimize=True)
    return np.asarray(chain[:-1] + seen @ V.T - chain[1:])


def sft_minimiser(moments: Moments, eta: float, V0: Operator) -> Matrix:
    """The minimiser V* = -eta Omega Phi^+ + V0 (I - Phi Phi^+) of L_SFT that is nearest to V0 (Thm 4.1).

    For B <= rank(Phi) it interpolates and (V*, W~ = I) is the nearest global minimum of L_SFT over both
    matrices. For B > rank(Phi) it is the least-squares V~ at W~ = I only: unless eta = 1 the loss still
    decreases in W~ there, so the paper's zero-loss proof does not cover it (see
    :func:`attention_gradient_at_minimiser` and docs/errata.md).

    Args:
        moments: Omega and Phi of B prompts, each (d, B).
        eta: step of the demonstrated chain, in (0, 2).
        V0: operator before SFT, a spectrum (d,) or a matrix (d, d).

    Returns:
        V*, shape (d, d).

    Raises:
        InputError: ``V0`` is not a finite operator of the prompts' dimension.
    """
    return nearest_fit(moments.phi, -eta * moments.weights, V0)


def nearest_fit(columns: Float[Array, "d N"], answers: Float[Array, "d N"], V0: Operator) -> Matrix:
    """The least-squares solution V of V columns = answers that is nearest to V0.

    Args:
        columns: shape (d, N). Singular values at the rounding of the largest count as zero.
        answers: shape (d, N).
        V0: a spectrum (d,) or a matrix (d, d).

    Returns:
        V, shape (d, d).

    Raises:
        InputError: ``V0`` is not a finite operator of the columns' size.
    """
    V0 = dense(validate_operator("V0", V0, len(columns)))
    # Least squares on the increment over V0 is the minimum-norm change, i.e. the projection onto V0.
    increment, *_ = np.linalg.lstsq(columns.T, (answers - V0 @ columns).T, rcond=None)
    return np.asarray(V0 + increment.T)


def first_order_minimiser(moments: Moments, data: Operator, eta: float, V0: Operator) -> Matrix:
    """The approximation V~ = VS + VN of V* that Thm B.1 describes, eq. (B.3); shape (d, d).

    With M = A Omega and E = Phi - M it is VS = -eta Omega M^+ + V0 (I - M M^+) and VN = -VS E M^+. For
    B < rank(A) eq. (B.3) leaves out one term of first order in E (docs/errata.md, 7).

    Args:
        moments: Omega and Phi of B prompts, each (d, B).
        data: covariance A of the prompts, a spectrum (d,) or a matrix (d, d).
        eta: step of the demonstrated chain, in (0, 2).
        V0: operator before SFT, a spectrum (d,) or a matrix (d, d).
    """
    V0 = dense(V0)
    if moments.phi.shape[1] == 0:
        return V0
    basis = range_basis(data)
    M = product(data, moments.weights)
    # M has full rank on range(A), so its pseudo-inverse is a triangular solve after one QR.
    reduced = basis.T @ M
    wide = reduced.shape[1] > reduced.shape[0]
    q, R = np.linalg.qr(reduced.T if wide else reduced)
    solved = solve_triangular(R, q.T)
    pinv = (solved.T if wide else solved) @ basis.T
    signal = V0 + (-eta * moments.weights - V0 @ M) @ pinv
    return np.asarray(signal - (signal @ (moments.phi - M)) @ pinv)


def attention_gradient_at_minimiser(
    V: Operator, weights: PerPrompt, covariances: PerPromptMatrix, eta: float, steps: int
) -> Matrix:
    """The gradient dL_SFT/dW~ at (V, W~ = I): -(1/B) sum_i c_i (1 - c_i) sum_tau S V^T R w*^T.

    Here c_i = (1-eta)^i along the chain and R = (V S + eta I) w*. The gradient is zero where every prompt
    is interpolated (R = 0) and, for B > rank, at the least-squares V only if eta = 1.

    Args:
        V: operator, (d, d) or spectrum (d,).
        weights: tasks w* of B prompts, (d, B).
        covariances: empirical covariances S, (B, d, d).
        eta: step of the demonstrated chain, in (0, 2).
        steps: k >= 0 of the chain.

    Returns:
        The gradient, shape (d, d), not divided by d.
    """
    V = dense(V)
    decay = (1 - eta) ** np.arange(steps + 1)
    phi = np.einsum("bij,jb->ib", covariances, weights)
    residual = V @ phi + eta * weights
    pulled = np.einsum("bij,jb->ib", covariances, V.T @ residual)
    # At W~ = I and w_i = (1 - c_i) w*, step i leaves the residual -c_i R; W~ acts on w_i.
    return np.asarray(-(decay * (1 - decay)).sum() / weights.shape[1] * pulled @ weights.T)


@dataclass(frozen=True)
class GradientDescent:
    """Gradient descent on L_SFT in V~ at W~ = I, in closed form (Thm 4.2).

    V_t = V* + (V0 - V*) (I - gamma c_k M / B)^t, with gamma the step size; each eigendirection of M
    contracts on its own, and the complement of range(Phi) never moves.
    """

    minimiser: Matrix
    start: Matrix
    eigenvalues: Float[Array, " r"]
    """Positive eigenvalues of c_k M / B, the curvatures of the loss."""
    eigenvectors: Float[Array, "d r"]

    @classmethod
    def of(cls, moments: Moments, eta: float, V0: Operator, steps: int) -> GradientDescent:
        """The dynamics of gradient descent from ``V0`` on these prompts.

        Args:
            moments: Omega and Phi of B prompts, each (d, B).
            eta: step of the demonstrated chain, in (0, 2).
            V0: operator before SFT, a spectrum (d,) or a matrix (d, d).
            steps: k >= 0 of the chain.
        """
        left, singular, _ = np.linalg.svd(moments.phi, full_matrices=False)
        keep = singular > singular[0] * max(moments.phi.shape) * np.finfo(np.float64).eps
        curvature = chain_weight(eta, steps) * singular[keep] ** 2 / moments.phi.shape[1]
        return cls(sft_minimiser(moments, eta, V0), dense(V0), curvature, left[:, keep])

    @property
    def largest_step(self) -> float:
        """The step 2B / (c_k lambda_max(M)). At or above it gradient descent does not converge."""
        return float(2 / self.eigenvalues.max())

    @property
    def balanced_step(self) -> float:
        """B / (c_k lambda_max(M)), the step of the paper's simplified rate 1 - lambda_min+/lambda_max."""
        return float(1 / self.eigenvalues.max())

    def rate(self, step: float) -> float:
        """Factor max_i |1 - gamma c_k lambda_i / B| by which ||V_t - V*|| shrinks per iteration (Thm 4.2).

        The maximum is over the eigenvalues lambda_i > 0 of M; gamma = ``step`` > 0. A factor above 1 means
        divergence. Raises InputError for a step out of range.
        """
        require_number("step", step, 0, np.inf, open_ends=True)
        ends = np.array([self.eigenvalues.max(), self.eigenvalues.min()])
        return float(np.abs(1 - step * ends).max())

    def iterate(self, step: float, iterations: int) -> Matrix:
        """The operator V after ``iterations`` >= 0 steps of size ``step`` > 0, shape (d, d).

        Raises InputError for a value out of range.
        """
        require_number("step", step, 0, np.inf, open_ends=True)
        t = require_integer("iterations", iterations, 0)
        gap = (self.start - self.minimiser) @ self.eigenvectors
        shrunk = gap * (1 - step * self.eigenvalues) ** t
        return np.asarray(self.minimiser + shrunk @ self.eigenvectors.T)


def population_minimiser(data: Operator, length: int, eta: float, V0: Operator) -> Operator:
    """The limit V_inf of V* for infinitely many prompts (Prop 4.3).

    V_inf = -eta ((n+1)/n A + (tr A / n) A A^+)^+ + V0 (I - A A^+), which equals
    -eta A (E[S^2])^+ + V0 (I - A A^+). It is not divided by d.

    Args:
        data: covariance A of the post-training prompts, a spectrum (d,) or a PSD matrix (d, d).
        length: prompt length n >= 1, in examples.
        eta: step of the demonstrated chain, in (0, 2).
        V0: operator before SFT, a spectrum (d,) or a matrix (d, d).

    Returns:
        V_inf, which is a spectrum if both inputs are spectra, else a matrix.

    Raises:
        InputError: ``data`` is no covariance, ``length`` is below 1, or ``V0`` is no operator of this size.
    """
    n = require_integer("length", length, 1)
    data = validate_covariance("data", data)
    V0 = validate_operator("V0", V0, len(data))
    values, vectors = spectral_basis(data)
    inside, inverse = values > 0, (1 + 1 / n) * values + values.sum() / n
    fitted = np.where(inside, -eta / np.where(inside, inverse, 1.0), 0.0)
    missed = np.where(inside, 0.0, 1.0)
    if vectors is None:
        return plus(fitted, product(V0, missed))
    return (vectors * fitted) @ vectors.T + product(V0, (vectors * missed) @ vectors.T)


def optimal_allocation(shift: Shift, interference: float = 0.0) -> Operator:
    """The paper's covariance of post-training data, A = eta (P Sigma0 P + Delta) + r (I - P) (section 5.1).

    P projects onto the range of Delta. With this A, V_inf tends to -Sigma^{-1} on the shift's directions as n
    grows. The choice is exact only in that limit: the planner improves on it at finite n and B.

    Args:
        shift: Sigma0, Delta and eta.
        interference: r, the variance of the data outside the range of Delta; 0 or more.

    Returns:
        A, in the form of the shift's covariances.
    """
    return Shift.aligned(shift.sigma0, shift.delta, shift.eta, interference).data
